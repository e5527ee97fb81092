"""Where the relevance of the decisions lies that a model made on a dataset: right ones and wrong ones, as it made them.

A decision is the most probable class of a classified image, a box that scores ``Limits.score`` or more, or all that a
segmenter calls a class that is not its background.  What is explained is its margin over all other classes (``:vs:``), by LRP, or by
gradient x input where a network has operations without a rule.  A map is looked at once.  What is kept of it is small, so that
a dataset of any length fits: two views of ``SIDE`` x ``SIDE`` cells, and the shares of ``PARTS``.  Both count positive
relevance alone, as shares of all of it (Arras et al. 2022, relevance mass).

  place    the image, without what lies on the decision's own object and its ring: objects lie anywhere, and a cue that stays at
           its place must not drown in that
  object   the object's box with its own side around it, brought to one size; empty for a classified image that
           nobody says where the object is in

The object is what the model itself marks: its box, its mask, its region; of a classified image what is annotated as its class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..adapters import adapted
from ..attribution.base import METHODS, explain_many, offers
from ..data.present import rectangles
from ..errors import DataError, MethodError, ModelError, first_line
from ..metrics.accuracy import image_statistics
from ..metrics.batches import flaw
from ..probes import Context
from ..targets import Target
from ..types import IGNORE, Prediction, Sample
from .engine import Crew, Task, carried
from .plan import Condition, Piece
from .records import Folder, Memory, Row
from .shift import AUTO, FAILURES
from .work import Worker

SIDE = 16
"""Cells along the sides of both views."""

AROUND = 1.0
"""Of the object view: context on every side, in sides of the object's box."""

RING, RIM = 0.25, 0.06
"""Width of an object's surroundings, in square roots of its area, and of the image's border, as a share of its shorter side."""

PARTS = ("object", "declared", "others", "ring", "border", "rest")
"""Every pixel is of the first that it fits: the decision's own object; an artefact that the dataset declares
(``artifact_xyxy``); other annotated objects; the surroundings of its own; the image's border; all else."""

