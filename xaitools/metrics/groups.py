"""Groups and clusters of images: the worst group (Sagawa et al. 2020), and which images stand or fall together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import read_csv
from .accuracy import Number, Table
from .ratios import Floats, defined
from .statistics import draw, told_share

SMALL = 10
"""Below so many items a group's number says little."""

SHUFFLES = 200

ITEM = re.compile(r"(item|image|sample|file|frame)?[ _-]?(ids?|names?)?|items?|images?|files?|samples?", re.IGNORECASE)

Columns = dict[str, dict[str, str]]


def read_columns(path: str | Path, ids: Sequence[str]) -> Columns:
    """The columns of a CSV file behind the first one, which holds item ids: {name: {id: value}}; empty cells are left out.

    A first line whose first cell reads like "item" or "image id" and is no id names the columns; else they are called
    group, 2, 3, ...  Raises DataError in one line for ids that the data does not have, or that stand there twice.
    """
    known, path = set(ids), Path(path).expanduser()
    rows = read_csv(path, "'item id, group'")
    head = rows[0][1]
    if head[0] not in known and ITEM.fullmatch(head[0]):
        names, rows = [name or str(place) for place, name in enumerate(head[1:], 1)], rows[1:]
    else:
        names = ["group", *map(str, range(2, len(head)))]
    if not names or len(set(names)) < len(names):
        raise DataError(
            f"{path}: {len(names)} columns behind the item id, called {', '.join(names) or 'nothing'}; expected 'item id, group'"
        )
    strange = [cells[0] for _, cells in rows if cells[0] not in known]
    if strange:
        raise DataError(f"{path}: {len(strange)} ids that the data does not have, the first {strange[0][:60]!r}; ids look like {ids[0]!r}")
    columns: Columns = {name: {} for name in names}
    seen: set[str] = set()
    for number, cells in rows:
        if len(cells) != len(names) + 1:
            raise DataError(f"{path}, line {number}: {len(cells)} columns, expected {len(names) + 1}; correct the line")
        if cells[0] in seen:
            raise DataError(f"{path}, line {number}: {cells[0][:60]!r} stands there twice; an item has one group")
        seen.add(cells[0])
        for name, value in zip(names, cells[1:], strict=True):
            if value:
                columns[name][cells[0]] = value
    return columns


def groups_of(columns: Columns) -> dict[str, str]:
    """The column called group, else the first."""
    return next((values for name, values in columns.items() if name.casefold() == "group"), next(iter(columns.values())))


def clusters_of(text: str, ids: Sequence[str], columns: Columns | None = None) -> dict[str, str]:
    """The cluster of each item that has one: ``text`` is a column of the groups file, or a regular expression whose one
    group, found anywhere in the id, names the cluster.

    >>> clusters_of("^(.+?)_", ["0016E5_07961", "0016E5_07963", "Seq05VD_f00030"])
    {'0016E5_07961': '0016E5', '0016E5_07963': '0016E5', 'Seq05VD_f00030': 'Seq05VD'}
    """
    if columns and text in columns:
        return columns[text]
    have = f"a column of the groups file ({', '.join(columns)})" if columns else "a column of --groups FILE.csv"
    try:
        pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise DataError(f"cluster {text[:60]!r} is not {have}, and no regular expression ({error}); write e.g. '^(.+?)_'") from None
    if pattern.groups != 1:
        raise DataError(f"cluster {text[:60]!r} is not {have}, and has {pattern.groups} groups as a regular expression, expected one")
    found = {id: match[1] for id in ids if (match := pattern.search(id)) and match[1] is not None}
    if not found:
        raise DataError(
            f"cluster {text[:60]!r} matches none of {len(ids)} ids, the first is {next(iter(ids), '')!r}; correct the expression"
        )
    return found


def declared_clusters(dataset: Any) -> Mapping[str, str] | None:
    """Which items stand or fall together by what the dataset itself knows, its ``clusters``; None where it knows nothing."""
    return getattr(dataset, "clusters", None) or None


