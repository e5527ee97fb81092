"""What a change does to the explanation: where the relevance of one and the same decision lies before and after it.

What is explained is the class that the image is about, by its truth, against all others (``:vs:``): the class of a
classified image; of a segmenter the mean over the pixels of its objects; of a detector the box of its largest object, given,
whether found or not.  So before and after it is the same question, whatever the model answers.  It is chosen by truth
and not by the prediction because the drop beside it is one of the truth too, and because several models then explain the
same.  The share of a part is that of the positive relevance (Arras et al. 2022, relevance mass); the area of the part is what
chance would give.  Where the margin is negative the model has decided for something else, and z+ rules of LRP give all
relevance the margin's sign: where the relevance sums to less than 0 too, it is the negative that carries the number and is shared out.

Shares are taken on each image, then their mean over images, not the ratio of sums: relevance has the scale of the margin, so
sums would be ruled by the few images on which the model is surest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..adapters import Adapter, adapted
from ..attribution.base import METHODS, explain_many, offers
from ..data.present import rectangles
from ..errors import DataError, MethodError, ModelError, first_line
from ..metrics.maps import mass
from ..metrics.statistics import pooled_mean
from ..probes import PROBES, Context, Probe
from ..probes.base import draws
from ..targets import Target
from ..types import IGNORE, Sample
from .engine import Crew, Task, carried
from .examples import shown
from .plan import ALWAYS, CLEAN, Condition, Piece, Plan
from .records import SHIFT, Folder, Memory, Row
from .tally import Facts, Tally, reference_of
from .work import Worker

PARTS = ("object", "context", "artefact")
"""The object that the decision is about; where an artefact or another object came, went or is named; all else."""

AUTO = ("lrp", "gradient-x-input")
"""Tried in this order where no method is named."""

FAILURES = 3
"""Images on which a model may fail with a method before it counts as refused: one alone may be at fault."""

NEUTRAL = ("identity", "reencode")
"""Controls beside which the probes stand: what moves relevance although nothing, or nothing to speak of, has changed."""

EVERYWHERE = 0.5
"""A change of more than this share of the image has no place that could be called an artefact."""

FEWEST = 10
"""Below so many images a bootstrap of their mean says nothing."""

COLUMNS = ("score", *PARTS, *(f"area.{part}" for part in PARTS))
"""Of each side of a row; NaN where undefined."""


@dataclass(frozen=True)
class Pair:
    """What is compared under one name: a probe or control, and the conditions before and after."""

    name: str
    entry: Probe
    before: Condition
    after: Condition


@dataclass(frozen=True, eq=False)
class View:
    """One item under one condition: what is explained there, ``target``, and the object (H, W) it is about, None where nobody knows."""

    sample: Sample
    target: str
    truth: Sample
    place: Tensor | None


def measure_shift(
    tally: Tally, worker: Worker, report: Facts, store: Folder | Memory, progress: Callable[[float], None] | None = None,
    crew: Crew | None = None,
) -> list[Row]:  # fmt: skip
    """Adds to ``report`` where relevance lies before and after each probe, and gives the rows that this rests on.

    ``report["relevance"]`` says how it was measured, or why not; each probe and the controls in ``NEUTRAL`` get a
    "relevance" (see ``_summary``).  The images are the first of one random order, by the seed, that are sound under both
    conditions.  Every image is one piece of ``store``.  Raises MethodError where a method was named that the model refuses.
    """
    asked = tally.plan.facts["relevance"]
    facts: Facts = {"method": None, "images": asked["images"], "notes": []}
    report["relevance"] = facts
    if not asked["images"]:
        facts["notes"].append("not measured: no images were asked for")
        return []
    if all(row["primary"]["drop"] is None for row in report["probes"].values()):
        facts["notes"].append("not measured: no drop could be measured that it could stand beside")
        return []
    pairs = _pairs(tally, report)
    chosen = {pair.name: _chosen(tally, pair, asked["images"]) for pair in pairs}
    explainer = Explainer(worker, tally.plan)
    facts["method"], note = explainer.settle(asked["method"], [item for pair in pairs for item in chosen[pair.name]])
    facts["notes"] += [note] if note else []
    if facts["method"] is None:
        return []
    wanted = [index for index in tally.plan.members[CLEAN.probe] if any(worker.dataset.ids[index] in each for each in chosen.values())]
    tasks = []
    for index in wanted:
        item = worker.dataset.ids[index]
        mine = [pair for pair in pairs if item in chosen[pair.name]]
        work = Compared(facts["method"], index, tuple((pair.name, pair.before, pair.after) for pair in mine))
        tasks.append(Task(piece_of(index), (item,) * len(mine), work))
    told = None if progress is None else lambda done: progress(done / len(wanted))
    rows = [row for found in carried(store, tasks, lambda task: task.work(worker), crew, told) for row in found]
    for pair in pairs:
        row = report["probes" if pair.name in report["probes"] else "controls"][pair.name]
        row["relevance"] = _summary(tally, pair, [each for each in rows if each.condition == SHIFT + pair.name])
    return rows


@dataclass(frozen=True)
class Compared:
    """The work of one item: what ``method`` shows of it before and after each of ``pairs``, by name and conditions."""

    method: str
    index: int
    pairs: tuple[tuple[str, Condition, Condition], ...]

    def __call__(self, worker: Worker) -> list[Row]:
        explainer = Explainer(worker, worker.plan)
        explainer.method = self.method
        return explainer.rows(self.index, [Pair(name, PROBES[name], before, after) for name, before, after in self.pairs])


def piece_of(index: int) -> Piece:
    """The piece that holds all that is compared on one item."""
    return Piece(index, Condition(SHIFT + "all", 0), (index,))


def _pairs(tally: Tally, report: Facts) -> list[Pair]:
    controls = [(PROBES[each.probe], each) for each in ALWAYS if each.probe in NEUTRAL]
    probes = [(entry, shown(entry, report["probes"][entry.name])) for entry in tally.plan.probes]
    return [Pair(entry.name, entry, reference_of(entry, after.severity), after) for entry, after in controls + probes]


def _chosen(tally: Tally, pair: Pair, most: int) -> frozenset[str]:
    items = tally.plan.facts["items"]
    sound = set(tally.shared(pair.before, pair.after))
    order = draws(tally.plan.seed, SHIFT, 0, "").permutation(len(items)).tolist()
    return frozenset([items[index] for index in order if items[index] in sound][:most])


Where = tuple[Tensor | None, tuple[float, ...]]
"""The pixels (H, W) bool that are asked about, and for detectors their box, see ``place_of``."""


class Explainer:
    """Explains the decision about one item under one condition after another."""

    def __init__(self, worker: Worker, plan: Plan) -> None:
        self.worker, self.plan, self.context = worker, plan, worker.context
        self.model: Adapter = adapted(worker.model)
        self.method = ""

    def settle(self, wanted: str, items: Sequence[str]) -> tuple[str | None, str]:
        """The method and why it is not the first of ``AUTO``, or None and why there is none.

        It is ``wanted``, or the first of ``AUTO`` that takes the model's answer to an item.
        """
        refusal = "no image could be used"
        for name in AUTO if wanted == "auto" else (wanted,):
            if not offers(self.model, METHODS[name]):
                refusal = f"{self.model.name} is a black box, and {name} needs {METHODS[name].needs}; see relevance_method"
                continue
            self.method = name
            failed = 0
            for item in items:
                index = self.worker.dataset.ids.index(item)
                try:
                    self.explained(self.view(index, CLEAN))
                except (DataError, ModelError) as error:  # this item says nothing of the method
                    refusal = str(error)
                except Exception as error:  # a model's backward pass may raise anything
                    refusal, failed = first_line(error), failed + 1
                    if isinstance(error, MethodError) or failed == FAILURES:
                        break
                else:
                    return name, "" if name in (wanted, AUTO[0]) else f"{name}, because {AUTO[0]} was refused: {refusal}"
        if wanted != "auto":
            raise MethodError(f"relevance by {wanted}: {refusal}")
        return None, f"not measured: {refusal}"

    def rows(self, index: int, pairs: Sequence[Pair]) -> list[Row]:
        """One row for each pair; conditions that several share are explained once."""
        known: dict[Condition, tuple[View, Tensor, float] | None] = {}
        for condition in dict.fromkeys(each for pair in pairs for each in (pair.before, pair.after)):
            try:
                view = self.view(index, condition)
                known[condition] = (view, *self.explained(view))
            except Exception:  # counted as undefined; a model's backward pass may raise anything
                known[condition] = None
        clean = self.context.readable(index)
        item = self.worker.dataset.ids[index]
        return [self._row(item, clean, pair, known[pair.before], known[pair.after]) for pair in pairs]

    def _row(self, item: str, clean: Sample | None, pair: Pair, before: Any, after: Any) -> Row:
        statistics = {name: np.full(len(COLUMNS), np.nan) for name in ("before", "after")}
        if clean is not None and before is not None and after is not None:
            artefacts = self._artefacts(clean, pair, before[0].sample, after[0].sample)
            for name, (view, values, score), artefact in zip(statistics, (before, after), artefacts, strict=True):
                statistics[name] = _shares(values, score, view.place, artefact)
        return Row(item, SHIFT + pair.name, pair.after.severity, None, statistics)

    def view(self, index: int, condition: Condition) -> View:
        clean = self.worker.dataset[index]
        (sample,) = self.worker.changed([clean], condition)
        if not isinstance(sample, Sample):
            raise sample
        subject = self.context.subject(clean)
        label = None if subject is None else self.context.key(subject)
        if not isinstance(label, int):
            raise DataError("no class of the model that this image is about")
        place, box = self.place(sample, label)
        if place is None and (condition == CLEAN or PROBES[condition.probe].family != "pose"):
            place, box = self.place(clean, label)  # the truth holds no object any more: where it was
        truth = self.context.truth(sample)
        name = self.model.classes[label]
        if self.model.task == "classification":
            return View(sample, str(Target("class", name, versus="")), truth, place)
        if place is None:
            raise DataError("nothing in this image is annotated as the class that it is about")
        if self.model.task == "segmentation":
            semantic = torch.where(place, torch.tensor(label), torch.tensor(IGNORE))
            return View(sample, str(Target("region", name, truth=True, versus="")), replace(truth, semantic=semantic), place)
        return View(sample, str(Target("given", name, place=box, versus="")), truth, place)

    def place(self, sample: Sample, label: int) -> Where:
        return place_of(self.context, self.model.task, sample, label)

    def explained(self, view: View) -> tuple[Tensor, float]:
        """The map (H, W) and the explained margin."""
        (found,) = explain_many(
            self.model, view.sample.image, [view.target], self.method, seed=self.plan.seed, sample=view.truth,
            truth_classes=self.model.classes,
        )  # fmt: skip
        return found.values.double(), found.score

    def _artefacts(self, clean: Sample, pair: Pair, before: Sample, after: Sample) -> tuple[Tensor | None, Tensor | None]:
        """(H, W) bool on both sides, None where there is nothing: what the dataset or the probe names (``artifact_xyxy``); of
        artefacts without a name and of other objects the pixels that changed.  Where pixels move, it moves along."""
        boxes = {tuple(box) for each in (clean, before, after) if (box := each.tags.get("artifact_xyxy")) is not None}
        place = rectangles(torch.tensor(sorted(boxes)).view(-1, 4), clean.image.shape[-2:])
        place = place.any(0) if len(place) else torch.zeros(clean.image.shape[-2:], dtype=torch.bool)
        if pair.entry.family == "cooccurrence" or (pair.entry.family == "artifact" and not boxes):
            place = (before.image != after.image).any(0)
            if float(place.double().mean()) > EVERYWHERE:
                return None, None
        if not bool(place.any()):
            return None, None
        if pair.entry.family != "pose":
            return place, place
        picture = replace(clean, image=place.float().expand(3, -1, -1).contiguous())  # takes the same way as the pixels
        (moved,) = self.worker.changed([picture], pair.after)
        there = moved.image[0] > 0.5 if isinstance(moved, Sample) else place
        return place, there if bool(there.any()) else None


def place_of(context: Context, task: str, sample: Sample, label: int) -> Where:
    """Where the objects of a class are, or for detectors the largest of them with its box; None where none is."""
    try:
        pieces = context.pieces(sample)
    except DataError:
        return None, ()
    ignored = torch.zeros(len(pieces.masks), dtype=torch.bool)
    if sample.ignore is not None and not pieces.semantic:
        ignored = sample.ignore
    own = [
        row for row, kind in enumerate(context.kinds(pieces))
        if kind and context.key(kind) == label and bool(pieces.masks[row].any()) and not ignored[row]
    ]  # fmt: skip
    if not own:
        return None, ()
    if task in ("classification", "segmentation") or sample.boxes is None:
        return pieces.masks[own].any(0), ()
    row = max(own, key=lambda row: int(pieces.masks[row].sum()))
    height, width = sample.image.shape[-2:]
    x1, y1, x2, y2 = sample.boxes[row].tolist()
    return pieces.masks[row], (max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2))


def _shares(values: Tensor, score: float, place: Tensor | None, artefact: Tensor | None) -> NDArray[np.float64]:
    """``COLUMNS`` of one side.  What is object is no artefact, so the parts add up to the whole."""
    if score < 0 and float(values.sum()) < 0:
        values = -values
    nothing = torch.zeros(values.shape, dtype=torch.bool)
    beside = None if artefact is None else artefact & ~(nothing if place is None else place)
    context = None if place is None else ~place & ~(nothing if beside is None else beside)
    masks = (place, context, beside)
    shares = [None if mask is None else mass(values, mask) for mask in masks]
    areas = [None if mask is None else float(mask.double().mean()) for mask in masks]
    return np.array([score, *(math.nan if each is None else each for each in (*shares, *areas))])


def _summary(tally: Tally, pair: Pair, rows: Sequence[Row]) -> Facts:
    """What relevance did under one probe, each number a mean over the ``n`` images on which it is defined on both sides.

    before, after  the share of each part, None where no image has the part; ``chance`` the share of its area; ``before_ci`` the 95 %
                   interval of the first, from ``FEWEST`` images on
    change         after less before, with the number of images and, from ``FEWEST`` of them on, a 95 % interval from the drop's draws
    margin         the mean of what is explained, and in how many images it is above 0
    undefined      images without a map, or with one that is zero
    """
    sides = [np.array([row.statistics[name] for row in rows]).reshape(-1, len(COLUMNS)) for name in ("before", "after")]
    whole = ~np.isnan(sides[0][:, 1:4]).all(1) & ~np.isnan(sides[1][:, 1:4]).all(1)
    found: Facts = {"condition": pair.after.name, "n": int(whole.sum()), "undefined": int((~whole).sum())}
    names = ("before", "after")
    found |= {name: {} for name in (*names, "before_ci", "change")} | {"chance": {name: {} for name in names}, "margin": {}}
    for column, part in enumerate(PARTS, 1):
        known = ~np.isnan(sides[0][:, column]) & ~np.isnan(sides[1][:, column])
        for name, side in zip(names, sides, strict=True):
            found[name][part] = _mean(side[known, column])
            found["chance"][name][part] = _mean(side[known, column + len(PARTS)])
        items = [row.item for row, each in zip(rows, known, strict=True) if each]
        found["before_ci"][part] = _mean_of(tally, pair, items, sides[0][known, column])["ci"]
        found["change"][part] = _mean_of(tally, pair, items, sides[1][known, column] - sides[0][known, column])
    for name, side in zip(names, sides, strict=True):
        found["margin"][name] = {"mean": _mean(side[whole, 0]), "above_0": int((side[whole, 0] > 0).sum())}
    return found


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None


def _mean_of(tally: Tally, pair: Pair, items: Sequence[str], values: NDArray[np.float64]) -> Facts:
    if not items:
        return {"value": None, "ci": None, "n": 0}
    weights = tally.weights(items, int(tally.plan.params[pair.name]["bootstraps"]))
    found = pooled_mean([[each] for each in values.tolist()], weights, tally.units(items))
    return {"value": found["value"], "ci": found["ci"] if len(items) >= FEWEST else None, "n": len(items)}
