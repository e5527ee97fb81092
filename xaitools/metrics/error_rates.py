"""How often a verdict is wrong, on models of which it is known what they rely on.

The rows are ``Case``s: one model, one cue family, what is true, and what was seen.  A ``Rule`` says "relies" where an interval lies
above its threshold, and "no evidence" where it excludes a reliance of ``EXCLUDED``.  Thresholds are chosen on some cases and tried on
others (``leave_out``): none is tried on a cue family or an architecture on which it was chosen.  A false alarm counts by model, since
one audit asks about all families.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

RELIES, NONE, UNDECIDED = "relies", "no evidence", "undecided"

STRONG = 0.20
"""From this reliance on, in the metric, a verdict of "undecided" is a miss."""

MOST = 0.05
"""Share of the models in which thresholds may raise a false alarm where they are chosen."""

LEAST = 0.05
"""No threshold lies below this: a model that loses less does not rely on the cue."""

EXCLUDED = 0.10
"""There is no evidence of a reliance where one of so much, in the metric, is excluded."""

STEPS = (-math.inf, 0.05, 0.1, 0.2, 0.3, 0.5, math.inf)
"""Edges of the power curve, in the metric."""

Facts = dict[str, Any]


def judge(low: float, high: float, threshold: float) -> str:
    """The verdict on a reliance between ``low`` and ``high``.

    no evidence   all of it lies below ``EXCLUDED``, or below the threshold
    relies        all of it lies above the threshold
    undecided     neither
    """
    if high < EXCLUDED:
        return NONE
    return RELIES if low > threshold else NONE if high < threshold else UNDECIDED


@dataclass(frozen=True)
class Case:
    """One model and one cue family.

    plant     the family that was planted in the training set, "" where none was
    truth     whether the model relies on ``family``; None where that lies between yes and no: such a case is not scored
    strength  by how much, in the metric, measured apart from the audit
    features  what the audit saw, by name; None where undefined
    refused   the audit says that the model cannot be assessed, as one with random weights: an answer, and no verdict
    """

    model: str
    architecture: str
    plant: str
    family: str
    truth: bool | None
    strength: float
    features: Mapping[str, float | None]
    refused: bool = False


@dataclass(frozen=True)
class Rule:
    """``low`` and ``high`` name the features that are the ends of an interval, of what a verdict rests on (see ``judge``).

    Undecided is too where an end is undefined, or no threshold could be chosen.
    """

    low: str
    high: str

    def judge(self, features: Mapping[str, float | None], threshold: float | None) -> str:
        low, high = features.get(self.low), features.get(self.high)
        if threshold is None or low is None or high is None:
            return UNDECIDED
        return judge(low, high, threshold)

    def fit(self, cases: Sequence[Case], most: float = MOST) -> float | None:
        """The lowest threshold from ``LEAST`` on at which at most the share ``most`` of the models has a false alarm.

        It lies midway between the highest end that it keeps out and the next one above.  None without positives or negatives.
        """
        known = [(case, self._end(case.features)) for case in cases if case.truth is not None and case.features.get(self.low) is not None]
        if len({case.truth for case, _ in known}) < 2:
            return None
        worst: dict[str, float] = {}
        for case, low in known:
            if not case.truth:
                worst[case.model] = max(worst.get(case.model, -math.inf), low)
        ordered = sorted(worst.values(), reverse=True)
        spare = math.floor(most * len({case.model for case in cases if case.truth is False and not case.refused}))
        if len(ordered) <= spare:
            return LEAST
        above = [low for _, low in known if low > ordered[spare]]
        return max(LEAST, (ordered[spare] + min(above)) / 2 if above else ordered[spare])

    def _end(self, features: Mapping[str, float | None]) -> float:
        """The highest threshold below which "relies" is not said of ``features``."""
        low, high = features[self.low], features.get(self.high)
        assert low is not None
        return -math.inf if high is None or high < EXCLUDED else float(low)


def leave_out(cases: Sequence[Case], rule: Rule, most: float = MOST) -> list[tuple[str, float | None]]:
    """The verdict on each case and the threshold it rests on: chosen on cases of other families and other architectures."""
    chosen: dict[tuple[str, str], float | None] = {}
    found = []
    for case in cases:
        key = case.family, case.architecture
        if key not in chosen:
            others = [each for each in cases if each.family != case.family and each.architecture != case.architecture]
            chosen[key] = rule.fit(others, most)
        found.append((rule.judge(case.features, chosen[key]), chosen[key]))
    return found


def rates(cases: Sequence[Case], verdicts: Sequence[str]) -> Facts:
    """What came of ``cases``, a row a family and one over all: see ``_rate``; and by model.

    "models": {"honest": the share of models without a plant in which some family is said to be relied on that is not,
    "planted": the share of models that rely on what was planted, strongly, of which that is said, "refused": the share of the models
    without a plant which are not assessed, and not among the honest ones.  A model that relies on something unplanted is neither.
    """
    pairs = list(zip(cases, verdicts, strict=True))
    families = {name: _rate([each for each in pairs if each[0].family == name]) for name in dict.fromkeys(case.family for case in cases)}
    by_model: dict[str, list[tuple[Case, str]]] = {}
    for each in pairs:
        by_model.setdefault(each[0].model, []).append(each)
    free = [rows for rows in by_model.values() if not any(case.plant or case.truth for case, _ in rows)]
    honest = [rows for rows in free if not rows[0][0].refused]
    planted = [(case, verdict) for case, verdict in pairs if case.family == case.plant and case.truth and case.strength >= STRONG]
    models = {
        "honest": share(sum(any(verdict == RELIES and case.truth is False for case, verdict in rows) for rows in honest), len(honest)),
        "planted": share(sum(verdict == RELIES for _, verdict in planted), len(planted)),
        "refused": share(len(free) - len(honest), len(free)),
    }
    return {"families": families, "pooled": _rate(pairs), "models": models, "power": power(cases, verdicts)}


def _rate(pairs: Sequence[tuple[Case, str]]) -> Facts:
    """strong     share of the strong reliances that are found; undecided is a miss
    positives  share of all reliances that are found
    negatives  share of the others that are said to be relied on: false alarms; those of refused models are left out
    undecided  share of the negatives
    middle     cases that lie between and are not scored
    """
    positives = [(case, verdict) for case, verdict in pairs if case.truth]
    strong = [verdict for case, verdict in positives if case.strength >= STRONG]
    negatives = [verdict for case, verdict in pairs if case.truth is False and not case.refused]
    return {
        "strong": share(strong.count(RELIES), len(strong)),
        "positives": share(sum(verdict == RELIES for _, verdict in positives), len(positives)),
        "negatives": share(negatives.count(RELIES), len(negatives)),
        "undecided": share(negatives.count(UNDECIDED), len(negatives)),
        "middle": sum(case.truth is None for case, _ in pairs),
    }


def power(cases: Sequence[Case], verdicts: Sequence[str]) -> list[Facts]:
    """How often "relies" is said, by true reliance: rows {"from", "to", ...share} over ``STEPS``, cases in the middle too."""
    rows = []
    for low, high in pairwise(STEPS):
        said = [verdict for case, verdict in zip(cases, verdicts, strict=True) if low <= case.strength < high]
        rows.append({"from": low, "to": high, **share(said.count(RELIES), len(said))})
    return rows


def share(count: int, n: int) -> Facts:
    """{"count", "n", "value", "ci"}: ``count`` of ``n`` with its exact 95 % interval; None of nothing."""
    return {"count": count, "n": n, "value": count / n if n else None, "ci": clopper_pearson(count, n) if n else None}


def clopper_pearson(count: int, n: int, level: float = 0.95) -> list[float]:
    """The exact interval of a share (Clopper and Pearson 1934).

    >>> [round(end, 3) for end in clopper_pearson(0, 60)]
    [0.0, 0.06]
    """
    from scipy.stats import binomtest

    ends = binomtest(count, n).proportion_ci(level, "exact")
    return [float(ends.low), float(ends.high)]


def auroc(cases: Sequence[Case], feature: str) -> Facts:
    """{"value", "positives", "negatives", "undefined"}: how likely a case that relies has a larger ``feature`` than one that does not.

    Ties count half (Mann and Whitney 1947); 0.5 is chance; None without either kind.  Undefined features are left out and counted.
    """
    scored = [case for case in cases if case.truth is not None]
    known = [case for case in scored if case.features.get(feature) is not None]
    yes, no = (np.array([case.features[feature] for case in known if case.truth is truth], float) for truth in (True, False))
    value = None
    if len(yes) and len(no):
        value = float(((yes[:, None] > no).mean() + (yes[:, None] >= no).mean()) / 2)
    return {"value": value, "positives": len(yes), "negatives": len(no), "undefined": len(scored) - len(known)}
