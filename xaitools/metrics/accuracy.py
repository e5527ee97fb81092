"""How right a model is, on any weighting of the images it saw.

``image_statistics`` keeps of one image what the metric needs, and a ``Table`` turns the statistics of N images
into the metric of the whole set.  mIoU and mAP are no means over images, so every bootstrap replicate is counted
again from the statistics; nothing is matched or predicted twice.

All metrics are fractions in [0, 1], higher is better.  NaN (None in dictionaries) means undefined, never zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError, ModelError
from ..types import IGNORE, Prediction, Sample

METRIC = {"classification": "top1", "segmentation": "mIoU", "detection": "mAP50", "instances": "mAP50"}
"""The metric that stands for each task in reports."""

IOUS = np.linspace(0.5, 0.95, 10)
"""Bit i of a matching stands for IoU at least IOUS[i]; COCO's ten levels."""

VOC07_RECALLS = np.arange(11) / 10
COCO_RECALLS = np.linspace(0, 1, 101)  # as pycocotools rounds them, which decides ties with a recall

UNKNOWN = -1
"""Stands for the label of an image whose class the model does not know; the image does not count."""

REPLICATES_AT_ONCE = 128

Statistics = dict[str, NDArray]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


# ---- one image -------------------------------------------------------------------------------------------------


def image_statistics(sample: Sample, prediction: Prediction) -> Statistics:
    """What the metrics need of one image.  The truth in ``sample`` must already be indexed by the model's classes.

    classification          label (1,) or UNKNOWN, guess (1,)
    segmentation            confusion (K * K,) int64 pixels, rows truth, columns prediction, IGNORE left out
    detection, instances    score (D,) float32 falling, label (D,) int16, positives (K,) int32 truths that count, and
                            (D,) int16 bits over ``IOUS``: matched (right) and void (counts neither way) by VOC's
                            rule, coco_matched and coco_void by COCO's; with masks on both sides also mask_matched
                            and mask_void, VOC's rule on mask IoU

    Raises DataError where the sample lacks the truth and ModelError where the prediction has another size.
    """
    if prediction.task == "segmentation":
        return _confusion(sample, prediction)
    if prediction.task == "classification":
        label = UNKNOWN if sample.label is None else sample.label
        return {"label": np.array([label]), "guess": _array(prediction.labels[:1])}
    return _matchings(sample, prediction)


def _confusion(sample: Sample, prediction: Prediction) -> Statistics:
    if sample.semantic is None or prediction.semantic is None:
        raise DataError(f"{sample.id}: no semantic map; a segmentation model is measured on data that has one")
    truth, guess, size = _array(sample.semantic), _array(prediction.semantic), len(prediction.classes)
    if truth.shape != guess.shape:
        raise ModelError(f"{sample.id}: the predicted map is {guess.shape}, the truth {truth.shape}; a model answers at the image's size")
    labelled = truth != IGNORE
    pairs = truth[labelled] * size + guess[labelled]
    return {"confusion": np.bincount(pairs, minlength=size * size).astype(np.int64)}


def _matchings(sample: Sample, prediction: Prediction) -> Statistics:
    if sample.boxes is None or sample.labels is None or prediction.boxes is None:
        raise DataError(f"{sample.id}: no boxes; a detector is measured on data that has them")
    order = np.argsort(-_array(prediction.scores), kind="stable")
    label, truth = _array(prediction.labels)[order], _array(sample.labels)
    boxes, truth_boxes = _array(prediction.boxes)[order], _array(sample.boxes)
    ignore = np.zeros(len(truth), bool) if sample.ignore is None else _array(sample.ignore)
    same = label[:, None] == truth[None, :]
    shared, area, truth_area = _box_overlaps(boxes, truth_boxes)
    iou = np.where(same, _ratio(shared, area[:, None] + truth_area - shared), -1.0)
    inside = np.where(same, _ratio(shared, area[:, None]), -1.0)
    statistics: Statistics = {
        "score": _array(prediction.scores)[order].astype(np.float32),
        "label": label.astype(np.int16),
        "positives": np.bincount(truth[~ignore], minlength=len(prediction.classes)).astype(np.int32),
        **_bits("", *voc_match(iou, ignore)),
        **_bits("coco_", *coco_match(iou, inside, ignore)),
    }
    if sample.masks is not None and prediction.masks is not None:
        mask_iou = _mask_iou(_array(prediction.masks)[order], _array(sample.masks), same)
        statistics |= _bits("mask_", *voc_match(mask_iou, ignore))
    return statistics


