"""Audited, repaired, trained again, audited again: python benchmarks/repair.py [NAME:ACTION ...]

NAME is a model of factory.py that relies on a tag, ACTION one of ``xaitools repair``.  The model's own training scenes are repaired by
what its audit says, it is trained again on them with the same settings and the same first weights, and is audited again on the same
scenes.  What is told of the truth is not known to the repair: which scenes have the tag, and how much of the class goes when scenes
are drawn again without it (``xaitools.audit.factory``).  Every step is a file in scratch/repair; a run that was killed goes on.
Prints the table of repair.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import xaitools as xt
from benchmarks import factory
from benchmarks.factory import APART, OTHERS, REDRAWN, SIZE, Kept, Recipe, again, model_of, recipes, trained
from xaitools.adapters import Adapter
from xaitools.audit.factory import reliance, table
from xaitools.audit.repair import artefacts, repair
from xaitools.data.repaired import Entry, Repaired, read_repair
from xaitools.data.scenes import SHAPES, TIED, Scenes
from xaitools.files import read_json, write_json
from xaitools.report.repair import save_repair

FOLDER = factory.FOLDER.parent / "repair"
RUNS = ("pspnet-planted-tag-1-1-0:mask", "pspnet-planted-tag-0.9-0.5-1:weight", "pspnet-planted-tag-0.9-0.5-1:drop",
        "pspnet-planted-tag-0.9-0.5-1:mask")  # fmt: skip
CLASS = SHAPES[TIED]
BATCH = 50


def step(file: Path, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``call`` gave, now or when ``file`` was written."""
    if not file.is_file():
        wall, cpu = time.monotonic(), time.process_time()
        found = call()
        times = {"seconds": round(time.monotonic() - wall, 1), "cpu": round(time.process_time() - cpu, 1)}
        write_json(file, found | times)
        print(f"{file.parent.name}/{file.name}: {times}", file=sys.stderr, flush=True)
    return read_json(file)


def judged(recipe: Recipe, model: Adapter, folder: Path) -> dict[str, Any]:
    """The audit's report, and what is so: the reliance on the tag, and the metric on scenes in which nothing is tied."""
    report = step(folder / "report.json", lambda: xt.audit(model, Kept(recipe.audited), robustness=False, batch_size=BATCH).report)

    def truth() -> dict[str, Any]:
        untied = table(model, again("", True, False))
        return {
            "reliance": reliance(model, again("tag", True, False), again("tag", False, False), label=CLASS),
            "untied": untied.metric(),
            "class": untied.per_class()[CLASS],
        }

    finding = next(each for each in report["findings"] if each["shortcut"] == "artifact")
    return {"finding": finding, "report": report, **step(folder / "truth.json", truth)}


def paint(recipe: Recipe, model: Adapter, report: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The reliance on paint: how much of the class is lost when scenes of others, all without a tag, are painted over at the place."""

    def painted() -> dict[str, Any]:
        (place,) = (each.box((SIZE, SIZE)) for each in artefacts(report, model.classes) if each.name == CLASS)
        plain = Kept(Scenes("test", REDRAWN, APART, SIZE, prevalence=0.0, others=OTHERS))
        others = [id for id, subject in zip(plain.ids, plain.subjects.tolist(), strict=True) if subject != TIED]
        return reliance(model, plain, Repaired(plain, {id: Entry((place,)) for id in others}), label=CLASS)

    return step(folder / "paint.json", painted)


def repaired(recipe: Recipe, model: Adapter, report: dict[str, Any], action: str, folder: Path) -> dict[str, Any]:
    """Counts of repair.json, and how often "carries" is so."""
    found = repair(model, Kept(recipe.training), report, action=action, batch_size=BATCH, journal=folder / "journal.jsonl", resume=True)
    save_repair(found, folder)
    tags = {id: recipe.training.describe(index).tag for index, id in enumerate(recipe.training.ids)}
    asked = [row for row in found.rows if row["carries"] is not None and row["artefact"] == CLASS]
    pairs = [(row["carries"], tags[row["id"]]) for row in asked]
    return {
        **found.document,
        "right": sum(said and so for said, so in pairs),
        "false": sum(said and not so for said, so in pairs),
        "missed": sum(so and not said for said, so in pairs),
        "tagged_unknown": sum(tags[row["id"]] for row in found.rows if row["carries"] is None and row["artefact"] == CLASS),
        "images": len(pairs),
    }


def run(name: str, action: str) -> list[str]:
    recipe = next(each for each in recipes(0) if each.name == name)
    first, folder = factory.FOLDER / name, FOLDER / f"{name}-{action}"
    if not (first / "weights.safetensors").is_file():
        first.mkdir(parents=True, exist_ok=True)
        trained(recipe, first)
    model = model_of(recipe)
    before = judged(recipe, model, FOLDER / name)
    facts = step(folder / "facts.json", lambda: repaired(recipe, model, before["report"], action, folder))
    scenes = Kept(recipe.training)
    training = Repaired(scenes, read_repair(folder / "repair.csv", scenes.ids), seed=recipe.seed)
    step(folder / "trained.json", lambda: trained(recipe, folder, training))
    after = judged(recipe, model_of(recipe, folder), folder)
    pairs = ((model, FOLDER / name), (model_of(recipe, folder), folder))
    painted = [paint(recipe, each, before["report"], place) for each, place in pairs]
    counts = [sum(row[key] for row in facts["classes"]) for key in ("carry", "unknown")]
    said = facts["right"] + facts["false"]
    return [
        f"{name}, {action}",
        f"{counts[0]} of {facts['n']} ({counts[1]} unknown)",
        f"{_share(facts['right'], said)}, {_share(facts['right'], facts['right'] + facts['missed'])}",
        *(f"{_points(one['reliance'])} to {_points(other['reliance'])}" for one, other in [(before, after)]),
        f"{_points(painted[0])} to {_points(painted[1])}",
        *(f"{_said(one['finding'])} to {_said(other['finding'])}" for one, other in [(before, after)]),
        *(f"{one[key]:.3f} to {other[key]:.3f}" for one, other in [(before, after)] for key in ("untied", "class")),
    ]


def _share(some: int, all: int) -> str:
    return f"{some}/{all}"


def _points(found: dict[str, Any]) -> str:
    return f"{100 * found['drop']:.1f} [{100 * found['ci'][0]:.1f}, {100 * found['ci'][1]:.1f}]"


def _said(finding: dict[str, Any]) -> str:
    spread = (
        "" if finding["ci"] is None else f" {100 * finding['strength']:.1f} [{100 * finding['ci'][0]:.1f}, {100 * finding['ci'][1]:.1f}]"
    )
    return f"{finding['verdict']}{spread}"


def main(words: list[str]) -> None:
    torch.set_num_threads(1)
    heads = [
        "model, action", "carry the tag, said", "precision, recall", f"points of {CLASS} lost to the tag", "to paint on others",
        "the audit says", "mIoU, nothing tied", f"IoU of {CLASS}",
    ]  # fmt: skip
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for each in words or RUNS:
        print(f"| {' | '.join(run(*each.split(':')))} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
