"""How often an audit is wrong on the models of the factory: python benchmarks/factory_table.py

Writes factory.md from the JSON files that ``python benchmarks/factory.py run`` left.  Thresholds of a rule are chosen on other families
and other architectures than the ones it is tried on (``xaitools.metrics.error_rates``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from factory import FOLDER, RHOS, STEPS, recipes

from xaitools.audit.factory import FAMILY
from xaitools.data.scenes import FACTORS
from xaitools.files import read_json, write_text
from xaitools.metrics.error_rates import RELIES, STRONG, UNDECIDED, Case, Rule, auroc, leave_out, rates

DECLARED = {"background": "gap", "texture": "swap", "artifact": "artifact.paste", "pose": "hflip", "domain": "colour_stats",
            "cooccurrence": "cooccurrence.remove"}  # fmt: skip
"""The probe that stands for each family."""

ON_THE_OBJECT = ("texture", "pose")
"""Families whose cue lies on the object itself: attention to it is what one would expect of a model that relies on them."""

RULES = {
    "drop alone": Rule(("low",), under="high"),
    "drop and margin": Rule(("low", "margin"), under="high"),
    "drop and attention": Rule(("low", "attention"), under="high"),
}
"""The first is the one by which the models are listed."""


def models() -> list[dict[str, Any]]:
    """The JSON of every model whose steps are all done, in the order of the recipes."""
    found = []
    for recipe in recipes():
        file = FOLDER / recipe.name / "model.json"
        facts = read_json(file) if file.is_file() else {"steps": {}}
        if all(facts["steps"].get(name, {}).get("version") == version for name, (_, version) in STEPS.items()):
            found.append(facts | {"name": recipe.name})
    return found


def cases(facts: Mapping[str, Any]) -> list[Case]:
    """One for each family."""
    recipe, steps = facts["recipe"], facts["steps"]
    plant = FAMILY[recipe["plant"]] if recipe["kind"] == "planted" else ""
    rows = []
    for factor, family in FAMILY.items():
        known = steps["truth"]["reliance"][factor]
        features = {key: each for name, row in steps["probes"]["probes"].items() if row["family"] == family
                    for key, each in _features(row, name, family).items()}  # fmt: skip
        rows.append(Case(facts["name"], recipe["architecture"], plant, family, known["truth"], known["drop"], features))
    return rows


def _features(row: Mapping[str, Any], name: str, family: str) -> dict[str, float | None]:
    """Numbers of one probe, as NAME.FEATURE; of the one that stands for its family by FEATURE alone too.

    low, drop, high  of the drop
    on, off          share of relevance on the object, and off it, over the share of area, on the unchanged image (for a contrast: on
                     its reference)
    lost             by how much the object's share falls under the change
    artefact         share of relevance on what came or went, over its area, afterwards
    margin           by how much the explained margin falls, as a share of what it was
    attention        on, for families in ON_THE_OBJECT, else off
    """
    low, high = row["ci"] or (None, None)
    found: dict[str, float | None] = {"low": low, "drop": row["drop"], "high": high}
    seen = row.get("relevance") or {}
    if seen.get("n"):
        before, after = seen["chance"]["before"], seen["chance"]["after"]
        found["on"] = _less(seen["before"]["object"], before["object"])
        found["off"] = None if found["on"] is None else -found["on"]
        found["lost"] = _less(seen["before"]["object"], seen["after"]["object"])
        found["artefact"] = _less(seen["after"]["artefact"], after["artefact"])
        first, last = (seen["margin"][side]["mean"] for side in ("before", "after"))
        found["margin"] = (first - last) / abs(first) if first else None
    if row["drop"] is None:  # not assessable
        found = dict.fromkeys(found)
    found["attention"] = found.get("on" if family in ON_THE_OBJECT else "off")
    named = {f"{name}.{key}": value for key, value in found.items()}
    return named | found if name == DECLARED[family] else named


def _less(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def report(facts: Sequence[Mapping[str, Any]]) -> str:
    """The text of factory.md."""
    rows = [case for each in facts for case in cases(each)]
    judged = {name: leave_out(rows, rule) for name, rule in RULES.items()}
    verdicts = {name: [verdict for verdict, _ in each] for name, each in judged.items()}
    found = {name: rates(rows, each) for name, each in verdicts.items()}
    first = next(iter(RULES))
    return "\n\n".join([
        "# How often an audit is wrong: models with known shortcuts",
        f"{time.strftime('%Y-%m-%d')}, {len(facts)} of {len(recipes())} models. Made by `python benchmarks/factory.py` and "
        "`python benchmarks/factory_table.py`; `factory.py` says how each model is trained, how its reliance is measured (by drawing "
        "the same scenes again with one factor changed, never by a probe), and what an audit saw of it.",
        "## The models", _table(*_kinds(facts)), _table(*_costs(facts)),
        "## How far they rely on each factor", _table(*_reliances(facts)),
        "## Simple rules", _rule_text(),
        *(part for name in RULES for part in (f"### By {name}", _table(*_errors(found[name])), _thresholds(rows, judged[name]))),
        "### By how strong the reliance is", _table(*_power(found)),
        "## Which number tells most", _table(*_aurocs(rows)),
        f"## Every model, by {first}", _table(*_list(facts, rows, verdicts[first])),
    ]) + "\n"  # fmt: skip


Rows = tuple[list[str], list[list[str]]]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def _kinds(facts: Sequence[Mapping[str, Any]]) -> Rows:
    """By kind: how many models, and on how many the planted factor, or for the honest ones any, is relied on."""
    rows = []
    for kind in dict.fromkeys(each["recipe"]["kind"] for each in facts):
        mine = [each for each in facts if each["recipe"]["kind"] == kind]
        for plant in dict.fromkeys(each["recipe"]["plant"] for each in mine):
            some = [each for each in mine if each["recipe"]["plant"] == plant]
            truths = [[each["steps"]["truth"]["reliance"][factor]["truth"] for factor in ([plant] if kind == "planted" else FACTORS)]
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
        seconds = [f"{np.median([each['steps'][step]['cpu'] for each in trained_] or [np.nan]):.0f}" for step in ("train", *STEPS)]
        rows.append(
            [f"`{name}`", str(len(mine)), str(mine[0]["train"]["parameters"]), mine[0]["probes"]["metric"], _spread(honest), *seconds]
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
    probes_ = ", ".join(f"{family}: `{name}`" for family, name in DECLARED.items())
    return (
        "A model *relies* on a family where the lower end of the drop's interval, and the second number where there is one, are above "
        f"their thresholds; there is *no evidence* where the upper end is below {100 * STRONG:g} points; all else is *undecided*. "
        "Thresholds of each verdict come from the models of other architectures and the verdicts on other families alone, so that at most "
        "5 % of those models have a false alarm. The second number is the part of the explained margin that is lost under the change, or "
        "the attention to where the cue lies: the share of relevance over the share of area, on the object for texture and pose, off it "
        "for the rest. By model: strong plants found, and honest models with any false alarm. "
        f"One declared probe a family: {probes_}."
    )


def _errors(found: Mapping[str, Any]) -> Rows:
    rows = [[name, *(_share(row[key]) for key in ("strong", "positives", "negatives", "undecided")), str(row["middle"])]
            for name, row in [*found["families"].items(), ("all", found["pooled"])]]  # fmt: skip
    models_ = found["models"]
    rows.append(["by model", _share(models_["planted"]), "", _share(models_["honest"]), "", ""])
    head = ["family", "strong reliance found (undecided is a miss)", "any reliance found", "false alarms", "undecided of the negatives"]
    return [*head, "not scored"], rows


def _share(row: Mapping[str, Any]) -> str:
    return f"{row['count']}/{row['n']} [{row['ci'][0]:.2f}, {row['ci'][1]:.2f}]" if row["n"] else "0/0"


def _thresholds(rows: Sequence[Case], judged: Sequence[tuple[str, tuple[float, ...] | None]]) -> str:
    """The lowest and the highest of each threshold over the held-out families and architectures."""
    chosen = [each for _, each in judged if each is not None]
    without = len({(case.family, case.architecture) for case, (_, each) in zip(rows, judged, strict=True) if each is None})
    spans = [f"{100 * min(values):.1f} to {100 * max(values):.1f}" for values in zip(*chosen, strict=True)]
    told = " and ".join(spans) or "none"
    return f"Thresholds, in points: {told}" + (f"; {without} held-out pairs of family and architecture had none." if without else ".")


def _power(found: Mapping[str, Mapping[str, Any]]) -> Rows:
    lines = zip(*(each["power"] for each in found.values()), strict=True)
    return ["reliance, points", *(f"by {name}" for name in found)], [[_between(row[0]), *map(_share, row)] for row in lines]


def _between(row: Mapping[str, Any]) -> str:
    low, high = (f"{100 * row[key]:g}" if np.isfinite(row[key]) else "" for key in ("from", "to"))
    return f"{low} to {high}" if low and high else f"below {high}" if high else f"from {low}"


def _aurocs(rows: Sequence[Case]) -> Rows:
    """By family the numbers that tell most, the declared one's own first."""
    lines = []
    for family in FAMILY.values():
        mine = [case for case in rows if case.family == family]
        names = sorted({key for case in mine for key in case.features if "." in key and not key.endswith((".attention", ".high"))})
        scored = [(auroc(mine, name), name) for name in names]
        scored = sorted([(each, name) for each, name in scored if each["value"] is not None], key=lambda pair: -abs(pair[0]["value"] - 0.5))
        for each, name in scored[:8]:
            counts = [str(each[key]) for key in ("positives", "negatives", "undefined")]
            lines.append([family, f"`{name}`", f"{each['value']:.2f}", *counts])
    return ["family", "number", "AUROC (below 0.5: smaller means reliance)", "positives", "negatives", "undefined"], lines


def _list(facts: Sequence[Mapping[str, Any]], rows: Sequence[Case], verdicts: Sequence[str]) -> Rows:
    lines = []
    for each in facts:
        mine = [(case, verdict) for case, verdict in zip(rows, verdicts, strict=True) if case.model == each["name"]]
        steps = each["steps"]
        relied = ", ".join(f"{case.family} {100 * case.strength:.0f}" for case, _ in mine if case.truth)
        said = {name: ", ".join(case.family for case, verdict in mine if verdict == name) for name in (RELIES, UNDECIDED)}
        clean = steps["probes"]["clean"]["value"]
        lines.append([f"`{each['name']}`", f"{steps['truth']['untied']:.2f}", f"{clean:.2f}", relied, said[RELIES], said[UNDECIDED]])
    return ["model", "metric, nothing tied", "metric, audited set", "relies on, points", "said to rely on", "undecided"], lines


if __name__ == "__main__":
    text = report(models())
    write_text(Path(__file__).with_name("factory.md"), text)
    print(text)
