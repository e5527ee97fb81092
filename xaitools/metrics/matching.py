"""Which detections of one image are right: the matching rules of VOC and of COCO, and the overlaps they start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from ..types import Prediction, Sample
from .ratios import Floats, ratio

IOUS = np.linspace(0.5, 0.95, 10)
"""COCO's ten levels."""

SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Areas in square pixels, ends included, as in pycocotools."""

Statistics = dict[str, NDArray]
Flags = NDArray[np.bool_]


def voc_match(iou: Floats, ignore: Flags, levels: NDArray = IOUS) -> tuple[Flags, Flags]:
    """Which detections are (right, void) at each of L ``levels``: two (D, L), the rest is wrong.  Everingham et al. 2010.

    ``iou`` (D, G) has detections by falling score, -1 between classes; ``ignore`` (G,) marks VOC's ``difficult``.
    A detection belongs to the truth it overlaps most.  The first to reach a truth is right and later ones are wrong,
    also where another truth would have been free.  The devkit adds a pixel to widths and heights; here boxes are edges,
    and the reader of a format adds it where the format's corners are pixels.
    """
    iou, ignore = np.pad(iou, ((0, 0), (0, 1)), constant_values=-1.0), np.append(ignore, False)  # a truth nobody reaches
    best = iou.argmax(1)
    reached, void = iou.max(1)[:, None] >= levels, ignore[best][:, None]
    later = np.tril(best[:, None] == best, -1) @ reached
    return reached & ~void & ~later, reached & void


def coco_match(
    iou: Floats, inside: Floats, crowd: Flags, levels: NDArray = IOUS, outside: Flags | None = None
) -> tuple[Flags, Flags]:  # fmt: skip
    """As ``voc_match``, by the rule of pycocotools.

    A detection takes the truth it overlaps most among those still free.  One that finds none is void where its
    share ``inside`` (D, G) of a ``crowd`` reaches the level, and a crowd may void many; or where it reaches a free
    truth of a size that is not asked for, ``outside`` (G,).
    """
    aside = crowd if outside is None else crowd | outside
    count, spare = np.where(aside, -1.0, iou), np.where(aside, np.where(crowd, inside, iou), -1.0)
    # of equal overlaps the last truth is taken; one is added that nobody reaches
    count, spare = (np.pad(each[:, ::-1], ((0, 0), (0, 1)), constant_values=-1.0) for each in (count, spare))
    lasting = np.append(crowd[::-1], False)[:, None]
    each, taken = np.arange(len(levels)), np.zeros((count.shape[1], len(levels)), bool)
    matched, void = np.zeros((len(iou), len(levels)), bool), np.zeros((len(iou), len(levels)), bool)
    for row in range(len(iou)):
        for overlaps, found, busy in ((count, matched, taken), (spare, void, taken & ~lasting)):
            free = np.where(busy, -1.0, overlaps[row][:, None])
            best = free.argmax(0)
            found[row] = (free[best, each] >= levels) & ~matched[row]
            taken[best, each] |= found[row]
    return matched, void


def bits(prefix: str, matched: Flags, void: Flags) -> Statistics:
    """(D, L) flags as (D,) integers; bit i stands for level i."""
    kind = np.int16 if matched.shape[1] < 16 else np.int64
    powers = 1 << np.arange(matched.shape[1], dtype=np.int64)
    return {f"{prefix}matched": (matched @ powers).astype(kind), f"{prefix}void": (void @ powers).astype(kind)}


class Pairs(NamedTuple):
    """Detections by falling score, and how each overlaps each truth of its image.

    scores, labels         (D,), truth and ignore (G,)
    iou, inside            (D, G) between all classes: shared / union, and shared / area of the detection
    area, truth_area       (D,) and (G,) in square pixels, of boxes
    """

    scores: NDArray
    labels: NDArray
    truth: NDArray
    ignore: Flags
    iou: Floats
    inside: Floats
    area: Floats
    truth_area: Floats
    order: NDArray

    @property
    def same(self) -> Flags:
        return self.labels[:, None] == self.truth[None, :]

    def within(self, overlaps: Floats) -> Floats:
        """``overlaps`` (D, G) where the classes are the same, elsewhere -1."""
        return np.where(self.same, overlaps, -1.0)


def box_pairs(sample: Sample, prediction: Prediction) -> Pairs:
    """Raises DataError where the sample or the prediction has no boxes."""
    if sample.boxes is None or sample.labels is None or prediction.boxes is None:
        raise DataError(f"{sample.id}: no boxes; a detector is measured on data that has them")
    order = np.argsort(-array(prediction.scores), kind="stable")
    truth = array(sample.labels)
    ignore = np.zeros(len(truth), bool) if sample.ignore is None else array(sample.ignore)
    shared, area, truth_area = box_overlaps(array(prediction.boxes)[order], array(sample.boxes))
    iou, inside = ratio(shared, area[:, None] + truth_area - shared), ratio(shared, area[:, None])
    labels = array(prediction.labels)[order]
    return Pairs(array(prediction.scores)[order], labels, truth, ignore, iou, inside, area, truth_area, order)


def mask_pairs(sample: Sample, prediction: Prediction, boxes: Pairs) -> Pairs | None:
    """``boxes`` with the overlaps and areas of masks, 0 between classes; None unless both sides have masks."""
    if sample.masks is None or prediction.masks is None:
        return None
    masks, others = array(prediction.masks)[boxes.order], array(sample.masks)
    shared = np.zeros(boxes.iou.shape)
    for row, column in np.argwhere(boxes.same):
        shared[row, column] = int((masks[row] & others[column]).sum())
    area, truth_area = (each.sum((1, 2), dtype=np.float64) for each in (masks, others))
    iou, inside = ratio(shared, area[:, None] + truth_area - shared), ratio(shared, area[:, None])
    return boxes._replace(iou=iou, inside=inside, area=area, truth_area=truth_area)


def box_overlaps(boxes: NDArray, others: NDArray) -> tuple[Floats, Floats, Floats]:
    """Shared area (D, G) of xyxy boxes (D, 4) and (G, 4), and their areas (D,) and (G,), in square pixels."""
    first, second = boxes.reshape(-1, 4).astype(np.float64), others.reshape(-1, 4).astype(np.float64)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    areas = [np.clip(each[:, 2:] - each[:, :2], 0, None).prod(1) for each in (first, second)]
    return np.clip(high - low, 0, None).prod(2), areas[0], areas[1]


def level_statistics(sample: Sample, prediction: Prediction, levels: Sequence[float]) -> Statistics:
    """What average precision by VOC's rule needs at any ``levels`` of box IoU; bit i stands for levels[i]."""
    pairs = box_pairs(sample, prediction)
    return rows_of(pairs, len(prediction.classes)) | bits("", *voc_match(pairs.within(pairs.iou), pairs.ignore, np.asarray(levels)))


