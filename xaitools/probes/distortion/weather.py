"""Distortion by weather: snow, frost on the pane, fog, drops and mud on the lens."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from ..base import probe
from ..domain import fog
from .blur import streaked, zoomed
from .corruption import FAMILY, SIDE, corruption, gaussian, scale_of
from .frost import GLASS, ICE, ice

SNOW = (
    (0.1, 0.3, 3.0, 0.5, 10, 4.0, 0.8),
    (0.2, 0.3, 2.0, 0.5, 12, 4.0, 0.7),
    (0.55, 0.3, 4.0, 0.9, 12, 8.0, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8.0, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55),
)
"""Mean and deviation of the noise, size of a flake, threshold, half reach and sigma of its fall, share of the scene's own colours."""

FROST = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
"""Shares of the scene and of the pane."""

WATER = ((0.65, 0.3, 4.0, 0.69, 0.6), (0.65, 0.3, 3.0, 0.68, 0.6), (0.65, 0.3, 2.0, 0.68, 0.5))
"""Severity 1 to 3: mean and deviation of the noise, sigma of a drop, threshold, strength."""

MUD = ((0.65, 0.3, 1.0, 0.65, 1.5), (0.67, 0.4, 1.0, 0.65, 1.5))
"""Severity 4 and 5: the same, and at last the sigma that rounds a splash."""

TURQUOISE = (175, 238, 238)
BROWN = (63, 42, 20)

GREY = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)


probe("distortion.fog", family=FAMILY)(fog)


@corruption("distortion.snow")
def snow(image: Tensor, severity: int, generator: np.random.Generator, *, mode: str = "absolute") -> Tensor:
    """Flakes fall in streaks before a whitened scene.  A higher severity does not always hurt more."""
    mean, deviation, size, threshold, reach, sigma, own = SNOW[severity - 1]
    scale = scale_of(image, mode)
    height, width = image.shape[-2:]
    noise = generator.standard_normal((height, width), dtype=np.float32) * np.float32(deviation) + np.float32(mean)
    flakes = zoomed(noise, max(1.0, size * scale))
    flakes[flakes < threshold] = 0
    angle = generator.uniform(-135, -45)
    flakes = streaked(flakes.clip(0, 1), max(1, round(reach * scale)), sigma * scale, angle)[:height, :width]
    fallen = torch.from_numpy(flakes + flakes[::-1, ::-1])
    pale = ((image * GREY).sum(0) * 1.5).add_(0.5)
    return torch.maximum(image, pale).mul_(1 - own).add_(image, alpha=own).add_(fallen).clamp_(max=1)


@corruption("frost")
def frost(image: Tensor, severity: int, generator: np.random.Generator) -> Tensor:
    """A pane with frost is laid over the scene: drawn crystals, where ImageNet-C takes one of six photographs.

    The shares of scene and pane are ImageNet-C's, and the drawn panes are as bright as its photographs, but they are not
    the same pictures: what is measured with them is to be called "frost drawn".  The crystals' size follows the image's.
    """
    share, frosted = FROST[severity - 1]
    thick = torch.from_numpy(ice(image.shape[-2], image.shape[-1], generator))
    bare, white = (image.new_tensor(colour).view(3, 1, 1) for colour in (GLASS, ICE))
    return (image * share).add_(bare * frosted).addcmul_((white - bare) * frosted, thick).clamp_(max=1)


@corruption("spatter")
def spatter(image: Tensor, severity: int, generator: np.random.Generator, *, mode: str = "absolute") -> Tensor:
    """Drops of water on the lens up to severity 3, then splashes of mud."""
    height, width = image.shape[-2:]
    size = height, width
    if scale_of(image, mode) != 1:  # smoothed noise cannot be scaled: drawn at the reference size and enlarged
        size = round(height * SIDE / min(size)), round(width * SIDE / min(size))
    wet = severity <= len(WATER)
    cover = (_water if wet else _mud)(size, severity, generator)
    if size != (height, width):
        cover = cv2.resize(cover, (width, height), interpolation=cv2.INTER_LINEAR)
    layer = torch.from_numpy(cover)
    below = image.clone() if wet else image * (1 - layer)
    return below.addcmul_(image.new_tensor(TURQUOISE if wet else BROWN).view(3, 1, 1) / 255, layer).clamp_(max=1)


def _liquid(
    size: tuple[int, int], mean: float, deviation: float, sigma: float, threshold: float, generator: np.random.Generator
) -> np.ndarray:
    noise = generator.standard_normal(size, dtype=np.float32) * np.float32(deviation) + np.float32(mean)
    liquid = gaussian(noise, sigma)
    liquid[liquid < threshold] = 0
    return liquid


def _water(size: tuple[int, int], severity: int, generator: np.random.Generator) -> np.ndarray:
    """How much of the colour lies on each pixel: drops, lit from one side by an embossing filter on the distance to their rims."""
    mean, deviation, sigma, threshold, strength = WATER[severity - 1]
    drops = (_liquid(size, mean, deviation, sigma, threshold, generator) * 255).astype(np.uint8)
    rims = cv2.distanceTransform(255 - cv2.Canny(drops, 50, 150), cv2.DIST_L2, 5)
    rims = cv2.equalizeHist(cv2.blur(rims.clip(max=20), (3, 3)).astype(np.uint8))
    light = cv2.filter2D(rims, cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    cover = drops * cv2.blur(light, (3, 3)).astype(np.float32)
    return cover * np.float32(strength / max(float(cover.max()), 1e-6))


def _mud(size: tuple[int, int], severity: int, generator: np.random.Generator) -> np.ndarray:
    """The same for splashes, which hide what is below."""
    mean, deviation, sigma, threshold, rounding = MUD[severity - 1 - len(WATER)]
    cover = gaussian((_liquid(size, mean, deviation, sigma, threshold, generator) > threshold).astype(np.float32), rounding)
    cover[cover < 0.8] = 0
    return cover
