"""Does one piece: reads its items, changes them, asks the model, keeps what the metric needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..data import Dataset
from ..errors import DataError, ModelError, XaiError
from ..metrics import image_statistics
from ..metrics.batches import flaw, tried
from ..probes import PROBES, Context, change
from ..probes.base import MEASURED
from ..types import Prediction, Sample
from .clock import Clock
from .plan import CLEAN, Condition, Piece, Plan
from .records import HALVED, Row
from .records import MEASURED as PREFIX

Outcome = tuple[Sample, Prediction] | XaiError


class Worker:
    """Holds the model and the images of one chunk; pieces come in the plan's order, but need not."""

    def __init__(self, plan: Plan, context: Context) -> None:
        if context.model is None:
            raise ValueError("a run needs a model")
        self.plan, self.context = plan, context
        self.model, self.dataset, self.clock = context.model, context.dataset, Clock()
        self._chunk, self._samples = -1, dict[int, Sample | XaiError]()
        self._batch = plan.batch_size

    def do(self, piece: Piece) -> list[Row]:
        """One row for each item, in order; an item that fails is a row with the reason."""
        if piece.number != self._chunk:
            self._chunk, self._samples = piece.number, {}
        self._batch = self.plan.batch_size
        outcomes: dict[int, Outcome] = {}
        dataset = self.context_of(piece.condition).dataset
        for index in piece.items:
            sample = self._sample(dataset, index)
            if isinstance(sample, XaiError):
                outcomes[index] = sample
        left = [index for index in piece.items if index not in outcomes]
        for group in _groups(left, lambda index: tuple(self._samples[index].image.shape), self.plan.batch_size):  # type: ignore[union-attr]
            samples = [self._samples[index] for index in group]
            outcomes |= zip(group, self.outcomes(samples, piece.condition), strict=True)  # type: ignore[arg-type]
        return [self._row(dataset.ids[index], piece.condition, outcomes[index]) for index in piece.items]

    def _halved(self, size: int) -> None:
        self._batch = min(self._batch, size)

    def context_of(self, condition: Condition) -> Context:
        """That of the run, or of the dataset whose items the condition is about."""
        name = self.plan.elsewhere(condition)
        return self.context if name is None else self.context.donors(name).context

    def outcomes(self, samples: Sequence[Sample], condition: Condition) -> list[Outcome]:
        """Changed sample, in the model's indices, and prediction for samples of one image size."""
        with self.clock.measured(condition.probe, "change"):
            changed = tried(lambda batch: self.changed(batch, condition), samples, self._halved)
        usable = [(place, sample) for place, sample in enumerate(changed) if isinstance(sample, Sample)]
        context = self.context_of(condition)
        with self.clock.measured(condition.probe, "predict", len(usable)):
            predicted = tried(lambda batch: self._predicted(batch, context), [sample for _, sample in usable], self._halved)
        outcomes: list[Outcome] = [sample for sample in changed]  # type: ignore[misc]
        for (place, _), outcome in zip(usable, predicted, strict=True):
            outcomes[place] = outcome
        return outcomes

    def _sample(self, dataset: Dataset, index: int) -> Sample | XaiError:
        if index not in self._samples:
            try:
                self._samples[index] = dataset[index]
            except DataError as error:
                self._samples[index] = error
        return self._samples[index]

    def changed(self, samples: Sequence[Sample], condition: Condition) -> list[Any]:
        """Samples of one image size under ``condition``, in the dataset's indices, or for each why there is none."""
        if condition == CLEAN:
            return list(samples)
        entry, params = PROBES[condition.probe], self.plan.params[condition.probe]
        return list(change(entry, samples, condition.severity, self.context_of(condition), seed=self.plan.seed, params=params))

    def _predicted(self, samples: Sequence[Sample], context: Context) -> list[Any]:
        truths = [context.truth(sample) for sample in samples]
        predictions = self.model.predict(torch.stack([sample.image for sample in samples]))
        return [flaw(prediction) or (truth, prediction) for truth, prediction in zip(truths, predictions, strict=True)]

    def _row(self, item: str, condition: Condition, outcome: Outcome) -> Row:
        reason = str(outcome) if isinstance(outcome, XaiError) else None
        statistics: dict[str, Any] = {}
        if self._batch < self.plan.batch_size:
            statistics[HALVED] = np.array([self._batch])
        if not isinstance(outcome, XaiError):
            try:
                measured = outcome[0].tags.get(MEASURED, {})
                statistics |= image_statistics(*outcome) | {f"{PREFIX}{name}": np.array([value]) for name, value in measured.items()}
            except (DataError, ModelError) as error:
                reason = str(error)
        return Row(item, condition.probe, condition.severity, reason, statistics)


def _groups(indices: Sequence[int], size: Callable[[int], tuple[int, ...]], most: int) -> Iterator[list[int]]:
    """Batches of at most ``most`` items of equal image size."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    for index in indices:
        by_size.setdefault(size(index), []).append(index)
    for members in by_size.values():
        yield from (members[start : start + most] for start in range(0, len(members), most))
