"""Truth in the model's words: the classes of a dataset matched by name with those of a model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import DataError
from ..types import IGNORE, Sample
from .base import Dataset

SERVES = {
    "segmentation": "semantic maps",
    "detection": "boxes",
    "instances": "boxes",
    "classification": "image labels",
}
"""The truth on which a model of each task is measured; masks of instances are used where there are any."""

SHOWN = 8


class Relabel:
    """Samples of one dataset, with every class index turned into the model's.

    Names match exactly, or else without regard to case and with ``_`` and ``-`` as spaces.  What the model does not
    know cannot be judged: its pixels become IGNORE, its boxes and masks are dropped, an image label becomes None.

    warnings  one sentence each for the data's classes that the model lacks, and the other way round

    Raises DataError when the dataset has no truth for the model's task, or the model knows fewer than half of its classes.
    """

    def __init__(self, dataset: Dataset, model_task: str, model_classes: Sequence[str]) -> None:
        self.task, self.name = model_task, dataset.name
        numbered = list(enumerate(model_classes))[::-1]  # of two equal names the first is meant
        self._exact = {name: index for index, name in numbered}
        self._loose = {_loose(name): index for index, name in numbered}
        self._objects = self._table(dataset.classes)
        self._semantic = self._table(dataset.semantic_classes)
        scored = dataset.semantic_classes if model_task == "segmentation" else dataset.classes
        self._check_truth(dataset, scored)
        unknown = [name for name in scored if self.model_index(name) is None]
        if 2 * len(unknown) > len(scored):
            raise DataError(
                f"{self.name}: the model knows {len(scored) - len(unknown)} of the data's {len(scored)} classes, fewer than half; "
                f"unknown are {self._with_nearest(unknown)}; rename the classes of the model or of the data"
            )
        met = {self.model_index(name) for name in scored}
        unmet = [name for index, name in enumerate(model_classes) if index not in met]
        self.warnings = [
            *([f"not judged, because the model does not know them: {_listed(unknown)} ({_left_out(model_task)})"] if unknown else []),
            *([f"not judged, because the data has no such class: {_listed(unmet)}"] if unmet else []),
        ]

    def model_index(self, name: str) -> int | None:
        """The model's index of the class that the data calls ``name``; None if the model does not know it."""
        return self._exact.get(name, self._loose.get(_loose(name)))

    def __call__(self, sample: Sample) -> Sample:
        """Raises DataError when this sample lacks the truth on which the model is measured."""
        truth = {"segmentation": sample.semantic, "classification": sample.label}.get(self.task, sample.boxes)
        if truth is None:
            raise DataError(f"{sample.id}: no {SERVES[self.task]}; a {self.task} model is measured on them")
        sample = replace(sample, label=self._label(sample.label), semantic=self._map(sample.semantic))
        if sample.labels is None:
            return sample
        labels = self._objects[sample.labels.long()]
        keep = labels >= 0
        boxes, masks, ignore = (None if rows is None else rows[keep] for rows in (sample.boxes, sample.masks, sample.ignore))
        return replace(sample, labels=labels[keep], boxes=boxes, masks=masks, ignore=ignore)

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


def _left_out(task: str) -> str:
    if task == "segmentation":
        return "their pixels are left out"
    return "their images are left out" if task == "classification" else "their boxes are left out"


def _listed(names: Sequence[str], count: int | None = None) -> str:
    more = (count or len(names)) - len(names[:SHOWN])
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more else "")
