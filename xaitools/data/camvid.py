"""CamVid in the layout of the SegNet tutorial: train.txt, val.txt, test.txt with lines "image label".

Brostow et al. 2009; 11 classes and void (id 11, here IGNORE).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import DataError
from ..types import IGNORE, Sample
from .base import LAYOUTS, Dataset, choose_split, folder, inside, lines, no_options, unique
from .image import read_image, read_map

CLASSES = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
)  # fmt: skip
THINGS = frozenset({"Pole", "SignSymbol", "Car", "Pedestrian", "Bicyclist"})
SPLITS = ("train", "val", "test")


class CamVid:
    task = "segmentation"
    classes: tuple[str, ...] = CLASSES
    semantic_classes: tuple[str, ...] = CLASSES
    things = THINGS

    def __init__(self, root: Path, split: str, name: str) -> None:
        self.name, self.root = name, root
        self.rows = [line.split() for line in lines(root, f"{split}.txt")]
        if not self.rows or any(len(row) != 2 for row in self.rows):
            raise DataError(f"camvid: {split}.txt must hold lines 'image label' with names relative to the dataset's folder")
        self.ids = unique([Path(image).stem for image, _ in self.rows], f"{split}.txt")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        image_file, label_file = self.rows[index]
        image = read_image(inside(self.root, image_file), name=image_file)
        semantic = read_map(inside(self.root, label_file), image.shape[1:], name=label_file)
        semantic = semantic.masked_fill(semantic >= len(CLASSES), IGNORE)
        return Sample(id=self.ids[index], image=image, semantic=semantic, tags={"file": image_file})


@LAYOUTS.register("camvid")
def open_camvid(path: str, split: str | None, options: Mapping[str, str]) -> Dataset:
    no_options(options, "camvid")
    root = folder(path, "camvid")
    split = choose_split(split, [name for name in SPLITS if (root / f"{name}.txt").is_file()], "camvid")
    return CamVid(root, split, f"camvid:{path}#{split}")
