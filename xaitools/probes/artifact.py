"""Artefacts: what a source leaves in its pictures and no object has to do with.  A tag comes or goes; a watermark, a
frame, a cast.

Where a class was mostly shown with an artefact, pasting it draws decisions to that class.  So each member but
``remove`` records under MEASURED, for every class of the model, ``gain.CLASS``: what the model gives to it after the
change less what it gave before (see ``Context.decisions``).
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor

from ..data._drawing import TAG_CORNER, TAG_LETTERS, TAG_TEXT, letters, stamp
from ..data.fill import fill
from ..errors import DataError, XaiError
from ..types import IGNORE, Sample
from .base import MEASURED, probe
from .geometry import choice, hidden, pixels
from .objects import Context

CORNERS = ("lower_right", "lower_left", "upper_right", "upper_left")
"""In the order in which they are taken where they cover equally little."""

OPACITIES = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Of the watermark's letters, by severity."""

FRAMES = (0.01, 0.02, 0.04, 0.06, 0.08)
"""Width of the frame, as a share of the shorter side."""

CASTS = (0.08, 0.16, 0.24, 0.32, 0.4)
"""How much darker the channel farthest from the cast's colour becomes."""


@probe("artifact.paste", family="artifact", default=True, degrees=False)
def paste(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context,
    *, text: str = TAG_TEXT, position: str = "", size: float = TAG_CORNER[3] - TAG_CORNER[1],
) -> Sample:  # fmt: skip
    """A source tag in a corner: white letters on a dark plate, as drawn scenes have.  The truth stays as it is.

    text      capital letters, digits and `` .-/``
    position  lower_right, lower_left, upper_right or upper_left; by default where it covers least of the objects
    size      height of the plate, as a share of the image's shorter side
    """
    text = _writable(text, "artifact.paste.text")
    if not 0.02 <= size <= 0.5:
        raise XaiError(f"artifact.paste.size={size:g}: expected 0.02 to 0.5, the plate's height as a share of the shorter side")
    boxes = {name: _plate(sample.image.shape[-2:], name, text, size) for name in CORNERS}
    if position:
        choice("artifact.paste.position", position, CORNERS)
    else:
        objects = _objects(sample, context)
        covered = {name: 0 if objects is None else int(objects[pixels(box, objects.shape)].sum()) for name, box in boxes.items()}
        position = min(CORNERS, key=lambda name: covered[name])
    image = np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy()).copy()
    stamp(image, boxes[position], text)
    tags = {**sample.tags, "artifact_xyxy": boxes[position]}
    return _measured(sample, replace(sample, image=_tensor(image), tags=tags), context)


@probe("artifact.remove", family="artifact", degrees=False)
def remove(sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, region: str = "") -> Sample:
    """The artefact is painted over where the dataset names one (``tags["artifact_xyxy"]``), or in ``region``.

    region  x1,y1,x2,y2 in pixels, or in shares of width and height where none is above 1

    What is painted over has no label in the semantic map where an object was; boxes and masks stay.  An image in which
    nothing is named is left out.
    """
    size = sample.image.shape[-2:]
    named = _region(region, size) if region else sample.tags.get("artifact_xyxy")
    if named is None:
        raise DataError("no artefact is named in this image; say where it is with artifact.remove.region=x1,y1,x2,y2")
    hole = torch.zeros(size, dtype=torch.bool)
    hole[pixels(named, size)] = True
    if not bool(hole.any()):
        raise DataError(f"the artefact at {named} lies outside the image")
    objects, semantic = _objects(sample, context), sample.semantic
    if semantic is not None and objects is not None:
        semantic = torch.where(hole & objects, torch.full_like(semantic, IGNORE), semantic)
    return replace(sample, image=fill(sample.image, hole, objects), semantic=semantic)


