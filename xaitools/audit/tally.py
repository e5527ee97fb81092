"""From records to the report: drops with paired intervals, controls, and everything that must be said about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import METRIC, Drawn, Table, image_weights, interval, needed, paired_drop
from ..metrics.accuracy import defined
from ..probes import PROBES, Context, Probe
from ..probes.base import COMMON
from .attacks import attack_notes, attack_warnings
from .plan import ALWAYS, CLEAN, Condition, Plan, controls, scored
from .records import MEASURED, Row

USUAL = 3
"""The severity that stands for a probe when it was run."""

SMALL = 100
"""Below so many images, bootstrap intervals are known to be too narrow (probes.md, section 3)."""

RESOLVE = 0.05
MARGIN = 0.03

Facts = dict[str, Any]


class Tally:
    """The rows of a run by condition, and the comparisons between them."""

    def __init__(self, plan: Plan, rows: Sequence[Row]) -> None:
        self.plan = plan
        self.task, self.classes = plan.facts["model"]["task"], plan.facts["model"]["classes"]
        self.rows: dict[Condition, dict[str, Row]] = {}
        for row in rows:
            self.rows.setdefault(Condition(row.condition, row.severity), {})[row.item] = row

    def good(self, condition: Condition) -> dict[str, Row]:
        return {item: row for item, row in self.rows.get(condition, {}).items() if row.reason is None}

    def table(self, condition: Condition, items: Sequence[str]) -> Table:
        rows = self.good(condition)
        return Table(self.task, self.classes, [rows[item].metric for item in items])

    def shared(self, one: Condition, *others: Condition) -> list[str]:
        """Items that are sound under all conditions, in the dataset's order: the rest is left out everywhere."""
        wanted = [self.good(other) for other in others]
        return [item for item in self.good(one) if all(item in each for each in wanted)]

    def weights(self, items: Sequence[str], replicates: int) -> NDArray[np.int64]:
        return image_weights(items, seed=self.plan.seed, replicates=replicates)

    def drop(self, reference: Condition, condition: Condition, replicates: int = 2000) -> Facts:
        """{"value", "drop", "ci", "p"}, all None where no item is sound under both."""
        items = self.shared(reference, condition)
        if not items:
            return {"value": None, "drop": None, "ci": None, "p": None}
        return paired_drop(self.table(reference, items), self.table(condition, items), self.weights(items, replicates))

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


def make_report(tally: Tally, context: Context) -> Facts:
    """The content of report.json."""
    plan = tally.plan
    clean_items = list(tally.good(CLEAN))
    clean = tally.table(CLEAN, clean_items)
    value, floor = defined(clean.metric()), _floor(tally, clean_items)
    assessable = value is not None and value >= floor
    listed = {name: _control(tally, condition) for name, condition in _controls(plan).items()}
    probes = {entry.name: (_aggregate if entry.members else _probe)(tally, entry) for entry in plan.probes}
    warnings = [*plan.warnings, *context.warnings]
    warnings += _size_warnings(len(clean_items), value, floor, assessable)
    warnings += _control_warnings(listed) + attack_warnings(tally)
    for name, row in probes.items():
        if not assessable:
            _withdraw(row)
        else:
            warnings += _undefined_warnings(tally, name, row)
    warnings += _resolution_warnings(probes)
    skipped = _skipped(tally)
    if skipped:
        left_out = len({each["id"] for each in skipped})
        warnings.append(f"images left out of the run or of some condition: {left_out}; they are listed under skipped")
    return {
        "model": plan.facts["model"]["name"],
        "dataset": plan.facts["dataset"]["name"],
        "task": tally.task,
        "n": len(clean_items),
        "skipped": skipped,
        "metric": METRIC[tally.task],
        "clean": {
            "value": value,
            "ci": interval(clean.metric(tally.weights(clean_items, 2000))),
            "chance": floor / 2 if floor > 0.05 else None,
            "per_class": clean.per_class(),
        },
        "controls": listed,
        "probes": probes,
        "warnings": list(dict.fromkeys(warnings)),
        "seed": plan.seed,
        "params": {name: dict(plan.params[name]) for name in sorted(plan.params)},
        "versions": dict(plan.facts["versions"]),
        "plan": plan.identity,
    }