HALF = 0.5
"""Of a segment, the share of its labelled pixels from which it is right; of a region, what must be left of it."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """score      a box counts from here on
    area       a segment counts from so large a share of the image on
    per_image  decisions of one image, the surest or largest first
    """

    score: float = 0.5
    area: float = 0.005
    per_image: int = 8


@dataclass(frozen=True, eq=False)
class Decided:
    """One decision, with what is kept of its map.

    item        the image's id, and ``target`` what was explained in it
    label       index into the model's classes
    confidence  in [0, 1]: class probability, score of the box, mean probability over the segment
    right       whether the truth agrees, as the metric of the task counts; None where it does not count
    box         (4,) xyxy of its object, as shares of the image's width and height
    score       the margin that was explained
    place, object_view  (SIDE, SIDE) positive relevance in each cell, as a share of all in the image; float32, since there may be many
    shares, areas       (6,) of ``PARTS``: shares of positive relevance and of the image; both sum to 1
    """

    item: str
    target: str
    label: int
    confidence: float
    right: bool | None
    box: Array
    score: float
    place: NDArray[np.floating]
    object_view: NDArray[np.floating]
    shares: Array
    areas: Array

    @property
    def key(self) -> tuple[str, str]:
        return self.item, self.target


@dataclass(frozen=True, eq=False)
class Decisions:
    """What a model decided on a dataset.

    method   of the maps; None where there are none, and ``note`` says why
    made     by item and target
    skipped  {item: why} of images without decisions because something failed
    empty    decisions left out because no relevance speaks for them
    """

    classes: tuple[str, ...]
    method: str | None
    note: str
    made: tuple[Decided, ...]
    skipped: dict[str, str]
    empty: int = 0

    def of(self, label: int) -> list[Decided]:
        return [each for each in self.made if each.label == label]


def measure_decisions(
    context: Context,
    indices: Sequence[int],
    store: Folder | Memory,
    *,
    method: str = "auto",
    seed: int = 0,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] | None = None,
    crew: Crew | None = None,
) -> Decisions:
    """The decisions of the context's model on these items; each item is one piece of ``store``.

    Raises MethodError where a method was named that the model refuses; with "auto" a model that gives no gradients has no
    decisions, and ``note`` says so.
    """
    limits = limits or Limits()
    looker = Looker(context, seed, limits)
    items = [context.dataset.ids[index] for index in indices]
    found, note = looker.settle(method, indices)
    if found is None:
        return Decisions(looker.classes, None, note, (), {})
    made: list[Decided] = []
    skipped: dict[str, str] = {}
    empty = 0
    tasks = [Task(piece_of(index), (item,), Decides(found, index, seed, limits)) for index, item in zip(indices, items, strict=True)]
    told = None if progress is None else lambda done: progress(done, len(items))
    rows = carried(store, tasks, lambda task: [looker.row(task.piece.number)], crew, told)
    for item, (row,) in zip(items, rows, strict=True):
        if row.reason is not None:
            skipped[item] = row.reason
        else:
            every = list(looker.decided(row))
            made += [each for each in every if np.isfinite(each.shares).all()]
            empty += sum(1 for each in every if not np.isfinite(each.shares).all())
    return Decisions(looker.classes, found, note, tuple(sorted(made, key=lambda each: each.key)), skipped, empty)


@dataclass(frozen=True)
class Decides:
    """The work of one item: the decisions about it, explained by ``method``."""

    method: str
    index: int
    seed: int
    limits: Limits

    def __call__(self, worker: Worker) -> list[Row]:
        looker = Looker(worker.context, self.seed, self.limits)
        looker.method = self.method
        return [looker.row(self.index)]


def piece_of(index: int) -> Piece:
    """The piece that holds the decisions of one item."""
    return Piece(index, Condition("decisions", 0), (index,))


class Looker:
    def __init__(self, context: Context, seed: int, limits: Limits) -> None:
        if context.model is None:
            raise ValueError("decisions need a model")
        self.context, self.seed, self.limits = context, seed, limits
        self.model = adapted(context.model)
        self.classes, self.method = tuple(self.model.classes), ""

    def settle(self, wanted: str, indices: Sequence[int]) -> tuple[str | None, str]:
        """The method and why it is not the first, or None and why there is none; tried on the first decision there is."""
        refusal = "the model decided nothing"
        for name in AUTO if wanted == "auto" else (wanted,):
            if not offers(self.model, METHODS[name]):
                refusal = f"{self.model.name} is a black box, and {name} needs {METHODS[name].needs}"
                continue
            self.method = name
            failed = 0
            for index in indices:
                try:
                    if not self._maps(index)[2]:
                        continue
                except (DataError, ModelError):  # this item says nothing of the method
                    continue
                except Exception as error:  # a model's backward pass may raise anything
                    refusal, failed = first_line(error), failed + 1
                    if isinstance(error, MethodError) or failed == FAILURES:
                        break
                    continue
                return name, "" if name in (wanted, AUTO[0]) else f"{name}, because {AUTO[0]} was refused: {refusal}"
        if wanted != "auto" and refusal != "the model decided nothing":
            raise MethodError(f"relevance by {wanted}: {refusal}")
        return None, f"no relevance of decisions: {refusal}"

    def row(self, index: int) -> Row:
        """All decisions of one item in one row: arrays over them, one after the other."""
        item, condition = self.context.dataset.ids[index], piece_of(index).condition
        try:
            sample, prediction, maps = self._maps(index)
            chosen = chosen_of(prediction, self.limits)
            rights = right_of(sample, prediction)
            columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
            for number, (values, score) in zip(chosen, maps, strict=True):
                place = place_of(self.context, self.context.dataset[index], sample, prediction, number)
                masks = parts_of(self.context, self.context.dataset[index], place)
                views, shares = kept_of(values, place, masks)
                label = int(prediction.labels[number])
                right = rights[number]
                columns["label"].append(label)
                columns["number"].append(number)
                columns["confidence"].append(float(prediction.scores[number]))
                columns["right"].append(np.nan if right is None else float(right))
                columns["score"].append(score)
                columns["box"].append(_box(place))
                columns["place"].append(views[0])
                columns["object_view"].append(views[1])
                columns["shares"].append(shares)
                columns["areas"].append([float(mask.double().mean()) for mask in masks])
        except Exception as error:  # a model's backward pass may raise anything
            return Row(item, condition.probe, 0, first_line(error))
        return Row(item, condition.probe, 0, None, {name: np.array(each, np.float32).ravel() for name, each in columns.items()})

    def decided(self, row: Row) -> Sequence[Decided]:
        """The decisions that ``row`` keeps."""
        count = len(row.statistics["label"])
        rows = {name: np.asarray(row.statistics[name], float).reshape(count, *shape) for name, shape in COLUMNS.items()}
        return [
            Decided(
                row.item, str(self._target(int(rows["label"][place]), int(rows["number"][place]))), int(rows["label"][place]),
                float(rows["confidence"][place]), None if np.isnan(rows["right"][place]) else bool(rows["right"][place]),
                rows["box"][place], float(rows["score"][place]), rows["place"][place].astype(np.float32),
                rows["object_view"][place].astype(np.float32),
                rows["shares"][place], rows["areas"][place],
            )
            for place in range(count)
        ]  # fmt: skip

    def _target(self, label: int, number: int) -> Target:
        if self.model.task == "classification":
            return Target("class", self.classes[label], versus="")
        return (
            Target("region", self.classes[label], versus="")
            if self.model.task == "segmentation"
            else Target("box", index=number, versus="")
        )

    def _maps(self, index: int) -> tuple[Sample, Prediction, list[tuple[Tensor, float]]]:
        """The item in the model's words, what the model says of it, and the map (H, W) and margin of each decision."""
        sample = self.context.truth(self.context.dataset[index])
        prediction = self.model.predict(sample.image[None])[0]
        if why := flaw(prediction):
            raise why
        targets = [self._target(int(prediction.labels[number]), number) for number in chosen_of(prediction, self.limits)]
        if not targets:
            return sample, prediction, []
        maps = explain_many(self.model, sample.image, targets, self.method, seed=self.seed, prediction=prediction)
        return sample, prediction, [(each.values.double(), each.score) for each in maps]


