"""How sure a number is: the paired bootstrap over images (Efron & Tibshirani 1993).

The unit is the image, or a cluster of images that belong together; never the pixel or the box.  One set of
multiplicities serves the clean images and every condition, so that what is hard about an image cancels.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import XaiError, unknown
from .accuracy import Number, Table
from .ratios import defined, ratio

K = TypeVar("K")
Name = TypeVar("Name")

METHODS = ("studentised", "bca", "percentile")
METHOD = "studentised"
"""The default: of the three, its intervals held the truth most nearly as often as they say (benchmarks/intervals.md)."""

FEW_CLUSTERS = 10
"""With fewer clusters a bootstrap interval is too narrow to be believed."""

NORMAL = NormalDist()

FAINT = 0.3
"""A draw of cases whose error is a smaller share of that of all cases has left out the few that differ."""

ROWS = 64
"""Replicates drawn or counted at one time."""

NUMBERS_AT_ONCE = 2**20
"""Influences held at one time."""

POWER = (1.959964 + 0.841621) / 1.959964
"""By how much a drop must exceed the half width of its 95 % interval to be found four times out of five."""


def image_weights(ids: Sequence[str], *, seed: int, replicates: int, clusters: Sequence[str] | None = None) -> NDArray[np.int8]:
    """How often each image is drawn in each replicate: (B, N), of one byte each, since of many images there are many.

    The draws depend on the seed and the set of ids: other processes and another order of the images give each
    image the same column.  Every row sums to N; with ``clusters`` (N,), names drawn as a whole, only on average.

    >>> image_weights(["a", "b", "c"], seed=0, replicates=4).sum(1)
    array([3, 3, 3, 3])
    """
    units, member = np.unique(np.asarray(ids if clusters is None else clusters, dtype=str), return_inverse=True)
    if len(member) != len(ids):
        raise ValueError(f"{len(member)} clusters for {len(ids)} images; expected one name an image")
    if not len(units):
        return np.zeros((replicates, 0), np.int8)
    key = hashlib.sha256("\0".join([str(seed), *units]).encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(key[:16], "little")))
    chances, drawn = np.full(len(units), 1 / len(units)), np.empty((replicates, len(ids)), np.int8)
    for start in range(0, replicates, ROWS):
        # once in N draws on average: nothing is ever drawn more than 127 times
        drawn[start : start + ROWS] = generator.multinomial(len(units), chances, size=min(ROWS, replicates - start))[:, member]
    return drawn


def few(units: Sequence[str] | None) -> bool:
    """Whether ``units``, the clusters of images, are too few for an interval: a range over them stands in its place."""
    return units is not None and len(set(units)) < FEW_CLUSTERS


def unit_weights(ids: Sequence[str], units: Sequence[str] | None, *, seed: int, replicates: int) -> NDArray[np.int8]:
    """``image_weights``; of too few clusters one row a cluster, which holds that alone."""
    if units is not None and few(units):
        return (np.unique(units)[:, None] == np.asarray(units)).astype(np.int8)
    return image_weights(ids, seed=seed, replicates=replicates, clusters=units)


def interval(samples: NDArray, level: float = 0.95) -> list[float] | None:
    """Percentile interval [low, high] of replicates (B,); NaN is left out, None if fewer than half are defined."""
    known = samples[~np.isnan(samples)]
    if not len(known) or 2 * len(known) < len(samples):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


@dataclass(frozen=True, eq=False)
class Dual:
    """A number on B weightings of the images, (B,), and how fast it moves with the weight of each of them, (B, N).

    Differences, means and ratios are taken weighting by weighting, so that what the numbers share cancels.
    """

    value: NDArray
    moves: NDArray

    def __add__(self, other: Dual) -> Dual:
        return Dual(self.value + other.value, self.moves + other.moves)

    def __sub__(self, other: Dual) -> Dual:
        return Dual(self.value - other.value, self.moves - other.moves)

    def __truediv__(self, whole: Dual) -> Dual:
        """Undefined where ``whole`` is 0."""
        below = np.where(whole.value == 0, np.nan, whole.value)
        share = self.value / below
        return Dual(share, (self.moves - share[:, None] * whole.moves) / below[:, None])

    @classmethod
    def mean(cls, numbers: Sequence[Dual]) -> Dual:
        count = len(numbers)
        return cls(np.sum([each.value for each in numbers], 0) / count, np.sum([each.moves for each in numbers], 0) / count)


def draw(
    tables: Mapping[K, Table | Number],
    make: Callable[[Mapping[K, Dual]], Mapping[Name, Dual]],
    weights: NDArray,
    clusters: Sequence[str] | None = None,
) -> dict[Name, Drawn]:
    """Numbers that ``make`` makes of the metrics of ``tables``, on all images once and on each draw of ``weights`` (B, N).

    The tables hold the same N images in the same order, ``weights`` are theirs, and ``clusters`` (N,) names what was
    drawn as a whole, if not images.  Raises ValueError for tables of other images.
    """
    for table in tables.values():
        if table.n != weights.shape[1]:
            raise ValueError(f"{table.n} images against {weights.shape[1]}; a paired drop needs the same images in the same order")
    unit = np.arange(weights.shape[1]) if clusters is None else np.unique(np.asarray(clusters, dtype=str), return_inverse=True)[1]
    first = np.unique(unit, return_index=True)[1]
    once = np.ones((1, weights.shape[1]), weights.dtype)
    size = max(1, min(128, NUMBERS_AT_ONCE // max(1, len(tables) * weights.shape[1])))
    parts: dict[Name, list[tuple[NDArray, NDArray]]] = {}
    moves: dict[Name, NDArray] = {}
    for each in (once, *(weights[start : start + size] for start in range(0, len(weights), size))):
        made = make({key: Dual(*table.influence(each)) for key, table in tables.items()})
        for name, dual in made.items():
            moved = dual.moves if clusters is None else _by_unit(dual.moves, unit, len(first))
            parts.setdefault(name, []).append((dual.value, np.sqrt((each[:, first] * moved**2).sum(1))))
            moves.setdefault(name, moved[0])
    found = {name: tuple(map(np.concatenate, zip(*blocks, strict=True))) for name, blocks in parts.items()}
    return {name: Drawn(float(value[0]), float(error[0]), value[1:], error[1:], moves[name]) for name, (value, error) in found.items()}


def _by_unit(moves: NDArray, unit: NDArray, count: int) -> NDArray:
    order = np.argsort(unit, kind="stable")
    return np.add.reduceat(moves[:, order], np.searchsorted(unit[order], np.arange(count)), axis=1)


@dataclass(frozen=True, eq=False)
class Drawn:
    """A number of all images once, and the same number of each bootstrap draw; NaN where undefined.

    value    of all images once
    error    its standard error, from the infinitesimal jackknife
    samples  (B,) of each draw
    errors   (B,) standard error of each of them
    moves    (U,) how fast the value moves with the weight of each image or cluster
    """

    value: float
    error: float
    samples: NDArray
    errors: NDArray
    moves: NDArray

    @property
    def t(self) -> NDArray:
        """(B,) how many of its own standard errors each draw lies above the value; NaN where undefined.

        A draw that left out the few images that differ has no error of its own, and takes that of the value.
        """
        errors = np.where(self.errors > 0, self.errors, self.error)
        return np.where(np.isnan(self.samples), np.nan, ratio(self.samples - self.value, errors))

    def against(self, other: Drawn) -> Drawn:
        """This number less ``other`` of other images, drawn by themselves: nothing cancels, and errors add up in squares."""
        error, errors = math.hypot(self.error, other.error), np.hypot(self.errors, other.errors)
        moves = np.concatenate([self.moves, -other.moves])
        return Drawn(self.value - other.value, error, self.samples - other.samples, errors, moves)

    def interval(self, level: float = 0.95, method: str = METHOD) -> list[float] | None:
        """[low, high] by one of ``METHODS``; None if the value or more than half of the draws are undefined.

        percentile   the middle of the draws
        bca          the same, moved by how far the draws lie to one side and by their skewness (Efron 1987)
        studentised  value - t * error, with t from the draws and their own errors (Efron & Tibshirani 1993, section 12.5)
        """
        if method not in METHODS:
            raise XaiError(unknown("interval method", method, METHODS))
        known = self.samples[~np.isnan(self.samples)]
        if np.isnan(self.value) or not len(known) or 2 * len(known) < len(self.samples):
            return None
        shares = [(1 - level) / 2, (1 + level) / 2]
        if method == "studentised":
            low, high = np.nanquantile(self.t, shares)
            return [float(self.value - high * self.error), float(self.value - low * self.error)]
        if method == "bca":
            shares = self._corrected(known, shares)
        low, high = np.quantile(known, shares)
        return [float(low), float(high)]

    def _corrected(self, known: NDArray, shares: Sequence[float]) -> list[float]:
        """Which shares of the draws BCa reads in place of ``shares``."""
        below, least = float((known < self.value).mean() + (known <= self.value).mean()) / 2, 0.5 / len(known)
        middle = NORMAL.inv_cdf(min(max(below, least), 1 - least))
        squares = float((self.moves**2).sum())
        bend = float((self.moves**3).sum()) / (6 * squares**1.5) if squares else 0.0
        moved = [middle + NORMAL.inv_cdf(share) for share in shares]
        return [NORMAL.cdf(middle + z / max(1 - bend * z, 1e-9)) for z in moved]

    @property
    def p(self) -> float | None:
        """Two-sided p-value of "0", at least 2 / (B + 1): where 0 lies among the studentised draws; None if undefined."""
        if self.interval() is None:
            return None
        if self.error == 0:
            return 1.0 if self.value == 0 else 2 / (len(self.t) + 1)
        t, at = self.t[~np.isnan(self.t)], self.value / self.error
        return min(1.0, 2 * (min(int((t >= at).sum()), int((t <= at).sum())) + 1) / (len(t) + 1))

    def facts(self) -> dict[str, Any]:
        """``{"value", "ci"}`` with the 95 % interval; None where undefined."""
        return {"value": defined(self.value), "ci": self.interval()}


def pooled_mean(groups: Sequence[Sequence[float]], weights: NDArray, units: Sequence[str] | None = None) -> dict[str, Any]:
    """Mean over the cases of all images with its 95 % interval, ``{"value", "ci"}``; None where there is no case.

    ``groups`` are the cases of each of N images, ``weights`` (B, N) how often an image is drawn, and ``units`` (N,) names what was
    drawn as a whole, if not images; of too few of those there is no interval.
    """
    sums, counts = np.array([sum(each) for each in groups], float), np.array([len(each) for each in groups], float)
    if not counts.sum():
        return {"value": None, "ci": None}
    of = np.arange(len(sums)) if units is None else np.unique(np.asarray(units, dtype=str), return_inverse=True)[1]
    first = np.unique(of, return_index=True)[1]
    sums, counts = (np.bincount(of, each) for each in (sums, counts))
    columns = np.stack([sums, counts, sums**2, sums * counts, counts**2], 1)
    parts = [weights[start : start + ROWS, first] @ columns for start in range(0, len(weights), ROWS)]
    total, drawn, squares, products, pairs = np.concatenate([columns.sum(0, keepdims=True), *parts]).T
    means = np.where(drawn > 0, total / np.maximum(drawn, 1), np.nan)
    errors = np.sqrt(np.maximum(squares - 2 * means * products + means**2 * pairs, 0)) / np.maximum(drawn, 1)
    errors[errors < max(FAINT * errors[0], 1e-9 * float(np.abs(sums).max()))] = 0.0  # so ``t`` takes that of the mean
    moves = (sums - means[0] * counts) / drawn[0]
    number = Drawn(float(means[0]), float(errors[0]), means[1:], errors[1:], moves)
    return {"value": number.value, "ci": None if few(units) else number.interval()}


def told(number: Drawn, units: Sequence[str] | None) -> dict[str, Any]:
    """{"ci", "p"} of a number on ``unit_weights``, or of few clusters no interval but the "range" of what each alone says."""
    if not few(units):
        return {"ci": number.interval(), "p": number.p}
    known = number.samples[~np.isnan(number.samples)]
    return {"ci": None, "p": None, "range": [float(known.min()), float(known.max())] if len(known) else None}


def told_share(number: Drawn, units: Sequence[str] | None) -> dict[str, Any]:
    """{"ci"} or {"ci", "range"} of a number that lies in [0, 1], and its interval with it; no p, for 0 is no question there."""
    found = told(number, units)
    del found["p"]
    return found | {"ci": within(found["ci"], 0.0)}


def within(ci: Sequence[float] | None, least: float = -1.0, most: float = 1.0) -> list[float] | None:
    """An interval without what a number cannot be; studentised ones reach beyond where few images differ.

    >>> within([-3.4, -0.2]), within([0.98, 1.02], 0.0)
    ([-1.0, -0.2], [0.98, 1.0])
    """
    return None if ci is None else [min(max(end, least), most) for end in ci]


UNDEFINED = Drawn(math.nan, math.nan, np.full(1, np.nan), np.full(1, np.nan), np.full(1, np.nan))


def bands(cells: Sequence[Drawn], level: float = 0.95) -> list[list[float] | None]:
    """Intervals that hold the truth of all ``cells`` at once with probability ``level``; None where one is undefined.

    The largest studentised distance of a draw over the cells takes the place of that of one cell (max-t: Westfall & Young
    1993, section 2.6), on either side; cells of the same images have the same draws, so that what they share is used.
    Each holds the ``interval`` of its cell.
    """
    known = [each for each in cells if each.interval() is not None]
    if not known:
        return [None] * len(cells)
    count = min(len(each.t) for each in known)
    t = np.stack([np.where(np.isnan(each.t), 0, each.t)[:count] for each in known])
    high, low = (float(np.quantile((sign * t).max(0), (1 + level) / 2)) for sign in (1, -1))
    return [
        None if each.interval() is None else [float(each.value - high * each.error), float(each.value + low * each.error)] for each in cells
    ]


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """The p-values as they stand when all are looked at (Holm 1979); None stays and does not count.

    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    known = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    most = 0.0
    for rank, (p, place) in enumerate(known):
        most = max(most, min(1.0, p * (len(known) - rank)))
        adjusted[place] = most
    return adjusted


