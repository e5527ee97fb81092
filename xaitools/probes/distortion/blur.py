"""Distortion by blur: of the lens, of frosted glass, of motion, of zooming."""

from __future__ import annotations

import math

import cv2
import numpy as np
from torch import Tensor

from .corruption import corruption, gaussian, pixels, planes, scale_of

DEFOCUS = ((3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5))
"""Radius of the disc and sigma that softens its edge, in pixels."""

GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
"""Sigma before and after, how far a pixel is fetched from, how often."""

MOTION = ((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0))
"""Half of the reach, and sigma along it, in pixels."""

ZOOM = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
"""End and step of the factors, which begin at 1.  As published they go through arange, where rounding lets the first reach its end."""

GAUSSIAN = (1.0, 2.0, 3.0, 4.0, 6.0)


@corruption("defocus_blur")
def defocus_blur(image: Tensor, severity: int, generator: np.random.Generator, *, mode: str = "absolute") -> Tensor:
    """Out of focus: every point becomes a disc."""
    radius, soft = (each * scale_of(image, mode) for each in DEFOCUS[severity - 1])
    return planes(cv2.filter2D(pixels(image), -1, disc(radius, soft)))


@corruption("glass_blur")
def glass_blur(image: Tensor, severity: int, generator: np.random.Generator, *, mode: str = "absolute") -> Tensor:
    """Frosted glass: every pixel is fetched from its neighbourhood, in 8 bits, between two slight blurs.

    Published as a swap of neighbours, pixel after pixel from the last to the first; as the code is written the second
    half of the swap does nothing, and so it is here.
    """
    scale = scale_of(image, mode)
    sigma, reach, rounds = GLASS[severity - 1]
    reach = max(1, round(reach * scale))
    blurred = (gaussian(pixels(image), sigma * scale) * 255).astype(np.uint8)
    height, width = blurred.shape[:2]
    sources = np.arange(height * width, dtype=np.int32)
    for _ in range(rounds):
        sources = sources[fetched(height, width, reach, generator)]
    mixed = blurred.reshape(-1, 3).take(sources, axis=0).reshape(blurred.shape)
    return planes(gaussian(mixed.astype(np.float32) / 255, sigma * scale))


@corruption("motion_blur")
def motion_blur(image: Tensor, severity: int, generator: np.random.Generator, *, mode: str = "absolute") -> Tensor:
    """The camera moved along a line, fastest at its end."""
    scale = scale_of(image, mode)
    reach, sigma = MOTION[severity - 1]
    return planes(streaked(pixels(image), round(reach * scale), sigma * scale, generator.uniform(-45, 45)))


@corruption("zoom_blur", moves=True)
def zoom_blur(image: Tensor, severity: int, generator: np.random.Generator) -> Tensor:
    """The lens zoomed while the shutter was open.  Things grow from the middle, their labels do not."""
    picture = pixels(image)
    height, width = picture.shape[:2]
    factors = np.arange(1, *ZOOM[severity - 1])
    total = picture.copy()
    for factor in factors:
        total += zoomed(picture, factor)[:height, :width]
    total /= len(factors) + 1
    return planes(total)


@corruption("gaussian_blur")
def gaussian_blur(image: Tensor, severity: int, generator: np.random.Generator, *, mode: str = "absolute") -> Tensor:
    """A soft blur, the same in all directions."""
    return planes(gaussian(pixels(image), GAUSSIAN[severity - 1] * scale_of(image, mode)))


def disc(radius: float, soft: float) -> np.ndarray:
    """Kernel of a disc, its edge softened.  As published its sum is 1, but 1.01 for discs of 8 and 10 pixels, which meet their frame."""
    half = 8 if radius <= 8 else math.ceil(radius)
    line = np.arange(-half, half + 1)
    kernel = (line[:, None] ** 2 + line**2 <= radius**2).astype(np.float32)
    side = 3 if radius <= 8 else 5
    return cv2.GaussianBlur(kernel / kernel.sum(), (side, side), soft)


def fetched(height: int, width: int, reach: int, generator: np.random.Generator) -> np.ndarray:
    """(height * width,) int32: where each pixel's value comes from when all fetch one another's, from the last to the first.

    A pixel that fetches from one behind it gets what that one fetched, and so on.  The chains are followed to their
    ends by doubling: what a pixel points at is replaced by what that points at.
    """
    sources = np.arange(height * width, dtype=np.int32)
    rows, columns = np.arange(reach + 1, height - reach + 1), np.arange(reach + 1, width - reach + 1)
    if not len(rows) or not len(columns):
        return sources
    moves = generator.integers(-reach, reach, (len(rows), len(columns), 2), dtype=np.int8 if reach < 128 else np.int32)[::-1, ::-1]
    own = rows[:, None].astype(np.int32) * width + columns.astype(np.int32)
    steps = moves[..., 1].astype(np.int32) * width + moves[..., 0]
    sources[own] = own + steps
    changed = np.zeros((height, width), bool)
    changed[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1] = True
    open_ends = (sources > np.arange(height * width, dtype=np.int32)) & changed.ravel()[sources]
    active = np.flatnonzero(open_ends).astype(np.int32)
    while len(active):
        behind = sources[active]
        sources[active] = sources[behind]
        still = open_ends[behind]
        open_ends[active] = still
        active = active[still]
    return sources


def streaked(picture: np.ndarray, reach: int, sigma: float, angle: float) -> np.ndarray:
    """``picture`` (H, W[, C]) smeared along ``angle`` degrees by half a normal curve of ``2 * reach + 1`` pixels; edges go on."""
    steps = np.arange(2 * reach + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    down, across = (np.ceil(steps * function(math.radians(angle)) - 0.5).astype(int) for function in (math.sin, math.cos))
    top, left, bottom, right = (max(0, -down.min()), max(0, -across.min()), max(0, down.max()), max(0, across.max()))
    padded = cv2.copyMakeBorder(picture, top, bottom, left, right, cv2.BORDER_REPLICATE)
    height, width = picture.shape[:2]
    total = np.zeros_like(picture)
    for weight, y, x in zip(weights, down + top, across + left, strict=True):
        cv2.scaleAdd(padded[y : y + height, x : x + width], weight, total, total)
    return total


def zoomed(picture: np.ndarray, factor: float) -> np.ndarray:
    """The middle of ``picture`` (H, W[, C]) enlarged to at least (H, W); the corners of its outer pixels stay corners."""
    height, width = picture.shape[:2]
    cut = [math.ceil(each / factor) for each in (height, width)]
    made = [max(side, round(each * factor)) for side, each in zip((height, width), cut, strict=True)]
    step = [(each - 1) / max(1, side - 1) for each, side in zip(cut, made, strict=True)]
    first = [(side - each) // 2 for side, each in zip((height, width), cut, strict=True)]
    matrix = np.array([[step[1], 0, first[1]], [0, step[0], first[0]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, matrix, (made[1], made[0]), flags=flags, borderMode=cv2.BORDER_REPLICATE)