def size_statistics(sample: Sample, prediction: Prediction) -> dict[str, Statistics]:
    """What COCO's average precision needs for objects of each of ``SIZES`` alone.

    An object is as large as its mask where the data has masks (COCO's own files state an area), else as its box.
    """
    pairs = box_pairs(sample, prediction)
    masks = None if sample.masks is None else array(sample.masks)
    truth_area = pairs.truth_area if masks is None else masks.sum((1, 2))
    found = {}
    for name, (low, high) in SIZES.items():
        outside = (truth_area < low) | (truth_area > high)
        matched, void = coco_match(pairs.within(pairs.iou), pairs.within(pairs.inside), pairs.ignore, outside=outside)
        strange = ((pairs.area < low) | (pairs.area > high))[:, None]
        found[name] = rows_of(pairs._replace(ignore=pairs.ignore | outside), len(prediction.classes))
        found[name] |= bits("coco_", matched, void | (strange & ~matched))
    return found


def rows_of(pairs: Pairs, classes: int) -> Statistics:
    """Scores, labels and the number of truths that count, of one image."""
    return {
        "score": pairs.scores.astype(np.float32),
        "label": pairs.labels.astype(np.int16),
        "positives": np.bincount(pairs.truth[~pairs.ignore], minlength=classes).astype(np.int32),
    }


def array(tensor: Tensor) -> NDArray:
    return tensor.detach().cpu().numpy()
