"""Runs a plan: piece after piece, each kept as soon as it is done, so that a kill loses at most one."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..adapters import Model
from ..data import Dataset
from ..errors import PlanError
from ..files import folder_name
from ..probes import Context
from ..types import ProbeResult
from .engine import Blueprint, Crew, Given, Task, carried, hired
from .examples import Example, make_examples
from .folder import claim, claim_parent, write_run
from .gains import add_gains
from .plan import CLEAN, MARGIN, RELEVANCE, Piece, Plan, make_plan
from .records import Folder, Memory, Row, joined
from .remote import Progress, workplace
from .reporting import make_report
from .shift import measure_shift, piece_of
from .tally import Facts, Tally
from .work import Worker

Origin = Callable[[], tuple[Model, Dataset]]


def probe(
    model: Model,
    dataset: Dataset,
    probes: Sequence[str] | None = None,
    *,
    severities: Sequence[int] = (3,),
    out: str | Path | None = None,
    resume: bool = False,
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
    progress: Progress | None = None,
    engine: str = "local",
    workers: int = 1,
    address: str | None = None,
    origin: Origin | None = None,
) -> ProbeResult:
    """How much accuracy ``model`` loses on ``dataset`` when one cue at a time is changed.

    probes      families (their default members) or members; all families if None
    severities  0 to 5, for probes that have degrees
    out         folder for run.json and records, or the URI of one in an object store, s3://BUCKET/PREFIX; a run that was killed goes on
                there with ``resume``
    limit       only the first so many items
    params      {"pgd": {"steps": 20}, ...}
    classes_map {class of the data: class of the model} where their names differ
    clusters    {item id: cluster}: the bootstrap draws these, and each image that has none by itself; None: as the dataset
                says (``dataset.clusters``), and where it says nothing, images
    groups      {item id: group}: each probe's drop in each group, the worst first
    margin      a drop of less, in the metric, is none to speak of: the margin of the equivalence test and the controls
    relevance   on how many images to ask where relevance lies before and after each change (see ``shift``); 0 for none
    relevance_method  its method; auto is lrp, or gradient-x-input where the model has operations without a rule
    progress    called with (steps done, steps in all)
    threads     of torch, for each model; part of the plan, None for those that it has now
    engine      local: this process, or with ``workers`` so many others, each with its own model (0: as many as are worth it
                here); ray: so many actors, at ``address`` or on a Ray of the run's own.  The report is the same, byte for byte
    origin      makes model and dataset again in another process, where they cannot be pickled

    Raises PlanError when ``out`` holds something else or no item is usable, and XaiError or DataError when an
    argument is at fault.  Single items that fail are listed in the report and left out on both sides.
    ``xt.save(result, out)`` writes report.json, report.html and figures.
    """
    options = {
        "severities": severities, "limit": limit, "batch_size": batch_size, "threads": threads, "seed": seed, "params": params,
        "classes_map": classes_map, "clusters": clusters, "groups": groups, "margin": margin, "relevance": relevance,
        "relevance_method": relevance_method,
    }  # fmt: skip
    plan, context = make_plan(model, dataset, probes, **options)  # type: ignore[arg-type]
    blueprint = Blueprint(origin or Given(model, dataset), probes, options)
    with (
        workplace(out, lambda folder: claim(folder, plan, resume, dry=True), resume=resume) as place,
        hired(blueprint, plan, place.folder, engine=engine, workers=workers, address=address) as crew,
    ):
        return _run(plan, context, place.folder, resume, place.telling(progress), crew)


def probe_models(
    models: Sequence[Model],
    dataset: Dataset,
    probes: Sequence[str] | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    engine: str = "local",
    workers: int = 1,
    address: str | None = None,
    origins: Sequence[Origin | None] | None = None,
    **options: Any,
) -> dict[str, ProbeResult]:
    """``probe`` for several models on the same images with the same changes, by the name of each one's folder.

    A single model has ``out`` itself, several have a folder each in it.  All are checked before anything runs.
    ``origins`` are those of the models, and ``options`` as of ``probe``.
    """
    plans = [make_plan(model, dataset, probes, **options) for model in models]
    names = folder_names(models)

    def folder_of(root: Path, name: str) -> Path:
        return root if len(models) == 1 else root / name

    def allowed(root: Path) -> None:
        claim_parent(root, names if len(models) > 1 else ())
        for name, (plan, _) in zip(names, plans, strict=True):
            claim(folder_of(root, name), plan, resume, dry=True)

    counts = [steps(plan) for plan, _ in plans]
    results = {}
    with workplace(out, allowed, resume=resume) as place:
        progress = place.telling(progress)
        for index, (name, (plan, context)) in enumerate(zip(names, plans, strict=True)):
            folder = None if place.folder is None else folder_of(place.folder, name)
            blueprint = Blueprint((origins[index] if origins else None) or Given(models[index], dataset), probes, options)
            with hired(blueprint, plan, folder, engine=engine, workers=workers, address=address) as crew:
                results[name] = _run(plan, context, folder, resume, _shifted(progress, sum(counts[:index]), sum(counts)), crew)
    return results


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(before + done, total)


def folder_names(models: Sequence[Model]) -> list[str]:
    """One folder name for each model, its name where the file system takes it."""
    names: list[str] = []
    for model in models:
        base = folder_name(str(getattr(model, "name", type(model).__name__)))
        count = sum(1 for name in names if name == base or name.startswith(f"{base}-"))
        names.append(f"{base}-{count + 1}" if base in names else base)
    return names


@dataclass(eq=False)
class Carried:
    """A plan that was carried out, and what is needed to ask more of the same model, data and folder."""

    tally: Tally
    worker: Worker
    store: Folder | Memory
    report: Facts
    rows: list[Row]
    examples: tuple[Example, ...]
    out: Path | None
    start: dict[str, Any]
    crew: Crew | None

    def ended(self) -> dict[str, Any]:
        """The content of run.json, written where there is a folder."""
        return _end(self)


@dataclass(frozen=True)
class Changed:
    """The work of a piece of the plan: its items changed, and the model asked."""

    piece: Piece

    def __call__(self, worker: Worker) -> list[Row]:
        return worker.do(self.piece)


def _run(
    plan: Plan, context: Context, out: Path | None, resume: bool, progress: Progress | None, crew: Crew | None
) -> ProbeResult:  # fmt: skip
    done = carry_out(plan, context, out, resume, progress, crew)
    return ProbeResult(done.report, joined(done.rows), done.ended(), done.examples)


def carry_out(
    plan: Plan, context: Context, out: Path | None, resume: bool, progress: Progress | None, crew: Crew | None, also: Iterable[Piece] = ()
) -> Carried:  # fmt: skip
    """All of a plan's pieces, and what follows from them; ``also`` are pieces of others that its folder may hold."""
    store: Folder | Memory = Memory()
    if out is not None:
        claim(out, plan, resume)
        store = Folder(out, plan.identity)
        store.tidy([*plan.pieces(), *(piece_of(index) for index in plan.members[CLEAN.probe]), *also])
    run = _start(plan, out)
    worker = Worker(plan, context)
    rows = _all_pieces(plan, worker, store, progress, crew)
    if not any(row.reason is None for row in rows if row.condition == CLEAN.probe):
        raise PlanError(f"{context.dataset.name}: none of {len(plan.members[CLEAN.probe])} items is usable; the first: {rows[0].reason}")
    tally = Tally(plan, rows)
    report = make_report(tally, context)
    add_gains(tally, report)
    total = steps(plan)
    explained = _explaining(plan)
    told = None if progress is None else lambda share: progress(total - explained + round(share * explained), total)
    rows += measure_shift(tally, worker, report, store, told, crew)
    examples = make_examples(tally, worker, report)
    for each in examples:
        case = {"id": each.id, "role": each.role, "drop": each.drop, "images": each.images, "severity": each.severity}
        report["probes"][each.probe].setdefault("examples", []).append(case)
    return Carried(tally, worker, store, report, rows, examples, out, run, crew)


