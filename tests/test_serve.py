"""The dashboard is started on localhost, with the folder of its runs, and opens strange model strings only where it is told to."""

import os
import signal
import threading
from pathlib import Path

import pytest

from xaitools import serve as serving
from xaitools.locations import RUNS

STAND_IN = """#!/bin/sh
env > "$WRITE_TO"
echo "$@" >> "$WRITE_TO"
exec sleep "$SECONDS_TO_LIVE"
"""
"""In place of Python that runs streamlit: writes down what it is told."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    program, written = tmp_path / "program", tmp_path / "told.txt"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    monkeypatch.setattr(serving.sys, "executable", str(program))
    monkeypatch.setenv("WRITE_TO", str(written))
    monkeypatch.setenv("SECONDS_TO_LIVE", "0")
    return written


@pytest.mark.parametrize("allowed", [False, True])
def test_what_the_application_is_told(told: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, allowed: bool) -> None:
    assert serving.serve(8600, tmp_path / "runs", allowed) == 0
    words = told.read_text()
    assert "--server.address=localhost" in words and "--server.port=8600" in words
    environment = dict(line.split("=", 1) for line in words.splitlines() if "=" in line)
    assert environment[RUNS] == str(tmp_path / "runs")
    monkeypatch.setenv(serving.PYTHON, environment[serving.PYTHON])
    assert serving.python_allowed() is allowed


def test_who_ends_the_command_ends_the_server(told: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECONDS_TO_LIVE", "60")
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # a test that fails must not end the tests
    timer.start()
    assert serving.serve(8600, tmp_path / "runs") == -signal.SIGTERM
    timer.join()
    signal.signal(signal.SIGTERM, before)
