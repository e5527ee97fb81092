"""Distortion by processing: contrast, colour, coarse pixels, compression."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from .corruption import corruption, eight_bit_rows, eight_bits, from_eight_bits, planes, scale_of

BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
SATURATE = ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2))
"""Factor of the saturation, and what is added to it."""

PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)
"""Pixels that are left along each side, as a share."""

QUALITY = (25, 18, 15, 10, 7)


@corruption("brightness")
def brightness(image: Tensor, severity: int, generator: np.random.Generator) -> Tensor:
    """Overexposed: a constant is added to the value of HSV, hue and saturation stay."""
    value = image.amax(0)
    brighter = (value + BRIGHTNESS[severity - 1]).clamp_(max=1)
    return torch.where(value > 0, image * (brighter / value), brighter)


@corruption("contrast")
def contrast(image: Tensor, severity: int, generator: np.random.Generator) -> Tensor:
    """Every channel is drawn to its own mean over the image."""
    factor = CONTRAST[severity - 1]
    return (image * factor).add_((1 - factor) * image.mean((1, 2), keepdim=True))


@corruption("saturate")
def saturate(image: Tensor, severity: int, generator: np.random.Generator) -> Tensor:
    """Paler or more gaudy: the saturation of HSV is changed.  Where it grows, grey becomes reddish: it has hue 0."""
    factor, more = SATURATE[severity - 1]
    value = image.amax(0)
    depth = value - image
    deepest = depth.amax(0)  # value times saturation
    wanted = (deepest * factor).add_(value * more).minimum(value)
    red = value.new_tensor([0.0, 1.0, 1.0]).view(3, 1, 1)
    return value - torch.where(deepest > 0, depth * (wanted / deepest), red * wanted)


@corruption("pixelate")
def pixelate(image: Tensor, severity: int, generator: np.random.Generator, *, mode: str = "absolute") -> Tensor:
    """Fewer, larger pixels, in 8 bits: each is the mean of those whose middles it covers."""
    share = min(1.0, PIXELATE[severity - 1] / scale_of(image, mode))
    height, width = image.shape[-2:]
    upright = cv2.transpose(eight_bit_rows(image))  # (W, 3 H): columns become rows, which are cheap to add
    narrow = cv2.transpose(box_means(upright, max(1, int(width * share)))).reshape(3, height, -1)
    small = box_means(narrow.transpose(1, 0, 2), max(1, int(height * share)))
    coarse = np.divide(cv2.merge(list(small.transpose(1, 0, 2))), np.float32(255), dtype=np.float32)
    return planes(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))


def box_means(rows: np.ndarray, count: int) -> np.ndarray:
    """(L, ...) uint8 as (count, ...), count <= L: the rounded mean of the rows whose middles each new one covers.

    To the last bit one pass of Pillow's ``BOX`` resizing, whose weights have 22 binary places, at about twice its speed.
    """
    scale = len(rows) / count
    middles = (np.arange(count) + 0.5) * scale
    first, last = (np.minimum((middles + side * scale / 2 + 0.5).astype(int), len(rows)) for side in (-1, 1))
    last -= (last - 1 - middles + 0.5) * (1 / scale) > 0.5  # Pillow asks again, which tells where a middle lies on a border
    found = np.empty((count, *rows.shape[1:]), np.uint8)
    for size in np.unique(last - first).tolist():
        chosen = np.flatnonzero(last - first == size)
        total = rows[first[chosen]].astype(np.uint16)
        for step in range(1, size):
            total += rows[first[chosen] + step]
        low = int(2**22 / size + 0.5) * size < 2**22  # a weight that was rounded down takes a tie down
        total += np.uint16((size - low) // 2)
        found[chosen] = total // np.uint16(size)
    return found


@corruption("jpeg_compression")
def jpeg_compression(image: Tensor, severity: int, generator: np.random.Generator) -> Tensor:
    """Compressed as JPEG, its colours at half the resolution, and read again.  Its blocks are 8 pixels wide at any size."""
    picture = cv2.cvtColor(eight_bits(image), cv2.COLOR_RGB2BGR)
    _, file = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY[severity - 1]])
    return from_eight_bits(cv2.cvtColor(cv2.imdecode(file, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))
