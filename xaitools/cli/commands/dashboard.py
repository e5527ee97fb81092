"""``xaitools dashboard``."""

from __future__ import annotations

import click

from ...errors import XaiError
from ..session import Session, common, with_session


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=8501, show_default=True)
@common
@with_session
def command(session: Session, port: int, seed: int, device: str) -> None:
    """The browser application, on localhost."""
    from ...serve import serve

    session.say(f"http://localhost:{port} (Ctrl-C ends it)")
    if serve(port):
        raise XaiError(f"the dashboard did not start or broke off; is port {port} in use? try --port {port + 1}")
