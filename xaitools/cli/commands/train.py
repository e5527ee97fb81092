"""``xaitools train``."""

from __future__ import annotations

from pathlib import Path

import click

from ..arguments import PATH, in_words
from ..session import Session, common, with_session


@click.command()
@click.argument("recipe", type=PATH)
@click.option("--out", type=PATH, required=True)
@click.option("--data", help="Root of the data sets, instead of $XAITOOLS_DATA.")
@click.option("--resume", is_flag=True)
@common
@with_session
def command(session: Session, recipe: Path, out: Path, data: str | None, resume: bool, seed: int, device: str) -> None:
    """Make a model again from its recipe."""
    from ...training import run_recipe

    card = run_recipe(recipe, out, data=data, resume=resume, say=session.say)
    told = [f"{split}: {row['metric']} {in_words(row['value'], row['ci'])} (n = {row['n']})" for split, row in card["scores"].items()]
    session.result(card, "\n".join(told))
