"""Truth in the model's words: the classes of a dataset matched by name with those of a model."""

from __future__ import annotations

import csv
import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import DataError, unknown
from ..types import IGNORE, Sample
from .base import Dataset

SERVES = {
    "segmentation": "semantic maps",
    "detection": "boxes",
    "instances": "boxes",
    "classification": "image labels",
}
"""The truth on which a model of each task is measured; masks of instances are used where there are any."""

ALIASES = (
    ("airplane", "aeroplane"),
    ("bicycle", "bike"),
    ("couch", "sofa"),
    ("dining table", "diningtable"),
    ("motorcycle", "motorbike"),
    ("person", "pedestrian"),
    ("potted plant", "pottedplant"),
    ("sidewalk", "pavement"),
    ("traffic light", "trafficlight"),
    ("traffic sign", "trafficsign"),
    ("tv", "tvmonitor", "tv monitor", "tv/monitor", "television", "monitor"),
)
"""Names that different data sets give to one class.  What is less certain is left to a classes map."""

HEADERS = (("model", "data"), ("model class", "data class"))
MAX_MAP_BYTES = 2**20
SHOWN = 8
_CANONICAL = {name: group[0] for group in ALIASES for name in group}


class Relabel:
    """Samples of one dataset, with every class index turned into the model's.

    ``mapping`` leads from a class of the data to one of the model (see ``read_classes_map``); several may lead to one,
    whose pixels and boxes they then share.  Other names match exactly, or else without regard to case and with ``_`` and
    ``-`` as spaces, or else through ``ALIASES``, where these lead to one class alone.  What the model does not know
    cannot be judged: its pixels become IGNORE, its boxes and masks are dropped, an image label becomes None.

    warnings  one sentence each for names that are matched though they differ, for the data's classes that the model
              lacks, and the other way round

    Raises DataError when the dataset has no truth for the model's task, the model knows fewer than half of its classes,
    or ``mapping`` has a name that neither knows.
    """

    def __init__(self, dataset: Dataset, model_task: str, model_classes: Sequence[str], mapping: Mapping[str, str] | None = None) -> None:
        self.task, self.name = model_task, dataset.name
        numbered = list(enumerate(model_classes))[::-1]  # of two equal names the first is meant
        self._exact = {name: index for index, name in numbered}
        self._loose = {_loose(name): index for index, name in numbered}
        kinds = Counter(map(_canonical, self._loose))
        self._alias = {_canonical(name): index for name, index in self._loose.items() if kinds[_canonical(name)] == 1}
        self._mapped = self._resolved(mapping or {}, [*dataset.classes, *dataset.semantic_classes], model_classes)
        self._objects = self._table(dataset.classes)
        self._semantic = self._table(dataset.semantic_classes)
        scored = dataset.semantic_classes if model_task == "segmentation" else dataset.classes
        self._check_truth(dataset, scored)
        strange = [name for name in scored if self.model_index(name) is None]
        if 2 * len(strange) > len(scored):
            raise DataError(
                f"{self.name}: the model knows {len(scored) - len(strange)} of the data's {len(scored)} classes, fewer than half; "
                f"unknown are {self._with_nearest(strange)}; say with --classes-map FILE.csv which class of the model each one is"
            )
        met = {self.model_index(name) for name in scored}
        unmet = [name for index, name in enumerate(model_classes) if index not in met]
        pairs = [(name, model_classes[index]) for name in scored if (index := self.model_index(name)) is not None]
        renamed = [f"{name} as {other}" for name, other in pairs if _loose(name) != _loose(other)]
        self.warnings = [
            *([f"taken for one class under two names: {_listed(renamed)}"] if renamed else []),
            *([f"not judged, because the model does not know them: {_listed(strange)} ({_left_out(model_task)})"] if strange else []),
            *([f"not judged, because the data has no such class: {_listed(unmet)}"] if unmet else []),
        ]

    def model_index(self, name: str) -> int | None:
        """The model's index of the class that the data calls ``name``; None if the model does not know it."""
        tables = ((self._mapped, name), (self._exact, name), (self._loose, _loose(name)), (self._alias, _canonical(name)))
        return next((table[key] for table, key in tables if key in table), None)

    def __call__(self, sample: Sample) -> Sample:
        """Raises DataError when this sample lacks the truth on which the model is measured."""
        truth = {"segmentation": sample.semantic, "classification": sample.label}.get(self.task, sample.boxes)
        if truth is None:
            why = f" ({sample.tags['missing']})" if "missing" in sample.tags else ""
            raise DataError(f"{sample.id}: no {SERVES[self.task]}{why}; a {self.task} model is measured on them")
        sample = replace(sample, label=self._label(sample.label), semantic=self._map(sample.semantic))
        if sample.labels is None:
            return sample
        labels = self._objects[sample.labels.long()]
        keep = labels >= 0
        boxes, masks, ignore = (None if rows is None else rows[keep] for rows in (sample.boxes, sample.masks, sample.ignore))
        return replace(sample, labels=labels[keep], boxes=boxes, masks=masks, ignore=ignore)

    def _resolved(self, mapping: Mapping[str, str], data_classes: Sequence[str], model_classes: Sequence[str]) -> dict[str, int]:
        """The model's index of each of the data's names that ``mapping`` speaks of, spelt as the data spells it."""
        found: dict[str, int] = {}
        for data_name, model_name in mapping.items():
            index = self._exact.get(model_name, self._loose.get(_loose(model_name)))
            if index is None:
                raise DataError(f"classes map: {unknown('model class', model_name, model_classes)}")
            same = [name for name in data_classes if name == data_name] or [
                each for each in data_classes if _loose(each) == _loose(data_name)
            ]
            if not same:
                raise DataError(f"classes map: {unknown('data class', data_name, dict.fromkeys(data_classes))}")
            found |= dict.fromkeys(same, index)
        return found

    def _check_truth(self, dataset: Dataset, scored: Sequence[str]) -> None:
        boxed = dataset.task in ("detection", "instances")
        if not scored or (self.task in ("detection", "instances") and not boxed):
            raise DataError(
                f"{self.name}: has no {SERVES[self.task]} (its truth serves {dataset.task}), on which a {self.task} model is measured; "
                "take a model of the data's task, or data with that truth"
            )

    def _table(self, names: Iterable[str]) -> Tensor:
        """The model's index of each of ``names``, -1 where it has none."""
        found = [self.model_index(name) for name in names]
        return torch.tensor([-1 if index is None else index for index in found], dtype=torch.int64)

    def _label(self, label: int | None) -> int | None:
        index = -1 if label is None else int(self._objects[label])
        return None if index < 0 else index

    def _map(self, semantic: Tensor | None) -> Tensor | None:
        if semantic is None:
            return None
        table = torch.full((IGNORE + 1,), IGNORE)
        table[: len(self._semantic)] = torch.where(self._semantic < 0, IGNORE, self._semantic)
        return table[semantic]

    def _with_nearest(self, names: Sequence[str]) -> str:
        known = {_loose(name): name for name in self._exact}
        shown = []
        for name in names[:SHOWN]:
            near = difflib.get_close_matches(_loose(name), known, n=1, cutoff=0.5)
            shown.append(f"{name} (nearest: {known[near[0]]})" if near else name)
        return _listed(shown, len(names))


