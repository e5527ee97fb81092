"""Predictions that lie on disk, in place of a model: what another program found on the images of a dataset.

A folder of one text file an image id, with lines ``class confidence left top right bottom``; a folder of one PNG of
class ids an image; or COCO's results file.  ``read_stored`` tells which.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from ..data.base import Dataset, contents, inside
from ..data.coco import mask_of
from ..data.image import read_map
from ..data.objects import MAX_OBJECTS, Box, check_room, counted_from_one
from ..data.relabel import ALIASES
from ..errors import DataError
from ..types import IGNORE, Prediction, Sample

MAX_TEXT_BYTES = 2**22
MAX_JSON_BYTES = 2**30
FAR = 1e6
"""No edge of a box lies so many pixels away."""

COUNTED_FROM_ONE = ("voc", "penn-fudan")
"""Layouts in which a box counts pixels from 1 and includes its last one; text files beside them do the same."""

LINE = "class confidence left top right bottom"

Found = tuple[int, float, Box]
"""Class index, score, xyxy in pixel edges."""


@runtime_checkable
class Stored(Protocol):
    """Predictions of one task; ``of`` gives that for a sample, or raises DataError where there is none.

    ``unused`` says in one sentence each what lies there and was not asked for.
    """

    name: str
    task: str
    classes: tuple[str, ...]

    def of(self, sample: Sample) -> Prediction: ...

    def unused(self) -> list[str]: ...


def read_stored(path: str | Path, dataset: Dataset, mapping: Mapping[str, str] | None = None) -> Stored:
    """The predictions in ``path`` for the items of ``dataset``; ``mapping`` is that of ``Relabel``, data class to theirs.

    Raises DataError with file and line for what cannot be read as a prediction.
    """
    place = Path(path).expanduser()
    if mapping and not (place.is_dir() and any(place.glob("**/*.txt"))):
        raise DataError(f"predictions {str(path)!r}: hold class ids of the data, which need no classes map; leave it out")
    if place.is_file() and place.suffix.lower() == ".json":
        return CocoResults(place, dataset)
    if not place.is_dir():
        came = "a file that is no .json" if place.is_file() else "no such folder or file"
        raise DataError(
            f"predictions {str(path)!r}: {came}; expected a folder of .txt or .png files, one an image id, or COCO results .json"
        )
    kinds = {suffix for suffix in (".txt", ".png") if any(place.glob(f"**/*{suffix}"))}
    if len(kinds) != 1:
        came = "both .txt and .png files" if kinds else "neither .txt nor .png files"
        raise DataError(f"predictions {str(path)!r}: holds {came}; expected boxes in .txt or class maps in .png, one file an image id")
    return TextBoxes(place, dataset, mapping) if kinds == {".txt"} else PngMaps(place, dataset)


class TextBoxes:
    """Boxes in text files; a file without lines says that nothing was found, an image without a file was not looked at.

    Corners count as those of the dataset's layout do: from 1, with the last pixel included, in VOC's, else pixel edges.
    ``classes`` are the names in the files; a class of the data that none of them means stands under its own name.
    """

    task = "detection"

    def __init__(self, root: Path, dataset: Dataset, mapping: Mapping[str, str] | None = None) -> None:
        self.name, self.root = str(root), root
        self.from_one = dataset.name.partition(":")[0] in COUNTED_FROM_ONE
        self._known = {canonical(name) for name in (*dataset.classes, *(mapping or {}).values())}
        rows = {id: self._file(f"{id}.txt") for id in dataset.ids if os.path.isfile(inside(root, f"{id}.txt"))}
        if not rows:
            raise DataError(f"{root}: no text file is named after an item of {dataset.name}; expected e.g. {dataset.ids[0]}.txt")
        names = [*(mapping or {}).values(), *sorted({name for found in rows.values() for name, _, _ in found})]
        self.classes = tuple(_merged(dataset.classes, names, mapping or {}))
        index = {name: place for place, name in enumerate(self.classes)}
        self._found = {id: [(index[name], score, box) for name, score, box in found] for id, found in rows.items()}
        self._strange = _strangers(root, ".txt", dataset.ids)

    def of(self, sample: Sample) -> Prediction:
        if sample.id not in self._found:
            raise DataError(f"{sample.id}: no file {sample.id}.txt among the predictions; an empty one says that nothing was found")
        return _boxed(self._found[sample.id], self.classes, sample)

    def unused(self) -> list[str]:
        return self._strange

    def _file(self, entry: str) -> list[tuple[str, float, Box]]:
        rows = contents(self.root, entry, MAX_TEXT_BYTES).decode("utf-8-sig", errors="replace").splitlines()
        found = [self._line(row, f"{entry}, line {number}") for number, row in enumerate(rows, 1) if row.strip()]
        if len(found) > MAX_OBJECTS:
            raise DataError(f"{entry}: {len(found)} boxes; at most {MAX_OBJECTS} of an image are read, so leave the worst out")
        return found

    def _line(self, row: str, shown: str) -> tuple[str, float, Box]:
        words = row.split()
        name, numbers = " ".join(words[:-5]), words[-5:]
        if len(words) < 6 or (len(words) > 6 and canonical(name) not in self._known):
            raise DataError(f"{shown}: {len(words)} columns, {row.strip()[:40]!r}; expected six, {LINE}")
        score, left, top, right, bottom = (_number(word, column, shown) for word, column in zip(numbers, LINE.split()[1:], strict=True))
        box = counted_from_one(left, top, right, bottom) if self.from_one else (left, top, right, bottom)
        return name, _score(score, shown), box


def _merged(data_classes: Sequence[str], names: Sequence[str], mapping: Mapping[str, str]) -> dict[str, None]:
    """In the order of the data: the name in the files where one means the class, else the data's; then the other names."""
    alike = {canonical(name): name for name in reversed(names)}
    meant = [mapping.get(each) or (each if each in names else alike.get(canonical(each), each)) for each in data_classes]
    return dict.fromkeys([*meant, *names])


