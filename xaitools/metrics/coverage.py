"""How often the 95 % intervals of a drop held the truth in simulation: benchmarks/intervals.md, which prints this table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .statistics import METHOD, few

MEASURED: Mapping[str, Mapping[int, tuple[float, float]]] = {
    "segmentation": {50: (0.887, 0.941), 200: (0.933, 0.945), 500: (0.942, 0.947)},
    "classification": {50: (0.938, 0.943), 200: (0.945, 0.958), 500: (0.941, 0.946)},
    "detection": {50: (0.939, 0.946), 200: (0.941, 0.946), 500: (0.941, 0.95)},
    "clustered": {10: (0.875, 0.954), 40: (0.944, 0.954), 100: (0.933, 0.949)},
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


def interval_facts(task: str, n: int, units: Sequence[str] | None) -> dict[str, Any]:
    """How intervals of ``n`` images are made, and how often such intervals of a drop held the truth in simulation.

    ``units`` (n,) are what the bootstrap draws, None where it draws images; of too few of them ``coverage`` is None.
    """
    count = n if units is None else len(set(units))
    found = {"method": METHOD, "level": 0.95, "unit": "image" if units is None else "cluster", "units": count}
    return {**found, "coverage": None if few(units) else coverage(task, count, clustered=units is not None)}


def coverage_in_words(facts: Mapping[str, Any]) -> str:
    """
    >>> coverage_in_words({"coverage": (0.928, 0.948), "units": 200})
    '93 to 95 %'
    >>> coverage_in_words({"coverage": (0.89, 0.946), "units": 8, "unit": "image"})
    '89 to 95 % (at 50, the fewest that were simulated)'
    """
    low, high = (f"{100 * each:.0f}" for each in facts["coverage"])
    fewest = min(MEASURED["clustered" if facts.get("unit") == "cluster" else "segmentation"])
    beyond = f" (at {fewest}, the fewest that were simulated)" if facts["units"] < fewest else ""
    return (f"{low} to {high} %" if low != high else f"{low} %") + beyond