COLUMNS: dict[str, tuple[int, ...]] = {
    "label": (), "number": (), "confidence": (), "right": (), "score": (), "box": (4,), "place": (SIDE, SIDE), "object_view": (SIDE, SIDE),
    "shares": (len(PARTS),), "areas": (len(PARTS),),
}  # fmt: skip
"""Of a row, and their shape for one decision.  ``number`` is that in the prediction."""


def chosen_of(prediction: Prediction, limits: Limits) -> list[int]:
    """The numbers in ``prediction`` of the decisions that count.

    >>> from xaitools.types import Prediction
    >>> boxes, scores = torch.tensor([[0.0, 0, 4, 4], [2, 2, 8, 8]]), torch.tensor([0.9, 0.3])
    >>> chosen_of(Prediction("detection", ("cell",), (8, 8), torch.tensor([0, 0]), scores, boxes=boxes), Limits())
    [0]
    """
    labels = prediction.labels.tolist()
    if prediction.task == "classification":
        return [0]
    if prediction.semantic is not None:
        size = prediction.semantic.numel()
        return [
            number for number, label in enumerate(labels)
            if label != prediction.background and int((prediction.semantic == label).sum()) >= limits.area * size
        ][: limits.per_image]  # fmt: skip
    assert prediction.boxes is not None
    sides = prediction.boxes[:, 2:] - prediction.boxes[:, :2]
    return [number for number, score in enumerate(prediction.scores.tolist())
            if score >= limits.score and float(sides[number].min()) > 0][: limits.per_image]  # fmt: skip


def right_of(sample: Sample, prediction: Prediction) -> list[bool | None]:
    """Whether the truth, in the model's indices, agrees with each entry of ``prediction``; None where it does not count.

    Boxes by VOC's rule at IoU 0.5 (masks where both sides have them), images by their label, segments where half of their labelled pixels
    or more are of the class.
    """
    labels = prediction.labels.tolist()
    if prediction.task == "classification":
        return [None if sample.label is None else sample.label == label for label in labels]
    if prediction.semantic is not None:
        if sample.semantic is None:
            return [None] * len(labels)
        inside = [sample.semantic[(prediction.semantic == label) & (sample.semantic != IGNORE)] == label for label in labels]
        return [bool(each.double().mean() >= HALF) if len(each) else None for each in inside]
    try:
        found = image_statistics(sample, prediction)
    except DataError:
        return [None] * len(labels)
    kind = "mask_" if "mask_matched" in found else ""
    order = np.argsort(-prediction.scores.numpy(), kind="stable")
    rights: list[bool | None] = [None] * len(labels)
    for place, number in enumerate(order.tolist()):
        if not int(found[f"{kind}void"][place]) & 1:
            rights[number] = bool(int(found[f"{kind}matched"][place]) & 1)
    return rights


def place_of(context: Context, clean: Sample, sample: Sample, prediction: Prediction, number: int) -> Tensor:
    """(H, W) bool: the object of a decision; nothing where nobody knows.  ``sample`` is ``clean`` in the model's words."""
    label = int(prediction.labels[number])
    if prediction.semantic is not None:
        return prediction.semantic == label
    if prediction.masks is not None and bool(prediction.masks[number].any()):
        return prediction.masks[number]
    if prediction.boxes is not None:
        return rectangles(prediction.boxes[number : number + 1], prediction.image_size)[0]
    try:
        pieces = context.pieces(clean)
    except DataError:
        return torch.zeros(prediction.image_size, dtype=torch.bool)
    own = [row for row, kind in enumerate(context.kinds(pieces)) if kind and context.key(kind) == label]
    return pieces.masks[own].any(0) if own else torch.zeros(prediction.image_size, dtype=torch.bool)


