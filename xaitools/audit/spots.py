"""Does some small thing beside the objects decide?  Relevance says where to look, and moving what is there to other images says whether.

Of each image, the class that it is about is explained (see ``shift``).  For each of some window shapes, the places outside all objects
where most positive relevance gathers are candidates.  Those without which least of the class is seen (occlusion sensitivity) are
pasted into a few images of other classes, and the one that brings most of the class is the image's *spot*.

  removed     painted over, beside the same at a random place of the same image: how much less is the class seen?
  moved       pasted at the same place of further images of other classes, beside the same place of another image of *their* class:
              how much more is the spot's class seen there?

A tag, a watermark or a companion that the model reads makes it see its class where there is none; the surroundings that a model
merely looks at do not.  Whether spots lie at one place (a tag) or anywhere (a companion) is counted.  How much a class is
seen, in [0, 1], is its probability in a classified image, its share of the pixels of the objects that the image is about, or the best
score of its boxes on the largest of them (IoU 0.5).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from ..data.fill import fill
from ..errors import DataError, first_line
from ..metrics.batches import flaw
from ..metrics.groups import units_of
from ..metrics.statistics import pooled_mean, unit_weights
from ..probes.base import draws
from ..types import Prediction, Sample
from .engine import Crew, Task, carried
from .plan import CLEAN, Condition, Piece
from .records import SHIFT, Folder, Memory, Row
from .shift import Explainer, Where
from .work import Worker

SPOT = SHIFT + "spot"
"""Condition of the rows; they are no part of the metric."""

SHAPES = ((0.2, 0.2), (0.12, 0.4), (0.4, 0.12), (0.32, 0.32))
"""Height and width of the windows, as shares of the image's shorter side: a thing, a line of writing, a post, a larger thing."""

TRIED = 12
"""Windows of each shape that are painted over, those with most relevance: as many as nearly cover what is beside the objects."""

ROOM = 0.25
"""By how much of its height and width a window is also tried larger, on each side."""

FINALISTS, PROBED = 3, 3
"""Of those, so many that take most of the class with them are pasted into so many images of other classes each; the best is the spot."""

WORKS = 0.1
"""Of the class, how much more must be seen in those images for a spot to *work*, see ``summary``."""

MOVES, FEW_MOVES = 8, 2
"""Further images of other classes, which had no part in the choice, that a spot is moved to which works, and one which does not."""

TRIES = 4
"""Images looked at for each of them, since objects must leave the place free."""

SAME = 0.3
"""Overlap (IoU) from which two spots count as at one place."""

NOWHERE = "no place beside the objects speaks for the class"
"""Why an image has no spot where the model has looked at nothing there: an answer, and no failure."""

FEWEST, FEWEST_THERE = 10, 5
"""Of a class, spots from which on it is judged; and so many of one kind, that work or lie in one place, are judged by themselves."""

FIXED = 0.5
"""Share of a class's spots in one place from which on what they show is an artefact, and else company; less will do where those move
decisions clearly more than the others do (see ``fixed``)."""

Facts = dict[str, Any]


@dataclass(frozen=True)
class Spot:
    """``box`` (top, left, bottom, right) in pixels, and the shares of positive relevance and of area in it, of all outside objects."""

    box: tuple[int, int, int, int]
    mass: float
    area: float


