"""From records to the report: drops with paired intervals, controls, and everything that must be said about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import Drawn, Dual, Table, draw
from ..metrics.accuracy import defined
from ..metrics.groups import SMALL as FEW
from ..metrics.groups import units_of
from ..metrics.statistics import UNDEFINED, few, told, unit_weights, within
from ..probes import PROBES, Probe
from ..probes.base import COMMON
from .attacks import attack_notes
from .plan import CLEAN, Condition, Plan, scored
from .records import MEASURED, SHIFT, Row
from .shape_bias import shape_bias
from .target_domain import target_domain

USUAL = 3
"""The severity that stands for a probe when it was run."""

Facts = dict[str, Any]
Make = Callable[[Mapping[Condition, Dual]], Mapping[str, Dual]]


class Tally:
    """The rows of a run by condition, and the comparisons between them."""

    def __init__(self, plan: Plan, rows: Sequence[Row]) -> None:
        self.plan = plan
        self.task, self.classes = plan.facts["model"]["task"], plan.facts["model"]["classes"]
        self.rows: dict[Condition, dict[str, Row]] = {}
        for row in (each for each in rows if not each.condition.startswith(SHIFT)):
            self.rows.setdefault(Condition(row.condition, row.severity), {})[row.item] = row
        self._good = {condition: _sound(rows) for condition, rows in self.rows.items()}

    def good(self, condition: Condition) -> Mapping[str, Row]:
        """The rows of a condition that are sound, by item."""
        return self._good.get(condition, {})

    def table(self, condition: Condition, items: Sequence[str]) -> Table:
        rows = self.good(condition)
        return Table(self.task, self.classes, [rows[item].metric for item in items])

    def shared(self, one: Condition, *others: Condition) -> list[str]:
        """Items that are sound under all conditions, in the dataset's order: the rest is left out everywhere."""
        wanted = [self.good(other) for other in others]
        return [item for item in self.good(one) if all(item in each for each in wanted)]

    def units(self, items: Sequence[str]) -> list[str] | None:
        """What the bootstrap draws for each item; None where it draws items."""
        return units_of(items, self.plan.facts.get("clusters"))

    def few(self, items: Sequence[str]) -> bool:
        """Whether these items lie in too few clusters for an interval: a range stands in its place."""
        return few(self.units(items))

    def weights(self, items: Sequence[str], replicates: int) -> NDArray[np.int8]:
        """(B, N) draws; of too few clusters one row a cluster, which holds that alone."""
        return unit_weights(items, self.units(items), seed=self.plan.seed, replicates=replicates)

    def numbers(self, items: Sequence[str], conditions: Sequence[Condition], make: Make, replicates: int = 2000) -> dict[str, Drawn]:
        """What ``make`` makes of the metrics of these conditions, all on the same draws of ``items``."""
        tables = {each: self.table(each, items) for each in conditions}
        return draw(tables, make, self.weights(items, replicates), self.units(items))

    def class_drops(self, items: Sequence[str], reference: Condition, conditions: Sequence[Condition], replicates: int) -> Facts:
        """{"per_class": {class: drop}, "per_class_ci": {class: its interval}} of the mean of ``conditions``; None where undefined.

        Of few clusters there are no intervals.
        """
        tables = {each: self.table(each, items) for each in (reference, *conditions)} if items else {}
        weights, units = self.weights(items, replicates), self.units(items)
        drops, intervals = Facts(), Facts()
        for name in self.classes if items else ():
            numbers = {each: table.of_class(name) for each, table in tables.items()}
            number = draw(numbers, lambda each: {"": each[reference] - Dual.mean([each[one] for one in conditions])}, weights, units)[""]
            drops[name], intervals[name] = defined(number.value), within(told(number, units)["ci"])
        return {"per_class": drops, "per_class_ci": intervals}

    def told(self, number: Drawn, items: Sequence[str]) -> Facts:
        """{"ci", "p"}, or of few clusters no interval but the "range" of what each cluster alone says."""
        found = told(number, self.units(items))
        return found | {"ci": within(found["ci"])}

    def drop(self, reference: Condition, condition: Condition, replicates: int = 2000) -> tuple[Facts, Drawn]:
        """{"value", "drop", "ci", "p"} on the items that are sound under both, all None where there is none; and the drop as drawn.

        It counts as not drawn where clusters are too few.
        """
        items = self.shared(reference, condition)
        if not items:
            return {"value": None, "drop": None, "ci": None, "p": None}, UNDEFINED
        number = self.numbers(items, [reference, condition], lambda each: {"drop": each[reference] - each[condition]}, replicates)["drop"]
        value = defined(self.table(condition, items).metric())
        return {"value": value, "drop": defined(number.value), **self.told(number, items)}, UNDEFINED if self.few(items) else number

    def image_drops(self, reference: Condition, condition: Condition) -> dict[str, float]:
        """Drop of the metric on each image alone, where it is defined: to choose examples, not to conclude from."""
        drops = {}
        for item in self.shared(reference, condition):
            drop = self.table(reference, [item]).metric() - self.table(condition, [item]).metric()
            if not np.isnan(drop):
                drops[item] = drop
        return drops

    def measured(self, condition: Condition) -> dict[str, float]:
        """Means of the numbers that the probe measured itself."""
        values: dict[str, list[float]] = {}
        for row in self.good(condition).values():
            for name in (name for name in row.statistics if name.startswith(MEASURED)):
                values.setdefault(name.removeprefix(MEASURED), []).append(float(row.statistics[name][0]))
        return {name: float(np.mean(each)) for name, each in values.items()}