def voc_match(iou: Floats, ignore: Flags) -> tuple[Flags, Flags]:
    """Which detections are (right, void) at each of ``IOUS``: two (D, 10), the rest is wrong.  Everingham et al. 2010.

    ``iou`` (D, G) has detections by falling score, -1 between classes; ``ignore`` (G,) marks VOC's ``difficult``.
    A detection belongs to the truth it overlaps most.  The first to reach a truth is right and later ones are wrong,
    also where another truth would have been free.  The devkit adds a pixel to widths and heights; here boxes are edges,
    and the reader of a format adds it where the format's corners are pixels.
    """
    iou, ignore = np.pad(iou, ((0, 0), (0, 1)), constant_values=-1.0), np.append(ignore, False)  # a truth nobody reaches
    best = iou.argmax(1)
    reached, void = iou.max(1)[:, None] >= IOUS, ignore[best][:, None]
    later = np.tril(best[:, None] == best, -1) @ reached
    return reached & ~void & ~later, reached & void


def coco_match(iou: Floats, inside: Floats, ignore: Flags) -> tuple[Flags, Flags]:
    """As ``voc_match``, by the rule of pycocotools, with ``ignore`` as crowds.

    A detection takes the truth it overlaps most among those still free.  One that finds none is void where its
    share ``inside`` (D, G) of a crowd reaches the level; a crowd may void many.
    """
    free_truths = np.where(ignore, -1.0, iou)[:, ::-1]  # of equal overlaps the last truth is taken
    free_truths = np.pad(free_truths, ((0, 0), (0, 1)), constant_values=-1.0)
    levels, taken = np.arange(len(IOUS)), np.zeros((free_truths.shape[1], len(IOUS)), bool)
    matched = np.zeros((len(iou), len(IOUS)), bool)
    for row, overlaps in enumerate(free_truths):
        free = np.where(taken, -1.0, overlaps[:, None])
        best = free.argmax(0)
        matched[row] = free[best, levels] >= IOUS
        taken[best, levels] |= matched[row]
    crowd = np.where(ignore, inside, -1.0).max(1, initial=-1.0)
    return matched, ~matched & (crowd[:, None] >= IOUS)


def _bits(prefix: str, matched: Flags, void: Flags) -> Statistics:
    powers = 1 << np.arange(len(IOUS))
    return {f"{prefix}matched": (matched @ powers).astype(np.int16), f"{prefix}void": (void @ powers).astype(np.int16)}


def _box_overlaps(boxes: NDArray, others: NDArray) -> tuple[Floats, Floats, Floats]:
    """Shared area (D, G) of xyxy boxes (D, 4) and (G, 4), and their areas (D,) and (G,), in square pixels."""
    first, second = boxes.reshape(-1, 4).astype(np.float64), others.reshape(-1, 4).astype(np.float64)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    areas = [np.clip(each[:, 2:] - each[:, :2], 0, None).prod(1) for each in (first, second)]
    return np.clip(high - low, 0, None).prod(2), areas[0], areas[1]


def _mask_iou(masks: Flags, others: Flags, same: Flags) -> Floats:
    """IoU (D, G) of masks (D, H, W) and (G, H, W) where ``same`` (D, G), elsewhere -1."""
    iou = np.full(same.shape, -1.0)
    for row, column in np.argwhere(same):
        mask, other = masks[row], others[column]
        iou[row, column] = int((mask & other).sum()) / max(int((mask | other).sum()), 1)
    return iou


# ---- many images -----------------------------------------------------------------------------------------------


