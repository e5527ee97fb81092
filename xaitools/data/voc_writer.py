"""Writing PASCAL VOC: XML for the boxes, class and object maps in VOC's palette."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from xml.sax.saxutils import escape

import torch
from torch import Tensor

from ..errors import DataError
from ..types import IGNORE, Sample
from .base import WRITERS, Dataset, file_name
from .objects import disjoint
from .png import png, png_map
from .voc import class_list

EDGES = ("xmin", "ymin", "xmax", "ymax")


@WRITERS.register("voc")
class VocWriter:
    """``ignore`` becomes difficult, the n-th object has value n in its map.

    Class maps are written where the dataset's are background and then the classes of the boxes, object maps where
    masks do not overlap.  A box of one pixel's width or height cannot be told from a stray click, see ``voc``.
    """

    def __init__(self, dataset: Dataset, split: str) -> None:
        if dataset.task not in ("detection", "instances"):
            raise DataError(f"{dataset.name}: has no boxes, which the layout voc is made of; write it as camvid, coco or cityscapes")
        self.dataset, self.split = dataset, file_name(split)
        self._rows = [f"{number} {name}" for number, name in enumerate(dataset.classes, start=1)]
        if any(not name.isprintable() for name in dataset.classes) or class_list(self._rows, "classes.txt") != dataset.classes:
            raise DataError(f"{dataset.name}: a class name that VOC's classes.txt cannot hold; rename it")
        self.mapped = dataset.semantic_classes == ("background", *dataset.classes) and len(dataset.classes) < IGNORE
        self._unwritten: Counter[str] = Counter()
        self._ids: list[str] = []

    @property
    def left_out(self) -> Sequence[str]:
        classes = self.dataset.semantic_classes and not self.mapped
        remark = ["class maps: their classes are not background and then those of the boxes"] if classes else []
        return remark + [f"{what}: {count} images" for what, count in self._unwritten.items()]

    def files(self, sample: Sample) -> list[tuple[str, bytes]]:
        id = file_name(sample.id)
        found = [(f"JPEGImages/{id}.png", png(sample.image)), (f"Annotations/{id}.xml", self._annotation(sample, id).encode())]
        if self.mapped and sample.semantic is not None:
            found.append((f"SegmentationClass/{id}.png", png_map(sample.semantic, palette=True)))
        if sample.masks is not None and len(sample.masks) < IGNORE and disjoint(sample.masks):
            found.append((f"SegmentationObject/{id}.png", png_map(numbered(sample.masks), palette=True)))
        elif sample.masks is not None:
            self._unwritten[f"masks that overlap, are empty or are {IGNORE} and more"] += 1
        self._ids.append(id)
        return found

    def lists(self) -> list[tuple[str, bytes]]:
        ids = "".join(f"{id}\n" for id in self._ids).encode()
        classes = "".join(f"{row}\n" for row in self._rows).encode()
        kinds = ("Main", "Segmentation") if self.mapped else ("Main",)
        return [("classes.txt", classes), *((f"ImageSets/{kind}/{self.split}.txt", ids) for kind in kinds)]

    def _annotation(self, sample: Sample, id: str) -> str:
        if sample.boxes is None or sample.labels is None:
            raise DataError(f"{id}: no boxes, which the layout voc is made of")
        height, width = sample.image.shape[1:]
        ignore = torch.zeros(len(sample.boxes)) if sample.ignore is None else sample.ignore
        rows = zip(sample.boxes.tolist(), sample.labels.tolist(), ignore.tolist(), strict=True)
        objects = "".join(self._object(box, label, bool(difficult), id) for box, label, difficult in rows)
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        segmented = f"<segmented>{int(self.mapped and sample.semantic is not None)}</segmented>"
        return f"<annotation>\n<filename>{id}.png</filename>\n{size}\n{segmented}\n{objects}</annotation>\n"

    def _object(self, box: Sequence[float], label: int, difficult: bool, id: str) -> str:
        left, top, right, bottom = box
        if right - left <= 1 or bottom - top <= 1:
            raise DataError(
                f"{id}: a box of {right - left:g} x {bottom - top:g} pixels, which VOC cannot tell from a stray click; use coco"
            )
        corners = zip(EDGES, (left + 1, top + 1, right, bottom), strict=True)
        edges = "".join(f"<{edge}>{repr(value).removesuffix('.0')}</{edge}>" for edge, value in corners)
        name = escape(self.dataset.classes[label])
        return f"<object><name>{name}</name><difficult>{int(difficult)}</difficult><bndbox>{edges}</bndbox></object>\n"


def numbered(masks: Tensor) -> Tensor:
    """(H, W) with n within the n-th of disjoint masks (N, H, W), 0 elsewhere."""
    return (masks * torch.arange(1, len(masks) + 1)[:, None, None]).sum(0)
