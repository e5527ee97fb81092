"""Distortion by noise of the sensor or the wire.  Each pixel and channel is hit alone, so there are no lengths to scale."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from .corruption import corruption

GAUSSIAN = (0.08, 0.12, 0.18, 0.26, 0.38)
SHOT = (60, 25, 12, 5, 3)
IMPULSE = (0.03, 0.06, 0.09, 0.17, 0.27)
SPECKLE = (0.15, 0.2, 0.35, 0.45, 0.6)

LEVELS = 255

BLOCK = 1 << 15
"""Numbers that are looked up at once; they stay in the cache."""


@corruption("gaussian_noise")
def gaussian_noise(image: Tensor, severity: int, generator: np.random.Generator) -> Tensor:
    """Normal noise is added to each channel of each pixel, as in a dim light."""
    return _normal(image, generator).mul_(GAUSSIAN[severity - 1]).add_(image).clamp_(0, 1)


@corruption("shot_noise")
def shot_noise(image: Tensor, severity: int, generator: np.random.Generator) -> Tensor:
    """Photons are counted: a Poisson number whose mean is proportional to the brightness.

    Drawn by inversion from tables for 256 levels; what a value has beyond its level adds a Poisson number of its own,
    which is exact because Poisson numbers add up.
    """
    photons = SHOT[severity - 1]
    scaled = image.reshape(-1).numpy() * np.float32(LEVELS)
    counts = generator.random(tuple(image.shape), dtype=np.float32).reshape(-1)
    for start in range(0, len(scaled), BLOCK):
        part = slice(start, start + BLOCK)
        counts[part] = _inverted((scaled[part] + np.float32(1e-3)).astype(np.uint8), counts[part], photons)
    rest = scaled - np.floor(scaled + np.float32(1e-3))
    if rest.max() > 1e-3:  # no image of 8 bits has a rest
        counts += generator.poisson(np.maximum(rest, 0) * (photons / LEVELS))
    return torch.from_numpy(counts).view(image.shape).div_(photons).clamp_(max=1)


@corruption("impulse_noise")
def impulse_noise(image: Tensor, severity: int, generator: np.random.Generator) -> Tensor:
    """Salt and pepper: a share of the values, channel by channel, becomes 0 or 1."""
    share = IMPULSE[severity - 1]
    uniform = torch.from_numpy(generator.random(tuple(image.shape), dtype=np.float32))
    return image.masked_fill(uniform < share, 1).masked_fill_(uniform < share / 2, 0)


@corruption("speckle_noise")
def speckle_noise(image: Tensor, severity: int, generator: np.random.Generator) -> Tensor:
    """Normal noise in proportion to the brightness."""
    return _normal(image, generator).mul_(SPECKLE[severity - 1]).add_(1).mul_(image).clamp_(0, 1)


def _normal(image: Tensor, generator: np.random.Generator) -> Tensor:
    return torch.from_numpy(generator.standard_normal(tuple(image.shape), dtype=np.float32))


@cache
def _table(photons: int) -> np.ndarray:
    """(256, a power of two) float32: of each level the probabilities of at most 0, 1, ... photons; 1 from ``photons`` on.

    More photons than that are white all the same.
    """
    mean = np.arange(LEVELS + 1)[:, None] * (photons / LEVELS)
    terms = np.ones((LEVELS + 1, photons))
    terms[:, 1:] = np.cumprod(mean / np.arange(1, photons), 1)
    table = np.ones((LEVELS + 1, 1 << photons.bit_length()), np.float32)
    table[:, :photons] = np.exp(-mean) * np.cumsum(terms, 1)
    return table


def _inverted(levels: np.ndarray, uniform: np.ndarray, photons: int) -> np.ndarray:
    """How many entries of its level's table lie at or below each uniform number, by bisection."""
    table = _table(photons)
    first = levels.astype(np.intp) * table.shape[1]
    place, flat, step = first.copy(), table.ravel(), table.shape[1] // 2
    while step:
        place += (flat[step - 1 :].take(place) <= uniform) * step
        step //= 2
    return place - first
