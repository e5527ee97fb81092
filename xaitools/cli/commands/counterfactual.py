"""``xaitools counterfactual``."""

from __future__ import annotations

from pathlib import Path

import click

from ..arguments import PATH, at_commas, loaded_model, parsed_settings
from ..session import Session, common, running, with_classes_map, with_session


@click.command()
@click.argument("dataset")
@click.option("--model", "model_name", required=True, help="A model string, e.g. unet-scenes.")
@click.option("--out", type=PATH, required=True, help="Folder for counterfactual.json, the tables and the figure.")
@click.option("--score", help="logit, probability, margin or found (default: margin for boxes, else logit; found for black boxes).")
@click.option("--format", "formats", default="png", show_default=True, help="png, pdf, svg; several with commas.")
@click.option("--resume", is_flag=True, help="Go on with the same table.")
@with_classes_map
@running
@common
@with_session
def command(
    session: Session, dataset: str, model_name: str, out: Path, score: str | None, formats: str, resume: bool, classes_map: Path | None,
    limit: int | None, batch_size: int, workers: int, settings: tuple[str, ...], seed: int, device: str,
) -> None:  # fmt: skip
    """How much of one class is another?  Objects are taken out class by class, and scores of the others fall.

    One row a class that the model got right, one column a class that stands beside it, the background, and a control: the
    same shapes painted over where no object is.
    """
    from ...audit.counterfactual import counterfactual_table
    from ...data import load_dataset
    from ...data.relabel import read_classes_map
    from ...report.counterfactual import save_counterfactual, table_text
    from ...report.store import check_formats

    wanted = check_formats(at_commas([formats]))
    params = parsed_settings(settings, {"counterfactual", "model"})
    data = load_dataset(dataset)
    model = loaded_model(model_name, device, params.pop("model", {}), workers)
    with session.progress("counterfactual") as progress:
        document = counterfactual_table(
            model, data, limit=limit, seed=seed, score=score, params={"batch_size": batch_size, **params.get("counterfactual", {})},
            classes_map=read_classes_map(classes_map) if classes_map else None, journal=out / "journal.jsonl", resume=resume,
            progress=progress,
        )  # fmt: skip
    for item in document["skipped"]:
        session.say(f"skipped {item['id']}: {item['reason']}")
    for warning in document.get("warnings", ()):
        session.say(f"note: {warning}")
    for file in save_counterfactual(document, out, wanted):
        session.say(f"wrote {file}")
    session.result(document, table_text(document))
