"""The content of report.json: what a tally says of each probe, of each family, and what must be said about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..metrics import METRIC, Table, bands, equivalence, holm, image_weights, needed
from ..metrics.accuracy import defined
from ..metrics.coverage import coverage_in_words, interval_facts
from ..metrics.groups import group_document
from ..metrics.statistics import FEW_CLUSTERS, told_share, within
from ..probes import PROBES, Context
from .attacks import attack_warnings
from .plan import ALWAYS, CLEAN, Condition, Plan, controls, scored
from .records import HALVED
from .tally import Cells, Facts, Tally, measure, primary, reference_of

SMALL = 100
"""Below so many images the report warns of what was measured about intervals (benchmarks/intervals.md)."""

RESOLVE = 0.05


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
    warnings += _halved(tally)
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


def _halved(tally: Tally) -> list[str]:
    """What must be said where memory did not suffice for a batch."""
    rows = [row for each in tally.rows.values() for row in each.values()]
    sizes = [int(row.statistics[HALVED][0]) for row in rows if HALVED in row.statistics]
    if not sizes:
        return []
    return [
        f"memory did not suffice for batches of {tally.plan.batch_size}: {len(sizes)} predictions were made in batches of down to "
        f"{min(sizes)}, so their last digits may differ from those of another run; a smaller batch size avoids it"
    ]


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


def _families(tally: Tally, measured: Mapping[str, tuple[Facts, Cells]]) -> Facts:
    """The declared number of each family, adjusted for the other families; and bands over all cells of a family.

    Adds "band" to every cell and to "primary", "p_holm" to the declared ones, and to each primary whether it is no drop.
    """
    declared, margin = tally.plan.facts["declared"], tally.plan.facts["margin"]
    for family in declared:
        rows = {name: each for name, each in measured.items() if each[0]["family"] == family}
        drawn = [(row, name, number) for row, cells in rows.values() for name, number in cells.items()]
        for (row, name, _), band in zip(drawn, bands([number for *_, number in drawn]), strict=True):
            _cell(row, name)["band"] = within(band)
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
    found = interval_facts(tally.task, len(items), tally.units(items)) | {"margin": tally.plan.facts["margin"]}
    return found | ({"scope": tally.plan.facts["scope"]} if "scope" in tally.plan.facts else {})


def _clean_interval(tally: Tally, items: Sequence[str]) -> Facts:
    number = tally.numbers(items, [CLEAN], lambda each: {"value": each[CLEAN]})["value"]
    return told_share(number, tally.units(items))


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
    row |= {each: dict.fromkeys(row[each]) for each in ("per_class", "per_class_ci") if each in row}
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
        least, most = made["coverage"]
        found.append(
            f"{'intervals are too narrow' if most < 0.94 else 'intervals may be too narrow' if least < 0.95 else 'few images'}: "
            f"with {made['units']} {made['unit']}s, fewer than {SMALL}, "
            f"a 95 % interval held the truth in {coverage_in_words(made)} of simulated samples"
        )
    if "scope" in made:
        found.append(f"neighbouring frames count as one; intervals speak of {made['scope']}")
    return found


def _control_warnings(listed: Mapping[str, Facts], margin: float) -> list[str]:
    found = []
    if listed["identity"]["drop"] not in (0.0, None):
        found.append(
            f"the identity control lost {100 * listed['identity']['drop']:.2g} points; the model is not deterministic, trust no drop here"
        )
    for name, row in listed.items():
        upper = row["ci"] or row.get("range")
        if name != "identity" and upper is not None and upper[1] > margin:
            found.append(
                f"control {name}: a drop of up to {100 * upper[1]:.1f} points cannot be ruled out, although the change should cost nothing"
            )
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
