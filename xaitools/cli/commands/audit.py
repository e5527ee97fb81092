"""``xaitools audit``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from ..arguments import Named, at_commas, loaded_model, parsed_settings
from ..session import Session, at_large, common, judging, with_session


@click.command()
@click.argument("dataset")
@click.option("--model", "model_name", required=True, help="A model string, e.g. unet-scenes.")
@click.option("--out", required=True, help="Folder for the report, or s3://BUCKET/PREFIX; may not hold another run.")
@click.option("--allow", multiple=True, metavar="FAMILY", help="A cue that is legitimate here, with commas; what is found stays, marked.")
@click.option("--fail-on-finding", is_flag=True, help="Exit status 3 where a shortcut was found that is not allowed.")
@click.option("--no-images", is_flag=True, help="A report without pictures.")
@click.option("--no-robustness", is_flag=True, help="Without attacks and distortions, which get drops and no verdict.")
@click.option("--explained", type=click.IntRange(1), default=100, show_default=True, help="Images whose decisions are explained.")
@click.option("--relevance-method", default="auto", show_default=True, help="auto: lrp, or gradient-x-input where it refuses.")
@click.option("--resume", is_flag=True, help="Go on with the same plan in --out.")
@judging
@at_large
@common
@with_session
def command(
    session: Session, dataset: str, model_name: str, out: str, allow: tuple[str, ...], fail_on_finding: bool, no_images: bool,
    no_robustness: bool, explained: int, relevance_method: str, engine: str, address: str | None, resume: bool,
    classes_map: Path | None, cluster: str | None, groups: Path | None, limit: int | None, batch_size: int, threads: int, workers: int,
    settings: tuple[str, ...], seed: int, device: str,
) -> None:  # fmt: skip
    """Does the model decide for the wrong reason?  Which one, how strong the evidence is, and what would refute it.

    Every cue that can be a shortcut gets a verdict: relies, no evidence or undecided.  It joins what is lost when the cue is
    changed with where the relevance of the model's decisions lies; neither alone is enough.
    """
    from ...audit.examine import audit
    from ...data import load_dataset
    from ...data.relabel import read_classes_map
    from ...metrics.groups import clusters_of, groups_of, read_columns
    from ...probes import PROBES, addressed, aliases
    from ...report.html import save_probe

    with session.progress("fetch") if "://" in dataset else nullcontext() as told:
        data = load_dataset(dataset, told)
    columns = read_columns(groups, data.ids) if groups else None
    params = addressed(parsed_settings(settings, {*(name for entry in PROBES.values() for name in aliases(entry)), "model"}))
    origin = Named(model_name, dataset, device, params.pop("model", {}))
    model = loaded_model(model_name, device, origin.options, threads)
    with session.progress("audit") as progress:
        result = audit(
            model, data, allow=at_commas(allow), robustness=not no_robustness, explained=explained, out=out, resume=resume, limit=limit,
            batch_size=batch_size, seed=seed, params=params, progress=progress, relevance_method=relevance_method,
            classes_map=read_classes_map(classes_map) if classes_map else None,
            clusters=clusters_of(cluster, data.ids, columns) if cluster is not None else None,
            groups=groups_of(columns) if columns else None,
            threads=threads, engine=engine, workers=workers, address=address, origin=origin,
        )  # fmt: skip
    for file in save_probe(result, out, images=not no_images):
        session.say(f"wrote {file}")
    for warning in result.report["warnings"]:
        session.say(f"warning: {warning}")
    found = [each for each in result.report["findings"] if each["verdict"] == "relies" and not each["declared"]]
    session.result(
        result.report, "\n".join([f"{result.report['model']} on {result.report['dataset']}", *map(_told, result.report["findings"])])
    )
    if fail_on_finding and found:
        raise SystemExit(3)


def _told(row: Any) -> str:
    spread = "" if row["ci"] is None else f" [{100 * row['ci'][0]:z.1f}, {100 * row['ci'][1]:z.1f}]"
    strength = "" if row["strength"] is None else f"{100 * row['strength']:z.1f} points{spread}"
    return f"  {row['shortcut']:14} {row['verdict']:12} {strength}{'  (declared legitimate)' if row['declared'] else ''}"
