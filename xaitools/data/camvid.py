"""CamVid in the layout of the SegNet tutorial: train.txt, val.txt, test.txt with lines "image label".

Brostow et al. 2009; 11 classes and void (id 11, here IGNORE).  classes.txt, with lines "id name", may name others; a
colour may follow, and "thing" or "stuff".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import DataError
from ..types import IGNORE, Sample
from .base import LAYOUTS, WRITERS, Dataset, choose_split, file_name, folder, inside, lines, no_options, unique
from .image import read_image, read_map
from .png import colour, png, png_map

CLASSES = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
)  # fmt: skip
THINGS = frozenset({"Pole", "SignSymbol", "Car", "Pedestrian", "Bicyclist"})
FRAME = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)")
SPLITS = ("train", "val", "test")
VOID = ("unlabelled", "unlabeled", "void")
MAX_LIST_BYTES = 2**20
ROW = re.compile(r"(\d{1,3})\s+(\S.*?)(?:\s+\d{1,3}\s+\d{1,3}\s+\d{1,3}(?:\s+(thing|stuff))?)?")


class CamVid:
    """Class maps of one split; a value from the number of classes on is void.

    ``clusters`` are blocks of 10 consecutive frames of a drive, which look much the same; see ``blocks``.
    """

    task = "segmentation"

    def __init__(self, root: Path, split: str, name: str) -> None:
        self.name, self.root = name, root
        listed = (root / "classes.txt").is_file()
        self.semantic_classes, self.things = class_list(lines(root, "classes.txt", MAX_LIST_BYTES)) if listed else (CLASSES, THINGS)
        self.classes = self.semantic_classes
        self.rows = [line.split() for line in lines(root, f"{split}.txt")]
        if not self.rows or any(len(row) != 2 for row in self.rows):
            raise DataError(f"camvid: {split}.txt must hold lines 'image label' with names relative to the dataset's folder")
        self.ids = unique([Path(image).stem for image, _ in self.rows], f"{split}.txt")
        self.clusters = blocks(self.ids)

    def scope(self, ids: Sequence[str]) -> str:
        """What an interval over blocks of these items speaks of."""
        count = len({match[1] for id in ids if (match := FRAME.fullmatch(id))})
        return f"these {('no', 'one', 'two', 'three', 'four')[count]} drives only" if count != 1 else "this drive only"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        image_file, label_file = self.rows[index]
        image = read_image(inside(self.root, image_file), name=image_file)
        semantic = read_map(inside(self.root, label_file), image.shape[1:], name=label_file)
        semantic = semantic.masked_fill((semantic < 0) | (semantic >= len(self.classes)), IGNORE)
        return Sample(id=self.ids[index], image=image, semantic=semantic, tags={"file": image_file})


def blocks(ids: Sequence[str], length: int = 10) -> dict[str, str]:
    """The block of so many consecutive frames of one drive in which each item lies, called after the drive and its number.

    Empty where any id is not that of a frame of CamVid's four drives.

    >>> blocks(["0001TP_008550", "0001TP_008580", "Seq05VD_f00000"], length=1)
    {'0001TP_008550': '0001TP.0', '0001TP_008580': '0001TP.1', 'Seq05VD_f00000': 'Seq05VD.0'}
    """
    matches = [FRAME.fullmatch(id) for id in ids]
    frames = sorted((match[1], int(match[2]), id) for match, id in zip(matches, ids, strict=True) if match)
    if len(frames) < len(ids):
        return {}
    seen: Counter[str] = Counter()
    found = {}
    for drive, _, id in frames:
        found[id] = f"{drive}.{seen[drive] // length}"
        seen[drive] += 1
    return found


def class_list(rows: Sequence[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """The classes in the lines of classes.txt, and which of them are things."""
    matches = [ROW.fullmatch(row) for row in rows if not row.startswith("#")]
    found = [(int(match[1]), match[2], match[3]) for match in matches if match and match[2].casefold() not in VOID]
    found.sort(key=lambda row: row[0])
    names = unique([name for _, name, _ in found], "classes.txt")
    if not all(matches) or [number for number, _, _ in found] != list(range(len(found))) or not 0 < len(found) < IGNORE:
        raise DataError("classes.txt: expected lines 'id name R G B' with ids 0, 1, 2, ..., and void last; correct it")
    return tuple(names), frozenset(name for _, name, kind in found if kind == "thing" or (kind is None and name in THINGS))


@LAYOUTS.register("camvid")
def open_camvid(path: str, split: str | None, options: Mapping[str, str]) -> Dataset:
    no_options(options, "camvid")
    root = folder(path, "camvid")
    split = choose_split(split, [name for name in SPLITS if (root / f"{name}.txt").is_file()], "camvid")
    return CamVid(root, split, f"camvid:{path}#{split}")


@WRITERS.register("camvid")
class CamVidWriter:
    """Class maps alone, with the dataset's classes in classes.txt; a pixel without label is 255."""

    def __init__(self, dataset: Dataset, split: str) -> None:
        if split not in SPLITS:
            raise DataError(f"camvid: no split {split!r}; one of {', '.join(SPLITS)}")
        if not dataset.semantic_classes:
            raise DataError(f"{dataset.name}: has no class maps, which the layout camvid is made of; write it as voc or coco")
        self.dataset, self.split = dataset, split
        self.left_out: Sequence[str] = ("boxes and masks of instances",) if dataset.task in ("detection", "instances") else ()
        self._names = [self._row(number, name) for number, name in enumerate(dataset.semantic_classes)]
        if class_list(self._names) != (dataset.semantic_classes, dataset.things):
            raise DataError(f"{dataset.name}: a class name that CamVid's classes.txt cannot hold; rename it")
        self._pairs: list[str] = []

    def files(self, sample: Sample) -> list[tuple[str, bytes]]:
        if sample.semantic is None:
            raise DataError(f"{sample.id}: no class map, which the layout camvid is made of")
        image, label = (f"{self.split}{part}/{file_name(sample.id)}.png" for part in ("", "annot"))
        self._pairs.append(f"{image} {label}\n")
        return [(image, png(sample.image)), (label, png_map(sample.semantic))]

    def lists(self) -> list[tuple[str, bytes]]:
        names = "".join(f"{row}\n" for row in ("# id name R G B kind; other values are void", *self._names))
        return [("classes.txt", names.encode()), (f"{self.split}.txt", "".join(self._pairs).encode())]

    def _row(self, number: int, name: str) -> str:
        kind = "thing" if name in self.dataset.things else "stuff"
        return " ".join([str(number), name, *map(str, colour(number)), kind])
