"""Where the parts that are not code live: in a checkout at the top, in an installation inside the package."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def part(name: str) -> Path:
    """The folder ``models`` or ``apps``, in a checkout or in an installation."""
    checkout = _PACKAGE.parent / name
    return checkout if (_PACKAGE.parent / "pyproject.toml").is_file() and checkout.is_dir() else _PACKAGE / name


def data_root() -> Path:
    """The folder of real data sets: $XAITOOLS_DATA, or ../shared/data beside a checkout.  It may not exist."""
    return Path(os.environ.get("XAITOOLS_DATA") or _PACKAGE.parent.parent / "shared" / "data")
