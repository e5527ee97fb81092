"""What an audit concludes of each cue family, and on what grounds.

Two kinds of evidence are asked for.  The *intervention* is how much of the metric is lost, or how much a class gains, when the cue alone
says something else; a *trace* is how much of the relevance of decisions lies where the cue is, or of a place beside objects its occlusion
sensitivity.  A model relies on a cue when both say so: a drop alone may be fragility, and a map alone may show what the model looks at
without minding it.

  relies        the intervention's 95 % interval lies above its threshold, and the trace's above its own
  no evidence   the intervention's interval excludes a loss of ``EXCLUDED``, or the trace's lies below its threshold
  undecided     neither, or one of them could not be measured
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..metrics.error_rates import EXCLUDED, NONE, RELIES, judge
from ..probes import CUES
from .spots import FEWEST, fixed

Facts = dict[str, Any]

QUESTIONS: Mapping[str, str] = {
    "domain": "light.gap", "texture": "texture.gap", "background": "gap", "pose": "pose.gap",
    "cooccurrence": "cooccurrence.remove", "artifact": "artifact.paste",
}  # fmt: skip
"""The probe that asks about each family's cue and about little else."""

TURNS = ("object_rotate", "object_rotate_90", "object_rotate_150")
"""Of pose the least costly of these and the question counts: a model may not know every turn, but one that goes by the pose of a class
minds all."""

AGREED, AGREES = "light_agreed.gap", 0.05
"""Of domain the first counts in place of the question unless its loss lies above the second: what an image of another class lends may be
the colours of another kind of background, of which objects bear out little."""

SHADED = 0.5
"""Share of what exchanged backgrounds cost from which on a loss by turned objects says that it is the light: that lies on objects as
well as behind them, while a model that goes by backgrounds does not mind how objects are turned."""

PLACES: Mapping[str, str] = {"domain": "around", "texture": "object", "background": "around", "pose": "object"}
"""Where the cue of a family is; of the others it is the spot that was found."""

ABOUT: Mapping[str, str] = {
    "domain": "the light, as in images of another class",
    "texture": "the surface of objects, as that of another class",
    "background": "what is behind the objects, as behind another class",
    "pose": "how each object is turned, as one of another class",
    "cooccurrence": "something beside the objects, wherever it is",
    "artifact": "something beside the objects, always in one place",
}

CAUSE = 0.07
"""Above this loss, a fraction of the metric, the intervention speaks for reliance: a little above the lowest at which at most 5 % of
127 models had a false alarm, made by the recipes of benchmarks/factory.md before those that it lists.  What contradicts a verdict,
or is to be light and explain another cue away, has to cost ``EXCLUDED``."""

ERRORS = Path(__file__).with_name("error_rates.json")
"""How often the audit was wrong on models whose shortcut is known: "n", "architectures", and "families", "pooled", "models" as of
``metrics.error_rates.rates``, with thresholds chosen on others; "shipped", "models" with "threshold", ``CAUSE``.  Made by
benchmarks/factory_table.py."""

TRACES: Mapping[str, float] = {
    "domain": 0.1, "texture": 0.1, "background": 0.1, "pose": 0.1, "cooccurrence": 0.05, "artifact": 0.05,
}  # fmt: skip
"""Least of the trace, see ``Measured``; it can only rule out, since maps show what a model looks at without minding it too."""


@dataclass(frozen=True)
class Measured:
    """A number with its 95 % interval, None where it could not be measured, and what it is in words.

    The trace is a share of the positive relevance, or of spots their occlusion sensitivity: what painting them over takes of the class in
    its own images, beyond as much painted over elsewhere.
    """

    value: float | None
    ci: Sequence[float] | None
    n: int
    words: str

    def against(self, threshold: float) -> int:
        """1 where all of the interval lies above, -1 where all lies below, else 0."""
        if self.ci is None:
            return 0
        return 1 if self.ci[0] > threshold else -1 if self.ci[1] < threshold else 0


@dataclass(frozen=True)
class Case:
    """What was measured of one family; ``others`` is further evidence in words, ``doubt`` why neither number decides."""

    family: str
    cause: Measured
    trace: Measured
    others: tuple[str, ...] = ()
    doubt: str = ""

    def ends(self) -> tuple[float, float]:
        """What the verdict rests on: the interval of the intervention, in so far as the trace allows one.

        A trace below its threshold takes both ends down, whatever the intervention costs; one that lies on neither side, the lower one.
        """
        low, high = self.cause.ci if self.cause.ci is not None else (-math.inf, math.inf)
        side = self.trace.against(TRACES[self.family])
        if self.doubt:
            return -math.inf, math.inf
        return (low, high) if side == 1 else (-math.inf, high if side == 0 else -math.inf)


