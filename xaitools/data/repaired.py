"""A dataset as a list of repairs says: places painted over, items left out, the others drawn by their weight.

The list is the ``repair.csv`` of ``xaitools repair``: a line for each item and artefact, of which these columns count here

  id      an item; one that is not listed stays as it is
  action  mask: the box is painted over, but for what of an object lies in it; drop: the item is left out; weight, keep: neither
  weight  how often the item is drawn, in multiples of the others; the same in all lines of an item
  left, top, right, bottom   the box of a mask, in whole pixels
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..files import read_csv
from ..types import Sample
from .base import Dataset
from .fill import fill
from .present import objects

ACTIONS = ("mask", "drop", "weight", "keep")
COLUMNS = ("id", "action", "weight", "left", "top", "right", "bottom")
MOST = 1000.0
"""Largest weight of an item."""

SIDE = 1_000_000
"""No image has so many pixels a side."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Entry:
    """What becomes of one item: the boxes (xyxy in pixels) that are painted over, whether it is left out, its weight."""

    boxes: tuple[Box, ...] = ()
    dropped: bool = False
    weight: float = 1.0


class Repaired:
    """``whole`` with its items as ``entries`` say; those without one stay as they are.

    Where weights differ, as many items as are left are drawn in proportion to them, each as often as its share says or once
    more (systematic resampling, by ``seed``); drawn again, an item has " x2" behind its id, and so on.

    Raises DataError where nothing is left, and for an item whose box leaves its image.
    """

    def __init__(self, whole: Dataset, entries: Mapping[str, Entry], *, seed: int = 0) -> None:
        self.name, self.task, self.classes = f"{whole.name}, repaired", whole.task, whole.classes
        self.semantic_classes, self.things = whole.semantic_classes, whole.things
        self._whole, self._entries = whole, {id: each for id, each in entries.items() if each != Entry()}
        kept = [index for index, id in enumerate(whole.ids) if not self._entry(id).dropped]
        weights = np.array([self._entry(whole.ids[index]).weight for index in kept])
        if not weights.sum() > 0:
            raise DataError(f"{whole.name}: its repair leaves no item; drop fewer, or paint over")
        self._indices = kept if np.ptp(weights) == 0 else [kept[place] for place in drawn(weights, seed).tolist()]
        self._things = [index for index, name in enumerate(whole.semantic_classes) if name in whole.things]
        self.ids = _numbered([whole.ids[index] for index in self._indices])

    def _entry(self, id: str) -> Entry:
        return self._entries.get(id, Entry())

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        place = self._indices[index]
        sample, boxes = self._whole[place], self._entry(self._whole.ids[place]).boxes
        image = painted(sample, boxes, self._things) if boxes else sample.image
        return replace(sample, id=self.ids[index], image=image)


def painted(sample: Sample, boxes: Sequence[Box], things: Sequence[int]) -> Tensor:
    """The image (3, H, W) with ``boxes`` painted over (see ``fill``), but for what of its objects lies in them.

    ``things`` are the semantic classes that are objects.  Raises DataError for a box that leaves the image.
    """
    height, width = sample.image.shape[-2:]
    hole = torch.zeros(height, width, dtype=torch.bool)
    for box in boxes:
        left, top, right, bottom = box
        if right > width or bottom > height:
            raise DataError(f"{sample.id}: the repair's box {box} leaves its image of {width} x {height} pixels; make the list again")
        hole[top:bottom, left:right] = True
    keep = covered(sample, things)
    hole &= ~keep
    return fill(sample.image, hole, keep) if bool(hole.any()) else sample.image


def covered(sample: Sample, things: Sequence[int]) -> Tensor:
    """(H, W) bool: where its objects are; nowhere where nobody says."""
    nothing = torch.zeros(sample.image.shape[-2:], dtype=torch.bool)
    try:
        masks = objects(sample, things).masks
    except DataError:
        return nothing
    return masks.any(0) if len(masks) else nothing


def drawn(weights: np.ndarray, seed: int) -> np.ndarray:
    """So many places as there are weights, each floor or ceil of its share of them times: systematic resampling (Kitagawa 1996).

    >>> drawn(np.array([1.0, 3.0, 0.0, 0.0]), seed=0).tolist()
    [0, 1, 1, 1]
    """
    marks = (np.random.default_rng(seed).random() + np.arange(len(weights))) / len(weights)
    ends = np.cumsum(weights / weights.sum())
    ends[np.flatnonzero(weights)[-1] :] = 1.0  # the sum is rounded
    return np.searchsorted(ends, marks, side="right")


def _numbered(ids: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    found = []
    for id in ids:
        seen[id] = seen.get(id, 0) + 1
        found.append(id if seen[id] == 1 else f"{id} x{seen[id]}")
    return found


def read_repair(path: str | Path, ids: Sequence[str]) -> dict[str, Entry]:
    """What a list says of each item in it; ``ids`` are all that there may be.

    Raises DataError in one line for a file that is none, an unknown id or action, and what is not a number or no box.
    """
    (_, heads), *rows = read_csv(path, f"'{','.join(COLUMNS)}'")
    if missing := [name for name in COLUMNS if name not in heads]:
        raise DataError(f"{path}: its first line lacks {', '.join(missing)}; expected the repair.csv of xaitools repair")
    known, found = set(ids), dict[str, Entry]()
    for number, cells in rows:
        where = f"{path}, line {number}"
        if len(cells) != len(heads):
            raise DataError(f"{where}: {len(cells)} columns, expected {len(heads)} as in the first line; correct the line")
        row = dict(zip(heads, cells, strict=True))
        # a spreadsheet's formulas were quoted when the list was written
        id = row["id"] if row["id"] in known else row["id"].removeprefix("'")
        if id not in known:
            raise DataError(f"{where}: {row['id'][:60]!r} is no item of the data; ids look like {ids[0] if ids else ''!r}")
        if row["action"] not in ACTIONS:
            raise DataError(f"{where}: action {row['action'][:60]!r}; expected {', '.join(ACTIONS)}")
        weight = _number(row["weight"], MOST, where, "weight")
        before = found.get(id, Entry(weight=weight))
        if before.weight != weight:
            raise DataError(f"{where}: {id[:60]!r} has weight {weight:g} here and {before.weight:g} above; an item has one weight")
        boxes = (*before.boxes, _box(row, where)) if row["action"] == "mask" else before.boxes
        found[id] = Entry(boxes, before.dropped or row["action"] == "drop", weight)
    return found


def _number(text: str, most: float, where: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:
        raise DataError(f"{where}: {what} {text[:60]!r}; expected a number from 0 to {most:g}")
    return value


def _box(row: Mapping[str, str], where: str) -> Box:
    edges = [_number(row[name], SIDE, where, name) for name in COLUMNS[3:]]
    left, top, right, bottom = (int(edge) for edge in edges)
    if [left, top, right, bottom] != edges or left >= right or top >= bottom:
        raise DataError(f"{where}: box {left} {top} {right} {bottom}; expected whole pixels left < right and top < bottom")
    return left, top, right, bottom
