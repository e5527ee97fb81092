"""``xaitools demo``."""

from __future__ import annotations

from pathlib import Path

import click

from ..arguments import PATH
from ..session import Session, common, with_session


@click.command()
@click.option("--out", type=PATH, default=Path("demo"), show_default=True)
@common
@with_session
def command(session: Session, out: Path, seed: int, device: str) -> None:
    """The main job in one go, on what ships with the package: explain, probe, report."""
    from ...demo import run

    with session.progress("demo") as progress:
        result = run(out, seed=seed, say=session.say, progress=progress)
    session.result(result, result["told"])
