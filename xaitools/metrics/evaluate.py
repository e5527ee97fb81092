"""A model on a dataset: predictions item by item, and the task's metrics over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from ..adapters.base import Model
from ..data.base import Dataset, readable
from ..data.relabel import Relabel
from ..errors import DataError, XaiError
from ..types import Prediction, Sample
from .accuracy import BOXED, METRIC, Table, image_statistics, metric_at
from .batches import flaw, tried
from .confusion import label_table
from .coverage import interval_facts
from .detections import Detections
from .groups import SMALL, declared_clusters, group_document, units_of
from .ratios import defined
from .statistics import FEW_CLUSTERS, draw, image_weights, told_share, unit_weights
from .stored import Stored

Progress = Callable[[int, int], None]
Outcome = tuple[Sample, Prediction] | XaiError


def evaluate(
    model: Model | Stored,
    dataset: Dataset,
    *,
    limit: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
    replicates: int = 2000,
    progress: Progress | None = None,
    iou: Sequence[float] = (0.5,),
    score: float = 0.5,
    groups: Mapping[str, str] | None = None,
    clusters: Mapping[str, str] | None = None,
    classes_map: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The document of ``xaitools evaluate --json``: the metrics with a 95 % interval from a bootstrap over images, as of probes.

    ``limit`` takes the first so many items; ``progress`` is called with (done, total).  Broken items are listed
    under "skipped" and the run goes on.  Undefined numbers are None, and "warnings" says so.

    iou          of boxes: levels at which the metric is given under "iou"; a single one other than 0.5 is the headline
    score        of boxes: from here on a detection counts in precision, recall and confusion
    groups       item id to group: the metric of each, the worst, and the gap; an id may have none
    clusters     item id to cluster: the bootstrap draws these, and each image that has none by itself; None: as the
                 dataset says, and where it says nothing, images
    classes_map  model class to data class, where names differ

    Raises DataError when no item is usable, or the data has no truth for the model (see ``Relabel``).
    """
    relabel = Relabel(dataset, model.task, model.classes, mapping=classes_map)
    total = len(dataset) if limit is None else min(limit, len(dataset))
    boxed = Detections(model.classes, iou, score) if model.task in BOXED else None
    ids, rows, skipped = [], [], []
    for done, (index, outcome) in enumerate(predictions(model, dataset, range(total), relabel=relabel, batch_size=batch_size), 1):
        if isinstance(outcome, XaiError):
            skipped.append({"id": dataset.ids[index], "reason": str(outcome)})
        else:
            ids.append(dataset.ids[index])
            rows.append(image_statistics(*outcome))
            if boxed is not None:
                boxed.add(*outcome)
        if progress is not None:
            progress(done, total)
    if not rows:
        why = f"the first: {skipped[0]['reason']}" if skipped else "the dataset, or --limit, leaves none"
        raise DataError(f"{dataset.name}: none of {total} items can be used; {why}")
    clusters = declared_clusters(dataset) if clusters is None else clusters
    units = units_of(ids, clusters)
    weights = unit_weights(ids, units, seed=seed, replicates=replicates)
    standard = Table(model.task, model.classes, rows)
    usual = METRIC[model.task]
    name = metric_at(model.task, iou[0]) if len(iou) == 1 else usual

    def table(places: Sequence[int]) -> Table:
        """The headline metric of some images."""
        if boxed is not None and name != usual:
            return boxed.table(model.task, places)
        return Table(model.task, model.classes, [rows[place] for place in places])

    headline = standard if name == usual else table(range(len(rows)))
    value = defined(headline.metric())
    metrics = {name: value, **({usual: defined(standard.metric())} if name != usual else {}), **standard.extra()}
    more: dict[str, Any] = {}
    if boxed is not None:
        more = boxed.document(model.task, weights, units)
        metrics |= boxed.sizes() | {each: more["detections"][each] for each in ("precision", "recall")}
    else:
        more["confusion"] = label_table(rows, model.classes, "pixels" if model.task == "segmentation" else "images")
    if groups is not None:
        drawn = image_weights(ids, seed=seed, replicates=replicates, clusters=units)
        more["groups"] = group_document(table, [groups.get(id) for id in ids], drawn, seed=seed, clusters=units)
    if units is not None:
        more["clusters"] = {"n": len(set(units)), "alone": sum(id not in (clusters or {}) for id in ids)}
    warnings = [*relabel.warnings, *_warnings(metrics, more), *(model.unused() if isinstance(model, Stored) and limit is None else [])]
    return {
        "model": str(getattr(model, "name", type(model).__name__)),
        "dataset": dataset.name,
        "task": model.task,
        "n": len(rows),
        "skipped": skipped,
        "metric": name,
        "value": value,
        **told_share(draw({"": headline}, dict, weights, units)[""], units),
        "intervals": interval_facts(model.task, len(rows), units),
        "metrics": {**metrics, "per_class": headline.per_class()},
        **more,
        **({"warnings": warnings} if warnings else {}),
    }


