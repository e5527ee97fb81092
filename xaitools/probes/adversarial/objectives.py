"""What an attack wants: a loss that every task has, or one thing that a detector does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ...adapters import Candidates, objects_of
from ...architectures.yolo_v1 import overlap
from ...errors import XaiError
from ...types import IGNORE, Sample
from ..objects import Context
from .ascent import Objective, Value

FAR = 0.3
"""A box that overlaps an object less than this is no longer its box."""

Dense = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
"""(logits (N, C, H, W), truth, cross-entropy and whether right (N, H, W) each, share of the steps that is done) -> loss (N, H, W)."""


def objective_of(name: str, context: Context, truths: Sequence[Sample]) -> Objective:
    """``loss``: the model's own, of a segmenter ``mistaken``; ``own``: the model's own; of a detector also class, box, vanish or
    fabricate.

    Raises XaiError where the model has no such objective.
    """
    model, wanted = context.model, DETECTION.get(name)
    assert model is not None
    if name == "loss" and context.lacks(frozenset({"pixels"})) is None:
        return dense(model, truths, mistaken)
    if name in ("loss", "own"):
        return lambda images, done: plain(model.loss(images, truths))  # type: ignore[attr-defined]
    if wanted is None:
        raise XaiError(f"objective={name}: unknown; expected loss or own, or of a detector {', '.join(DETECTION)}")
    if not callable(getattr(model, "candidates", None)):
        raise XaiError(
            f"objective={name}: {getattr(model, 'name', 'the model')} is no detector that shows its candidates; use objective=loss"
        )
    if name == "class" and len(model.classes) < 2:
        raise XaiError("objective=class: the model has one class, so no other can be said; use objective=vanish")

    def score(images: Tensor, done: float) -> Value:
        found = model.candidates(images, truths if name in ("class", "box") else None)  # type: ignore[attr-defined]
        return plain(torch.stack([wanted(*each) for each in zip(found, truths, strict=True)]))

    return score


def plain(loss: Tensor) -> Value:
    """What is climbed is also what is recorded and what harms."""
    return Value(loss, loss, loss)


def dense(model: object, truths: Sequence[Sample], weigh: Dense) -> Objective:
    """Mean of ``weigh`` over the labelled pixels of a segmenter.

    Recorded is the mean cross-entropy; the best image is the one with the largest share of wrong pixels.
    """
    classes = torch.stack([truth.semantic for truth in truths])  # type: ignore[misc]

    def score(images: Tensor, done: float) -> Value:
        logits = model.logits_from(model.normalise(images))  # type: ignore[attr-defined]
        truth = classes.to(logits.device)
        labelled = truth != IGNORE
        known = torch.where(labelled, truth, 0)
        entropy, right = F.cross_entropy(logits, known, reduction="none"), logits.argmax(1) == known
        total = labelled.sum((1, 2)).clamp(min=1)
        parts = weigh(logits, known, entropy, right, done), entropy, (~right).to(entropy)
        return Value(*((part * labelled).sum((1, 2)) / total for part in parts))

    return score


def mistaken(logits: Tensor, truth: Tensor, entropy: Tensor, right: Tensor, done: float) -> Tensor:
    """1 - p, where p is the probability of a pixel's class.

    Its gradient is that of the cross-entropy times p.  The cross-entropy itself has no bound, so that pixels which are wrong
    already lead it, and an attack spends its radius on making them more so.
    """
    return -torch.expm1(-entropy)


def misnamed(found: Candidates, truth: Sample) -> Tensor:
    """class: cross-entropy among the classes of the candidates near an object, those with high scores first; the boxes may stay."""
    rows, objects = found.near(truth)
    labels = objects_of(truth, found.boxes)[1][objects]
    logs = found.log_scores[rows]
    weights = logs.detach().exp().amax(1)
    each = -logs.log_softmax(1).gather(1, labels[:, None])[:, 0]
    return (weights * each).sum() / weights.sum().clamp(min=1e-6)


def misplaced(found: Candidates, truth: Sample) -> Tensor:
    """box: how little the boxes of the right class overlap the objects: minus the sum of score * (IoU - FAR) where that is positive."""
    boxes, labels = objects_of(truth, found.boxes)
    if not len(labels):
        return found.log_scores.sum() * 0
    beyond = (overlap(found.boxes[:, labels], boxes) - FAR).clamp(min=0)
    return -(found.log_scores[:, labels].detach().exp() * beyond).sum() / len(labels)


def vanished(found: Candidates, truth: Sample) -> Tensor:
    """vanish: log-probability that no candidate anywhere says any class."""
    return found.log_silence.sum()


def invented(found: Candidates, truth: Sample) -> Tensor:
    """fabricate: the mean over the candidates that overlap no object of the log of their best score."""
    boxes, _ = objects_of(truth, found.boxes)
    best, labels = found.log_scores.max(1)
    places = found.boxes.detach()[torch.arange(len(labels)), labels]
    free = (overlap(places[:, None], boxes) < FAR).all(1)
    return best[free].sum() / max(1, len(labels))


DETECTION: dict[str, Callable[[Candidates, Sample], Tensor]] = {
    "class": misnamed, "box": misplaced, "vanish": vanished, "fabricate": invented
}  # fmt: skip
