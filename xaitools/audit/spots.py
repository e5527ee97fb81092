"""Does some small thing beside the objects decide?  Relevance says where to look, and moving what is there to other images says whether.

Of each image, the class that it is about is explained (see ``shift``).  For each of some window shapes, the place outside all objects
where most positive relevance gathers is a candidate; the one without which least of the class is seen is the image's *spot*.

  removed     painted over, beside the same at a random place of the same image: how much less is the class seen?
  moved       pasted at the same place of images of other classes, beside the same place of another image of *their* class:
              how much more is the spot's class seen there?

A tag, a watermark or a companion that the model reads makes it see its class where there is none; the surroundings that a model
merely looks at do not.  Whether spots lie at one place (a tag) or anywhere (a companion) is counted.  How much a class is
seen, in [0, 1], is its probability in a classified image, its share of the pixels of the objects that the image is about, or the best
score of its boxes on the largest of them (IoU 0.5).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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
from ..metrics.statistics import image_weights, pooled_mean
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

MOVES = 2
"""Images of other classes that each spot is moved to."""

TRIES = 8
"""Images looked at for one of them whose objects leave the place free."""

SAME = 0.3
"""Overlap (IoU) from which two spots count as at one place."""

NOWHERE = "no place beside the objects speaks for the class"
"""Why an image has no spot where the model has looked at nothing there: an answer, and no failure."""

FEWEST = 10
"""Of a class, images from which on it is judged."""

FIXED, FEWEST_THERE = 0.5, 5
"""Share of a class's spots in one place from which on what they show is an artefact, and else company; and the number of spots in
one place from which on less will do, if they move decisions clearly more than the others do (see ``fixed``)."""

Facts = dict[str, Any]


@dataclass(frozen=True)
class Spot:
    """``box`` (top, left, bottom, right) in pixels, and the shares of positive relevance and of area in it, of all outside objects."""

    box: tuple[int, int, int, int]
    mass: float
    area: float


def spot_of(values: Tensor, objects: Tensor, shape: tuple[float, float]) -> Spot | None:
    """The window of ``shape`` where a map (H, W) has most beside ``objects`` (H, W) bool; None where none is free or has anything."""
    down, across = _sides(objects, shape)
    outside = values.clamp(min=0).double() * ~objects
    total, free = float(outside.sum()), int((~objects).sum())
    sums = torch.where(_windows(objects.double(), down, across) < 0.5, _windows(outside, down, across), -1.0)
    if total <= 0 or not sums.numel() or float(sums.max()) <= 0:
        return None
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return Spot((top, left, top + down, left + across), float(sums[top, left]) / total, down * across / free)


def _sides(objects: Tensor, shape: tuple[float, float]) -> tuple[int, int]:
    short = min(objects.shape)
    down, across = (max(3, round(each * short)) for each in shape)
    return down, across


def _windows(values: Tensor, down: int, across: int) -> Tensor:
    """Sums over all windows of that size, by their top left corner."""
    sums = F.pad(values.cumsum(0).cumsum(1), (1, 0, 1, 0))
    return sums[down:, across:] - sums[:-down, across:] - sums[down:, :-across] + sums[:-down, :-across]


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
            candidates = [each for shape in SHAPES if (each := spot_of(values, objects, shape)) is not None]
            if not candidates:
                raise DataError(NOWHERE)
            label = self._label(sample)
            generator = draws(self.seed, SPOT, 0, item)
            spot = self._chosen(sample, candidates, objects, label)
            height, width = objects.shape
            top, left, bottom, right = spot.box
            statistics = {
                "label": [label], "box": [top / height, left / width, bottom / height, right / width], "mass": [spot.mass],
                "area": [spot.area], "removed": self._removed(sample, spot, objects, label, generator),
                "moved": [each for pair in self._moved(sample, spot, label, generator) for each in pair],
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

    def _chosen(self, sample: Sample, candidates: Sequence[Spot], objects: Tensor, label: int) -> Spot:
        """The candidate without which least of the class is seen, in the mean colour of the image, which is quick to paint."""
        mean = sample.image.mean((1, 2), keepdim=True)
        images = [torch.where(_hole(objects, each.box), mean, sample.image) for each in candidates]
        seen = [self._seen(each, sample, label) for each in self._predicted(images)]
        return min(zip(seen, candidates, strict=True), key=lambda pair: (pair[0], -pair[1].mass / pair[1].area))[1]

    def _removed(self, sample: Sample, spot: Spot, objects: Tensor, label: int, generator: np.random.Generator) -> tuple[float, float]:
        """How much less the class is seen without the spot, and without as much somewhere else beside the objects."""
        holes = (_hole(objects, box) for box in (spot.box, _elsewhere(objects, spot, generator)))
        images = [sample.image, *(fill(sample.image, hole, objects) for hole in holes)]
        clean, without, elsewhere = (self._seen(each, sample, label) for each in self._predicted(images))
        return clean - without, clean - elsewhere

    def _moved(self, sample: Sample, spot: Spot, label: int, generator: np.random.Generator) -> Iterator[tuple[float, float]]:
        """How much the class is seen in images of other classes with the spot, and with that place of another image of their class."""
        donors = self.context.donors()
        for _ in range(MOVES):
            for _ in range(TRIES):
                try:
                    other = self.context.dataset[donors.draw(sample, generator, "truth", [partial(operator.ne, label)])]
                    kin = self.context.dataset[donors.draw(other, generator, "truth", [partial(operator.eq, self._label(other))])]
                except DataError:
                    return
                place = _at(spot.box, sample, other)
                if bool(cut(self.context.foreground(other), place).any()):
                    continue
                images = [pasted(other.image, place, cut(each.image, _at(spot.box, sample, each))) for each in (sample, kin)]
                yield tuple(self._seen(each, other, label) for each in self._predicted(images))  # type: ignore[misc]
                break

    def _predicted(self, images: Sequence[Tensor]) -> list[Prediction]:
        predicted = self.explainer.model.predict(torch.stack(list(images)))
        if why := next(filter(None, map(flaw, predicted)), None):
            raise why
        return list(predicted)

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
    return summary(rows, explainer.model.classes, explainer.plan.seed, replicates), rows


def piece_of(index: int) -> Piece:
    """The piece that holds the spot of one item."""
    return Piece(index, Condition(SPOT, 0), (index,))


def summary(rows: Sequence[Row], classes: Sequence[str], seed: int, replicates: int = 2000) -> Facts:
    """{class: {"n", "mass", "chance", "ratio", "removed", "moved", "place"}} of the classes with ``FEWEST`` spots or more.

    mass, chance   mean share of the relevance beside objects that lies in the spot, and of the area; ``ratio`` {"value", "ci"} is the
                   mean of their ratio
    removed        {"value", "ci"}: how much less of the class is seen without the spot than without as much elsewhere
    moved          {"value", "ci", "n"}: how much more of it is seen in images of other classes that got the spot, than in those that got
                   the same place of an image of their own; None where there is no other class
    place          {"xyxy", "share", "others", "moved"}: the spot at the place of most others, in shares of the image, how many of
                   the class's spots lie there, how many of those of other classes, and "moved" of those that lie there
    elsewhere      {"moved"} of those that do not
    """
    sound = [row for row in rows if row.reason is None]
    labels = np.array([int(row.statistics["label"][0]) for row in sound], int)
    found: Facts = {}
    for label in np.unique(labels).tolist():
        mine, others = ([row for row, each in zip(sound, labels, strict=True) if bool(each == label) is own] for own in (True, False))
        if len(mine) < FEWEST:
            continue
        weights = image_weights([row.item for row in mine], seed=seed, replicates=replicates)
        removed = [[float(np.subtract(*row.statistics["removed"]))] for row in mine]
        moved = [np.subtract(*row.statistics["moved"].reshape(-1, 2).T).tolist() for row in mine]
        everywhere = np.ones(len(mine), bool)
        boxes, strange = (np.array([row.statistics["box"] for row in some]).reshape(-1, 4) for some in (mine, others))
        there = overlaps(boxes, boxes) >= SAME
        best = int(there.sum(1).argmax())
        away = overlaps(boxes[best : best + 1], strange)[0] >= SAME
        top, left, bottom, right = boxes[best].tolist()
        found[classes[label]] = {
            "n": len(mine),
            "mass": float(np.mean([row.statistics["mass"][0] for row in mine])),
            "chance": float(np.mean([row.statistics["area"][0] for row in mine])),
            "ratio": pooled_mean([(row.statistics["mass"] / row.statistics["area"]).tolist() for row in mine], weights),
            "removed": pooled_mean(removed, weights),
            "moved": _of(moved, everywhere, weights),
            "place": {
                "xyxy": [left, top, right, bottom],
                "share": float(there[best].mean()),
                "others": float(away.mean()) if len(away) else None,
                "moved": _of(moved, there[best], weights),
            },
            "elsewhere": {"moved": _of(moved, ~there[best], weights)},
        }
    return found


def _of(moved: Sequence[Sequence[float]], which: NDArray[np.bool_], weights: NDArray) -> Facts | None:
    """{"value", "ci", "n", "images"} of some of the spots; None where none of them was moved."""
    some = [each if chosen else [] for each, chosen in zip(moved, which, strict=True)]
    if not any(some):
        return None
    return {**pooled_mean(some, weights), "n": sum(map(len, some)), "images": sum(map(bool, some))}


def fixed(found: Facts) -> bool:
    """Whether what the spots of a class (a row of ``summary``) show belongs to one place of the image."""
    here, away = found["place"]["moved"], found["elsewhere"]["moved"]
    if found["place"]["share"] >= FIXED:
        return True
    if here is None or here["images"] < FEWEST_THERE or here["ci"] is None:
        return False
    return away is not None and away["ci"] is not None and bool(here["ci"][0] > away["ci"][1])


def overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU (N, M) of boxes (top, left, bottom, right)."""
    return box_iou(torch.from_numpy(np.asarray(one)), torch.from_numpy(np.asarray(other))).numpy()
