"""Cityscapes: leftImg8bit/SPLIT/CITY/ID_leftImg8bit.png, gtFine/SPLIT/CITY/ID_gtFine_{labelIds,instanceIds}.png.

Cordts et al. 2016.  ``?labels=train`` (the default) gives class maps of the 19 classes that are evaluated,
``?labels=all`` of the 30 that are annotated: those of ids 4 to 33, also where Cityscapes ignores them in its evaluation.
Ids 0 to 3 say nothing about the scene (unlabeled, ego vehicle, rectification border, out of roi) and are IGNORE.
``?annotation=coarse`` reads gtCoarse, which also has the split train_extra.

Another table of labels stands in labels.csv at the root, as we write it for classes that Cityscapes does not know:
columns id, name, semantic (index among the classes of the maps, or empty), instances (index among those of the boxes,
or empty), thing (1 or 0).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, unknown
from ..types import IGNORE, Sample
from .base import LAYOUTS, Dataset, choose_split, folder, inside, lines, unique
from .image import read_image, read_map
from .objects import MAX_OBJECTS, Annotated, check_room, detection_sample, extents

NAMES = (
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road", "sidewalk", "parking",
    "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole", "polegroup", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle",
)  # fmt: skip
"""By label id."""
EVALUATED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Ids by train id."""
WITH_INSTANCES = (24, 25, 26, 27, 28, 31, 32, 33)
THINGS = range(24, 34)
VOID = range(4)
PER_CLASS = 1000
OPTIONS = {"labels": ("train", "all"), "annotation": ("fine", "coarse")}
PICTURE = "_leftImg8bit.png"
TABLE = "labels.csv"
COLUMNS = ["id", "name", "semantic", "instances", "thing"]
MAX_TABLE_BYTES = 2**20
DUMMY = "its annotation is a dummy without a label, as in Cityscapes' test split, whose truth is not public; measure on val"


class Label(NamedTuple):
    """An id of the label pictures; ``semantic`` and ``instances`` are indices into the classes of maps and boxes."""

    id: int
    name: str
    semantic: int | None
    instances: int | None
    thing: bool


class Cityscapes:
    """Class maps, and the instances of the classes that have them, with boxes that are the extents of their masks.

    An id from 1000 on is an instance of class id // 1000; a smaller one of such a class is a group, which counts as one
    object to be ignored.  Objects come by their number within the picture, groups last.  Caravans and trailers are
    things in the maps of ``labels=all`` but no objects, as in Cityscapes' evaluation of instances.  An image whose
    annotation is missing or a dummy has no truth; ``tags["missing"]`` says so.
    """

    def __init__(self, root: Path, split: str, annotation: str, labels: list[Label], name: str) -> None:
        self.name, self.root, self.split = name, root, split
        self.kind = f"gt{annotation.capitalize()}"
        self.semantic_classes = _by_index(labels, "semantic")
        self.classes = _by_index(labels, "instances")
        self.task = "instances" if self.classes else "segmentation"
        self.things = frozenset(label.name for label in labels if label.thing and label.semantic is not None)
        self._official = not (root / TABLE).is_file()
        self._instances = {label.id: label.instances for label in labels}
        self._table = np.full(256, -1)
        self._table[[*VOID, 255]] = IGNORE
        for label in labels:
            self._table[label.id] = IGNORE if label.semantic is None else label.semantic
        found = sorted((path.parent.name, path.name) for path in (root / "leftImg8bit" / split).glob(f"*/[!.]*{PICTURE}"))
        if not found:
            raise DataError(f"cityscapes: no picture leftImg8bit/{split}/CITY/*{PICTURE}; unpack leftImg8bit here")
        self._places = [(city, file.removesuffix(PICTURE)) for city, file in found]
        self.ids = unique([id for _, id in self._places], f"leftImg8bit/{split}")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        city, id = self._places[index]
        file = f"leftImg8bit/{self.split}/{city}/{id}{PICTURE}"
        image = read_image(inside(self.root, file), name=file)
        truth = f"{self.kind}/{self.split}/{city}/{id}_{self.kind}"
        labels = self._map(f"{truth}_labelIds.png", image.shape[1:])
        instances = self._map(f"{truth}_instanceIds.png", image.shape[1:])
        missing = [f"no file {truth}_{kind}.png" for kind, found in (("labelIds", labels), ("instanceIds", instances)) if found is None]
        tags = {"file": file, "city": city, **({"missing": " and ".join(missing)} if missing else {})}
        if self._official and labels is not None and int(labels.max()) in VOID:
            return Sample(id, image, tags=tags | {"missing": DUMMY})
        semantic = None if labels is None else self._semantic(labels, f"{truth}_labelIds.png")
        if instances is None or not self.classes:
            return Sample(id, image, semantic=semantic, tags=tags)
        objects, masks = self._objects(instances, f"{truth}_instanceIds.png")
        return detection_sample(id, image, objects, self.classes, masks=masks, semantic=semantic, tags=tags)

    def _map(self, file: str, size: tuple[int, ...]) -> Tensor | None:
        path = inside(self.root, file)
        return read_map(path, size, name=file) if path.is_file() else None

    def _semantic(self, labels: Tensor, file: str) -> Tensor:
        values = labels.numpy()
        strange = [value for value in np.unique(values).tolist() if not 0 <= value <= 255 or self._table[value] < 0]
        if strange:
            raise DataError(f"{file}: label id {strange[0]} is not in {self._source()}; correct the picture or the table")
        return torch.from_numpy(self._table[values])

    def _objects(self, instances: Tensor, file: str) -> tuple[list[Annotated], Tensor]:
        found: list[tuple[int, int, int, int]] = []  # number, label id, class, value
        for value in np.unique(instances).tolist():
            grouped = value < PER_CLASS
            label, number = (value, PER_CLASS) if grouped else divmod(value, PER_CLASS)
            if label not in self._instances and not (grouped and (label in VOID or label == IGNORE)):
                raise DataError(
                    f"{file}: value {value} is of label id {label}, which is not in {self._source()}; correct the picture or the table"
                )
            kind = self._instances.get(label)
            if kind is not None:
                found.append((number, label, kind, value))
        if len(found) > MAX_OBJECTS:
            raise DataError(f"{file}: more than {MAX_OBJECTS} objects; split the image")
        check_room(len(found), instances.shape, file)
        found.sort()
        masks = instances == torch.tensor([value for *_, value in found], dtype=torch.int64).reshape(-1, 1, 1)
        rows = zip(found, extents(masks), strict=True)
        return [Annotated(kind, box, number == PER_CLASS) for (number, _, kind, _), box in rows], masks

    def _source(self) -> str:
        return "Cityscapes' table" if self._official else TABLE


