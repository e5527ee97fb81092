"""Texture: what an object's surface looks like, its outline untouched.  No pixel outside of objects changes.

Two members report a shape bias in place of a drop: ``cue_conflict`` on pictures with the shape of one class and the texture of
another, which are a dataset, ``cue-conflict:DIR``, and ``cue_decomposition`` on any data.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError, XaiError
from ..types import Sample
from .base import aggregate, contrast, probe
from .geometry import choice, surface
from .objects import TEXTURE_CLASS, Context
from .outlines import carried
from .synthesis import diffused, texture

CELLS = (2, 3, 4, 6, 8)
"""Patches along the side of a square of the object's area, by severity."""

REACHES = (0.006, 0.012, 0.02, 0.028, 0.04)
"""How far diffusion carries where nothing stops it: the standard deviation of the blur that it would be, as a share of the shorter side."""

SWAPPED = (0.4, 0.6, 0.8, 0.9, 1.0)
"""Share of the other texture in the object."""

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]
Change = Callable[[Pixels, Mask], Pixels]
Takes = Callable[[Hashable], bool]


@probe("patch_shuffle", family="texture", needs=("objects",), default=True)
def patch_shuffle(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """The patches inside each object's mask change places; severity makes them smaller.

    Every patch moves.  A patch that reaches over the outline is completed with the object's nearest pixels,
    so no background enters.
    """
    return _each(sample, context, lambda pixels, inside: _shuffle(pixels, inside, CELLS[severity - 1], generator))


@probe("voronoi", family="texture", needs=("objects",))
def voronoi(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """The cells of a Voronoi diagram of random points in each object change places (as in Heinert et al. 2025); severity makes
    them smaller.

    Every cell shows what lies around the point of another.  What reaches over the outline is completed with the
    object's nearest pixels.
    """
    return _each(sample, context, lambda pixels, inside: _cells(pixels, inside, CELLS[severity - 1] ** 2, generator))


@probe("diffusion", family="texture", needs=("objects",))
def diffusion(sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, contrast: float = 0.05) -> Sample:
    """Edge-enhancing diffusion inside each object: surfaces run together, strong edges stay (Weickert 1998; Heinert et al. 2025,
    for whom what is left is shape).  The mean of each object's channels stays; severity lets it run longer.

    contrast  the slope per pixel, in values of [0, 1] smoothed over 2 pixels, from which on an edge stops it; textures
              with stronger edges than that stay
    """
    if not 0.001 <= contrast <= 1:
        raise XaiError(f"diffusion.contrast={contrast:g}: expected 0.001 to 1")
    owner = np.zeros(sample.image.shape[-2:], np.int32)
    for number, mask in enumerate(context.objects(sample).numpy(), 1):
        owner[mask] = number
    if not owner.any():
        raise DataError("no object in this image")
    reach = REACHES[severity - 1] * min(owner.shape)
    return replace(sample, image=diffused(sample.image, torch.from_numpy(owner), reach**2 / 2, contrast))


@probe("swap", family="texture", needs=("objects", "others"), default=True)
def swap(sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "") -> Sample:
    """Each object gets the texture of an object of another class, from another image (``donors``: of another dataset).

    The texture is made of noise with the other's colours and the histograms of its oriented bands (Heeger and Bergen
    1995), at the size at which it lies on the other; larger structures, such as a single spot, are not kept.  Severity is its share.
    Objects of the other's class keep theirs.
    """
    subject = context.subject(sample)
    if subject is None:
        raise DataError("no object in this image")
    other, mask, kind = context.donors(donors).piece(sample, generator, partial(operator.ne, context.key(subject)))
    found = _each(sample, context, _covering(other, mask, severity, generator), takes=partial(operator.ne, context.key(kind)))
    return replace(found, tags={**sample.tags, "donor": other.id, "texture_class": kind})


@probe("surface_same", family="texture", needs=("outlines", "others"), degrees=False)
def surface_same(sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "") -> Sample:
    """Each object gets the surface of an object of its own class, from another image, carried over to its outline.

    It goes there by way of the outline of an object of another class: what a surface loses on a strange outline, it loses here
    as well as in ``surface_other``.
    """

    def surface_of(kind: Hashable) -> tuple[Tensor, Tensor]:
        _, outline = _piece(sample, generator, context, donors, kind, operator.ne)
        own, mask = _piece(sample, generator, context, donors, kind, operator.eq)
        return torch.from_numpy(carried(own, mask, outline.numpy(), generator)).permute(2, 0, 1).contiguous(), outline

    return _resurfaced(sample, generator, context, surface_of)


@probe("surface_other", family="texture", needs=("outlines", "others"), degrees=False)
def surface_other(sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "") -> Sample:
    """As ``surface_same``, with the surface of an object of another class; the objects of a class get that of the same one."""
    return _resurfaced(sample, generator, context, lambda kind: _piece(sample, generator, context, donors, kind, operator.ne))


contrast(
    "texture.gap",
    of="surface_other",
    against="surface_same",
    about="Objects with the surface of an object of another class, against with that of another object of their own class.",
)

Piece = tuple[Tensor, Tensor]
"""An image (3, H, W) and the mask (H, W) of an object in it."""


def _piece(
    sample: Sample, generator: np.random.Generator, context: Context, donors: str, kind: Hashable,
    relation: Callable[[Hashable, Hashable], bool],
) -> Piece:  # fmt: skip
    what = "the same class" if relation is operator.eq else "another class"
    other, mask, _ = context.donors(donors).piece(sample, generator, partial(relation, kind), what)
    return other.image, mask


def _resurfaced(sample: Sample, generator: np.random.Generator, context: Context, surface_of: Callable[[Hashable], Piece]) -> Sample:
    """The objects of each class (a ``Context.key``) with the surface that it is given."""
    found = sample
    for key in dict.fromkeys(context.key(kind) for kind in context.kinds(context.pieces(sample)) if kind):
        found = _each(found, context, partial(_worn, *surface_of(key), generator), takes=partial(operator.eq, key))
    if found is sample:
        raise DataError("no object in this image")
    return found


def _worn(image: Tensor, mask: Tensor, generator: np.random.Generator, pixels: Pixels, inside: Mask) -> Pixels:
    return carried(image, mask, inside, generator)


def _covering(other: Sample, mask: Tensor, severity: int, generator: np.random.Generator) -> Change:
    """Lays the texture of the object ``mask`` of ``other`` over an object, at the size at which it lies there."""
    tile, unit = texture(other.image, mask, generator)

    def painted(pixels: Pixels, inside: Mask) -> Pixels:
        new = _tiled(tile, np.sqrt(inside.sum()) / unit, inside.shape, generator)
        return pixels + np.float32(SWAPPED[severity - 1]) * (new - pixels)

    return painted


@probe("silhouette", family="texture", needs=("objects",), degrees=False)
def silhouette(sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, colour: str = "black") -> Sample:
    """Each object in one colour, black or, with ``colour=mean``, its own mean."""
    choice("silhouette.colour", colour, ("black", "mean"))
    return _each(sample, context, lambda pixels, inside: np.full_like(pixels, 0 if colour == "black" else pixels[inside].mean(0)))


@probe("edges", family="texture", needs=("objects",), degrees=False)
def edges(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """Each object as a line drawing, black on white: the edges of the image within it (Canny 1986) and its outline."""
    wide = max(1, round(min(sample.image.shape[-2:]) / 200))
    return _each(sample, context, lambda pixels, inside: _lines(pixels, inside, wide))


@probe("cue_conflict", family="texture", needs=("stimuli",), degrees=False, measure="shape_bias")
def cue_conflict(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """Which class wins where a picture has the shape of one and the texture of another: the shape bias of Geirhos et al. (2019).

    The picture stays, its label becomes that of the texture: right answers are then those by texture, and those by shape are
    the right ones of the unchanged sample.  A picture whose shape and texture are of one class, or of one class of the model, or of
    a class that the model does not know, is left out.
    """
    kind = sample.tags.get(TEXTURE_CLASS)
    if kind is None or sample.label is None:
        raise DataError("no stimulus of shape against texture; read cue-conflict:DIR")
    by_shape, by_texture = context.key(context.dataset.classes[sample.label]), context.key(kind)
    if by_shape == by_texture:
        raise DataError("no conflict: shape and texture are of one class")
    if by_shape is None or by_texture is None:
        raise DataError(f"the model does not know the class {kind if by_texture is None else context.dataset.classes[sample.label]!r}")
    return replace(sample, label=context.dataset.classes.index(kind))


aggregate(
    "cue_decomposition",
    of=("diffusion", "voronoi"),
    family="texture",
    about="Objects without texture (diffusion) against objects shuffled inside (voronoi), in the manner of Heinert et al. (2025).",
    measure="shape_bias",
)


def _each(sample: Sample, context: Context, change: Change, takes: Takes | None = None) -> Sample:
    """``change`` applied to the box of every object, with all that is not object completed by its nearest pixels, and
    pasted into its mask; objects of classes (a ``Context.key``) that ``takes`` does not take stay.  DataError where there is none."""
    pixels = sample.image.permute(1, 2, 0).numpy()
    result = pixels.copy()
    empty = True
    for inside in _masks(sample, context, takes):
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        result[box][inside[box]] = change(surface(pixels[box], inside[box]), inside[box])[inside[box]]
        empty = False
    if empty:
        raise DataError("no object in this image")
    return replace(sample, image=torch.from_numpy(result).permute(2, 0, 1).contiguous())


def _masks(sample: Sample, context: Context, takes: Takes | None) -> Iterator[Mask]:
    if takes is None:
        yield from (mask for mask in context.objects(sample).numpy() if mask.any())
        return
    pieces = context.pieces(sample)
    for mask, kind in zip(pieces.masks.numpy(), context.kinds(pieces), strict=True):
        if mask.any() and takes(context.key(kind) if kind else None):
            yield mask


def _shuffle(pixels: Pixels, inside: Mask, cells: int, generator: np.random.Generator) -> Pixels:
    side = max(2, round(np.sqrt(inside.sum()) / cells))
    down, right = (-(-length // side) for length in inside.shape)
    room = ((0, down * side - inside.shape[0]), (0, right * side - inside.shape[1]))
    padded = np.pad(pixels, (*room, (0, 0)), mode="reflect")
    patches = padded.reshape(down, side, right, side, 3).swapaxes(1, 2).reshape(down * right, side, side, 3)
    used = np.flatnonzero(np.pad(inside, room).reshape(down, side, right, side).any((1, 3)).ravel())
    cycle = generator.permutation(used)  # a single cycle, so that no patch stays where it is
    patches[cycle] = patches[np.roll(cycle, 1)]
    mixed = patches.reshape(down, right, side, side, 3).swapaxes(1, 2).reshape(padded.shape)
    return mixed[: inside.shape[0], : inside.shape[1]]


def _cells(pixels: Pixels, inside: Mask, count: int, generator: np.random.Generator) -> Pixels:
    height, width = inside.shape
    places = np.flatnonzero(inside)
    points = np.sort(generator.choice(places, min(count, len(places)), replace=False))  # in the order in which they are numbered
    seeds = np.ones(height * width, np.uint8)
    seeds[points] = 0
    _, cell = cv2.distanceTransformWithLabels(seeds.reshape(height, width), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    numbers = np.zeros(cell.max() + 1, np.intp)
    numbers[cell.ravel()[points]] = np.arange(len(points))
    cycle = generator.permutation(len(points))  # a single cycle, so that no cell stays where it is
    shown = np.empty_like(cycle)
    shown[cycle] = np.roll(cycle, 1)
    moves = points[shown] // width - points // width, points[shown] % width - points % width
    rows, columns = np.indices(inside.shape)
    number = numbers[cell]
    return pixels[(rows + moves[0][number]).clip(0, height - 1), (columns + moves[1][number]).clip(0, width - 1)]


def _tiled(tile: Pixels, scale: float, size: tuple[int, ...], generator: np.random.Generator) -> Pixels:
    """``tile``, which is periodic, ``scale`` times as large and from a random place on, over (H, W, 3)."""
    if scale < 1:
        room = 8
        wide = np.pad(tile, ((room, room), (room, room), (0, 0)), mode="wrap")
        tile = cv2.GaussianBlur(wide, (0, 0), 0.5 * np.sqrt(max(1e-4, 1 / scale**2 - 1)))[room:-room, room:-room]
    top, left = generator.uniform(0, len(tile), 2)
    rows, columns = np.indices(size, dtype=np.float32)
    places = [((each + 0.5) / scale + start - 0.5).astype(np.float32) for each, start in ((columns, left), (rows, top))]
    return cv2.remap(tile, places[0], places[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def _lines(pixels: Pixels, inside: Mask, wide: int) -> Pixels:
    grey = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (0, 0), 0.7 + 0.3 * wide, borderType=cv2.BORDER_REFLECT)
    slope = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))[inside]
    strong = float(np.clip(np.quantile(slope, 0.9), 0.05, None))
    marked = cv2.Canny((grey * 255).round().astype(np.uint8), 255 * strong / 2, 255 * strong, L2gradient=True)
    padded = np.pad(inside, 1).astype(np.uint8)
    marked[inside & ~(cv2.erode(padded, np.ones((3, 3), np.uint8)) > 0)[1:-1, 1:-1]] = 255
    if wide > 1:
        marked = cv2.dilate(marked, np.ones((wide, wide), np.uint8))
    return np.repeat(1 - marked[..., None].astype(np.float32) / 255, 3, 2)
