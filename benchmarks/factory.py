"""Models whose shortcut is known, and what an audit sees of them: python benchmarks/factory.py [NAME ...] [PART/PARTS] [MINUTES]

Trains small models on drawn scenes of 64 pixels, each with one factor tied to the class or with none; measures by drawing scenes
again what each relies on (``xaitools.audit.factory``); and audits it (``xt.audit``) on scenes drawn as those of the training, which
come with their annotations and with nothing about how they were drawn.  Every model is a folder in scratch/factory with its
weights and one JSON; a run that was killed goes on, and several may run at once, each with a PART of the recipes (1/2 and
2/2).  NAMEs of models or architectures leave out the rest; after so many MINUTES no model is begun.  factory_table.py writes the table.

A step of ``STEPS`` is done again where its version has risen; so new evidence is added to models that exist by adding a step.  What the
table rests on is kept in factory.jsonl beside this script: models that stand there are not made again, wherever their folders are.
"""

from __future__ import annotations

import fcntl
import json
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

import xaitools as xt
from xaitools import zoo
from xaitools.adapters import Adapter
from xaitools.audit.factory import Redrawn, Sized, reliance, table
from xaitools.data import Dataset
from xaitools.data.scenes import FACTORS, SHAPES, TIED, Scenes
from xaitools.files import folder_name, plain, read_json, write_bytes, write_json, write_text
from xaitools.training.recipe import train
from xaitools.types import Sample

FOLDER = Path(__file__).resolve().parents[1] / "scratch" / "factory"
KEPT = Path(__file__).with_suffix(".jsonl")
SIZE, TRAINED, VALIDATED, REDRAWN, AUDITED = 64, 3000, 100, 300, 150
OTHERS = 0.4
RHOS = (1.0, 0.9, 0.7)
OF_A_CLASS = ("tag", "cooccurrence")
"""Factors that one class alone follows."""
SERIES = 20
"""The first seed.  The audit's rules and its threshold were made with models of lower ones in view."""

APART = 1000
"""Seed of the scenes that are drawn again: no audited set has it."""

INPUT = {"mean": [0.44, 0.41, 0.36], "std": [0.22, 0.22, 0.22]}
BOXES = INPUT | {"size": [SIZE, SIZE], "background": "none", "nms": 0.45}
PLAIN = {"weight_decay": 0.02, "average": 0.98, "crop": 1.0, "colour": 0.0, "mirror": False, "batch_size": 16}
NETWORKS: dict[str, dict[str, Any]] = {
    "yolo": {
        "task": "detection",
        "network": {"anchors": [[13, 13], [22, 22], [31, 31]], "widths": [[16], [32], [64, 64, 64]]},
        "input": BOXES,
        "training": PLAIN | {"epochs": 7, "lr": 5e-3},
    },
    "yolo-v1": {
        "task": "detection",
        "network": {"boxes": 2, "widths": [[16], [32], [64, 64, 64]]},
        "input": BOXES,
        "training": PLAIN | {"epochs": 8, "lr": 5e-3},
    },
    "pspnet": {
        "task": "segmentation",
        "network": {"stride": 8, "widths": [16, 24, 40, 56], "dropout": 0.0},
        "input": INPUT,
        "training": PLAIN | {"epochs": 6, "lr": 6e-3, "balance": 0.4},
    },
}


@dataclass(frozen=True)
class Recipe:
    """kind     planted; none (no tag and no companion anywhere), uncorrelated, away (the audited set has the plant, the training set
             has every scene's factor drawn anew), legitimate (``Sized``), untrained
    plant    the factor that is tied in the training set, or in the audited one, "" for none
    """

    architecture: str
    kind: str
    plant: str = ""
    rho: float = 0.0
    prevalence: float = 0.3
    seed: int = 0

    @property
    def name(self) -> str:
        tied = f"-{self.plant}-{self.rho:g}" + ("" if self.prevalence == 0.3 else f"-{self.prevalence:g}") if self.plant else ""
        return f"{self.architecture}-{self.kind}{tied}-{self.seed}"

    def scenes(self, split: str, n: int, rho: float) -> Scenes:
        make = Sized if self.kind == "legitimate" else Scenes
        return make(split, n, self.seed, SIZE, self.plant or "none", rho if self.plant else 0.0, self.prevalence, OTHERS)

    @property
    def training(self) -> Scenes:
        return self.scenes("train", TRAINED, 0.0 if self.kind == "away" else self.rho)

    @property
    def validation(self) -> Scenes:
        return self.scenes("val", VALIDATED, 0.0 if self.kind == "away" else self.rho)

    @property
    def audited(self) -> Scenes:
        return self.scenes("test", AUDITED, self.rho)


