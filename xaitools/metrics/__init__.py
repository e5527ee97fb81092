"""How right a model is, and how sure that is: pure functions of predictions and truth."""

from .accuracy import METRIC, Table, image_statistics
from .evaluate import evaluate, predictions
from .statistics import METHOD, METHODS, UNDEFINED, Drawn, Dual, bands, draw, equivalence, holm, image_weights, interval, needed

__all__ = [
    "METHOD",
    "METHODS",
    "METRIC",
    "UNDEFINED",
    "Drawn",
    "Dual",
    "Table",
    "bands",
    "draw",
    "equivalence",
    "evaluate",
    "holm",
    "image_statistics",
    "image_weights",
    "interval",
    "needed",
    "predictions",
]
