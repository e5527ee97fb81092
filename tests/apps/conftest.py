from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.apps.tiny_zoo import write
from xaitools import zoo
from xaitools.locations import RUNS, part

sys.path.insert(0, str(part("apps")))  # as streamlit does for the script it runs


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(autouse=True)
def tiny_zoo(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The zoo holds two random models, and there is no data folder."""
    monkeypatch.setattr(zoo.shipped, "part", lambda name: tiny_models / name)
    monkeypatch.setenv("XAITOOLS_DATA", str(tiny_models / "data"))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty runs folder, whose jobs look like ones that run though no process is started."""
    import jobs

    def start(job: jobs.Job) -> None:
        (job.folder / "killed").unlink(missing_ok=True)
        jobs._note(job.folder, jobs.RUNNING, pid=2)

    monkeypatch.setenv(RUNS, str(tmp_path / "runs"))
    monkeypatch.setattr(jobs, "_start", start)
    monkeypatch.setattr(jobs, "_held", lambda folder: not (folder / "killed").exists())
    monkeypatch.setattr(jobs, "_kill", lambda pid, sign: None)
    monkeypatch.setattr(jobs, "_wait_for", lambda folder: (folder / "killed").touch())
    return tmp_path / "runs"
