"""A few images of each probe, changed and predicted once more, for people to look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import XaiError
from ..probes import Probe
from ..types import Prediction, Sample
from .plan import Condition
from .tally import Tally, primary, reference_of
from .work import Worker

WORST = 2


@dataclass(frozen=True, eq=False)
class Example:
    """One item before and after a change.

    role       worst (the largest drop on one image), typical (the median) or best (the smallest drop, or the largest gain)
    drop       of the metric on this image alone
    images     name of the probe that made ``after``
    degrees    whether its severity says anything
    reference  what ``before`` shows: clean, or the probe it is compared with
    truth      the annotation, as a prediction that is right
    """

    id: str
    probe: str
    severity: int
    role: str
    drop: float
    images: str
    degrees: bool
    reference: str
    before: Tensor
    after: Tensor
    truth: Prediction
    predicted_before: Prediction
    predicted_after: Prediction


def make_examples(tally: Tally, worker: Worker, report: dict) -> tuple[Example, ...]:
    """The worst images, the median one and the best of each probe, at its primary severity."""
    return tuple(example for entry in tally.plan.probes for example in _of(entry, tally, worker, report))


def shown(entry: Probe, row: dict) -> Condition:
    """What stands for a probe in pictures: its primary condition; of several members the one that costs most."""
    if not entry.members:
        return Condition(entry.images, row["primary"]["severity"])
    worst = max(entry.members, key=lambda name: row["members"][name]["drop"] or 0)
    return Condition(worst, primary([each["severity"] for each in row["severities"]]))


def _of(entry: Probe, tally: Tally, worker: Worker, report: dict) -> Iterator[Example]:
    if entry.elsewhere or (entry.measure and not entry.members):  # no image was changed
        return
    condition = shown(entry, report["probes"][entry.name])
    severity, reference = condition.severity, reference_of(entry, condition.severity)
    drops = tally.image_drops(reference, condition)
    order = sorted(drops, key=lambda item: (-drops[item], item))
    dataset = worker.context.dataset
    places = {dataset.ids[index]: index for index in tally.plan.members[condition.probe]}
    roles = {item: "typical" for item in order[len(order) // 2 : len(order) // 2 + 1]}
    roles = {item: "best" for item in order[-1:]} | roles | {item: "worst" for item in order[:WORST] if drops[item] > 0}
    for item in sorted(roles, key=order.index):
        sample = worker.context.readable(places[item])
        if sample is None:  # it was there when it was scored
            continue
        before, after = (worker.outcomes([sample], each)[0] for each in (reference, condition))
        if not isinstance(before, XaiError) and not isinstance(after, XaiError):
            yield Example(
                item, entry.name, severity, roles[item], drops[item], condition.probe, entry.degrees, entry.reference,
                before[0].image, after[0].image, as_prediction(worker.context.truth(sample), after[1]), before[1], after[1],
            )  # fmt: skip


def as_prediction(truth: Sample, like: Prediction) -> Prediction:
    """The annotation in the form in which predictions are drawn."""
    if like.semantic is not None and truth.semantic is not None:
        labels = torch.tensor([index for index in range(len(like.classes)) if bool((truth.semantic == index).any())], dtype=torch.int64)
        scores = torch.ones(len(labels))
        return Prediction(
            like.task, like.classes, like.image_size, labels, scores, semantic=truth.semantic, background=like.background
        )  # fmt: skip
    if like.boxes is not None and truth.boxes is not None and truth.labels is not None:
        scores = torch.ones(len(truth.labels))
        return Prediction(like.task, like.classes, like.image_size, truth.labels, scores, boxes=truth.boxes, masks=truth.masks)
    labels = torch.tensor([] if truth.label is None else [truth.label], dtype=torch.int64)
    return Prediction(like.task, like.classes, like.image_size, labels, torch.ones(len(labels)))
