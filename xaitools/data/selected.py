"""Some items of a dataset."""

from __future__ import annotations

from collections.abc import Sequence

from ..types import Sample
from .base import Dataset


class Selected:
    """The items of ``whole`` at ``indices``, itself a dataset, but not one that its name opens."""

    def __init__(self, whole: Dataset, indices: Sequence[int], name: str) -> None:
        self.name, self.task, self.classes = name, whole.task, whole.classes
        self.semantic_classes, self.things = whole.semantic_classes, whole.things
        self._whole, self.indices = whole, list(indices)

    @property
    def ids(self) -> list[str]:
        return [self._whole.ids[index] for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self._whole[self.indices[index]]
