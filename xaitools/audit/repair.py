"""First step of a repair: which images of a dataset carry what an audit found the model to rely on, and what to do with them.

The artefacts are those of the audit's report: classes whose spots lie at one place and, moved to images of other classes, make the
class be seen there (see ``spots``).  Whether an image carries one is asked of the model: what lies at the place is pasted, but for what
of an object is there, into a few images of other classes, the same for every image that is asked.  It carries the artefact where the
class is then seen more by at least half of the audit's own effect.

  mask    what carries it is painted over at the place
  drop    what carries it is left out
  weight  every image gets P(class) P(carries) / P(class, carries), after which carrying says nothing of the class (reweighing,
          Kamiran and Calders 2012, section 5.3); class is here the artefact's, or another

``data.repaired`` makes the dataset that the list describes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..adapters import Adapter, Model, adapted
from ..data import Dataset
from ..data.repaired import Box, covered, painted
from ..errors import DataError, XaiError, unknown
from ..metrics.error_rates import RELIES
from ..probes import Context
from ..probes.base import draws
from ..types import Sample
from .journal import noted, opened
from .shift import Where, place_of
from .spots import cut, fixed, pasted, seen
from .verdict import CAUSE

ACTIONS = ("mask", "drop", "weight")

HOSTS = 6
"""Images of other classes that each image's place is pasted into."""

LOOKED = 500
"""Images looked at for these."""

CLEAR = 0.1
"""An image in which so much of the class is seen as it is shows no rise."""

PART = 0.5
"""Of the audit's effect, from which on an image carries the artefact."""

FREE = 0.5
"""Where objects leave less of the place free, nobody knows."""

LEAST = 0.1
"""Less of a class is not left by dropping, and fewer images do not stand for the rest by weights."""

SHOWN = 4
"""Examples of images that carry it, and of such that do not."""

OTHER = "any other class"

Facts = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Artefact:
    """What speaks for class ``name`` (the model's word) at ``place``, xyxy in shares of the image; ``effect`` is the audit's "moved"."""

    name: str
    place: tuple[float, float, float, float]
    effect: float

    def box(self, size: Sequence[int]) -> Box:
        """xyxy in whole pixels of an image (H, W)."""
        height, width = size
        left, top, right, bottom = (round(edge * side) for edge, side in zip(self.place, (width, height) * 2, strict=True))
        left, top = min(left, width - 1), min(top, height - 1)
        return left, top, max(right, left + 1), max(bottom, top + 1)


@dataclass(frozen=True, eq=False)
class Example:
    """An image (3, H, W) as it is and as it would be trained with, and its row."""

    row: Row
    before: Tensor
    after: Tensor


@dataclass(frozen=True, eq=False)
class Repair:
    """``document`` is repair.json; ``rows`` are the lines of repair.csv, one for each image and artefact; and a few to look at."""

    document: Facts
    rows: Sequence[Row]
    examples: Sequence[Example]