def _controls(plan: Plan) -> dict[str, Condition]:
    """The condition that stands for each control."""
    found = {each.probe: each for each in ALWAYS} | {name: Condition(name, 1) for name in controls(plan.probes)[len(ALWAYS) :]}
    for entry in plan.probes:
        if entry.control:
            found[entry.control] = Condition(entry.control, primary(plan.severities[entry.name]))
    return found


def _control(tally: Tally, condition: Condition) -> Facts:
    reference = reference_of(PROBES[condition.probe], condition.severity)
    found = tally.drop(reference, condition)
    return {"drop": found["drop"], "ci": found["ci"], "n": len(tally.shared(reference, condition)), "severity": condition.severity}


def primary(severities: Sequence[int]) -> int:
    """The severity whose drop stands for the probe: 3, or else the highest that was run."""
    return USUAL if USUAL in severities else max(severities)


def _probe(tally: Tally, entry: Probe) -> Facts:
    steps = tally.plan.severities[entry.name]
    chosen = primary(steps)
    replicates = int(tally.plan.params[entry.name]["bootstraps"])
    cells = []
    for severity in steps:
        condition, reference = Condition(entry.images, severity), reference_of(entry, severity)
        cells.append({"severity": severity, **tally.drop(reference, condition, replicates)})
    condition, reference = Condition(entry.images, chosen), reference_of(entry, chosen)
    items = tally.shared(reference, condition)
    before = tally.table(reference, items)
    row: Facts = {
        "family": entry.family,
        "degrees": entry.degrees,
        "about": entry.about,
        "primary": {**next(cell for cell in cells if cell["severity"] == chosen), "severity": chosen},
        "severities": [{name: cell[name] for name in ("severity", "value", "drop", "ci")} for cell in cells],
        "n": len(items),
        "reference": {"name": entry.reference, "value": defined(before.metric()) if items else None},
        "per_class": _per_class(before, tally.table(condition, items)) if items else {},
        "notes": _notes(tally, entry, chosen, len(items)),
    }
    if measured := tally.measured(condition):
        row["measured"] = measured
    return row


def _aggregate(tally: Tally, entry: Probe) -> Facts:
    """Like ``_probe`` for a probe that stands for several, with the means of Michaelis et al. (2019).

    mPC = mean over the members of the mean over the severities run; rPC = mPC / clean, from the same draws; photometric
    ones leave out members that move pixels.  All on the images that are sound under every condition.
    """
    steps = tally.plan.severities[entry.name]
    by_step = {severity: scored(entry, severity) for severity in steps}
    conditions = list(dict.fromkeys(each for members in by_step.values() for each in members))
    items = tally.shared(CLEAN, *conditions)
    tables = {each: tally.table(each, items) for each in (CLEAN, *conditions)} if items else {}
    weights = tally.weights(items, int(tally.plan.params[entry.name]["bootstraps"]))
    drawn = {each: Drawn.of(table, weights) for each, table in tables.items()}
    clean = drawn.get(CLEAN, _NOTHING)

    def mean(wanted: Sequence[Condition]) -> Drawn:
        return Drawn.mean([drawn[each] for each in wanted]) if items and wanted else _NOTHING

    members = {name: mean([each for each in conditions if each.probe == name]) for name in entry.members}
    still = [number for name, number in members.items() if not PROBES[name].moves]
    means = {"": Drawn.mean(list(members.values())), "photometric_": Drawn.mean(still) if still else _NOTHING}
    cells = [{"severity": severity, **clean.drop(mean(by_step[severity]))} for severity in steps]
    classes = [_per_class(tables[CLEAN], tables[each]) for each in conditions] if items else []
    return {
        "family": entry.family,
        "degrees": entry.degrees,
        "about": entry.about,
        "primary": {**clean.drop(means[""]), "severity": None},
        "severities": [{name: cell[name] for name in ("severity", "value", "drop", "ci")} for cell in cells],
        "n": len(items),
        "reference": {"name": entry.reference, "value": clean.facts()["value"]},
        "per_class": {name: _mean_known([each[name] for each in classes]) for name in (classes[0] if classes else {})},
        "means": {f"{kind}mPC": number.facts() for kind, number in means.items()}
        | {f"{kind}rPC": number.share(clean).facts() for kind, number in means.items()},
        "members": {name: {key: each for key, each in clean.drop(number).items() if key != "p"} for name, number in members.items()},
        "notes": _aggregate_notes(tally, entry, steps),
    }


_NOTHING = Drawn(np.nan, np.full(1, np.nan))


