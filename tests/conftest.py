from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(2)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Nets this small only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets: $XAITOOLS_DATA, else shared/data beside the repository."""
    root = Path(os.environ.get("XAITOOLS_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not root.is_dir():
        reason = f"no real data in {root}; set XAITOOLS_DATA to the folder that holds camvid, bccd, ..."
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return root
