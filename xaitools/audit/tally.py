"""From records to the report: drops with paired intervals, controls, and everything that must be said about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import METHOD, METRIC, Drawn, Dual, Table, bands, draw, equivalence, holm, image_weights, needed
from ..metrics.accuracy import defined
from ..metrics.coverage import coverage
from ..metrics.groups import SMALL as FEW
from ..metrics.groups import group_document, units_of
from ..metrics.statistics import FEW_CLUSTERS, UNDEFINED
from ..probes import PROBES, Context, Probe
from ..probes.base import COMMON
from .attacks import attack_notes, attack_warnings
from .plan import ALWAYS, CLEAN, Condition, Plan, controls, scored
from .records import MEASURED, SHIFT, Row
from .shape_bias import shape_bias
from .target_domain import target_domain

USUAL = 3
"""The severity that stands for a probe when it was run."""

SMALL = 100
"""Below so many images the report warns of what was measured about intervals (benchmarks/intervals.md)."""

RESOLVE = 0.05

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

    def good(self, condition: Condition) -> dict[str, Row]:
        return {item: row for item, row in self.rows.get(condition, {}).items() if row.reason is None}

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
        units = self.units(items)
        return units is not None and len(set(units)) < FEW_CLUSTERS

    def weights(self, items: Sequence[str], replicates: int) -> NDArray[np.int64]:
        """(B, N) draws; of too few clusters one row a cluster, which holds that alone."""
        units = self.units(items)
        if units is not None and self.few(items):
            return (np.unique(units)[:, None] == np.asarray(units)).astype(np.int64)
        return image_weights(items, seed=self.plan.seed, replicates=replicates, clusters=units)

    def numbers(self, items: Sequence[str], conditions: Sequence[Condition], make: Make, replicates: int = 2000) -> dict[str, Drawn]:
        """What ``make`` makes of the metrics of these conditions, all on the same draws of ``items``."""
        tables = {each: self.table(each, items) for each in conditions}
        return draw(tables, make, self.weights(items, replicates), self.units(items))

    def told(self, number: Drawn, items: Sequence[str]) -> Facts:
        """{"ci", "p"}, or of few clusters no interval but the "range" of what each cluster alone says."""
        if not self.few(items):
            return {"ci": number.interval(), "p": number.p}
        known = number.samples[~np.isnan(number.samples)]
        return {"ci": None, "p": None, "range": [float(known.min()), float(known.max())] if len(known) else None}

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


def make_report(tally: Tally, context: Context) -> Facts:
    """The content of report.json."""
    plan = tally.plan
    clean_items = list(tally.good(CLEAN))
    clean = tally.table(CLEAN, clean_items)
    value, floor = defined(clean.metric()), _floor(tally, clean_items)
    assessable = value is not None and value >= floor
    listed = {name: _control(tally, condition) for name, condition in _controls(plan).items()}
    measured = {entry.name: measure(tally, entry) for entry in plan.probes}
    probes, families = {name: row for name, (row, _) in measured.items()}, _families(tally, measured)
    warnings = [*plan.warnings, *context.warnings]
    warnings += _size_warnings(tally, clean_items, value, floor, assessable)
    warnings += _control_warnings(listed, plan.facts["margin"]) + attack_warnings(tally)
    for name, row in probes.items():
        if not assessable:
            _withdraw(row)
            families[row["family"]] = dict.fromkeys(families[row["family"]]) | {"probe": families[row["family"]]["probe"]}
        elif "measure" not in row:
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
        "intervals": _intervals(tally, clean_items),
        "clean": {
            "value": value,
            **_clean_interval(tally, clean_items),
            "chance": floor / 2 if floor > 0.05 else None,
            "per_class": clean.per_class(),
        },
        "controls": listed,
        "probes": probes,
        "families": families,
        **_groups(tally, clean_items),
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
    found, _ = tally.drop(reference, condition)
    kept = {name: each for name, each in found.items() if name not in ("value", "p")}
    return {**kept, "n": len(tally.shared(reference, condition)), "severity": condition.severity}


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
        "per_class": _per_class(before, tally.table(condition, items)) if items else {},
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
        return {"value": defined(number.value), **{key: each for key, each in tally.told(number, items).items() if key != "p"}}

    classes = [_per_class(tables[CLEAN], tables[each]) for each in conditions] if items else []
    row: Facts = {
        "family": entry.family,
        "degrees": entry.degrees,
        "about": entry.about,
        "primary": {**facts("primary"), "severity": None},
        "severities": [{"severity": step} | {key: each for key, each in facts(f"severity {step}").items() if key != "p"} for step in steps],
        "n": len(items),
        "reference": {"name": entry.reference, "value": defined(clean)},
        "per_class": {name: _mean_known([each[name] for each in classes]) for name in (classes[0] if classes else {})},
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


def _families(tally: Tally, measured: Mapping[str, tuple[Facts, Cells]]) -> Facts:
    """The declared number of each family, adjusted for the other families; and bands over all cells of a family.

    Adds "band" to every cell and to "primary", "p_holm" to the declared ones, and to each primary whether it is no drop.
    """
    declared, margin = tally.plan.facts["declared"], tally.plan.facts["margin"]
    for family in declared:
        rows = {name: each for name, each in measured.items() if each[0]["family"] == family}
        drawn = [(row, name, number) for row, cells in rows.values() for name, number in cells.items()]
        for (row, name, _), band in zip(drawn, bands([number for *_, number in drawn]), strict=True):
            _cell(row, name)["band"] = band
        for row, cells in rows.values():
            row["primary"] |= equivalence(cells["primary"], margin) | ({"says": "too few clusters"} if "range" in row["primary"] else {})
            if "measure" in row:
                row["primary"]["says"] = "not a drop"
    adjusted = holm([measured[name][0]["primary"]["p"] for name in declared.values()])
    families = {}
    for (family, name), p in zip(declared.items(), adjusted, strict=True):
        first = measured[name][0]["primary"]
        first["p_holm"] = p
        families[family] = {"probe": name} | {key: first[key] for key in ("drop", "ci", "band", "p", "p_holm", "no_drop", "says")}
    return families


def _cell(row: Facts, name: str) -> Facts:
    """The part of a probe's row that a name in its ``Cells`` means."""
    if name == "primary":
        return row["primary"]
    if name in row.get("members", {}):
        return row["members"][name]
    return next(each for each in row["severities"] if f"severity {each['severity']}" == name)


