"""``xaitools assess``."""

from __future__ import annotations

from pathlib import Path

import click

from ..arguments import PATH, at_commas, loaded_model, parsed_settings
from ..session import Session, common, running, with_classes_map, with_session


@click.command()
@click.argument("dataset")
@click.option("--model", "model_name", required=True, help="A model string, e.g. unet-scenes.")
@click.option("--method", "methods", multiple=True, required=True, help="One or more, separated by commas.")
@click.option("--out", type=PATH, required=True, help="Folder for assess.json, the tables and the figure.")
@click.option("--format", "formats", default="png", show_default=True, help="png, pdf, svg; several with commas.")
@click.option("--most", type=click.IntRange(1, 20), default=2, show_default=True, help="Decisions explained in one image.")
@click.option("--resume", is_flag=True, help="Go on with the same assessment.")
@with_classes_map
@running
@common
@with_session
def command(
    session: Session, dataset: str, model_name: str, methods: tuple[str, ...], out: Path, formats: str, most: int, resume: bool,
    classes_map: Path | None, limit: int | None, batch_size: int, workers: int, settings: tuple[str, ...], seed: int, device: str,
) -> None:  # fmt: skip
    """Is a method's map right?  Against random numbers and image edges, on what the model got right."""
    from ...audit.assess import assess
    from ...data import load_dataset
    from ...data.relabel import read_classes_map
    from ...report.assess import save_assess, table_text
    from ...report.store import check_formats

    names, wanted = at_commas(methods), check_formats(at_commas([formats]))
    params = parsed_settings(settings, {*names, "model"})
    data = load_dataset(dataset)
    model = loaded_model(model_name, device, params.pop("model", {}), workers)
    with session.progress("assess") as progress:
        document = assess(
            model, data, names, limit=limit, most=most, seed=seed, params=params, journal=out / "journal.jsonl", resume=resume,
            classes_map=read_classes_map(classes_map) if classes_map else None, progress=progress,
        )  # fmt: skip
    for item in document["skipped"]:
        session.say(f"skipped {item['id']}: {item['reason']}")
    for file in save_assess(document, out, wanted):
        session.say(f"wrote {file}")
    session.result(document, table_text(document))