def finding(case: Case, allowed: bool) -> Facts:
    """One row of "findings" in report.json."""
    low, high = case.ends()
    verdict = judge(low, high, CAUSE)
    evidence = [
        {
            "kind": kind,
            "says": each.words,
            "value": each.value,
            "ci": None if each.ci is None else list(each.ci),
            "n": each.n,
            "threshold": least,
        }
        for kind, each, least in (("intervention", case.cause, CAUSE), ("attribution", case.trace, TRACES[case.family]))
    ]
    evidence += [{"kind": "further", "says": words} for words in (case.doubt, *case.others) if words]
    return {
        "shortcut": case.family,
        "about": ABOUT[case.family],
        "verdict": verdict,
        "declared": allowed,
        "strength": case.cause.value,
        "ci": None if case.cause.ci is None else list(case.cause.ci),
        "evidence": evidence,
        "doubt": case.doubt,
        "would_refute": _refute(case, verdict),
    }


def _refute(case: Case, verdict: str) -> str:
    cause = case.cause
    if verdict == RELIES:
        return (
            f"the same intervention on other images of this kind with a loss below {100 * CAUSE:g} points, or a control that "
            "changes as much without touching the cue and costs as much"
        )
    if verdict == NONE:
        return f"a change of this cue that costs more than {100 * EXCLUDED:g} points, e.g. one that the probe here does not make"
    if case.doubt:
        return "measuring what is missing"
    if cause.ci is None or cause.value is None:
        return "images on which the cue can be changed"
    more = _needed(cause)
    return "more images" if more is None else f"about {more} images in place of {cause.n}, if the loss stays as it is"


def _needed(measured: Measured) -> int | None:
    """How many images would decide, were value and spread to stay."""
    assert measured.ci is not None and measured.value is not None
    half, apart = (measured.ci[1] - measured.ci[0]) / 2, max(measured.value - CAUSE, EXCLUDED - measured.value)
    wanted = measured.n * (half / apart) ** 2 if apart > 0 else math.inf
    return math.ceil(wanted) if measured.n < wanted < 100_000 else None


def cases(report: Facts) -> list[Case]:
    """The evidence about every cue family, in the order of ``CUES``, from a report with "spots"."""
    found = [_contradicted(report, _case(report, family)) for family in CUES]
    doubt = next((each for each in report["warnings"] if each.startswith("not assessable")), "")
    if doubt:
        return [replace(each, doubt=doubt) for each in found]
    local = [each for each in found if each.family in ("artifact", "cooccurrence") and (each.doubt or each.cause.against(CAUSE) == 1)]
    apart = {each.family: each for each in found}
    first, second = sorted((apart["domain"], apart["background"]), key=lambda each: -(each.cause.value or 0))
    if _turned(report) > SHADED * (apart["background"].cause.value or 0):
        first, second = apart["domain"], apart["background"]
    larger = {second.family: first}
    if (apart["domain"].cause.value or 0) > (apart["pose"].cause.value or 0):
        larger["pose"] = apart["domain"]
    return [_explained_away(each, local if each.family == "background" else [], larger.get(each.family)) for each in found]


def _turned(report: Facts) -> float:
    """What turned objects cost, the mean over ``TURNS``; 0 where none was asked."""
    drops = [report["probes"][name]["primary"]["drop"] for name in TURNS if name in report["probes"]]
    known = [each for each in drops if each is not None]
    return sum(known) / len(known) if known else 0.0


def _contradicted(report: Facts, case: Case) -> Case:
    """Where nothing beside the objects decides, but the family's probe costs more than ``EXCLUDED``, there is no ground for "no evidence".

    So it is with other annotated objects, in which no spot may lie.
    """
    name = QUESTIONS[case.family]
    row = report["probes"].get(name)
    if case.family not in ("artifact", "cooccurrence") or case.doubt or row is None or row["primary"]["ci"] is None:
        return case
    if row["primary"]["ci"][0] <= EXCLUDED or -1 not in (case.cause.against(EXCLUDED), case.trace.against(TRACES[case.family])):
        return case
    return replace(case, doubt=f"{name} alone costs {_told(row['primary'])}, and nothing beside the objects explains it")


