"""Average precision of boxes or masks, on any weighting of the images, by VOC's and COCO's readings of the curve.

A weighting (N, B) holds image multiplicities, one column a bootstrap replicate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .matching import IOUS
from .ratios import Floats, mean, ratio

VOC07_RECALLS = np.arange(11) / 10
COCO_RECALLS = np.linspace(0, 1, 101)  # as pycocotools rounds them, which decides ties with a recall

RULES = ("", "coco_", "mask_", "coco_mask_")
NAMED = {0: "AP50", 5: "AP75"}
"""Levels of ``IOUS`` that COCO reports by themselves."""


class Boxes:
    """The mean over the classes that have truth of the average precision at ``level``, every recall (VOC 2010 on).

    ``level`` is the bit of the matchings that is read; 0 is IoU 0.5 in the rows of ``image_statistics``.
    """

    def __init__(self, rows: Sequence[Mapping[str, NDArray]], classes: int, level: int = 0) -> None:
        score, image = _column(rows, "score"), np.repeat(np.arange(len(rows)), [len(row["score"]) for row in rows])
        order = np.argsort(-score, kind="stable")
        label = _column(rows, "label")[order]
        self.level, self.image, self.score = level, image[order], score[order]
        self.positives = np.stack([row["positives"] for row in rows], 1) if rows else np.zeros((classes, 0))
        self.members = [np.flatnonzero(label == index) for index in range(classes)]
        rules = [rule for rule in RULES if all(f"{rule}matched" in row for row in rows)]
        self.bits = {rule: tuple(_column(rows, f"{rule}{name}")[order] for name in ("matched", "void")) for rule in rules}

    def overall(self, weights: Floats) -> Floats:
        return mean(self.by_class(weights))

    def by_class(self, weights: Floats, rule: str = "") -> Floats:
        return np.stack([self._every_recall(index, weights, rule) for index in range(len(self.members))])

    def influence(self, weights: Floats) -> tuple[Floats, Floats]:
        """``overall``, and (N, B) how fast it moves with the weight of each image."""
        values, moves = np.empty((len(self.members), weights.shape[1])), np.zeros(weights.shape)
        for index in range(len(self.members)):
            values[index] = self._add_influence(index, weights, moves)
        return mean(values), ratio(moves, (~np.isnan(values)).sum(0), np.nan)

    def class_influence(self, index: int, weights: Floats) -> tuple[Floats, Floats]:
        moves = np.zeros(weights.shape)
        values = self._add_influence(index, weights, moves)
        return values, np.where(np.isnan(values), np.nan, moves)

    def extra(self, weights: Floats) -> dict[str, float]:
        classes = range(len(self.members))
        voc07 = [[self._sampled(index, weights, VOC07_RECALLS, "", 0)] for index in classes]
        values = {"AP50_voc07": float(mean(np.array(voc07))[0])}
        values |= self.coco(weights)
        if "mask_" in self.bits:
            values["mask_mAP50"] = float(mean(self.by_class(weights, "mask_"))[0])
            values |= {f"mask_{name}": value for name, value in self.coco(weights, "coco_mask_").items()}
        return values

    def coco(self, weights: Floats, rule: str = "coco_") -> dict[str, float]:
        """mAP, AP50_coco and AP75_coco; nothing without matchings of that rule."""
        if rule not in self.bits:
            return {}
        levels = [[[self._sampled(index, weights, COCO_RECALLS, rule, level)] for index in range(len(self.members))]
                  for level in range(len(IOUS))]  # fmt: skip
        values = np.array(levels)[..., 0].T  # (K, L); a class without truth is NaN at every level
        return {"mAP": float(mean(values.reshape(-1, 1))[0])} | {
            f"{name}_coco": float(mean(values[:, [level]])[0]) for level, name in NAMED.items()
        }

    def precision_recall(self, index: int | None = None) -> dict[str, Any]:
        """The curve of one class, or of the detections of all classes together, at the recalls 0, 0.01, ..., 1.

        precision   the best one at that recall or above (as average precision reads it); 0 where it is never reached
        score       the lowest score that must count to reach it; None where it is never reached
        """
        rows = np.sort(np.concatenate(self.members)) if index is None else self.members[index]
        positives = int(self.positives.sum() if index is None else self.positives[index].sum())
        if not positives:
            return {"precision": None, "score": None}
        matched, void = self.bits[""]
        rows = rows[(void[rows] >> self.level & 1) == 0]
        right = (matched[rows] >> self.level & 1).cumsum()
        best = np.maximum.accumulate((right / np.arange(1, len(rows) + 1))[::-1])[::-1]
        # the first place where so many truths are found; beyond the last one nothing is
        place = np.searchsorted(right, np.maximum(np.ceil(COCO_RECALLS * positives - 1e-9), 1))
        reached = place < len(rows)
        precision = np.where(reached, np.append(best, 0.0)[np.minimum(place, len(rows))], 0.0)
        scores = np.append(self.score[rows], np.nan)[np.minimum(place, len(rows))]
        return {
            "precision": [round(float(each), 6) for each in precision],
            "score": [round(float(each), 6) if there else None for each, there in zip(scores, reached, strict=True)],
        }

    def _every_recall(self, index: int, weights: Floats, rule: str) -> Floats:
        """Area (B,) under the interpolated precision of class ``index``."""
        gain, precision = self._curve(index, weights, rule, self.level)
        return ratio((gain * precision).sum(0), self.positives[index] @ weights, np.nan)

    def _add_influence(self, index: int, weights: Floats, moves: Floats) -> Floats:
        """``_every_recall``; its derivatives, while the places where the best precisions are reached stay, are added to ``moves``.

        A detection of more weight raises the area by the best precision at it, if it is right, and moves every precision
        that is read at it or after: by (right - precision) / (weight of all detections down to there).
        """
        rows, right = self._counting(index, "", self.level)
        positives = self.positives[index][:, None]
        total = (positives.T @ weights)[0]
        scale = ratio(np.ones_like(total), total)
        if not len(right):
            return np.where(total > 0, 0.0, np.nan)
        gain, seen, precision = self._running(rows, right, weights)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        value = (gain * best).sum(0) * scale
        reached, so_far = precision == best, gain.cumsum(0)
        before = np.maximum.accumulate(np.where(reached, so_far, 0))
        read = ratio(np.where(reached, so_far - np.vstack([np.zeros_like(before[:1]), before[:-1]]), 0), seen)  # weight by where it is read
        slope, level = (each[::-1].cumsum(0)[::-1] for each in (read, read * precision))
        rows = rows[: right[-1] + 1]
        place = np.searchsorted(right, np.arange(len(rows)))  # the next right detection
        moved = -level[place]
        moved[right] += slope + best
        order = np.argsort(self.image[rows], kind="stable")
        images, starts = np.unique(self.image[rows[order]], return_index=True)
        moves[images] += np.add.reduceat(moved[order], starts, axis=0) * scale
        moves -= positives * (value * scale)
        return np.where(total > 0, value, np.nan)

    def _sampled(self, index: int, weights: Floats, recalls: Floats, rule: str, level: int) -> float:
        """Mean interpolated precision at ``recalls``, for the first column of ``weights``."""
        gain, precision = (each[:, 0] for each in self._curve(index, weights[:, :1], rule, level))
        positives = float(self.positives[index] @ weights[:, 0])
        if positives == 0:
            return float("nan")
        return float(np.append(precision, 0.0)[np.searchsorted(gain.cumsum() / positives, recalls)].mean())

    def _curve(self, index: int, weights: Floats, rule: str, level: int) -> tuple[Floats, Floats]:
        """Weight (M, B) of each of the M right detections of a class, by falling score, and the best precision from it on.

        Wrong detections only move the precision of the next right one, so they are summed up between two of them.
        """
        rows, right = self._counting(index, rule, level)
        if not len(right):
            return np.zeros((0, weights.shape[1])), np.zeros((0, weights.shape[1]))
        gain, _, precision = self._running(rows, right, weights)
        return gain, np.maximum.accumulate(precision[::-1])[::-1]

    def _counting(self, index: int, rule: str, level: int) -> tuple[NDArray, NDArray]:
        """The detections of a class that count, by falling score, and the places of the right ones among them."""
        matched, void = self.bits[rule]
        rows = self.members[index]
        rows = rows[(void[rows] >> level & 1) == 0]
        return rows, np.flatnonzero(matched[rows] >> level & 1)

    def _running(self, rows: NDArray, right: NDArray, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """(M, B) of the M right detections: weight, weight of all down to it, precision there."""
        each = weights[self.image[rows[: right[-1] + 1]]]
        gain, seen = each[right], np.add.reduceat(each, np.append(0, right[:-1] + 1), axis=0).cumsum(0)
        return gain, seen, ratio(gain.cumsum(0), seen)


def _column(rows: Sequence[Mapping[str, NDArray]], name: str) -> NDArray:
    return np.concatenate([row[name] for row in rows]) if rows else np.empty(0, int)
