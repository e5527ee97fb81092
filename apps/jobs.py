"""Long work outside the page: a probe or an audit in a process of its own, all of whose state is on disk.

A job is a folder of the runs folder, named after what was asked, so that the same question is the same job:

  job.json       what was asked
  state.json     "state" (waiting, running, ended, failed, cancelled), "pid", "started", "ended", "line" that says why it failed
  lock           held by the process as long as it lives, however it ends; what is "running" and not held was broken off
  progress.json  of ``xaitools --progress``
  log.txt        its standard error
  out/           the folder of the run

So a reload, another tab or a server that starts again sees the same, and ``xaitools`` goes on where it was (``--resume``).
``python jobs.py FOLDER`` is the process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xaitools.errors import DataError, XaiError
from xaitools.files import canonical, read_json, write_json
from xaitools.locations import runs_root

AT_ONCE = max(1, (os.cpu_count() or 2) // 2)
"""Jobs that run at the same time; others wait, so that the tabs stay quick."""

MOST = 200
"""Jobs that are listed, the newest."""

NICE = 10
PATIENCE = 5.0
"""Seconds that a cancelled process has to end by itself."""

ID = re.compile(r"(probe|audit)-[0-9a-f]{12}")
WAITING, RUNNING, ENDED, FAILED, CANCELLED, BROKEN = "waiting", "running", "ended", "failed", "cancelled", "broken off"
STOPPED = (FAILED, CANCELLED, BROKEN)
"""States from which a job can go on."""

COMMAND = (sys.executable, str(Path(__file__).resolve()))
_children: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Job:
    """One job as it is now; ``rate`` is steps a second, None where it is not known."""

    folder: Path
    kind: str
    models: tuple[str, ...]
    dataset: str
    options: tuple[str, ...]
    asked: float
    state: str
    line: str
    done: int
    total: int
    rate: float | None

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def to_go(self) -> float | None:
        """Seconds."""
        return (self.total - self.done) / self.rate if self.rate else None


def words(kind: str, models: Sequence[str], dataset: str, options: Sequence[str], out: str) -> list[str]:
    """The command line that does the job; ``dataset`` as the command line takes it."""
    return [kind, *(word for name in models for word in ("--model", name)), *options, "--out", out, "--", dataset]


def ask(kind: str, models: Sequence[str], dataset: str, options: Sequence[str], version: str) -> str:
    """The id of the job, which waits or runs from now on unless it is done; ``version`` is all else that its result depends on."""
    asked = {"kind": kind, "models": list(models), "dataset": dataset, "options": list(options), "version": version}
    folder = runs_root() / f"{kind}-{hashlib.sha256(canonical(asked).encode()).hexdigest()[:12]}"
    with _alone():
        if not (folder / "job.json").is_file():
            write_json(folder / "job.json", asked | {"asked": time.time()})
        if not (folder / "state.json").is_file():
            _note(folder, WAITING)
    if job(folder.name).state in STOPPED:
        go_on(folder.name)
    advance()
    return folder.name


def go_on(id: str) -> None:
    """A job that was stopped waits again."""
    with _alone():
        if job(id).state in STOPPED:
            _note(_folder(id), WAITING)
    advance()


def cancel(id: str) -> None:
    """Ends the job with all processes that it started; what was done stays."""
    folder = _folder(id)
    with _alone():
        found = job(id)
        if found.state == RUNNING:
            pid = int(_read(folder / "state.json").get("pid") or 0)
            for sign in (signal.SIGTERM, signal.SIGKILL):
                if pid > 1 and _held(folder):  # whoever holds the lock is the process that we started, so its number is its own
                    _kill(pid, sign)
                    _wait_for(folder)
        if job(id).state in (WAITING, BROKEN):
            _note(folder, CANCELLED)
    advance()


def jobs(kind: str | None = None) -> list[Job]:
    """The newest first."""
    _children[:] = [child for child in _children if child.poll() is None]
    root = runs_root()
    ids = [path.name for path in root.iterdir() if ID.fullmatch(path.name) and not path.is_symlink()] if root.is_dir() else []
    found = [each for id in ids if kind in (None, id.partition("-")[0]) and (each := _job(root / id)) is not None]
    return sorted(found, key=lambda each: -each.asked)[:MOST]


def job(id: str) -> Job:
    """Raises XaiError where there is none."""
    found = _job(_folder(id))
    if found is None:
        raise XaiError(f"job {id!r} is not in the runs folder; start it again")
    return found


def advance() -> None:
    """Starts jobs that wait, the oldest first, as many as may run."""
    if not runs_root().is_dir():
        return
    with _alone():
        every = jobs()
        free = AT_ONCE - sum(each.state == RUNNING for each in every)
        waiting = [each for each in every if each.state == WAITING]
        for each in waiting[::-1][: max(0, free)]:
            _start(each)


def _job(folder: Path) -> Job | None:
    asked, state, progress = (_read(folder / name) for name in ("job.json", "state.json", "progress.json"))
    try:
        known = str(state.get("state", WAITING))
        if known == RUNNING and not _held(folder):
            known = str(_read(folder / "state.json").get("state"))  # it may have ended while we looked
            known = BROKEN if known == RUNNING else known
        rate = progress.get("rate")
        return Job(
            folder, str(asked["kind"]), tuple(map(str, asked["models"])), str(asked["dataset"]), tuple(map(str, asked["options"])),
            float(asked["asked"]), known, str(state.get("line", "")), int(progress.get("done", 0)), int(progress.get("total", 0)),
            None if rate is None else float(rate),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        return None


def _start(each: Job) -> None:
    folder = each.folder
    with (folder / "lock").open("w") as lock, (folder / "log.txt").open("wb") as log:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / "progress.json").unlink(missing_ok=True)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        # the open file carries the lock over to the process, and our own handle is closed below
        child = subprocess.Popen(
            [*COMMAND, str(folder)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True,
            pass_fds=(lock.fileno(),), env=os.environ | threads,
        )  # fmt: skip
        _children.append(child)
        _note(folder, RUNNING, pid=child.pid, started=time.time())


def _note(folder: Path, state: str, **facts: Any) -> None:
    write_json(folder / "state.json", {"state": state, **facts})


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except DataError:
        return {}
    return found if isinstance(found, dict) else {}


def _folder(id: str) -> Path:
    if not ID.fullmatch(id):
        raise XaiError(f"job {id!r}: no name of a job; expected one like probe-0123456789ab")
    return runs_root() / id


def _held(folder: Path) -> bool:
    """Whether the process of this job lives."""
    try:
        with (folder / "lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _kill(pid: int, sign: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, sign)


def _wait_for(folder: Path) -> None:
    end = time.monotonic() + PATIENCE
    while _held(folder) and time.monotonic() < end:
        time.sleep(0.05)


@contextmanager
def _alone() -> Iterator[None]:
    """One tab, server or job at a time moves jobs from state to state."""
    root = runs_root()
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(folder: Path) -> None:
    """The process of a job."""
    os.nice(NICE)
    from sources import located

    from xaitools.cli import main

    asked, status = _read(folder / "job.json"), 1
    try:
        arguments = words(asked["kind"], asked["models"], located(asked["dataset"]), asked["options"], str(folder / "out"))
        main([*arguments[:1], "--resume", "--workers", "1", "--progress", str(folder / "progress.json"), *arguments[1:]])
    except SystemExit as end:
        status = int(end.code or 0)
    except XaiError as error:
        print(f"xaitools: {error}", file=sys.stderr)
    except Exception as error:  # our own mistake: the trace is for the log, the last line for the page
        import traceback

        traceback.print_exc()
        print(f"xaitools: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
    sys.stderr.flush()
    lines = (folder / "log.txt").read_text(errors="replace")[-4000:].strip().splitlines()
    line = lines[-1].removeprefix("xaitools: ")[:600] if status and lines else ""
    with _alone():
        _note(folder, FAILED if status else ENDED, ended=time.time(), line=line)
    advance()


if __name__ == "__main__":
    run(Path(sys.argv[1]))