@probe("watermark", family="artifact")
def watermark(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, text: str = TAG_TEXT, opacity: float | None = None
) -> Sample:
    """A half-transparent text, aslant and repeated, over the whole image; ``opacity`` instead of that of the severity."""
    text = _writable(text, "watermark.text")
    opacity = OPACITIES[severity - 1] if opacity is None else opacity
    if not 0 < opacity <= 1:
        raise XaiError(f"watermark.opacity={opacity:g}: expected more than 0 and at most 1")
    height, width = sample.image.shape[-2:]
    high = max(7, round(min(height, width) / 8))
    word = letters(text + "  ", high, round(high * (4 * len(text) + 9) / 7))
    side = int(np.ceil(np.hypot(height, width)))
    line = np.pad(word, ((high // 2, high - high // 2), (0, 0)))
    tile = np.concatenate([line, np.roll(line, line.shape[1] // 2, 1)])
    wall = np.tile(tile, (-(-side // tile.shape[0]), -(-side // tile.shape[1])))
    turned = cv2.getRotationMatrix2D((side / 2, side / 2), 30, 1)
    aslant = cv2.warpAffine(wall, turned, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    top, left = (side - height) // 2, (side - width) // 2
    share = torch.from_numpy(np.ascontiguousarray(aslant[top : top + height, left : left + width]))
    return _measured(sample, replace(sample, image=torch.lerp(sample.image, torch.ones(()), opacity * share)), context)


@probe("border", family="artifact")
def border(sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, colour: str = "") -> Sample:
    """A frame of one colour, at random or ``colour`` as red,green,blue in [0, 1].

    What it covers has no label in the semantic map and leaves the masks; an object of which little is left is ignored
    (see ``geometry.hidden``).
    """
    hue = generator.uniform()
    red_green_blue = _numbers(colour, 3, "border.colour", 1) if colour else colorsys.hsv_to_rgb(hue, 0.9, 0.9)
    wide = max(1, round(FRAMES[severity - 1] * min(sample.image.shape[-2:])))
    frame = torch.ones(sample.image.shape[-2:], dtype=torch.bool)
    frame[wide:-wide, wide:-wide] = False
    image = torch.where(frame, torch.tensor(red_green_blue).view(3, 1, 1).to(sample.image), sample.image)
    return _measured(sample, hidden(replace(sample, image=image), frame), context)


@probe("cast", family="artifact")
def cast(sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, hue: float | None = None) -> Sample:
    """A colour cast: each channel by a factor, 1 for the cast's own; ``hue`` in [0, 1), 0 is red, instead of a random one."""
    drawn = generator.uniform()
    colour = colorsys.hsv_to_rgb(drawn if hue is None else hue % 1, CASTS[severity - 1], 1.0)
    return _measured(sample, replace(sample, image=sample.image * torch.tensor(colour).view(3, 1, 1).to(sample.image)), context)


def _measured(before: Sample, after: Sample, context: Context) -> Sample:
    had, has = context.decisions(before.image), context.decisions(after.image.clamp(0, 1))
    return replace(after, tags={**after.tags, MEASURED: {f"gain.{name}": has[name] - had[name] for name in has}})


def _plate(size: Sequence[int], corner: str, text: str, high: float) -> tuple[int, int, int, int]:
    """xyxy in pixels, as far from the edges as the tag of a scene and with letters of its proportions."""
    height, width = size
    side = min(size)
    across = (TAG_CORNER[2] - TAG_CORNER[0]) / (TAG_CORNER[3] - TAG_CORNER[1]) * (4 * len(text) + 1) / (4 * len(TAG_TEXT) + 1)
    beside, below = (1 - TAG_CORNER[2]) * side, (1 - TAG_CORNER[3]) * side
    across, down = min(across * high * side, width - 2 * beside), min(high * side, height - 2 * below)
    left = width - beside - across if corner.endswith("right") else beside
    top = height - below - down if corner.startswith("lower") else below
    x1, y1, x2, y2 = (round(edge) for edge in (left, top, left + across, top + down))
    return x1, y1, max(x1 + 1, x2), max(y1 + 1, y2)


def _objects(sample: Sample, context: Context) -> Tensor | None:
    """(H, W) bool; None where nobody knows."""
    try:
        found = context.objects(sample)
    except DataError:
        return None
    return found.any(0) if len(found) else torch.zeros(sample.image.shape[-2:], dtype=torch.bool)


def _region(text: str, size: Sequence[int]) -> tuple[float, ...]:
    edges = _numbers(text, 4, "artifact.remove.region", float("inf"))
    scale = (size[1], size[0]) * 2 if max(edges) <= 1 else (1, 1, 1, 1)
    x1, y1, x2, y2 = found = tuple(edge * factor for edge, factor in zip(edges, scale, strict=True))
    if x2 <= x1 or y2 <= y1:
        raise XaiError(f"artifact.remove.region={text!r}: has no area; expected x1,y1,x2,y2 with x1 < x2 and y1 < y2")
    return found


def _numbers(text: str, count: int, name: str, most: float) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != count or not all(0 <= each <= most and np.isfinite(each) for each in found):
        raise XaiError(f"{name}={text!r}: expected {count} numbers of at least 0{f' and at most {most:g}' if most < 2 else ''} with commas")
    return found


def _writable(text: str, name: str) -> str:
    if not 1 <= len(text) <= 40 or not set(text.upper()) <= TAG_LETTERS:
        raise XaiError(f"{name}={text[:50]!r}: expected 1 to 40 of {''.join(sorted(TAG_LETTERS))!r}")
    return text.upper()


def _tensor(pixels_: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels_).permute(2, 0, 1).contiguous()