def units_of(ids: Sequence[str], clusters: Mapping[str, str] | None) -> list[str] | None:
    """What the bootstrap draws for each item: its cluster, or the item itself where it has none; None where all are items.

    >>> units_of(["a", "b"], {"a": "x"})
    ['cluster x', 'image b']
    """
    return None if clusters is None else [f"cluster {clusters[id]}" if id in clusters else f"image {id}" for id in ids]


def group_document(
    make: Callable[[Sequence[int]], Table],
    groups: Sequence[str | None],
    weights: NDArray,
    *,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The metric of each group, the worst, and the gap to the best, with intervals by ``weights`` (B, N).

    ``make`` gives the table of some of the N images; ``groups`` (N,) has None where an image has no group.  The
    interval of the gap is that of these two groups, which were chosen as the extremes of the same images: some gap
    appears between any groups.  So ``gap_random`` is the mean gap when the names are dealt out at random, and ``p``
    how often such a gap is at least as large.  With ``clusters`` (N,) the names are dealt to whole clusters; both are
    None where a cluster has several groups.
    """
    names = sorted({name for name in groups if name is not None})
    members = {name: [place for place, each in enumerate(groups) if each == name] for name in names}
    tables = {name: make(members[name]) for name in names}
    placed = {name: Number(len(groups), partial(_placed, tables[name], members[name])) for name in names}
    drawn = draw(placed, dict, weights, clusters)
    rows = {
        name: {"n": len(members[name]), "value": defined(tables[name].metric()), "ci": told_share(drawn[name], None)["ci"],
               "small": len(members[name]) < SMALL}
        for name in names
    }  # fmt: skip
    values = {name: value for name in names if (value := defined(tables[name].metric())) is not None}
    found: dict[str, Any] = {"worst": None, "best": None, "gap": None, "gap_ci": None, "gap_random": None, "p": None}
    if values:
        worst, best = (choose(values, key=values.__getitem__) for choose in (min, max))
        found |= {"worst": worst, "best": best}
    if len(values) > 1:
        gap = draw({name: placed[name] for name in (worst, best)}, lambda each: {"": each[best] - each[worst]}, weights, clusters)[""]
        found |= {"gap": values[best] - values[worst], "gap_ci": gap.interval()}
        random = _random_gaps(make, groups, seed, clusters)
        if len(random):
            found["gap_random"] = float(random.mean())
            found["p"] = (1 + int((random >= found["gap"]).sum())) / (1 + len(random))
    return {"per_group": rows, **found, "ungrouped": sum(name is None for name in groups)}


def _placed(table: Table, places: Sequence[int], weights: Floats) -> tuple[Floats, Floats]:
    """What a table of the images at ``places`` makes of ``weights`` (N, B) of all: other images do not move it."""
    values, own = table.influence(weights[places].T)
    moves = np.zeros(weights.shape)
    moves[places] = own.T
    return values, moves


def _random_gaps(make: Callable[[Sequence[int]], Table], groups: Sequence[str | None], seed: int, clusters: Sequence[str] | None) -> Floats:
    """Gaps between groups of the same sizes (in clusters) whose names were dealt out at random; empty where that cannot be."""
    places = [place for place, name in enumerate(groups) if name is not None]
    units, unit = np.unique([str(place) if clusters is None else clusters[place] for place in places], return_inverse=True)
    names, name = np.unique([str(groups[place]) for place in places], return_inverse=True)
    if len({*zip(unit.tolist(), name.tolist(), strict=True)}) > len(units):
        return np.empty(0)
    dealt = np.empty(len(units), int)
    dealt[unit] = name
    generator = np.random.default_rng(seed)
    shuffled = np.stack([generator.permutation(dealt)[unit] for _ in range(SHUFFLES)])
    table = make(places)
    values = np.stack([table.metric((shuffled == index).astype(np.int64)) for index in range(len(names))])
    gaps = values.max(0) - values.min(0)
    return gaps[~np.isnan(gaps)]
