"""How often an audit is wrong on the models of the factory: python benchmarks/factory_table.py

Writes factory.md, and what reports say of it, from what ``python benchmarks/factory.py`` left (``factory.jsonl``).  Thresholds of a rule
are chosen on other families and other architectures than the ones it is tried on (``xaitools.metrics.error_rates``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import xaitools.audit
from benchmarks.factory import RHOS, SIZE, STEPS, known, recipes
from xaitools.audit import verdict
from xaitools.audit.factory import FAMILY, NEGATIVE, POSITIVE
from xaitools.audit.factory import verdict as truth
from xaitools.data._drawing import tag_box
from xaitools.data.scenes import FACTORS, SHAPES, TIED
from xaitools.files import write_json, write_text
from xaitools.metrics.error_rates import EXCLUDED, RELIES, STRONG, UNDECIDED, Case, Rule, auroc, leave_out, rates

RULES = {"the audit": Rule("low", "high"), "the intervention alone": Rule("cause.low", "cause.high")}
"""Of the second the trace has no part; the first is the one by which the models are listed, and that reports tell of."""

SHIPPED = Path(xaitools.audit.__file__).with_name("error_rates.json")


def cases(facts: Mapping[str, Any]) -> list[Case]:
    """One for each family."""
    recipe, steps = facts["recipe"], facts["steps"]
    plant = FAMILY[recipe["plant"]] if recipe["kind"] == "planted" else ""
    findings = {row["shortcut"]: row for row in steps["audited"]["findings"]}
    reliances = {family: steps["truth"]["reliance"][factor] for factor, family in FAMILY.items()}
    refused = all(row["doubt"].startswith("not assessable") for row in findings.values())
    return [
        Case(
            facts["name"], recipe["architecture"], plant, family, truth(row["ci"]), row["drop"], features(findings[family]), refused
        )
        for family, row in reliances.items()
    ]  # fmt: skip


def features(finding: Mapping[str, Any]) -> dict[str, float | None]:
    """low, high                    ends of what the verdict rests on
    cause, cause.low, cause.high  of the intervention; trace, trace.low  of the attribution
    """
    cause, trace = (verdict.Measured(each["value"], each["ci"], each["n"], "") for each in finding["evidence"][:2])
    low, high = verdict.Case(finding["shortcut"], cause, trace, doubt=finding["doubt"]).ends()
    found: dict[str, float | None] = {"low": low, "high": high}
    for name, each in (("cause", cause), ("trace", trace)):
        found |= {name: each.value, f"{name}.low": each.ci[0] if each.ci else None, f"{name}.high": each.ci[1] if each.ci else None}
    return found


def judged(rows: Sequence[Case], name: str) -> list[tuple[str, float | None]]:
    return leave_out(rows, RULES[name])


def shipped(facts: Sequence[Mapping[str, Any]], rows: Sequence[Case]) -> dict[str, Any]:
    """What a report says of the audit's errors; see ``xaitools.audit.error_rates``."""
    found = rates(rows, [each for each, _ in judged(rows, "the audit")])
    own = {"threshold": verdict.CAUSE, **_by_own_threshold(rows)["models"]}
    architectures = list(dict.fromkeys(each["recipe"]["architecture"] for each in facts))
    counted = {key: found[key] for key in ("families", "pooled", "models")}
    return {"date": time.strftime("%Y-%m-%d"), "n": len(facts), "architectures": architectures, "strong": STRONG, **counted, "shipped": own}


def _by_own_threshold(rows: Sequence[Case]) -> dict[str, Any]:
    return rates(rows, [RULES["the audit"].judge(case.features, verdict.CAUSE) for case in rows])


