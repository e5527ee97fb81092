"""Is a method's map right?  Maps of what a model found in a dataset, judged by the model itself and by the annotation.

Every measure stands beside the same measure of two maps that know nothing of the model: random numbers, and the edges of
the image.  A method that is no better than those explains nothing, however convincing its pictures look.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..adapters import Adapter, Model, adapted, as_found
from ..attribution.base import METHODS, explain_many, parameters
from ..data import Dataset
from ..data.relabel import Relabel
from ..errors import DataError, MethodError, XaiError
from ..metrics import maps
from ..metrics.evaluate import predictions
from ..metrics.statistics import image_weights, pooled_mean
from ..targets import Target, bind
from ..types import IGNORE, Decision, Prediction, Sample
from .journal import noted, opened

MEASURES = {
    "deletion": "lower", "insertion": "higher", "pointing": "higher", "mass_gain": "higher", "rank_gain": "higher",
    "target_sensitivity": "higher", "model_randomisation": "higher",
}  # fmt: skip
"""Each measure and which way is better; ``metrics.maps`` defines them."""

BASELINES = ("random", "edge")
RIGHT = 0.5
"""Overlap from which a detection has found an object."""

STEPS, BATCH = 16, 16
Rows = list[dict[str, Any]]
Provider = Callable[[Adapter, Sequence[str]], Sequence[Tensor]]
"""(model, targets of one image) -> their maps (H, W)."""


@dataclass(frozen=True, eq=False)
class Case:
    """A right decision of the model: its target, where that is known to be (H, W), and another target of the image."""

    target: str
    inside: Tensor | None
    other: str | None


def assess(
    model: Model,
    dataset: Dataset,
    methods: Sequence[str],
    *,
    limit: int | None = None,
    most: int = 2,
    seed: int = 0,
    replicates: int = 2000,
    params: Mapping[str, Mapping[str, Any]] | None = None,
    classes_map: Mapping[str, str] | None = None,
    journal: Path | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """The document of ``assess.json``: for each method and measure the mean over right decisions, with a 95 % interval.

    Of each image at most ``most`` objects, classes or segments that the model found are explained; what it missed or
    mistook has no right map.  ``journal`` is a file to which each image is written when it is done, from which
    ``resume`` goes on.  Images that cannot be read are listed under "skipped"; ``undefined`` counts cases without a
    number, such as a map that is zero everywhere.

    Raises MethodError for unknown methods or parameters, DataError when nothing is found to explain, PlanError when the
    journal belongs to another plan.
    """
    given = params or {}
    for name in methods:
        parameters(METHODS[name], given.get(name, {}))
    known = adapted(model)
    total = len(dataset) if limit is None else min(limit, len(dataset))
    plan = {
        "model": known.name, "weights": known.weights_hash, "dataset": dataset.name, "methods": list(methods), "most": most, "n": total,
        "seed": seed, "params": {key: dict(value) for key, value in given.items()}, "classes_map": dict(classes_map or {}),
    }  # fmt: skip
    done: dict[str, Rows | str] = opened(journal, plan, resume, "an assessment")
    relabel = Relabel(dataset, known.task, known.classes, mapping=classes_map)
    twin = _shuffled(known, seed)
    left = [index for index in range(total) if dataset.ids[index] not in done]
    for count, (index, outcome) in enumerate(predictions(known, dataset, left, relabel=relabel), 1):
        rows: Rows | str
        if isinstance(outcome, XaiError):
            rows = str(outcome)
        else:
            sample, prediction = outcome
            rows = list(_judged(known, twin, sample, prediction, methods, given, most, seed))
        done[dataset.ids[index]] = rows
        noted(journal, dataset.ids[index], rows)
        if progress is not None:
            progress(total - len(left) + count, total)
    return _document(plan, [(id, done[id]) for id in list(dataset.ids)[:total]], methods, seed, replicates)


# -- the cases of one image


def cases_of(sample: Sample, prediction: Prediction, most: int) -> list[Case]:
    """What the model got right in this image, the largest or surest first."""
    size = prediction.image_size
    if prediction.task == "classification":
        label = int(prediction.labels[0])
        if sample.label != label:
            return []
        other = _named("class", int(prediction.labels[1]), prediction) if len(prediction.labels) > 1 else None
        return [Case(_named("class", label, prediction), _objects(sample, label, size), other)]
    if prediction.task == "segmentation":
        assert prediction.semantic is not None and sample.semantic is not None
        known = sample.semantic != IGNORE
        right = [label for label in prediction.labels.tolist() if label != prediction.background
                 and bool(((prediction.semantic == label) & (sample.semantic == label)).any())]  # fmt: skip
        names = {label: _named("region", label, prediction) for label in prediction.labels.tolist()}
        return [
            Case(names[label], (sample.semantic == label) & known, next((name for each, name in names.items() if each != label), None))
            for label in right[:most]
        ]
    found = _found(sample, prediction)[:most]
    return [
        Case(f"box:{index}", inside, next((f"box:{each}" for each, _ in found if each != index), _renamed(index, prediction)))
        for index, inside in found
    ]


def _named(kind: str, label: int, prediction: Prediction) -> str:
    return str(Target(kind, prediction.classes[label]))


def _objects(sample: Sample, label: int, size: tuple[int, int]) -> Tensor | None:
    """Where the objects of the image's class are, if anybody knows."""
    if sample.labels is None or sample.boxes is None or not bool((sample.labels == label).any()):
        return None
    return torch.stack([_area(sample, row, size) for row in torch.where(sample.labels == label)[0].tolist()]).any(0)