def _loose(name: str) -> str:
    """
    >>> _loose("Traffic_Light")
    'traffic light'
    """
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _canonical(name: str) -> str:
    """
    >>> _canonical("Sofa")
    'couch'
    """
    return _CANONICAL.get(_loose(name), _loose(name))


def read_classes_map(path: str | Path) -> dict[str, str]:
    """What ``--classes-map`` names: a CSV file of lines "model class,data class", as data class -> model class.

    A first line "model,data" is a header.  Raises DataError for a line of another form and for a data class that stands
    there twice.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_MAP_BYTES:
            raise DataError(f"{path}: more than {MAX_MAP_BYTES // 2**20} MB; expected lines 'model class,data class'")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not text in UTF-8; save it as CSV with that encoding") from None
    except DataError:
        raise
    except (OSError, ValueError) as error:  # a name with a null byte
        why = getattr(error, "strerror", error)
        raise DataError(f"{path}: cannot be read ({why}); expected a CSV file of lines 'model class,data class'") from None
    found: dict[str, str] = {}
    rows = csv.reader(text.splitlines(), strict=True, skipinitialspace=True)
    try:
        for number, row in enumerate(rows):
            cells = tuple(cell.strip() for cell in row)
            if not any(cells) or (number == 0 and tuple(map(str.casefold, cells)) in HEADERS):
                continue
            if len(cells) != 2 or not all(cells):
                raise DataError(f"{path}: line {rows.line_num} is {','.join(row)[:60]!r}, expected 'model class,data class'; correct it")
            model_name, data_name = cells
            if data_name in found:
                raise DataError(
                    f"{path}: line {rows.line_num}: data class {data_name!r} stands there twice; it can be one class of the model"
                )
            found[data_name] = model_name
    except csv.Error as error:
        raise DataError(f"{path}: line {rows.line_num} is not CSV that can be read ({error}); correct it") from None
    if not found:
        raise DataError(f"{path}: names no class; expected lines 'model class,data class'")
    return found


def _left_out(task: str) -> str:
    if task == "segmentation":
        return "their pixels are left out"
    return "their images are left out" if task == "classification" else "their boxes are left out"


def _listed(names: Sequence[str], count: int | None = None) -> str:
    more = (count or len(names)) - len(names[:SHOWN])
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more else "")
