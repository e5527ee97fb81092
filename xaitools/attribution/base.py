"""One call that explains: ``explain(model, image, target, method)``.

A method is one file that registers a function

    (model, image, decisions, generator, *, name=default, ...) -> Maps

with ``image`` (1, 3, H, W) in [0, 1] and K bound decisions about it, all on the same image, so that a method can
share the forward pass.  Gradients, seeds, checks, timing and cleaning up belong to the call, not to the method.
A function that names one of ``GIVEN`` among its keywords is given it by the call; it is no parameter of the method.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapters import Adapter, Model, adapted, as_found, check_images
from ..data import Dataset
from ..errors import MethodError, XaiError
from ..registry import About, Registry
from ..targets import Target, bind, expand
from ..types import Attribution, Decision, Panels, Prediction, Sample, Trace
from .kept import Kept

Ledger = tuple[tuple[str, float], ...]
Progress = Callable[[int, int], None]

GIVEN = ("progress", "kept", "sample", "data", "truth_classes")
"""Keywords of a method that the call fills in; see ``explain_many``."""


@dataclass(frozen=True, eq=False)
class Detail:
    """What a method has to say of one target alone: ``used`` and ``notes`` beside those of all, and what it made."""

    used: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    image: Tensor | None = None
    panels: Panels | None = None


@dataclass(frozen=True, eq=False)
class Maps:
    """What a method returns: values (K, H, W), scores (K,), where sums are kept K ledgers, and what automatic parameters came to.

    ``details`` are K, or none.  ``trace`` is how a detector came to its boxes in this image, where the method looked at that.
    """

    values: Tensor
    scores: Tensor
    ledgers: Sequence[Ledger] = ()
    used: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    trace: Trace | None = None
    details: Sequence[Detail] = ()


@dataclass(frozen=True)
class Method:
    """``needs`` is "gradients", "scores", "predictions" or "candidates" (of a detector): the least that a model must offer."""

    name: str
    function: Callable[..., Maps]
    needs: str
    defaults: Mapping[str, Any]
    about: About | None = None


METHODS: Registry[Method] = Registry("method", "xaitools.attribution", MethodError)


def method(
    name: str, *, needs: str = "gradients", about: About | None = None, **fixed: Any
) -> Callable[[Callable[..., Maps]], Callable[..., Maps]]:
    """Registers a function as a method; ``fixed`` presets some of its keywords under this name."""

    def add(function: Callable[..., Maps]) -> Callable[..., Maps]:
        parameters = inspect.signature(function).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in GIVEN}
        hidden = {key: value for key, value in fixed.items() if key not in defaults}
        if hidden:
            raise TypeError(f"method {name!r} presets unknown {sorted(hidden)}")
        METHODS.add(name, Method(name, function, needs, defaults | fixed, about))
        return function

    return add


def explain(
    model: Model,
    image: Tensor,
    target: str | Target = "top",
    method: str = "lrp",
    *,
    seed: int = 0,
    sample: Sample | None = None,
    truth_classes: Sequence[str] = (),
    data: Dataset | None = None,
    progress: Progress | None = None,
    **params: Any,
) -> Attribution:
    """Why ``model`` gave ``target`` in ``image`` (3, H, W): a signed map (H, W), by ``method``.

    Raises TargetError, MethodError or ModelError, each one line, when the target is not in the prediction, the
    method does not exist or refuses, or the image or a parameter is at fault.

    The sign means: positive speaks for the explained score.  A map says what the model used, not what is true.
    """
    known: dict[str, Any] = {"sample": sample, "truth_classes": truth_classes, "data": data, "progress": progress}
    many = explain_many(model, image, [target], method, seed=seed, **known, **params)
    if len(many) > 1:
        raise MethodError(f"target {target} stands for {len(many)} explanations here; use explain_many")
    return many[0]


def explain_many(
    model: Model,
    image: Tensor,
    targets: Sequence[str | Target],
    method: str = "lrp",
    *,
    seed: int = 0,
    sample: Sample | None = None,
    truth_classes: Sequence[str] = (),
    data: Dataset | None = None,
    prediction: Prediction | None = None,
    progress: Progress | None = None,
    unfinished: Path | None = None,
    **params: Any,
) -> list[Attribution]:
    """``explain`` for several targets of one image; methods that can share the forward pass do.

    sample         what is known about the image, for ``region:gt:`` and for methods that look at annotation
    data           the dataset that gave ``sample``, whose class names its numbers stand for
    truth_classes  of these the names behind ``sample.semantic`` alone, where no dataset is at hand
    prediction     spares a second look when ``model.predict`` has already been called on this image
    unfinished     a folder in which a long sweep keeps what it has found so far, and from which the same call goes on
    """
    entry = METHODS[method]
    values = parameters(entry, params)
    if not isinstance(image, Tensor) or image.dim() != 3:
        came = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise XaiError(f"got an image of {came}; expected one tensor (3, H, W), RGB in [0, 1]; see xt.read_image")
    images = check_images(image[None])
    known = adapted(model)
    if prediction is None:
        prediction = known.predict(images)[0]
    if not offers(known, entry):
        what = "black box" if known.black_box else f"{known.task} model"
        raise MethodError(f"method {method} needs {entry.needs}; {known.name} is a {what} that gives none, use occlusion-drise")
    truth_classes = truth_classes or (data.semantic_classes if data is not None else ())
    decisions = [bind(each, prediction, sample, truth_classes) for target in targets for each in expand(target, prediction)]
    if not decisions:
        raise XaiError("no target; give at least one, e.g. top")
    question = {
        "method": method, "params": {name: str(each) for name, each in values.items()}, "seed": seed, "model": known.name,
        "weights": known.weights_hash, "targets": [decision.target for decision in decisions], "dtype": str(known.dtype),
    }  # fmt: skip
    kept = None if unfinished is None else Kept.of(unfinished, question, images)
    given = {"progress": progress, "kept": kept, "sample": sample, "data": data, "truth_classes": truth_classes}
    extra = {name: given[name] for name in GIVEN if name in inspect.signature(entry.function).parameters}
    generator = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    with as_found(known):
        maps = entry.function(known, images, decisions, generator, **values, **extra)
    seconds = time.perf_counter() - start
    if maps.values.shape != (len(decisions), *image.shape[1:]):
        raise RuntimeError(f"method {method} returned {tuple(maps.values.shape)} for {len(decisions)} targets, {tuple(image.shape)}")
    ledgers: Sequence[Ledger | None] = maps.ledgers or [None] * len(decisions)
    details = maps.details or [Detail()] * len(decisions)
    used = {**values, **maps.used}
    return [
        Attribution(
            values=each.detach().cpu(), target=decision.target, method=method, params=_reported({**used, **detail.used}, decision),
            seed=seed, score=float(score), ledger=ledger, seconds=seconds / len(decisions), notes=(*maps.notes, *detail.notes),
            trace=maps.trace, image=detail.image, panels=detail.panels,
        )
        for each, decision, score, ledger, detail in zip(maps.values, decisions, maps.scores, ledgers, details, strict=True)
    ]  # fmt: skip


def offers(model: Adapter, entry: Method) -> bool:
    """Whether ``model`` gives what the method needs, as far as it has shown (a black box may show it at its first answer)."""
    if entry.needs == "candidates" and type(model).trace is Adapter.trace:
        return False
    return entry.needs == "predictions" or not model.black_box


def _reported(values: Mapping[str, Any], decision: Decision) -> dict[str, Any]:
    """The parameters with what a default of None came to."""
    shown = dict(values)
    if "score" in shown and shown["score"] is None:
        shown["score"] = default_score(decision)
    return shown


def default_score(decision: Decision) -> str:
    """Boxes are explained by the margin, because a box's probability hardly moves (see the design of occlusion)."""
    plain = decision.edge is None and decision.cells is None and decision.versus is None
    return "margin" if decision.box is not None and plain else "logit"


def parameters(entry: Method, given: Mapping[str, Any]) -> dict[str, Any]:
    """The method's defaults overridden by ``given``; text is read as the default's type."""
    values = dict(entry.defaults)
    for key, value in given.items():
        if key not in values:
            known = ", ".join(sorted(values)) or "none"
            raise MethodError(f"method {entry.name} has no parameter {key!r}; it has {known}")
        values[key] = _as(value, values[key], f"{entry.name}.{key}") if isinstance(value, str) else value
    return values


def _as(text: str, default: Any, name: str) -> Any:
    if isinstance(default, bool):
        if text.lower() not in ("true", "false", "1", "0"):
            raise MethodError(f"{name}={text!r}; expected true or false")
        return text.lower() in ("true", "1")
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError:
            raise MethodError(f"{name}={text!r}; expected {'a whole number' if isinstance(default, int) else 'a number'}") from None
    return text


@contextmanager
def differentiable(x: Tensor) -> Iterator[Tensor]:
    """A leaf copy of ``x`` that gradients reach; gradients are enabled inside."""
    with torch.enable_grad():
        yield x.detach().clone().requires_grad_(True)
