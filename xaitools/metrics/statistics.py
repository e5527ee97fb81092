"""How sure a number is: the paired bootstrap over images (Efron & Tibshirani 1993).

The unit is the image, or a cluster of images that belong together; never the pixel or the box.  One set of
multiplicities serves the clean images and every condition, so that what is hard about an image cancels.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .accuracy import Table
from .ratios import defined

POWER = (1.959964 + 0.841621) / 1.959964
"""By how much a drop must exceed the half width of its 95 % interval to be found four times out of five."""


def image_weights(ids: Sequence[str], *, seed: int, replicates: int, clusters: Sequence[str] | None = None) -> NDArray[np.int64]:
    """How often each image is drawn in each replicate: (B, N) int.

    The draws depend on the seed and the set of ids: other processes and another order of the images give each
    image the same column.  Every row sums to N; with ``clusters`` (N,), names drawn as a whole, only on average.

    >>> image_weights(["a", "b", "c"], seed=0, replicates=4).sum(1)
    array([3, 3, 3, 3])
    """
    units, member = np.unique(np.asarray(ids if clusters is None else clusters, dtype=str), return_inverse=True)
    if len(member) != len(ids):
        raise ValueError(f"{len(member)} clusters for {len(ids)} images; expected one name an image")
    if not len(units):
        return np.zeros((replicates, 0), np.int64)
    key = hashlib.sha256("\0".join([str(seed), *units]).encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(key[:16], "little")))
    return generator.multinomial(len(units), np.full(len(units), 1 / len(units)), size=replicates)[:, member]


def interval(samples: NDArray, level: float = 0.95) -> list[float] | None:
    """Percentile interval [low, high] of replicates (B,); NaN is left out, None if fewer than half are defined."""
    known = samples[~np.isnan(samples)]
    if not len(known) or 2 * len(known) < len(samples):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def pooled_mean(groups: Sequence[Sequence[float]], weights: NDArray) -> dict[str, Any]:
    """Mean over the cases of all images with its 95 % interval, ``{"value", "ci"}``; None where there is no case.

    ``groups`` are the cases of each of N images, ``weights`` (B, N) how often an image is drawn.
    """
    sums, counts = np.array([sum(each) for each in groups], float), np.array([len(each) for each in groups], float)
    if not counts.sum():
        return {"value": None, "ci": None}
    drawn = weights @ counts
    samples = np.where(drawn > 0, weights @ sums / np.maximum(drawn, 1), np.nan)
    return {"value": float(sums.sum() / counts.sum()), "ci": interval(samples)}


@dataclass(frozen=True, eq=False)
class Drawn:
    """A number of all images once, and the same number of each bootstrap draw (B,); NaN where undefined.

    Means and ratios of numbers from the same draws are taken draw by draw, so that what they share cancels.
    """

    value: float
    samples: NDArray

    @classmethod
    def of(cls, table: Table, weights: NDArray) -> Drawn:
        return cls(table.metric(), table.metric(weights))

    @classmethod
    def mean(cls, numbers: Sequence[Drawn]) -> Drawn:
        return cls(float(np.mean([each.value for each in numbers])), np.mean([each.samples for each in numbers], axis=0))

    def share(self, whole: Drawn) -> Drawn:
        """This number by ``whole``, undefined where that is 0."""
        value = self.value / whole.value if whole.value else math.nan
        known = whole.samples != 0
        return Drawn(value, np.where(known, self.samples / np.where(known, whole.samples, 1), math.nan))

    def facts(self) -> dict[str, Any]:
        """``{"value", "ci"}`` with the 95 % interval; None where undefined."""
        return {"value": defined(self.value), "ci": interval(self.samples)}

    def drop(self, other: Drawn) -> dict[str, Any]:
        """``{"value", "drop", "ci", "p"}`` of ``other`` against this: see ``paired_drop``."""
        samples = self.samples - other.samples
        ci = interval(samples)
        return {
            "value": defined(other.value),
            "drop": defined(self.value - other.value),
            "ci": ci,
            "p": None if ci is None else _two_sided(samples[~np.isnan(samples)]),
        }


def paired_drop(clean: Table, other: Table, weights: NDArray) -> dict[str, Any]:
    """What a condition costs: ``{"value", "drop", "ci", "p"}`` with value the metric of ``other`` and drop = clean - value.

    The tables hold the same images in the same order, ``weights`` (B, N) are theirs.  ``ci`` is the 95 % interval of
    the drop and ``p`` its two-sided bootstrap p-value, at least 2 / (B + 1).  None where undefined.
    """
    if clean.n != other.n:
        raise ValueError(f"{clean.n} images against {other.n}; a paired drop needs the same images in the same order")
    return Drawn.of(clean, weights).drop(Drawn.of(other, weights))


def drop_between(reference: Table, other: Table, weights: NDArray) -> dict[str, Any]:
    """``paired_drop`` against another condition, e.g. the background gap: mixed-same minus mixed-rand (Xiao et al. 2020)."""
    return paired_drop(reference, other, weights)


def needed(n: int, ci: Sequence[float], drop: float = 0.05) -> int:
    """How many images would find a true ``drop`` with 80 % power at the 5 % level, if n of them gave the interval ``ci``.

    The width of an interval shrinks with the square root of n.
    """
    half = (ci[1] - ci[0]) / 2
    return max(1, math.ceil(n * (POWER * half / drop) ** 2))


def _two_sided(samples: NDArray) -> float:
    """Twice the smaller share of replicates on either side of 0, the observed sample counted with them."""
    tail = min(int((samples <= 0).sum()), int((samples >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(samples) + 1))