def _sound(rows: dict[str, Row]) -> dict[str, Row]:
    sound = {item: row for item, row in rows.items() if row.reason is None}
    return rows if len(sound) == len(rows) else sound  # of very many rows a second dictionary takes as much as they do


def primary(severities: Sequence[int]) -> int:
    """The severity whose drop stands for the probe: 3, or else the highest that was run."""
    return USUAL if USUAL in severities else max(severities)


Cells = dict[str, Drawn]
"""What a probe adds to its family, as drawn: "primary", and its cells by "severity NUMBER" or by the name of a member."""


def measure(tally: Tally, entry: Probe) -> tuple[Facts, Cells]:
    """The row of a probe in report.json, without what its family adds, and its numbers as drawn."""
    if entry.measure or entry.elsewhere:
        return (shape_bias if entry.measure else target_domain)(tally, entry)
    return (_aggregate if entry.members else _probe)(tally, entry)


def _probe(tally: Tally, entry: Probe) -> tuple[Facts, Cells]:
    steps = tally.plan.severities[entry.name]
    chosen = primary(steps)
    replicates = int(tally.plan.params[entry.name]["bootstraps"])
    cells, drawn = [], Cells()
    for severity in steps:
        condition, reference = Condition(entry.images, severity), reference_of(entry, severity)
        found, drawn[f"severity {severity}"] = tally.drop(reference, condition, replicates)
        cells.append({"severity": severity, **found})
    drawn["primary"] = drawn[f"severity {chosen}"]
    condition, reference = Condition(entry.images, chosen), reference_of(entry, chosen)
    items = tally.shared(reference, condition)
    before = tally.table(reference, items)
    row: Facts = {
        "family": entry.family,
        "degrees": entry.degrees,
        "about": entry.about,
        "primary": {**next(cell for cell in cells if cell["severity"] == chosen), "severity": chosen},
        "severities": [{name: each for name, each in cell.items() if name != "p"} for cell in cells],
        "n": len(items),
        "reference": {"name": entry.reference, "value": defined(before.metric()) if items else None},
        **tally.class_drops(items, reference, [condition], replicates),
        "notes": _notes(tally, entry, chosen, len(items)),
    }
    row |= _worst(tally, items, [reference, condition], lambda each: {"drop": each[reference] - each[condition]}, replicates)
    if measured := tally.measured(condition):
        row["measured"] = measured
    return row, drawn


