"""A model on a dataset: predictions item by item, and the task's metrics over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from ..adapters.base import Model
from ..data.base import Dataset, readable
from ..data.relabel import Relabel
from ..errors import DataError, XaiError
from ..types import Prediction, Sample
from .accuracy import METRIC, Table, defined, image_statistics
from .statistics import image_weights, interval

Progress = Callable[[int, int], None]
Outcome = tuple[Sample, Prediction] | XaiError


def evaluate(
    model: Model,
    dataset: Dataset,
    *,
    limit: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
    replicates: int = 2000,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The document of ``xaitools evaluate --json``: the metrics with a 95 % bootstrap interval over images.

    ``limit`` takes the first so many items; ``progress`` is called with (done, total).  Broken items are listed
    under "skipped" and the run goes on.  Undefined numbers are None, and "warnings" says so.
    Raises DataError when no item is usable, or the data has no truth for the model (see ``Relabel``).
    """
    relabel = Relabel(dataset, model.task, model.classes)
    total = len(dataset) if limit is None else min(limit, len(dataset))
    ids, rows, skipped = [], [], []
    for done, (index, outcome) in enumerate(predictions(model, dataset, range(total), relabel=relabel, batch_size=batch_size), 1):
        if isinstance(outcome, XaiError):
            skipped.append({"id": dataset.ids[index], "reason": str(outcome)})
        else:
            ids.append(dataset.ids[index])
            rows.append(image_statistics(*outcome))
        if progress is not None:
            progress(done, total)
    if not rows:
        why = f"the first: {skipped[0]['reason']}" if skipped else "the dataset, or --limit, leaves none"
        raise DataError(f"{dataset.name}: none of {total} items can be used; {why}")
    table = Table(model.task, model.classes, rows)
    name, value = METRIC[model.task], defined(table.metric())
    metrics = {name: value, **table.extra()}
    warnings = relabel.warnings + [f"{each} is undefined: no truth to measure it on" for each in metrics if metrics[each] is None]
    return {
        "model": str(getattr(model, "name", type(model).__name__)),
        "dataset": dataset.name,
        "task": model.task,
        "n": len(rows),
        "skipped": skipped,
        "metric": name,
        "value": value,
        "ci": interval(table.metric(image_weights(ids, seed=seed, replicates=replicates))),
        "metrics": {**metrics, "per_class": table.per_class()},
        **({"warnings": warnings} if warnings else {}),
    }


def predictions(
    model: Model, dataset: Dataset, indices: Iterable[int], *, relabel: Callable[[Sample], Sample], batch_size: int = 8
) -> Iterator[tuple[int, Outcome]]:
    """Each index in turn with its relabelled sample and the prediction, or with the error that says why there is none.

    Neighbours of one image size go through the model together.
    """
    for group in _groups(_relabelled(dataset, indices, relabel), batch_size):
        samples = [item for _, item in group if isinstance(item, Sample)]
        outcomes = iter(_predicted(model, samples))
        for index, item in group:
            yield index, next(outcomes) if isinstance(item, Sample) else item


def _relabelled(dataset: Dataset, indices: Iterable[int], relabel: Callable[[Sample], Sample]) -> Iterator[tuple[int, Sample | XaiError]]:
    for index, item in readable(dataset, list(indices)):
        try:
            yield index, relabel(item) if isinstance(item, Sample) else item
        except DataError as error:
            yield index, error


def _groups(items: Iterable[tuple[int, Sample | XaiError]], most: int) -> Iterator[list[tuple[int, Sample | XaiError]]]:
    """Neighbours with at most ``most`` images, all of one size; errors go along with whom they follow."""
    group: list[tuple[int, Sample | XaiError]] = []
    sizes: list[torch.Size] = []
    for index, item in items:
        if isinstance(item, Sample):
            if sizes and (len(sizes) == most or item.image.shape != sizes[0]):
                yield group
                group, sizes = [], []
            sizes.append(item.image.shape)
        group.append((index, item))
    if group:
        yield group


def _predicted(model: Model, samples: list[Sample]) -> list[Outcome]:
    """What the model says of images of one size; where it refuses the batch, they are tried one by one."""
    if not samples:
        return []
    try:
        return list(zip(samples, model.predict(torch.stack([sample.image for sample in samples])), strict=True))
    except XaiError as error:
        return [error] if len(samples) == 1 else [_predicted(model, [sample])[0] for sample in samples]
