"""Texture: what an object's surface looks like, its outline untouched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..types import Sample
from .base import probe
from .geometry import surface
from .objects import Context

CELLS = (2, 3, 4, 6, 8)
"""Patches along the side of a square of the object's area, by severity."""


@probe("patch_shuffle", family="texture", needs=("objects",), default=True)
def patch_shuffle(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """The patches inside each object's mask change places; severity makes them smaller.

    Every patch moves.  A patch that reaches over the outline is completed with the object's nearest pixels,
    so no background enters.  Pixels outside of objects are untouched.
    """
    pixels = sample.image.permute(1, 2, 0).numpy()
    shuffled = pixels.copy()
    for mask in context.objects(sample).numpy():
        if mask.any():
            _shuffle(pixels, shuffled, mask, CELLS[severity - 1], generator)
    return replace(sample, image=torch.from_numpy(shuffled).permute(2, 0, 1).contiguous())


def _shuffle(pixels: np.ndarray, shuffled: np.ndarray, mask: np.ndarray, cells: int, generator: np.random.Generator) -> None:
    """Writes the object of ``mask`` (H, W) into ``shuffled``; all arrays of one size, (H, W, 3) the images."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    inside = mask[box]
    side = max(2, round(np.sqrt(inside.sum()) / cells))
    down, right = (-(-length // side) for length in inside.shape)
    whole = surface(pixels[box], inside)
    padded = np.pad(whole, ((0, down * side - inside.shape[0]), (0, right * side - inside.shape[1]), (0, 0)), mode="reflect")
    patches = padded.reshape(down, side, right, side, 3).swapaxes(1, 2).reshape(down * right, side, side, 3)
    touched = np.pad(inside, ((0, down * side - inside.shape[0]), (0, right * side - inside.shape[1])))
    used = np.flatnonzero(touched.reshape(down, side, right, side).any((1, 3)).ravel())
    cycle = generator.permutation(used)  # a single cycle, so that no patch stays where it is
    patches[cycle] = patches[np.roll(cycle, 1)]
    mixed = patches.reshape(down, right, side, side, 3).swapaxes(1, 2).reshape(padded.shape)
    shuffled[box][inside] = mixed[: inside.shape[0], : inside.shape[1]][inside]
