"""What makes textures and unmakes them: synthesis from statistics, and edge-enhancing diffusion."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .geometry import surface

SIDE, LEAST = 96, 32
"""Pixels along the side of a texture that is made: as many as the longer side of the object's box, within these."""

OCTAVES, DIRECTIONS = 3, 4
"""Of the bands that are matched."""

ROUNDS = 4

SMOOTH = 5**0.5
"""Standard deviation in pixels of the blur in which slopes are measured."""

STEP = 0.25
"""Largest explicit time step that is stable."""

CYCLES = 3
"""How often edges are looked at anew."""


# ---- Heeger and Bergen 1995 --------------------------------------------------------------------------------------


def texture(image: Tensor, mask: Tensor, generator: np.random.Generator) -> tuple[NDArray[np.float32], float]:
    """A periodic picture (S, S, 3) in [0, 1], S from LEAST to SIDE, with the texture of the object ``mask`` (H, W) of ``image``
    (3, H, W), and the side in its pixels of a square with the object's area.

    Noise takes the histogram of every oriented band, and of every colour, of the object, several times in turn.  Colours
    are decorrelated by their principal axes.  Where we differ from the paper: bands are not sampled down, and their
    filters are even in both directions; only pixels inside the mask count.
    """
    pixels, inside = _object(image, mask)
    side = max(LEAST, *inside.shape)
    colours = pixels[inside].astype(np.float64)
    middle = colours.mean(0)
    _, axes = np.linalg.eigh(np.cov((colours - middle).T) if len(colours) > 1 else np.eye(3))
    wanted = torch.from_numpy(((pixels - middle) @ axes).transpose(2, 0, 1)).float()
    seen = torch.from_numpy(inside)
    bands = [_quantiles(band[:, seen], side**2) for band in _bands(wanted)]
    own = _quantiles(wanted[:, seen], side**2)
    made = _matched(torch.from_numpy(generator.standard_normal((3, side, side), dtype=np.float32)), own)
    for _ in range(ROUNDS):
        made = _joined([_matched(band, goal) for band, goal in zip(_bands(made), bands, strict=True)])
        made = _matched(made, own)
    found = made.permute(1, 2, 0).numpy() @ axes.T.astype(np.float32) + middle.astype(np.float32)
    return np.ascontiguousarray(found.clip(0, 1), dtype=np.float32), float(np.sqrt(inside.sum()))


def _object(image: Tensor, mask: Tensor) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The object's box (h, w, 3), completed with its nearest pixels, of at most SIDE pixels a side; and where it is the object."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    inside = mask[box].numpy()
    pixels = surface(np.ascontiguousarray(image[:, box[0], box[1]].permute(1, 2, 0).numpy()), inside)
    factor = min(1.0, SIDE / max(inside.shape))
    size = (max(1, round(inside.shape[1] * factor)), max(1, round(inside.shape[0] * factor)))
    small = cv2.resize(inside.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    there = small > min(0.5, small.max() / 2)
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), there


@lru_cache(maxsize=32)
def _filters(height: int, width: int) -> Tensor:
    """(B, height, width // 2 + 1): what is finer than the first octave, OCTAVES x DIRECTIONS bands, and the rest; squares sum to 1."""
    down, right = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    octave = -torch.log2((2 * torch.hypot(down, right)).clamp(min=1e-6))  # 0 at the finest waves along an axis
    lows = [torch.cos(np.pi / 2 * (1 - (octave - edge).clamp(0, 1))) for edge in range(OCTAVES + 1)]
    angle = torch.atan2(down, right)
    turned = torch.stack([torch.cos(angle - np.pi * k / DIRECTIONS).abs() ** (DIRECTIONS - 1) for k in range(DIRECTIONS)])
    turned /= turned.square().sum(0).sqrt()
    filters = [(1 - lows[0] ** 2).clamp(min=0).sqrt()]
    for fine, coarse in pairwise(lows):
        filters += list((fine**2 - coarse**2).clamp(min=0).sqrt() * turned)
    filters.append(lows[-1])
    return torch.stack(filters)


def _bands(image: Tensor) -> Iterator[Tensor]:
    """(C, H, W) -> B times (C, H, W)."""
    waves = torch.fft.rfft2(image)
    for each in _filters(*image.shape[-2:]):
        yield torch.fft.irfft2(waves * each, s=image.shape[-2:])


def _joined(bands: list[Tensor]) -> Tensor:
    """The inverse of ``_bands``, whose filters are their own inverse."""
    size = bands[0].shape[-2:]
    waves = sum(torch.fft.rfft2(band) * each for band, each in zip(bands, _filters(*size), strict=True))
    return torch.fft.irfft2(waves, s=size)  # type: ignore[arg-type]


def _quantiles(values: Tensor, count: int) -> Tensor:
    """(C, N) -> (C, count): the same distributions as so many values, rising."""
    places = torch.linspace(0, values.shape[1] - 1, count)
    low = places.floor().long()
    ordered = values.sort(1).values
    return torch.lerp(ordered[:, low], ordered[:, (low + 1).clamp(max=values.shape[1] - 1)], places - low)


def _matched(image: Tensor, goal: Tensor) -> Tensor:
    """``image`` (C, S, S) with its values replaced, in their order, by those of ``goal`` (C, S * S)."""
    order = torch.from_numpy(image.flatten(1).numpy().argsort(1))  # several times as fast as torch's
    return torch.empty_like(goal).scatter_(1, order, goal).view_as(image)


