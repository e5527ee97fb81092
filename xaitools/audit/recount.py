"""Other intervals of a run that is done, from its records alone: neither the model nor the images are needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from ..errors import PlanError, XaiError
from ..metrics import Drawn
from ..metrics.statistics import FEW_CLUSTERS
from ..probes import PROBES
from ..types import ProbeResult
from .folder import RECORDS, RUN
from .plan import CLEAN, Condition, Plan
from .records import from_table
from .tally import Tally, measure


def recount(
    run: ProbeResult | str | Path,
    *,
    seed: int | None = None,
    replicates: int | None = None,
    clusters: Mapping[str, str] | None = None,
) -> dict[str, Drawn]:
    """The primary drop of each probe of ``run``, a result or the folder of one, drawn again: ``drop.interval(0.99, "bca")``.

    seed        of the draws, and
    replicates  how many; None: as in the run
    clusters    {item id: cluster}: what is drawn, and each image that has none by itself; None: as in the run

    Raises PlanError where the folder holds no finished run, XaiError for fewer than 10 clusters, whose draws say nothing.
    """
    given = {} if clusters is None else {"clusters": dict(clusters)}
    if isinstance(run, ProbeResult):
        return _again(dict(run.run["plan"]) | given, run.records, seed, replicates)
    out = Path(run).expanduser()
    try:
        facts, records = _read(out)
        return _again(facts | given, records, seed, replicates)
    except XaiError:
        raise
    except Exception as error:  # a folder that anyone may have written
        raise PlanError(f"{out}: no run that can be read ({type(error).__name__}); give the folder of a finished probe run") from None


def _again(facts: dict, records: pa.Table, seed: int | None, replicates: int | None) -> dict[str, Drawn]:
    tally = Tally(_plan(facts, facts["seed"] if seed is None else seed, replicates), from_table(records))
    if tally.few(list(tally.good(CLEAN))):
        raise XaiError(f"fewer than {FEW_CLUSTERS} clusters: draws of so few say nothing; the report has the range")
    return {entry.name: measure(tally, entry)[1]["primary"] for entry in tally.plan.probes}


def _read(out: Path) -> tuple[dict, pa.Table]:
    facts = dict(json.loads((out / RUN).read_bytes())["plan"])
    tables = [parquet.read_table(path) for path in sorted((out / RECORDS).glob("*.parquet"))]
    return facts, pa.concat_tables(tables, promote_options="permissive")


def _plan(facts: Mapping, seed: int, replicates: int | None) -> Plan:
    """The plan that ``facts`` came from, as far as records need it."""
    more = {} if replicates is None else {"bootstraps": replicates}
    return Plan(
        facts={name: each for name, each in facts.items() if name != "groups"},
        probes=tuple(PROBES[name] for name in facts["severities"]),
        severities={name: tuple(each) for name, each in facts["severities"].items()},
        params={name: {**each, **more} for name, each in facts["probes"].items()},
        conditions=tuple(Condition(*_parts(name)) for name in facts["conditions"]),
        members={CLEAN.probe: tuple(range(len(facts["items"])))},
        seed=seed,
        batch_size=facts["batch_size"],
        warnings=(),
    )


def _parts(name: str) -> tuple[str, int]:
    probe, _, severity = name.rpartition("-")
    return probe, int(severity)