def report(facts: Sequence[Mapping[str, Any]], rows: Sequence[Case]) -> str:
    """The text of factory.md."""
    told = {name: judged(rows, name) for name in RULES}
    verdicts = {name: [each for each, _ in pairs] for name, pairs in told.items()}
    found = {name: rates(rows, each) for name, each in verdicts.items()}
    return "\n\n".join([
        "# How often an audit is wrong: models with known shortcuts",
        f"{time.strftime('%Y-%m-%d')}, {len(facts)} of {len(recipes())} models. Made by `python benchmarks/factory.py` and "
        "`python benchmarks/factory_table.py`; `factory.py` says how each model is trained, and how its reliance is measured (by drawing "
        "the same scenes again with one factor changed, never by a probe). Then `xt.audit` judged it. " + _elsewhere(facts),
        "## The models", _table(*_kinds(facts)), _table(*_costs(facts)),
        "## How far they rely on each factor", _table(*_reliances(facts)),
        "## How often the audit is wrong", _rule_text(),
        *(part for name in RULES for part in (f"### By {name}", _table(*_errors(found[name])), _thresholds(rows, told[name]))),
        f"### The audit with its shipped threshold, {100 * verdict.CAUSE:g} points, which was chosen before these models were made",
        _table(*_errors(_by_own_threshold(rows))),
        f"One threshold for all families, chosen on all {len(facts)} models: {_threshold(RULES['the audit'].fit(rows))}.",
        "### By how strong the reliance is", _table(*_power(found)),
        "### Where", _where(facts),
        "## Which number tells most", _table(*_aurocs(rows)),
        "## Every model, by the audit", _table(*_list(facts, rows, verdicts["the audit"])),
    ]) + "\n"  # fmt: skip


Rows = tuple[list[str], list[list[str]]]


def _device(facts: Mapping[str, Any]) -> str:
    return str(facts["steps"]["train"].get("device", "cpu"))


def _elsewhere(facts: Sequence[Mapping[str, Any]]) -> str:
    count = sum(_device(each) != "cpu" for each in facts)
    return f"{count} of them were trained on a GPU, whose rounding gives other weights of the same kind." if count else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def _kinds(facts: Sequence[Mapping[str, Any]]) -> Rows:
    """By kind: how many models, and on how many the planted factor, or for the honest ones any, is relied on."""
    rows = []
    for kind in dict.fromkeys(each["recipe"]["kind"] for each in facts):
        mine = [each for each in facts if each["recipe"]["kind"] == kind]
        for plant in dict.fromkeys(each["recipe"]["plant"] for each in mine):
            some = [each for each in mine if each["recipe"]["plant"] == plant]
            truths = [[truth(each["steps"]["truth"]["reliance"][factor]["ci"]) for factor in ([plant] if kind == "planted" else FACTORS)]
                      for each in some]  # fmt: skip
            relying = sum(any(row) for row in truths)
            free = sum(all(value is False for value in row) for row in truths)
            rows.append([kind, plant or "", str(len(some)), str(relying), str(free), str(len(some) - relying - free)])
    about = ["kind", "factor", "models", "rely on it (honest kinds: on any factor)", "do not", "between, not scored"]
    return about, rows


def _costs(facts: Sequence[Mapping[str, Any]]) -> Rows:
    rows = []
    for name in dict.fromkeys(each["recipe"]["architecture"] for each in facts):
        mine = [each["steps"] for each in facts if each["recipe"]["architecture"] == name]
        trained_ = [each for each in facts if each["recipe"]["architecture"] == name and each["recipe"]["kind"] != "untrained"]
        honest = [each["steps"]["truth"]["untied"] for each in trained_ if each["recipe"]["kind"] != "planted"]
        timed = [each for each in trained_ if _device(each) == "cpu"]
        seconds = [f"{np.median([each['steps'][step]['cpu'] for each in timed] or [np.nan]):.0f}" for step in ("train", *STEPS)]
        rows.append(
            [f"`{name}`", str(len(mine)), str(mine[0]["train"]["parameters"]), mine[0]["audited"]["metric"], _spread(honest), *seconds]
        )
    head = ["architecture", "models", "parameters", "metric", "honest models, no factor tied: median (lowest to highest)"]
    return [*head, *(f"{step}, s of one core" for step in ("train", *STEPS))], rows


