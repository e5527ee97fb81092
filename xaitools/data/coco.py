"""COCO: annotations/instances_SPLIT.json, with the pictures in SPLIT/.  Lin et al. 2014.

Boxes are (x, y, width, height) in pixel edges, masks polygons or run lengths.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..types import Sample
from .base import LAYOUTS, Dataset, choose_split, contents, folder, inside, no_options, unique
from .image import read_image
from .objects import MAX_OBJECTS, Annotated, check_room, detection_sample

MAX_JSON_BYTES = 2**30
FAR = 1e9

Row = Mapping[str, Any]
ID: dict[str, type] = {"id": int}


class Coco:
    """Boxes and instance masks of one split; classes are the categories that are things, by rising id.

    A crowd is one object, to be ignored.  An item has masks where each of its objects has a segmentation.
    Annotations of images that are not listed are passed over.  The class maps of the panoptic task are not read yet.
    """

    task = "detection"
    semantic_classes: tuple[str, ...] = ()
    things: frozenset[str] = frozenset()

    def __init__(self, root: Path, split: str, name: str) -> None:
        self.name, self.root, self.split = name, root, split
        self.file = f"annotations/instances_{split}.json"
        content = _content(contents(root, self.file, MAX_JSON_BYTES), self.file)
        things = [row for row in _rows(content, "categories", ID | {"name": str}, self.file) if row.get("isthing", 1)]
        things.sort(key=lambda row: row["id"])
        self.classes = tuple(unique([row["name"] for row in things], f"{self.file}, categories"))
        self._label = {row["id"]: label for label, row in enumerate(things)}
        self._images = _rows(content, "images", ID | {"file_name": str, "width": int, "height": int}, self.file)
        unique([str(row["id"]) for row in self._images], f"{self.file}, images")
        self._annotations: dict[int, list[Row]] = defaultdict(list)
        for row in _rows(content, "annotations", {"image_id": int}, self.file):
            self._annotations[row["image_id"]].append(row)
        stems = [Path(row["file_name"]).stem for row in self._images]
        self.ids = stems if len(set(stems)) == len(stems) else [str(row["id"]) for row in self._images]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        row, file = self._images[index], f"{self.split}/{self._images[index]['file_name']}"
        image = read_image(inside(self.root, file), name=file)
        height, width = image.shape[1:]
        if (row["width"], row["height"]) != (width, height):
            stated = f"{row['width']} x {row['height']}"
            raise DataError(f"{file}: annotated for {stated} pixels, the picture has {width} x {height}; use the original picture")
        annotations = self._annotations.get(row["id"], [])
        if len(annotations) > MAX_OBJECTS:
            raise DataError(f"{file}: more than {MAX_OBJECTS} objects; split the image")
        objects = [self._object(entry, file) for entry in annotations]
        masks = _masks(annotations, (height, width), file)
        tags = {"file": file, "license": row.get("license"), "image_id": row["id"]}
        return detection_sample(self.ids[index], image, objects, self.classes, masks=masks, tags=tags)

    def _object(self, entry: Row, shown: str) -> Annotated:
        category, box = entry.get("category_id"), entry.get("bbox")
        if type(category) is not int or category not in self._label:
            raise DataError(f"{shown}: an object of category {category!r}, which is no thing in {self.file}; add it to categories")
        if not _numbers(box) or len(box) != 4:
            raise DataError(f"{shown}: a bbox that is not [x, y, width, height]; correct annotation {entry.get('id')!r} in {self.file}")
        x, y, width, height = box
        return Annotated(self._label[category], (x, y, x + width, y + height), entry.get("iscrowd") == 1)


def _content(data: bytes, file: str) -> Row:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON that can be read ({error}); get the file again") from None
    if not isinstance(content, dict):
        raise DataError(f"{file}: expected a JSON object with images, annotations and categories, this is a {type(content).__name__}")
    return content


def _rows(content: Row, part: str, fields: Mapping[str, type], file: str) -> list[Row]:
    """``content[part]``, a list of objects of which each has ``fields``."""
    rows = content.get(part)
    if not isinstance(rows, list):
        raise DataError(f"{file}: no list {part!r}; expected COCO's instances format with images, annotations and categories")
    for number, row in enumerate(rows):
        for field, kind in fields.items():
            if not isinstance(row, dict) or type(row.get(field)) is not kind:
                raise DataError(f"{file}: {part}[{number}] has no {field!r} that is {kind.__name__}; correct it")
    return rows


def _numbers(values: object) -> TypeGuard[list[float]]:
    return isinstance(values, list) and all(type(value) in (int, float) and abs(value) < FAR for value in values)


def _masks(annotations: Sequence[Row], size: tuple[int, int], shown: str) -> Tensor | None:
    """(N, H, W) bool, or None where an object has no segmentation."""
    if not all(entry.get("segmentation") for entry in annotations):
        return None
    check_room(len(annotations), size, shown)
    masks = torch.zeros((len(annotations), *size), dtype=torch.bool)
    for mask, entry in zip(masks, annotations, strict=True):
        try:
            mask.copy_(torch.from_numpy(mask_of(entry["segmentation"], size)))
        except DataError as error:
            raise DataError(f"{shown}: annotation {entry.get('id')!r}: {error}") from None
    return masks


def mask_of(segmentation: object, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool from a list of polygons or from run lengths, plain or in COCO's compressed text.

    What would lead pycocotools outside its memory is refused here: run lengths that do not fill the image, and
    points far off, which are moved to its edge.
    """
    if isinstance(segmentation, dict):
        counts = segmentation.get("counts")
        return _filled(_run_lengths(counts) if isinstance(counts, str) else counts, size)
    if not isinstance(segmentation, list) or not all(_numbers(ring) and len(ring) >= 6 and len(ring) % 2 == 0 for ring in segmentation):
        raise DataError("a segmentation that is neither polygons [x1, y1, x2, y2, x3, y3, ...] nor run lengths; correct it")
    from pycocotools import mask as coco_mask

    height, width = size
    rings = [np.clip(np.reshape(ring, (-1, 2)), 0, (width, height)).ravel().tolist() for ring in segmentation]
    merged = coco_mask.merge(coco_mask.frPyObjects(rings, height, width))
    return _filled(_run_lengths(merged["counts"].decode()), size)


def _filled(counts: object, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool from runs of 0 and 1 in turn, beginning with 0, down the columns."""
    height, width = size
    if not _numbers(counts) or any(type(count) is not int or count < 0 for count in counts) or sum(counts) != height * width:
        raise DataError(f"run lengths that do not fill the {width} x {height} pixels; correct the segmentation")
    return np.repeat(np.arange(len(counts)) % 2 == 1, np.array(counts, dtype=np.int64)).reshape(width, height).T


def _run_lengths(text: str) -> list[int]:
    """COCO's text form of run lengths: five bits a character, least first; from the fourth run on, differences to the last but one."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise DataError(f"run lengths with the character {character!r}; expected COCO's compressed text")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


@LAYOUTS.register("coco")
def open_coco(path: str, split: str | None, options: Mapping[str, str]) -> Dataset:
    no_options(options, "coco")
    root = folder(path, "coco", "annotations")
    present = [file.stem.removeprefix("instances_") for file in (root / "annotations").glob("instances_*.json")]
    split = choose_split(split, present, "coco")
    return Coco(root, split, f"coco:{path}#{split}")
