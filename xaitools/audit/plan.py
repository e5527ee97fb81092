"""What a run will do, as a value: everything that can change a number, and the pieces the work falls into.

Two plans with equal facts give equal reports.  Each piece can be done alone, in any order, and again.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..adapters import Model, adapted
from ..attribution.base import METHODS
from ..data import Dataset
from ..errors import XaiError, unknown
from ..files import canonical
from ..metrics.groups import declared_clusters
from ..probes import PROBES, Context, Probe, resolve, select
from ..probes.base import draws

MARGIN = 0.03
"""A drop of less than that, in the metric, is none to speak of, if no other margin is asked for."""

CHUNK = 16
"""Least number of items in a piece; a multiple of the batch size, so that batches never span pieces."""

PARTS = ("adapters", "attribution", "audit", "data", "metrics", "probes")
"""Packages whose source is part of a plan's identity."""

RELEVANCE = 16
"""Images on which each probe's explanations are compared: a map costs as much as several predictions."""

LIBRARIES = ("torch", "torchvision", "numpy", "opencv-contrib-python-headless", "opencv-python-headless", "pillow")


@dataclass(frozen=True)
class Condition:
    """One way of changing every image.

    >>> Condition("fog", 3).name
    'fog-3'
    """

    probe: str
    severity: int

    @property
    def name(self) -> str:
        return f"{self.probe}-{self.severity}"


CLEAN = Condition("clean", 0)
ALWAYS = Condition("identity", 0), Condition("reencode", 1), Condition("resize", 1)
"""Controls of every run."""


@dataclass(frozen=True)
class Piece:
    """Some items under one condition; ``items`` are indices into the dataset."""

    number: int
    condition: Condition
    items: tuple[int, ...]

    @property
    def id(self) -> str:
        return f"{self.number:06d}-{self.condition.name}"


