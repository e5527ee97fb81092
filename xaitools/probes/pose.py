"""Pose: the whole image turned, mirrored, scaled, sheared or seen at a slant; or each object alone turned where it stands.

Masks, maps and boxes move along (see ``geometry.moved`` for how, for what is seen where nothing comes from, and for
objects that leave the image).  A model knows the angles at which it was shown its objects: at others an honest one loses too,
and a drop is no shortcut until ``degrees`` turns them to angles that the training data has.  ``pose.gap`` takes angles from the data
itself, and what turning costs by itself is on both of its sides.  Drawn scenes have angles within 18
degrees of multiples of 72: there 72 and 144 ask only whether the pose gives the class away, while 36 and 180 are new to every
model.  Where data has boxes alone, a turned box is looser than its object, so a perfect detector
may lose: for a disc in a square box the IoU is 0.73 at 10 degrees, 0.61 at 20 and 0.5 at 45; ``boxes=ellipse`` is right for discs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import torch

from ..data.objects import areas, extents
from ..errors import DataError, XaiError
from ..types import Sample
from .base import contrast, probe, variant
from .geometry import HULLS, VISIBLE, Matrix, around, box_hulls, choice, inside, kept, lay, moved, turn
from .objects import Context
from .outlines import covering

TURNS = (5.0, 10.0, 20.0, 30.0, 45.0)
"""Degrees by which the image turns, to either side, by severity."""

OBJECT_TURNS = (15.0, 30.0, 60.0, 90.0, 180.0)
"""Degrees by which each object turns, to either side."""

FACTORS = (0.85, 0.7, 0.6, 0.5, 0.4)
"""How much of its size everything keeps."""

SHEARS = (5.0, 10.0, 15.0, 20.0, 30.0)
"""Degrees by which upright lines lean, to either side."""

SLANTS = (0.05, 0.1, 0.15, 0.2, 0.25)
"""How far each corner may move inwards, as a share of each side."""


@probe("rotate", family="pose", default=True)
def rotate(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context,
    *, degrees: float | None = None, fill: str = "mean", boxes: str = "hull",
) -> Sample:  # fmt: skip
    """The image turned about its middle, to a random side.

    degrees  instead of those of the severity
    """
    angle = _side(generator) * (TURNS[severity - 1] if degrees is None else degrees)
    return moved(sample, _central(turn(angle), sample), fill=fill, boxes=boxes)


@probe("hflip", family="pose", degrees=False)
def hflip(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """Left and right change places; exact, twice is the identity (box edges to the rounding of float32)."""
    return _flipped(sample, -1)


@probe("vflip", family="pose", degrees=False)
def vflip(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """Top and bottom change places; exact, twice is the identity (box edges to the rounding of float32)."""
    return _flipped(sample, -2)


@probe("scale", family="pose")
def scale(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, factor: float | None = None, fill: str = "mean"
) -> Sample:
    """Everything smaller, as from farther away; ``factor`` instead of that of the severity, above 1 for larger."""
    factor = FACTORS[severity - 1] if factor is None else factor
    if not 0.05 <= factor <= 20:
        raise XaiError(f"scale.factor={factor:g}: expected 0.05 to 20; 0.5 is half the size")
    return moved(sample, _central([[factor, 0], [0, factor]], sample), fill=fill)


@probe("shear", family="pose")
def shear(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context,
    *, degrees: float | None = None, fill: str = "mean", boxes: str = "hull",
) -> Sample:  # fmt: skip
    """Upright lines lean to a random side, level ones stay.

    degrees  instead of those of the severity
    """
    angle = SHEARS[severity - 1] if degrees is None else degrees
    if not -80 <= angle <= 80:
        raise XaiError(f"shear.degrees={angle:g}: expected -80 to 80")
    return moved(sample, _central([[1, _side(generator) * np.tan(np.deg2rad(angle))], [0, 1]], sample), fill=fill, boxes=boxes)


@probe("perspective", family="pose")
def perspective(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, fill: str = "mean", boxes: str = "hull"
) -> Sample:
    """Seen at a slant: each corner of the image moves inwards at random, by at most a share of its sides."""
    height, width = sample.image.shape[-2:]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * generator.uniform(0, SLANTS[severity - 1], (4, 2))
    matrix = cv2.getPerspectiveTransform(corners, (corners + inwards * [width, height]).astype(np.float32))
    return moved(sample, np.asarray(matrix, dtype=np.float64), fill=fill, boxes=boxes)


@probe("object_rotate", family="pose", needs=("objects",), default=True)
def object_rotate(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context,
    *, degrees: float | None = None, boxes: str = "hull",
) -> Sample:  # fmt: skip
    """Each object alone turned about the middle of its box, to a random side, before the painted background (Alcorn et al. 2019).

    Where they now overlap, smaller objects lie in front.  What is uncovered has no label in the semantic map, or the
    class "background" where the data has it.  Where boxes stand for masks, a whole rectangle turns.  Crowds and other
    ignored objects stay.
    """
    choice("boxes", boxes, HULLS)
    angle = OBJECT_TURNS[severity - 1] if degrees is None else degrees
    return _turned(sample, context, lambda row: _side(generator) * angle, boxes)


for _degrees in (90, 150):
    variant(
        f"object_rotate_{_degrees}", of="object_rotate", degrees=float(_degrees), about=f"Each object alone turned by {_degrees} degrees."
    )


@probe("pose_same", family="pose", needs=("outlines", "others"), degrees=False)
def pose_same(sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "") -> Sample:
    """Each object turned so that its outline best covers that of an object of its own class, from another image, laid on its middle at
    its size; before the painted background, as for ``object_rotate``."""
    return _posed(sample, generator, context, donors, operator.eq)


@probe("pose_other", family="pose", needs=("outlines", "others"), degrees=False)
def pose_other(sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "") -> Sample:
    """As ``pose_same``, by the outline of an object of another class."""
    return _posed(sample, generator, context, donors, operator.ne)


contrast(
    "pose.gap",
    of="pose_other",
    against="pose_same",
    about="Objects turned as objects of another class are, against turned as other objects of their own class.",
)


def _posed(
    sample: Sample, generator: np.random.Generator, context: Context, donors: str, relation: Callable[[Hashable, Hashable], bool]
) -> Sample:
    kinds, masks = context.kinds(pieces := context.pieces(sample)), pieces.masks
    pool, what = context.donors(donors), "the same class" if relation is operator.eq else "another class"

    def angle(row: int) -> float:
        if not kinds[row]:
            return 0.0
        _, outline, _ = pool.piece(sample, generator, partial(relation, context.key(kinds[row])), what)
        return covering(masks[row], outline)

    return _turned(sample, context, angle, "hull")


def _turned(sample: Sample, context: Context, angle: Callable[[int], float], boxes: str) -> Sample:
    """Each object turned about the middle of its box by ``angle`` (row) degrees, see ``object_rotate``."""
    pieces = context.pieces(sample)
    ignored = torch.zeros(len(pieces.masks), dtype=torch.bool) if sample.ignore is None else sample.ignore
    turning = pieces.masks.flatten(1).any(1) & ~ignored
    if not bool(turning.any()):
        raise DataError("no object in this image")
    gone = pieces.masks[turning].any(0)
    image, semantic = context.painted(sample.image, gone), context.uncovered(sample, gone)
    masks, hulls = pieces.masks.clone(), torch.zeros(len(pieces.masks), 4) if sample.boxes is None else sample.boxes.clone()
    sizes = areas(pieces.masks)
    for row in sorted(turning.nonzero()[:, 0].tolist(), key=lambda row: (-int(sizes[row]), row)):
        x1, y1, x2, y2 = extents(pieces.masks[row : row + 1])[0]
        matrix = around(turn(angle(row)), (x1 + x2) / 2, (y1 + y2) / 2)
        laid = lay(image, sample.image, pieces.masks[row], matrix, sample.semantic)
        image, semantic = laid.image, laid.on(semantic)
        masks &= ~laid.place
        masks[row] = laid.place
        hulls[row] = box_hulls(hulls[row : row + 1], matrix, boxes)[0]
    sample = replace(sample, image=image, semantic=semantic)
    if sample.boxes is None:  # then the pieces are of the map
        return sample
    left = areas(masks) / sizes.clamp(min=1)
    left[~turning] = 1
    if sample.masks is not None:
        hulls[turning] = torch.tensor(extents(masks[turning]), dtype=hulls.dtype)
        sample = replace(sample, masks=masks)
    else:
        hulls[turning] = inside(hulls[turning], sample.image.shape[-2:])
    return kept(replace(sample, boxes=hulls, ignore=ignored | (left < VISIBLE)), left > 0)


def _central(matrix: Matrix | Sequence[Sequence[float]], sample: Sample) -> Matrix:
    height, width = sample.image.shape[-2:]
    return around(matrix, width / 2, height / 2)


def _side(generator: np.random.Generator) -> int:
    return int(generator.integers(2)) * 2 - 1


def _flipped(sample: Sample, axis: int) -> Sample:
    maps = {name: getattr(sample, name) for name in ("image", "semantic", "masks")}
    sample = replace(sample, **{name: value.flip(axis) for name, value in maps.items() if value is not None})
    if sample.boxes is None:
        return sample
    boxes = sample.boxes.clone()
    low = -1 - axis  # the box's column of x1 or y1
    boxes[:, [low, low + 2]] = sample.image.shape[axis] - sample.boxes[:, [low + 2, low]]
    return replace(sample, boxes=boxes)