def _intervals(tally: Tally, items: Sequence[str]) -> Facts:
    """How the intervals were made, what they speak of, and how often such intervals held the truth in simulation."""
    units = tally.units(items)
    count = len(items) if units is None else len(set(units))
    found: Facts = {"method": METHOD, "level": 0.95, "unit": "image" if units is None else "cluster", "units": count}
    found["coverage"] = None if tally.few(items) else coverage(tally.task, count, clustered=units is not None)
    found["margin"] = tally.plan.facts["margin"]
    return found | ({"scope": tally.plan.facts["scope"]} if "scope" in tally.plan.facts else {})


def _clean_interval(tally: Tally, items: Sequence[str]) -> Facts:
    number = tally.numbers(items, [CLEAN], lambda each: {"value": each[CLEAN]})["value"]
    return {key: each for key, each in tally.told(number, items).items() if key != "p"}


def _groups(tally: Tally, items: Sequence[str]) -> Facts:
    """The clean metric of each group, as ``evaluate`` has it."""
    named = tally.plan.facts.get("groups")
    if not named:
        return {}

    def make(places: Sequence[int]) -> Table:
        return tally.table(CLEAN, [items[place] for place in places])

    units = tally.units(items)
    weights = image_weights(items, seed=tally.plan.seed, replicates=2000, clusters=units)
    return {"groups": group_document(make, [named.get(item) for item in items], weights, seed=tally.plan.seed, clusters=units)}


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
        cell |= dict.fromkeys(cell.keys() & {"drop", "ci", "p", "range", "band", "ci90", "no_drop", "p_holm"})
        cell |= {"says": "not assessable"} if "says" in cell else {}
    for group in row.get("groups", {}).values():
        group |= dict.fromkeys(group.keys() & {"drop", "ci", "range"})
    for name in (name for name in row.get("means", {}) if name.endswith("rPC")):
        row["means"][name] = {"value": None, "ci": None}
    row["per_class"] = dict.fromkeys(row["per_class"])
    if "measure" in row and "members" in row:  # of stimuli it stands: a model that goes by texture has every label wrong
        row["primary"]["value"] = None
        row["means"] = {name: {"value": None, "ci": None} for name in row["means"]}


