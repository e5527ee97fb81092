"""Where the parts that are not code live: in a checkout at the top, in an installation inside the package."""

from __future__ import annotations

import os
from pathlib import Path

RUNS = "XAITOOLS_RUNS"
"""The variable of the environment that names the folder of the dashboard's runs."""

_PACKAGE = Path(__file__).resolve().parent


def part(name: str) -> Path:
    """The folder ``models`` or ``apps``, in a checkout or in an installation."""
    checkout = _PACKAGE.parent / name
    return checkout if (_PACKAGE.parent / "pyproject.toml").is_file() and checkout.is_dir() else _PACKAGE / name


def data_root() -> Path:
    """The folder of real data sets: $XAITOOLS_DATA, or ../shared/data beside a checkout.  It may not exist."""
    return Path(os.environ.get("XAITOOLS_DATA") or _PACKAGE.parent.parent / "shared" / "data")


def runs_root() -> Path:
    """The folder of probes and audits that the dashboard starts and shows: $XAITOOLS_RUNS, or runs.  It may not exist."""
    return Path(os.environ.get(RUNS) or "runs").absolute()
