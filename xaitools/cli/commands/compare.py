"""``xaitools compare``."""

from __future__ import annotations

from pathlib import Path

import click

from ..arguments import PATH, at_commas, loaded_model, parsed_settings
from ..session import Session, common, running, with_session


@click.command()
@click.option("--model", "model_names", multiple=True, required=True, help="Repeat it: the first is what the others are compared with.")
@click.option("--data", help="A dataset for all (default: each model's own test split, as its card states).")
@click.option("--out", type=PATH, required=True, help="Folder for compare.json, tables and figures.")
@click.option("--format", "formats", default="png", show_default=True, help="png, pdf, svg; several with commas.")
@click.option("--rounds", type=click.IntRange(3, 1000), default=15, show_default=True, help="So often the time of each is taken.")
@running
@common
@with_session
def command(
    session: Session, model_names: tuple[str, ...], data: str | None, out: Path, formats: str, rounds: int, limit: int | None,
    batch_size: int, workers: int, settings: tuple[str, ...], seed: int, device: str,
) -> None:  # fmt: skip
    """Accuracy against operations, parameters, memory and latency, measured side by side."""
    from ...data import load_dataset
    from ...metrics.compare import compare
    from ...report.compare import claim, save_compare, table_text
    from ...report.store import check_formats

    wanted = check_formats(at_commas([formats]))
    claim(out)
    dataset = load_dataset(data) if data is not None else None
    options = parsed_settings(settings, {"model"}).get("model", {})
    models = [loaded_model(name, device, options, workers) for name in model_names]
    with session.progress("compare") as progress:
        document = compare(models, dataset, rounds=rounds, limit=limit, batch_size=batch_size, seed=seed, progress=progress)
    for warning in document.get("warnings", []):
        session.say(f"warning: {warning}")
    for file in save_compare(document, out, wanted):
        session.say(f"wrote {file}")
    session.result(document, table_text(document))