def _explained_away(case: Case, local: Sequence[Case], larger: Case | None) -> Case:
    """What costs may be another cue that comes along: with a background the thing that stands in it, or its light; with light the
    colours of the background; with a turned object its shading; ``larger`` is the one of the two that explains the other."""
    if case.cause.against(EXCLUDED) == -1:
        return case
    doubt = ""
    if local and case.cause.against(EXCLUDED) == 1:
        names = " and ".join(each.family for each in local)
        doubt = f"backgrounds are exchanged with what stands in them, and that decides, or may decide (see {names})"
    elif larger is not None and larger.cause.against(EXCLUDED) == 1:
        doubt = f"what changes {case.family} changes {larger.family} too, and that explains it"
    return replace(case, doubt=doubt) if doubt else case


def _case(report: Facts, family: str) -> Case:
    name = QUESTIONS[family]
    if family == "pose":
        asked = (name, *TURNS)
        known = [each for each in asked if _asked(report, each)]
        name = min(known, key=lambda each: report["probes"][each]["primary"]["drop"], default=name)
    if family == "domain" and _asked(report, AGREED) and report["probes"][AGREED]["primary"]["ci"][0] <= AGREES:
        name = AGREED
    row = report["probes"].get(name)
    if family in ("artifact", "cooccurrence"):
        return _local(report, family, row)
    if row is None:
        return Case(family, _missing(f"{name} could not be asked"), _missing("no explanation to compare"), doubt=_why(report, name))
    primary, shift = row["primary"], row.get("relevance")
    words = f"{name}: what is lost when only {ABOUT[family]} changes"
    if primary["ci"] is None:
        words = _why(report, name) if primary["drop"] is None else f"{words}; {_why(report, name)}"
    cause = Measured(primary["drop"], primary["ci"], row["n"], words)
    place = PLACES[family]
    trace = _missing("no map of this model could be made" if row["n"] else "no explanation to compare")
    if shift is not None and shift["n"] and shift["before"]["object"] is not None:
        share, ends, area = shift["before"]["object"], shift["before_ci"]["object"], shift["chance"]["before"]["object"]
        if place == "around":  # with what the data names as an artefact, which stands apart in the report
            share, ends, area = 1 - share, ends and [1 - end for end in ends[::-1]], 1 - area
        trace = Measured(
            share, ends, shift["n"],
            f"share of the positive relevance of its decisions on {'the object' if place == 'object' else 'what is around the object'} "
            f"({100 * area:.0f} % of the area)",
        )  # fmt: skip
    doubt = ""
    if family == "pose" and name != QUESTIONS[family] and not _asked(report, QUESTIONS[family]) and cause.against(EXCLUDED) != -1:
        doubt = "turned objects cost, but perhaps at angles that the training data never had; there is no other class to turn them like"
    return Case(family, cause, trace, tuple(_supporting(report, family, name)), doubt)


def _asked(report: Facts, name: str) -> bool:
    return name in report["probes"] and report["probes"][name]["primary"]["ci"] is not None