@dataclass(frozen=True, eq=False)
class Plan:
    """facts       JSON values; all that the report depends on
    probes      what was asked for and can run
    severities  of each probe, by name
    params      of each probe and of each condition's probe, by name
    conditions  what is run, CLEAN first
    members     indices of the items of each condition's probe, in the dataset that it is about (see ``elsewhere``)
    warnings    what was asked for and cannot run and why, or can run only in part
    """

    facts: Mapping[str, Any]
    probes: tuple[Probe, ...]
    severities: Mapping[str, tuple[int, ...]]
    params: Mapping[str, Mapping[str, Any]]
    conditions: tuple[Condition, ...]
    members: Mapping[str, tuple[int, ...]]
    seed: int
    batch_size: int
    warnings: tuple[str, ...]

    @property
    def identity(self) -> str:
        return hashlib.sha256(canonical(self.facts).encode()).hexdigest()

    def pieces(self) -> Iterator[Piece]:
        """Chunk by chunk, so that the images of a chunk are read once; those of other datasets come last."""
        size = self.batch_size * -(-CHUNK // self.batch_size)
        number = 0
        for own in (True, False):
            conditions = [each for each in self.conditions if (self.elsewhere(each) is None) is own]
            for group in [conditions] if own else [[each] for each in conditions]:
                items = self.members[CLEAN.probe if own else group[0].probe]
                for start in range(0, len(items), size):
                    chunk = items[start : start + size]
                    for condition in group:
                        wanted = set(self.members[condition.probe])
                        if members := tuple(index for index in chunk if index in wanted):
                            yield Piece(number, condition, members)
                    number += 1

    def elsewhere(self, condition: Condition) -> str | None:
        """The dataset string whose items a condition is about; None for the run's own."""
        known = condition != CLEAN and PROBES[condition.probe].elsewhere
        return str(self.params[condition.probe]["donors"]) if known else None


def make_plan(
    model: Model,
    dataset: Dataset,
    probes: Sequence[str] | None = None,
    *,
    severities: Sequence[int] = (3,),
    limit: int | None = None,
    batch_size: int = 8,
    threads: int | None = None,
    seed: int = 0,
    params: Mapping[str, Mapping[str, Any]] | None = None,
    classes_map: Mapping[str, str] | None = None,
    clusters: Mapping[str, str] | None = None,
    groups: Mapping[str, str] | None = None,
    margin: float = MARGIN,
    relevance: int = RELEVANCE,
    relevance_method: str = "auto",
    further: Mapping[str, Any] | None = None,
) -> tuple[Plan, Context]:
    """The plan, and the context in which its pieces are done.

    ``clusters``, ``groups`` and ``margin`` change no prediction, only what is made of them; see ``probe``.  ``threads`` are the model's,
    None for those that torch has now: sums in another order differ in their last digits.  ``further`` are facts of who asks, on which
    the result depends too.

    Raises XaiError for an unknown probe or parameter and for numbers out of range, DataError when the dataset has
    no truth for the model.  A probe that the model or the data cannot serve becomes a warning.
    """
    _check(severities, limit, batch_size, margin)
    if threads is not None and threads < 1:
        raise XaiError(f"threads={threads}: expected at least 1, or None for those that torch has now")
    if relevance < 0:
        raise XaiError(f"relevance {relevance}: expected the number of images to explain, 0 for none")
    if relevance_method != "auto":
        METHODS[relevance_method]
    asked = select(probes)
    model = adapted(model)
    context = Context(dataset, model, classes_map)
    lacking = {entry.name: why for entry in asked if (why := context.lacks(entry.needs))}
    chosen = tuple(entry for entry in asked if entry.name not in lacking)
    used = {name: PROBES[name] for entry in chosen for name in (entry.name, *sides(entry)) if name in PROBES}
    used |= {name: PROBES[name] for control in controls(chosen) for name in (control, PROBES[control].reference) if name in PROBES}
    values = _parameters(chosen, used, params or {}, {entry.name for entry in asked})
    steps = {entry.name: tuple(dict.fromkeys(entry.severity(each) for each in sorted(severities))) for entry in chosen}
    steps |= {entry.name: (1,) for entry in chosen if entry.elsewhere}  # unchanged it is the clean images
    conditions = _conditions(chosen, steps)
    items = tuple(range(len(dataset) if limit is None else min(limit, len(dataset))))
    members = {CLEAN.probe: items} | {
        name: _members(_unlearnt(items, used[name], values[name], context), values[name].get("subset"), seed) for name in used
    }
    foreign = {name: _foreign(name, values[name]["donors"], context) for name in used if used[name].elsewhere}
    members |= {name: tuple(range(len(data) if limit is None else min(limit, len(data)))) for name, data in foreign.items()}
    names = [dataset.ids[index] for index in items]
    declared = declared_clusters(dataset) if clusters is None else None
    scope = getattr(dataset, "scope", None)
    together = declared if clusters is None else clusters
    facts = {
        "model": model_facts(model),
        "dataset": _dataset_facts(dataset),
        "items": names,
        "conditions": [condition.name for condition in conditions],
        "probes": {name: values[name] for name in sorted(values)},
        **({"classes_map": dict(classes_map)} if classes_map else {}),
        **({"elsewhere": {name: _dataset_facts(data) for name, data in foreign.items()}} if foreign else {}),
        **({"clusters": {name: together[name] for name in names if name in together}} if together else {}),
        **({"scope": scope(names)} if declared and scope else {}),
        **({"groups": {name: groups[name] for name in names if name in groups}} if groups else {}),
        "severities": {name: list(each) for name, each in steps.items()},
        "declared": declared_numbers(chosen),
        "margin": margin,
        "relevance": {"images": relevance, "method": relevance_method},
        **(further or {}),
        "seed": seed,
        "batch_size": batch_size,
        "threads": threads or torch.get_num_threads(),
        "code": code_version(),
        "versions": versions(),
    }
    warnings = [f"{name} was left out: {why}" for name, why in lacking.items()]
    if any("objects" in entry.needs for entry in chosen) and (words := context.stand_ins()):
        warnings.append(words)
    return Plan(facts, chosen, steps, values, conditions, members, seed, batch_size, tuple(warnings)), context


def declared_numbers(chosen: Sequence[Probe]) -> dict[str, str]:
    """The one probe of each family whose primary number stands for it: the first that is a default member, else the first.

    It is declared before anything is measured, so that nobody takes the largest of several drops for the family's.
    """
    found: dict[str, str] = {}
    for entry in sorted(chosen, key=lambda each: not each.default):
        found.setdefault(entry.family, entry.name)
    return {family: found[family] for family in dict.fromkeys(entry.family for entry in chosen)}


def _foreign(name: str, donors: str, context: Context) -> Dataset:
    """The dataset that a probe is about.  Raises XaiError where none is named, DataError where it has no truth for the model."""
    if not donors:
        raise XaiError(f"{name}: no dataset is named; say which with --set {name}.donors=LAYOUT:PATH#SPLIT")
    return context.donors(donors).context.dataset


def _dataset_facts(dataset: Dataset) -> dict[str, Any]:
    return {"name": dataset.name, "task": dataset.task, "ids": _hash("\0".join(dataset.ids)), "n": len(dataset)}


def sides(entry: Probe) -> tuple[str, ...]:
    """Names of what a probe compares: the probes whose images it scores, and its reference."""
    return (*(entry.members or (entry.images,)), entry.reference)


def scored(entry: Probe, severity: int) -> tuple[Condition, ...]:
    """The conditions whose metric, or the mean of whose metrics, is a probe's value at a severity."""
    return tuple(Condition(name, PROBES[name].severity(severity)) for name in entry.members or (entry.images,))


def controls(chosen: Sequence[Probe]) -> tuple[str, ...]:
    """Names of the controls that run along with these probes."""
    pasted = [entry for entry in chosen if entry.family == "background"]
    asked = {
        **{entry.control: True for entry in chosen if entry.control},
        "self_paste": bool(pasted),
        "same_class_paste": any("donors" in entry.needs for entry in pasted),
    }
    return (*(each.probe for each in ALWAYS), *(name for name, wanted in asked.items() if wanted))


def _check(severities: Sequence[int], limit: int | None, batch_size: int, margin: float) -> None:
    if not severities or any(each not in range(6) for each in severities):
        raise XaiError(f"severities {list(severities)}: expected whole numbers 0 to 5; 0 is unchanged")
    if limit is not None and limit < 1:
        raise XaiError(f"limit {limit}: expected at least 1 image")
    if batch_size < 1:
        raise XaiError(f"batch size {batch_size}: expected at least 1")
    if not 0 < margin < 1:
        raise XaiError(f"margin {margin}: expected a drop that would not matter, between 0 and 1, e.g. 0.03")


def _parameters(
    chosen: Sequence[Probe], used: Mapping[str, Probe], given: Mapping[str, Mapping[str, Any]], asked: set[str]
) -> dict[str, dict[str, Any]]:
    """All parameters by probe.  Those of a contrast or an aggregate are handed to all its sides, those of an attack to its control."""
    for name in given:
        if name not in used and name not in asked:
            raise XaiError(unknown("probe in --set", name, used))
    wanted = {name: dict(given.get(name, {})) for name in used}
    for entry in chosen:
        resolve(entry, given.get(entry.name))
        handed = set(sides(entry)) & used.keys() - {entry.name}
        if entry.control:
            handed |= {entry.control}
        for side in handed:
            for name, value in given.get(entry.name, {}).items():
                if name in used[side].defaults and wanted[side].setdefault(name, value) != value:
                    raise XaiError(f"{entry.name}.{name} and {side}.{name} differ, but they share images; set one of them")
    return {name: resolve(entry, wanted[name]) for name, entry in used.items()}


def _conditions(chosen: Sequence[Probe], severities: Mapping[str, tuple[int, ...]]) -> tuple[Condition, ...]:
    found = [CLEAN, *ALWAYS]
    aimed = {entry.control for entry in chosen}
    pasted = [PROBES[name] for name in controls(chosen)[len(ALWAYS) :] if name not in aimed]
    found += [Condition(name, 1) for entry in pasted for name in (entry.reference, entry.name)]
    for entry in chosen:
        names = [entry.reference] if entry.reference in PROBES else []
        names += [entry.control] if entry.control else []
        for severity in severities[entry.name]:
            found += [*scored(entry, severity), *(Condition(name, severity) for name in names)]
    return tuple(dict.fromkeys(found))


def _unlearnt(items: tuple[int, ...], entry: Probe, values: Mapping[str, Any], context: Context) -> tuple[int, ...]:
    """The items that a probe has not learnt from."""
    learnt = context.held_out(int(values["train"])) if "training" in entry.needs else ()
    return tuple(index for index in items if index not in learnt)


def _members(items: tuple[int, ...], subset: int | None, seed: int) -> tuple[int, ...]:
    """All of ``items``, or as many as ``subset`` says, drawn by the seed alone: attack and control get the same."""
    if subset is None or subset >= len(items):
        return items
    chosen = draws(seed, "subset", 0, "").choice(len(items), size=max(1, subset), replace=False)
    return tuple(items[index] for index in sorted(chosen.tolist()))


def model_facts(model: Model) -> dict[str, Any]:
    """What of a model can change a number: its name, classes, weights, and the settings around them."""
    facts: dict[str, Any] = {
        "name": str(getattr(model, "name", type(model).__name__)),
        "task": model.task,
        "classes": list(model.classes),
        "weights": getattr(model, "weights_hash", "") or _weights(model),
    }
    for name in ("dtype", "device", "fit", "order", "first", "score_threshold", "nms", "background", "mean", "std"):
        value = getattr(model, name, None)
        facts[name] = value.flatten().tolist() if isinstance(value, torch.Tensor) else None if value is None else str(value)
    return facts


def _weights(model: Model) -> str:
    """Hash over all tensors of the network; empty where there is none to look into."""
    module = getattr(model, "module", model)
    if not isinstance(module, nn.Module):
        return ""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@cache
def code_version() -> str:
    """Hash over the source of everything that a number goes through."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(path for part in PARTS for path in (root / part).rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@cache
def versions() -> dict[str, str]:
    """Python, xaitools, and the libraries that can change a number."""
    from .. import __version__

    found = {"python": platform.python_version(), "xaitools": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
