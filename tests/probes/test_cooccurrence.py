from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from tests.probes.toys import CLASSES, SIDE, Boxes, Shapes, reader
from xaitools import audit
from xaitools.errors import DataError
from xaitools.probes import Context, change
from xaitools.types import IGNORE, Prediction, Sample

probe = partial(audit.probe, relevance=0)  # what it says of explanations has tests of its own


def context(**options: object) -> Context:
    data = Shapes(**options)  # type: ignore[arg-type]
    return Context(data, reader("object") if data.masks else Boxes())


@pytest.mark.parametrize("masks", [True, False])
def test_remove_takes_the_other_class_and_leaves_the_subject(masks):
    where = context(company=True, masks=masks)
    for index in range(4):
        before = where.dataset[index]
        (after,) = change("cooccurrence.remove", [before], 1, where)
        own, other = Shapes(company=True)[index].masks
        assert torch.equal(before.image[:, own], after.image[:, own])
        assert float(before.image[1][other].min()) > 0.9 and float(after.image[1][other].max()) < 0.6
        assert after.ignore.tolist() == [False, True] and torch.equal(after.boxes, before.boxes)
        if masks:
            assert torch.equal(after.masks, before.masks)
            assert torch.equal(after.semantic == IGNORE, other) and torch.equal(after.semantic[~other], before.semantic[~other])


def test_what_is_left_is_compared_with_the_same_truth_of_the_unchanged_image():
    where = context(company=True)
    before = where.dataset[1]
    (after,), (reference,) = (change(name, [before], 1, where) for name in ("cooccurrence.remove", "scored_subject"))
    assert torch.equal(reference.image, before.image)
    assert all(torch.equal(getattr(after, name), getattr(reference, name)) for name in ("semantic", "boxes", "labels", "masks", "ignore"))
    row = probe(where.model, where.dataset, ["cooccurrence.remove"]).report["probes"]["cooccurrence.remove"]
    # the reader looks at the object alone
    assert row["reference"] == {"name": "scored_subject", "value": row["primary"]["value"]} and row["primary"]["drop"] == 0.0


class Pair(Boxes):
    """Finds what lies in the last columns, where the smaller object is, and what lies before them."""

    def predict(self, images: Tensor) -> list[Prediction]:
        return [self._both(image) for image in images]

    def _both(self, image: Tensor) -> Prediction:
        found = [self._one(torch.where((torch.arange(SIDE) >= SIDE - 4) == last, image, 0)) for last in (False, True)]
        labels, scores, boxes = (torch.cat([getattr(each, name) for each in found]) for name in ("labels", "scores", "boxes"))
        return replace(found[0], labels=labels, scores=scores, boxes=boxes)


def test_a_detector_is_not_blamed_for_the_others_while_they_are_there():
    row = probe(Pair(), Shapes(company=True), ["cooccurrence.remove"]).report["probes"]["cooccurrence.remove"]
    assert (row["reference"]["value"], row["primary"]["value"], row["primary"]["drop"]) == (1.0, 1.0, 0.0)


def test_an_image_without_another_class_is_left_out():
    where = context()
    (after,) = change("cooccurrence.remove", [where.dataset[0]], 1, where)
    assert isinstance(after, DataError) and "no object of another class" in str(after)


@pytest.mark.parametrize("masks", [True, False])
def test_paste_covers_nothing_and_is_no_truth_that_counts(masks):
    where = context(masks=masks)
    for index in range(6):
        before = where.dataset[index]
        (after,) = change("cooccurrence.paste", [before], 1, where)
        assert isinstance(after, Sample) and after.tags["donor"] != before.id
        kind = index % 2
        assert after.labels.tolist() == [kind, 1 - kind] and after.tags["pasted"] == CLASSES[2 - kind]
        assert after.ignore.tolist() == [False, True] and torch.equal(after.boxes[:1], before.boxes)
        x1, y1, x2, y2 = after.boxes[1].int().tolist()
        changed = (after.image != before.image).any(0)
        outside = torch.ones(SIDE, SIDE, dtype=torch.bool)
        outside[y1:y2, x1:x2] = False
        assert not bool((changed & outside).any()) and not bool((changed & where.objects(before)[0]).any())
        # what came is of the other kind: only that has so much, or so little, red where it is green
        red = float(after.image[0][changed & (after.image[1] > 0.9)].mean())
        assert (red > 0.45) is (kind == 0)
        if masks:
            assert torch.equal(after.semantic == IGNORE, changed) and torch.equal(after.masks[1], changed)


def test_what_finds_no_place_or_no_donor_is_left_out():
    crowded, lonely = context(), context(kinds=1)
    before = crowded.dataset[0]
    full = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
    (after,) = change("cooccurrence.paste", [Sample("full", before.image, masks=full, boxes=torch.tensor([[0.0, 0, SIDE, SIDE]]),
                                                    labels=torch.tensor([0]))], 1, crowded)  # fmt: skip
    assert "no free place" in str(after)
    (after,) = change("cooccurrence.paste", [lonely.dataset[0]], 1, lonely)
    assert "no object of another class among 12 images" in str(after)
