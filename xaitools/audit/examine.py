"""Does a model decide for the wrong reason?  Probes, what its explanations show, and a verdict on every cue that can be a shortcut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..adapters import Model
from ..data import Dataset
from ..data.selected import Selected
from ..errors import PlanError, XaiError, unknown
from ..files import read_json
from ..probes import CUES, FAMILIES
from ..probes.base import draws
from ..types import AuditReport
from .counterfactual import counterfactual_table
from .decisions import measure_decisions
from .decisions import piece_of as decisions_of
from .engine import Blueprint, Given, hired
from .folder import claim
from .plan import CLEAN, Plan, make_plan
from .records import joined
from .reliance import reliance
from .remote import Progress, workplace
from .run import Carried, Origin, carry_out, steps
from .shift import Explainer
from .spots import NOWHERE, SPOT, measure_spots, piece_of
from .spray import spray
from .tally import Facts
from .transplant import transplant
from .verdict import AGREED, ERRORS, QUESTIONS, TURNS, cases, finding

EXPLAINED = 100
"""Images whose decisions are explained: a map costs as much as several predictions."""

SPOTTED = 2
"""So many times as many are searched for what decides beside the objects, since few of them may have it."""


def audit(
    model: Model,
    dataset: Dataset,
    *,
    allow: Sequence[str] = (),
    robustness: bool = True,
    explained: int = EXPLAINED,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    engine: str = "local",
    workers: int = 1,
    address: str | None = None,
    origin: Origin | None = None,
    **options: Any,
) -> AuditReport:
    """Which cues ``model`` relies on: "findings", one verdict for each cue family, with its evidence (see ``verdict``).

    "error_rates" tells how often such verdicts were wrong on models whose shortcut is known.

    allow       cue families that are legitimate here, e.g. texture where the stain is the class; what is found stays, marked
    robustness  whether attacks and distortions run too; they get drops and no verdict
    explained   on how many images decisions are explained; twice as many are searched for what decides beside their objects
    out, resume, progress, engine, workers, address, origin  as of ``probe``, whose other ``options`` are taken too, but for ``probes``

    Raises what ``probe`` raises, and XaiError for an unknown family in ``allow``.
    """
    for family in allow:
        if family not in CUES:
            raise XaiError(unknown("cue family in allow", family, CUES))
    if explained < 1:
        raise XaiError(f"explained={explained}: expected at least 1 image")
    families = [family for family in FAMILIES if robustness or family in CUES]
    further = {"audit": {"allow": sorted(set(allow)), "explained": explained}}
    probes, options = [*families, *QUESTIONS.values(), AGREED, *TURNS], {**options, "further": further}
    plan, context = make_plan(model, dataset, probes, **options)
    wanted, spotted = _explained(plan, explained), _explained(plan, SPOTTED * explained)
    first = steps(plan)
    then, total = first + len(spotted), first + len(spotted) + 2 * len(wanted)
    also = [*map(piece_of, spotted), *map(decisions_of, wanted)]
    blueprint = Blueprint(origin or Given(model, dataset), probes, options)
    with (
        workplace(out, lambda folder: claim(folder, plan, resume, dry=True), resume=resume) as place,
        hired(blueprint, plan, place.folder, engine=engine, workers=workers, address=address) as crew,
    ):
        told = place.telling(progress)

        def later(before: int) -> Progress | None:
            return None if told is None else lambda count, _: told(before + count, total)

        done = carry_out(plan, context, place.folder, resume, later(0), crew, also)
        done.report["spots"] = _spots(done, spotted, later(first))
        done.report |= _clusters(done, wanted, later(then))
        done.report["counterfactual"] = _counterfactual(done, wanted, resume, options.get("classes_map"), later(then + len(wanted)))
        done.report["findings"] = [finding(case, case.family in allow) for case in cases(done.report)]
        done.report["error_rates"] = read_json(ERRORS)
        return AuditReport(done.report, joined(done.rows), done.ended(), done.examples)


def _clusters(done: Carried, wanted: Sequence[int], progress: Progress | None) -> Facts:
    """ "spray", "transplants" of each class's suspicious clusters in their order, "reliance", and how that was made or why not."""
    plan, context = done.tally.plan, done.worker.context
    method = plan.facts["relevance"]["method"]
    decisions = measure_decisions(context, wanted, done.store, method=method, seed=plan.seed, progress=progress, crew=done.crew)
    found = spray(decisions, seed=plan.seed)
    suspicious = {name: [each for each in facts["clusters"] if each["suspicious"]] for name, facts in found.items()}
    return {
        "spray": found,
        "transplants": {
            name: [transplant(context, decisions, name, cluster, seed=plan.seed)[0] for cluster in clusters]
            for name, clusters in suspicious.items()
            if clusters
        },
        "reliance": reliance(decisions, seed=plan.seed),
        "decisions": {"method": decisions.method, "note": decisions.note, "n": len(decisions.made)},
    }


def _counterfactual(
    done: Carried, wanted: Sequence[int], resume: bool, classes_map: Mapping[str, str] | None, progress: Progress | None
) -> Facts:
    """What each class loses without each other one, see ``counterfactual_table``; or, in "note", why that cannot be asked."""
    plan, context = done.tally.plan, done.worker.context
    assert context.model is not None
    some = Selected(context.dataset, wanted, context.dataset.name)
    try:
        found = counterfactual_table(
            context.model, some, seed=plan.seed, classes_map=classes_map, resume=resume, progress=progress, crew=done.crew,
            journal=None if done.out is None else done.out / "counterfactual.jsonl",
        )  # fmt: skip
    except PlanError:
        raise
    except XaiError as error:
        return {"note": str(error).splitlines()[0], "rows": []}
    seen = [row for row in found["rows"] if row["images"] or row["undefined"]]
    return {"note": "", "rows": seen, **{key: found[key] for key in ("score", "n", "objects")}}


def _explained(plan: Plan, count: int) -> list[int]:
    """The first of a random order of the items, by the seed."""
    items = plan.members[CLEAN.probe]
    order = draws(plan.seed, SPOT, 0, "").permutation(len(items)).tolist()
    return sorted(items[place] for place in order[:count])


def _spots(done: Carried, wanted: Sequence[int], progress: Progress | None) -> Mapping[str, Any]:
    """{"method", "note", "n", "nowhere", "classes", "few"}: see ``spots.summary``; no classes, and why, where nothing can be explained.

    ``n`` images have a spot; in ``nowhere`` more nothing beside the objects speaks for the class.  ``few`` counts the spots of the
    classes that have too few to be judged.
    """
    plan = done.tally.plan
    explainer = Explainer(done.worker, plan)
    names = done.worker.dataset.ids
    method, note = explainer.settle(plan.facts["relevance"]["method"], [names[index] for index in wanted])
    if method is None:
        return {"method": None, "note": note, "n": 0, "nowhere": 0, "classes": {}, "few": {}}
    classes, rows = measure_spots(explainer, wanted, done.store, progress=progress, crew=done.crew)
    done.rows += rows
    seen = Counter(explainer.model.classes[int(row.statistics["label"][0])] for row in rows if row.reason is None)
    counts = {"n": seen.total(), "nowhere": sum(row.reason == NOWHERE for row in rows)}
    few = {name: seen[name] for name in explainer.model.classes if name in seen and name not in classes}
    return {"method": method, "note": note, **counts, "classes": classes, "few": few}
