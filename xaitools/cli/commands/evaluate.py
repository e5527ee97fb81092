"""``xaitools evaluate``."""

from __future__ import annotations

import click

from ..arguments import in_words, loaded_model, parsed_settings
from ..session import Session, common, running, with_session


@click.command()
@click.argument("dataset")
@click.option("--model", "model_name", required=True)
@running
@common
@with_session
def command(
    session: Session, dataset: str, model_name: str, limit: int | None, batch_size: int, workers: int,
    settings: tuple[str, ...], seed: int, device: str,
) -> None:  # fmt: skip
    """The task's metrics on clean data, with 95 % intervals."""
    from ...data import load_dataset
    from ...metrics.evaluate import evaluate as run

    data = load_dataset(dataset)
    model = loaded_model(model_name, device, parsed_settings(settings, {"model"}).get("model", {}), workers)
    with session.progress("evaluate") as progress:
        result = run(model, data, limit=limit, batch_size=batch_size, seed=seed, progress=progress)
    for item in result["skipped"]:
        session.say(f"skipped {item['id']}: {item['reason']}")
    for warning in result.get("warnings", []):
        session.say(f"warning: {warning}")
    per_class = "\n".join(f"  {name:20} {in_words(value, None)}" for name, value in result["metrics"]["per_class"].items())
    session.result(result, f"{result['metric']} {in_words(result['value'], result['ci'])} on {result['n']} images\n{per_class}")