# ---- Weickert 1998 -----------------------------------------------------------------------------------------------


def diffused(image: Tensor, owner: Tensor, time: float, contrast: float) -> Tensor:
    """``image`` (3, H, W) after edge-enhancing diffusion for ``time``, in squared pixels, within the areas of each number but 0
    of ``owner`` (H, W); nothing flows between areas, so the mean of each stays.

    contrast  slope per pixel from which on an edge stops it

    Along edges diffusivity is 1, across them ``1 - exp(-3.315 / (slope / contrast) ** 8)``; the slope is that of all three
    channels together, of the smoothed image.  Stages of a Runge-Kutta-Legendre method of first order (Meyer et al. 2014) reach
    the time in the square root of the number of explicit steps.
    """
    rows, columns = owner.any(1).nonzero()[:, 0], owner.any(0).nonzero()[:, 0]
    box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    values, areas = image[:, box[0], box[1]].clone(), owner[box]
    for _ in range(CYCLES):
        values = _advanced(values, _stencil(*_tensor(values, contrast), areas), time / CYCLES)
    result = image.clone()
    result[:, box[0], box[1]] = torch.where(areas > 0, values, image[:, box[0], box[1]])
    return result


def _advanced(values: Tensor, stencil: list[tuple[int, int, Tensor]], time: float) -> Tensor:
    """``values`` after ``time`` with the diffusivities held."""
    stages = max(1, int(np.ceil(np.sqrt(2 * time / STEP + 0.25) - 0.5)))
    unit = 2 * time / (stages**2 + stages)
    before, now = values, values + unit * _flow(values, stencil)
    for stage in range(2, stages + 1):
        ahead = (2 * stage - 1) / stage
        before, now = now, ahead * now + (1 - ahead) * before + ahead * unit * _flow(now, stencil)
    return now


def _tensor(values: Tensor, contrast: float) -> tuple[Tensor, Tensor, Tensor]:
    """The diffusion tensor's (xx, xy, yy), each (H, W)."""
    smooth = cv2.GaussianBlur(np.ascontiguousarray(values.permute(1, 2, 0).numpy()), (0, 0), SMOOTH, borderType=cv2.BORDER_REFLECT)
    dx, dy = (cv2.Sobel(smooth, cv2.CV_32F, *order, scale=1 / 8, borderType=cv2.BORDER_REFLECT) for order in ((1, 0), (0, 1)))
    xx, xy, yy = ((first * second).sum(2) for first, second in ((dx, dx), (dx, dy), (dy, dy)))
    half, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    slope = half + spread  # the larger eigenvalue: the squared slope across the edge
    across = 1 - np.exp(-3.31488 / np.maximum(slope / contrast**2, 1e-8) ** 4)
    turn = np.maximum(2 * spread, 1e-12)
    share = (across - 1) / turn  # D = 1 + (across - 1) * n n^T, and n n^T follows from the tensor without its angle
    low = half - spread
    return tuple(torch.from_numpy(each.astype(np.float32)) for each in (1 + share * (xx - low), share * xy, 1 + share * (yy - low)))  # type: ignore[return-value]


def _stencil(xx: Tensor, xy: Tensor, yy: Tensor, areas: Tensor) -> list[tuple[int, int, Tensor]]:
    """(rows, columns, weight (H, W)) of each neighbour: what it adds to a pixel times their difference.

    Weickert's: diffusivities halfway between neighbours for xx and yy, central differences for xy; where an area ends,
    nothing flows.
    """
    padded = torch.nn.functional.pad(areas[None], (1, 1, 1, 1))[0]
    same = {shift: (_shifted(padded, *shift) == areas) & (areas > 0) for shift in SHIFTS}
    deep = torch.stack(list(same.values())).all(0)
    xy = torch.where(deep, xy, 0.0) / 4
    around = {name: torch.nn.functional.pad(each[None], (1, 1, 1, 1))[0] for name, each in (("xx", xx), ("xy", xy), ("yy", yy))}
    found = []
    for down, right in SHIFTS:
        if down and right:
            weight = down * right * (_shifted(around["xy"], down, 0) + _shifted(around["xy"], 0, right))
        else:
            name, own = ("yy", yy) if down else ("xx", xx)
            weight = torch.where(same[down, right], (own + _shifted(around[name], down, right)) / 2, 0.0)
        found.append((down, right, weight))
    return found


SHIFTS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]


def _shifted(padded: Tensor, down: int, right: int) -> Tensor:
    """What lies ``down`` and ``right`` of each pixel, of (..., H + 2, W + 2)."""
    return padded[..., 1 + down : padded.shape[-2] - 1 + down, 1 + right : padded.shape[-1] - 1 + right]


def _flow(values: Tensor, stencil: list[tuple[int, int, Tensor]]) -> Tensor:
    padded = torch.nn.functional.pad(values, (1, 1, 1, 1))
    total = torch.zeros_like(values)
    centre = torch.zeros_like(values[0])
    for down, right, weight in stencil:
        total.addcmul_(weight.expand_as(total), _shifted(padded, down, right))
        centre += weight
    return total.addcmul_(centre.expand_as(total), values, value=-1)
