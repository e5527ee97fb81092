"""What a model decided and where the relevance of that lies, on models whose answer is known by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.audit.test_shift import CROSS, Tagged
from tests.probes.toys import CLASSES, SIDE, Boxes, reader
from xaitools.adapters import SegmentationModel
from xaitools.audit.decisions import PARTS, Limits, Looker, cells, chosen_of, kept_of, measure_decisions, parts_of, right_of
from xaitools.audit.records import Folder, Memory
from xaitools.errors import MethodError
from xaitools.probes import Context
from xaitools.types import IGNORE, Prediction, Sample


class Marked(Tagged):
    """The tag is violet, so that it is no object of its own."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        image = sample.image.clone()
        if "artifact_xyxy" in sample.tags:
            image[1, 26:, 26:] = 0
        return replace(sample, image=image)


class Red(nn.Module):
    """Objects are green; they are discs where the lower right corner is redder than 0.8, and else squares."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(20.0))

    def forward(self, x: Tensor) -> Tensor:
        tag = (self.gain * (x[:, 0, 26:, 26:].mean((1, 2)) - 0.8)).view(-1, 1, 1).expand_as(x[:, 0])
        return torch.stack([40 * (0.7 - x[:, 1]), tag, -tag], 1)


def red() -> SegmentationModel:
    return SegmentationModel(Red(), CLASSES, background=0, name="red")


def test_cells_are_sums_of_pixels_cut_by_hand():
    values = np.random.default_rng(0).random((5, 7))
    box, side = (-1.3, 0.4, 6.2, 5.9), 3
    found = cells(values, box, side)

    def share(low: float, high: float, pixel: int) -> float:
        return max(0.0, min(high, pixel + 1) - max(low, pixel))

    wide, high = (box[2] - box[0]) / side, (box[3] - box[1]) / side
    for row in range(side):
        for column in range(side):
            left, top = box[0] + column * wide, box[1] + row * high
            plain = sum(values[y, x] * share(top, top + high, y) * share(left, left + wide, x) for y in range(5) for x in range(7))
            assert found[row, column] == pytest.approx(plain, abs=1e-12)
    assert cells(values, (0, 0, 7, 5), 4).sum() == pytest.approx(values.sum())


def test_each_pixel_is_of_one_part_and_the_first_that_fits():
    sample = Tagged(4)[0]
    place = sample.masks[0]
    parts = dict(zip(PARTS, parts_of(Context(Tagged(4)), sample, place), strict=True))
    assert bool((torch.stack(list(parts.values())).sum(0) == 1).all())
    assert torch.equal(parts["object"], place) and int(parts["declared"].sum()) == 36 and not bool(parts["others"].any())
    smaller = place & (torch.arange(SIDE) > int(place.any(0).nonzero()[0]))  # the box of a detector may cut its object
    assert not bool(parts_of(Context(Tagged(4)), sample, smaller)[PARTS.index("others")].any())
    stranger = torch.zeros_like(place)
    stranger[:3, :3] = True
    parts = dict(zip(PARTS, parts_of(Context(Tagged(4)), sample, stranger), strict=True))
    assert torch.equal(parts["others"], place & ~stranger & ~parts["declared"])
    assert float(parts["border"][0, 8:].double().mean()) == 1.0 and not bool(parts["border"][4:-4, 4:-4].any())


def test_the_decisions_of_a_model_that_reads_a_tag_lie_on_the_tag():
    data = Marked(12)
    found = measure_decisions(Context(data, red()), range(12), Memory(), method=CROSS)
    assert found.method == CROSS and len(found.made) == 12 and not found.skipped
    for each in found.of(CLASSES.index("disc")):
        assert each.right is True and each.shares[PARTS.index("declared")] > 0.99 and each.shares.sum() == pytest.approx(1)
        assert each.areas[PARTS.index("declared")] == pytest.approx(36 / SIDE**2) and each.areas.sum() == pytest.approx(1)
        assert each.place.sum() == pytest.approx(1, abs=0.01) and each.place[13:, 13:].sum() == pytest.approx(each.place.sum())
    assert {each.item for each in found.of(1)} == {data.ids[index] for index in range(0, 12, 2)}


def test_the_truth_says_what_is_right_and_what_does_not_count():
    truth = Sample("a", torch.zeros(3, 8, 8), boxes=torch.tensor([[0.0, 0, 4, 4], [4, 4, 8, 8]]), labels=torch.tensor([0, 1]),
                   ignore=torch.tensor([False, True]))  # fmt: skip
    boxes = torch.tensor([[0.0, 0, 4, 4], [4, 4, 8, 8], [0, 4, 4, 8]])
    said = Prediction("detection", ("a", "b"), (8, 8), torch.tensor([0, 1, 0]), torch.tensor([0.9, 0.8, 0.4]), boxes=boxes)
    assert right_of(truth, said) == [True, None, False] and chosen_of(said, Limits()) == [0, 1]
    assert chosen_of(said, Limits(score=0.3, per_image=2)) == [0, 1]
    semantic = torch.zeros(8, 8, dtype=torch.int64)
    semantic[:4] = 1
    right, wrong = semantic.clone(), semantic.flip(0)
    guess = Prediction("segmentation", ("ground", "a"), (8, 8), torch.tensor([1, 0]), torch.ones(2), semantic=semantic, background=0)
    assert chosen_of(guess, Limits()) == [0] and chosen_of(guess, Limits(area=0.6)) == []
    assert right_of(Sample("a", truth.image, semantic=right), guess)[0] is True
    assert right_of(Sample("a", truth.image, semantic=wrong), guess)[0] is False
    assert right_of(Sample("a", truth.image, semantic=torch.full((8, 8), IGNORE)), guess)[0] is None
    label = Prediction("classification", ("a", "b"), (8, 8), torch.tensor([1, 0]), torch.tensor([0.7, 0.3]))
    assert chosen_of(label, Limits()) == [0] and right_of(replace(truth, label=1), label) == [True, False]


def test_a_map_that_speaks_against_the_decision_has_no_shares():
    place = torch.zeros(8, 8, dtype=torch.bool)
    place[2:4, 2:4] = True
    masks = parts_of(Context(Tagged(1)), Sample("a", torch.zeros(3, 8, 8), boxes=torch.zeros(0, 4)), place)
    assert np.isnan(kept_of(-torch.ones(8, 8).double(), place, masks)[1]).all()
    (seen, around), shares = kept_of(torch.ones(8, 8).double(), place, masks)
    assert shares == pytest.approx([float(mask.double().mean()) for mask in masks])
    ring = float(masks[PARTS.index("ring")].double().mean())
    assert seen.sum() == pytest.approx(1 - 4 / 64 - ring) and around.sum() == pytest.approx(36 / 64)


def test_a_black_box_has_none_and_says_so_and_what_was_named_is_refused():
    context = Context(Tagged(4), Boxes())
    found = measure_decisions(context, range(4), Memory())
    assert found.method is None and "black box" in found.note and found.made == ()
    with pytest.raises(MethodError, match="black box"):
        measure_decisions(context, range(4), Memory(), method="lrp")


def test_what_is_done_is_not_done_again_and_comes_back_the_same(tmp_path, monkeypatch):
    context, store = Context(Tagged(6, broken=(3,)), reader("object")), Folder(tmp_path, "plan")
    first = measure_decisions(context, range(6), store, method=CROSS)
    assert list(first.skipped) == ["shape-003"] and "cut short" in first.skipped["shape-003"] and len(first.made) == 5
    monkeypatch.setattr(Looker, "row", None)
    again = measure_decisions(context, range(6), store, method=CROSS)
    assert [each.key for each in again.made] == [each.key for each in first.made] and again.skipped == first.skipped
    for one, other in zip(first.made, again.made, strict=True):
        assert np.array_equal(one.place, other.place) and np.array_equal(one.shares, other.shares) and one.right == other.right
