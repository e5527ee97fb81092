"""``xaitools probe``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from ..arguments import Named, at_commas, in_words, loaded_model, parsed_settings, parsed_severities
from ..session import Session, at_large, common, judging, with_session


@click.command()
@click.argument("dataset")
@click.option("--model", "model_names", multiple=True, required=True, help="May be repeated to compare models.")
@click.option("--probes", multiple=True, help="Families or members, with commas (default: all families).")
@click.option("--severities", default="3", show_default=True, help="1 to 5, with commas.")
@click.option("--out", required=True, help="Folder for the report, or s3://BUCKET/PREFIX; may not hold another run.")
@click.option("--relevance", type=click.IntRange(0), default=16, show_default=True, help="Images on which explanations are compared.")
@click.option("--relevance-method", default="auto", show_default=True, help="auto: lrp, or gradient-x-input where it refuses.")
@click.option("--resume", is_flag=True, help="Go on with the same plan in --out.")
@click.option(
    "--margin",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.03,
    show_default=True,
    help="A drop of less is none to speak of.",
)
@judging
@at_large
@common
@with_session
def command(
    session: Session, dataset: str, model_names: tuple[str, ...], probes: tuple[str, ...], severities: str, out: str, engine: str,
    address: str | None, relevance: int, relevance_method: str, resume: bool, margin: float, classes_map: Path | None,
    cluster: str | None, groups: Path | None, limit: int | None, batch_size: int, threads: int, workers: int,
    settings: tuple[str, ...], seed: int, device: str,
) -> None:  # fmt: skip
    """How much accuracy is lost when a cue is changed: drops with paired intervals, and a report."""
    from ...audit.run import probe_models
    from ...data import load_dataset
    from ...data.relabel import read_classes_map
    from ...metrics.groups import clusters_of, groups_of, read_columns
    from ...probes import PROBES, addressed, aliases
    from ...report.html import write_report

    with session.progress("fetch") if "://" in dataset else nullcontext() as told:
        data = load_dataset(dataset, told)
    columns = read_columns(groups, data.ids) if groups else None
    params = addressed(parsed_settings(settings, {*(name for entry in PROBES.values() for name in aliases(entry)), "model"}))
    origins = [Named(name, dataset, device, params.get("model", {})) for name in model_names]
    loaded = [loaded_model(name, device, params.get("model", {}), threads) for name in model_names]
    levels = parsed_severities(severities)
    with session.progress("probe") as progress:
        results = probe_models(
            loaded, data, at_commas(probes) or None, severities=levels, out=out, resume=resume, limit=limit, batch_size=batch_size,
            seed=seed, params={key: value for key, value in params.items() if key != "model"}, progress=progress,
            classes_map=read_classes_map(classes_map) if classes_map else None, margin=margin,
            clusters=clusters_of(cluster, data.ids, columns) if cluster is not None else None,
            groups=groups_of(columns) if columns else None,
            relevance=relevance, relevance_method=relevance_method, threads=threads, engine=engine,
            workers=workers, address=address, origins=origins,
        )  # fmt: skip
    for file in write_report(results, out):
        session.say(f"wrote {file}")
    reports = {name: result.report for name, result in results.items()}
    for name, report in reports.items():
        for warning in report["warnings"]:
            session.say(f"warning: {name}: {warning}")
        session.say(f"{name}: {_speed(results[name].run['times'])}")
    session.result(next(iter(reports.values())) if len(reports) == 1 else reports, "\n".join(map(_drops, reports.values())))


def _speed(times: Any) -> str:
    share = f"the model took {100 * times['model_share']:.0f} % of the time"
    return f"{times['images']} images in {times['seconds']:.1f} s, {times['images_per_second']:.3g} a second; {share}"


def _drops(report: Any) -> str:
    clean = report["clean"]
    lines = [f"{report['model']}: {report['metric']} {in_words(clean['value'], clean['ci'])} on {report['n']} images"]
    for name, row in report["probes"].items():
        primary = row["primary"]
        said = f"drop {in_words(primary['drop'], primary['ci'])}  {primary['says']}"
        if row.get("measure") == "shape_bias":
            said = f"shape bias {in_words(**row['means']['shape_bias'])}"
        lines.append(f"  {row['family']:12} {name:16} {said}")
    return "\n".join(lines)
