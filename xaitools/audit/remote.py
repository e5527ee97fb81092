"""Runs whose folder lies in an object store: they work in a folder here, and what is whole there is brought to the store at once.

Only the process that drives a run speaks with the store, so workers need neither its address nor credentials.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from ..errors import PlanError, StoreError
from ..files import DRAFT, MAX_JSON_BYTES, write_bytes
from ..stores import Store, is_uri, opened
from .folder import COMPARISON, RECORDS, RUN

Progress = Callable[[int, int], None]

AT_ONCE = 8
"""Files that are under way to the store, or from it, at the same time."""

SHARE = 20
"""So many times as long as it takes to look what is new passes before the next look."""

MOST = 1000
"""Names that are looked at in a folder of the store that may not be a run's."""

MAX_PIECE_BYTES = 2**30

LAST = ("report.json", COMPARISON[0])
"""Who finds one of these finds all the others."""


class Place:
    """A folder to work in; ``folder`` is None where nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def telling(self, progress: Progress | None) -> Progress | None:
        """What the work is to call when something was done."""
        return progress

    def named(self, path: Path) -> Path | str:
        """``path`` in the folder as somebody else finds it."""
        return path


class Mirror(Place):
    """A folder here whose new and changed files are brought to ``store``; files are known by size and time of change."""

    folder: Path

    def __init__(self, store: Store, folder: Path) -> None:
        super().__init__(folder)
        self.store, self._known, self._next = store, dict[str, tuple[int, int]](), 0.0

    def telling(self, progress: Progress | None) -> Progress:
        def tell(done: int, total: int) -> None:
            if time.monotonic() >= self._next:
                self.push()
            if progress is not None:
                progress(done, total)

        return tell

    def named(self, path: Path) -> str:
        return f"{self.store.uri}/{self._name(path)}"

    def sketch(self) -> None:
        """What the rules of ``claim`` look at: each run.json as it is in the store, and empty files and folders for all else."""
        top = self._draw("")
        if RUN not in top:
            for name in [name for name, is_folder in top.items() if is_folder]:
                self._draw(f"{name}/")

    def _draw(self, under: str) -> dict[str, bool]:
        found = self.store.names(under)
        found = {name: found[name] for name in sorted(found, key=lambda name: name != RUN)[:MOST]}
        for name, is_folder in found.items():
            path = self.folder / under / name
            if is_folder:
                path.mkdir(parents=True, exist_ok=True)
            else:
                self._keep(under + name, self.store.read(under + name, MAX_JSON_BYTES) if name == RUN else b"")
        return found

    def bring(self) -> None:
        """The pieces and journals of the runs whose run.json is here."""
        wanted = []
        for run in [path.parent for path in self.folder.rglob(RUN)]:
            under = "" if run == self.folder else f"{self._name(run)}/"
            wanted += [f"{under}{RECORDS}/{name}" for name in self.store.listed(f"{under}{RECORDS}")]
            wanted += [f"{under}{name}" for name, is_folder in self.store.names(under).items() if name.endswith(".jsonl") and not is_folder]
        self._at_once(wanted, lambda name: self._keep(name, self.store.read(name, MAX_PIECE_BYTES)))

    def push(self) -> None:
        """Brings what is new to the store, run.json first, as nothing else says whose the rest is.  Raises StoreError."""
        began = time.monotonic()
        files = {self._name(path): path for path in self.folder.rglob("*") if path.is_file() and not path.name.endswith(DRAFT)}
        new = [name for name, path in files.items() if self._known.get(name) != _facts(path)]
        self._next = time.monotonic() + SHARE * (time.monotonic() - began)
        first, last = ([name for name in new if Path(name).name in names] for names in ((RUN,), LAST))
        try:
            for names in (first, sorted({*new} - {*first, *last}), last):
                self._at_once(names, self._send)
        except StoreError as error:
            raise StoreError(f"{error} (what is done stays there: go on with --resume)") from None

    def _send(self, name: str) -> None:
        path = self.folder / name
        facts = _facts(path)
        self.store.write(name, path.read_bytes())
        self._known[name] = facts

    def _keep(self, name: str, data: bytes) -> None:
        path = self.folder / name
        write_bytes(path, data)
        self._known[name] = _facts(path)

    def _at_once(self, names: Sequence[str], work: Callable[[str], None]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            waiting = [threads.submit(work, name) for name in names]
            try:
                for each in waiting:
                    each.result()
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _facts(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@contextmanager
def workplace(out: str | Path | None, allowed: Callable[[Path], None], *, resume: bool = False) -> Iterator[Place]:
    """Where a run whose results belong into ``out`` works: there, or here for a URI of an object store, which then gets them.

    ``allowed`` raises PlanError where a folder may not be used; it is asked before anything is written.  With ``resume`` what is done
    comes from the store first.  Of a run that ends early the store has what was done.
    """
    if out is None or not is_uri(out):
        place = Place(None if out is None else Path(out).expanduser())
    elif str(out).startswith("file://"):
        place = Place(_here(str(out)))
    else:
        with TemporaryDirectory(prefix="xaitools-", ignore_cleanup_errors=True) as name, _mirrored(opened(str(out)), Path(name)) as mirror:
            mirror.sketch()
            try:
                allowed(mirror.folder)
            except PlanError as error:
                raise PlanError(str(error).replace(str(mirror.folder), mirror.store.uri)) from None
            if resume:
                mirror.bring()
            yield mirror
        return
    if place.folder is not None:
        allowed(place.folder)
    yield place


def _here(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise PlanError(f"{uri}: names another machine, {parts.netloc!r}; write file:///FOLDER, or the folder itself")
    return Path(unquote(parts.path))


@contextmanager
def _mirrored(store: Store, folder: Path) -> Iterator[Mirror]:
    mirror = Mirror(store, folder)
    try:
        yield mirror
    except StoreError:
        raise
    except BaseException:  # also Ctrl-C
        with suppress(StoreError):
            mirror.push()
        raise
    mirror.push()
