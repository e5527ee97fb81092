"""PASCAL VOC: JPEGImages, Annotations, ImageSets/Main, and where present SegmentationClass and SegmentationObject.

Everingham et al. 2010.  A box counts pixels from 1 and includes its last one, as the VOC development kit
writes it: edges are (xmin - 1, ymin - 1, xmax, ymax).  We hold every folder in this layout to that rule.  It
fits the sets we know: in voc-mini 166 of 184 left edges lie exactly one above those of the masks, and no box of
bccd, indoor-det or voc-mini has a 0, while many begin at 1 and end at the image's width.  A tool that counts
from 0 is read one pixel too far up and left.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
from torch import Tensor

from ..errors import DataError
from ..types import IGNORE, Sample
from .base import LAYOUTS, Dataset, choose_split, contents, find_picture, folder, inside, lines, no_options, unique
from .image import read_image, read_map
from .objects import MAX_OBJECTS, Annotated, counted_from_one, detection_sample, instance_masks

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
CLASS_FILES = ("classes.txt", "class_names.txt")
NOT_A_CLASS = ("background", "_background_", "__ignore__")
MAX_XML_BYTES = 4 * 2**20
MAX_DEPTH = 16


class Voc:
    """Boxes of one split, with class maps and instance masks for the images that have them.

    Classes are those of classes.txt (lines ``name`` or ``id name``, labelme's class_names.txt too), else the 20 of
    VOC where these suffice, else the sorted names in Annotations.  In the last case nobody knows what a value of a
    class map means, and the maps are not read; neither are they where there are more classes than 8 bits can tell apart.
    An object marked difficult is to be ignored.
    """

    task = "detection"

    def __init__(self, root: Path, split: str | None, name: str) -> None:
        self.name, self.root = name, root
        self.ids: Sequence[str]
        if split is None:
            self.ids = sorted(path.stem for path in (root / "Annotations").glob("*.xml"))
        else:
            self.ids = unique(lines(root, f"ImageSets/{split}.txt"), f"{split}.txt")
        if not self.ids:
            raise DataError(f"voc: {name!r} has no image; expected ids, one a line, in ImageSets, or XML files in Annotations")
        listed = _listed_classes(root)
        self.classes = listed or self._seen_classes()
        told_apart = bool(listed or self.classes == VOC_CLASSES) and len(self.classes) < IGNORE
        readable_maps = told_apart and (root / "SegmentationClass").is_dir()
        self.semantic_classes = ("background", *self.classes) if readable_maps else ()
        self.things = frozenset(self.classes if readable_maps else ())

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        id = self.ids[index]
        annotation = self._annotation(id)
        file = find_picture(self.root, "JPEGImages", id)
        image = read_image(inside(self.root, file), name=file)
        size = image.shape[1:]
        _check_size(annotation, size, f"Annotations/{id}.xml")
        objects = [self._object(entry, f"Annotations/{id}.xml") for entry in annotation.findall("object")]
        instances = self._map("SegmentationObject", id, size)
        return detection_sample(
            id,
            image,
            objects,
            self.classes,
            masks=None if instances is None else instance_masks(instances, len(objects), id),
            semantic=self._semantic(id, size),
            tags={"file": file},
        )

    def _seen_classes(self) -> tuple[str, ...]:
        """The 20 of VOC where they cover all names in Annotations, else those names; broken files say nothing here."""
        names: set[str] = set()
        for path in sorted((self.root / "Annotations").glob("*.xml")):
            try:
                names.update(_text(entry, "name", path.name) for entry in self._annotation(path.stem).findall("object"))
            except DataError:
                continue  # the item itself raises it
        return VOC_CLASSES if names <= set(VOC_CLASSES) else tuple(sorted(names))

    def _annotation(self, id: str) -> Element:
        file = f"Annotations/{id}.xml"
        root = parse_xml(contents(self.root, file, MAX_XML_BYTES), file)
        if root.tag != "annotation":
            raise DataError(f"{file}: the outermost tag is <{root.tag[:40]}>, expected <annotation>; write it in VOC's form")
        if len(root.findall("object")) > MAX_OBJECTS:
            raise DataError(f"{file}: more than {MAX_OBJECTS} objects; split the image")
        return root

    def _object(self, entry: Element, shown: str) -> Annotated:
        name, box = _text(entry, "name", shown), entry.find("bndbox")
        if name not in self.classes:
            raise DataError(f"{shown}: class {name[:40]!r} is none of the {len(self.classes)} of this dataset; add it to classes.txt")
        if box is None:
            raise DataError(f"{shown}: an object ({name}) without <bndbox>; add its box or remove it")
        corners = (_number(box, edge, shown) for edge in ("xmin", "ymin", "xmax", "ymax"))
        return Annotated(self.classes.index(name), counted_from_one(*corners), (entry.findtext("difficult") or "").strip() == "1")

    def _map(self, kind: str, id: str, size: tuple[int, ...]) -> Tensor | None:
        file = f"{kind}/{id}.png"
        path = inside(self.root, file)
        return read_map(path, size, name=file) if path.is_file() else None

    def _semantic(self, id: str, size: tuple[int, ...]) -> Tensor | None:
        semantic = self._map("SegmentationClass", id, size) if self.semantic_classes else None
        known = {*range(len(self.semantic_classes)), IGNORE}
        strange = set() if semantic is None else set(np.unique(semantic).tolist()) - known
        if strange:
            expected = f"0..{len(self.semantic_classes) - 1} and {IGNORE}"
            raise DataError(f"SegmentationClass/{id}.png: value {min(strange)}, expected {expected}; complete classes.txt")
        return semantic


def parse_xml(data: bytes, shown: str) -> Element:
    """The outermost element of an XML file that anyone may have written.

    A DOCTYPE is refused, and with it all entities and references to elsewhere; so is deep nesting.
    """
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise DataError(f"{shown}: tags are nested more than {MAX_DEPTH} deep; expected an annotation in VOC's form")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def doctype(*_: object) -> None:
        raise DataError(f"{shown}: has a DOCTYPE, which may hide entities and is not read; remove it")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, doctype
    try:
        parser.Parse(data, True)
    except DataError:
        raise
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise DataError(f"{shown}: not well-formed XML ({error}); repair the file or take it out of ImageSets") from None
    return builder.close()


def _check_size(annotation: Element, size: tuple[int, ...], shown: str) -> None:
    """Boxes drawn on a picture of another size would lie anywhere; a size of 0 or none at all says nothing."""
    stated = annotation.find("size")
    if stated is None:
        return
    width, height = (_number(stated, side, shown) for side in ("width", "height"))
    if width > 0 and height > 0 and (height, width) != tuple(size):
        raise DataError(f"{shown}: made for {width:g} x {height:g} pixels, the picture has {size[1]} x {size[0]}; use the original picture")


def _text(parent: Element, tag: str, shown: str) -> str:
    text = (parent.findtext(tag) or "").strip()
    if not text:
        raise DataError(f"{shown}: <{parent.tag}> without <{tag}>; add it")
    return text


def _number(parent: Element, tag: str, shown: str) -> float:
    text = _text(parent, tag, shown)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{shown}: <{tag}> is {text[:40]!r}, expected a number; correct it")
    return number


def _listed_classes(root: Path) -> tuple[str, ...]:
    """Classes as a file lists them; empty where there is none."""
    file = next((file for file in CLASS_FILES if (root / file).is_file()), None)
    return () if file is None else class_list(lines(root, file), file)


def class_list(rows: list[str], file: str) -> tuple[str, ...]:
    """Names in the order of their ids; without ids in the order of the lines."""
    rows = [row for row in rows if not row.startswith("#")]
    numbered = [re.fullmatch(r"(\d{1,3})\s+(.+)", row) for row in rows]
    pairs = [(int(match[1]), match[2]) for match in numbered if match] if all(numbered) else list(enumerate(rows))
    named = sorted((number, name) for number, name in pairs if name not in NOT_A_CLASS)
    names = unique([name for _, name in named], file)
    if not names or (all(numbered) and [number for number, _ in named] != list(range(1, len(named) + 1))):
        raise DataError(f"{file}: expected one class a line, 'name' or 'id name' with ids 1, 2, 3, ...; correct it")
    return tuple(names)


def _splits(root: Path, kind: str) -> dict[str, str]:
    """Split to its list in ImageSets/KIND; lists of single classes ("dog_train") are no splits."""
    stems = {path.stem for path in (root / "ImageSets" / kind).glob("*.txt")}
    return {stem: f"{kind}/{stem}" for stem in stems if stem.rpartition("_")[2] not in stems - {stem}}


@LAYOUTS.register("voc")
def open_voc(path: str, split: str | None, options: Mapping[str, str]) -> Dataset:
    """Splits are those of ImageSets/Main, else of ImageSets/Segmentation; without either it is everything in Annotations.

    ``#Segmentation/val`` is that list beside Main: in VOC itself the images that have class maps.
    """
    no_options(options, "voc")
    root = folder(path, "voc", "JPEGImages", "Annotations")
    segmentation = _splits(root, "Segmentation")
    splits = _splits(root, "Main") or segmentation
    if not splits and split is None:
        return Voc(root, None, f"voc:{path}")
    if split is not None:
        splits |= {entry: entry for entry in segmentation.values()}
    split = choose_split(split, splits, "voc")
    return Voc(root, splits[split], f"voc:{path}#{split}")