def spots_of(values: Tensor, objects: Tensor, shape: tuple[float, float], most: int = TRIED) -> list[Spot]:
    """The windows of ``shape`` where a map (H, W) has most beside ``objects`` (H, W) bool, best first, at most ``most``.

    Of each the centre lies in no better one.  None where no window is free or has anything.
    """
    down, across = _sides(objects, shape)
    outside = values.clamp(min=0).double() * ~objects
    total, free = float(outside.sum()), int((~objects).sum())
    sums = torch.where(_windows(objects.double(), down, across) < 0.5, _windows(outside, down, across), -1.0)
    found: list[Spot] = []
    while total > 0 and sums.numel() and len(found) < most and float(sums.max()) > 0:
        top, left = divmod(int(sums.argmax()), sums.shape[1])
        found.append(Spot((top, left, top + down, left + across), float(sums[top, left]) / total, down * across / free))
        near = (max(0, top - down // 2), max(0, left - across // 2), top + down // 2 + 1, left + across // 2 + 1)
        cut(sums, near).fill_(-1.0)
    return found


def _sides(objects: Tensor, shape: tuple[float, float]) -> tuple[int, int]:
    short = min(objects.shape)
    down, across = (max(3, round(each * short)) for each in shape)
    return down, across


def _windows(values: Tensor, down: int, across: int) -> Tensor:
    """Sums over all windows of that size, by their top left corner."""
    sums = F.pad(values.cumsum(0).cumsum(1), (1, 0, 1, 0))
    return sums[down:, across:] - sums[:-down, across:] - sums[down:, :-across] + sums[:-down, :-across]


def _grown(spot: Spot, values: Tensor, objects: Tensor) -> list[Spot]:
    """The spot with ``ROOM`` more on each side, if that is free of objects: half a tag may be missed, but says little elsewhere."""
    (top, left, bottom, right), (height, width) = spot.box, objects.shape
    down, across = (max(1, round(ROOM * each)) for each in (bottom - top, right - left))
    box = max(0, top - down), max(0, left - across), min(height, bottom + down), min(width, right + across)
    if bool(cut(objects, box).any()):
        return []
    outside, area = values.clamp(min=0).double() * ~objects, (box[2] - box[0]) * (box[3] - box[1])
    return [Spot(box, float(cut(outside, box).sum() / outside.sum()), area / int((~objects).sum()))]


def _elsewhere(objects: Tensor, spot: Spot, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """A random window of the spot's shape beside the objects, and apart from the spot where there is room."""
    down, across = spot.box[2] - spot.box[0], spot.box[3] - spot.box[1]
    free = _windows(objects.double(), down, across) < 0.5
    apart = free.clone()
    apart[max(0, spot.box[0] - down + 1) : spot.box[2], max(0, spot.box[1] - across + 1) : spot.box[3]] = False
    places = torch.nonzero(apart if bool(apart.any()) else free)
    top, left = places[int(generator.integers(len(places)))].tolist()
    return top, left, top + down, left + across


class Spots:
    """Finds and moves the spots of one image after another; ``explainer`` has settled on its method."""

    def __init__(self, explainer: Explainer) -> None:
        self.explainer, self.context, self.seed = explainer, explainer.context, explainer.plan.seed

    def row(self, index: int) -> Row:
        """What came of one image: ``label``, ``box`` in shares of its size, ``mass``, ``area``, both sides of ``removed`` and ``moved``."""
        item = self.context.dataset.ids[index]
        try:
            sample = self.context.dataset[index]
            values, _ = self.explainer.explained(self.explainer.view(index, CLEAN))
            objects = self.context.foreground(sample)
            candidates = [each for shape in SHAPES for each in spots_of(values, objects, shape)]
            if not candidates:
                raise DataError(NOWHERE)
            label = self._label(sample)
            generator = draws(self.seed, SPOT, 0, item)
            spot, brought, known = self._chosen(sample, candidates, values, objects, label, generator)
            height, width = objects.shape
            top, left, bottom, right = spot.box
            statistics = {
                "label": [label], "box": [top / height, left / width, bottom / height, right / width], "mass": [spot.mass],
                "area": [spot.area], "brought": [brought], "removed": self._removed(sample, spot, objects, label, generator),
                "moved": np.ravel(self._moved(sample, spot, label, generator, MOVES if brought >= WORKS else FEW_MOVES, known)),
            }  # fmt: skip
        except Exception as error:  # a model's backward pass may raise anything
            return Row(item, SPOT, 0, first_line(error))
        return Row(item, SPOT, 0, None, {name: np.array(values, float) for name, values in statistics.items()})

    def _label(self, sample: Sample) -> int:
        subject = self.context.subject(sample)
        label = None if subject is None else self.context.key(subject)
        if not isinstance(label, int):
            raise DataError("no class of the model that this image is about")
        return label

    def _chosen(
        self, sample: Sample, candidates: Sequence[Spot], values: Tensor, objects: Tensor, label: int, generator: np.random.Generator
    ) -> tuple[Spot, float, set[str]]:
        """The best candidate (see ``FINALISTS``), how much of the class it brought, and the images that it was tried on."""
        mean = sample.image.mean((1, 2), keepdim=True)  # quick to paint
        seen = [self._seen(each, sample, label) for each in
                self._predicted(torch.where(_hole(objects, each.box), mean, sample.image) for each in candidates)]  # fmt: skip
        ranked = sorted(zip(seen, candidates, strict=True), key=lambda pair: (pair[0], -pair[1].mass / pair[1].area))
        others = list(islice(self._others(sample, label, generator), 2 * PROBED))
        finalists = [size for _, each in ranked[:FINALISTS] for size in (each, *_grown(each, values, objects))]
        free = [[pair for pair in others if self._free(sample, each, pair[0])][:PROBED] for each in finalists]
        found = iter(self._pasted(sample, label, [(each, *pair) for each, pairs in zip(finalists, free, strict=True) for pair in pairs]))
        brought = [sum(float(np.subtract(*next(found))) for _ in pairs) / len(pairs) if pairs else 0.0 for pairs in free]
        best = int(np.argmax(brought))
        return finalists[best], brought[best], {other.id for other, _ in others}

    def _removed(self, sample: Sample, spot: Spot, objects: Tensor, label: int, generator: np.random.Generator) -> tuple[float, float]:
        """How much less the class is seen without the spot, and without as much somewhere else beside the objects."""
        holes = (_hole(objects, box) for box in (spot.box, _elsewhere(objects, spot, generator)))
        images = [sample.image, *(fill(sample.image, hole, objects) for hole in holes)]
        clean, without, elsewhere = (self._seen(each, sample, label) for each in self._predicted(images))
        return clean - without, clean - elsewhere

    def _moved(
        self, sample: Sample, spot: Spot, label: int, generator: np.random.Generator, most: int, known: set[str]
    ) -> list[tuple[float, float]]:
        """What is seen (see ``_pasted``) in up to ``most`` images of other classes that are not ``known``."""
        drawn = islice(self._others(sample, label, generator), most * TRIES)
        tries = ((spot, other, kin) for other, kin in drawn if other.id not in known and self._free(sample, spot, other))
        return self._pasted(sample, label, list(islice(tries, most)))

    def _others(self, sample: Sample, label: int, generator: np.random.Generator) -> Iterator[tuple[Sample, Sample]]:
        """Images of other classes, each with another one of its own class, drawn for ever; none where there are none."""
        donors = self.context.donors()
        with suppress(DataError):
            while True:
                other = self.context.dataset[donors.draw(sample, generator, "truth", [partial(operator.ne, label)])]
                kin = self.context.dataset[donors.draw(other, generator, "truth", [partial(operator.eq, self._label(other))])]
                yield other, kin

    def _free(self, sample: Sample, spot: Spot, other: Sample) -> bool:
        return not bool(cut(self.context.foreground(other), _at(spot.box, sample, other)).any())

    def _pasted(self, sample: Sample, label: int, tries: Sequence[tuple[Spot, Sample, Sample]]) -> list[tuple[float, float]]:
        """For each spot, image and one of the same class: what is seen in the first with the spot, and with that place of the second."""
        predicted = iter(self._predicted(
            pasted(other.image, _at(spot.box, sample, other), cut(each.image, _at(spot.box, sample, each)))
            for spot, other, kin in tries for each in (sample, kin)
        ))  # fmt: skip
        return [(self._seen(next(predicted), other, label), self._seen(next(predicted), other, label)) for _, other, _ in tries]

    def _predicted(self, images: Iterable[Tensor]) -> list[Prediction]:
        predicted = list[Prediction]()
        for _, alike in groupby(images, key=lambda image: image.shape):
            while batch := list(islice(alike, self.explainer.plan.batch_size)):
                predicted += self.explainer.model.predict(torch.stack(batch))
        if why := next(filter(None, map(flaw, predicted)), None):
            raise why
        return predicted

    def _seen(self, prediction: Prediction, sample: Sample, label: int) -> float:
        """How much the class is seen in what ``sample`` is about, see the module."""
        return seen(prediction, self.explainer.place(sample, self._label(sample)), label)


def seen(prediction: Prediction, where: Where, label: int) -> float:
    """How much of the class is seen ``where`` an image has what it is about (see ``place_of``), in [0, 1]; see the module."""
    if prediction.task == "classification":
        return float(prediction.scores[prediction.labels == label].sum())
    place, box = where
    if place is None:
        raise DataError("nothing in this image is annotated as the class that it is about")
    if prediction.semantic is not None:
        return float((prediction.semantic[place] == label).double().mean())
    assert prediction.boxes is not None
    near = (prediction.labels == label) & (box_iou(torch.tensor([box]).to(prediction.boxes), prediction.boxes)[0] >= 0.5)
    return float(prediction.scores[near].max()) if bool(near.any()) else 0.0


def _at(box: Sequence[int], own: Sample, other: Sample) -> tuple[int, int, int, int]:
    """The same place in another image, which may be of another size."""
    (h, w), (height, width) = own.image.shape[-2:], other.image.shape[-2:]
    top, left, bottom, right = (round(each * long / length) for each, long, length in
                                zip(box, (height, width) * 2, (h, w) * 2, strict=True))  # fmt: skip
    return top, left, max(bottom, top + 1), max(right, left + 1)


def _hole(objects: Tensor, box: Sequence[int]) -> Tensor:
    hole = torch.zeros_like(objects)
    cut(hole, box).fill_(True)
    return hole


def cut(values: Tensor, box: Sequence[int]) -> Tensor:
    """``box`` (top, left, bottom, right) of ``values`` (..., H, W)."""
    top, left, bottom, right = box
    return values[..., top:bottom, left:right]


def pasted(image: Tensor, box: Sequence[int], patch: Tensor) -> Tensor:
    """``image`` (C, H, W) with ``patch`` in ``box`` (top, left, bottom, right), to whose size it is brought."""
    place = image.clone()
    target = cut(place, box)
    if patch.shape != target.shape:
        patch = F.interpolate(patch[None], target.shape[-2:], mode="bilinear", antialias=True)[0]
    target.copy_(patch)
    return place


@dataclass(frozen=True)
class Spotted:
    """The work of one item: its spot, by ``method``."""

    method: str
    index: int

    def __call__(self, worker: Worker) -> list[Row]:
        explainer = Explainer(worker, worker.plan)
        explainer.method = self.method
        return [Spots(explainer).row(self.index)]


def measure_spots(
    explainer: Explainer, indices: Sequence[int], store: Folder | Memory, replicates: int = 2000,
    progress: Callable[[int, int], None] | None = None, crew: Crew | None = None,
) -> tuple[Facts, list[Row]]:  # fmt: skip
    """What the spots of these items say, class by class (see ``summary``), and the rows that it rests on, each a piece of ``store``."""
    ids = explainer.context.dataset.ids
    tasks = [Task(piece_of(index), (ids[index],), Spotted(explainer.method, index)) for index in indices]
    told = None if progress is None else lambda done: progress(done, len(indices))
    rows = [row for found in carried(store, tasks, lambda task: task.work(explainer.worker), crew, told) for row in found]
    return summary(rows, explainer.model.classes, explainer.plan.seed, replicates, explainer.plan.facts.get("clusters")), rows


def piece_of(index: int) -> Piece:
    """The piece that holds the spot of one item."""
    return Piece(index, Condition(SPOT, 0), (index,))


def summary(
    rows: Sequence[Row], classes: Sequence[str], seed: int, replicates: int = 2000, clusters: Mapping[str, str] | None = None
) -> Facts:
    """What the spots say of the classes with ``FEWEST`` of them or more, by class.

    A cue that few images of a class have would drown among the spots of the others.  So where ``FEWEST_THERE`` spots or more *work*, which
    the images that they were chosen by tell, those are judged and the others left out; what they do is measured on other images.
    ``clusters`` {item id: cluster} are drawn as a whole, and of few of those there are no intervals.

    n, judged      spots of the class, and how many are judged, of which all else speaks
    mass, chance   mean share of the relevance beside objects that lies in the spot, and of the area; ``ratio`` {"value", "ci"} is the
                   mean of their ratio
    removed        {"value", "ci", "n"}: how much less of the class is seen without the spot than without as much elsewhere
    moved          {"value", "ci", "n", "images"}: how much more of it is seen in images of other classes that got the spot, than in
                   those that got the same place of an image of their own; None where none has that place free
    place          {"xyxy", "share", "others"}: the spot at the place of most others, in shares of the image, what share of the spots
                   lies there, and of those of other classes; and "ratio", "removed", "moved" of those that lie there
    elsewhere      {"ratio", "removed", "moved"} of those that do not
    """
    sound = [row for row in rows if row.reason is None]
    labels = np.array([int(row.statistics["label"][0]) for row in sound], int)
    found: Facts = {}
    for label in np.unique(labels).tolist():
        mine, others = ([row for row, each in zip(sound, labels, strict=True) if bool(each == label) is own] for own in (True, False))
        if len(mine) < FEWEST:
            continue
        working = [row for row in mine if row.statistics["brought"][0] >= WORKS]
        judged = working if len(working) >= FEWEST_THERE else mine
        names = [row.item for row in judged]
        units = units_of(names, clusters)
        weights = unit_weights(names, units, seed=seed, replicates=replicates)
        boxes, strange = (np.array([row.statistics["box"] for row in some]).reshape(-1, 4) for some in (judged, others))
        there = overlaps(boxes, boxes) >= SAME
        best = int(there.sum(1).argmax())
        away = overlaps(boxes[best : best + 1], strange)[0] >= SAME
        top, left, bottom, right = boxes[best].tolist()
        here = _of(judged, there[best], weights, units)
        found[classes[label]] = {
            "n": len(mine),
            "judged": len(judged),
            "mass": float(np.mean([row.statistics["mass"][0] for row in judged])),
            "chance": float(np.mean([row.statistics["area"][0] for row in judged])),
            **_of(judged, np.ones(len(judged), bool), weights, units),
            "place": {
                "xyxy": [left, top, right, bottom],
                "share": float(there[best].mean()),
                "others": float(away.mean()) if len(away) else None,
                **here,
            },
            "elsewhere": _of(judged, ~there[best], weights, units),
        }
    return found


def _of(rows: Sequence[Row], which: NDArray[np.bool_], weights: NDArray, units: Sequence[str] | None) -> Facts:
    """What some of the spots show, "ratio", "removed" and "moved"; None where there are none, or none of them was moved."""
    some = [row.statistics if chosen else None for row, chosen in zip(rows, which, strict=True)]
    ratio = [[] if each is None else (each["mass"] / each["area"]).tolist() for each in some]
    removed = [[] if each is None else [float(np.subtract(*each["removed"]))] for each in some]
    gains = [[] if each is None else np.subtract(*each["moved"].reshape(-1, 2).T).tolist() for each in some]
    moved = [[float(np.mean(each))] if each else [] for each in gains]  # of each spot, since those that work are moved more often
    counts = {"n": sum(map(len, gains)), "images": sum(map(bool, moved))}
    return {
        "ratio": pooled_mean(ratio, weights, units) if any(ratio) else None,
        "removed": {**pooled_mean(removed, weights, units), "n": sum(map(bool, removed))} if any(removed) else None,
        "moved": {**pooled_mean(moved, weights, units), **counts} if any(moved) else None,
    }


def fixed(found: Facts) -> bool:
    """Whether what the spots of a class (a row of ``summary``) show belongs to one place of the image."""
    here, away = found["place"]["moved"], found["elsewhere"]["moved"]
    if here is None or here["images"] < FEWEST_THERE:
        return False
    if found["place"]["share"] >= FIXED:
        return True
    return away is not None and None not in (here["ci"], away["ci"]) and bool(here["ci"][0] > away["ci"][1])


def overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU (N, M) of boxes (top, left, bottom, right)."""
    return box_iou(torch.from_numpy(np.asarray(one)), torch.from_numpy(np.asarray(other))).numpy()
