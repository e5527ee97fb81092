"""Class maps of COCO: annotations/panoptic_SPLIT.json or stuff_SPLIT.json, each with its folder of PNG files.

Kirillov et al. 2019; Caesar et al. 2018.  A folder may stand beside the JSON file or at the root of the dataset.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..types import IGNORE
from .base import inside, unique
from .coco_json import CATEGORY, IMAGE, Row, content, rows
from .image import read_map, read_segments
from .objects import MAX_OBJECTS, Annotated, areas, check_room, extents

OTHER = "other"
"""The class of a stuff map that stands for all things together."""


def map_folder(root: Path, kind: str, split: str) -> str | None:
    """The folder with the PNG files of annotations/KIND_SPLIT.json; None where there is none."""
    name = f"{kind}_{split}" + ("_pixelmaps" if kind == "stuff" else "")
    found = [part for part in (name, f"annotations/{name}") if (root / part).is_dir()]
    return found[0] if found else None


class Panoptic:
    """Things and stuff of one split, each pixel one segment; classes are the categories by rising id."""

    def __init__(self, root: Path, split: str, folder: str) -> None:
        self.root, self.folder, self.file = root, folder, f"annotations/panoptic_{split}.json"
        found = content(root, self.file)
        categories = _categories(found, self.file, 2**31)
        self.classes = tuple(unique([row["name"] for row in categories], f"{self.file}, categories"))
        self.thing_classes = tuple(row["name"] for row in categories if row.get("isthing", 1))
        self.images = rows(found, "images", IMAGE, self.file)
        self._class = {row["id"]: number for number, row in enumerate(categories)}
        fields: dict[str, type] = {"image_id": int, "file_name": str, "segments_info": list}
        self._rows = {row["image_id"]: row for row in rows(found, "annotations", fields, self.file)}

    def read(self, image_id: int, size: tuple[int, int]) -> tuple[Tensor, list[Annotated], Tensor] | None:
        """The class map (H, W), the things and their masks (N, H, W); None for an image that has no annotation."""
        row = self._rows.get(image_id)
        if row is None:
            return None
        file = f"{self.folder}/{row['file_name']}"
        segments = self._segments(row, file)
        numbers = read_segments(inside(self.root, file), size, name=file)
        values, inverse = np.unique(numbers.numpy(), return_inverse=True)
        strange = set(values.tolist()) - {0, *segments}
        if strange:
            raise DataError(f"{file}: segment {min(strange)} is not in segments_info; get {self.file} and its pictures from one place")
        classes = np.array([self._class[segments[value]["category_id"]] if value else IGNORE for value in values.tolist()])
        semantic = torch.from_numpy(classes[inverse.reshape(size)])
        things = [(number, segment) for number, segment in segments.items() if self._name(segment) in self.thing_classes]
        check_room(len(things), size, file)
        masks = numbers == torch.tensor([number for number, _ in things], dtype=torch.int64).reshape(-1, 1, 1)
        objects = [
            Annotated(self.thing_classes.index(self._name(segment)), box, segment.get("iscrowd") == 1)
            for (_, segment), box in zip(things, extents(masks), strict=True)
        ]
        return semantic, objects, masks

    def _segments(self, row: Row, file: str) -> dict[int, Row]:
        """The segments of one image by their number."""
        if len(row["segments_info"]) > MAX_OBJECTS:
            raise DataError(f"{file}: more than {MAX_OBJECTS} segments; split the image")
        segments: dict[int, Row] = {}
        for segment in row["segments_info"]:
            number = segment.get("id") if isinstance(segment, dict) else None
            if type(number) is not int or not 0 < number < 2**24 or number in segments:
                raise DataError(f"{file}: a segment without a number of its own; correct segments_info in {self.file}")
            category = segment.get("category_id")
            if type(category) is not int or category not in self._class:
                raise DataError(f"{file}: a segment of category {category!r}, which is not in {self.file}; add it to categories")
            segments[number] = segment
        return segments

    def _name(self, segment: Row) -> str:
        return self.classes[self._class[segment["category_id"]]]


class Stuff:
    """Stuff of one split.  Things are one class there, "other"; the masks of the instances tell which."""

    def __init__(self, root: Path, split: str, folder: str, things: tuple[str, ...]) -> None:
        self.root, self.folder, self.file = root, folder, f"annotations/stuff_{split}.json"
        found = content(root, self.file)
        categories = _categories(found, self.file, 255)
        stuff = [row for row in categories if row["name"] != OTHER]
        self.images = rows(found, "images", IMAGE, self.file)
        self.thing_classes = things
        self.classes = tuple(unique([*things, *(row["name"] for row in stuff)], f"{self.file}, categories"))
        if len(self.classes) >= IGNORE:
            raise DataError(f"{self.file}: {len(self.classes)} classes of things and stuff; expected at most {IGNORE - 1}, merge some")
        self._table = np.full(256, -1)
        self._table[[0, *(row["id"] for row in categories if row["name"] == OTHER)]] = IGNORE
        self._table[[row["id"] for row in stuff]] = np.arange(len(things), len(self.classes))

    def read(self, picture: str, size: tuple[int, int], objects: list[Annotated], masks: Tensor | None) -> Tensor | None:
        """The class map (H, W) of the picture ``picture``, with things where no stuff is; None where the map is missing."""
        file = f"{self.folder}/{Path(picture).stem}.png"
        path = inside(self.root, file)
        if not path.is_file():
            return None
        values = read_map(path, size, name=file).numpy()
        if values.min() < 0 or values.max() > 255 or (self._table[values] < 0).any():
            raise DataError(f"{file}: a value that is no category of {self.file}; get both from one place")
        semantic = torch.from_numpy(self._table[values])
        unclaimed = semantic == IGNORE
        sizes = [] if masks is None else areas(masks).tolist()
        for number in sorted(range(len(sizes)), key=lambda each: -sizes[each]):  # a small thing lies on a large one
            semantic[unclaimed & masks[number]] = objects[number].label  # type: ignore[index]
        return semantic


def _categories(content: Row, file: str, limit: int) -> list[Row]:
    """The categories by rising id, which is below ``limit``."""
    found = sorted(rows(content, "categories", CATEGORY, file), key=lambda row: row["id"])
    if len(found) >= IGNORE or any(not 0 < row["id"] < limit for row in found):
        raise DataError(f"{file}: {len(found)} categories; expected at most {IGNORE - 1}, with ids from 1 and below {limit}; merge some")
    unique([str(row["id"]) for row in found], f"{file}, categories")
    return found
