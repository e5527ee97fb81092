"""How often the 95 % intervals of a drop held the truth in simulation: benchmarks/intervals.md, which prints this table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

MEASURED: Mapping[str, Mapping[int, tuple[float, float]]] = {
    "segmentation": {50: (0.89, 0.946), 200: (0.928, 0.948), 500: (0.938, 0.952)},
    "classification": {50: (0.932, 0.95), 200: (0.938, 0.96), 500: (0.95, 0.956)},
    "detection": {50: (0.96, 0.97), 200: (0.94, 0.98), 500: (0.95, 0.97)},
    "clustered": {10: (0.874, 0.966), 40: (0.94, 0.958), 100: (0.924, 0.932)},
}
"""By task the number of images, and the least and largest share over the populations of independent images; of clusters over the tasks."""


def coverage(task: str, n: int, *, clustered: bool = False) -> tuple[float, float]:
    """The least and the largest measured coverage at ``n`` images or, if ``clustered``, clusters.

    Between two measured sizes it is interpolated over 1 / sqrt(n); beyond them the nearest stands.
    """
    table = MEASURED["clustered" if clustered else "detection" if task == "instances" else task]
    sizes = sorted(table, reverse=True)
    at = [1 / np.sqrt(size) for size in sizes]
    low, high = (float(np.interp(1 / np.sqrt(max(n, 1)), at, [table[size][end] for size in sizes])) for end in (0, 1))
    return low, high