class CocoResults:
    """COCO's results: a list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"[, "segmentation"]}.

    An image without an entry has no detections.  Images are found by their COCO id or by the item's id.  Category ids
    are those of the dataset's own file, and of a dataset in another layout the numbers of its classes from 1.
    """

    def __init__(self, path: Path, dataset: Dataset) -> None:
        self.name, self.classes = str(path), dataset.classes
        categories = _categories(dataset)
        rows = _json_list(path)
        self.task = "instances" if rows and all(isinstance(row, dict) and row.get("segmentation") for row in rows) else "detection"
        self._found: dict[str, list[tuple[Found, Any]]] = {}
        for number, row in enumerate(rows):
            image, found = _coco_row(row, categories, f"{path.name}, entry {number}")
            self._found.setdefault(image, []).append((found, row.get("segmentation")))
        self._used: set[str] = set()

    def of(self, sample: Sample) -> Prediction:
        keys = [str(sample.tags.get("image_id", sample.id)), sample.id, sample.id.lstrip("0")]
        key = next((key for key in keys if key in self._found), None)
        if key is None:
            return _boxed([], self.classes, sample, self.task)
        self._used.add(key)
        rows = self._found[key]
        masks = [segmentation for _, segmentation in rows] if self.task == "instances" else None
        return _boxed([found for found, _ in rows], self.classes, sample, self.task, masks)

    def unused(self) -> list[str]:
        left = len(self._found) - len(self._used)
        first = next((key for key in self._found if key not in self._used), "")
        return [f"{left} images of the predictions are not in the data and were passed over, the first {first!r}"] if left else []


