"""The row of a probe whose images are those of another dataset: a drop between two independent samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import UNDEFINED, Drawn, Table, draw, image_weights
from ..metrics.accuracy import UNKNOWN, defined
from ..probes import Probe
from .plan import CLEAN, Condition

if TYPE_CHECKING:
    from .tally import Tally


def target_domain(tally: Tally, entry: Probe) -> tuple[dict[str, Any], dict[str, Drawn]]:
    """A row of report.json like that of any probe, whose ``value`` and ``n_elsewhere`` are of the other dataset's images, while
    ``reference`` and ``n`` are of this one's unchanged images.

    Both are measured on the classes that have truth on both sides; ``one_side`` lists the others.  Each side is drawn by itself,
    so nothing cancels: the interval is wider than that of a change of the same images.
    """
    condition, (seed, replicates) = Condition(entry.images, 1), (tally.plan.seed, int(tally.plan.params[entry.name]["bootstraps"]))
    rows = [{id: row.metric for id, row in tally.good(each).items()} for each in (CLEAN, condition)]
    known = [Table(tally.task, tally.classes, list(side.values())).per_class() for side in rows]
    met = [{name for name, number in side.items() if number is not None} for side in known]
    shared = np.array([name in met[0] & met[1] for name in tally.classes])
    tables = [Table(tally.task, tally.classes, [on_classes(row, shared) for row in side.values()]) for side in rows]
    names = [list(rows[0]), [f"{entry.name}/{id}" for id in rows[1]]]  # another name, other draws
    number = UNDEFINED
    if shared.any():
        units = tally.units(names[0])
        here, elsewhere = (
            draw({"": table}, dict, image_weights(ids, seed=seed, replicates=replicates, clusters=together), together)[""]
            for table, ids, together in zip(tables, names, (units, None), strict=True)
        )
        number = here.against(elsewhere)
    before, after = (table.metric() if shared.any() else np.nan for table in tables)
    told = tally.told(number, names[0])
    if tally.few(names[0]):  # a range would be one over the clusters of one side alone
        number, told = UNDEFINED, {"ci": None, "p": None, "range": None}
    drop = {"value": defined(float(after)), "drop": defined(float(before - after)), **told}
    per_class = [table.per_class() for table in tables]
    pairs = {name: (number, per_class[1][name]) for name, number in per_class[0].items()}
    sides = {"here": sorted(met[0] - met[1]), "elsewhere": sorted(met[1] - met[0])}
    row = {
        "family": entry.family,
        "degrees": entry.degrees,
        "about": entry.about,
        "primary": {**drop, "severity": 1},
        "severities": [{"severity": 1} | {name: each for name, each in drop.items() if name != "p"}],
        "n": len(rows[0]),
        "n_elsewhere": len(rows[1]),
        "one_side": sides,
        "reference": {"name": entry.reference, "value": defined(float(before))},
        "per_class": {name: None if one is None or two is None else one - two for name, (one, two) in pairs.items()},
        "notes": _notes(tally, entry, sides, int(shared.sum()), len(rows[1])),
        **({"groups": {}, "worst": None} if tally.plan.facts.get("groups") else {}),
    }
    return row, {"primary": number, "severity 1": number}


def on_classes(row: Mapping[str, NDArray[Any]], keep: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """The statistics of one image (see ``image_statistics``) without the truth of the classes that are not to ``keep`` (K,) bool."""
    found = dict(row)
    if "confusion" in row:
        found["confusion"] = np.where(keep[:, None], row["confusion"].reshape(len(keep), len(keep)), 0).ravel()
    elif "positives" in row:
        found["positives"] = np.where(keep, row["positives"], 0)
    else:
        found["label"] = np.where((row["label"] >= 0) & keep[row["label"]], row["label"], UNKNOWN)
    return found


def _notes(tally: Tally, entry: Probe, sides: Mapping[str, list[str]], shared: int, n: int) -> list[str]:
    name = tally.plan.facts["elsewhere"][entry.name]["name"]
    notes = [
        f"{n} images of {name} against the unchanged ones here: other images, so the interval is that of two independent samples",
        "what differs may be more than the look: how hard the scenes are, how large the objects, how they were annotated",
    ]
    left = [f"{', '.join(names)} ({'here' if side == 'here' else 'there'} alone)" for side, names in sides.items() if names]
    notes.append(f"on the {shared} classes with truth on both sides{'; left out: ' + '; '.join(left) if left else ''}")
    return notes
