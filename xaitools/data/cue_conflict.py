"""Shape against texture (Geirhos et al. 2019): pictures with the shape of one class and the texture of another.

style-transfer-preprocessed-512/SHAPE_CLASS/SHAPE-TEXTURE.jpg with names such as cat7-clock2, and beside it, where
present, filled-silhouettes/SHAPE_CLASS/SHAPE.png, black where the object is.  stimuli.csv, where present, says which
pictures there are and replaces what their names say.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import DataError
from ..types import Sample
from .base import LAYOUTS, PICTURES, Dataset, folder, inside, lines, no_options, unique
from .image import read_image
from .objects import Annotated, detection_sample, extents

STIMULI = "style-transfer-preprocessed-512"
SILHOUETTES = "filled-silhouettes"
LIST = "stimuli.csv"
COLUMNS = ("file", "shape_class", "texture_class")
NAME = re.compile(r"([a-z]+)\d+-([a-z]+)\d+")
MAX_LIST_BYTES = 2**24


class Stimulus(NamedTuple):
    file: str
    shape: str
    texture: str
    silhouette: str | None


class CueConflict:
    """The class is that of the shape; ``tags`` hold texture_class, shape_image, texture_image and conflict (bool).

    Where there is a silhouette the shape is also one object with its box and mask.  Pictures whose shape and texture
    are of one class have no conflict; leave them out of a share of decisions by shape.
    """

    task = "classification"
    semantic_classes: tuple[str, ...] = ()
    things: frozenset[str] = frozenset()

    def __init__(self, root: Path, name: str) -> None:
        self.name, self.root = name, root
        self._stimuli = _listed(root) if (root / LIST).is_file() else _named(root)
        if not self._stimuli:
            raise DataError(f"cue-conflict: no picture in {name!r}; expected {STIMULI}/SHAPE_CLASS/SHAPE-TEXTURE.jpg or {LIST}")
        self.classes = tuple(sorted({each.shape for each in self._stimuli} | {each.texture for each in self._stimuli}))
        self.ids = unique([Path(each.file).stem for each in self._stimuli], LIST)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        each, id = self._stimuli[index], self.ids[index]
        image = read_image(inside(self.root, each.file), name=each.file)
        label = self.classes.index(each.shape)
        shape_image, _, texture_image = id.partition("-")
        tags = {
            "file": each.file,
            "texture_class": each.texture,
            "shape_image": shape_image,
            "texture_image": texture_image,
            "conflict": each.shape != each.texture,
        }
        mask = None if each.silhouette is None else self._silhouette(each.silhouette, image.shape[1:])
        if mask is None:
            return Sample(id, image, label=label, tags=tags)
        found = detection_sample(id, image, [Annotated(label, extents(mask)[0])], self.classes, masks=mask, tags=tags)
        return replace(found, label=label)

    def _silhouette(self, file: str, size: Sequence[int]) -> Tensor:
        """(1, H, W) bool; its edge is soft, and half black counts as object."""
        picture = read_image(inside(self.root, file), name=file)
        if picture.shape[1:] != torch.Size(size):
            sides = [f"{width} x {height}" for height, width in (picture.shape[1:], size)]
            raise DataError(f"{file}: the silhouette is {sides[0]}, its picture {sides[1]}; both must have one size")
        return picture[:1] < 0.5  # grey


def _listed(root: Path) -> list[Stimulus]:
    rows = csv.DictReader(lines(root, LIST, MAX_LIST_BYTES), strict=True)
    found = []
    try:
        for row in rows:
            if not all(row.get(column) for column in COLUMNS):
                raise DataError(f"{LIST}: line {rows.reader.line_num} lacks one of {', '.join(COLUMNS)}; correct it")
            found.append(Stimulus(row["file"], row["shape_class"], row["texture_class"], row.get("shape_silhouette") or None))
    except csv.Error as error:
        raise DataError(f"{LIST}: line {rows.reader.line_num} is not CSV that can be read ({error}); correct it") from None
    return found


def _named(root: Path) -> list[Stimulus]:
    """The stimuli by their names; other pictures are passed over."""
    found = []
    for path in sorted((root / STIMULI).glob("*/*")):
        match = NAME.fullmatch(path.stem)
        if match and path.suffix.lower() in PICTURES:
            shape = path.parent.name
            silhouette = f"{SILHOUETTES}/{shape}/{path.stem.partition('-')[0]}.png"
            there = (root / silhouette).is_file()
            found.append(Stimulus(f"{STIMULI}/{shape}/{path.name}", shape, match[2], silhouette if there else None))
    return found


@LAYOUTS.register("cue-conflict")
def open_cue_conflict(path: str, split: str | None, options: Mapping[str, str]) -> Dataset:
    no_options(options, "cue-conflict")
    root = folder(path, "cue-conflict")
    if split is not None:
        raise DataError(f"cue-conflict: has no splits, got #{split}; write cue-conflict:{path}")
    if not (root / LIST).is_file():
        folder(path, "cue-conflict", STIMULI)
    return CueConflict(root, f"cue-conflict:{path}")
