"""One image with one cue changed, and what the model says before and after: live, and once for each question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import sources
import torch
from cached import Loaded
from torch import Tensor

from xaitools.audit.examples import as_prediction
from xaitools.errors import XaiError
from xaitools.probes import FAMILIES, PROBES, Context, Probe, change
from xaitools.report.page import figure_bytes
from xaitools.report.prediction import legend
from xaitools.report.probe_figures import image_figure, worth_drawing
from xaitools.report.spray import answer
from xaitools.types import Prediction, Sample


@dataclass(frozen=True)
class Still:
    """A picture as PNG, what it shows in words, and the classes' colours."""

    png: bytes
    words: str
    colours: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Change:
    """An image before and after.

    largest     the largest change of a pixel, in 255ths
    gain        how many times ``difference`` magnifies the change, around grey
    image       (3, H, W) what is shown in ``after``
    """

    id: str
    truth: Still
    before: Still
    after: Still
    difference: Still
    largest: float
    gain: float
    image: Tensor = field(compare=False)


@lru_cache(maxsize=4)
def context(loaded: Loaded, dataset: str) -> Context:
    """What probes know of a dataset.  Raises DataError when it has no truth for the model."""
    return Context(sources.dataset(dataset), loaded.model)


def offered(loaded: Loaded, dataset: str) -> dict[str, Probe]:
    """The probes that change an image of this dataset at once: none that stands for several, trains, or has images of its own."""
    known = context(loaded, dataset)
    found = [
        entry for family in FAMILIES for name, entry in sorted(PROBES.items())
        if entry.family == family and entry.images == name and not entry.members and not entry.elsewhere
        and "training" not in entry.needs
    ]  # fmt: skip
    with loaded.lock:
        lacking = {needs: known.lacks(needs) for needs in {entry.needs for entry in found}}
    return {entry.name: entry for entry in found if not lacking[entry.needs]}


@lru_cache(maxsize=32)
def changed(loaded: Loaded, dataset: str, item: int, probe: str, severity: int, seed: int = 0) -> Change:
    """Raises XaiError where this image cannot be changed so."""
    known, sample = context(loaded, dataset), sources.dataset(dataset)[item]
    with loaded.lock:
        after = change(probe, [sample], severity, known, seed=seed)[0]
        if isinstance(after, XaiError):
            raise after
        truth, before = known.truth(sample), loaded.model.predict(sample.image[None])[0]
        said = loaded.model.predict(after.image[None])[0]
    largest, difference, gain = _magnified(sample, after)
    return Change(
        sample.id, still(sample.image, as_prediction(truth, before)), still(sample.image, before), still(after.image, said),
        still(difference, None, f"what was changed, {gain:.3g} times, around grey"), largest, gain, after.image,
    )  # fmt: skip


def _magnified(before: Sample, after: Sample) -> tuple[float, Tensor, float]:
    """The largest change in 255ths, the change times a gain that makes it fill the range, and the gain."""
    if after.image.shape != before.image.shape:
        return 255.0, torch.full_like(before.image, 0.5), 1.0
    difference = after.image - before.image
    largest = float(difference.abs().max())
    gain = 0.5 / largest if largest else 1.0
    return 255 * largest, 0.5 + gain * difference, gain


def still(image: Tensor, prediction: Prediction | None, words: str = "", boxes: dict[str, Sequence[float]] | None = None) -> Still:
    """``image`` (3, H, W) and what of the prediction is worth drawing; ``boxes`` xyxy in pixels by their colours."""
    shown = worth_drawing(prediction)
    colours = tuple((name, colour) for name, colour in legend(shown) if colour is not None)
    said = words or (answer(prediction) if prediction is not None and len(prediction.labels) else "nothing")
    return Still(figure_bytes(image_figure(image, prediction, boxes), "png"), said, colours)
