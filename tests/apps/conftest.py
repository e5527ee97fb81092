from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.apps.tiny_zoo import write
from xaitools import zoo
from xaitools.locations import part

sys.path.insert(0, str(part("apps")))  # as streamlit does for the script it runs


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(autouse=True)
def tiny_zoo(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The zoo holds two random models, and there is no data folder."""
    monkeypatch.setattr(zoo.shipped, "part", lambda name: tiny_models / name)
    monkeypatch.setenv("XAITOOLS_DATA", str(tiny_models / "data"))
