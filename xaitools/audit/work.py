"""Does one piece: reads its items, changes them, asks the model, keeps what the metric needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..data import Dataset
from ..errors import DataError, ModelError, XaiError
from ..metrics import image_statistics
from ..probes import PROBES, Context, change
from ..probes.base import MEASURED
from ..types import Prediction, Sample
from .clock import Clock
from .plan import CLEAN, Condition, Piece, Plan
from .records import MEASURED as PREFIX
from .records import Row

Outcome = tuple[Sample, Prediction] | XaiError


class Worker:
    """Holds the model and the images of one chunk; pieces come in the plan's order, but need not."""

    def __init__(self, plan: Plan, context: Context) -> None:
        if context.model is None:
            raise ValueError("a run needs a model")
        self.plan, self.context = plan, context
        self.model, self.dataset, self.clock = context.model, context.dataset, Clock()
        self._chunk, self._samples = -1, dict[int, Sample | XaiError]()

    def do(self, piece: Piece) -> list[Row]:
        """One row for each item, in order; an item that fails is a row with the reason."""
        if piece.number != self._chunk:
            self._chunk, self._samples = piece.number, {}
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

    def context_of(self, condition: Condition) -> Context:
        """That of the run, or of the dataset whose items the condition is about."""
        name = self.plan.elsewhere(condition)
        return self.context if name is None else self.context.donors(name).context

    def outcomes(self, samples: Sequence[Sample], condition: Condition) -> list[Outcome]:
        """Changed sample, in the model's indices, and prediction for samples of one image size."""
        with self.clock.measured(condition.probe, "change"):
            changed = _one_by_one(lambda batch: self.changed(batch, condition), samples)
        usable = [(place, sample) for place, sample in enumerate(changed) if isinstance(sample, Sample)]
        context = self.context_of(condition)
        with self.clock.measured(condition.probe, "predict", len(usable)):
            predicted = _one_by_one(lambda batch: self._predicted(batch, context), [sample for _, sample in usable])
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
        return [_sound(truth, prediction) for truth, prediction in zip(truths, predictions, strict=True)]

    def _row(self, item: str, condition: Condition, outcome: Outcome) -> Row:
        reason = str(outcome) if isinstance(outcome, XaiError) else None
        statistics: dict[str, Any] = {}
        if not isinstance(outcome, XaiError):
            try:
                measured = outcome[0].tags.get(MEASURED, {})
                statistics = {**image_statistics(*outcome), **{f"{PREFIX}{name}": np.array([value]) for name, value in measured.items()}}
            except (DataError, ModelError) as error:
                reason = str(error)
        return Row(item, condition.probe, condition.severity, reason, statistics)


def _sound(truth: Sample, prediction: Prediction) -> Outcome:
    numbers = [prediction.scores, *([prediction.boxes] if prediction.boxes is not None else [])]
    if not all(bool(torch.isfinite(each).all()) for each in numbers):
        return ModelError("the model returned NaN or infinite numbers")
    return truth, prediction


def _one_by_one(work: Callable[[Sequence[Sample]], list[Any]], samples: Sequence[Sample]) -> list[Any]:
    """``work`` on all samples at once; where that fails, on each alone, so that one bad image spoils no other."""
    if not samples:
        return []
    try:
        return work(samples)
    except Exception as error:  # a model may raise anything
        if type(error) is XaiError:
            raise  # an argument is at fault, not an image
        if len(samples) > 1:
            return [_one_by_one(work, [sample])[0] for sample in samples]
        if isinstance(error, XaiError):
            return [error]
        lines = str(error).strip().splitlines()
        return [ModelError(f"the model failed: {type(error).__name__}{': ' + lines[0] if lines else ''}")]


def _groups(indices: Sequence[int], size: Callable[[int], tuple[int, ...]], most: int) -> Iterator[list[int]]:
    """Batches of at most ``most`` items of equal image size."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    for index in indices:
        by_size.setdefault(size(index), []).append(index)
    for members in by_size.values():
        yield from (members[start : start + most] for start in range(0, len(members), most))
