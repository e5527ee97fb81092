"""What is measured of boxes beyond the headline: other IoU levels, object sizes, precision and recall, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import XaiError
from ..types import Prediction, Sample
from .accuracy import Table
from .average_precision import COCO_RECALLS, Boxes
from .confusion import Confusion
from .matching import SIZES, Statistics, level_statistics, size_statistics
from .ratios import defined

USUAL = (0.5,)
MOST_LEVELS = 60


def parsed_levels(text: str) -> tuple[float, ...]:
    """``--iou``: one level, several with commas, or FIRST:LAST:STEP with both ends.

    >>> parsed_levels("0.5:0.65:0.05"), parsed_levels("0.5,0.75")
    ((0.5, 0.55, 0.6, 0.65), (0.5, 0.75))
    """
    try:
        if ":" in text:
            first, last, step = (float(part) for part in text.split(":"))
            count = round((last - first) / step) + 1 if step > 0 and first <= last else 0
            levels = [round(first + place * step, 6) for place in range(min(count, MOST_LEVELS + 1))]
        else:
            levels = [float(part) for part in text.split(",")]
    except (ValueError, OverflowError):
        levels = []
    if not levels or not all(0 < level <= 1 for level in levels) or len(levels) > MOST_LEVELS:
        raise XaiError(f"--iou {text[:60]}: expected levels above 0 and up to 1, e.g. 0.5, 0.5,0.75 or 0.5:0.95:0.05")
    return tuple(dict.fromkeys(levels))


class Detections:
    """Predictions with boxes, one image after the other.  Right is by VOC's rule, as in the headline metric.

    Precision, recall, the confusion and the curve are read at the one level of ``iou``, or at 0.5 where it is a sweep,
    and count detections with at least ``score``; the curve has all.
    """

    def __init__(self, classes: Sequence[str], iou: Sequence[float] = USUAL, score: float = 0.5) -> None:
        self.classes, self.levels = tuple(classes), tuple(iou)
        self.confusion = Confusion(classes, iou=self.levels[0] if len(self.levels) == 1 else 0.5, score=score)
        self.read = tuple(dict.fromkeys([self.confusion.iou, *self.levels]))
        self.rows: list[Statistics] = []
        self._sizes: dict[str, list[Statistics]] = {name: [] for name in SIZES}

    def add(self, sample: Sample, prediction: Prediction) -> None:
        self.rows.append(level_statistics(sample, prediction, self.read))
        self.confusion.add(sample, prediction)
        for name, rows in size_statistics(sample, prediction).items():
            self._sizes[name].append(rows)

    def table(self, task: str, places: Sequence[int] | None = None, iou: float | None = None) -> Table:
        """The images at ``places`` (all), read at ``iou`` (the level of the confusion)."""
        rows = self.rows if places is None else [self.rows[place] for place in places]
        return Table(task, self.classes, rows, self.read.index(self.confusion.iou if iou is None else iou))

    def sizes(self) -> dict[str, float | None]:
        """COCO's mAP of boxes, on small, medium and large objects alone."""
        found = {}
        for name, rows in self._sizes.items():
            once = np.ones((len(rows), 1))
            found[f"mAP_{name}"] = defined(Boxes(rows, len(self.classes)).coco(once)["mAP"])
        return found

    def document(self, task: str, weights: NDArray, units: Sequence[str] | None = None) -> dict[str, Any]:
        """``iou``: the metric at each level.  ``detections``: see ``Confusion.document``, and the curve."""
        boxes = Boxes(self.rows, len(self.classes), 0)  # bit 0 is the confusion's level
        curve = {
            "recall": [round(float(recall), 2) for recall in COCO_RECALLS],
            "overall": boxes.precision_recall(),
            "per_class": {name: boxes.precision_recall(index) for index, name in enumerate(self.classes)},
        }
        return {
            "iou": {level_name(level): defined(self.table(task, iou=level).metric()) for level in self.levels},
            "detections": {**self.confusion.document(weights, units), "curve": curve},
        }


def level_name(level: float) -> str:
    """
    >>> level_name(0.5), level_name(0.625)
    ('0.50', '0.625')
    """
    return f"{level:.2f}" if round(level, 2) == level else f"{level:g}"