def _size_warnings(tally: Tally, items: Sequence[str], value: float | None, floor: float, assessable: bool) -> list[str]:
    found, made = [], _intervals(tally, items)
    if not assessable:
        shown = "undefined" if value is None else f"{value:.3f}"
        found.append(f"not assessable: the clean metric is {shown}, below {floor:.3f} (the larger of 0.05 and twice chance)")
    clusters = tally.plan.facts.get("clusters")
    if clusters is not None and (alone := sum(item not in clusters for item in items)):
        found.append(f"images without a cluster, each drawn by itself: {alone}")
    if made["coverage"] is None:
        found.append(f"only {made['units']} clusters, fewer than {FEW_CLUSTERS}: no interval, but the range over the clusters, each alone")
    elif made["units"] < SMALL:
        low, high = (f"{100 * each:.0f}" for each in made["coverage"])
        held = f"{low} to {high} %" if low != high else f"{low} %"
        found.append(
            f"intervals {'are too narrow' if made['coverage'][1] < 0.94 else 'may be too narrow'}: "
            f"with {made['units']} {made['unit']}s, fewer than {SMALL}, "
            f"a 95 % interval held the truth in {held} of simulated samples"
        )
    if "scope" in made:
        found.append(f"neighbouring frames count as one; intervals speak of {made['scope']}")
    return found


def _control_warnings(listed: Mapping[str, Facts], margin: float) -> list[str]:
    found = []
    if listed["identity"]["drop"] not in (0.0, None):
        found.append(f"the identity control lost {listed['identity']['drop']:.4f}; the model is not deterministic, trust no drop here")
    for name, row in listed.items():
        upper = row["ci"] or row.get("range")
        if name != "identity" and upper is not None and upper[1] > margin:
            found.append(f"control {name}: a drop of up to {upper[1]:.3f} cannot be ruled out, although the change should cost nothing")
    return found


def _undefined_warnings(tally: Tally, name: str, row: Facts) -> list[str]:
    primary = row["primary"]
    if primary["drop"] is not None and (primary["ci"] or primary.get("range")) is not None:
        return []
    if row["n"]:
        return [f"{name}: the interval is undefined; too few images hold the classes"]
    entry = next(each for each in tally.plan.probes if each.name == name)
    compared = [each for severity in tally.plan.severities[name] for each in (*scored(entry, severity), reference_of(entry, severity))]
    reasons = [each.reason for side in compared for each in tally.rows.get(side, {}).values() if each.reason]
    return [f"{name} is undefined: no image could be used ({reasons[0] if reasons else 'none was left'})"]


def _resolution_warnings(probes: Mapping[str, Facts]) -> list[str]:
    """Which probes may have missed a drop of 5 points, and how many images would find it."""
    short = []
    for name, row in probes.items():
        ci, no_drop = row["primary"]["ci"], row["primary"]["no_drop"]
        open_question = ci is not None and not no_drop and ci[0] <= 0 <= ci[1]
        if open_question and (wanted := needed(row["n"], ci, RESOLVE)) > row["n"]:
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