def _area(sample: Sample, row: int, size: tuple[int, int]) -> Tensor:
    """(H, W) bool: the mask of an object, or its box."""
    if sample.masks is not None:
        return sample.masks[row]
    assert sample.boxes is not None
    x1, y1, x2, y2 = sample.boxes[row].tolist()
    y, x = torch.arange(size[0])[:, None] + 0.5, torch.arange(size[1]) + 0.5
    return (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)


def _found(sample: Sample, prediction: Prediction) -> list[tuple[int, Tensor]]:
    """Detections that are right, by falling score, each with the area of its object."""
    assert sample.boxes is not None and sample.labels is not None and prediction.boxes is not None
    if not len(sample.boxes) or not len(prediction.boxes):
        return []
    overlap = box_iou(prediction.boxes.float(), sample.boxes.float()) * (prediction.labels[:, None] == sample.labels)
    if sample.ignore is not None:
        overlap[:, sample.ignore] = 0
    pairs, taken = [], set()
    for index, (best, row) in enumerate(zip(*(each.tolist() for each in overlap.max(1)), strict=True)):
        if best >= RIGHT and row not in taken:
            taken.add(row)
            pairs.append((index, _area(sample, row, prediction.image_size)))
    return pairs


def _renamed(index: int, prediction: Prediction) -> str | None:
    """The same box as another class, for an image with one find."""
    assert prediction.boxes is not None
    name = next((each for number, each in enumerate(prediction.classes) if number != int(prediction.labels[index])), None)
    return None if name is None else str(Target("given", name, place=tuple(prediction.boxes[index].tolist())))


# -- the measures of one image