def _spread(values: Sequence[float]) -> str:
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else ""


def _reliances(facts: Sequence[Mapping[str, Any]]) -> Rows:
    """A row for each factor and rho: the reliance of its models; the last column the largest on any other factor."""
    rows = []
    for factor in FACTORS:
        for rho in RHOS:
            mine = [
                each
                for each in facts
                if (each["recipe"]["kind"], each["recipe"]["plant"], each["recipe"]["rho"]) == ("planted", factor, rho)
            ]
            for name in dict.fromkeys(each["recipe"]["architecture"] for each in mine):
                some = [each["steps"]["truth"]["reliance"] for each in mine if each["recipe"]["architecture"] == name]
                others = [each[other]["drop"] for each in some for other in FACTORS if other != factor]
                classes = [max((value or 0, label) for label, value in each[factor]["per_class"].items()) for each in some]
                most = ", ".join(f"{label} {100 * value:.1f}" for value, label in classes)
                told = ", ".join(_points(each[factor]) for each in some)
                rows.append([factor, f"{rho:g}", f"`{name}`", told, most, f"{100 * max(others):.1f}"])
    return ["factor", "rho", "architecture", "reliance, points", "of the class that loses most", "largest on another factor"], rows


def _points(row: Mapping[str, Any]) -> str:
    return f"{100 * row['drop']:.1f} [{100 * row['ci'][0]:.1f}, {100 * row['ci'][1]:.1f}]" if row["ci"] else "undefined"


def _rule_text() -> str:
    return (
        "A model *relies* on a family where the interval of the intervention lies above the threshold and its trace above its own; there "
        f"is *no evidence* where a loss of {100 * EXCLUDED:g} points is excluded, or the trace lies below its own; all else is "
        "*undecided* (`xaitools/audit/verdict.py`). A model that sees nothing, with random weights, is *not assessable*, and is counted "
        f"apart. A model relies on a factor where the interval of its reliance lies above {100 * POSITIVE:g} points, and does not where it "
        f"lies below {100 * NEGATIVE:g}, or below {100 * POSITIVE:g} and holds 0; what is between is not scored. The threshold for each "
        "verdict comes from the models of other architectures and the verdicts on other families alone, so that at most 5 % of those "
        "models have a false alarm. By model: strong plants found, and models without a plant with any false alarm. What is no threshold "
        "(how a surface is exchanged, how a place is found and what counts as one, which of two cues explains the other), and the "
        "threshold that ships, was made with models of lower seeds in view and with none of these: with 127, of which 42 of 45 strong "
        "plants were found and 1 of 55 that rely on nothing was accused; then, how a place is found, with some of 147 others, of which "
        "the audit had found 38 of 46 before, of tags and companions 4 of 10, and accused 1 of 72."
    )


def _errors(found: Mapping[str, Any]) -> Rows:
    rows = [[name, *(_share(row[key]) for key in ("strong", "positives", "negatives", "undecided")), str(row["middle"])]
            for name, row in [*found["families"].items(), ("all", found["pooled"])]]  # fmt: skip
    models_ = found["models"]
    rows.append(
        ["by model", _share(models_["planted"]), "", _share(models_["honest"]), "", f"{models_['refused']['count']} not assessable"]
    )
    head = ["family", "strong reliance found (undecided is a miss)", "any reliance found", "false alarms", "undecided of the negatives"]
    return [*head, "not scored"], rows


def _share(row: Mapping[str, Any]) -> str:
    return f"{row['count']}/{row['n']} [{row['ci'][0]:.2f}, {row['ci'][1]:.2f}]" if row["n"] else "0/0"


