"""``xaitools activations``."""

from __future__ import annotations

from pathlib import Path

import click

from ..arguments import PATH, at_commas, loaded_model, parsed_settings
from ..session import Session, common, one_by_one, with_session


@click.command()
@click.argument("dataset")
@click.option("--model", "model_name", required=True, help="A model string, e.g. unet-scenes.")
@click.option("--layer", help="A module of the network (default: the end of the encoder).")
@click.option("--feature", "features", type=click.IntRange(0), multiple=True, help="A map; may be repeated (default: the six strongest).")
@click.option("--top", type=click.IntRange(1, 100), default=9, show_default=True, help="Images of each map.")
@click.option("--out", type=PATH, required=True, help="Folder for activations.json and the figure.")
@click.option("--format", "formats", default="png", show_default=True, help="png, pdf, svg; several with commas.")
@one_by_one
@common
@with_session
def command(
    session: Session, dataset: str, model_name: str, layer: str | None, features: tuple[int, ...], top: int, out: Path, formats: str,
    limit: int | None, workers: int, settings: tuple[str, ...], seed: int, device: str,
) -> None:  # fmt: skip
    """What does a feature map answer to?  The images where it is strongest, what it saw there, and what made it answer.

    Figure 2 of Zeiler and Fergus (2014): of each map the strongest activations, led back to the image by a deconvnet,
    beside the patches of the images that they can see.  Nothing is drawn at random.
    """
    from ...audit.activations import strongest_activations
    from ...data import load_dataset
    from ...report.activations import activations_document, activations_text, claim, save_activations
    from ...report.store import check_formats

    wanted = check_formats(at_commas([formats]))
    claim(out)
    params = parsed_settings(settings, {"model"})
    data = load_dataset(dataset)
    model = loaded_model(model_name, device, params.get("model", {}), workers)
    with session.progress("activations") as progress:
        found = strongest_activations(model, data, layer, features or None, top=top, limit=limit, progress=progress)
    for id, reason in found.skipped:
        session.say(f"skipped {id}: {reason}")
    for note in found.notes:
        session.say(f"note: {note}")
    for file in save_activations(found, out, wanted):
        session.say(f"wrote {file}")
    session.result(activations_document(found), activations_text(found))