def recipes(first: int = SERIES) -> list[Recipe]:
    """All of them, with seeds from ``first`` on.

    Planted and honest ones come by turns, and the architectures too, so that any beginning of the list has some of each.
    """
    planted = [("planted", factor, rho, 1.0 if factor in OF_A_CLASS else 0.3, 0) for rho in RHOS for factor in FACTORS]
    planted += [("planted", factor, rho, 0.5, 1) for rho in RHOS[:2] for factor in OF_A_CLASS]
    planted += [("planted", factor, 1.0, 0.3, 3) for factor in FACTORS if factor not in OF_A_CLASS]
    kinds = [("away", factor, 1.0, 0.5 if factor in OF_A_CLASS else 0.3, 2) for factor in FACTORS]
    honest = [
        each
        for seed, away in enumerate(kinds)
        for each in [("none", "", 0.0, 0.0, seed), away, ("untrained", "", 0.0, 0.3, seed), ("legitimate", "", 0.0, 0.3, seed),
                     ("uncorrelated", "", 0.0, 0.5, seed)]
    ]  # fmt: skip
    pairs, names = list(zip_longest(planted, honest)), list(NETWORKS)
    return [
        Recipe(names[(place + offset + shift) % len(names)], *each[:-1], first + each[-1])
        for shift in range(len(names))
        for place, pair in enumerate(pairs)
        for offset, each in enumerate(pair)
        if each is not None
    ]


# Scenes, drawn once and kept.


class Kept:
    """The images and the truth of a dataset, read back from a file; nothing about how they were drawn (no tags)."""

    def __init__(self, dataset: Dataset) -> None:
        file = FOLDER / "scenes" / f"{zlib.crc32(dataset.name.encode()):08x}-{folder_name(dataset.name)}.npz"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of two workers one draws
            if not file.is_file():
                _draw(dataset, file)
        with np.load(file) as arrays:
            self.images, self.owners, self.labels, self.subjects = (arrays[name] for name in ("images", "owners", "labels", "subjects"))
            self.boxes = arrays["boxes"]
        self.name, self.task, self.classes, self.ids = dataset.name, dataset.task, dataset.classes, list(dataset.ids)
        self.semantic_classes, self.things = dataset.semantic_classes, dataset.things

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        labels = torch.from_numpy(self.labels[index][self.labels[index] >= 0]).long()
        masks = torch.from_numpy(self.owners[index]) == torch.arange(len(labels))[:, None, None]
        return Sample(
            id=self.ids[index],
            image=torch.from_numpy(self.images[index]).float() / 255,
            label=int(self.subjects[index]),
            semantic=(masks * (labels + 1)[:, None, None]).sum(0),
            boxes=torch.from_numpy(self.boxes[index, : len(labels)]).float(),
            labels=labels,
            masks=masks,
            ignore=torch.zeros(len(labels), dtype=torch.bool),
        )


def _draw(dataset: Dataset, file: Path) -> None:
    n, most = len(dataset), 4
    images, owners = np.zeros((n, 3, SIZE, SIZE), np.uint8), np.full((n, SIZE, SIZE), -1, np.int8)
    boxes, labels, subjects = np.zeros((n, most, 4), np.int16), np.full((n, most), -1, np.int8), np.zeros(n, np.int8)
    for index in range(n):
        sample = dataset[index]
        assert sample.labels is not None and sample.masks is not None and sample.boxes is not None and sample.label is not None
        count = len(sample.labels)
        images[index] = (sample.image * 255).round().numpy()
        for number in range(count):
            owners[index][sample.masks[number].numpy()] = number
        boxes[index, :count], labels[index, :count], subjects[index] = sample.boxes.numpy(), sample.labels.numpy(), sample.label
    draft = file.with_suffix(".draft.npz")
    np.savez(draft, images=images, owners=owners, boxes=boxes, labels=labels, subjects=subjects)
    draft.replace(file)


