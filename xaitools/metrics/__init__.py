"""How right a model is, and how sure that is: pure functions of predictions and truth."""

from .accuracy import METRIC, Table, image_statistics
from .evaluate import evaluate, predictions
from .statistics import Drawn, drop_between, image_weights, interval, needed, paired_drop

__all__ = [
    "METRIC",
    "Drawn",
    "Table",
    "drop_between",
    "evaluate",
    "image_statistics",
    "image_weights",
    "interval",
    "needed",
    "paired_drop",
    "predictions",
]