def repair(
    model: Model,
    dataset: Dataset,
    report: Any,
    *,
    action: str = "mask",
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    classes_map: Mapping[str, str] | None = None,
    journal: Path | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Repair:
    """What to do with each image of ``dataset``, usually that of the training, about the artefacts of ``report``, an audit's report.json.

    Rows have "id", "artefact" and "class" (the artefact's, and what the image is about), "effect" (how much more of the artefact's class
    is seen where the place was pasted), "carries" (None: objects cover the place), "action" (mask, drop, weight or keep), "weight", and
    "left", "top", "right", "bottom" in pixels.

    Raises DataError where the report is none or found no artefact, where no image can show one, and where the action cannot be done;
    PlanError when the journal belongs to another plan; one that goes on may take another action, without asking anything again.
    """
    if action not in ACTIONS:
        raise XaiError(unknown("action", action, ACTIONS))
    known = adapted(model)
    found = artefacts(report, known.classes)
    context = Context(dataset, known, classes_map)
    total = len(dataset) if limit is None else min(limit, len(dataset))
    hosts = [Hosts(context, known, each, seed) for each in found]
    plan = {
        "model": known.name, "weights": known.weights_hash, "dataset": dataset.name, "n": total, "seed": seed,
        "classes_map": dict(classes_map or {}), "artefacts": [[each.name, list(each.place), each.effect] for each in found],
    }  # fmt: skip
    done: dict[str, list[Row] | str] = opened(journal, plan, resume, "a repair")
    for start in range(0, total, batch_size):  # the same batches in a run that goes on: they may move the last digit
        ids = list(dataset.ids[start : min(start + batch_size, total)])
        if not all(id in done for id in ids):
            for id, answer in zip(ids, _asked(context, hosts, range(start, start + len(ids))), strict=True):
                if id not in done:
                    done[id] = answer
                    noted(journal, id, answer)
        if progress is not None:
            progress(start + len(ids), total)
    skipped = [{"id": id, "reason": each} for id in dataset.ids[:total] if isinstance(each := done[id], str)]
    rows = [dict(row) for id in dataset.ids[:total] if not isinstance(each := done[id], str) for row in each]
    if not rows:
        why = f"; the first: {skipped[0]['reason']}" if skipped else ""
        raise DataError(f"{dataset.name}: none of {total} images can be used{why}")
    warnings = [*context.warnings, *_decided(rows, action, dataset)]
    audited = report.get("model")
    if audited != known.name:
        warnings.insert(0, f"the audit is of the model {audited}, and {known.name} is asked here")
    document = {
        "model": known.name,
        "dataset": dataset.name,
        "task": known.task,
        "audited": report.get("dataset"),
        "n": total - len(skipped),
        "skipped": skipped,
        "action": action,
        "artefacts": [
            {"class": each.name, "xyxy": list(each.place), "effect": each.effect, "threshold": PART * each.effect, "asked_in": pool.ids}
            for each, pool in zip(found, hosts, strict=True)
        ],
        "classes": _counts(rows),
        "seed": seed,
        "warnings": warnings,
    }
    return Repair(document, rows, list(_examples(dataset, rows, context)))


def artefacts(report: Any, classes: Sequence[str]) -> list[Artefact]:
    """What a report.json says that its model relies on at one place of the image.

    Raises DataError where it is no audit's report, has another verdict, or speaks of none of ``classes``.
    """
    try:
        finding = next(each for each in report["findings"] if each["shortcut"] == "artifact")
        verdict, declared = finding["verdict"], finding["declared"]
        spots = [
            Artefact(str(name), tuple(map(float, each["place"]["xyxy"])), float(moved["value"]))  # type: ignore[arg-type]
            for name, each in report["spots"]["classes"].items()
            if (moved := each["place"]["moved"]) is not None and moved["ci"] is not None and fixed(each) and float(moved["ci"][0]) > CAUSE
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration):
        raise DataError("the report is not that of an audit, or not whole; give the folder of xaitools audit") from None
    if verdict != RELIES or declared is not False:
        said = "an artefact that is declared legitimate" if declared and verdict == RELIES else f"{str(verdict)[:60]!r} of an artefact"
        raise DataError(f"the audit says {said}, and only what the model relies on can be repaired; audit it on more images, or let it be")
    if not spots:
        raise DataError("the audit names no class whose artefact lies at one place; nothing can be repaired by its place")
    for each in spots:
        if each.name not in classes:
            raise DataError(f"the audit's artefact is of {unknown('class', each.name[:60], classes)}; take the model that was audited")
        sides = list(zip(each.place[:2], each.place[2:], strict=False))
        if len(each.place) != 4 or not (all(0 <= low < high <= 1 for low, high in sides) and CAUSE < each.effect <= 1):
            raise DataError(
                f"the report's spot of {each.name} lies at {list(each.place)} with effect {each.effect:g}; "
                "expected xyxy in shares of the image and an effect up to 1; audit again"
            )
    return spots


# -- what an image carries


@dataclass(frozen=True, eq=False)
class Host:
    """An image of another class that shows what is pasted into it: its pixels, where it is looked at, how much is seen as it is."""

    id: str
    image: Tensor
    box: tuple[int, int, int, int]
    where: Where
    clean: float


class Hosts:
    """The first ``HOSTS`` images in a random order, by the seed, of another class than the artefact's, that leave its place free and in
    which the model sees as good as nothing of the class."""

    def __init__(self, context: Context, model: Adapter, artefact: Artefact, seed: int) -> None:
        self.context, self.model, self.artefact = context, model, artefact
        self.label = list(model.classes).index(artefact.name)
        self.things = [index for index, name in enumerate(context.dataset.semantic_classes) if name in context.dataset.things]
        self.hosts = self._found(seed)

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.hosts]

    def _found(self, seed: int) -> list[Host]:
        context, found = self.context, list[Host]()
        order = draws(seed, "repair", 0, self.artefact.name).permutation(len(context.dataset))[:LOOKED].tolist()
        for index in order:
            sample = context.readable(index)
            host = None if sample is None else self._host(sample)
            if host is not None:
                found.append(host)
            if len(found) == HOSTS:
                return found
        if not found:
            raise DataError(
                f"{context.dataset.name}: of {len(order)} images none is of another class than {self.artefact.name}, annotated, free at "
                "the artefact's place, and taken by the model for what it is; give data that has such images"
            )
        return found

    def _host(self, sample: Sample) -> Host | None:
        try:
            subject = self.context.subject(sample)
            own = None if subject is None else self.context.key(subject)
            kinds = self.context.kinds(self.context.pieces(sample))
            left, top, right, bottom = self.artefact.box(sample.image.shape[-2:])
            if not isinstance(own, int) or any(kind and self.context.key(kind) == self.label for kind in (subject or "", *kinds)):
                return None
            box = (top, left, bottom, right)
            if bool(cut(self.context.foreground(sample), box).any()):
                return None
            where = place_of(self.context, self.model.task, sample, own)
            clean = seen(self.model.predict(sample.image[None])[0], where, self.label)
        except XaiError:
            return None
        return Host(sample.id, sample.image, box, where, clean) if clean < CLEAR else None

    def rises(self, samples: Sequence[Sample]) -> Iterator[float | None]:
        """How much more of the class is seen with what each of ``samples`` has at the place; None where objects cover it."""
        patches = [self._patch(sample) for sample in samples]
        asked = [place for place, each in enumerate(patches) if each is not None]
        rises: dict[int, list[float]] = {place: [] for place in asked}
        for host in self.hosts if asked else ():
            images = [self._pasted(host, patch) for patch in patches if patch is not None]
            for place, prediction in zip(asked, self.model.predict(torch.stack(images)), strict=True):
                rises[place].append(seen(prediction, host.where, self.label) - host.clean)
        for place in range(len(samples)):
            yield round(float(np.mean(rises[place])), 6) if place in rises else None

    def _patch(self, sample: Sample) -> tuple[Tensor, Tensor] | None:
        """What lies at the place (3, h, w), and where in it an object is (1, h, w)."""
        left, top, right, bottom = self.artefact.box(sample.image.shape[-2:])
        patch, objects = (cut(each, (top, left, bottom, right)) for each in (sample.image, covered(sample, self.things)[None].float()))
        return None if float(objects.mean()) > 1 - FREE else (patch, objects)

    @staticmethod
    def _pasted(host: Host, patch: tuple[Tensor, Tensor]) -> Tensor:
        pixels, objects = patch
        stays = pasted(torch.zeros_like(host.image[:1]), host.box, objects) > 0
        return torch.where(stays, host.image, pasted(host.image, host.box, pixels).clamp(0, 1))


