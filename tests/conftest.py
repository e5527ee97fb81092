from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# There is a worker for each core, and nets as small as those of the tests only wait for a second thread.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets: $XAITOOLS_DATA, else shared/data beside the repository."""
    root = Path(os.environ.get("XAITOOLS_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not root.is_dir():
        reason = f"no real data in {root}; set XAITOOLS_DATA to the folder that holds camvid, bccd, ..."
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return root
