from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.probes.toys import SIDE, Boxes, Shapes, reader
from xaitools.data.objects import extents
from xaitools.errors import XaiError
from xaitools.probes import PROBES, Context, change
from xaitools.probes.geometry import Grid, around, box_hulls, hidden, moved, turn
from xaitools.probes.outlines import covering
from xaitools.types import IGNORE, Sample

AFFINE = ("rotate", "scale", "shear", "perspective")


def context(**options: object) -> Context:
    return Context(Shapes(**options), reader("object"))  # type: ignore[arg-type]


def apply(name: str, sample: Sample, severity: int = 3, where: Context | None = None, **params: object) -> Sample:
    (found,) = change(name, [sample], severity, where or context(), params=params)
    assert isinstance(found, Sample), found
    return found


def square(*boxes: tuple[int, int, int, int], side: int = 24) -> Sample:
    """One white rectangle for each box on black, all of one class."""
    masks = torch.zeros(len(boxes), side, side, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    image = masks.any(0).float().expand(3, -1, -1).clone()
    return Sample("square", image, semantic=masks.any(0).long(), boxes=torch.tensor(boxes).float(),
                  labels=torch.zeros(len(boxes)).long(), masks=masks)  # fmt: skip


def test_quarter_turns_are_those_of_torch():
    where = context()
    for index in range(4):
        before = where.dataset[index]
        for degrees in (90, 180):
            after = apply("rotate", before, degrees=degrees)
            found = [k for k in range(1, 4) if torch.allclose(after.image, torch.rot90(before.image, k, (1, 2)), atol=1e-5)]
            assert len(found) == 1 and (found[0] == 2) is (degrees == 180)
            assert torch.equal(after.semantic, torch.rot90(before.semantic, found[0], (0, 1)))
            assert torch.equal(after.masks, torch.rot90(before.masks, found[0], (1, 2)))
            assert after.boxes.tolist() == [list(box) for box in extents(after.masks)]


def wedge(side: int, degrees: float) -> Tensor:
    """(side, side) bool: a pointed thing without symmetry, turned about its middle."""
    canvas = torch.zeros(1, side, side)
    canvas[0, side // 4 : 3 * side // 4, side // 3 : side // 2] = 1
    canvas[0, side // 4 : side // 2, side // 2 : 3 * side // 4] = 1
    return Grid.of(around(turn(degrees), side / 2, side / 2), (side, side)).image(canvas)[0] > 0.5


@pytest.mark.parametrize("side", [24, 60, 200])
@pytest.mark.parametrize("degrees", [0, 30, 78, 150, 222, 300])
def test_a_turn_is_read_from_two_outlines_of_any_size(side, degrees):
    found = covering(wedge(60, 18), wedge(side, 18 + degrees))
    assert min(abs(found - degrees), 360 - abs(found - degrees)) <= (12 if side < 60 else 6)
    disc = torch.hypot(*torch.meshgrid(*(2 * [torch.arange(40) - 19.5]), indexing="ij")) < 12
    assert covering(disc, disc) == 0


class Wedges(Shapes):
    """Class 0 stands upright, class 1 lies turned by 90 degrees; both are wedges of one size."""

    def __getitem__(self, index: int) -> Sample:
        kind = index % 2
        mask = wedge(40, 90.0 * kind)
        image = torch.where(mask, 0.9, 0.2 + 0.01 * index).expand(3, -1, -1).clone()
        return Sample(self.ids[index], image, semantic=mask.long() * (kind + 1), boxes=torch.tensor(extents(mask[None])).float(),
                      labels=torch.tensor([kind]), masks=mask[None])  # fmt: skip


def test_objects_turn_as_their_own_class_is_or_as_another():
    where = Context(Wedges(8), reader("object"))
    for index in range(4):
        before = where.dataset[index]
        own, other = (apply(name, before, 1, where) for name in ("pose_same", "pose_other"))
        assert torch.equal(own.masks, before.masks) and torch.equal(own.semantic, before.semantic)
        turned = wedge(40, 90.0 * (1 - index % 2))
        assert covering(other.masks[0], turned) == 0 and covering(before.masks[0], turned) in (90, 270)
        assert other.labels.tolist() == before.labels.tolist() and other.boxes.tolist() == [list(box) for box in extents(other.masks)]
    assert PROBES["pose.gap"].reference == "pose_same"


def test_boxes_alone_do_not_show_how_an_object_is_turned():
    class Bare(Shapes):
        task = "detection"

        def __getitem__(self, index: int) -> Sample:
            return replace(super().__getitem__(index), masks=None, semantic=None)

    refused = Context(Bare(4), Boxes()).lacks(PROBES["pose.gap"].needs)
    assert refused is not None and "no masks" in refused
    assert Context(Shapes(4), reader("object")).lacks(PROBES["pose.gap"].needs) is None


def test_flips_are_exact_and_twice_is_the_identity():
    where = context()
    for name, axis in (("hflip", -1), ("vflip", -2)):
        before = where.dataset[1]
        once = apply(name, before, 1)
        twice = apply(name, once, 1)
        assert torch.equal(once.image, before.image.flip(axis)) and not torch.equal(once.image, before.image)
        for field in ("image", "semantic", "masks", "boxes", "labels"):
            assert torch.equal(getattr(twice, field), getattr(before, field)), field
        assert once.boxes.tolist() == [list(box) for box in extents(once.masks)]


def slow(values: Tensor, matrix: np.ndarray, outside: int) -> tuple[Tensor, Tensor]:
    """Where each new pixel's middle comes from, one after another; and whether that is too near an edge of pixels to tell."""
    back, found, close = np.linalg.inv(matrix), torch.full_like(values, outside), torch.zeros(values.shape, dtype=torch.bool)
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            u, v, w = back @ [x + 0.5, y + 0.5, 1]
            u, v = u / w, v / w
            close[y, x] = bool(min(abs(u - round(u)), abs(v - round(v))) < 1e-6)
            if 0 <= u < values.shape[1] and 0 <= v < values.shape[0]:
                found[y, x] = values[math.floor(v), math.floor(u)]
    return found, close


@pytest.mark.parametrize("name", AFFINE)
def test_maps_move_as_a_plain_loop_moves_them(name, monkeypatch):
    seen = []
    monkeypatch.setattr("xaitools.probes.pose.moved", lambda sample, matrix, **rest: seen.append(matrix) or moved(sample, matrix, **rest))
    before = context().dataset[1]
    marked = replace(before, semantic=torch.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 251)
    after = apply(name, marked)
    plain, close = slow(marked.semantic, seen[0], IGNORE)
    assert torch.equal(after.semantic[~close], plain[~close]) and float(close.float().mean()) < 0.3
    masks = slow(before.masks[0].long(), seen[0], 0)[0].bool()
    assert torch.equal(after.masks[0][~close], masks[~close])


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("name", AFFINE)
def test_image_and_truth_move_together(name, severity):
    before = square((6, 8, 15, 16))
    after = apply(name, before, severity)
    bright = after.image[0] > 0.5
    here = after.masks[0]
    inner = torch.nn.functional.max_pool2d((~here).float()[None, None], 3, 1, 1)[0, 0] == 0
    outer = torch.nn.functional.max_pool2d(here.float()[None, None], 3, 1, 1)[0, 0] == 0
    assert bool(bright[inner].all()) and not bool(bright[outer].any())
    assert torch.equal(here, after.semantic == 1)
    x1, y1, x2, y2 = after.boxes[0].tolist()
    assert np.allclose((x1, y1, x2, y2), extents(after.masks)[0], atol=0 if name != "scale" else 1)
    # pixels that come from nowhere: no label, and the mean colour
    nowhere = after.semantic == IGNORE
    assert bool(nowhere.any()) and torch.allclose(after.image[:, nowhere], before.image.mean((1, 2))[:, None], atol=1e-6)


def test_hulls_have_their_closed_forms():
    box = torch.tensor([[10.0, 20.0, 30.0, 26.0]])
    for degrees in (10, 45, 77):
        cosine, sine = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
        matrix = around(turn(degrees), 20, 23)
        for kind, width, height in (
            ("hull", 20 * cosine + 6 * sine, 20 * sine + 6 * cosine),
            ("ellipse", math.hypot(20 * cosine, 6 * sine), math.hypot(20 * sine, 6 * cosine)),
        ):
            expected = [20 - width / 2, 23 - height / 2, 20 + width / 2, 23 + height / 2]
            assert box_hulls(box, matrix, kind)[0].tolist() == pytest.approx(expected, abs=0.02 if kind == "ellipse" else 1e-9)


def test_what_leaves_the_image_is_dropped_and_what_almost_leaves_is_ignored():
    # enlarged by 3 about the middle (12, 12), the image keeps what lies in 8..16
    sample = square((9, 9, 15, 15), (12, 12, 18, 18), (14, 10, 24, 16), (0, 0, 4, 4), side=24)
    for masks in (True, False):
        given = sample if masks else replace(sample, masks=None)
        after = apply("scale", given, factor=3.0)
        # shares: all, 16 / 36, 2 / 10 and none
        assert len(after.boxes) == len(after.labels) == 3 and after.ignore.tolist() == [False, False, True]
        assert after.boxes.tolist() == [[3, 3, 21, 21], [12, 12, 24, 24], [18, 6, 24, 24]]
        assert after.masks is None or after.masks.sum((1, 2)).tolist() == [18 * 18, 12 * 12, 6 * 18]


def test_hidden_takes_pixels_from_maps_and_masks():
    sample = square((0, 0, 4, 4), (8, 8, 12, 12), (16, 16, 20, 20))
    covered = torch.zeros(24, 24, dtype=torch.bool)
    covered[:9], covered[16:19, 16:], covered[19:20, 16:18] = True, True, True
    for given in (sample, replace(sample, masks=None)):
        after = hidden(given, covered)
        assert after.boxes.tolist() == sample.boxes[1:].tolist() and after.ignore.tolist() == [False, True]
        assert bool((after.semantic[covered] == IGNORE).all()) and torch.equal(after.semantic[~covered], sample.semantic[~covered])


def test_fill_and_boxes_are_parameters():
    before = context().dataset[1]
    mirrored = apply("rotate", before, fill="reflect")
    plain = apply("rotate", before)
    inside = plain.semantic != IGNORE
    assert torch.equal(mirrored.image[:, inside], plain.image[:, inside])
    assert not torch.allclose(mirrored.image[:, ~inside], plain.image[:, ~inside], atol=0.01)
    boxed = replace(before, masks=None)
    sizes = [apply("rotate", boxed, boxes=kind).boxes[0] for kind in ("hull", "ellipse")]
    assert float(sizes[0][2] - sizes[0][0]) > float(sizes[1][2] - sizes[1][0]) + 1
    for params, hint in (({"fill": "black"}, "mean or reflect"), ({"boxes": "tight"}, "hull or ellipse")):
        with pytest.raises(XaiError, match=hint):
            apply("rotate", before, **params)
    with pytest.raises(XaiError, match="0.05 to 20"):
        apply("scale", before, factor=0.0)


def test_an_object_turns_alone():
    where = context()
    for index, degrees in ((0, 60), (1, 90), (1, 180)):
        before = where.dataset[index]
        after = apply("object_rotate", before, where=where, degrees=degrees)
        mask = after.masks[0]
        assert after.boxes.tolist() == [list(box) for box in extents(after.masks)]
        assert torch.equal(after.semantic, mask * (index + 1))  # this data has a background class
        assert int(mask.sum()) == pytest.approx(int(before.masks[0].sum()), rel=0.08)
        # the object's own pixels, turned: its green is 0.95 and more, that of the background 0.24 at most; the outline is half and half
        assert float(after.image[1][mask].min()) > 0.58 and float(after.image[1][~mask].max()) < 0.5
        radius = max(2, round(SIDE / 25))
        near = torch.nn.functional.max_pool2d((before.masks[0]).float()[None, None], 2 * radius + 1, 1, radius)[0, 0] > 0
        assert torch.equal(before.image[:, ~near & ~mask], after.image[:, ~near & ~mask])


def test_an_object_turns_by_a_quarter_as_rot90_does():
    sample = square((8, 6, 16, 14))
    sample = replace(sample, image=torch.where(sample.masks[0], torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0)), 0.2))
    after = apply("object_rotate", sample, degrees=90)
    part = after.image[:, 6:14, 8:16]
    turns = [torch.rot90(sample.image[:, 6:14, 8:16], k, (1, 2)) for k in (1, 3)]
    inner = (slice(None), slice(1, -1), slice(1, -1))
    assert any(torch.allclose(part[inner], each[inner], atol=1e-5) for each in turns)
    assert torch.equal(after.masks, sample.masks) and torch.equal(after.boxes, sample.boxes)


def test_where_boxes_stand_for_masks_rectangles_turn():
    where = Context(Shapes(masks=False), Boxes())
    before = where.dataset[1]
    after = apply("object_rotate", before, where=where, degrees=45)
    width = float(after.boxes[0][2] - after.boxes[0][0])
    assert after.masks is None and width == pytest.approx(11 * math.sqrt(2), abs=1e-3)
