"""Domain: the same scene in another weather or light.  Objects, outlines and labels stay where they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..types import Sample
from .base import probe
from .objects import Context

FOG = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))
"""Thickness and decay by severity, the constants of ImageNet-C."""

NIGHT = (0.16, 0.1, 0.065, 0.04, 0.025)
"""Mean light by severity, in linear values; white is 1."""


@probe("fog", family="domain", default=True)
def fog(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """Drifting fog in the manner of ImageNet-C (Hendrycks and Dietterich 2019): a plasma fractal is added.

    The same severity hides more of a small image than of a large one: the fractal follows the image's size.
    """
    thickness, decay = FOG[severity - 1]
    height, width = sample.image.shape[-2:]
    cloud = torch.from_numpy(plasma(max(height, width), decay, generator)[:height, :width]).float()
    brightest = sample.image.max()
    image = (sample.image + thickness * cloud) * brightest / (brightest + thickness)
    return replace(sample, image=image)


@probe("night", family="domain", default=True)
def night(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """Less light, bluish and paler as rods see it, falling off to the corners, with the noise of a short exposure.

    The exposure goes down to a given mean, and to 0.7 of what it was at least, so that a dusky image does not
    become black where a bright one stays readable.  Noise is photon noise plus read-out noise, in linear values.
    """
    light = _linear(sample.image)
    share = float((NIGHT[severity - 1] / light.mean().clamp(min=1e-6)).clamp(max=0.7))
    light = light * share
    grey = light.mean(0, keepdim=True)
    tint = torch.tensor([0.75, 0.9, 1.25]).view(3, 1, 1)
    light = torch.lerp(light, grey, 0.5 * (1 - share)) * torch.lerp(torch.ones_like(tint), tint, 1 - share)
    light = light * _vignette(light.shape[-2], light.shape[-1], 0.5)
    noise = torch.from_numpy(generator.standard_normal(light.shape, dtype=np.float32))
    light = light + noise * (light.clamp(min=0) / 2500 + 0.0025**2).sqrt()
    return replace(sample, image=_encoded(light.clamp(0, 1)))


def plasma(side: int, decay: float, generator: np.random.Generator) -> np.ndarray:
    """Diamond-square fractal (side, side) in [0, 1], periodic at the next power of two.

    The midpoints of each octave move by ``decay ** -2`` of the one before: ImageNet-C multiplies by its
    shrinking amplitude twice, and its constants count on that.
    """
    size = 1 << max(3, (side - 1).bit_length())
    grid = np.zeros((size, size))
    step, amplitude = size, 1.0
    while step > 1:
        half = step // 2
        corners = grid[::step, ::step]
        across, down = corners + np.roll(corners, -1, 1), corners + np.roll(corners, -1, 0)
        centres = (across + np.roll(across, -1, 0)) / 4 + generator.uniform(-amplitude, amplitude, corners.shape)
        grid[half::step, half::step] = centres
        moves = generator.uniform(-amplitude, amplitude, (2, *corners.shape))
        grid[::step, half::step] = (across + centres + np.roll(centres, 1, 0)) / 4 + moves[0]
        grid[half::step, ::step] = (down + centres + np.roll(centres, 1, 1)) / 4 + moves[1]
        step, amplitude = half, amplitude / decay**2
    grid -= grid.min()
    return grid[:side, :side] / grid.max()


def _vignette(height: int, width: int, loss: float) -> Tensor:
    """(H, W): 1 in the middle, ``1 - loss`` in the corners."""
    rows, columns = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)[None]
    return 1 - loss * (rows**2 + columns**2) / 2


def _linear(image: Tensor) -> Tensor:
    return torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def _encoded(light: Tensor) -> Tensor:
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp(min=1e-9) ** (1 / 2.4) - 0.055)
