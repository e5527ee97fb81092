"""How right a model is, on any weighting of the images it saw.

``image_statistics`` keeps of one image what the metric needs, and a ``Table`` turns the statistics of N images
into the metric of the whole set.  mIoU and mAP are no means over images, so every bootstrap replicate is counted
again from the statistics; nothing is matched or predicted twice.

All metrics are fractions in [0, 1], higher is better.  NaN (None in dictionaries) means undefined, never zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, ModelError
from ..types import IGNORE, Prediction, Sample
from .average_precision import Boxes
from .matching import IOUS, Statistics, array, bits, box_pairs, coco_match, mask_pairs, rows_of, voc_match
from .ratios import Floats, defined, mean, ratio, share_influence

__all__ = ["IOUS", "METRIC", "Table", "coco_match", "defined", "image_statistics", "metric_at", "voc_match"]

METRIC = {"classification": "top1", "segmentation": "mIoU", "detection": "mAP50", "instances": "mAP50"}
"""The metric that stands for each task in reports."""

UNKNOWN = -1
"""Stands for the label of an image whose class the model does not know; the image does not count."""

REPLICATES_AT_ONCE = 128

TOP = 5
"""Of more classes than this, top-5 is measured too."""


def metric_at(task: str, iou: float) -> str:
    """The metric that stands for ``task`` where boxes count from ``iou`` on.

    >>> metric_at("detection", 0.75), metric_at("segmentation", 0.75)
    ('mAP75', 'mIoU')
    """
    return METRIC[task] if METRIC[task] != "mAP50" else f"mAP{100 * iou:.10g}"


# ---- one image -------------------------------------------------------------------------------------------------


def image_statistics(sample: Sample, prediction: Prediction) -> Statistics:
    """What the metrics need of one image.  The truth in ``sample`` must already be indexed by the model's classes.

    classification          label (1,) or UNKNOWN, guess (1,); of more than TOP classes in_top5 (1,)
    segmentation            confusion (K * K,) int64 pixels, rows truth, columns prediction, IGNORE left out
    detection, instances    score (D,) float32 falling, label (D,) int16, positives (K,) int32 truths that count, and
                            (D,) int16 bits over ``IOUS``: matched (right) and void (counts neither way) by VOC's
                            rule, coco_matched and coco_void by COCO's; with masks on both sides also mask_matched,
                            mask_void, coco_mask_matched and coco_mask_void, the same rules on mask IoU

    Raises DataError where the sample lacks the truth and ModelError where the prediction has another size.
    """
    if prediction.task == "segmentation":
        return _confusion(sample, prediction)
    if prediction.task == "classification":
        label = UNKNOWN if sample.label is None else sample.label
        guesses = array(prediction.labels[:TOP])
        among = {"in_top5": np.array([label in guesses])} if len(prediction.classes) > TOP else {}
        return {"label": np.array([label]), "guess": guesses[:1], **among}
    return _matchings(sample, prediction)


def _confusion(sample: Sample, prediction: Prediction) -> Statistics:
    if sample.semantic is None or prediction.semantic is None:
        raise DataError(f"{sample.id}: no semantic map; a segmentation model is measured on data that has one")
    truth, guess, size = array(sample.semantic), array(prediction.semantic), len(prediction.classes)
    if truth.shape != guess.shape:
        raise ModelError(f"{sample.id}: the predicted map is {guess.shape}, the truth {truth.shape}; a model answers at the image's size")
    labelled = truth != IGNORE
    pairs = truth[labelled] * size + guess[labelled]
    return {"confusion": np.bincount(pairs, minlength=size * size).astype(np.int64)}


def _matchings(sample: Sample, prediction: Prediction) -> Statistics:
    pairs = box_pairs(sample, prediction)
    iou, masks = pairs.within(pairs.iou), mask_pairs(sample, prediction, pairs)
    statistics = {
        **rows_of(pairs, len(prediction.classes)),
        **bits("", *voc_match(iou, pairs.ignore)),
        **bits("coco_", *coco_match(iou, pairs.within(pairs.inside), pairs.ignore)),
    }
    if masks is not None:
        iou = masks.within(masks.iou)
        statistics |= bits("mask_", *voc_match(iou, masks.ignore))
        statistics |= bits("coco_mask_", *coco_match(iou, masks.within(masks.inside), masks.ignore))
    return statistics


# ---- many images -----------------------------------------------------------------------------------------------


class Table:
    """Statistics of N images, and the metric of any weighting of them.

    ``level`` is the bit at which the matchings of boxes are read, IoU 0.5 in those of ``image_statistics``.

    >>> rows = [{"label": np.array([0]), "guess": np.array([0])}, {"label": np.array([1]), "guess": np.array([0])}]
    >>> table = Table("classification", ["cat", "dog"], rows)
    >>> table.metric(), table.metric(np.array([[3, 1]]))
    (0.5, array([0.75]))
    """

    def __init__(self, task: str, classes: Sequence[str], rows: Sequence[Mapping[str, NDArray]], level: int = 0) -> None:
        self.task, self.classes, self.n = task, tuple(classes), len(rows)
        self._counts: _Counts = Boxes(rows, len(classes), level) if task in BOXED else _COUNTS[task](rows, len(classes))

    @overload
    def metric(self) -> float: ...

    @overload
    def metric(self, weights: NDArray) -> Floats: ...

    def metric(self, weights: NDArray | None = None) -> float | Floats:
        """``METRIC[task]``: a float; with ``weights`` (B, N), non-negative image multiplicities, (B,).

        A class without truth in a replicate is left out of its mean; NaN where none has any.
        """
        if weights is None:
            return float(self._counts.overall(self._once())[0])
        if weights.ndim != 2 or weights.shape[1] != self.n:
            raise ValueError(f"weights are {weights.shape}; expected (B, {self.n}), one column an image")
        parts = range(0, len(weights), REPLICATES_AT_ONCE)
        replicates = [weights[start : start + REPLICATES_AT_ONCE].T.astype(np.float64, order="C") for start in parts]
        return np.concatenate([self._counts.overall(each) for each in replicates] or [np.empty(0)])

    def influence(self, weights: NDArray) -> tuple[Floats, Floats]:
        """``metric(weights)``, (B,), and how fast it moves with the weight of each image, (B, N); NaN where undefined.

        The infinitesimal jackknife (Efron 1982, section 6): the weighted sum of the squares of a row is the variance of the metric.
        """
        values, moves = self._counts.influence(weights.T.astype(np.float64, order="C"))
        return values, moves.T

    def of_class(self, name: str) -> Number:
        """IoU, AP50 or recall of one class."""
        return Number(self.n, partial(self._counts.class_influence, self.classes.index(name)))

    def per_class(self) -> dict[str, float | None]:
        """IoU, AP50 or recall of each class on all images once; None for a class without truth."""
        values = self._counts.by_class(self._once())[:, 0]
        return {name: defined(value) for name, value in zip(self.classes, values, strict=True)}

    def extra(self) -> dict[str, float | None]:
        """The task's other metrics on all images once.

        classification  top5, of more than five classes
        segmentation    pixel_accuracy
        detection       AP50_voc07 (VOC's rule, 11 recall points, Everingham et al. 2010); mAP, AP50_coco and AP75_coco
                        (COCO's rule, 101 recall points, ten IoU levels and two of them); we do not cut at COCO's 100
                        detections an image
        instances       mask_mAP50 too (VOC's rule on mask IoU, every recall; None unless every image has masks), and
                        mask_mAP, mask_AP50_coco, mask_AP75_coco
        """
        values = self._counts.extra(self._once())
        if self.task == "instances":
            values.setdefault("mask_mAP50", float("nan"))
        return {name: defined(value) for name, value in values.items()}

    def _once(self) -> Floats:
        return np.ones((self.n, 1))


@dataclass(frozen=True)
class Number:
    """A number of ``n`` images on any weighting of them; ``influence`` is that of a ``Table``.

    counted  (n, B) weights -> the number (B,), and how fast it moves with the weight of each image (n, B)
    """

    n: int
    counted: Callable[[Floats], tuple[Floats, Floats]]

    def influence(self, weights: NDArray) -> tuple[Floats, Floats]:
        values, moves = self.counted(weights.T.astype(np.float64, order="C"))
        return values, moves.T


class _Counts(Protocol):
    """Statistics of N images of one task; ``weights`` (N, B) are image multiplicities, one column a replicate."""

    def overall(self, weights: Floats) -> Floats: ...  # (B,)

    def by_class(self, weights: Floats) -> Floats: ...  # (K, B)

    def influence(self, weights: Floats) -> tuple[Floats, Floats]: ...  # overall, and its derivatives by weights (N, B)

    def class_influence(self, index: int, weights: Floats) -> tuple[Floats, Floats]: ...  # of one class

    def extra(self, weights: Floats) -> dict[str, float]: ...  # of the first column


class _Guesses:
    """Top-1; by class the recall."""

    def __init__(self, rows: Sequence[Mapping[str, NDArray]], classes: int) -> None:
        label, guess = _column(rows, "label"), _column(rows, "guess")
        self.truth = label[:, None] == np.arange(classes)
        self.right = self.truth & (guess == label)[:, None]
        self.among = self.truth.any(1) & _column(rows, "in_top5") if rows and all("in_top5" in row for row in rows) else None

    def overall(self, weights: Floats) -> Floats:
        return ratio(self.right.sum(1) @ weights, self.truth.sum(1) @ weights, np.nan)

    def by_class(self, weights: Floats) -> Floats:
        return ratio(self.right.T @ weights, self.truth.T @ weights, np.nan)

    def influence(self, weights: Floats) -> tuple[Floats, Floats]:
        return share_influence(self.right.sum(1), self.truth.sum(1), weights)

    def class_influence(self, index: int, weights: Floats) -> tuple[Floats, Floats]:
        return share_influence(self.right[:, index], self.truth[:, index], weights)

    def extra(self, weights: Floats) -> dict[str, float]:
        if self.among is None:
            return {}
        return {"top5": float(ratio(self.among @ weights, self.truth.sum(1) @ weights, np.nan)[0])}


class _Pixels:
    """mIoU: the mean over the classes that have truth."""

    def __init__(self, rows: Sequence[Mapping[str, NDArray]], classes: int) -> None:
        confusion = np.stack([row["confusion"] for row in rows]) if rows else np.zeros((0, classes * classes))
        confusion = confusion.reshape(-1, classes, classes).astype(np.float64)
        self.right, self.truth, self.guess = confusion.diagonal(axis1=1, axis2=2), confusion.sum(2), confusion.sum(1)

    def overall(self, weights: Floats) -> Floats:
        return mean(self.by_class(weights))

    def by_class(self, weights: Floats) -> Floats:
        right, truth, guess = (each.T @ weights for each in (self.right, self.truth, self.guess))
        return np.where(truth > 0, ratio(right, truth + guess - right), np.nan)

    def influence(self, weights: Floats) -> tuple[Floats, Floats]:
        """IoU = right / union, so that of a class moves by (right of the image - IoU * union of the image) / union."""
        iou, union = self.by_class(weights), self.truth + self.guess - self.right
        known = ~np.isnan(iou)
        share = ratio(known / np.maximum(known.sum(0), 1), union.T @ weights)
        found = self.right @ share - union @ (share * np.where(known, iou, 0))
        return mean(iou), np.where(known.any(0), found, np.nan)

    def class_influence(self, index: int, weights: Floats) -> tuple[Floats, Floats]:
        right, truth = self.right[:, index], self.truth[:, index]
        value, moves = share_influence(right, truth + self.guess[:, index] - right, weights)
        known = truth @ weights > 0
        return np.where(known, value, np.nan), np.where(known, moves, np.nan)

    def extra(self, weights: Floats) -> dict[str, float]:
        share = ratio(self.right.sum(1) @ weights, self.truth.sum(1) @ weights, np.nan)
        return {"pixel_accuracy": float(share[0])}


BOXED = ("detection", "instances")
_COUNTS: dict[str, Callable[[Sequence[Mapping[str, NDArray]], int], _Counts]] = {"classification": _Guesses, "segmentation": _Pixels}


def _column(rows: Sequence[Mapping[str, NDArray]], name: str) -> NDArray:
    return np.concatenate([row[name] for row in rows]) if rows else np.empty(0, int)
