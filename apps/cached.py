"""What is slow is computed once: models, predictions, maps, files.

The keys hold everything the result depends on: the weights' hash, the pixels' hash, target, method, all parameters
and the seed.  Every cache is bounded.  These are not streamlit's caches because those refuse a progress bar that
moves while a function is computed; a click that ends a run early leaves no entry.
"""

from __future__ import annotations

import io
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from sources import Picture

from xaitools import zoo
from xaitools.adapters import Adapter
from xaitools.attribution.base import METHODS, Progress, explain_many, offers, parameters
from xaitools.errors import MethodError
from xaitools.metrics.compare import compare
from xaitools.report.store import save_explanation
from xaitools.types import Attribution, Explanation, Prediction

ROUNDS = 5
"""So often the time of each of several models is taken, in turn."""


@dataclass(frozen=True)
class Loaded:
    """A model of the zoo; one user at a time, since some methods put hooks on the network."""

    name: str
    weights_hash: str
    model: Adapter = field(compare=False)
    lock: threading.Lock = field(compare=False, default_factory=threading.Lock)


@dataclass(frozen=True)
class Question:
    """All that a map depends on."""

    loaded: Loaded
    picture: Picture
    target: str
    method: str
    params: tuple[tuple[str, str], ...] = ()
    seed: int = 0


def load(name: str) -> Loaded:
    return _load(name, zoo.card(name)["weights"]["sha256"])


@lru_cache(maxsize=6)
def _load(name: str, weights_hash: str) -> Loaded:
    return Loaded(name, weights_hash, zoo.load_model(name))


@lru_cache(maxsize=16)
def predict(loaded: Loaded, picture: Picture) -> Prediction:
    with loaded.lock:
        return loaded.model.predict(picture.sample.image[None])[0]


@dataclass(frozen=True)
class _Asked:
    question: Question
    progress: Progress | None = field(compare=False, default=None)


def explain(question: Question, progress: Progress | None = None) -> Attribution:
    return _explain(_Asked(question, progress))


@lru_cache(maxsize=48)
def _explain(asked: _Asked) -> Attribution:
    question = asked.question
    prediction = predict(question.loaded, question.picture)
    with question.loaded.lock:
        return explain_many(
            question.loaded.model, question.picture.sample.image, [question.target], question.method,
            seed=question.seed, prediction=prediction, sample=question.picture.sample,
            truth_classes=question.picture.truth_classes, progress=asked.progress, **dict(question.params),
        )[0]  # fmt: skip


@lru_cache(maxsize=8)
def compared(models: tuple[Loaded, ...]) -> dict[str, Any]:
    """The document of ``xaitools compare`` for models of the zoo, with the scores of their cards."""
    with ExitStack() as held:
        for loaded in sorted(models, key=lambda each: each.name):  # in one order, lest two tabs wait for each other
            held.enter_context(loaded.lock)
        return compare([loaded.model for loaded in models], rounds=ROUNDS)


def applicable(loaded: Loaded) -> list[str]:
    """The methods for which the model offers enough."""
    return [name for name, method in METHODS.items() if offers(loaded.model, method)]


def settings(text: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """``METHOD.NAME=VALUE ...`` by method, as ``--set`` reads it.

    >>> settings("occlusion.window=8 occlusion.fill=blur")
    {'occlusion': (('fill', 'blur'), ('window', '8'))}
    """
    found: dict[str, dict[str, str]] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        method, dot, parameter = name.partition(".")
        if not (equals and dot):
            raise MethodError(f"setting {word!r}; expected METHOD.NAME=VALUE, e.g. occlusion.window=12")
        parameters(METHODS[method], {parameter: value})  # says what is wrong with them
        found.setdefault(method, {})[parameter] = value
    return {method: tuple(sorted(values.items())) for method, values in found.items()}


def files(explanation: Explanation, scale: str, *formats: str) -> dict[str, bytes]:
    """The files of ``xaitools explain``, by name."""
    with TemporaryDirectory() as folder:
        paths = save_explanation(explanation, Path(folder) / "explanation", formats, scale=scale)
        return {path.name: path.read_bytes() for path in paths}


def png(picture: Picture) -> dict[str, bytes]:
    """The picture as it was explained: an upload may have been scaled down."""
    buffer = io.BytesIO()
    Image.fromarray(picture.rgb).save(buffer, "png")
    return {"picture.png": buffer.getvalue()}
