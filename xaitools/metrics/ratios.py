"""Shares and means that know what is undefined."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def ratio(part: NDArray, whole: NDArray, otherwise: float = 0.0) -> Floats:
    """part / whole, ``otherwise`` where whole is 0.

    >>> ratio(np.array([1.0, 1.0]), np.array([2.0, 0.0]), np.nan)
    array([0.5, nan])
    """
    shape = np.broadcast_shapes(part.shape, whole.shape)
    return np.divide(part, whole, out=np.full(shape, otherwise), where=whole > 0)


def share_influence(part: NDArray, whole: NDArray, weights: Floats) -> tuple[Floats, Floats]:
    """The sum of ``part`` (N,) over that of ``whole`` (N,) under ``weights`` (N, B), and its derivatives (N, B); NaN where undefined."""
    total = whole @ weights
    value = ratio(part @ weights, total, np.nan)
    return value, ratio(part[:, None] - whole[:, None] * value, total, np.nan)


def mean(values: Floats) -> Floats:
    """Mean over the first axis of what is defined; NaN where nothing is."""
    return ratio(np.nansum(values, 0), (~np.isnan(values)).sum(0), np.nan)


def defined(value: float) -> float | None:
    """``value`` as a float, None for NaN."""
    return None if np.isnan(value) else float(value)