def _warnings(metrics: Mapping[str, Any], more: Mapping[str, Any]) -> list[str]:
    """What must be said about the numbers."""
    reasons = {"precision": f"no detection has a score of {more['detections']['score']:g}"} if "detections" in more else {}
    found = [f"{each} is undefined: {reasons.get(each, 'no truth to measure it on')}" for each in metrics if metrics[each] is None]
    if "detections" in more:
        told, counts = more["detections"], {name: row["detections"] for name, row in more["detections"]["per_class"].items()}
        strange = [
            name for name in sorted(counts, key=lambda name: -counts[name]) if counts[name] and not told["per_class"][name]["truths"]
        ]
        if strange:
            share = f"{sum(counts[name] for name in strange)} of {told['detections']} detections"
            found.append(f"{share} are of classes without any truth here ({', '.join(strange[:5])}); they count as wrong in precision")
    if "groups" in more:
        small = [name for name, row in more["groups"]["per_group"].items() if row["small"]]
        found += [f"groups with fewer than {SMALL} items, whose numbers say little: {', '.join(small[:8])}"] if small else []
        found += [f"items without a group: {more['groups']['ungrouped']}"] if more["groups"]["ungrouped"] else []
    if "clusters" in more:
        count, alone = more["clusters"]["n"], more["clusters"]["alone"]
        found += [f"images without a cluster, each drawn by itself: {alone}"] if alone else []
        if count < FEW_CLUSTERS:
            found.append(f"only {count} clusters, fewer than {FEW_CLUSTERS}: no interval, but the range over the clusters, each alone")
    return found


def predictions(
    model: Model | Stored, dataset: Dataset, indices: Iterable[int], *, relabel: Callable[[Sample], Sample], batch_size: int = 8
) -> Iterator[tuple[int, Outcome]]:
    """Each index in turn with its relabelled sample and the prediction, or with the error that says why there is none.

    Neighbours of one image size go through the model together.
    """
    for group in _groups(_relabelled(dataset, indices, relabel), batch_size):
        samples = [item for _, item in group if isinstance(item, Sample)]
        outcomes = iter([_looked_up(model, sample) for sample in samples] if isinstance(model, Stored) else _predicted(model, samples))
        for index, item in group:
            yield index, next(outcomes) if isinstance(item, Sample) else item


def _looked_up(stored: Stored, sample: Sample) -> Outcome:
    try:
        return sample, stored.of(sample)
    except DataError as error:
        return error


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
    """What the model says of images of one size."""

    def asked(batch: Sequence[Sample]) -> list[Outcome]:
        predicted = model.predict(torch.stack([sample.image for sample in batch]))
        return [flaw(each) or (sample, each) for sample, each in zip(batch, predicted, strict=True)]

    return tried(asked, samples)
