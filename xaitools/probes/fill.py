"""Painting over objects, so that a background can be used without them."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SHIFTS = 20
"""Steps each way of the grid of shifts that are tried."""

POINTS = 800
"""Pixels of a block, and of its rim, that a shift is judged by."""

BLOCKS = 8
"""Blocks along the shorter side of the image."""

SMALL = 256
"""Longest side in pixels at which holes are diffused over; the result is enlarged."""

Pixels = NDArray[np.float32]
Mask = NDArray[np.uint8]


def fill(image: Tensor, hole: Tensor) -> Tensor:
    """``image`` (3, H, W) with ``hole`` (H, W) painted over.

    Block by block from its border inwards, each block is covered by the part of the same image, free of holes,
    whose rim fits best to what is there already (image quilting, Efros and Freeman 2001, without the seam cut); its
    colour is drawn to that of the rim.  Where nothing is free, the hole is diffused over (Telea 2004).
    """
    height, width = hole.shape
    radius = max(2, round(min(height, width) / 50))
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    wide = cv2.dilate(hole.numpy().astype(np.uint8), ellipse)
    if wide.all():
        return image.mean((1, 2), keepdim=True).expand_as(image).clone()
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    painted, left = pixels.copy(), wide.copy()
    for block in _blocks(wide):
        if _covered(pixels, wide, block, painted, left):
            left[block > 0] = 0
    if left.any():
        painted = np.where(left[..., None] > 0, _diffused(painted, left), painted)
    # the margin around the objects passes over gradually
    share = np.minimum(cv2.distanceTransform(wide, cv2.DIST_L2, 3) / (radius + 1), 1)[..., None]
    return torch.from_numpy(share * painted + (1 - share) * pixels).permute(2, 0, 1).contiguous().clamp(0, 1)


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


def _covered(pixels: Pixels, wide: Mask, block: Mask, painted: Pixels, left: Mask) -> bool:
    """Covers ``block`` in ``painted``; False if no shift of it is free of ``wide`` and inside the image."""
    size = np.array(block.shape)
    inside = np.argwhere(block)
    around = np.argwhere((cv2.dilate(block, np.ones((9, 9), np.uint8)) > 0) & (left == 0))
    steps = [np.unique(np.linspace(1 - length, length - 1, 2 * SHIFTS + 1).astype(int)) for length in size]
    shifts = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 2)
    shifts = shifts[((inside.min(0) + shifts >= 0) & (inside.max(0) + shifts < size)).all(1)]
    taken = wide[_at(_some(inside)[None] + shifts[:, None])]
    shifts = shifts[~taken.any(1)]
    if not len(shifts) or not len(around):
        return False
    rim = _some(around)
    differences = painted[_at(rim)][None] - pixels[_at(np.clip(rim[None] + shifts[:, None], 0, size - 1))]
    best = int((differences**2).mean((1, 2)).argmin())
    painted[_at(inside)] = pixels[_at(inside + shifts[best])] + np.median(differences[best], 0)
    return True


def _some(places: NDArray[np.intp]) -> NDArray[np.intp]:
    return places[:: -(-len(places) // POINTS)]


def _at(places: NDArray[np.intp]) -> tuple[NDArray[np.intp], ...]:
    """(.., 2) places as an index into the first two axes."""
    return tuple(np.moveaxis(places, -1, 0))


def _diffused(pixels: Pixels, mask: Mask) -> Pixels:
    height, width = mask.shape
    scale = min(1.0, SMALL / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize((pixels * 255).round().clip(0, 255).astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    small_mask = (cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR) > 0).astype(np.uint8)
    painted = cv2.inpaint(small, small_mask, 3, cv2.INPAINT_TELEA)
    return cv2.resize(painted, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
