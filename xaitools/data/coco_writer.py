"""Writing COCO: instances_SPLIT.json for boxes and masks, panoptic_SPLIT.json with its PNG files for class maps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..types import IGNORE, Sample
from .base import WRITERS, Dataset, file_name
from .png import png, png_segments


@WRITERS.register("coco")
class CocoWriter:
    """Category ids follow the order of the class maps' classes, from 1; masks are run lengths, ``ignore`` is iscrowd.

    In the panoptic pictures an instance is what its mask covers of its class; what no mask covers of a class of
    things is one crowd.
    """

    def __init__(self, dataset: Dataset, split: str) -> None:
        self.split, self.dataset = file_name(split), dataset
        names = list(dict.fromkeys([*dataset.semantic_classes, *dataset.classes]))
        self._ids = {name: number for number, name in enumerate(names, start=1)}
        self.boxed = dataset.task in ("detection", "instances")
        ordered = [self._ids[name] for name in dataset.classes]
        self.mapped = bool(dataset.semantic_classes) and (ordered == sorted(ordered) or not self.boxed)
        self.left_out: Sequence[str] = ()
        if dataset.semantic_classes and not self.mapped:
            self._ids = {name: number for number, name in enumerate(dataset.classes, start=1)}
            self.left_out = ("class maps: their classes stand in another order than those of the boxes",)
        self._images: list[dict[str, Any]] = []
        self._objects: list[dict[str, Any]] = []
        self._panoptic: list[dict[str, Any]] = []

    def files(self, sample: Sample) -> list[tuple[str, bytes]]:
        name, (height, width) = f"{file_name(sample.id)}.png", sample.image.shape[1:]
        number = len(self._images) + 1
        found = [(f"{self.split}/{name}", png(sample.image))]
        if self.mapped and sample.semantic is not None:
            numbers, segments = self._segments(sample, sample.semantic)
            found.append((f"annotations/panoptic_{self.split}/{name}", png_segments(numbers)))
            self._panoptic.append({"image_id": number, "file_name": name, "segments_info": segments})
        if self.boxed and sample.boxes is not None and sample.labels is not None:
            self._objects += self._annotations(sample, sample.boxes, sample.labels, number)
        self._images.append({"id": number, "file_name": name, "width": width, "height": height})
        return found

    def lists(self) -> list[tuple[str, bytes]]:
        found = []
        if self.boxed:
            categories = [{"id": self._ids[name], "name": name, "isthing": 1} for name in self.dataset.classes]
            found.append((f"annotations/instances_{self.split}.json", self._document(self._objects, categories)))
        if self.mapped:
            categories = [
                {"id": self._ids[name], "name": name, "isthing": int(name in self.dataset.things)} for name in self.dataset.semantic_classes
            ]
            found.append((f"annotations/panoptic_{self.split}.json", self._document(self._panoptic, categories)))
        return found

    def _document(self, annotations: list[dict[str, Any]], categories: list[dict[str, Any]]) -> bytes:
        document = {"info": {"description": self.dataset.name}, "images": self._images, "annotations": annotations}
        return json.dumps({**document, "categories": categories}, ensure_ascii=False, allow_nan=False).encode()

    def _annotations(self, sample: Sample, boxes: Tensor, labels: Tensor, image_id: int) -> list[dict[str, Any]]:
        found = []
        for index, (left, top, right, bottom) in enumerate(boxes.tolist()):
            row = {
                "id": len(self._objects) + index + 1,
                "image_id": image_id,
                "category_id": self._ids[self.dataset.classes[int(labels[index])]],
                "bbox": [left, top, right - left, bottom - top],
                "area": (right - left) * (bottom - top),
                "iscrowd": int(sample.ignore is not None and bool(sample.ignore[index])),
            }
            if sample.masks is not None:
                size = list(sample.masks.shape[1:])
                row |= {"area": int(sample.masks[index].sum()), "segmentation": {"size": size, "counts": runs(sample.masks[index])}}
            found.append(row)
        return found

    def _segments(self, sample: Sample, semantic: Tensor) -> tuple[Tensor, list[dict[str, Any]]]:
        """Segment numbers (H, W), 0 where nothing is labelled, and what each of them is."""
        numbers = torch.zeros_like(semantic)
        segments: list[dict[str, Any]] = []

        def add(region: Tensor, name: str, crowd: bool) -> None:
            region = region & (numbers == 0)
            if region.any():
                segments.append({"id": len(segments) + 1, "category_id": self._ids[name], "iscrowd": int(crowd), "area": int(region.sum())})
                numbers[region] = len(segments)

        names = self.dataset.semantic_classes
        if sample.masks is not None and sample.labels is not None:
            for mask, label in zip(sample.masks, sample.labels.tolist(), strict=True):
                name = self.dataset.classes[label]
                if name in self.dataset.things:
                    add(mask & (semantic == names.index(name)), name, crowd=False)
        for index in torch.unique(semantic[semantic != IGNORE]).tolist():
            add(semantic == index, names[index], crowd=names[index] in self.dataset.things)
        return numbers, segments


def runs(mask: Tensor) -> list[int]:
    """Lengths of the runs of 0 and 1 in turn down the columns, beginning with 0.

    >>> runs(torch.tensor([[True, False], [True, False]]))
    [0, 2, 2]
    """
    flat = mask.numpy().T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    return np.diff([0, *edges, flat.size]).tolist()