class PngMaps:
    """One PNG an image whose pixels are class ids, the dataset's ``semantic_classes`` counted from 0."""

    task = "segmentation"

    def __init__(self, root: Path, dataset: Dataset) -> None:
        if not dataset.semantic_classes:
            raise DataError(f"{root}: class maps, but {dataset.name} has no semantic maps to compare them with; take other data, or boxes")
        self.name, self.root, self.classes = str(root), root, dataset.semantic_classes
        self._strange = _strangers(root, ".png", dataset.ids)

    def of(self, sample: Sample) -> Prediction:
        entry, size = f"{sample.id}.png", (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
        path = inside(self.root, entry)
        if not os.path.isfile(path):
            raise DataError(f"{sample.id}: no file {entry} among the predictions; add it")
        semantic = read_map(path, size, name=entry)
        if (most := int(semantic.max())) >= len(self.classes):
            void = " (void is no answer)" if most == IGNORE else ""
            raise DataError(f"{entry}: class id {most}{void}; expected 0 to {len(self.classes) - 1}, the classes in the data's order")
        areas = torch.bincount(semantic.flatten(), minlength=len(self.classes))
        order = areas.argsort(descending=True, stable=True)[: int((areas > 0).sum())]
        return Prediction(self.task, self.classes, size, order, torch.ones(len(order)), semantic=semantic)

    def unused(self) -> list[str]:
        return self._strange


def _boxed(
    rows: Sequence[Found], classes: tuple[str, ...], sample: Sample, task: str = "detection", masks: Sequence[Any] | None = None
) -> Prediction:
    """By falling score."""
    size = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
    scores = np.array([score for _, score, _ in rows], float)
    order = np.argsort(-scores, kind="stable")
    drawn = None
    if task == "instances":
        check_room(len(rows), size, sample.id)
        drawn = torch.zeros((len(rows), *size), dtype=torch.bool)
        for place, row in enumerate(order if masks else []):
            drawn[place] = torch.from_numpy(_mask(masks[row], size, sample.id)) if masks else False
    return Prediction(
        task, classes, size,
        torch.tensor([rows[row][0] for row in order], dtype=torch.int64),
        torch.from_numpy(scores[order]),
        boxes=torch.tensor([rows[row][2] for row in order], dtype=torch.float64).reshape(-1, 4),
        masks=drawn,
    )  # fmt: skip


def _mask(segmentation: Any, size: tuple[int, int], shown: str) -> np.ndarray:
    try:
        return np.asarray(mask_of(segmentation, size), bool)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise DataError(f"{shown}: a segmentation among the predictions cannot be read ({error}); write polygons or run lengths") from None


def _json_list(path: Path) -> list[Any]:
    try:
        rows = json.loads(contents(path.parent, path.name, MAX_JSON_BYTES))
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name}: not JSON that can be read ({error}); expected COCO's results, a list") from None
    if not isinstance(rows, list):
        raise DataError(f"{path.name}: holds a {type(rows).__name__}; expected COCO's results, a list")
    return rows


def _coco_row(row: Any, categories: Mapping[int, int], shown: str) -> tuple[str, Found]:
    if not isinstance(row, dict) or type(row.get("image_id")) not in (int, str):
        raise DataError(f"{shown}: no image_id; expected image_id, category_id, bbox and score")
    if type(category := row.get("category_id")) is not int or category not in categories:
        raise DataError(f"{shown}: category_id {str(category)[:40]!r} is none of the {len(categories)} of the data; correct it")
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise DataError(f"{shown}: a bbox that is not [x, y, width, height]; correct it")
    x, y, width, height = (_number(each, "bbox", shown) for each in box)
    if width < 0 or height < 0:
        raise DataError(f"{shown}: a bbox of {width:g} x {height:g} pixels; expected [x, y, width, height]")
    score = _score(_number(row.get("score"), "score", shown), shown)
    return str(row["image_id"]), (categories[category], score, (x, y, x + width, y + height))


def _categories(dataset: Dataset) -> dict[int, int]:
    """Category id to class index."""
    root, split = Path(getattr(dataset, "root", "")), getattr(dataset, "split", None)
    files = [f"annotations/{kind}_{split}.json" for kind in ("instances", "panoptic")]
    file = next((file for file in files if (root / file).is_file()), None)
    if file is None or not dataset.name.startswith("coco:"):
        return {number: index for index, number in enumerate(range(1, len(dataset.classes) + 1))}
    rows = json.loads(contents(root, file, MAX_JSON_BYTES))["categories"]
    return {row["id"]: dataset.classes.index(row["name"]) for row in rows if row["name"] in dataset.classes}


def _number(value: Any, column: str, shown: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) or value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) < FAR:
        raise DataError(f"{shown}: {column} is {str(value)[:40]!r}; expected a number of pixels or a confidence, correct it")
    return number


def _score(score: float, shown: str) -> float:
    if not 0 <= score <= 1:
        raise DataError(f"{shown}: confidence {score:g}; expected 0 to 1, so scale the scores")
    return score


def _strangers(root: Path, suffix: str, ids: Sequence[str]) -> list[str]:
    known = set(ids)
    names = sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.glob(f"**/*{suffix}"))
    left = [name for name in names if name not in known]
    return [f"{len(left)} files of the predictions belong to no item and were passed over, the first {left[0]}{suffix}"] if left else []


def canonical(name: str) -> str:
    """One word for all spellings of a class that ``Relabel`` takes for the same.

    >>> canonical("TV_monitor") == canonical("tvmonitor")
    True
    """
    loose = " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
    return next((group[0] for group in ALIASES if loose in group), loose)
