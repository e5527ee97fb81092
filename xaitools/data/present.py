"""What there is to see in an image, and to take out of it: objects, segments, and what is behind them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..types import IGNORE, Prediction, Sample

BACKGROUND = "background"
"""A class of this name is no segment."""


class Objects(NamedTuple):
    """(M, H, W) bool, one mask an object, and the classes (M,) int64, -1 where nobody says; of ``semantic`` they index the map's."""

    masks: Tensor
    labels: Tensor
    semantic: bool = False


@dataclass(frozen=True, eq=False)
class Part:
    """Something that can be taken out of an image: the pixels (H, W) of an object, or of a class that is none.

    kind  the name of its class; objects have a number in their ``name``, "car 0", segments have not
    """

    name: str
    kind: str
    mask: Tensor
    thing: bool = True


@dataclass(frozen=True, eq=False)
class Contents:
    """The parts of an image, objects before segments, and the pixels (H, W) bool that no object covers."""

    parts: tuple[Part, ...]
    background: Tensor

    @property
    def things(self) -> Tensor:
        """(H, W) bool: all objects."""
        return ~self.background


def objects(sample: Sample, things: Sequence[int]) -> Objects:
    """The objects of ``sample``: masks, else connected pieces of the semantic classes ``things``, else boxes.

    Raises DataError where it has none of them.
    """
    if sample.masks is not None:
        return Objects(sample.masks, _labels(sample, len(sample.masks)))
    if sample.semantic is not None and len(things):
        return _pieces(sample.semantic, things)
    if sample.boxes is not None:
        return Objects(rectangles(sample.boxes, sample.image.shape[-2:]), _labels(sample, len(sample.boxes)))
    raise DataError("neither masks nor boxes nor a map with object classes")


def annotated(
    sample: Sample, classes: Sequence[str] = (), semantic_classes: Sequence[str] = (), things: Collection[str] | None = None
) -> Contents | None:
    """What the annotation of ``sample`` says; None where it has neither masks nor boxes nor a class map.

    classes, semantic_classes, things  those of the dataset (see ``Dataset``).  Where ``things`` is None nobody knows which
                                       classes of a map are objects: masks or boxes are, and without these every class is.
    A class that is no object is one segment, however many pieces it has.
    """
    parts: list[Part] = []
    known = [index for index, name in enumerate(semantic_classes) if name in (things or ())]
    try:
        masks, labels, semantic = objects(sample, known)
    except DataError:
        if sample.semantic is None:
            return None
    else:
        names = semantic_classes if semantic else classes
        parts = _numbered([_name(names, label) for label in labels.tolist()], masks)
        if things is None or sample.semantic is None:
            return Contents(tuple(parts), _uncovered(parts, sample.image.shape[-2:]))
    assert sample.semantic is not None
    segments = [
        Part(name, name, sample.semantic == index, thing=not things)
        for index in sample.semantic.unique().tolist()
        if index != IGNORE and index not in known and (name := _name(semantic_classes, index)).casefold() != BACKGROUND
    ]
    return Contents((*parts, *segments), _uncovered([*parts, *segments], sample.image.shape[-2:]))


def predicted(prediction: Prediction) -> Contents | None:
    """What a model sees: its instances, boxes or segments but the background; None where it names the image alone."""
    names = [prediction.classes[label] for label in prediction.labels.tolist()]
    if prediction.boxes is not None:
        masks = rectangles(prediction.boxes, prediction.image_size) if prediction.masks is None else prediction.masks
        parts = _numbered(names, masks)
    elif prediction.semantic is not None:
        parts = [
            Part(name, name, prediction.semantic == label)
            for name, label in zip(names, prediction.labels.tolist(), strict=True)
            if label != prediction.background and name.casefold() != BACKGROUND
        ]
    else:
        return None
    return Contents(tuple(parts), _uncovered(parts, prediction.image_size))


def rectangles(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """(M, H, W) bool: the pixels that boxes (M, 4) touch."""
    masks = torch.zeros((len(boxes), *size), dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.tolist(), strict=True):
        mask[max(0, int(top)) : int(np.ceil(bottom)), max(0, int(left)) : int(np.ceil(right))] = True
    return masks


def _numbered(names: Sequence[str], masks: Tensor) -> list[Part]:
    return [Part(f"{name} {row}", name, mask) for row, (name, mask) in enumerate(zip(names, masks, strict=True))]


def _labels(sample: Sample, count: int) -> Tensor:
    return torch.full((count,), -1) if sample.labels is None else sample.labels


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if 0 <= index < len(names) else "object" if index < 0 or not names else f"class {index}"


def _uncovered(parts: Sequence[Part], size: Sequence[int]) -> Tensor:
    covered = torch.zeros(tuple(size), dtype=torch.bool)
    for part in parts:
        if part.thing:
            covered |= part.mask
    return ~covered


def _pieces(semantic: Tensor, things: Sequence[int]) -> Objects:
    """Connected pieces of each object class."""

    def pieces() -> Iterator[tuple[Tensor, int]]:
        for index in things:
            count, labels = cv2.connectedComponents((semantic == index).numpy().astype(np.uint8))
            yield from ((torch.from_numpy(labels == label), index) for label in range(1, count))

    found = list(pieces())
    masks = torch.stack([mask for mask, _ in found]) if found else torch.zeros((0, *semantic.shape), dtype=torch.bool)
    return Objects(masks, torch.tensor([index for _, index in found], dtype=torch.int64), semantic=True)
