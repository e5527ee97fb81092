"""Targets are read, written and bound without a model."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xaitools.errors import TargetError
from xaitools.targets import Target, bind, expand
from xaitools.types import REST, Prediction, Sample

SEGMENTS = Prediction(
    "segmentation", ("void", "car", "traffic light"), (4, 6), torch.tensor([0, 2, 1]), torch.tensor([0.9, 0.8, 0.7]),
    semantic=torch.tensor([[0, 0, 0, 1, 2, 2]] * 4), background=0,
)  # fmt: skip
BOXES = Prediction(
    "detection", ("car", "dog"), (40, 60), torch.tensor([1, 0, 1]), torch.tensor([0.9, 0.5, 0.2]),
    boxes=torch.tensor([[0.0, 0, 10, 10], [5, 5, 20, 20], [30, 30, 40, 40]]),
    origins=torch.tensor([[1.0, 1, 11, 11], [6, 6, 21, 21], [31, 31, 41, 40]]),
)  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "top", "all", "class:car", "pixel:3,2", "pixel:3.5,2:car", "region:traffic light", "region:gt:car", "box:0", "box:12:left",
        "box:1,2,3.5,4:dog", "mask:2", "class:car:vs:dog", "class:car:vs:", "pixel:1,1:a%3Ab", "top:vs:",
    ],
)  # fmt: skip
def test_a_target_reads_and_writes_itself(text):
    assert str(Target.parse(text)) == text
    assert Target.parse(str(Target.parse(text))) == Target.parse(text)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 1e4))
def test_any_place_survives_the_round_trip(x, y):
    try:
        target = Target.parse(f"pixel:{x!r},{y!r}")
    except TargetError:
        assert abs(x) > 1.79e308
        return
    assert Target.parse(str(target)) == target and target.place == pytest.approx((x, y), rel=1e-9)


@given(st.text(min_size=1, max_size=12))
def test_any_name_survives_the_round_trip(name):
    target = Target("class", name, versus=name)
    assert Target.parse(str(target)) == target


@given(st.text(max_size=30))
def test_any_text_is_a_target_or_one_clear_line(text):
    try:
        Target.parse(text)
    except TargetError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("text", ["", "box", "box:", "box:-1", "box:1:up", "box:1,2,3:car", "pixel:1", "pixel:nan,1", "region:", "box:²",
                                  "box:1:left:vs:car", "all:vs:car", "mask:0:vs:car", "class:"])  # fmt: skip
def test_what_is_no_target_is_refused_with_the_forms(text):
    with pytest.raises(TargetError, match="expected|drop"):
        Target.parse(text)


def test_top_and_all_leave_the_background_out():
    assert [str(each) for each in expand("top", SEGMENTS)] == ["region:traffic light"]
    assert [str(each) for each in expand("all", SEGMENTS)] == ["region:traffic light", "region:car"]
    assert [str(each) for each in expand("all", BOXES)] == ["box:0", "box:1", "box:2"]
    assert [str(each) for each in expand("top:vs:", BOXES)] == ["box:0:vs:"]


def test_binding_fixes_pixels_class_and_proposal():
    region = bind("region:car", SEGMENTS)
    assert region.class_index == 1 and region.region.sum() == 4
    pixel = bind("pixel:4,1", SEGMENTS)
    assert pixel.class_index == 2 and pixel.region.nonzero().tolist() == [[1, 4]]
    assert bind("pixel:4,1:car:vs:traffic light", SEGMENTS).versus == 2
    box = bind("box:1:top", BOXES)
    assert (box.class_index, box.edge, box.proposal.tolist()) == (0, "top", [6, 6, 21, 21])
    assert bind("class:dog:vs:", BOXES).versus == REST
    assert bind("box:1,2,3,4:dog", BOXES).proposal.tolist() == [1, 2, 3, 4]


def test_a_ground_truth_region_comes_from_the_annotation():
    sample = Sample("a", torch.zeros(3, 4, 6), semantic=torch.tensor([[7, 7, 0, 0, 0, 0]] * 4))
    classes = ["x", *"abcdef", "car"]
    assert bind("region:gt:car", SEGMENTS, sample, classes).region.sum() == 8
    with pytest.raises(TargetError, match="annotated image"):
        bind("region:gt:car", SEGMENTS)


@pytest.mark.parametrize(
    ("target", "prediction"),
    [
        ("class:cat", SEGMENTS), ("pixel:6,0", SEGMENTS), ("pixel:0,-1", SEGMENTS), ("box:0", SEGMENTS), ("region:car:vs:cat", SEGMENTS),
        ("box:3", BOXES), ("pixel:1,1", BOXES), ("box:50,0,61,10:car", BOXES), ("box:5,5,5,9:car", BOXES), ("mask:0", BOXES),
        ("region:car", BOXES), ("box:0:vs:cat", BOXES),
    ],
)  # fmt: skip
def test_what_the_prediction_does_not_hold_is_refused_in_one_line(target, prediction):
    with pytest.raises(TargetError) as caught:
        bind(target, prediction)
    assert "\n" not in str(caught.value)


def test_a_black_box_says_where_its_box_is_and_not_what_it_came_from():
    decision = bind("box:0", replace(BOXES, origins=None))
    assert decision.box.equal(BOXES.boxes[0]) and decision.proposal is None and decision.anchor is None


def test_one_stage_boxes_lead_to_their_anchor():
    candidates = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 32], [0, 0, 12, 14]])
    one_stage = replace(BOXES, origins=None, anchors=torch.arange(len(BOXES.labels)) + 5, candidates=candidates)
    assert bind("box:1", one_stage).anchor == 6
    given = bind(f"box:1,0,12,13:{BOXES.classes[0]}", one_stage)
    assert given.anchor == 2 and given.proposal is None


def test_a_mask_is_its_positive_cells():
    cells = torch.zeros(len(BOXES.labels), 4, 4, dtype=torch.bool)
    cells[0, 1:3] = True
    instances = replace(BOXES, task="instances", cells=cells)
    assert bind("mask:0", instances).cells.equal(cells[0])
    with pytest.raises(TargetError, match="empty"):
        bind("mask:1", instances)
