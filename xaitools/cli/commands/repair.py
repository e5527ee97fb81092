"""``xaitools repair``."""

from __future__ import annotations

from pathlib import Path

import click

from ..arguments import PATH, at_commas, loaded_model, parsed_settings
from ..session import Session, common, running, with_classes_map, with_session


@click.command()
@click.argument("dataset")
@click.option("--model", "model_name", required=True, help="The model that was audited.")
@click.option("--audit", "audited", type=PATH, required=True, help="The --out of xaitools audit.")
@click.option("--out", type=PATH, required=True, help="Folder for repair.csv, repair.json and the figure.")
@click.option("--action", type=click.Choice(["mask", "drop", "weight"]), default="mask", show_default=True, help="What is done about it.")
@click.option("--format", "formats", default="png", show_default=True, help="png, pdf, svg; several with commas.")
@click.option("--resume", is_flag=True, help="Go on with the same images; another --action may be taken.")
@with_classes_map
@running
@common
@with_session
def command(
    session: Session, dataset: str, model_name: str, audited: Path, out: Path, action: str, formats: str, resume: bool,
    classes_map: Path | None, limit: int | None, batch_size: int, workers: int, settings: tuple[str, ...], seed: int, device: str,
) -> None:  # fmt: skip
    """Which images carry the artefact that an audit found, and what to do with them: paint over, leave out, or weigh.

    DATASET is usually the one that the model was trained on.  A recipe trains on it as repaired with repair = "repair.csv" under [data].
    """
    from ...audit.repair import repair
    from ...data import load_dataset
    from ...data.relabel import read_classes_map
    from ...files import read_json
    from ...report.repair import save_repair, table_text
    from ...report.store import check_formats

    wanted = check_formats(at_commas([formats]))
    params = parsed_settings(settings, {"model"})
    report, data = read_json(audited / "report.json"), load_dataset(dataset)
    model = loaded_model(model_name, device, params.pop("model", {}), workers)
    with session.progress("repair") as progress:
        found = repair(
            model, data, report, action=action, limit=limit, seed=seed, batch_size=batch_size,
            classes_map=read_classes_map(classes_map) if classes_map else None, journal=out / "journal.jsonl", resume=resume,
            progress=progress,
        )  # fmt: skip
    for item in found.document["skipped"]:
        session.say(f"skipped {item['id']}: {item['reason']}")
    for warning in found.document["warnings"]:
        session.say(f"note: {warning}")
    for file in save_repair(found, out, wanted):
        session.say(f"wrote {file}")
    session.result(found.document, table_text(found.document))