class Table:
    """Statistics of N images, and the metric of any weighting of them.

    >>> rows = [{"label": np.array([0]), "guess": np.array([0])}, {"label": np.array([1]), "guess": np.array([0])}]
    >>> table = Table("classification", ["cat", "dog"], rows)
    >>> table.metric(), table.metric(np.array([[3, 1]]))
    (0.5, array([0.75]))
    """

    def __init__(self, task: str, classes: Sequence[str], rows: Sequence[Mapping[str, NDArray]]) -> None:
        self.task, self.classes, self.n = task, tuple(classes), len(rows)
        self._counts = _COUNTS[task](rows, len(self.classes))

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

    def per_class(self) -> dict[str, float | None]:
        """IoU, AP50 or recall of each class on all images once; None for a class without truth."""
        values = self._counts.by_class(self._once())[:, 0]
        return {name: defined(value) for name, value in zip(self.classes, values, strict=True)}

    def extra(self) -> dict[str, float | None]:
        """The task's other metrics on all images once.

        segmentation    pixel_accuracy
        detection       AP50_voc07 (VOC's rule, 11 recall points, Everingham et al. 2010) and mAP (COCO's rule, 101
                        recall points, ten IoU levels); we do not cut at COCO's 100 detections an image
        instances       mask_mAP50 too (VOC's rule on mask IoU, every recall); None unless every image has masks
        """
        values = self._counts.extra(self._once())
        if self.task == "instances":
            values.setdefault("mask_mAP50", float("nan"))
        return {name: defined(value) for name, value in values.items()}

    def _once(self) -> Floats:
        return np.ones((self.n, 1))


def defined(value: float) -> float | None:
    """``value`` as a float, None for NaN."""
    return None if np.isnan(value) else float(value)


class _Counts(Protocol):
    """Statistics of N images of one task; ``weights`` (N, B) are image multiplicities, one column a replicate."""

    def overall(self, weights: Floats) -> Floats: ...  # (B,)

    def by_class(self, weights: Floats) -> Floats: ...  # (K, B)

    def extra(self, weights: Floats) -> dict[str, float]: ...  # of the first column


class _Guesses:
    """Top-1; by class the recall."""

    def __init__(self, rows: Sequence[Mapping[str, NDArray]], classes: int) -> None:
        label, guess = _column(rows, "label"), _column(rows, "guess")
        self.truth = label[:, None] == np.arange(classes)
        self.right = self.truth & (guess == label)[:, None]

    def overall(self, weights: Floats) -> Floats:
        return _ratio(self.right.sum(1) @ weights, self.truth.sum(1) @ weights, np.nan)

    def by_class(self, weights: Floats) -> Floats:
        return _ratio(self.right.T @ weights, self.truth.T @ weights, np.nan)

    def extra(self, weights: Floats) -> dict[str, float]:
        return {}


class _Pixels:
    """mIoU: the mean over the classes that have truth."""

    def __init__(self, rows: Sequence[Mapping[str, NDArray]], classes: int) -> None:
        confusion = np.stack([row["confusion"] for row in rows]) if rows else np.zeros((0, classes * classes))
        confusion = confusion.reshape(-1, classes, classes).astype(np.float64)
        self.right, self.truth, self.guess = confusion.diagonal(axis1=1, axis2=2), confusion.sum(2), confusion.sum(1)

    def overall(self, weights: Floats) -> Floats:
        return _mean(self.by_class(weights))

    def by_class(self, weights: Floats) -> Floats:
        right, truth, guess = (each.T @ weights for each in (self.right, self.truth, self.guess))
        return np.where(truth > 0, _ratio(right, truth + guess - right), np.nan)

    def extra(self, weights: Floats) -> dict[str, float]:
        share = _ratio(self.right.sum(1) @ weights, self.truth.sum(1) @ weights, np.nan)
        return {"pixel_accuracy": float(share[0])}