def _aggregate(tally: Tally, entry: Probe) -> tuple[Facts, Cells]:
    """Like ``_probe`` for a probe that stands for several, with the means of Michaelis et al. (2019).

    mPC = mean over the members of the mean over the severities run; rPC = mPC / clean, from the same draws; photometric
    ones leave out members that move pixels.  All on the images that are sound under every condition.
    """
    steps = tally.plan.severities[entry.name]
    by_step = {severity: scored(entry, severity) for severity in steps}
    conditions = list(dict.fromkeys(each for members in by_step.values() for each in members))
    items = tally.shared(CLEAN, *conditions)
    replicates = int(tally.plan.params[entry.name]["bootstraps"])
    still = [name for name in entry.members if not PROBES[name].moves]

    def make(found: Mapping[Condition, Dual]) -> dict[str, Dual]:
        clean, members = (
            found[CLEAN],
            {name: Dual.mean([found[each] for each in conditions if each.probe == name]) for name in entry.members},
        )
        means = {"": Dual.mean(list(members.values()))} | ({"photometric_": Dual.mean([members[name] for name in still])} if still else {})
        values = {f"severity {step}": Dual.mean([found[each] for each in wanted]) for step, wanted in by_step.items()}
        values |= members | {"primary": means[""]}
        return (
            {f"{kind}mPC": mean for kind, mean in means.items()}
            | {f"{kind}rPC": mean / clean for kind, mean in means.items()}
            | {name: clean - value for name, value in values.items()}
        )

    made = tally.numbers(items, [CLEAN, *conditions], make, replicates) if items else {}
    tables = {each: tally.table(each, items) for each in (CLEAN, *conditions)} if items else {}
    clean = tables[CLEAN].metric() if items else np.nan

    def facts(name: str) -> Facts:
        number = made.get(name, UNDEFINED)
        return {"value": defined(clean - number.value), "drop": defined(number.value), **tally.told(number, items)}

    def mean(name: str) -> Facts:
        number = made.get(name, UNDEFINED)
        found = told(number, tally.units(items))  # a ratio may lie above 1
        return {"value": defined(number.value), **{key: each for key, each in found.items() if key != "p"}}

    row: Facts = {
        "family": entry.family,
        "degrees": entry.degrees,
        "about": entry.about,
        "primary": {**facts("primary"), "severity": None},
        "severities": [{"severity": step} | {key: each for key, each in facts(f"severity {step}").items() if key != "p"} for step in steps],
        "n": len(items),
        "reference": {"name": entry.reference, "value": defined(clean)},
        **tally.class_drops(items, CLEAN, conditions, replicates),
        "means": {f"{kind}{name}": mean(f"{kind}{name}") for name in ("mPC", "rPC") for kind in ("", "photometric_")},
        "members": {name: {key: each for key, each in facts(name).items() if key != "p"} for name in entry.members},
        "notes": _aggregate_notes(tally, entry, steps),
    }
    row |= _worst(tally, items, [CLEAN, *conditions], lambda found: {"drop": make(found)["primary"]}, replicates)
    cells = ("primary", *(f"severity {step}" for step in steps), *entry.members)
    drawn = {} if tally.few(items) else made
    return row, {name: drawn.get(name, UNDEFINED) for name in cells}


def _worst(tally: Tally, items: Sequence[str], conditions: Sequence[Condition], make: Make, replicates: int) -> Facts:
    """{"groups": {name: {"n", "drop", "ci"}}, "worst": name of the group that loses most}; nothing where no groups were named."""
    named = tally.plan.facts.get("groups")
    if not named:
        return {}
    rows: Facts = {}
    for name in sorted(set(named.values())):
        members = [item for item in items if named.get(item) == name]
        number = tally.numbers(members, conditions, make, replicates)["drop"] if members else UNDEFINED
        told = {key: each for key, each in tally.told(number, members).items() if key != "p"}
        rows[name] = {"n": len(members), "drop": defined(number.value), **told, "small": len(members) < FEW}
    known = {name: row["drop"] for name, row in rows.items() if row["drop"] is not None}
    return {"groups": rows, "worst": max(known, key=known.__getitem__) if known else None}


def _aggregate_notes(tally: Tally, entry: Probe, severities: Sequence[int]) -> list[str]:
    ran = f"severity {severities[0]}" if len(severities) == 1 else f"severities {', '.join(map(str, severities))}"
    notes = [f"the primary number is the mean over {len(entry.members)} probes of their means over {ran}"]
    if moving := [name for name in entry.members if PROBES[name].moves]:
        notes.append(f"photometric: without {' and '.join(moving)}, which move pixels while the labels stay")
    changed: dict[str, list[str]] = {}
    for name in entry.members:
        for key, setting in tally.plan.params[name].items():
            if key not in COMMON and setting != PROBES[name].defaults[key]:
                changed.setdefault(f"{key}={setting}", []).append(name)
    told = "; ".join(f"{setting} for {', '.join(names)}" for setting, names in changed.items())
    return [*notes, f"not the published benchmark: {told}" if told else "constants as published"]


def reference_of(entry: Probe, severity: int) -> Condition:
    """The condition a probe is compared with."""
    return CLEAN if entry.reference == CLEAN.probe else Condition(entry.reference, severity)


def _notes(tally: Tally, entry: Probe, severity: int, n: int) -> list[str]:
    notes = [f"the primary number is that of severity {severity}"] if entry.degrees else []
    if entry.moves and tally.plan.params[entry.name].get("labels") != "moved":
        notes.append("pixels move while the labels stay, so a part of the drop is misplaced truth")
    subset = tally.plan.params[entry.name].get("subset")
    if subset is not None and subset < len(tally.plan.members[CLEAN.probe]):
        notes.append(f"on {n} images drawn at random by seed {tally.plan.seed}, against clean ones of the same {n}")
    notes += attack_notes(entry, tally.plan.params[entry.name])
    if "donors" in entry.needs:
        by = tally.plan.params[entry.name]["by"]
        said = "the model sees in it" if by == "model" else "its label says"
        notes.append(f"scored on the objects alone; a background counts as of the class that {said} (by={by})")
    return notes
