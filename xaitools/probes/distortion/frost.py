"""Draws the ice on a frosted pane: feathers of ice that grow from the frame inwards, and the haze between them.

A feather is a stem that bends a little, with branches on both sides that lean to its tip at 60 degrees, as ice does, and
twigs on the branches.  All lengths follow the pane's size.
"""

from __future__ import annotations

import cv2
import numpy as np

LEAN = np.pi / 3
FEATHERS = 3.0
"""Feathers along a stretch of the frame as long as the short side, times ten."""

GLASS = (0.26, 0.36, 0.42)
ICE = (0.86, 0.93, 0.97)
"""Red, green and blue of the bare pane and of thick ice, before a dim sky."""


def ice(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """(height, width) float32 in [0, 1]: how thick the ice lies on the pane."""
    short = min(height, width)
    shift = 3
    lines = np.zeros((height, width), np.uint8)
    thick = max(1, round(short / 320))
    for points, light in feathers(height, width, generator):
        whole = np.round(points * (1 << shift)).astype(np.int32)
        cv2.polylines(lines, list(whole), False, light, thick, cv2.LINE_AA, shift)
    crystals = lines.astype(np.float32) / 255
    grain = cv2.resize(generator.random((-(-height // thick), -(-width // thick)), dtype=np.float32), (width, height))
    haze = (_blurred(crystals, short / 28) * 1.6 + (0.15 + 0.3 * _rim(height, width))) * (0.45 + 0.8 * grain)
    return 1 - (1 - 0.85 * crystals) * (1 - 0.75 * haze.clip(0, 1))


def feathers(height: int, width: int, generator: np.random.Generator) -> tuple[tuple[np.ndarray, int], ...]:
    """(polylines (N, P, 2) as x, y in pixels; brightness to 255) of twigs, branches and stems, faintest first."""
    short = min(height, width)
    count = round(FEATHERS * 10 * (height + width) / (2 * short))
    roots, inward = _frame(height, width, count, generator)
    lengths = short * generator.uniform(0.12, 0.7, count) * generator.uniform(0.4, 1, count)
    stems = _grown(roots, inward + generator.normal(0, 0.45, count), lengths, generator.normal(0, 0.8, count), 17)
    branches, sizes = _branched(stems, lengths, 0.42, generator)
    twigs, tiny = _branched(branches, sizes, 0.45, generator)
    return (twigs[tiny > 2, ::2], 90), (branches[sizes > 1], 150), (stems, 235)


def _frame(height: int, width: int, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points (count, 2) on the frame, and the directions (count,) that lead inwards."""
    place = (np.arange(count) + generator.uniform(0, 1, count)) / count * 2 * (height + width)
    side = np.searchsorted(np.cumsum([width, height, width]), place, side="right")
    along = place - np.array([0, width, width + height, 2 * width + height])[side]
    x = np.choose(side, [along, width, width - along, 0.0])
    y = np.choose(side, [0.0, along, height, height - along])
    return np.stack([x, y], 1), np.array([0.5, 1, 1.5, 2])[side] * np.pi


def _grown(roots: np.ndarray, angles: np.ndarray, lengths: np.ndarray, bend: np.ndarray, points: int) -> np.ndarray:
    """(N, points, 2): lines from ``roots`` (N, 2) that turn by ``bend`` radians on their way."""
    steps = np.linspace(0, 1, points)
    turned = angles[:, None] + bend[:, None] * (steps[:-1] + steps[1:]) / 2
    moves = np.stack([np.cos(turned), np.sin(turned)], 2) * (lengths / (points - 1))[:, None, None]
    return roots[:, None] + np.concatenate([np.zeros((len(roots), 1, 2)), moves.cumsum(1)], 1)


def _branched(lines: np.ndarray, lengths: np.ndarray, share: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Branches (M, points, 2) from the inner points of ``lines`` to both sides, and their lengths (M,): shorter to the tip."""
    heads = lines[:, 1:] - lines[:, :-1]
    angles = np.arctan2(heads[..., 1], heads[..., 0])
    inner = lines.shape[1] - 1
    left = 1 - np.arange(inner) / inner
    sizes = share * lengths[:, None, None] * left[None, :, None] * generator.uniform(0.35, 1, (len(lines), inner, 2))
    turned = angles[..., None] + LEAN * np.array([-1, 1]) + generator.normal(0, 0.06, (len(lines), inner, 2))
    roots = np.repeat(lines[:, :-1, None], 2, axis=2)
    points = max(3, inner // 3)
    return _grown(roots.reshape(-1, 2), turned.ravel(), sizes.ravel(), np.zeros(sizes.size), points), sizes.ravel()


def _rim(height: int, width: int) -> np.ndarray:
    """(height, width): 1 at the frame, falling to 0 in the middle."""
    down, across = (np.abs(np.linspace(-1, 1, side, dtype=np.float32)) ** 3 for side in (height, width))
    return np.maximum(down[:, None], across)


def _blurred(field: np.ndarray, sigma: float) -> np.ndarray:
    """A wide blur, by way of a smaller picture."""
    step = max(1, int(sigma / 2))
    small = cv2.resize(field, (-(-field.shape[1] // step), -(-field.shape[0] // step)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), max(sigma / step, 0.3))
    return cv2.resize(small, (field.shape[1], field.shape[0]), interpolation=cv2.INTER_LINEAR)
