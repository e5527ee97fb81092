from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xaitools.data.relabel import Relabel
from xaitools.errors import DataError
from xaitools.types import IGNORE, Sample


def dataset(task="instances", classes=("car", "traffic light", "zebra"), semantic=("background", "car", "traffic light", "zebra")):
    return SimpleNamespace(name="made-up", task=task, classes=classes, semantic_classes=semantic, things=frozenset(classes))


def sample(**fields):
    return Sample("photo", torch.zeros(3, 8, 8), **fields)


BOXES = torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3], [2, 2, 4, 4]])


def test_indices_become_the_models():
    relabel = Relabel(dataset(), "detection", ["Traffic_Light", "person", "car"])
    masks = torch.arange(3).view(3, 1, 1).expand(3, 8, 8) > 1
    given = sample(
        label=1, boxes=BOXES, labels=torch.tensor([2, 0, 1]), masks=masks,
        ignore=torch.tensor([True, False, True]), semantic=torch.tensor([[0, 1, 2, 3, IGNORE]]),
    )  # fmt: skip
    result = relabel(given)
    assert result.label == 0
    assert result.labels.tolist() == [2, 0]
    assert result.boxes.tolist() == BOXES[1:].tolist()
    assert result.ignore.tolist() == [False, True]
    assert torch.equal(result.masks, masks[1:])
    assert result.semantic.tolist() == [[IGNORE, 2, 0, IGNORE, IGNORE]]
    assert given.labels.tolist() == [2, 0, 1] and result.image is given.image


def test_an_exact_name_goes_before_a_similar_one():
    relabel = Relabel(dataset(classes=("Car", "car", "CAR")), "detection", ["car", "Car"])
    assert [relabel.model_index(name) for name in ("Car", "car", "CAR", "bus")] == [1, 0, 0, None]


@given(st.lists(st.text("abz", min_size=1, max_size=4), min_size=1, max_size=4), st.sampled_from([" ", "_", "-"]), st.booleans())
def test_case_and_separators_do_not_matter(words, separator, upper):
    name = separator.join(words)
    relabel = Relabel(dataset(classes=(name.upper() if upper else name,)), "detection", ["0", " ".join(words)])
    assert relabel.model_index(name) == 1


def test_what_is_not_judged_is_said():
    relabel = Relabel(dataset(), "detection", ["car", "traffic light", "person"])
    assert relabel.warnings == [
        "not judged, because the model does not know them: zebra (their boxes are left out)",
        "not judged, because the data has no such class: person",
    ]
    assert Relabel(dataset(), "detection", ["zebra", "traffic-light", "car"]).warnings == []


def test_long_lists_are_cut():
    relabel = Relabel(dataset(), "detection", ["car", "traffic light", "zebra", *(f"thing {i}" for i in range(20))])
    assert relabel.warnings[0].endswith("thing 7 and 12 more")


def test_fewer_than_half_is_refused_with_the_nearest_names():
    with pytest.raises(DataError, match=r"knows 1 of the data's 3 classes.*traffic light \(nearest: traffic lamp\), zebra;"):
        Relabel(dataset(), "detection", ["traffic lamp", "car"])
    Relabel(dataset(classes=("car", "zebra")), "detection", ["car"])  # half is enough


def test_a_segmentation_model_is_matched_by_the_semantic_classes():
    relabel = Relabel(dataset(classes=("unheard of",)), "segmentation", ["background", "car", "zebra", "traffic light"])
    assert relabel(sample(semantic=torch.tensor([[3, 2]]))).semantic.tolist() == [[2, 3]]
    assert relabel.warnings == []


def test_an_unknown_image_label_becomes_none():
    relabel = Relabel(dataset("classification"), "classification", ["car", "traffic light"])
    assert relabel(sample(label=2)).label is None
    assert "their images are left out" in relabel.warnings[0]


@pytest.mark.parametrize(
    ("data", "task", "message"),
    [
        (dataset("detection", semantic=()), "segmentation", "has no semantic maps"),
        (dataset("segmentation"), "detection", "has no boxes"),
        (dataset("classification"), "instances", "has no boxes"),
    ],
)
def test_data_without_the_truth_is_refused(data, task, message):
    with pytest.raises(DataError, match=message):
        Relabel(data, task, ["background", "car", "traffic light", "zebra"])


@pytest.mark.parametrize(("task", "what"), [("segmentation", "semantic maps"), ("detection", "boxes"), ("classification", "image labels")])
def test_a_sample_without_the_truth_is_refused(task, what):
    relabel = Relabel(dataset(), task, ["background", "car", "traffic light", "zebra"])
    with pytest.raises(DataError, match=rf"^photo: no {what}"):
        relabel(sample())


def test_an_image_without_objects_stays():
    result = Relabel(dataset(), "detection", ["car", "zebra"])(sample(boxes=torch.zeros(0, 4), labels=torch.zeros(0).long()))
    assert result.boxes.shape == (0, 4) and len(result.labels) == 0
