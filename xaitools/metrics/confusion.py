"""What each detection is, if not right, and what became of each truth.

The kinds are those of TIDE (Bolya et al. 2020), which refine Hoiem et al. 2012.  A detection is the first of these:

right          it is the first, by score, on the truth of its class that it overlaps most, with IoU at least t
ignored        that truth is marked difficult or a crowd; it counts neither way
duplicate      a detection with a higher score was there before
wrong_place    IoU from 0.1 to t with a truth of its class
wrong_class    IoU at least t with a truth of another class
both_wrong     IoU from 0.1 to t with a truth of another class
background     IoU below 0.1 with every truth

Where we differ: right and duplicate follow VOC's matching, so that precision and average precision count the same
detections as right (TIDE follows COCO's); duplicates are told before wrong places; an IoU of exactly t is never a
wrong place; only detections from a score on are looked at (TIDE takes all).  Hoiem calls duplicates and wrong places
together localisation errors, and splits wrong classes into similar and other ones, for which classes alone do not do.

A truth is found, or missed for a reason: a detection lies on it in the wrong place, one has the wrong class, or it is
unseen, which alone is TIDE's Missed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..types import Prediction, Sample
from .accuracy import Number
from .matching import Flags, box_pairs, voc_match
from .ratios import Floats, defined, ratio, share_influence
from .statistics import draw, told_share

KINDS = ("right", "ignored", "duplicate", "wrong_place", "wrong_class", "both_wrong", "background")
FATES = ("found", "wrong_place", "wrong_class", "unseen")

FOREGROUND = 0.1
"""From this IoU on a detection has to do with an object."""


class Kinds(NamedTuple):
    """Of one image; ``on`` is the class of the truth that a right or wrong_class detection lies on, else -1.

    kind (D,) index into KINDS, label (D,), on (D,); fate (G,) index into FATES and truth (G,) of the truths that count.
    """

    kind: NDArray
    label: NDArray
    on: NDArray
    fate: NDArray
    truth: NDArray


def kinds(sample: Sample, prediction: Prediction, *, iou: float = 0.5, score: float = 0.5) -> Kinds:
    """What each detection with at least ``score`` is, where an IoU from ``iou`` on is right.  Raises as ``image_statistics``."""
    pairs = box_pairs(sample, prediction)
    count = int((pairs.scores >= score).sum())
    labels, overlap, same = pairs.labels[:count], pairs.iou[:count], pairs.same[:count]
    own, other = np.where(same, overlap, -1.0), np.where(same, -1.0, overlap)
    right, void = (each[:, 0] for each in voc_match(own, pairs.ignore, np.array([iou])))
    most, most_other = own.max(1, initial=-1.0), other.max(1, initial=-1.0)
    tests = [right, void, most >= iou, most >= FOREGROUND, most_other >= iou, most_other >= FOREGROUND]
    kind = np.select(tests, np.arange(len(tests)), len(tests))

    def touched(name: str, overlaps: Floats) -> Flags:
        """(G,) which truths the detections of a kind lie on."""
        marks = np.zeros(len(pairs.truth), bool)
        rows = np.flatnonzero(kind == KINDS.index(name))
        if len(rows):
            marks[overlaps[rows].argmax(1)] = True
        return marks

    reasons = [touched("right", own), touched("wrong_place", own), touched("wrong_class", other)]
    fate = np.select(reasons, np.arange(3), 3)[~pairs.ignore]
    on = np.full(count, -1)
    for name, overlaps in (("right", own), ("wrong_class", other)):
        rows = np.flatnonzero(kind == KINDS.index(name))
        if len(rows):
            on[rows] = pairs.truth[overlaps[rows].argmax(1)]
    return Kinds(kind, labels, on, fate, pairs.truth[~pairs.ignore])


class Confusion:
    """Kinds of many images, counted by class."""

    def __init__(self, classes: Sequence[str], *, iou: float = 0.5, score: float = 0.5) -> None:
        self.classes, self.iou, self.score = tuple(classes), iou, score
        size = len(self.classes)
        self.kinds, self.fates = np.zeros((size, len(KINDS)), int), np.zeros((size, len(FATES)), int)
        self.table = np.zeros((size + 1, size + 1), int)
        self._images: list[tuple[int, int, int]] = []

    def add(self, sample: Sample, prediction: Prediction) -> None:
        self.count(kinds(sample, prediction, iou=self.iou, score=self.score))

    def count(self, one: Kinds) -> None:
        """Adds an image of which ``kinds`` were found at this level and score."""
        np.add.at(self.kinds, (one.label, one.kind), 1)
        np.add.at(self.fates, (one.truth, one.fate), 1)
        np.add.at(self.table, (one.on, one.label), 1)  # row -1 is no truth
        np.add.at(self.table[:, -1], one.truth[one.fate > 0], 1)
        right, ignored = ((one.kind == KINDS.index(name)).sum() for name in ("right", "ignored"))
        self._images.append((int(right), len(one.kind) - int(ignored), len(one.truth)))

    def document(self, weights: NDArray, units: Sequence[str] | None = None) -> dict[str, Any]:
        """Counts, and precision = right / detections and recall = right / truths, with intervals by ``weights`` (B, N) of ``units``.

        Ignored detections and truths count in neither.  ``table``: a row is the class of a truth (the last: on no
        truth), a column that of a detection (the last: the truth is missed).  Each detection stands in one cell, so
        that a column adds up to the detections of its class; diagonal and last column add up to the truths.
        """
        right, detections, truths = np.array(self._images, float).reshape(-1, 3).T
        shares: dict[str, Any] = {}
        for name, whole in (("precision", detections), ("recall", truths)):
            shares[name] = _share(right.sum(), whole.sum())
            number = draw({"": Number(len(right), partial(share_influence, right, whole))}, dict, weights, units)[""]
            shares[f"{name}_ci"] = told_share(number, units)["ci"]
        return {
            "iou": self.iou,
            "score": self.score,
            **shares,
            "detections": int(self.kinds.sum()),
            "truths": int(self.fates.sum()),
            "kinds": _named(KINDS, self.kinds.sum(0)),
            "missed": _missed(self.fates.sum(0)),
            "per_class": {name: self._of_class(index) for index, name in enumerate(self.classes)},
            "table": {
                "rows": [*self.classes, "(no truth)"],
                "columns": [*self.classes, "(missed)"],
                "counts": self.table.tolist(),
            },
        }

    def _of_class(self, index: int) -> dict[str, Any]:
        kinds, fates = self.kinds[index], self.fates[index]
        right = kinds[KINDS.index("right")]
        return {
            "precision": _share(right, kinds.sum() - kinds[KINDS.index("ignored")]),
            "recall": _share(right, fates.sum()),
            "detections": int(kinds.sum()),
            "truths": int(fates.sum()),
            **_named(KINDS, kinds),
            "missed": _missed(fates),
        }


def label_table(rows: Sequence[Mapping[str, NDArray]], classes: Sequence[str], what: str) -> dict[str, Any]:
    """Truth by prediction, from the statistics of classification (counts images) or segmentation (counts pixels).

    A class has precision = right / predicted and recall = right / true; an image whose class the model does not know
    is left out.
    """
    size = len(classes)
    table = np.zeros((size, size), np.int64)
    for row in rows:
        if what == "pixels":
            table += row["confusion"].reshape(size, size)
        elif row["label"][0] >= 0:
            table[row["label"][0], row["guess"][0]] += 1
    right, truths, found = table.diagonal(), table.sum(1), table.sum(0)
    return {
        "counts": what,
        "per_class": {
            name: {"precision": _share(right[i], found[i]), "recall": _share(right[i], truths[i]), "truths": int(truths[i]),
                   "predicted": int(found[i])}
            for i, name in enumerate(classes)
        },
        "table": {"rows": list(classes), "columns": list(classes), "counts": table.tolist()},
    }  # fmt: skip


def _missed(fates: NDArray) -> dict[str, int]:
    return {"all": int(fates[1:].sum()), **_named(FATES[1:], fates[1:])}


def _named(names: Sequence[str], counts: NDArray) -> dict[str, int]:
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def _share(part: float, whole: float) -> float | None:
    return defined(float(ratio(np.array(part), np.array(whole), np.nan)))