def parts_of(context: Context, clean: Sample, place: Tensor) -> list[Tensor]:
    """(H, W) bool for each of ``PARTS``; they cover the image once."""
    height, width = place.shape
    try:
        masks = context.objects(clean)
    except DataError:
        masks = torch.zeros((0, height, width), dtype=torch.bool)
    away = [mask for mask in masks if int((mask & ~place).sum()) * 2 > int(mask.sum())]  # else it is what the decision is about
    named = clean.tags.get("artifact_xyxy")
    declared = rectangles(torch.tensor([named], dtype=torch.float32).view(-1, 4) if named is not None else torch.zeros(0, 4), place.shape)
    reach = max(1, round(RING * float(place.sum()) ** 0.5))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    ring = torch.from_numpy(cv2.dilate(place.numpy().astype(np.uint8), disc) > 0)
    wide = max(1, round(RIM * min(height, width)))
    border = torch.ones_like(place)
    border[wide : height - wide, wide : width - wide] = False
    nothing = torch.zeros_like(place)
    layers = [
        place, declared.any(0) if len(declared) else nothing, torch.stack(away).any(0) if away else nothing,
        ring if bool(place.any()) else nothing, border, torch.ones_like(place),
    ]  # fmt: skip
    taken, parts = nothing.clone(), []
    for layer in layers:
        parts.append(layer & ~taken)
        taken |= layer
    return parts


def kept_of(values: Tensor, place: Tensor, masks: Sequence[Tensor]) -> tuple[list[Array], list[float]]:
    """Both views (SIDE, SIDE) of a map (H, W), and its shares of ``masks``; NaN where nothing speaks for the decision."""
    positive = values.clamp(min=0)
    total = float(positive.sum())
    if total <= 0:
        return [np.full((SIDE, SIDE), np.nan)] * 2, [np.nan] * len(masks)
    shares = (positive / total).numpy()
    height, width = shares.shape
    object_view = np.zeros((SIDE, SIDE))
    if bool(place.any()):
        object_view = cells(shares, widened(_box(place) * (width, height, width, height)))
    own = (masks[PARTS.index("object")] | masks[PARTS.index("ring")]).numpy()
    outside = np.where(own, 0.0, shares)
    return [cells(outside, (0.0, 0.0, width, height)), object_view], [float(shares[mask.numpy()].sum()) for mask in masks]


def widened(box: Array) -> Array:
    """xyxy with ``AROUND`` on every side."""
    left, top, right, bottom = box
    across, down = AROUND * (right - left), AROUND * (bottom - top)
    return np.array([left - across, top - down, right + across, bottom + down])


def cells(values: NDArray, box: Sequence[float] | Array, side: int = SIDE) -> Array:
    """(side, side): what of a map (H, W) lies in each cell of ``box`` xyxy in pixels; a pixel that is cut counts by its share.

    Outside the image there is nothing.

    >>> cells(np.ones((4, 4)), (0, 0, 4, 4), 2)
    array([[4., 4.],
           [4., 4.]])
    """
    height, width = values.shape
    sums = np.pad(np.asarray(values, float).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    left, top, right, bottom = (float(each) for each in box)
    rows, columns = np.linspace(top, bottom, side + 1).clip(0, height), np.linspace(left, right, side + 1).clip(0, width)
    lower, before = np.minimum(rows.astype(int), height - 1), np.minimum(columns.astype(int), width - 1)
    down, across = (rows - lower)[:, None], (columns - before)[None]
    grid = (1 - down) * ((1 - across) * sums[lower][:, before] + across * sums[lower][:, before + 1])
    grid += down * ((1 - across) * sums[lower + 1][:, before] + across * sums[lower + 1][:, before + 1])
    return np.diff(np.diff(grid, axis=0), axis=1)


def _box(place: Tensor) -> Array:
    """xyxy of a mask as shares of the image; the whole image where it is empty."""
    height, width = place.shape
    rows, columns = torch.where(place.any(1))[0].tolist(), torch.where(place.any(0))[0].tolist()
    if not rows:
        return np.array([0.0, 0.0, 1.0, 1.0])
    return np.array([columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height])
