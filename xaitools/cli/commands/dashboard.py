"""``xaitools dashboard``."""

from __future__ import annotations

from pathlib import Path

import click

from ...errors import XaiError
from ..arguments import PATH
from ..session import Session, common, with_session


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=8501, show_default=True)
@click.option("--runs", type=PATH, default=Path("runs"), show_default=True, help="Folder of the probes and audits it starts.")
@click.option("--allow-python", is_flag=True, help="Open every model string, also those that run code or fetch weights.")
@common
@with_session
def command(session: Session, port: int, runs: Path, allow_python: bool, seed: int, device: str) -> None:
    """The browser application, on localhost."""
    from ...serve import serve

    session.say(f"http://localhost:{port} (Ctrl-C ends it)")
    if serve(port, runs, allow_python):
        raise XaiError(f"the dashboard did not start or broke off; is port {port} in use? try --port {port + 1}")