def _all_pieces(plan: Plan, worker: Worker, store: Folder | Memory, progress: Progress | None, crew: Crew | None) -> list[Row]:
    total, tasks = steps(plan), []
    for piece in plan.pieces():
        ids = worker.context_of(piece.condition).dataset.ids
        tasks.append(Task(piece, tuple(ids[index] for index in piece.items), Changed(piece)))
    told = None if progress is None else lambda done: progress(done, total)
    return [row for rows in carried(store, tasks, lambda task: worker.do(task.piece), crew, told) for row in rows]


def steps(plan: Plan) -> int:
    """How far progress counts: the pieces, and as many steps as images are to be explained."""
    return sum(1 for _ in plan.pieces()) + _explaining(plan)


def _explaining(plan: Plan) -> int:
    return min(int(plan.facts["relevance"]["images"]), len(plan.members[CLEAN.probe]))


def _start(plan: Plan, out: Path | None) -> dict[str, Any]:
    run = {
        "identity": plan.identity,
        "plan": dict(plan.facts),
        "seed": plan.seed,
        "versions": dict(plan.facts["versions"]),
        "times": {"started": _now()},
        "host": {"name": platform.node(), "system": platform.platform(), "cpus": os.cpu_count()},
    }
    if out is not None:
        write_run(out, run)
    return run | {"clock": time.monotonic()}


def _end(done: Carried) -> dict[str, Any]:
    run = {name: value for name, value in done.start.items() if name != "clock"}
    seconds = time.monotonic() - done.start["clock"]
    workers = 1
    if done.crew is not None:
        done.worker.clock.add(done.crew.clock)
        workers = done.crew.count
    run["times"] = run["times"] | {"ended": _now(), "seconds": round(seconds, 3), **done.worker.clock.facts(seconds, workers)}
    run["host"] = run["host"] | {"workers": workers}
    if done.out is not None:
        write_run(done.out, run)
    return run


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
