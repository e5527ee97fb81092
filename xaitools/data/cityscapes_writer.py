"""Writing Cityscapes: label and instance pictures, with the dataset's own classes in labels.csv."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import DataError
from ..types import IGNORE, Sample
from .base import WRITERS, Dataset, file_name
from .cityscapes import COLUMNS, NAMES, PER_CLASS, PICTURE, TABLE, VOID, Label, read_table
from .objects import disjoint
from .png import png, png_map

CITY = "xaitools"
MAX_ID = 65
"""The largest label id whose instances fit into 16 bits."""


@WRITERS.register("cityscapes")
class CityscapesWriter:
    """Classes that Cityscapes knows keep its ids, if it knows all; else ids run from 4, classes with instances first.

    Instances are numbered by their place among the objects of a picture, so that they read back in that order.  Objects
    to be ignored are groups, one for each class.  Masks that overlap have no place, nor has a box that is not the
    extent of its mask.
    """

    def __init__(self, dataset: Dataset, split: str) -> None:
        self.dataset, self.split = dataset, file_name(split)
        self.counted = dataset.task in ("detection", "instances")
        instances = {name: index for index, name in enumerate(dataset.classes if self.counted else ())}
        semantic = {name: index for index, name in enumerate(dataset.semantic_classes)}
        names = list(dict.fromkeys([*instances, *semantic]))
        if not names:
            raise DataError(f"{dataset.name}: has neither class maps nor masks, which the layout cityscapes is made of; write it as folder")
        known = set(names) <= set(NAMES[len(VOID) :])
        self._ids = {name: NAMES.index(name) if known else number for number, name in enumerate(names, start=len(VOID))}
        if len(names) >= IGNORE - len(VOID) or any(self._ids[name] > MAX_ID for name in instances):
            raise DataError(
                f"{dataset.name}: {len(instances)} classes of boxes and {len(semantic)} of maps; cityscapes has no room for so many"
            )
        rows = [Label(self._ids[name], name, semantic.get(name), instances.get(name), name in dataset.things) for name in names]
        self._table = _table(rows)
        if any(not name.isprintable() or name != name.strip() for name in names) or read_table(self._table.splitlines()) != rows:
            raise DataError(f"{dataset.name}: a class name that {TABLE} cannot hold; rename it")
        self._unwritten: Counter[str] = Counter()

    @property
    def left_out(self) -> Sequence[str]:
        return [f"{what}: {count} images" for what, count in self._unwritten.items()]

    def files(self, sample: Sample) -> list[tuple[str, bytes]]:
        id = file_name(sample.id)
        truth = f"gtFine/{self.split}/{CITY}/{id}_gtFine"
        found = [(f"leftImg8bit/{self.split}/{CITY}/{id}{PICTURE}", png(sample.image))]
        labels = torch.zeros(sample.image.shape[1:], dtype=torch.int64)
        if sample.semantic is not None:
            ids = torch.zeros(IGNORE + 1, dtype=torch.int64)  # id 0 is unlabeled
            ids[: len(self.dataset.semantic_classes)] = torch.tensor([self._ids[name] for name in self.dataset.semantic_classes])
            labels = ids[sample.semantic]
            found.append((f"{truth}_labelIds.png", png_map(labels)))
        if not self.counted or sample.boxes is None or sample.labels is None:
            return found
        if sample.masks is None:
            self._unwritten["boxes without masks"] += 1
        elif not disjoint(sample.masks) or len(sample.masks) > PER_CLASS:
            self._unwritten[f"masks that overlap, are empty or are more than {PER_CLASS}"] += 1
        else:
            found.append((f"{truth}_instanceIds.png", png_map(self._instances(sample, sample.masks, sample.labels, labels))))
        return found

    def lists(self) -> list[tuple[str, bytes]]:
        return [(TABLE, self._table.encode())]

    def _instances(self, sample: Sample, masks: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
        """(H, W): of the objects their values, of the rest label ids; there a class with instances would be a group and is 0."""
        counted = torch.tensor([self._ids[name] for name in self.dataset.classes])
        found = ids.masked_fill(torch.isin(ids, counted), 0)
        for number, (mask, label) in enumerate(zip(masks, labels.tolist(), strict=True)):
            id = self._ids[self.dataset.classes[label]]
            found[mask] = id if sample.ignore is not None and sample.ignore[number] else id * PER_CLASS + number
        return found


def _table(labels: Sequence[Label]) -> str:
    file = io.StringIO()
    rows = ((label.id, label.name, label.semantic, label.instances, int(label.thing)) for label in labels)
    csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    return file.getvalue()
