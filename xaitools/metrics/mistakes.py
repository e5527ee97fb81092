"""What a model got wrong in one image, in the few words by which a person looks for images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..types import IGNORE, Prediction, Sample
from .confusion import FATES, KINDS, kinds
from .matching import SIZES, array, box_pairs

ERRORS = ("missed", "wrong class", "false alarm")


class Event(NamedTuple):
    """One thing that was annotated or found.

    what  found, or one of ERRORS
    name  the class: of the truth, of a false alarm that of what was found
    size  small, medium or large, COCO's of boxes and of segments in square pixels; "" of a whole image
    """

    what: str
    name: str
    size: str


def events(sample: Sample, prediction: Prediction, *, iou: float = 0.5, score: float = 0.5) -> tuple[Event, ...]:
    """What became of all that is annotated in an image, and what was found beside it.  Indices of ``sample`` must be the model's.

    detection       each truth is found or missed (see ``confusion``: right from IoU ``iou`` on, with at least ``score``); a
                    detection on a truth of another class, in the right place or nearly, is a wrong class; one on nothing a
                    false alarm.  A truth may be missed and its detection have the wrong class: two events.
    segmentation    each annotated class is found where most of its pixels get it; else missed where most become background,
                    and a wrong class where most become something else.  A predicted class is a false alarm where most of
                    its pixels are background.  Where the model has no background there are only wrong classes.
    classification  the image is found or of the wrong class

    Raises DataError where the sample lacks the truth.
    """
    if prediction.task == "segmentation":
        return tuple(_of_segments(sample, prediction))
    if prediction.task == "classification":
        if sample.label is None:
            return ()
        right = int(prediction.labels[0]) == sample.label
        return (Event("found" if right else "wrong class", prediction.classes[sample.label], ""),)
    return tuple(_of_boxes(sample, prediction, iou, score))


def _of_boxes(sample: Sample, prediction: Prediction, iou: float, score: float) -> Iterator[Event]:
    pairs, one = box_pairs(sample, prediction), kinds(sample, prediction, iou=iou, score=score)
    truths = pairs.truth_area[~pairs.ignore]
    for label, fate, area in zip(one.truth.tolist(), one.fate.tolist(), truths.tolist(), strict=True):
        yield Event("missed" if FATES[fate] != "found" else "found", prediction.classes[label], size_of(area))
    for label, kind, area in zip(one.label.tolist(), one.kind.tolist(), pairs.area.tolist(), strict=False):  # kinds has the first ones
        if KINDS[kind] in ("wrong_class", "both_wrong"):
            yield Event("wrong class", prediction.classes[label], size_of(area))
        elif KINDS[kind] == "background":
            yield Event("false alarm", prediction.classes[label], size_of(area))


def _of_segments(sample: Sample, prediction: Prediction) -> Iterator[Event]:
    if sample.semantic is None or prediction.semantic is None:
        raise DataError(f"{sample.id}: no semantic map; a segmentation model is measured on data that has one")
    truth, guess = array(sample.semantic), array(prediction.semantic)
    known, nothing = truth != IGNORE, prediction.background
    for label in _objects(truth[known], nothing):
        most = _most(guess[truth == label])
        what = "found" if most == label else "missed" if most == nothing else "wrong class"
        yield Event(what, prediction.classes[label], size_of(float((truth == label).sum())))
    for label in _objects(guess[known], nothing):
        here = known & (guess == label)
        if nothing is not None and _most(truth[here]) == nothing:
            yield Event("false alarm", prediction.classes[label], size_of(float(here.sum())))


def _objects(labels: NDArray, nothing: int | None) -> list[int]:
    return [label for label in np.unique(labels).tolist() if label != nothing]


def _most(labels: NDArray) -> int:
    return int(np.bincount(labels).argmax())


def size_of(area: float) -> str:
    """The smallest of COCO's sizes that holds ``area`` in square pixels.

    >>> size_of(1024.0), size_of(1025.0), size_of(10_000)
    ('small', 'medium', 'large')
    """
    return next(name for name, (_, high) in SIZES.items() if area <= high)
