"""The dashboard is started on localhost, with the folder of its runs, and opens strange model strings only where it is told to."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xaitools import serve as serving
from xaitools.locations import RUNS


@pytest.mark.parametrize("allowed", [False, True])
def test_what_the_application_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, allowed: bool) -> None:
    told: dict[str, Any] = {}

    def run(command: list[str], *, check: bool, env: dict[str, str]) -> SimpleNamespace:
        told.update(command=command, env=env)
        return SimpleNamespace(returncode=3)

    monkeypatch.setattr(serving.subprocess, "run", run)
    assert serving.serve(8600, tmp_path / "runs", allowed) == 3
    assert "--server.address=localhost" in told["command"] and "--server.port=8600" in told["command"]
    assert told["env"][RUNS] == str(tmp_path / "runs")
    monkeypatch.setenv(serving.PYTHON, told["env"][serving.PYTHON])
    assert serving.python_allowed() is allowed