def _thresholds(rows: Sequence[Case], pairs: Sequence[tuple[str, float | None]]) -> str:
    """The lowest and the highest threshold over the held-out families and architectures."""
    chosen = [each for _, each in pairs if each is not None]
    without = len({(case.family, case.architecture) for case, (_, each) in zip(rows, pairs, strict=True) if each is None})
    span = f"{_threshold(min(chosen))} to {_threshold(max(chosen))}" if chosen else "none"
    return f"Thresholds: {span}" + (f"; {without} held-out pairs of family and architecture had none." if without else ".")


def _threshold(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.1f} points"


def _where(facts: Sequence[Mapping[str, Any]]) -> str:
    """Of the models that rely on the tag, how well the place that the audit names fits it."""
    left, top, right, bottom = (each / SIZE for each in tag_box(SIZE))
    overlaps = []
    for each in facts:
        if truth(each["steps"]["truth"]["reliance"]["tag"]["ci"]):
            spot = each["steps"]["audited"]["spots"]["classes"].get(SHAPES[TIED])
            (x0, y0, x1, y1) = spot["place"]["xyxy"] if spot else (0, 0, 0, 0)
            both = max(0, min(x1, right) - max(x0, left)) * max(0, min(y1, bottom) - max(y0, top))
            overlaps.append(both / ((right - left) * (bottom - top)))
    if not overlaps:
        return "No model relies on the tag."
    told = ", ".join(f"{100 * each:.0f}" for each in sorted(overlaps))
    return f"Of {len(overlaps)} models that rely on the tag, the place that moves decisions covers so much of it, in percent: {told}."


def _power(found: Mapping[str, Mapping[str, Any]]) -> Rows:
    lines = zip(*(each["power"] for each in found.values()), strict=True)
    return ["reliance, points", *(f"by {name}" for name in found)], [[_between(row[0]), *map(_share, row)] for row in lines]


def _between(row: Mapping[str, Any]) -> str:
    low, high = (f"{100 * row[key]:g}" if np.isfinite(row[key]) else "" for key in ("from", "to"))
    return f"{low} to {high}" if low and high else f"below {high}" if high else f"from {low}"


def _aurocs(rows: Sequence[Case]) -> Rows:
    """By family how well each number tells a model that relies from one that does not."""
    lines = []
    for family in FAMILY.values():
        mine = [case for case in rows if case.family == family]
        names = ["low", "cause", "cause.low", "trace", "trace.low"]
        for each, name in [(auroc(mine, name), name) for name in names]:
            if each["value"] is None:
                continue
            counts = [str(each[key]) for key in ("positives", "negatives", "undefined")]
            lines.append([family, f"`{name}`", f"{each['value']:.2f}", *counts])
    return ["family", "number", "AUROC (below 0.5: smaller means reliance)", "positives", "negatives", "undefined"], lines


def _list(facts: Sequence[Mapping[str, Any]], rows: Sequence[Case], verdicts: Sequence[str]) -> Rows:
    lines = []
    for each in facts:
        mine = [(case, said) for case, said in zip(rows, verdicts, strict=True) if case.model == each["name"]]
        steps = each["steps"]
        relied = ", ".join(f"{case.family} {100 * case.strength:.0f}" for case, _ in mine if case.truth)
        heard = {name: ", ".join(case.family for case, said in mine if said == name) for name in (RELIES, UNDECIDED)}
        clean = steps["audited"]["clean"]["value"]
        lines.append([f"`{each['name']}`", f"{steps['truth']['untied']:.2f}", f"{clean:.2f}", relied, heard[RELIES], heard[UNDECIDED]])
    return ["model", "metric, nothing tied", "metric, audited set", "relies on, points", "said to rely on", "undecided"], lines


if __name__ == "__main__":
    made = list(known().values())
    every = [case for each in made for case in cases(each)]
    text = report(made, every)
    write_text(Path(__file__).with_name("factory.md"), text)
    write_json(SHIPPED, shipped(made, every))
    print(text)
