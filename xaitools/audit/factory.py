"""How far a model relies on one factor of the drawn scenes, measured by drawing the same scenes again.

What an audit says is held against this, so no probe and no map has a part in it: every scene is drawn once with the factor as it
belongs to the class and once as it belongs to another class, all else pixel for pixel as it was, and the model's metric is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..adapters import Model
from ..data import Dataset
from ..data._drawing import Scene
from ..data.relabel import Relabel
from ..data.scenes import FACTORS, TIED, VALUES, Scenes
from ..errors import DataError, XaiError, unknown
from ..metrics import Table, draw, image_weights
from ..metrics.accuracy import image_statistics
from ..metrics.evaluate import predictions
from ..metrics.ratios import defined
from ..types import Sample

FAMILY = {
    "background": "background",
    "texture": "texture",
    "pose": "pose",
    "light": "domain",
    "tag": "artifact",
    "cooccurrence": "cooccurrence",
}
"""The cue family in which an audit should speak of a factor."""

POSITIVE, NEGATIVE = 0.10, 0.05
"""A model relies on a factor where the interval of its reliance lies above the one.  It does not where the interval lies below the other,
or below the first and holds 0."""

SIZES = (1.0, 0.88, 0.77, 0.67, 0.58)
"""By how much ``Sized`` scales the objects of each class."""


class Redrawn:
    """``scenes`` with one factor as it belongs to the class, or, if not ``aligned``, as it belongs to another.

    Value k of background, light, texture and pose belongs to class k: of the subject for the whole scene, of each object for
    texture and pose.  The other class is the first to fourth after the own one, by turns.  Tag and cooccurrence belong to the
    class that they follow (``TIED``): aligned they are there if the scene is about it, else if it is not.
    """

    def __init__(self, scenes: Scenes, factor: str, aligned: bool) -> None:
        if factor not in FACTORS:
            raise DataError(f"redrawn scenes: {unknown('factor', factor, FACTORS)}")
        self.scenes, self.factor, self.aligned = scenes, factor, aligned
        self.name = f"{scenes.name}&{factor}={'own' if aligned else 'other'}"
        self.task, self.classes = scenes.task, scenes.classes
        self.semantic_classes, self.things, self.ids = scenes.semantic_classes, scenes.things, scenes.ids

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Sample:
        return self.scenes.redraw(index, **{self.factor: self.value(index, self.scenes.describe(index))})

    def value(self, index: int, scene: Scene) -> Any:
        if self.factor in ("tag", "cooccurrence"):
            return (scene.subject == TIED) is self.aligned
        turn = 0 if self.aligned else 1 + index % (VALUES - 1)
        if self.factor in ("texture", "pose"):
            return tuple((thing.kind + turn) % VALUES for thing in scene.things)
        return (scene.subject + turn) % VALUES


class Sized(Scenes):
    """Scenes in which size belongs to the class: objects are scaled by ``SIZES``, those of class k by that of class k + ``turn``.

    A cue that is the object's own and holds wherever the object is seen: to use it is no shortcut.
    """

    def __init__(self, *args: Any, turn: int = 0, **options: Any) -> None:
        super().__init__(*args, **options)
        self.turn, self.name = turn, f"{self.name}&size={turn}"

    def describe(self, index: int) -> Scene:
        scene = super().describe(index)
        sizes = [SIZES[(thing.kind + self.turn) % VALUES] for thing in scene.things]
        things = tuple(replace(thing, radius=thing.radius * size) for thing, size in zip(scene.things, sizes, strict=True))
        return replace(scene, things=things)


def reliance(
    model: Model,
    aligned: Dataset,
    conflicting: Dataset,
    *,
    label: str | None = None,
    replicates: int = 999,
    seed: int = 0,
    batch_size: int = 50,
) -> dict[str, Any]:
    """{"aligned", "conflicting", "drop", "ci", "per_class", "n", "truth"}: the metric on both, its difference with a paired 95 % interval.

    ``per_class`` is the difference of each class.  With ``label`` the drop is that of this class alone: a cue that one class among
    many follows moves their mean little.  ``truth`` is that of ``verdict`` on the drop.
    Raises DataError where the two are not the same items, or one cannot be used.
    """
    if list(aligned.ids) != list(conflicting.ids):
        raise DataError(f"{aligned.name} and {conflicting.name}: expected the same items in the same order")
    tables = {"aligned": table(model, aligned, batch_size), "conflicting": table(model, conflicting, batch_size)}
    weights = image_weights(aligned.ids, seed=seed, replicates=replicates)
    numbers = {name: each if label is None else each.of_class(label) for name, each in tables.items()}
    drop = draw(numbers, lambda each: {"": each["aligned"] - each["conflicting"]}, weights)[""]
    by_class = {name: each.per_class() for name, each in tables.items()}
    values: dict[str, Any] = {name: defined(each.metric()) if label is None else by_class[name][label] for name, each in tables.items()}
    values["per_class"] = {name: _less(own, by_class["conflicting"][name]) for name, own in by_class["aligned"].items()}
    return {**values, "drop": defined(drop.value), "ci": drop.interval(), "n": len(aligned), "truth": verdict(drop.interval())}


def _less(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def verdict(ci: Sequence[float] | None) -> bool | None:
    """Whether a model relies on a factor (see ``POSITIVE``); None between.

    >>> verdict([0.12, 0.3]), verdict([-0.02, 0.04]), verdict([-0.01, 0.08]), verdict([0.02, 0.08])
    (True, False, False, None)
    """
    if ci is None:
        return None
    low, high = ci
    none = high < NEGATIVE or (low <= 0 and high < POSITIVE)
    return True if low > POSITIVE else False if none else None


def table(model: Model, dataset: Dataset, batch_size: int = 50) -> Table:
    """What the metrics need of ``model`` on all items of ``dataset``."""
    rows: list[Mapping[str, Any]] = []
    relabel = Relabel(dataset, model.task, model.classes)
    for _, outcome in predictions(model, dataset, range(len(dataset)), relabel=relabel, batch_size=batch_size):
        if isinstance(outcome, XaiError):
            raise outcome
        rows.append(image_statistics(*outcome))
    return Table(model.task, model.classes, rows)
