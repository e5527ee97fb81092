"""Model strings to models: the ones that ship with xaitools, and anybody's own."""

from __future__ import annotations

from ..adapters import Adapter
from ..errors import ModelError, unknown
from .base import SOURCES, Spec
from .shipped import MAX_WEIGHTS, adapt, build, card, load, names, read_toml
from .weights import read_weights
from .wrapping import wrap

__all__ = ["MAX_WEIGHTS", "SOURCES", "adapt", "build", "card", "load_model", "names", "read_toml", "read_weights", "wrap"]


def load_model(text: str, *, device: str = "cpu", dtype: str = "float32", score_threshold: float = 0.05) -> Adapter:
    """The model that ``text`` names, ready to predict.

    ``unet-camvid`` (the zoo), ``torchvision:fasterrcnn_resnet50_fpn``, ``smp:Unet?encoder=resnet18&classes=..&weights=..``
    or ``python:file.py:factory?task=..&classes=..``.  ``score_threshold`` hides detections below it.
    Raises ModelError, one line, when it cannot be had.
    """
    settings = {"device": device, "dtype": dtype, "score_threshold": score_threshold}
    source, colon, _ = text.partition(":")
    if colon and source in SOURCES:
        model = SOURCES[source](Spec.parse(text, settings))
        model.name = text
        return model
    if text not in names():
        raise ModelError(unknown("model", text, [*names(), *(f"{each}:..." for each in SOURCES)]))
    return load(text, **settings)
