"""Pictures in one folder for each class, DIR/CLASS/*.jpg or DIR/SPLIT/CLASS/*.jpg: classification."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import DataError
from ..types import Sample
from .base import LAYOUTS, WRITERS, Dataset, choose_split, file_name, folder, inside, no_options
from .image import read_image
from .png import png

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}
SPLITS = {"train", "val", "valid", "validation", "test"}
KEEP = ".keep"


class Folders:
    """Classes are the folders by name, also empty ones; files that are no pictures, and hidden ones, are passed over.

    An id is the picture's name without its ending where that is unique, else CLASS/NAME with it.
    """

    task = "classification"
    semantic_classes: tuple[str, ...] = ()
    things: frozenset[str] = frozenset()

    def __init__(self, root: Path, part: str, name: str) -> None:
        self.name, self.root = name, root
        self.classes = tuple(_folders(root / part))
        self._files = [
            (f"{part}/{kind}/{file}" if part else f"{kind}/{file}", label)
            for label, kind in enumerate(self.classes)
            for file in sorted(path.name for path in (root / part / kind).iterdir() if path.suffix.lower() in SUFFIXES)
            if not file.startswith(".")
        ]
        if not self._files:
            raise DataError(f"folder: no picture in {name!r}; expected sub-folders named after the classes, with pictures in them")
        stems = Counter(Path(file).stem for file, _ in self._files)
        self.ids: Sequence[str] = [
            Path(file).stem if len(stems) == len(self._files) else "/".join(file.rsplit("/", 2)[-2:]) for file, _ in self._files
        ]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        file, label = self._files[index]
        return Sample(self.ids[index], read_image(inside(self.root, file), name=file), label=label, tags={"file": file})


def _folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


@LAYOUTS.register("folder")
def open_folder(path: str, split: str | None, options: Mapping[str, str]) -> Dataset:
    """Without a split the classes are the sub-folders, unless these are all named like splits."""
    no_options(options, "folder")
    root = folder(path, "folder")
    present = _folders(root)
    if split is None and not (present and SPLITS.issuperset(present)):
        return Folders(root, "", f"folder:{path}")
    split = choose_split(split, present, "folder")
    return Folders(root, split, f"folder:{path}#{split}")


@WRITERS.register("folder")
class FolderWriter:
    """Whole pictures in the folder of ``Sample.label``."""

    def __init__(self, dataset: Dataset, split: str) -> None:
        if split not in SPLITS:
            raise DataError(f"folder: no split {split!r}; one of {', '.join(sorted(SPLITS))}")
        for name in dataset.classes:
            file_name(name)
        self.dataset, self.split = dataset, split
        self.left_out: Sequence[str] = ("boxes, masks and class maps",) if dataset.task != "classification" else ()
        self._met: set[str] = set()

    def files(self, sample: Sample) -> list[tuple[str, bytes]]:
        if sample.label is None:
            raise DataError(f"{sample.id}: no class of the whole image, which the layout folder is made of; write it as voc or coco")
        name = self.dataset.classes[sample.label]
        self._met.add(name)
        return [(f"{self.split}/{name}/{file_name(sample.id)}.png", png(sample.image))]

    def lists(self) -> list[tuple[str, bytes]]:
        """Something in the folder of each class without a picture, so that the split has all classes."""
        return [(f"{self.split}/{name}/{KEEP}", b"") for name in self.dataset.classes if name not in self._met]