def _asked(context: Context, hosts: Sequence[Hosts], indices: range) -> list[list[Row] | str]:
    """The rows of each item, still without what is to be done, or why it has none."""
    answers: dict[int, list[Row] | str] = {}
    samples: dict[int, Sample] = {}
    for index in indices:
        try:
            samples[index] = context.dataset[index]
        except DataError as error:
            answers[index] = str(error)
    rises = [list(each.rises(list(samples.values()))) for each in hosts]
    for number, (index, sample) in enumerate(samples.items()):
        try:
            subject = context.subject(sample)
        except DataError:
            subject = None
        answers[index] = [_row(sample, subject, pool, values[number]) for pool, values in zip(hosts, rises, strict=True)]
    return [answers[index] for index in indices]


def _row(sample: Sample, subject: str | None, pool: Hosts, effect: float | None) -> Row:
    artefact = pool.artefact
    left, top, right, bottom = artefact.box(sample.image.shape[-2:])
    own = None if subject is None else pool.context.key(subject)
    return {
        "id": sample.id, "artefact": artefact.name, "class": subject, "own": own == pool.label,
        "carries": None if effect is None else effect >= PART * artefact.effect, "effect": effect, "action": "keep", "weight": 1.0,
        "left": left, "top": top, "right": right, "bottom": bottom,
    }  # fmt: skip


# -- what to do