def equivalence(number: Drawn, margin: float) -> dict[str, Any]:
    """Whether a drop is none to speak of: ``{"ci90", "no_drop", "says"}``.

    Two one-sided tests at 5 % (Schuirmann 1987): ``no_drop`` is true where the 90 % interval lies within ``margin`` of 0 on
    both sides; false where it does not and the 95 % interval lies above 0; else None, since so many images do not tell.
    """
    inner, outer = number.interval(0.9), number.interval()
    if inner is None or outer is None:
        return {"ci90": None, "no_drop": None, "says": "undefined"}
    if -margin < inner[0] and inner[1] < margin:
        return {"ci90": inner, "no_drop": True, "says": f"no drop beyond {100 * margin:g} points"}
    if outer[0] > 0:
        return {"ci90": inner, "no_drop": False, "says": "a drop"}
    return {"ci90": inner, "no_drop": None, "says": "a gain" if outer[1] < 0 else "undecided"}


def needed(n: int, ci: Sequence[float], drop: float = 0.05) -> int:
    """How many images would find a true ``drop`` with 80 % power at the 5 % level, if n of them gave the interval ``ci``.

    The width of an interval shrinks with the square root of n.
    """
    half = (ci[1] - ci[0]) / 2
    return max(1, math.ceil(n * (POWER * half / drop) ** 2))
