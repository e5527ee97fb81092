"""What is seen of one image when a dataset is looked through: two small pictures, and what the model got wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import sources
from cached import Loaded, answered
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from xaitools.data.relabel import Relabel
from xaitools.errors import DataError, XaiError
from xaitools.metrics.accuracy import BOXED, METRIC, Table, image_statistics
from xaitools.metrics.confusion import Confusion, Kinds, kinds, label_table
from xaitools.metrics.mistakes import Event, events
from xaitools.metrics.statistics import unit_weights
from xaitools.report.colours import CLASSES
from xaitools.types import Prediction, Sample

WIDE = 240
"""Pixels of the longer side of a small picture; smaller images keep their pixels, enlarged."""
TINT = 0.55


@dataclass(frozen=True, eq=False)
class Look:
    """One image of a dataset as a model sees it.

    truth, guess  (h, w, 3) uint8 with what is annotated, and what is found, in the colours of the model's classes
    said          what is found in words
    events        what went wrong; empty where the data has no truth for this model
    kinds         of boxes, and ``row`` of labels: what the confusion of many images is made of; None without truth
    """

    id: str
    truth: NDArray[np.uint8]
    guess: NDArray[np.uint8]
    said: str
    events: tuple[Event, ...] = ()
    kinds: Kinds | None = None
    row: Mapping[str, NDArray] | None = None


@lru_cache(maxsize=8)
def relabelling(text: str, task: str, classes: tuple[str, ...]) -> Relabel | DataError:
    """The truth of a dataset in the words of a model, or why there is none."""
    try:
        return Relabel(sources.dataset(text), task, classes)
    except DataError as error:
        return error


@lru_cache(maxsize=256)
def look(loaded: Loaded, text: str, item: int, score: float) -> Look | str:
    """The image ``item`` of the dataset, or the one line that says why it cannot be looked at; boxes from ``score`` on count."""
    data, relabel = sources.dataset(text), relabelling(text, loaded.model.task, loaded.model.classes)
    try:
        sample = data[item]
        known = relabel(sample) if isinstance(relabel, Relabel) else None
        prediction = answered(loaded, sample.image)
        small = _small(sample.image)
        found = _with_found(small, prediction, score)
        facts: dict[str, Any] = {"id": sample.id, "truth": small, "guess": found, "said": said(prediction, score)}
        if known is None:
            return Look(**facts)
        facts |= {"truth": _with_truth(small, known, prediction), "events": events(known, prediction, score=score)}
        if loaded.model.task in BOXED:
            return Look(**facts, kinds=kinds(known, prediction, score=score))
        return Look(**facts, row=image_statistics(known, prediction))
    except XaiError as error:
        return str(error)


def confusion(looks: list[Look], task: str, classes: tuple[str, ...], score: float) -> dict[str, Any] | None:
    """The confusion of many images as ``xaitools evaluate`` has it; None where none has truth."""
    known = [each for each in looks if each.kinds is not None or each.row is not None]
    if not known:
        return None
    if task not in BOXED:
        return label_table([each.row for each in known if each.row], classes, "pixels" if task == "segmentation" else "images")
    found = Confusion(classes, score=score)
    for each in known:
        if each.kinds is not None:
            found.count(each.kinds)
    return found.document(unit_weights([each.id for each in known], None, seed=0, replicates=1000))


def right(loaded: Loaded, text: str, sample: Sample, prediction: Prediction) -> str:
    """How right the model is on this one image of the dataset; nothing where its truth is not the model's."""
    relabel = relabelling(text, loaded.model.task, loaded.model.classes)
    if isinstance(relabel, DataError):
        return ""
    value = Table(loaded.model.task, loaded.model.classes, [image_statistics(relabel(sample), prediction)]).metric()
    return f"{METRIC[loaded.model.task]} {value:.2f} on this one image"


def said(prediction: Prediction, score: float) -> str:
    """What is found, in few words."""
    if prediction.boxes is not None:
        names = [prediction.classes[label] for label, sure in zip(prediction.labels.tolist(), prediction.scores.tolist(), strict=True)
                 if sure >= score]  # fmt: skip
        return ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names)) or "nothing"
    if prediction.semantic is not None:
        return ", ".join(prediction.classes[label] for label in prediction.labels.tolist() if label != prediction.background) or "nothing"
    return f"{prediction.classes[int(prediction.labels[0])]} {float(prediction.scores[0]):.2f}"


def colour_of(label: int) -> tuple[int, int, int]:
    code = CLASSES[label % len(CLASSES)].lstrip("#")
    return int(code[:2], 16), int(code[2:4], 16), int(code[4:], 16)


def _small(image: Tensor) -> NDArray[np.uint8]:
    picture = Image.fromarray(sources.as_rgb(image))
    scale = WIDE / max(picture.size)
    if scale > 1:
        picture = picture.resize([side * max(1, int(scale)) for side in picture.size], Image.Resampling.NEAREST)
    else:
        picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _with_truth(small: NDArray[np.uint8], sample: Sample, prediction: Prediction) -> NDArray[np.uint8]:
    if prediction.semantic is not None and sample.semantic is not None:
        return _tinted(small, sample.semantic, len(prediction.classes), prediction.background)
    if prediction.boxes is not None and sample.boxes is not None and sample.labels is not None:
        return _boxed(small, sample.boxes, sample.labels, prediction.image_size)
    return small


def _with_found(small: NDArray[np.uint8], prediction: Prediction, score: float) -> NDArray[np.uint8]:
    if prediction.semantic is not None:
        return _tinted(small, prediction.semantic, len(prediction.classes), prediction.background)
    if prediction.boxes is not None:
        sure = prediction.scores >= score
        return _boxed(small, prediction.boxes[sure], prediction.labels[sure], prediction.image_size)
    return small


def _tinted(small: NDArray[np.uint8], semantic: Tensor, classes: int, background: int | None) -> NDArray[np.uint8]:
    """Every class but the background, and what has no label, in its colour."""
    rows, columns = ((np.arange(side) + 0.5) * whole / side for side, whole in zip(small.shape, semantic.shape, strict=False))
    labels = semantic.numpy()[rows.astype(int)][:, columns.astype(int)]
    table = np.array([colour_of(label) for label in range(classes)], float)
    seen = (labels < classes) & (labels != (-1 if background is None else background))
    mixed = (1 - TINT) * small + TINT * table[np.minimum(labels, classes - 1)]
    return np.where(seen[..., None], mixed, small).round().astype(np.uint8)


def _boxed(small: NDArray[np.uint8], boxes: Tensor, labels: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
    picture = Image.fromarray(small)
    draw, (down, across) = ImageDraw.Draw(picture), (small.shape[0] / size[0], small.shape[1] / size[1])
    for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist(), strict=True):
        corners = (x1 * across, y1 * down, max(x1 * across, x2 * across - 1), max(y1 * down, y2 * down - 1))
        draw.rectangle(corners, outline=(0, 0, 0), width=4)
        draw.rectangle([corners[0] + 1, corners[1] + 1, *(max(low, high - 1) for low, high in zip(corners[:2], corners[2:], strict=True))],
                       outline=colour_of(label), width=2)  # fmt: skip
    return np.asarray(picture)
