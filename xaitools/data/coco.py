"""COCO: annotations/instances_SPLIT.json, with the pictures in SPLIT/, and where present class maps.  Lin et al. 2014.

Boxes are (x, y, width, height) in pixel edges, masks polygons or run lengths.  Class maps come from the panoptic task
(things and stuff) or else from the stuff task, see ``coco_maps``.  Without instances_SPLIT.json the things of the
panoptic task are the objects.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..types import Sample
from .base import LAYOUTS, Dataset, choose_split, folder, inside, no_options, unique
from .coco_json import CATEGORY, IMAGE, Row, content, numbers, rows
from .coco_maps import Panoptic, Stuff, map_folder
from .image import read_image
from .objects import MAX_OBJECTS, Annotated, check_room, detection_sample


class Instances:
    """Boxes and masks of one split; classes are the categories that are things, by rising id.

    Annotations of images that are not listed are passed over.
    """

    def __init__(self, root: Path, split: str) -> None:
        self.file = f"annotations/instances_{split}.json"
        found = content(root, self.file)
        things = [row for row in rows(found, "categories", CATEGORY, self.file) if row.get("isthing", 1)]
        things.sort(key=lambda row: row["id"])
        self.classes = tuple(unique([row["name"] for row in things], f"{self.file}, categories"))
        self.images = rows(found, "images", IMAGE, self.file)
        self._label = {row["id"]: label for label, row in enumerate(things)}
        self._annotations: dict[int, list[Row]] = defaultdict(list)
        for row in rows(found, "annotations", {"image_id": int}, self.file):
            self._annotations[row["image_id"]].append(row)
        self.task = "instances" if any(row.get("segmentation") for row in found["annotations"]) else "detection"

    def read(self, image_id: int, size: tuple[int, int], shown: str) -> tuple[list[Annotated], Tensor | None]:
        """The objects and their masks (N, H, W), None where one has no segmentation."""
        annotations = self._annotations.get(image_id, [])
        if len(annotations) > MAX_OBJECTS:
            raise DataError(f"{shown}: more than {MAX_OBJECTS} objects; split the image")
        return [self._object(entry, shown) for entry in annotations], _masks(annotations, size, shown)

    def _object(self, entry: Row, shown: str) -> Annotated:
        category, box = entry.get("category_id"), entry.get("bbox")
        if type(category) is not int or category not in self._label:
            raise DataError(f"{shown}: an object of category {category!r}, which is no thing in {self.file}; add it to categories")
        if not numbers(box) or len(box) != 4:
            raise DataError(f"{shown}: a bbox that is not [x, y, width, height]; correct annotation {entry.get('id')!r} in {self.file}")
        x, y, width, height = box
        return Annotated(self._label[category], (x, y, x + width, y + height), entry.get("iscrowd") == 1)


class Coco:
    """Boxes, instance masks and class maps of one split, as far as there are files for them.

    A crowd is one object, to be ignored.  An item has masks where each of its objects has a segmentation, and a class
    map where its task has annotated it.
    """

    def __init__(self, root: Path, split: str, name: str) -> None:
        self.name, self.root, self.split = name, root, split
        instances = (root / f"annotations/instances_{split}.json").is_file()
        panoptic, stuff = (_with_folder(root, kind, split, needed=not instances) for kind in ("panoptic", "stuff"))
        self._instances = Instances(root, split) if instances else None
        self._panoptic = Panoptic(root, split, panoptic) if panoptic else None
        things = self._instances.classes if self._instances else ()
        self._stuff = Stuff(root, split, stuff, things) if stuff and not panoptic else None
        first = next(part for part in (self._instances, self._panoptic, self._stuff) if part)
        maps = self._panoptic or self._stuff
        self.classes = first.classes if isinstance(first, Instances) else first.thing_classes
        self.task = first.task if isinstance(first, Instances) else "instances" if self.classes else "segmentation"
        self.semantic_classes = maps.classes if maps else ()
        self.things = frozenset(maps.thing_classes if maps else ())
        self._images = first.images
        unique([str(row["id"]) for row in self._images], f"{first.file}, images")
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
        tags = {"file": file, "license": row.get("license"), "image_id": row["id"]}
        semantic, objects, masks = self._truth(row, (height, width), file)
        if objects is None:
            return Sample(self.ids[index], image, semantic=semantic, tags=tags)
        return detection_sample(self.ids[index], image, objects, self.classes, masks=masks, semantic=semantic, tags=tags)

    def _truth(self, row: Row, size: tuple[int, int], file: str) -> tuple[Tensor | None, list[Annotated] | None, Tensor | None]:
        """The class map, the objects and their masks; None for what this image lacks."""
        found = self._panoptic.read(row["id"], size) if self._panoptic else None
        if not self._instances and not self._stuff:
            return found or (None, None, None)
        objects, masks = self._instances.read(row["id"], size, file) if self._instances else (None, None)
        if self._stuff:
            return self._stuff.read(row["file_name"], size, objects or [], masks), objects, masks
        return found[0] if found else None, objects, masks


def _with_folder(root: Path, kind: str, split: str, needed: bool) -> str | None:
    """The folder with the class maps of a task whose JSON file is there."""
    file = f"annotations/{kind}_{split}.json"
    if not (root / file).is_file():
        return None
    found = map_folder(root, kind, split)
    if found is None and needed:
        name = f"{kind}_{split}" + ("_pixelmaps" if kind == "stuff" else "")
        raise DataError(f"coco: {file} without the folder {name} of its PNG files; unpack them at the dataset's root or beside it")
    return found


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
    if not isinstance(segmentation, list) or not all(numbers(ring) and len(ring) >= 6 and len(ring) % 2 == 0 for ring in segmentation):
        raise DataError("a segmentation that is neither polygons [x1, y1, x2, y2, x3, y3, ...] nor run lengths; correct it")
    from pycocotools import mask as coco_mask

    height, width = size
    rings = [np.clip(np.reshape(ring, (-1, 2)), 0, (width, height)).ravel().tolist() for ring in segmentation]
    merged = coco_mask.merge(coco_mask.frPyObjects(rings, height, width))
    return _filled(_run_lengths(merged["counts"].decode()), size)


def _filled(counts: object, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool from runs of 0 and 1 in turn, beginning with 0, down the columns."""
    height, width = size
    if not numbers(counts) or any(type(count) is not int or count < 0 for count in counts) or sum(counts) != height * width:
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
    files = [file.stem.partition("_") for file in (root / "annotations").glob("*_*.json")]
    present = {name for kind, _, name in files if kind in ("instances", "panoptic", "stuff")}
    split = choose_split(split, present, "coco")
    return Coco(root, split, f"coco:{path}#{split}")
