"""Penn-Fudan pedestrians (Wang et al. 2007): PNGImages, Annotation and PedMasks; one class, person.

Every fourth file by name is test.  Boxes count pixels from 1 and include the last one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import DataError
from ..types import Sample
from .base import LAYOUTS, Dataset, choose_split, contents, find_picture, folder, inside, no_options
from .image import read_image, read_map
from .objects import Annotated, counted_from_one, detection_sample, instance_masks

SPLITS = ("train", "test")
MAX_TXT_BYTES = 2**20
COUNT = re.compile(r"Objects with ground truth\s*:\s*(\d{1,4})\b")
BOX = re.compile(r"^Bounding box for object [^:\n]*:\s*\((\d{1,6}), (\d{1,6})\) - \((\d{1,6}), (\d{1,6})\)", re.MULTILINE)


class PennFudan:
    """Pedestrians with boxes from the text files and instance masks from PedMasks."""

    task = "detection"
    classes: tuple[str, ...] = ("person",)
    semantic_classes: tuple[str, ...] = ()
    things: frozenset[str] = frozenset()

    def __init__(self, root: Path, split: str, name: str) -> None:
        self.name, self.root = name, root
        stems = sorted(path.stem for path in (root / "Annotation").glob("*.txt"))
        self.ids = [stem for number, stem in enumerate(stems) if (number % 4 == 3) == (split == "test")]
        if not self.ids:
            raise DataError(f"penn-fudan: {len(stems)} files in Annotation, too few for a {split} split; get the whole dataset")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        id = self.ids[index]
        objects = self._objects(f"Annotation/{id}.txt")
        file, mask_file = find_picture(self.root, "PNGImages", id), f"PedMasks/{id}_mask.png"
        image = read_image(inside(self.root, file), name=file)
        instances = read_map(inside(self.root, mask_file), image.shape[1:], name=mask_file)
        masks = instance_masks(instances, len(objects), mask_file)
        return detection_sample(id, image, objects, self.classes, masks=masks, tags={"file": file})

    def _objects(self, file: str) -> list[Annotated]:
        text = contents(self.root, file, MAX_TXT_BYTES).decode("latin-1")
        count, boxes = COUNT.search(text), BOX.findall(text)
        if count is None or int(count[1]) != len(boxes):
            stated = "no number of objects" if count is None else f"{count[1]} objects"
            raise DataError(f"{file}: states {stated} and has {len(boxes)} boxes; expected PASCAL Annotation 1.00, get the original file")
        return [Annotated(0, counted_from_one(*map(int, box))) for box in boxes]


@LAYOUTS.register("penn-fudan")
def open_penn_fudan(path: str, split: str | None, options: Mapping[str, str]) -> Dataset:
    no_options(options, "penn-fudan")
    root = folder(path, "penn-fudan", "PNGImages", "Annotation", "PedMasks")
    split = choose_split(split, SPLITS, "penn-fudan")
    return PennFudan(root, split, f"penn-fudan:{path}#{split}")
