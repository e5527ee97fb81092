"""Colours of maps and classes as plain arrays, for figures and for the dashboard.

Diverging and safe for the colour-blind: red speaks for the explained number, blue against it, and zero is exactly
white, so that an empty map looks empty.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

SHARE = 0.995
"""Share of the non-zero |values| of a map that lie within its colour limit."""

# lightness falls alike on both sides
COLD = np.array([[255, 255, 255], [208, 226, 242], [135, 184, 220], [60, 129, 189], [21, 78, 143], [5, 35, 82]]) / 255
WARM = np.array([[255, 255, 255], [252, 220, 203], [244, 163, 132], [214, 88, 72], [168, 22, 42], [92, 0, 27]]) / 255
UNDEFINED = 0.6

# Okabe and Ito's colours, then Tol's muted ones, ordered so that the first dozen differ most
CLASSES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#332288",
           "#882255", "#999933", "#bbbbbb", "#117733", "#aa4499", "#ddcc77", "#661100", "#44aa99")  # fmt: skip


def limit_of(values: Tensor | np.ndarray) -> float:
    """Where the colours of a map end, on both sides of zero: at least 99.5 % of all |values| lie within.

    It is that quantile of the non-zero |values|, so that a small spot in an empty map keeps its shades.  0 for a
    map that is zero (or undefined) everywhere.
    """
    sizes = np.abs(array(values))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    return float(np.quantile(sizes, SHARE)) if sizes.size else 0.0


def map_rgb(values: Tensor | np.ndarray, limit: float) -> np.ndarray:
    """(H, W, 3) uint8: zero is white, ``limit`` and beyond dark red, ``-limit`` and beyond dark blue, NaN grey."""
    share = _share(values, limit)
    stops = np.linspace(0, 1, len(COLD))
    colours = np.stack([np.interp(share, np.concatenate([-stops[:0:-1], stops]), np.concatenate([COLD[:0:-1, c], WARM[:, c]]))
                        for c in range(3)], axis=-1)  # fmt: skip
    colours[np.isnan(share)] = UNDEFINED
    return _bytes(colours)


def overlay_rgb(image: Tensor | np.ndarray, values: Tensor | np.ndarray, limit: float) -> np.ndarray:
    """(H, W, 3) uint8: the greyed ``image`` (3, H, W), covered in red or blue in proportion to |value| / ``limit``."""
    share = np.nan_to_num(_share(values, limit))[..., None]
    grey = 0.4 + 0.55 * np.tensordot([0.299, 0.587, 0.114], array(image), 1)[..., None]
    cover = 0.9 * np.abs(share)
    return _bytes(grey * (1 - cover) + np.where(share > 0, WARM[4], COLD[4]) * cover)


def class_colours(labels: Sequence[int]) -> dict[int, str]:
    """A colour for each class: the same class has the same colour in every figure, unless two of one figure collide."""
    chosen: dict[int, str] = {}
    for label in sorted(set(labels)):
        free = [colour for colour in CLASSES if colour not in chosen.values()] or list(CLASSES)
        wish = CLASSES[label % len(CLASSES)]
        chosen[label] = wish if wish in free else free[0]
    return chosen


def _share(values: Tensor | np.ndarray, limit: float) -> np.ndarray:
    values = array(values)
    return np.clip(values / limit, -1, 1) if limit > 0 else np.where(np.isnan(values), np.nan, 0.0)


def _bytes(colours: np.ndarray) -> np.ndarray:
    return np.round(255 * np.clip(colours, 0, 1)).astype(np.uint8)


def array(values: Tensor | np.ndarray) -> np.ndarray:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
