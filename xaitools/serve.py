"""Starts the dashboard; the application itself lives in apps/."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

from .errors import XaiError
from .locations import RUNS, part

PYTHON = "XAITOOLS_ALLOW_PYTHON"
"""The variable of the environment that lets the dashboard open every model string."""


def python_allowed() -> bool:
    return os.environ.get(PYTHON) == "1"


def serve(port: int, runs: Path, allow_python: bool = False) -> int:
    """Runs the dashboard on localhost until it is stopped; its exit status.  ``runs`` is the folder of its long work.

    With ``allow_python`` everybody who can open the page can run code and fetch weights by a model string; without it, see
    ``zoo.bounded``.  Raises XaiError without streamlit.
    """
    if importlib.util.find_spec("streamlit") is None:
        raise XaiError("the dashboard needs streamlit, which is not installed; pip install 'xaitools[dashboard]'")
    settings = {
        "server.address": "localhost", "server.port": str(port), "server.headless": "true", "server.maxUploadSize": "64",
        "server.fileWatcherType": "none", "browser.gatherUsageStats": "false", "client.showErrorDetails": "none",
        "client.toolbarMode": "minimal", "client.showErrorLinks": "false",
    }  # fmt: skip
    command = [sys.executable, "-m", "streamlit", "run", str(part("apps") / "dashboard.py")]
    command += [f"--{key}={value}" for key, value in settings.items()]
    told = {RUNS: str(runs.expanduser().absolute()), PYTHON: str(int(allow_python))}
    with subprocess.Popen(command, env=os.environ | told) as server:
        # whoever ends this process means the server, which would live on and keep the port
        before = signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        try:
            return server.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
