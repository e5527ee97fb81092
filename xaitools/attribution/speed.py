"""Choices for speed that change numbers, each off unless asked for: memory layout, half precision, a coarse grid first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

SHARE = 0.25
"""Share of the coarse windows, those that change a score most, around which the fine ones are looked at."""


@contextmanager
def channels_last(module: nn.Module, wanted: bool) -> Iterator[None]:
    """Kernels with their channels last in memory inside, so that convolutions choose that layout; as found afterwards."""
    kernels = [(each, each.data) for each in module.parameters() if wanted and each.dim() == 4]
    try:
        for parameter, data in kernels:
            parameter.data = data.contiguous(memory_format=torch.channels_last)
        yield
    finally:
        for parameter, data in kernels:
            parameter.data = data


def every(shape: tuple[int, int], step: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of every ``step``-th row and column of a grid, the last ones included."""
    rows, columns = (np.unique(np.append(np.arange(0, length, step), length - 1)) for length in shape)
    return rows, columns


def beside(falls: Tensor, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(R, C) bool: the windows of the grid that lie within a step of the coarse ones with the largest falls (K, r, c) of any target."""
    sizes = falls.abs().flatten(1)
    least = sizes.quantile(1 - SHARE, dim=1, keepdim=True)
    strong = ((sizes >= least) & (sizes > 0)).any(0).view(len(rows), len(columns)).numpy()
    wanted = np.zeros(shape, bool)
    for row, column in zip(*np.nonzero(strong), strict=True):
        (top, bottom), (left, right) = (_between(places, at) for places, at in ((rows, row), (columns, column)))
        wanted[top : bottom + 1, left : right + 1] = True
    return wanted


def _between(places: np.ndarray, at: int) -> tuple[int, int]:
    """Halfway to the neighbours on both sides, rounded outwards."""
    before, after = places[max(0, at - 1)], places[min(len(places) - 1, at + 1)]
    return int(places[at] - (places[at] - before + 1) // 2), int(places[at] + (after - places[at] + 1) // 2)


def interpolated(falls: Tensor, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """Falls (K, r, c) of coarse windows, bilinear over the whole grid (K, R, C)."""
    down, across = (_weights(places, length).to(falls) for places, length in zip((rows, columns), shape, strict=True))
    return down @ falls @ across.T


def _weights(places: Sequence[int] | np.ndarray, length: int) -> Tensor:
    """(length, places): linear interpolation between places."""
    unit = np.eye(len(places))
    return torch.from_numpy(np.stack([np.interp(np.arange(length), places, each) for each in unit], 1))
