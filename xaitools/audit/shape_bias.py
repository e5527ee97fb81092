"""The row of a probe that reports a shape bias: by which of two cues a model decides, where it decides by either."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import METRIC, interval
from ..metrics.accuracy import defined
from ..probes import Probe
from .plan import CLEAN, scored

if TYPE_CHECKING:
    from .tally import Tally


def shape_bias(tally: Tally, entry: Probe) -> dict[str, Any]:
    """A row of report.json with ``"measure": "shape_bias"``, whose ``primary.value`` is the bias and whose drops are None.

    ``means`` holds ``shape_bias`` = shape / (shape + texture), ``shape``, ``texture``, and, of single decisions, ``decided`` = shape +
    texture, each with value and 95 % interval; all from the same draws of images.  The bias hides how many answers were neither.

    Of stimuli (Geirhos et al. 2019) shape and texture are shares of the answers, ``n`` counts pictures whose cues conflict.  Of a
    probe with two members they are the metric under the first, which takes texture away, and under the second, which shuffles
    what shape there is inside.  The ratio of the two is the same if each is divided by the clean metric first.  Where we differ from
    Heinert et al. (2025): they change whole images, we the inside of objects.  Outlines and background stay under both, so a model
    that goes by outlines has about 0.5, and 0 and 1 are hardly reached.
    """
    cells, means, n = [], dict[str, Any](), 0
    steps = tally.plan.severities[entry.name]
    chosen = 3 if 3 in steps else max(steps)
    for severity in steps:
        sides = scored(entry, severity)
        shape, texture = sides if entry.members else (CLEAN, *sides)
        items = tally.shared(CLEAN, shape, texture)
        weights = tally.weights(items, int(tally.plan.params[entry.name]["bootstraps"]))
        by_shape, by_texture = (
            np.r_[table.metric(), table.metric(weights)] for table in (tally.table(each, items) for each in (shape, texture))
        )
        found = _numbers(by_shape, by_texture, decisions=not entry.members)
        facts = {name: {"value": defined(float(each[0])), "ci": interval(each[1:])} for name, each in found.items()}
        cells.append({"severity": severity, "value": facts["shape_bias"]["value"], "drop": None, "ci": None})
        if severity == chosen:
            means, n = facts, len(items)
    members = {each.probe: {**tally.drop(CLEAN, each)} for each in scored(entry, chosen)} if entry.members else {}
    return {
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
        **({"members": {name: {key: each[key] for key in ("value", "drop", "ci")} for name, each in members.items()}} if members else {}),
        "notes": _notes(tally, entry, means, n),
    }


def _numbers(shape: NDArray, texture: NDArray, decisions: bool) -> dict[str, NDArray]:
    both = shape + texture
    bias = np.where(both > 0, shape / np.where(both > 0, both, 1), np.nan)
    return {"shape_bias": bias, "shape": shape, "texture": texture, **({"decided": both} if decisions else {})}


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