def official_labels(labels: str = "train") -> list[Label]:
    """Cityscapes' own table; ``labels`` is train or all."""
    mapped = EVALUATED if labels == "train" else range(len(VOID), len(NAMES))
    index = {id: number for number, id in enumerate(mapped)}
    counted = {id: number for number, id in enumerate(WITH_INSTANCES)}
    return [Label(id, name, index.get(id), counted.get(id), id in THINGS) for id, name in enumerate(NAMES)]


def read_table(rows: list[str]) -> list[Label]:
    """The labels in the lines of labels.csv."""
    try:
        head, *body = list(csv.reader(rows)) or [[]]
        if head != COLUMNS or not all(map(str.isprintable, rows)):
            raise ValueError
        labels = [
            Label(int(id), name, int(semantic) if semantic else None, int(instances) if instances else None, {"0": False, "1": True}[thing])
            for id, name, semantic, instances, thing in body
        ]
    except (ValueError, KeyError, csv.Error):
        raise DataError(f"{TABLE}: expected the columns {', '.join(COLUMNS)} with numbers in all but the name; correct it") from None
    unique([str(label.id) for label in labels], f"{TABLE}, ids")
    unique([label.name for label in labels], f"{TABLE}, names")
    numbers = ([getattr(label, field) for label in labels if getattr(label, field) is not None] for field in ("semantic", "instances"))
    if not all(sorted(each) == list(range(len(each))) for each in numbers) or any(not 0 <= label.id < IGNORE for label in labels):
        raise DataError(f"{TABLE}: expected ids from 0 to 254 and the indices 0, 1, 2, ... of the classes of maps and of boxes; correct it")
    return labels


def _by_index(labels: list[Label], field: str) -> tuple[str, ...]:
    present = [label for label in labels if getattr(label, field) is not None]
    return tuple(label.name for label in sorted(present, key=lambda label: getattr(label, field)))


@LAYOUTS.register("cityscapes")
def open_cityscapes(path: str, split: str | None, options: Mapping[str, str]) -> Dataset:
    """Where no split is asked for it is val, as the truth of test is not public."""
    for option, value in options.items():
        if option not in OPTIONS:
            raise DataError(f"cityscapes: {unknown('option', option, OPTIONS)}")
        if value not in OPTIONS[option]:
            raise DataError(f"cityscapes: {unknown(f'value of {option}', value, OPTIONS[option])}")
    annotation = options.get("annotation", "fine")
    root = folder(path, "cityscapes", "leftImg8bit")
    present = [entry.name for entry in (root / "leftImg8bit").iterdir() if entry.is_dir()]
    split = choose_split("val" if split is None and "val" in present else split, present, "cityscapes")
    truth = f"gt{annotation.capitalize()}/{split}"
    if not (root / truth).is_dir():
        other = "; it is annotated coarsely, write ?annotation=coarse" if (root / f"gtCoarse/{split}").is_dir() else "; unpack it here"
        raise DataError(f"cityscapes: no folder {truth!r} in {path!r}, which holds the truth of leftImg8bit/{split}{other}")
    name = f"cityscapes:{path}#{split}" + "".join(f"{mark}{key}={value}" for mark, (key, value) in zip("?&", options.items(), strict=False))
    if (root / TABLE).is_file():
        if "labels" in options:
            raise DataError(f"cityscapes: labels={options['labels']} is for Cityscapes' own classes; the classes here are those of {TABLE}")
        return Cityscapes(root, split, annotation, read_table(lines(root, TABLE, MAX_TABLE_BYTES)), name)
    return Cityscapes(root, split, annotation, official_labels(options.get("labels", "train")), name)
