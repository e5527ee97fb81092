"""Painting over parts of an image: a background without its objects, or an image without one of them."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SHIFTS = 12
"""Steps each way of the grid of shifts that are tried."""

POINTS = 150
"""Pixels of a block, and of its rim, by which shifts are judged."""

REACH = 4
"""Width in pixels of that rim."""

BLOCKS = 6
"""Blocks along the shorter side of the image."""

FREE = 0.1
"""Share of the image that must be free for nothing else to be copied from."""

SMALL = 256
"""Longest side in pixels at which holes are diffused over; the result is enlarged."""

Pixels = NDArray[np.float32]
Mask = NDArray[np.uint8]


def fill(image: Tensor, hole: Tensor, keep: Tensor | None = None) -> Tensor:
    """``image`` (3, H, W) with ``hole`` (H, W) painted over, and a margin around it.

    Block by block from its border inwards, each block is covered by the part of the same image, free of holes,
    whose rim fits best to what is there already (image quilting, Efros and Freeman 2001, without the seam cut); its
    colour is drawn to that of the rim.  Where nothing is free, the hole is diffused over (Telea 2004).

    keep    (H, W) bool: what stays as it is outside the hole and, where a tenth of the image or more is free of it, is not
            copied into it, such as other objects; with it the margin ends at the hole, while without it corners of an
            object may shine through faintly
    """
    height, width = hole.shape
    radius = max(2, round(min(height, width) / 25))  # wide, for an object leaves a shadow and a blurred rim around it
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    wide = cv2.dilate(hole.numpy().astype(np.uint8), ellipse)
    closed = wide if keep is None else wide | keep.numpy().astype(np.uint8)
    if closed.mean() > 1 - FREE:
        closed = wide
    if closed.all():  # there is nothing to go by
        flat = image.mean((1, 2), keepdim=True).expand_as(image).clone()
        return flat if keep is None else torch.where(keep & ~hole, image, flat)
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    painted, left = pixels.copy(), closed.copy()
    for block in _blocks(wide):
        if _covered(pixels, closed, block, painted, left):
            left[block > 0] = 0
    if (left & wide).any():
        painted = np.where((left & wide)[..., None] > 0, _diffused(painted, left), painted)
    # the margin around the objects passes over gradually
    share = np.minimum(cv2.distanceTransform(wide, cv2.DIST_L2, 3) / (radius + 1), 1)[..., None]
    if keep is not None:
        share[hole.numpy()] = 1
    result = torch.from_numpy(share * painted + (1 - share) * pixels).permute(2, 0, 1).contiguous().clamp(0, 1)
    return result if keep is None else torch.where(keep & ~hole, image, result.to(image))


def _blocks(wide: Mask) -> Iterator[Mask]:
    """The parts of ``wide`` (H, W) in the cells of a grid, those near its border first."""
    depth = cv2.distanceTransform(wide, cv2.DIST_L2, 3)
    side = max(8, min(wide.shape) // BLOCKS)
    cells = [(slice(top, top + side), slice(left, left + side))
             for top in range(0, wide.shape[0], side) for left in range(0, wide.shape[1], side)]  # fmt: skip
    for cell in sorted((cell for cell in cells if wide[cell].any()), key=lambda cell: float(depth[cell].max())):
        block = np.zeros_like(wide)
        block[cell] = wide[cell]
        yield block


def _covered(pixels: Pixels, closed: Mask, block: Mask, painted: Pixels, left: Mask) -> bool:
    """Covers ``block`` in ``painted``; False if no shift of it was found to be free of ``closed``."""
    height, width = block.shape
    near = cv2.dilate(block, np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8)) > 0
    inside, rim = np.flatnonzero(block), np.flatnonzero(near & (left == 0))
    if not len(rim):
        return False
    rows, columns = (_steps(near.any(axis), length) for axis, length in ((1, height), (0, width)))
    shifts = (rows[:, None] * width + columns[None]).ravel()  # in the flat image; nothing near the block leaves it
    flat_pixels, flat_painted, flat_closed = pixels.reshape(-1, 3), painted.reshape(-1, 3), closed.ravel()
    shifts = shifts[~flat_closed[_some(inside)[None] + shifts[:, None]].any(1)]
    rim = _some(rim)
    differences = flat_painted[rim] - flat_pixels[rim[None] + shifts[:, None]]
    for best in (differences**2).mean((1, 2)).argsort(kind="stable")[:50]:
        if not flat_closed[inside + shifts[best]].any():
            flat_painted[inside] = flat_pixels[inside + shifts[best]] + np.median(differences[best], 0)
            return True
    return False


def _steps(near: NDArray[np.bool_], length: int) -> NDArray[np.int64]:
    """Shifts along one axis that keep what is ``near`` inside the image."""
    ends = np.flatnonzero(near)
    return np.unique(np.linspace(-ends[0], length - 1 - ends[-1], 2 * SHIFTS + 1).astype(np.int64))


def _some(places: NDArray[np.intp]) -> NDArray[np.intp]:
    return places[:: -(-len(places) // POINTS)]


def _diffused(pixels: Pixels, mask: Mask) -> Pixels:
    height, width = mask.shape
    scale = min(1.0, SMALL / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize((pixels * 255).round().clip(0, 255).astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    small_mask = (cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR) > 0).astype(np.uint8)
    painted = cv2.inpaint(small, small_mask, 3, cv2.INPAINT_TELEA)
    return cv2.resize(painted, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