@lru_cache(maxsize=64)
def again(factor: str, aligned: bool, sized: bool) -> Kept:
    """The scenes on which reliance is measured, of every model the same; ``factor`` "" for as they are."""
    if factor == "size":
        return Kept(Sized("test", REDRAWN, APART, SIZE, others=OTHERS, turn=0 if aligned else 2))
    scenes = (Sized if sized else Scenes)("test", REDRAWN, APART, SIZE, others=OTHERS)
    return Kept(Redrawn(scenes, factor, aligned) if factor else scenes)


# Steps.  Each takes the recipe and the model and gives what goes to the JSON.


def trained(recipe: Recipe, folder: Path, training: Dataset | None = None) -> dict[str, Any]:
    """Writes the weights, as float16; goes on after the last whole epoch of a training that was killed.

    ``training`` takes the place of the recipe's own scenes.
    """
    facts = {"name": recipe.name, "architecture": recipe.architecture, **NETWORKS[recipe.architecture]}
    facts["training"] = facts["training"] | {"seed": recipe.seed, "validate_every": facts["training"]["epochs"]}
    facts["classes"] = list(recipe.training.semantic_classes if facts["task"] == "segmentation" else recipe.training.classes)
    torch.manual_seed(zlib.crc32(recipe.name.encode()))
    network = zoo.build(facts)
    state = network.state_dict()
    if recipe.kind != "untrained":
        splits = {"train": training or Kept(recipe.training), "val": Kept(recipe.validation)}
        state = train(network, facts, splits, folder, True, lambda line: None)
    half = {key: (value.half() if value.is_floating_point() else value).contiguous() for key, value in state.items()}
    write_bytes(folder / "weights.safetensors", save(half))
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return {"parameters": sum(each.numel() for each in network.parameters()), "device": str(next(network.parameters()).device)}


def model_of(recipe: Recipe, folder: Path | None = None) -> Adapter:
    facts = {"architecture": recipe.architecture, **NETWORKS[recipe.architecture]}
    facts["classes"] = list(recipe.training.semantic_classes if facts["task"] == "segmentation" else recipe.training.classes)
    network = zoo.build(facts)
    network.load_state_dict(zoo.read_weights((folder or FOLDER / recipe.name) / "weights.safetensors"))
    return zoo.adapt(network, facts, name=recipe.name)


def truth(recipe: Recipe, model: Adapter) -> dict[str, Any]:
    """Reliance on every factor, and the metric on scenes in which none is tied; of tag and companion that of the class they follow."""
    sized = recipe.kind == "legitimate"
    found = {
        factor: reliance(
            model, *(again(factor, aligned, sized) for aligned in (True, False)), label=SHAPES[TIED] if factor in OF_A_CLASS else None
        )
        for factor in [*FACTORS, *(["size"] if sized else [])]
    }
    return {"untied": table(model, again("", True, sized)).metric(), "reliance": found}


def audited(recipe: Recipe, model: Adapter) -> dict[str, Any]:
    """What ``xt.audit`` says on scenes like those of the training, in so far as the table needs it."""
    report = xt.audit(model, Kept(recipe.audited), robustness=False, batch_size=50).report
    costs = {
        name: {"family": row["family"], "n": row["n"], **{key: row["primary"][key] for key in ("drop", "ci")}}
        for name, row in report["probes"].items()
    }
    clusters = {name: [[each["size"], each["suspicious"]] for each in facts["clusters"]] for name, facts in report["spray"].items()}
    kept = {key: report[key] for key in ("n", "metric", "clean", "findings", "spots", "transplants", "reliance", "decisions", "warnings")}
    return {**kept, "costs": costs, "clusters": clusters}


Step = Callable[[Recipe, Adapter], dict[str, Any]]
STEPS: dict[str, tuple[Step, int]] = {"truth": (truth, 3), "audited": (audited, 8)}
"""Name to function and version."""