def _mean_known(numbers: Sequence[float | None]) -> float | None:
    known = [each for each in numbers if each is not None]
    return float(np.mean(known)) if known else None


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


def _per_class(before: Table, after: Table) -> dict[str, float | None]:
    pairs = {name: (value, after.per_class()[name]) for name, value in before.per_class().items()}
    return {name: None if one is None or two is None else one - two for name, (one, two) in pairs.items()}


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


def _floor(tally: Tally, items: Sequence[str]) -> float:
    """The least clean metric on which drops mean anything: twice chance, at least 0.05."""
    return max(0.05, 2 * _chance(tally, items))


def _chance(tally: Tally, items: Sequence[str]) -> float:
    """The metric of classes guessed at random, all equally often; 0 for boxes, which are never hit by chance."""
    classes = len(tally.classes)
    if tally.task == "classification":
        return 1 / classes
    if tally.task != "segmentation" or not items:
        return 0.0
    rows = tally.good(CLEAN)
    truth = sum(rows[item].statistics["confusion"].reshape(classes, classes).sum(1) for item in items).astype(float)  # type: ignore[union-attr]
    share = truth[truth > 0] / truth.sum()
    return float((share / classes / (share + 1 / classes - share / classes)).mean()) if len(share) else 0.0


def _withdraw(row: Facts) -> None:
    """Every drop becomes undefined: there is nothing to lose from."""
    for cell in (row["primary"], *row["severities"], *row.get("members", {}).values()):
        cell |= {name: None for name in ("drop", "ci", "p") if name in cell}
    for name in (name for name in row.get("means", {}) if name.endswith("rPC")):
        row["means"][name] = {"value": None, "ci": None}
    row["per_class"] = dict.fromkeys(row["per_class"])


def _size_warnings(n: int, value: float | None, floor: float, assessable: bool) -> list[str]:
    found = []
    if not assessable:
        shown = "undefined" if value is None else f"{value:.3f}"
        found.append(f"not assessable: the clean metric is {shown}, below {floor:.3f} (the larger of 0.05 and twice chance)")
    if n < SMALL:
        found.append(f"intervals are too narrow: with {n} images, fewer than {SMALL}, a 95 % interval covers less than it says")
    return found


def _control_warnings(listed: Mapping[str, Facts]) -> list[str]:
    found = []
    if listed["identity"]["drop"] not in (0.0, None):
        found.append(f"the identity control lost {listed['identity']['drop']:.4f}; the model is not deterministic, trust no drop here")
    for name, row in listed.items():
        if name != "identity" and row["ci"] is not None and row["ci"][1] > MARGIN:
            found.append(f"control {name}: a drop of up to {row['ci'][1]:.3f} cannot be ruled out, although the change should cost nothing")
    return found


def _undefined_warnings(tally: Tally, name: str, row: Facts) -> list[str]:
    primary = row["primary"]
    if primary["drop"] is not None and primary["ci"] is not None:
        return []
    if row["n"]:
        return [f"{name}: the interval is undefined; too few images hold the classes"]
    entry = next(each for each in tally.plan.probes if each.name == name)
    compared = [each for severity in tally.plan.severities[name] for each in (*scored(entry, severity), reference_of(entry, severity))]
    reasons = [each.reason for side in compared for each in tally.rows.get(side, {}).values() if each.reason]
    return [f"{name} is undefined: no image could be used ({reasons[0] if reasons else 'none was left'})"]


def _resolution_warnings(probes: Mapping[str, Facts]) -> list[str]:
    """Which probes could have missed a drop of 5 points, and how many images would find it."""
    short = []
    for name, row in probes.items():
        if row["primary"]["ci"] is not None and (wanted := needed(row["n"], row["primary"]["ci"], RESOLVE)) > row["n"]:
            short.append(f"{name} ({wanted} instead of {row['n']})")
    return [f"too few images to resolve a drop of 5 points in {', '.join(short)}"] if short else []


def _skipped(tally: Tally) -> list[Facts]:
    """Items left out: once if they cannot be read or predicted at all, else with the condition."""
    listed = []
    broken = {item for item, row in tally.rows.get(CLEAN, {}).items() if row.reason is not None}
    for condition, rows in tally.rows.items():
        for item, row in rows.items():
            if row.reason is not None and (condition == CLEAN or item not in broken):
                where = {} if condition == CLEAN else {"condition": condition.name}
                listed.append({"id": item, "reason": row.reason, **where})
    return listed