class _Boxes:
    """mAP50: the mean over the classes that have truth of the average precision at IoU 0.5, every recall (VOC 2010 on)."""

    def __init__(self, rows: Sequence[Mapping[str, NDArray]], classes: int) -> None:
        score, image = _column(rows, "score"), np.repeat(np.arange(len(rows)), [len(row["score"]) for row in rows])
        order = np.argsort(-score, kind="stable")
        label = _column(rows, "label")[order]
        self.image = image[order]
        self.positives = np.stack([row["positives"] for row in rows], 1) if rows else np.zeros((classes, 0))
        self.members = [np.flatnonzero(label == index) for index in range(classes)]
        rules = [rule for rule in ("", "coco_", "mask_") if all(f"{rule}matched" in row for row in rows)]
        self.bits = {rule: tuple(_column(rows, f"{rule}{name}")[order] for name in ("matched", "void")) for rule in rules}

    def overall(self, weights: Floats) -> Floats:
        return _mean(self.by_class(weights))

    def by_class(self, weights: Floats, rule: str = "") -> Floats:
        return np.stack([self._every_recall(index, weights, rule) for index in range(len(self.members))])

    def extra(self, weights: Floats) -> dict[str, float]:
        classes = range(len(self.members))
        voc07 = [[self._sampled(index, weights, VOC07_RECALLS)] for index in classes]
        values = {"AP50_voc07": float(_mean(np.array(voc07))[0])}
        if "coco_" in self.bits:
            coco = [[self._sampled(index, weights, COCO_RECALLS, "coco_", level) for level in range(len(IOUS))] for index in classes]
            values["mAP"] = float(_mean(np.array(coco).reshape(-1, 1))[0])
        if "mask_" in self.bits:
            values["mask_mAP50"] = float(_mean(self.by_class(weights, "mask_"))[0])
        return values

    def _every_recall(self, index: int, weights: Floats, rule: str) -> Floats:
        """Area (B,) under the interpolated precision of class ``index``."""
        gain, precision = self._curve(index, weights, rule)
        return _ratio((gain * precision).sum(0), self.positives[index] @ weights, np.nan)

    def _sampled(self, index: int, weights: Floats, recalls: Floats, rule: str = "", level: int = 0) -> float:
        """Mean interpolated precision at ``recalls``, for the first column of ``weights``."""
        gain, precision = (each[:, 0] for each in self._curve(index, weights[:, :1], rule, level))
        positives = float(self.positives[index] @ weights[:, 0])
        if positives == 0:
            return float("nan")
        return float(np.append(precision, 0.0)[np.searchsorted(gain.cumsum() / positives, recalls)].mean())

    def _curve(self, index: int, weights: Floats, rule: str, level: int = 0) -> tuple[Floats, Floats]:
        """Weight (M, B) of each of the M right detections of a class, by falling score, and the best precision from it on.

        Wrong detections only move the precision of the next right one, so they are summed up between two of them.
        """
        matched, void = self.bits[rule]
        rows = self.members[index]
        rows = rows[(void[rows] >> level & 1) == 0]
        right = np.flatnonzero(matched[rows] >> level & 1)
        if not len(right):
            return np.zeros((0, weights.shape[1])), np.zeros((0, weights.shape[1]))
        each = weights[self.image[rows[: right[-1] + 1]]]
        gain, seen = each[right], np.add.reduceat(each, np.append(0, right[:-1] + 1), axis=0).cumsum(0)
        precision = _ratio(gain.cumsum(0), seen)
        return gain, np.maximum.accumulate(precision[::-1])[::-1]


_COUNTS: dict[str, Callable[[Sequence[Mapping[str, NDArray]], int], _Counts]] = {
    "classification": _Guesses,
    "segmentation": _Pixels,
    "detection": _Boxes,
    "instances": _Boxes,
}


def _mean(values: Floats) -> Floats:
    """Mean over the first axis of what is defined; NaN where nothing is."""
    return _ratio(np.nansum(values, 0), (~np.isnan(values)).sum(0), np.nan)


def _ratio(part: NDArray, whole: NDArray, otherwise: float = 0.0) -> Floats:
    """part / whole, ``otherwise`` where whole is 0."""
    shape = np.broadcast_shapes(part.shape, whole.shape)
    return np.divide(part, whole, out=np.full(shape, otherwise), where=whole > 0)


def _column(rows: Sequence[Mapping[str, NDArray]], name: str) -> NDArray:
    return np.concatenate([row[name] for row in rows]) if rows else np.empty(0, int)


def _array(tensor: Tensor) -> NDArray:
    return tensor.detach().cpu().numpy()
