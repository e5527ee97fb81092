"""How right a model is, and how sure that is: pure functions of predictions and truth."""

from .accuracy import METRIC, Table, image_statistics
from .evaluate import evaluate, predictions
from .statistics import Drawn, Dual, draw, image_weights, interval, needed

__all__ = [
    "METRIC",
    "Drawn",
    "Dual",
    "Table",
    "draw",
    "evaluate",
    "image_statistics",
    "image_weights",
    "interval",
    "needed",
    "predictions",
]
