"""Where the parts that are not code live: in a checkout at the top, in an installation inside the package."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import StoreError

CACHE_GB = "XAITOOLS_CACHE_GB"
"""The variable of the environment that says how much of object stores is kept here."""

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


def cache_root() -> Path:
    """The folder of what was fetched from object stores: $XAITOOLS_CACHE, or xaitools in the user's cache.  It may not exist."""
    own = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("XAITOOLS_CACHE") or f"{own}/xaitools").expanduser().absolute()


def cache_bytes() -> int:
    """How many bytes ``cache_root`` may hold: $XAITOOLS_CACHE_GB, or 20 GB.  Raises StoreError where that is no number."""
    text = os.environ.get(CACHE_GB) or "20"
    try:
        return int(float(text) * 10**9)
    except (ValueError, OverflowError):
        raise StoreError(f"{CACHE_GB}={text[:40]!r}: expected a number of gigabytes, e.g. 20") from None
