"""How much of one class is another?  A table over a dataset: every class against every class that it is seen with.

What the model got right is explained; all objects of another class are painted over together, never a pixel of what is
explained, and the fall of its score is recorded.  Painting alone may cost something.  So the same shape is also painted
over at a place where no object is, as far from what is explained as the other class was, and stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ..adapters import Adapter, Model, adapted, as_found
from ..attribution.base import METHODS, parameters
from ..attribution.counterfactual import STILL, falls_of, read_off, score_name, without, without_background
from ..attribution.occlusion import found_again, reading, still_found
from ..attribution.sweep import filled
from ..data import Dataset, readable
from ..data.present import BACKGROUND, Contents, annotated
from ..data.relabel import Relabel
from ..data.selected import Selected
from ..errors import DataError, MethodError, XaiError, first_line
from ..metrics.batches import tried
from ..metrics.evaluate import predictions
from ..metrics.statistics import image_weights, pooled_mean
from ..targets import Target, bind
from ..types import Decision, Prediction, Sample
from .assess import RIGHT, cases_of
from .engine import Crew, Task
from .journal import noted, opened
from .plan import Condition, Piece
from .work import Worker

CONTROL = "control"
FEW = 10
"""With fewer images than this a number is weak."""

OPTIONS = ("score", "background", "batch_size")
"""Parameters of the method that the table has too."""

LOOKED = 20
"""Items that are looked at before a dataset counts as one without objects."""

CASES = 1000
"""Objects explained in one image, at most."""

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Explained:
    """A right decision: the class as it is called in the table, what is explained, and the pixels (H, W) that stay as they are."""

    name: str
    decision: Decision
    area: Tensor


def counterfactual_table(
    model: Model,
    dataset: Dataset,
    *,
    limit: int | None = None,
    seed: int = 0,
    replicates: int = 2000,
    score: str | None = None,
    params: Mapping[str, Any] | None = None,
    classes_map: Mapping[str, str] | None = None,
    journal: Path | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
    crew: Crew | None = None,
) -> dict[str, Any]:
    """The document of ``counterfactual.json``: what each class loses when another one is taken out of its images.

    Rows are pairs {"explained", "removed"}; "removed" is a class, "background" (all that no object covers, in its mean
    colour) or "control" (the shapes of the removed objects, painted over where no object is).  Each has

    fall      mean fall of the score, in its own unit, with ``ci``; None where the two are never seen together
    found     mean fall of how much of it is still found, in [0, 1], with ``found_ci``: share of a segment's pixels that keep
              their class, best IoU * score of a box, probability of an image's class (see ``occlusion-drise``)
    control   mean fall without the same shape elsewhere, with ``control_ci``, over the ``control_objects`` with room for one
    beyond    mean of fall - control over these, with ``beyond_ci``: what is left when painting alone is taken off
    images, objects  how many the numbers rest on; the intervals are of a bootstrap over images, at 95 %.  With fewer than
              ``FEW`` images a number is weak, and of a single one there is no interval
    share     mean share of the removed pixels that could go; the rest is shared with what is explained
    undefined cases where nothing could go, because all of it is

    Explained is what the model got right as ``assess`` has it: detections that match an object, classes of images, and
    segments of which at least half is found (read over the annotated pixels, as ``region:gt:``).  ``score`` and ``params``
    (score, background, batch_size) are those of the method ``counterfactual``; a black box has found for its score.

    Raises DataError where nothing is annotated or nothing found, MethodError for a wrong parameter, PlanError when the journal
    belongs to another plan.
    """
    given = dict(params or {}) | ({} if score is None else {"score": score})
    if strange := sorted(given.keys() - set(OPTIONS)):
        raise MethodError(f"counterfactual.{strange[0]}: no parameter of the table; it has {', '.join(OPTIONS)}")
    options = parameters(METHODS["counterfactual"], given)
    known = adapted(model)
    relabel = Relabel(dataset, known.task, known.classes, mapping=classes_map)
    _check(known, dataset, options)
    total = len(dataset) if limit is None else min(limit, len(dataset))
    plan = {
        "model": known.name, "weights": known.weights_hash, "dataset": dataset.name, "n": total, "seed": seed,
        "params": {key: options[key] for key in OPTIONS}, "classes_map": dict(classes_map or {}),
    }  # fmt: skip
    done: dict[str, list[Row] | str] = opened(journal, plan, resume, "a counterfactual table")
    left = [index for index in range(total) if dataset.ids[index] not in done]
    for count, (index, rows) in enumerate(_all(known, dataset, relabel, left, options, seed, crew), total - len(left) + 1):
        done[dataset.ids[index]] = rows
        noted(journal, dataset.ids[index], rows)
        if progress is not None:
            progress(count, total)
    outcomes = [(id, done[id]) for id in list(dataset.ids)[:total]]
    return _document(plan, known, relabel, outcomes, seed, replicates)


def _check(model: Adapter, dataset: Dataset, options: Mapping[str, Any]) -> None:
    """One line for what is wrong, before anything long."""
    if options["batch_size"] < 1:
        raise MethodError(f"counterfactual.batch_size={options['batch_size']}; expected at least 1")
    if options["background"] != "mean":
        filled(torch.zeros(1, 3, 8, 8), options["background"], 4, torch.Generator(), "counterfactual.background")
    first = [sample for _, sample in islice(readable(dataset), LOOKED) if isinstance(sample, Sample)]
    if first and all(_contents(dataset, sample) is None for sample in first):
        raise DataError(
            f"{dataset.name}: neither masks nor boxes nor class maps, so there is no object to take out; take data that has them"
        )
    if first and model.black_box is None:
        tried(lambda images: list(model.predict(torch.stack(list(images)))), [first[0].image])
    if score_name(model, Decision("top", 0), options["score"]) != STILL and model.black_box:
        raise MethodError(f"{model.name} is a black box without logits; score={options['score']} cannot be read, take score=found")


def _contents(dataset: Dataset, sample: Sample) -> Contents | None:
    return annotated(sample, dataset.classes, dataset.semantic_classes, dataset.things)


# -- one image


@dataclass(frozen=True)
class Removed:
    """The work of one item: what it loses without each thing in it."""

    index: int
    options: Mapping[str, Any]
    seed: int

    def __call__(self, worker: Worker) -> list[Row] | str:
        context = worker.context
        assert context.model is not None and context.relabel is not None
        return _one(adapted(context.model), context.dataset, context.relabel, self.index, self.options, self.seed)


def _all(
    model: Adapter, dataset: Dataset, relabel: Relabel, indices: Sequence[int], options: Mapping[str, Any], seed: int, crew: Crew | None
) -> Iterator[tuple[int, list[Row] | str]]:
    """Each of ``indices`` with its rows, or why there are none; a crew knows the items of the whole dataset."""
    if crew is None:
        yield from ((index, _one(model, dataset, relabel, index, options, seed)) for index in indices)
        return
    whole = dataset.indices if isinstance(dataset, Selected) else range(len(dataset))
    places = {whole[index]: index for index in indices}
    named = Condition("counterfactual", 0)
    tasks = [Task(Piece(at, named, (at,)), (dataset.ids[index],), Removed(at, options, seed), False) for at, index in places.items()]
    yield from ((places[task.piece.number], rows) for task, rows in crew.done(tasks))


def _one(
    model: Adapter, dataset: Dataset, relabel: Relabel, index: int, options: Mapping[str, Any], seed: int
) -> list[Row] | str:  # fmt: skip
    ((_, outcome),) = predictions(model, dataset, [index], relabel=relabel)
    if isinstance(outcome, XaiError):
        return str(outcome)
    try:
        return _rows(model, dataset, relabel, index, *outcome, options, seed)
    except DataError as error:
        return str(error)
    except XaiError:  # an argument is at fault
        raise
    except Exception as error:  # a model may raise anything
        return f"{dataset.ids[index]}: the model failed: {first_line(error)}"


def _rows(
    model: Adapter, dataset: Dataset, relabel: Relabel, index: int, sample: Sample, prediction: Prediction,
    options: Mapping[str, Any], seed: int,
) -> list[Row] | str:  # fmt: skip
    """A row for each right decision and each thing that can be taken out beside it, or why there is none."""
    contents = _contents(dataset, dataset[index])  # in the data's own words: what the model does not know can be taken out too
    if contents is None:
        return f"{sample.id}: neither masks nor boxes nor a class map"

    def called(name: str) -> str:
        """A class by the model's name for it, where it has one."""
        place = relabel.model_index(name)
        return name if place is None else model.classes[place]

    groups: dict[str, Tensor] = {}
    for part in contents.parts:
        name = called(part.kind)
        groups[name] = groups[name] | part.mask if name in groups else part.mask
    objects = {called(part.kind) for part in contents.parts if part.thing}
    explained = list(_explained(model, sample, prediction, groups))
    if not explained:
        return []
    changes = _changes(sample.image, contents, groups, objects, explained, options, seed)
    decisions = [each.decision for each in explained]
    found = still_found(model, decisions, "score=found")
    names = {score_name(model, decision, options["score"]) for decision in decisions}
    read = None if STILL in names else read_off(model, [reading(each, options["score"]) for each in decisions])

    def scores(images: Tensor) -> Tensor:
        """Twice (K, N): the explained numbers, and how much is still found."""
        again = found(images)
        return torch.cat([again if read is None else read(images), again])

    with torch.no_grad(), as_found(model):
        _, falls = falls_of(scores, sample.image, (change.image() for change in changes), len(changes), options["batch_size"])
    return list(_told(explained, changes, falls))