def _local(report: Facts, family: str, row: Facts | None) -> Case:
    """Of what stands beside objects: the class whose spots move decisions most, of those at one place or of the others."""
    judged = {name: _judged(each, family) for name, each in report["spots"]["classes"].items()}
    spots = {name: report["spots"]["classes"][name] | {key: each[key] for key in ("moved", "removed", "ratio")}
             for name, each in judged.items() if each is not None}  # fmt: skip
    others = tuple(_supporting(report, family, "")) + (tuple(_clusters(report)) if family == "artifact" else ())
    if row is not None and row["primary"]["drop"] is not None:
        others = (f"{QUESTIONS[family]} costs {_told(row['primary'])}", *others)
    if report["spots"]["nowhere"] >= FEWEST and not report["spots"]["classes"]:
        none = Measured(
            0.0, [0.0, 0.0], report["spots"]["nowhere"], "nothing beside the objects speaks for any class, so nothing was moved"
        )
        return Case(family, none, none, others)
    if not report["spots"]["classes"]:
        reason = report["spots"]["note"] or "no class has enough images with a place beside its objects that speaks for it"
        return Case(family, _missing("no spot could be moved"), _missing("no spot was found"), others, reason)
    movable = {name: each for name, each in spots.items() if each["moved"] is not None and each["moved"]["ci"] is not None}
    if not movable:
        kind = "one place" if family == "artifact" else "various places"
        if not spots:  # of no class do spots lie like that: there is nothing of the kind
            return Case(family, Measured(0.0, [0.0, 0.0], 0, f"of no class do the places that speak for it lie in {kind}"),
                        Measured(0.0, [0.0, 0.0], 0, "nothing of the kind was found"), others)  # fmt: skip
        if given := [each["moved"] for each in spots.values() if each["moved"] is not None]:
            best = max(given, key=lambda each: each["value"])
            cause = Measured(best["value"], None, best["images"], "how much more of the class is seen in images that got what lies there")
            return Case(family, cause, _missing("not asked"), others, "too few images, or clusters of images, for an interval")
        doubt = "there is no image of another class to move it to, or none that leaves its place free"
        return Case(family, _missing("it was not moved"), _missing("not asked"), others, doubt)
    name = max(movable, key=lambda each: movable[each]["moved"]["ci"][0])
    best, count = movable[name], len(movable)
    moved = best["moved"]
    cause = Measured(
        moved["value"], moved["ci"], moved["images"],
        f"how much more of {name} is seen in images of other classes that got what lies at its spots, than in those that got the same "
        f"place of another image of their own class (the class with the largest effect of {count})",
    )  # fmt: skip
    removed, ratio = best["removed"], best["ratio"]
    trace = Measured(
        removed["value"], removed["ci"], removed["n"],
        f"occlusion sensitivity: how much of {name} its spots take with them when painted over in their own images, more than as much "
        "painted over elsewhere",
    )  # fmt: skip
    left, top, right, bottom = best["place"]["xyxy"]
    others = (
        f"{best['judged']} of {best['n']} spots of {name} were judged; {100 * best['place']['share']:.0f} % of them lie at x {left:.2f} to "
        f"{right:.2f}, y {top:.2f} to {bottom:.2f}, in shares of the image's width and height",
        f"relevance for {name} in its spots is {ratio['value']:.1f} times their share of the area",
        *others,
    )
    return Case(family, cause, trace, others)


def _judged(spots: Facts, family: str) -> Facts | None:
    """What the spots of a class show that belong to the family, None where none do."""
    if not fixed(spots):
        return None if family == "artifact" else spots
    if family == "artifact":
        return spots["place"]
    away = spots["elsewhere"]
    return away if away["moved"] is not None and away["moved"]["images"] >= FEWEST else None


def _clusters(report: Facts) -> list[str]:
    """What became of the clusters that SpRAy found suspicious."""
    return [
        f"SpRAy: {cluster['size']} decisions for {name} rest on one place; pasted elsewhere or taken away it "
        + {True: "flips", False: "does not flip", None: "could not be asked to flip"}[moved["flips"]]
        + " decisions beyond its controls"
        for name, rows in report.get("transplants", {}).items()
        for cluster, moved in zip([each for each in report["spray"][name]["clusters"] if each["suspicious"]], rows, strict=True)
    ]


def _supporting(report: Facts, family: str, asked: str) -> list[str]:
    """What the family's other probes cost; they support, and decide nothing."""
    rows = {name: row for name, row in report["probes"].items() if row["family"] == family and name != (asked or QUESTIONS[family])}
    return [
        f"{name} costs {_told(row['primary'])}" for name, row in rows.items() if row["primary"]["drop"] is not None and "measure" not in row
    ]


def _told(primary: Facts) -> str:
    spread = "" if primary["ci"] is None else f" [{100 * primary['ci'][0]:z.1f}, {100 * primary['ci'][1]:z.1f}]"
    return f"{100 * primary['drop']:z.1f} points{spread}"


UNASKED = (" was left out", " is undefined", ": the interval is undefined")
"""How warnings about a probe without a number go on after its name."""

FEW = ": no interval"
"""In the warning about data of few clusters."""


def _why(report: Facts, name: str) -> str:
    asked = tuple(f"{name}{end}" for end in UNASKED)
    told = [each for each in report["warnings"] if each.startswith(asked)] + [each for each in report["warnings"] if FEW in each]
    return told[0] if told else f"{name} was not run"


def _missing(words: str) -> Measured:
    return Measured(None, None, 0, words)