def do(recipe: Recipe) -> bool:
    """All steps of a recipe that are not done yet, if any; the JSON is written anew after each."""
    folder = FOLDER / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.json"
    facts = read_json(file) if file.is_file() else {}
    made = {"recipe": asdict(recipe), "network": NETWORKS[recipe.architecture], "scenes": [TRAINED, OTHERS]}
    if any(facts.get(key) != value for key, value in made.items()):
        facts = made | {"steps": {}}
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)  # of other settings
        write_json(file, facts)
    worked = "train" not in facts["steps"]
    if worked:
        facts["steps"] = {"train": _timed(lambda: trained(recipe, folder), 1)}
        write_json(file, facts)
    for name, (step, version) in STEPS.items():
        if facts["steps"].get(name, {}).get("version") != version:
            model = model_of(recipe)
            facts["steps"][name] = _timed(lambda step=step, model=model: step(recipe, model), version)
            write_json(file, facts)
            worked = True
    return worked


def known() -> dict[str, dict[str, Any]]:
    """By name what the table rests on, of models whose steps are all of the present version, in the order of the recipes.

    A model's folder comes before its line in ``KEPT``, which is written anew with both.
    """
    lines = KEPT.read_text(encoding="utf-8").splitlines() if KEPT.is_file() else []
    found = {row["name"]: row for row in map(json.loads, lines)}
    for recipe in recipes():
        file = FOLDER / recipe.name / "model.json"
        if file.is_file() and _whole(facts := read_json(file)):
            found[recipe.name] = _kept_of(recipe.name, facts)
    found = {each.name: found[each.name] for each in recipes() if each.name in found and _whole(found[each.name])}
    write_text(KEPT, "".join(json.dumps(plain(row), allow_nan=False) + "\n" for row in found.values()))
    return found


def _whole(facts: Mapping[str, Any]) -> bool:
    return all(facts["steps"].get(name, {}).get("version") == version for name, (_, version) in STEPS.items())


def _kept_of(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Of a model's JSON what the table reads, a hundredth of it."""
    steps, audit = facts["steps"], facts["steps"]["audited"]
    findings = [
        {"shortcut": row["shortcut"], "doubt": row["doubt"],
         "evidence": [{key: each[key] for key in ("value", "ci", "n")} for each in row["evidence"][:2]]}
        for row in audit["findings"]
    ]  # fmt: skip
    spots = {label: {"place": {"xyxy": each["place"]["xyxy"]}} for label, each in audit["spots"]["classes"].items() if each}
    reliance_ = {key: {name: row[name] for name in ("drop", "ci", "per_class")} for key, row in steps["truth"]["reliance"].items()}
    return {
        "name": name, "recipe": facts["recipe"],
        "steps": {
            "train": {key: steps["train"][key] for key in ("version", "cpu", "parameters", "device")},
            "truth": {key: steps["truth"][key] for key in ("version", "cpu", "untied")} | {"reliance": reliance_},
            "audited": {key: audit[key] for key in ("version", "cpu", "metric")}
            | {"clean": {"value": audit["clean"]["value"]}, "findings": findings, "spots": {"classes": spots}},
        },
    }  # fmt: skip


def _timed(call: Callable[[], dict[str, Any]], version: int) -> dict[str, Any]:
    wall, cpu = time.monotonic(), time.process_time()
    found = call()
    return {"version": version, "seconds": round(time.monotonic() - wall, 1), "cpu": round(time.process_time() - cpu, 1), **found}


def main(words: Sequence[str]) -> None:
    torch.set_num_threads(1)
    part, parts = next((tuple(map(int, word.split("/"))) for word in words if "/" in word), (1, 1))
    minutes = next((float(word) for word in words if word.isdigit()), float("inf"))
    end = time.monotonic() + 60 * minutes
    named = [word for word in words if "/" not in word and not word.isdigit()]
    made = known()
    wanted = [each for each in recipes() if not named or each.architecture in named or each.name in named][part - 1 :: parts]
    wanted = [each for each in wanted if each.name not in made]
    for recipe in sorted(wanted, key=lambda each: not (FOLDER / each.name).is_dir()):  # what was begun comes first
        started = time.monotonic()
        if started > end:
            break
        if do(recipe):
            print(f"{recipe.name}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
