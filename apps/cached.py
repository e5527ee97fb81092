"""What is slow is computed once: models, predictions, maps, files.

The keys hold everything the result depends on: the weights' hash, the pixels' hash, target, method, all parameters
and the seed.  Every cache is bounded.  These are not streamlit's caches because those refuse a progress bar that
moves while a function is computed; a click that ends a run early leaves no entry.
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qsl

import torch
from PIL import Image
from sources import Picture, made
from torch import Tensor

from xaitools import zoo
from xaitools.adapters import Adapter
from xaitools.attribution.base import METHODS, Progress, explain_many, offers, parameters
from xaitools.attribution.sweep import sides
from xaitools.audit.assess import STEPS, probability
from xaitools.errors import MethodError, ModelError, XaiError
from xaitools.locations import data_root, part
from xaitools.metrics.compare import compare
from xaitools.metrics.maps import blurred, flipping, strongest
from xaitools.report.store import save_explanation
from xaitools.serve import python_allowed
from xaitools.targets import bind
from xaitools.types import Attribution, Explanation, Prediction, Sample, Trace
from xaitools.zoo.bounded import bounded

ROUNDS = 5
"""So often the time of each of several models is taken, in turn."""
FEW = 16
"""No more windows than these has the first of the coarse maps."""
AT_ONCE = 4
"""Images for which a sweep holds the model."""


@dataclass(frozen=True)
class Loaded:
    """A model; one user at a time, since some methods put hooks on the network.

    name          the string that chose it
    weights_hash  of a model of the zoo, else what is known of its files
    string        as the command line takes it
    """

    name: str
    weights_hash: str
    string: str = field(compare=False)
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
    """The model that a string names.  Raises ModelError where it cannot be had, or may not (see ``zoo.bounded``)."""
    if name in zoo.names():
        return _load(name, zoo.card(name)["weights"]["sha256"], name)
    string = name if python_allowed() else bounded(name, [data_root(), part("models")])
    files = [Path(value) for value in dict(parse_qsl(string.partition("?")[2])).values() if 0 < len(value) < 4096]
    stamps = [(file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file()]
    return _load(name, f"{string} {stamps}", string)


@lru_cache(maxsize=6)
def _load(name: str, weights_hash: str, string: str) -> Loaded:
    with _plainly(name):
        return Loaded(name, weights_hash, string, zoo.load_model(string))


@contextmanager
def _plainly(name: str) -> Iterator[None]:
    """What goes wrong inside a network of somebody else becomes one line; an error of ours keeps its traceback."""
    try:
        yield
    except XaiError:
        raise
    except Exception as error:
        if name in zoo.names():
            raise
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"model {name[:100]!r}: the network fails on this picture or option ({why}); try another") from error


@lru_cache(maxsize=16)
def predict(loaded: Loaded, picture: Picture) -> Prediction:
    return answered(loaded, picture.sample.image)


def answered(loaded: Loaded, image: Tensor) -> Prediction:
    """What the model says of ``image`` (3, H, W); not kept."""
    with loaded.lock, _plainly(loaded.name):
        return loaded.model.predict(image[None])[0]


@dataclass(frozen=True)
class _Asked:
    question: Question
    progress: Progress | None = field(compare=False, default=None)
    compute: bool = field(compare=False, default=True)


def explain(question: Question, progress: Progress | None = None) -> Attribution:
    return _explain(_Asked(question, progress))


def known(question: Question) -> bool:
    """Whether the map is there already."""
    try:
        _explain(_Asked(question, compute=False))
    except LookupError:
        return False
    return True


def coarser(question: Question) -> list[Question]:
    """The same question with windows that do not overlap, each time half as wide; the first are at most ``FEW``.

    Empty of methods that move no window.  Raises MethodError where the settings are none.
    """
    values = parameters(METHODS[question.method], dict(question.params))
    if not {"window", "stride"} <= values.keys():
        return []
    image = question.picture.sample.image
    window, _ = sides(image, values["window"], values["stride"], 1, question.method)
    wide = [2 * window]
    while math.prod(-(-side // wide[0]) for side in image.shape[-2:]) > FEW:
        wide.insert(0, 2 * wide[0])
    every = dict(question.params)
    return [replace(question, params=tuple(sorted((every | {"window": str(side), "stride": str(side)}).items()))) for side in wide]


@lru_cache(maxsize=48)
def _explain(asked: _Asked) -> Attribution:
    if not asked.compute:
        raise LookupError(asked.question.method)
    question = asked.question
    prediction = predict(question.loaded, question.picture)
    with question.loaded.lock, _plainly(question.loaded.name):
        return explain_many(
            question.loaded.model, question.picture.sample.image, [question.target], question.method,
            seed=question.seed, prediction=prediction, sample=question.picture.sample,
            truth_classes=question.picture.truth_classes, progress=asked.progress, **dict(question.params),
        )[0]  # fmt: skip


@lru_cache(maxsize=8)
def trace(loaded: Loaded, picture: Picture) -> Trace:
    """How a detector came to its boxes."""
    with loaded.lock, _plainly(loaded.name):
        return loaded.model.trace(picture.sample.image)


@lru_cache(maxsize=32)
def deletion(question: Question) -> Deletion | None:
    """What is left of the score while the strongest pixels of a map are blurred away; None of a map that is zero everywhere."""
    loaded, picture = question.loaded, question.picture
    values, image, fill = explain(question).values, picture.sample.image, blurred(picture.sample.image)
    decision = bind(question.target, predict(loaded, picture), picture.sample, picture.truth_classes)
    noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(question.seed))
    ask = probability(loaded.model, decision)

    def scores(images: Tensor) -> Tensor:
        found = []
        for few in images.split(AT_ONCE):  # between them another tab may have the model
            with loaded.lock, _plainly(loaded.name):
                found.append(ask(few))
        return torch.cat(found)

    curves = [flipping(scores, image, each, fill, steps=STEPS) for each in (values, noise)]
    return None if curves[0] is None or curves[1] is None else Deletion(*(tuple(curve.tolist()) for curve in curves))


@dataclass(frozen=True)
class Deletion:
    """Scores at equal steps from nothing deleted to all: by a map's own order, and in random order."""

    ordered: tuple[float, ...]
    random: tuple[float, ...]


@lru_cache(maxsize=16)
def deleted(question: Question, share: float) -> Picture:
    """The picture with that share of the strongest pixels of a map blurred away."""
    sample = question.picture.sample
    gone = strongest(explain(question).values, share)
    image = torch.where(gone, blurred(sample.image), sample.image)
    return made(Sample(sample.id, image), question.picture.source, f"{share:.0%} of {sample.id} deleted")


@lru_cache(maxsize=8)
def compared(models: tuple[Loaded, ...]) -> dict[str, Any]:
    """The document of ``xaitools compare`` for models of the zoo, with the scores of their cards.

    It measures copies, so that no other tab waits for a model meanwhile.
    """
    return compare([zoo.load_model(loaded.string) for loaded in models], rounds=ROUNDS)


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
