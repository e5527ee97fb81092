"""The row of a probe that reports a shape bias: by which of two cues a model decides, where it decides by either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..metrics import METRIC, UNDEFINED, Drawn, Dual
from ..metrics.accuracy import defined
from ..probes import Probe
from .plan import CLEAN, Condition, scored

if TYPE_CHECKING:
    from .tally import Tally


def shape_bias(tally: Tally, entry: Probe) -> tuple[dict[str, Any], dict[str, Drawn]]:
    """A row of report.json with ``"measure": "shape_bias"``, whose ``primary.value`` is the bias and whose drops are None.

    ``means`` holds ``shape_bias`` = shape / (shape + texture), ``shape``, ``texture``, and, of single decisions, ``decided`` = shape +
    texture, each with value and 95 % interval; all from the same draws of images.  The bias hides how many answers were neither.

    Of stimuli (Geirhos et al. 2019) shape and texture are shares of the answers, ``n`` counts pictures whose cues conflict.  Of a
    probe with two members they are the metric under the first, which takes texture away, and under the second, which shuffles
    what shape there is inside.  The ratio of the two is the same if each is divided by the clean metric first.  Where we differ from
    Heinert et al. (2025): they change whole images, we the inside of objects.  Outlines and background stay under both, so a model
    that goes by outlines has about 0.5, and 0 and 1 are hardly reached.
    """
    cells, means, items = [], dict[str, Any](), list[str]()
    steps, replicates = tally.plan.severities[entry.name], int(tally.plan.params[entry.name]["bootstraps"])
    chosen = 3 if 3 in steps else max(steps)
    drawn = {"primary": UNDEFINED} | {f"severity {severity}": UNDEFINED for severity in steps}
    for severity in steps:
        sides = scored(entry, severity)
        by_shape, by_texture = sides if entry.members else (CLEAN, *sides)
        some = tally.shared(CLEAN, by_shape, by_texture)

        def make(found: Mapping[Condition, Dual], sides: tuple[Condition, Condition] = (by_shape, by_texture)) -> dict[str, Dual]:
            shape, texture = (found[each] for each in sides)
            numbers = {"shape_bias": shape / (shape + texture), "shape": shape, "texture": texture}
            return numbers if entry.members else {**numbers, "decided": shape + texture}

        made = tally.numbers(some, list(dict.fromkeys((by_shape, by_texture))), make, replicates) if some else {}
        facts = {name: _told(tally, made.get(name, UNDEFINED), some) for name in ("shape_bias", "shape", "texture", "decided")}
        cells.append({"severity": severity, "value": facts["shape_bias"]["value"], "drop": None, "ci": None})
        if severity == chosen:
            items, means = some, {name: each for name, each in facts.items() if name != "decided" or not entry.members}
    members = {}
    for each in scored(entry, chosen) if entry.members else ():
        found, drawn[each.probe] = tally.drop(CLEAN, each, replicates)
        members[each.probe] = {name: number for name, number in found.items() if name != "p"}
    n = len(items)
    row = {
        "family": entry.family,
        "degrees": entry.degrees,
        "about": entry.about,
        "measure": "shape_bias",
        "primary": {"value": means["shape_bias"]["value"], "drop": None, "ci": None, "p": None, "severity": chosen},
        "severities": cells,
        "n": n,
        "reference": {"name": entry.reference, "value": None},
        "per_class": {},
        "means": means,
        **({"members": members} if members else {}),
        "notes": _notes(tally, entry, means, n),
        **({"groups": {}, "worst": None} if tally.plan.facts.get("groups") else {}),
    }
    return row, drawn


def _told(tally: Tally, number: Drawn, items: Sequence[str]) -> dict[str, Any]:
    return {"value": defined(number.value)} | {key: each for key, each in tally.told(number, items).items() if key != "p"}


def _notes(tally: Tally, entry: Probe, means: dict[str, Any], n: int) -> list[str]:
    said = "no drop: the number is the shape bias, its interval stands beside it"
    if entry.members:
        shape, texture = entry.members
        return [
            said,
            f"{METRIC[tally.task]} under {shape} over the sum of that and the one under {texture}; outlines and background stay in both, "
            "so a model that goes by outlines has about 0.5; above, shuffling inside of objects costs it more than loss of texture does",
        ]
    notes = [f"{said}; 1 for shape alone, 0 for texture alone"]
    notes.append("a label is that of the shape, so the clean metric of a model that goes by texture is low; the bias does not need it")
    if (decided := means["decided"]["value"]) is not None:
        notes.append(f"{round(decided * n)} of {n} answers were by shape or by texture; the rest was something else and does not count")
    return notes
