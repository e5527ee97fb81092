"""Distortion by bending: pixels move by a smooth random field."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch

from ...errors import XaiError
from ...types import Sample
from ..base import probe
from ..objects import Context
from .corruption import FAMILY, gaussian, pixels, planes

SMOOTH = 0.01
"""Sigma that smooths the field, as a share of height and width."""

REACH = 0.005
"""Largest move before smoothing, as a share of the height."""

STRENGTH = (12.5, 16.25, 21.25, 25.0, 30.0)
"""Factor of the smoothed field."""


@probe("elastic_transform", family=FAMILY, moves=True)
def elastic_transform(sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, labels: str = "kept") -> Sample:
    """Every pixel is taken from a little beside it, up to a few pixels, alike in its neighbourhood.

    As in imagecorruptions (no affine part, unlike ImageNet-C's first version); the field follows the image's size.  The
    labels stay where they were, as published, so that a part of the drop is misplaced truth; ``labels=moved`` moves
    masks, maps and boxes along.  A box moves as the smallest box around its mask does; without masks, as a filled box
    does.  What nothing is left of is taken out.
    """
    if labels not in ("kept", "moved"):
        raise XaiError(f"labels={labels!r}: expected kept (as published) or moved (masks, maps and boxes go along)")
    height, width = sample.image.shape[-2:]
    across, down = (_field(height, width, generator) * np.float32(STRENGTH[severity - 1]) for _ in range(2))
    columns = across + np.arange(width, dtype=np.float32)
    rows = down + np.arange(height, dtype=np.float32)[:, None]
    bent = cv2.remap(pixels(sample.image), columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    after = replace(sample, image=planes(bent))
    return after if labels == "kept" else _moved(after, _nearest(rows, height), _nearest(columns, width))


def _field(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """(H, W) float32, pixels: uniform noise, smoothed."""
    noise = generator.random((height, width), dtype=np.float32)
    noise -= np.float32(0.5)
    noise *= np.float32(2 * REACH * height)
    return gaussian(noise, (SMOOTH * height, SMOOTH * width), cv2.BORDER_REFLECT, truncate=3)


def _nearest(places: np.ndarray, side: int) -> torch.Tensor:
    """Whole places within the image, mirrored at its edges like the colours."""
    whole = np.floor(places + 0.5).astype(np.int64)
    whole = np.where(whole < 0, -1 - whole, whole)
    return torch.from_numpy(np.where(whole >= side, 2 * side - 1 - whole, whole).clip(0, side - 1))


def _moved(sample: Sample, rows: torch.Tensor, columns: torch.Tensor) -> Sample:
    """The truth of ``sample`` with every pixel taken from ``rows`` and ``columns`` (H, W)."""
    semantic = None if sample.semantic is None else sample.semantic[rows, columns]
    masks = None if sample.masks is None else sample.masks[:, rows, columns]
    if sample.boxes is None:
        return replace(sample, semantic=semantic, masks=masks)
    before = sample.masks if sample.masks is not None else _filled(sample.boxes, *rows.shape)
    after = masks if masks is not None else before[:, rows, columns]
    left = before.any((1, 2)) & after.any((1, 2))
    boxes = sample.boxes[left] + _extent(after[left]) - _extent(before[left])
    return replace(
        sample,
        semantic=semantic,
        boxes=boxes.clamp(min=0).minimum(boxes.new_tensor([rows.shape[1], rows.shape[0]] * 2)),
        labels=None if sample.labels is None else sample.labels[left],
        masks=None if masks is None else masks[left],
        ignore=None if sample.ignore is None else sample.ignore[left],
    )


def _filled(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(N, H, W) bool: the pixels whose middles lie in each box."""
    x, y = torch.arange(width) + 0.5, torch.arange(height)[:, None] + 0.5
    x1, y1, x2, y2 = (boxes[:, index, None, None] for index in range(4))
    return (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)


def _extent(masks: torch.Tensor) -> torch.Tensor:
    """(N, 4) xyxy: the smallest box around each mask (N, H, W); none is empty."""
    found = []
    for side in (masks.any(1), masks.any(2)):  # columns, rows
        first = side.int().argmax(1)
        found.append((first, side.shape[1] - side.flip(1).int().argmax(1)))
    (left, right), (top, bottom) = found
    return torch.stack([left, top, right, bottom], 1).float()
