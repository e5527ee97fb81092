"""What the corruptions have in common: they change the image alone, and measure lengths in pixels.

The constants are those of ImageNet-C (Hendrycks and Dietterich 2019; its make_imagenet_c.py, and imagecorruptions of
Michaelis et al. 2019 where that differs, since mPC is defined with it).  Where we differ from both: the result is not
cut to 8 bits, so that a corrupted value lies up to 1/255 above theirs; any size and shape of image works; random
numbers are the image's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ...errors import XaiError
from ...types import Sample
from ..base import probe
from ..objects import Context

FAMILY = "distortion"

SIDE = 224
"""Short side of the images for which ImageNet-C's lengths were chosen."""


def corruption(name: str, **facts: Any) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Registers a function (image (3, H, W), severity, generator, *, name=default) -> image as a probe; ``facts`` as for ``probe``."""

    def add(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @wraps(function)
        def change(sample: Sample, severity: int, generator: np.random.Generator, context: Context, **params: Any) -> Sample:
            return replace(sample, image=function(sample.image, severity, generator, **params))

        probe(name, family=FAMILY, **facts)(change)
        return function

    return add


def scale_of(image: Tensor, mode: str) -> float:
    """By what a length is multiplied: 1 where it is absolute, short side / 224 where it is relative.

    >>> scale_of(torch.zeros(3, 448, 600), "relative")
    2.0
    """
    if mode not in ("absolute", "relative"):
        raise XaiError(f"mode={mode!r}: expected absolute (the pixels of ImageNet-C) or relative (lengths as at a short side of {SIDE})")
    return 1.0 if mode == "absolute" else min(image.shape[-2:]) / SIDE


def pixels(image: Tensor) -> np.ndarray:
    """(3, H, W) as (H, W, 3), the layout of cv2."""
    return cv2.merge(list(image.contiguous().numpy()))


def planes(picture: np.ndarray) -> Tensor:
    """(H, W, 3) as (3, H, W), without a copy."""
    return torch.from_numpy(picture).permute(2, 0, 1)


def eight_bit_rows(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] as (3 H, W) uint8, rounded."""
    return cv2.convertScaleAbs(image.contiguous().numpy().reshape(-1, image.shape[-1]), alpha=255)


def eight_bits(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] as (H, W, 3) uint8, rounded."""
    return cv2.merge(list(eight_bit_rows(image).reshape(image.shape)))


def from_eight_bits(picture: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 as (3, H, W) in [0, 1]."""
    return planes(np.divide(picture, np.float32(255), dtype=np.float32))


def gaussian(
    picture: np.ndarray, sigma: float | tuple[float, float], border: int = cv2.BORDER_REPLICATE, truncate: float = 4
) -> np.ndarray:
    """(H, W) or (H, W, C), blurred; ``sigma`` in pixels, or those along rows and columns; the kernel ends at ``truncate`` sigma."""
    down, across = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    sides = tuple(2 * int(truncate * each + 0.5) + 1 for each in (across, down))
    return cv2.GaussianBlur(picture, sides, sigmaX=max(across, 1e-6), sigmaY=max(down, 1e-6), borderType=border)
