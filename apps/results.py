"""Runs that ended: the reports in the runs folder, whoever made them there; nothing outside it, and nothing in it is trusted."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from xaitools.errors import DataError
from xaitools.files import read_json
from xaitools.locations import runs_root

REPORT, COMPARISON, PAGE = "report.json", "comparison.json", "report.html"
DEEP, MOST = 4, 300
"""Folders below the runs folder that are looked into, and runs that are listed, the newest."""

MAX_PIXELS = 50_000_000
MAX_BYTES = 64 * 2**20
"""Of a page or a picture; ours are smaller."""


@dataclass(frozen=True)
class Run:
    """The report of one model, or those of several on the same images.

    name      its folder, relative to the runs folder
    reports   folder of each report by its model
    """

    name: str
    kind: str
    dataset: str
    n: int
    reports: tuple[tuple[str, Path], ...]
    changed: float

    @property
    def title(self) -> str:
        return f"{', '.join(model for model, _ in self.reports)} on {self.dataset}, n = {self.n} · {self.name}"


def runs(kind: str) -> list[Run]:
    """The newest first."""
    found = [run for folder in _folders(runs_root(), DEEP) if (run := _run(folder)) is not None and run.kind == kind]
    return sorted(found, key=lambda run: -run.changed)[:MOST]


def report(folder: Path) -> dict[str, Any]:
    """report.json of a run's folder.  Raises DataError where it is none that xaitools wrote."""
    return _read(folder / REPORT, *_stamp(folder / REPORT))


def figure(folder: Path, name: str) -> bytes:
    """The run's picture of that name as PNG; none where it is missing or no picture of ours."""
    path = next((path for path in folder.glob("figures/*.png") if path.stem == name), None)
    content = b"" if path is None else content_of(path)
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            return content if picture.width * picture.height <= MAX_PIXELS else b""
    except (OSError, SyntaxError, ValueError):  # what Pillow raises of damaged files
        return b""


def content_of(path: Path) -> bytes:
    """The bytes of a file of a run; none where it is missing, too large, or leads elsewhere."""
    try:
        return path.read_bytes() if not path.is_symlink() and path.stat().st_size <= MAX_BYTES else b""
    except OSError:
        return b""


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """Folders that hold a run, from the top; what is below one belongs to it."""
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError:
        return
    names = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    if {REPORT, COMPARISON} & names:
        yield root
    elif depth:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _folders(Path(entry.path), depth - 1)


def _run(folder: Path) -> Run | None:
    paths = [folder / REPORT] if (folder / REPORT).is_file() else sorted(folder.glob(f"*/{REPORT}"))
    facts = []
    for path in paths:
        try:
            facts.append((path.parent, *_summary(path, *_stamp(path))))
        except DataError:
            continue
    if not facts:
        return None
    name = folder.relative_to(runs_root()).as_posix().removesuffix("/out")
    _, kind, _, dataset, n = facts[0]
    models = tuple((model, place) for place, _, model, _, _ in facts)
    return Run(name, kind, dataset, n, models, max(path.stat().st_mtime for path in paths))


def _stamp(path: Path) -> tuple[int, int]:
    try:
        if path.is_symlink():
            raise OSError(0, "a link")
        facts = path.stat()
    except OSError as error:
        raise DataError(f"{path.name}: cannot be read ({error.strerror}); make the run again") from None
    return facts.st_mtime_ns, facts.st_size


@lru_cache(maxsize=1000)
def _summary(path: Path, changed: int, size: int) -> tuple[str, str, str, int]:
    """Kind, model, dataset, n."""
    found = _read(path, changed, size)
    return "audit" if "findings" in found else "probe", found["model"], found["dataset"], found["n"]


@lru_cache(maxsize=8)
def _read(path: Path, changed: int, size: int) -> dict[str, Any]:
    found = read_json(path)
    kinds = {"model": str, "dataset": str, "metric": str, "n": int, "clean": dict, "probes": dict, "versions": dict, "warnings": list}
    if not isinstance(found, dict) or any(not isinstance(found.get(name), kind) for name, kind in kinds.items()):
        raise DataError(f"{path.name}: no report written by xaitools; make the run again")
    return found