def _judged(
    model: Adapter, twin: Adapter, sample: Sample, prediction: Prediction, methods: Sequence[str],
    params: Mapping[str, Mapping[str, Any]], most: int, seed: int,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """A row for each case and method, baselines among them: {"target", "method", measure: number or None}."""
    cases = cases_of(sample, prediction, most)
    if not cases:
        return
    providers: dict[str, Provider] = {
        "random": lambda _, targets: [_noise(sample, target, seed) for target in targets],
        "edge": lambda _, targets: [maps.edge_map(sample.image)] * len(targets),
    }

    def method(name: str) -> Provider:
        options = {"seed": seed, "sample": sample, "prediction": prediction, **params.get(name, {})}
        return lambda of, targets: [each.values for each in explain_many(of, sample.image, targets, name, **options)]

    providers |= {name: method(name) for name in methods}
    for name, provider in providers.items():
        values = provider(model, [case.target for case in cases])
        for case, mine in zip(cases, values, strict=True):
            yield {"target": case.target, "method": name, **_measured(model, twin, sample, prediction, case, mine, provider)}


def _measured(
    model: Adapter, twin: Adapter, sample: Sample, prediction: Prediction, case: Case, values: Tensor, provider: Provider
) -> dict[str, float | None]:
    values, inside = values.float(), case.inside
    measured: dict[str, float | None] = {
        "pointing": None if inside is None else maps.pointing(values, inside),
        "mass_gain": None if inside is None else maps.mass_gain(values, inside),
        "rank_gain": None if inside is None else maps.rank_gain(values, inside),
        "target_sensitivity": None if case.other is None else _changed(values, provider, model, case.other),
        "model_randomisation": _changed(values, provider, twin, case.target),
    }
    fill, scores = maps.blurred(sample.image), probability(model, bind(case.target, prediction))
    for name in ("deletion", "insertion"):
        curve = maps.flipping(scores, sample.image, values, fill, steps=STEPS, insert=name == "insertion")
        measured[name] = None if curve is None else maps.area_under(curve)
    return measured


def _changed(values: Tensor, provider: Provider, model: Adapter, target: str) -> float | None:
    try:
        (other,) = provider(model, [target])
    except MethodError:  # a method may refuse the other target
        return None
    return maps.change(values, other.float()) if bool(other.isfinite().all()) else None


def probability(model: Adapter, decision: Decision) -> maps.Scores:
    """The probability of what is decided in changed images, its box and proposal held fixed; of an edge or a mask its raw output."""
    plain = decision.edge is None and decision.cells is None
    asked = replace(decision, reading="probability") if plain else decision

    def scores(images: Tensor) -> Tensor:
        with torch.no_grad(), as_found(model):
            return torch.cat([model.scores(part, [asked]) for part in images.split(BATCH)]).double().cpu()

    return scores


def _noise(sample: Sample, target: str, seed: int) -> Tensor:
    key = hashlib.sha256(f"{seed}\0{sample.id}\0{target}".encode()).digest()
    return torch.randn(sample.image.shape[1:], generator=torch.Generator().manual_seed(int.from_bytes(key[:7], "little")))


def _shuffled(model: Adapter, seed: int) -> Adapter:
    """The same network with the weights of each layer dealt anew: sizes and statistics stay, what it learned is gone."""
    twin, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    twin.name = f"{model.name} with shuffled weights"
    with torch.no_grad():
        for parameter in twin.module.parameters():
            dealt = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[dealt].view_as(parameter))
    return twin


# -- the document


def _document(
    plan: Mapping[str, Any], rows: Sequence[tuple[str, Rows | str]], methods: Sequence[str], seed: int, replicates: int
) -> dict[str, Any]:
    usable = [(id, each) for id, each in rows if not isinstance(each, str)]
    if not any(each for _, each in usable):
        raise DataError(f"{plan['dataset']}: {plan['model']} is right nowhere in {len(usable)} images; there is no map to judge")
    weights = image_weights([id for id, _ in usable], seed=seed, replicates=replicates)
    table = {
        (method, measure): _mean([each for _, each in usable], method, measure, weights)
        for method in (*BASELINES, *methods)
        for measure in MEASURES
    }
    found = [
        {"method": method, "measure": measure, **table[method, measure], "better": better,
         **{baseline: table[baseline, measure]["value"] for baseline in BASELINES}}
        for method in methods for measure, better in MEASURES.items()
    ]  # fmt: skip
    return {
        **{key: plan[key] for key in ("model", "dataset")},
        "n": len(usable),
        "cases": sum(len({row["target"] for row in each}) for _, each in usable),
        "skipped": [{"id": id, "reason": each} for id, each in rows if isinstance(each, str)],
        "rows": found,
        **{key: plan[key] for key in ("most", "seed", "params")},
    }


def _mean(images: Sequence[Rows], method: str, measure: str, weights: np.ndarray) -> dict[str, Any]:
    """Mean over the cases of all images; the bootstrap draws images."""
    known = [[row[measure] for row in each if row["method"] == method and row[measure] is not None] for each in images]
    undefined = sum(row["method"] == method and row[measure] is None for each in images for row in each)
    return {**pooled_mean(known, weights), "undefined": undefined}
