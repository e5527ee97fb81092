"""Whose folder is it?  A run writes only where nothing else lives, and goes on only where the same plan began."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import PlanError
from ..files import DRAFT, write_json
from .plan import Plan

RUN, RECORDS = "run.json", "records"
COMPARISON = ("comparison.json", "comparison.html")


def claim(out: Path, plan: Plan, resume: bool, *, dry: bool = False) -> None:
    """Makes the folder ``out`` ready for ``plan``, or says in one line why it may not be used.

    New or empty folders are taken; one with the same plan only with ``resume``.  ``dry`` checks and makes nothing.
    """
    out = out.expanduser()
    if out.exists() and not out.is_dir():
        raise PlanError(f"--out {out}: a file stands there; give a folder")
    held = [path.name for path in out.iterdir() if not path.name.endswith(DRAFT)] if out.exists() else []
    if RUN in held:
        _same(out, plan, resume)
    elif held:
        raise PlanError(f"--out {out}: holds {sorted(held)[0]!r} and no run of xaitools; nothing is overwritten, give an empty folder")
    if not dry:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PlanError(f"--out {out}: cannot be made ({error.strerror}); give another folder") from None
        for draft in out.glob(f"*{DRAFT}"):  # what a kill left half written
            draft.unlink(missing_ok=True)


def claim_parent(out: Path, folders: Collection[str]) -> None:
    """Refuses an ``out`` for several models that holds anything but ``folders`` and their comparison; none: no check."""
    held = {path.name for path in out.iterdir() if not path.name.endswith(DRAFT)} if folders and out.is_dir() else set()
    if strange := sorted(held - {*folders, *COMPARISON}):
        raise PlanError(f"--out {out}: holds {strange[0]!r}, which is not of this run; nothing is overwritten, give an empty folder")


def write_run(out: Path, run: Mapping[str, Any]) -> None:
    try:
        write_json(out / RUN, run)
    except OSError as error:
        raise PlanError(f"--out {out}: cannot be written ({error.strerror}); make room, or give another folder") from None


def _same(out: Path, plan: Plan, resume: bool) -> None:
    try:
        there = json.loads((out / RUN).read_bytes())
        facts, identity = dict(there["plan"]), str(there["identity"])
    except (OSError, ValueError, KeyError, TypeError):
        raise PlanError(f"--out {out}: its {RUN} cannot be read; nothing is overwritten, give a new or empty folder") from None
    if identity != plan.identity:
        what = "; ".join(list(differences(facts, plan.facts))[:3]) or "its identity"
        raise PlanError(f"--out {out}: holds another run, which differs in {what}; nothing is overwritten, give another folder")
    if not resume:
        raise PlanError(f"--out {out}: holds this very run; go on with --resume, or give another folder")


def differences(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """What differs, as "name: there -> here".

    >>> list(differences({"seed": 1, "model": {"name": "a"}}, {"seed": 2, "model": {"name": "a"}}))
    ['seed: 1 -> 2']
    """
    for name in dict.fromkeys([*there, *here]):
        old, new = there.get(name), here.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name}: {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 4:
        return f"{len(value)} entries"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."


def check_saved(out: Path, run: Mapping[str, Any]) -> None:
    """Raises PlanError where ``out`` holds anything but the run ``run`` itself."""
    if out.exists() and not out.is_dir():
        raise PlanError(f"{out}: a file stands there; give a folder")
    held = [path.name for path in out.iterdir() if not path.name.startswith(".")] if out.exists() else []
    try:
        same = RUN in held and json.loads((out / RUN).read_bytes())["identity"] == run["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if held and not same:
        raise PlanError(f"{out}: holds {sorted(held)[0]!r}, which is not of this run; nothing is overwritten, give another folder")