def _decided(rows: Sequence[Row], action: str, dataset: Dataset) -> list[str]:
    """Writes action and weight into ``rows`` and gives what must be said of it."""
    unclear = sum(row["carries"] is None for row in rows)
    carriers = {row["id"] for row in rows if row["carries"]}
    warnings = []
    if not carriers:
        warnings.append("no image carries an artefact of the audit; everything stays as it is")
    elif action == "weight":
        _weigh(rows)
    else:
        for row in rows:
            if row["carries"] or (action == "drop" and row["id"] in carriers):
                row["action"] = action
        if action == "drop":
            _check_dropped(rows, dataset)
    for row in rows:
        del row["own"]
    if unclear:
        warnings.append(f"objects cover the place in {unclear} of {len(rows)} cases, of which nobody knows; these images stay as they are")
    return warnings


def _check_dropped(rows: Sequence[Row], dataset: Dataset) -> None:
    count = Counter(name for name, _ in dict.fromkeys((row["class"], row["id"]) for row in rows))
    gone = Counter(name for name, _ in {(row["class"], row["id"]) for row in rows if row["action"] == "drop"})
    for name in count:
        if name is not None and count[name] - gone[name] < LEAST * count[name]:
            raise DataError(
                f"{dataset.name}: {gone[name]} of {count[name]} images of {name} carry it; dropping keeps fewer than {LEAST:.0%} of the "
                "class, so take --action mask"
            )


def _weigh(rows: Sequence[Row]) -> None:
    """Weights by class and by which artefacts an image carries; images of which either is unknown keep 1 and do not count."""
    by_image: dict[str, list[Row]] = {}
    for row in rows:
        by_image.setdefault(row["id"], []).append(row)
    cells = {
        id: (next((row["artefact"] for row in mine if row["own"]), OTHER), tuple(bool(row["carries"]) for row in mine))
        for id, mine in by_image.items()
        if mine[0]["class"] is not None and all(row["carries"] is not None for row in mine)
    }
    joint = Counter(cells.values())
    kinds, patterns = Counter(kind for kind, _ in cells.values()), Counter(pattern for _, pattern in cells.values())
    for kind in kinds:
        for pattern in patterns:
            wanted = kinds[kind] * patterns[pattern] / len(cells)
            if joint[kind, pattern] < LEAST * wanted:
                which = "carry one" if any(pattern) else "carry none"
                raise DataError(
                    f"images of {kind} that {which}: {joint[kind, pattern]}, too few to stand for the {wanted:.0f} that would make class "
                    "and artefact independent; take --action mask"
                )
    for id, (kind, pattern) in cells.items():
        weight = round(kinds[kind] * patterns[pattern] / (len(cells) * joint[kind, pattern]), 6)
        for row in by_image[id]:
            row["weight"], row["action"] = weight, "weight" if not math.isclose(weight, 1) else "keep"


def _counts(rows: Sequence[Row]) -> list[Facts]:
    """For each artefact and class of images: how many there are, carry it, cannot be asked, and have which action; and mean weights."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["artefact"], row["class"] or ""), []).append(row)
    return [
        {
            "artefact": artefact,
            "class": name or None,
            "images": len(mine),
            "carry": sum(row["carries"] is True for row in mine),
            "unknown": sum(row["carries"] is None for row in mine),
            **{action: sum(row["action"] == action for row in mine) for action in ACTIONS},
            **{f"weight_{word}": _mean([row["weight"] for row in mine if row["carries"] is carries])
               for word, carries in (("carrying", True), ("others", False))},
        }
        for (artefact, name), mine in sorted(groups.items())
    ]  # fmt: skip


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _examples(dataset: Dataset, rows: Sequence[Row], context: Context) -> Iterator[Example]:
    """Of each artefact ``SHOWN`` images that carry it and as many that do not, from the largest effect to the smallest."""
    things = [index for index, name in enumerate(dataset.semantic_classes) if name in dataset.things]
    places = {id: place for place, id in enumerate(dataset.ids)}
    for artefact in dict.fromkeys(row["artefact"] for row in rows):
        for carries in (True, False):
            mine = sorted((row for row in rows if row["artefact"] == artefact and row["carries"] is carries), key=_surest)
            for row in _spread(mine, SHOWN):
                sample = dataset[places[row["id"]]]
                box = (row["left"], row["top"], row["right"], row["bottom"])
                yield Example(row, sample.image, painted(sample, [box], things) if row["action"] == "mask" else sample.image)


def _surest(row: Row) -> tuple[float, str]:
    return -row["effect"], row["id"]


def _spread(rows: Sequence[Row], most: int) -> list[Row]:
    """The first, the last and some between."""
    places = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int).tolist()
    return [rows[place] for place in places]