def _explained(model: Adapter, sample: Sample, prediction: Prediction, groups: Mapping[str, Tensor]) -> Iterator[Explained]:
    nothing = torch.zeros(prediction.image_size, dtype=torch.bool)
    for case in cases_of(sample, prediction, CASES):
        target = Target.parse(case.target)
        if prediction.task == "segmentation":
            target = Target("region", target.name, truth=True)
        decision = bind(target, prediction, sample, model.classes)
        name = model.classes[decision.class_index]
        if prediction.task == "segmentation" and found_again(prediction, decision) < RIGHT:
            continue
        yield Explained(name, decision, groups.get(name, nothing) if case.inside is None else case.inside)


@dataclass(frozen=True, eq=False)
class Change:
    """One changed image, and for which of the explained it stands: {place: share of the pixels that went}."""

    removed: str
    control: bool
    shares: dict[int, float]
    image: Callable[[], Tensor]


def _changes(
    image: Tensor, contents: Contents, groups: Mapping[str, Tensor], objects: set[str], explained: Sequence[Explained],
    options: Mapping[str, Any], seed: int,
) -> list[Change]:  # fmt: skip
    """The changed images, each once: those who lose nothing of their own by it share one."""
    changes: list[Change] = []

    def add(name: str, whole: Tensor, changed: Tensor, whose: Sequence[int]) -> None:
        touched, together = (changed != image).any(0), {}
        for place in whose:
            area = explained[place].area
            left = (whole & ~area).sum()
            # the background of what is no object is what lies around it
            share = float(bool(left)) if name == BACKGROUND else float(left / whole.sum())
            if bool((touched & area).any()):  # these pixels stay
                changes.append(Change(name, False, {place: share}, partial(_restored, image, changed, area)))
            else:
                together[place] = share
        if together:
            changes.append(Change(name, False, together, lambda: changed))

    for name, mask in groups.items():
        whose = [place for place, each in enumerate(explained) if each.name != name]
        if not whose or not bool(mask.any()):
            continue
        add(name, mask, without(image, mask, contents.things), whose)
        for place in whose if name in objects else ():
            area = explained[place].area
            moved = elsewhere(mask & ~area, contents.things | area, mask, area)
            if moved is not None:
                changes.append(Change(name, True, {place: 1.0}, partial(_control, image, moved, contents.things, area)))
    if bool(contents.background.any()):
        generator = torch.Generator().manual_seed(seed)
        behind = None
        if options["background"] != "mean":
            behind = filled(image[None], options["background"], max(8, min(image.shape[1:]) // 12), generator)[0]
        add(BACKGROUND, contents.background, without_background(image, contents.background, behind), range(len(explained)))
    return changes


def _restored(image: Tensor, changed: Tensor, area: Tensor) -> Tensor:
    return torch.where(area, image, changed)


def _control(image: Tensor, hole: Tensor, things: Tensor, area: Tensor) -> Tensor:
    return _restored(image, without(image, hole, things), area)


def elsewhere(shape: Tensor, taken: Tensor, was: Tensor, of: Tensor) -> Tensor | None:
    """``shape`` (H, W) moved to where nothing is ``taken`` (H, W); None if there is no room.

    Of all such places the one whose distance from the middle of ``of`` is nearest to that of ``was``.
    """
    rows, columns = np.flatnonzero(shape.any(1).numpy()), np.flatnonzero(shape.any(0).numpy())
    if not len(rows):
        return None
    cut = shape[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    room = cv2.matchTemplate(taken.numpy().astype(np.float32), cut.numpy().astype(np.float32), cv2.TM_CCORR) < 0.5
    tops, lefts = np.nonzero(room)
    if not len(tops):
        return None
    middle = _middle(of) if bool(of.any()) else (shape.shape[0] / 2, shape.shape[1] / 2)
    offset = [float(each.double().mean()) for each in torch.where(cut)]
    distances = np.hypot(tops + offset[0] - middle[0], lefts + offset[1] - middle[1])
    for best in np.abs(distances - np.hypot(*np.subtract(_middle(was), middle))).argsort(kind="stable")[:50]:
        moved = torch.zeros_like(shape)
        moved[tops[best] : tops[best] + cut.shape[0], lefts[best] : lefts[best] + cut.shape[1]] = cut
        if not bool((moved & taken).any()):  # the correlation is rounded
            return moved
    return None


def _middle(mask: Tensor) -> tuple[float, float]:
    rows, columns = torch.where(mask)
    return float(rows.double().mean()), float(columns.double().mean())


def _told(explained: Sequence[Explained], changes: Sequence[Change], falls: Tensor) -> Iterator[Row]:
    """What each explained decision loses, a row for each thing taken out: numbers, or None where nothing could go."""
    rows: dict[tuple[int, str], Row] = {}
    count = len(explained)
    for column, change in enumerate(changes):
        for place, share in change.shares.items():
            empty = {"fall": None, "found": None, "share": share, "control": None}
            row = rows.setdefault((place, change.removed), {"explained": explained[place].name, "target": explained[place].decision.target,
                                                            "removed": change.removed, **empty})  # fmt: skip
            fall, found = float(falls[place, column]), float(falls[count + place, column])
            if change.control:
                row["control"] = fall
                row["control_found"] = found
            elif share > 0:
                row |= {"fall": fall, "found": found, "share": share}
    yield from (rows[key] for key in sorted(rows))


# -- the document


def _document(
    plan: Mapping[str, Any], model: Adapter, relabel: Relabel, outcomes: Sequence[tuple[str, list[Row] | str]], seed: int, replicates: int
) -> dict[str, Any]:  # fmt: skip
    usable = [(id, each) for id, each in outcomes if not isinstance(each, str)]
    cases = sum(len({row["target"] for row in rows}) for _, rows in usable)
    if not cases:
        why = next((f"; the first that was skipped: {each}" for _, each in outcomes if isinstance(each, str)), "")
        raise DataError(f"{plan['dataset']}: {plan['model']} is right nowhere in {len(usable)} images; there is nothing to explain{why}")
    weights = image_weights([id for id, _ in usable], seed=seed, replicates=replicates)
    images = [rows for _, rows in usable]
    order = {name: place for place, name in enumerate(model.classes)}

    def sorted_names(key: str) -> list[str]:
        names = {row[key] for rows in images for row in rows} - {BACKGROUND}
        return sorted(names, key=lambda name: (order.get(name, len(order)), name))

    explained, removed = sorted_names("explained"), sorted_names("removed")
    rows = []
    for name in explained:
        mine = [[row for row in each if row["explained"] == name] for each in images]
        rows += [_cell(name, other, [[row for row in each if row["removed"] == other] for each in mine], weights)
                 for other in (*removed, BACKGROUND)]  # fmt: skip
        controls = [[{**row, "fall": row["control"], "found": row["control_found"], "share": None, "control": None} for row in each
                     if row["control"] is not None] for each in mine]  # fmt: skip
        rows.append(_cell(name, CONTROL, controls, weights))
    weak = sum(0 < row["images"] < FEW for row in rows)
    boxes = any(row["share"] is not None and row["share"] < 0.999 for row in rows)
    warnings = [
        *relabel.warnings,
        *([f"numbers of fewer than {FEW} images, which are weak: {weak} of {sum(row['images'] > 0 for row in rows)}"] if weak else []),
        *(["parts of what was taken out lie on what is explained and stayed; share says how much went"] if boxes else []),
    ]
    return {
        **{key: plan[key] for key in ("model", "dataset")},
        "task": model.task,
        "n": len(usable),
        "objects": cases,
        "score": _score_of(model, plan["params"]["score"]),
        "skipped": [{"id": id, "reason": each} for id, each in outcomes if isinstance(each, str)],
        "explained": explained,
        "removed": [*removed, BACKGROUND, CONTROL],
        "rows": rows,
        "seed": seed,
        "params": plan["params"],
        **({"warnings": warnings} if warnings else {}),
    }


def _score_of(model: Adapter, score: str | None) -> str:
    box = torch.zeros(4) if model.task in ("detection", "instances") else None
    return score_name(model, Decision("top", 0, box=box), score)


def _cell(explained: str, removed: str, images: Sequence[Sequence[Row]], weights: np.ndarray) -> Row:
    """One number of the table and what it rests on; ``images`` are the rows of each image."""
    known = [[row for row in rows if row["fall"] is not None] for rows in images]
    paired = [[row for row in rows if row["control"] is not None] for rows in known]
    shares = [row["share"] for rows in images for row in rows if row["share"] is not None]

    def mean(groups: Sequence[Sequence[float]], name: str) -> Row:
        found = pooled_mean(groups, weights)
        alone = sum(bool(group) for group in groups) < 2
        return {name: found["value"], "ci" if name == "fall" else f"{name}_ci": None if alone else found["ci"]}

    return {
        "explained": explained,
        "removed": removed,
        **mean([[row["fall"] for row in rows] for rows in known], "fall"),
        **mean([[row["found"] for row in rows] for rows in known], "found"),
        "images": sum(bool(rows) for rows in known),
        "objects": sum(map(len, known)),
        "share": sum(shares) / len(shares) if shares else None,
        "undefined": sum(row["fall"] is None for rows in images for row in rows),
        **mean([[row["control"] for row in rows] for rows in paired], "control"),
        **mean([[row["fall"] - row["control"] for row in rows] for rows in paired], "beyond"),
        "control_objects": sum(map(len, paired)),
    }
