"""Long work: what is on disk is the state, whoever looks, and a process never outlives what was asked of it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jobs
import pytest

from xaitools.cli.progress import ProgressFile
from xaitools.errors import XaiError
from xaitools.locations import RUNS

SLEEPER = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); time.sleep(60)"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(RUNS, str(tmp_path / "runs"))
    monkeypatch.setattr(jobs, "COMMAND", (sys.executable, "-c", SLEEPER))
    monkeypatch.setattr(jobs, "AT_ONCE", 1)
    yield tmp_path / "runs"
    for each in jobs.jobs():
        jobs.cancel(each.id)
    for child in jobs._children:
        child.wait(10)


def asked(n: int = 1, kind: str = "probe") -> str:
    return jobs.ask(kind, ["m"], "scenes:test", ["--limit", str(n)], "")


def state(id: str) -> str:
    return jobs.job(id).state


def process(runs: Path, id: str) -> int:
    return json.loads((runs / id / "state.json").read_text())["pid"]


def alive(group: int) -> bool:
    """Whether any process of the group runs; those that ended and nobody asked for do not count."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False


def test_the_same_question_is_the_same_job_and_others_wait_their_turn(runs: Path) -> None:
    first, second, again = asked(1), asked(2), asked(1)
    assert first == again != second and jobs.ID.fullmatch(first)
    assert (state(first), state(second)) == ("running", "waiting")
    assert [each.id for each in jobs.jobs()] == [second, first] and jobs.jobs("audit") == []
    jobs.cancel(first)
    assert (state(first), state(second)) == ("cancelled", "running")


def test_cancel_ends_every_process_of_the_job(runs: Path) -> None:
    id = asked()
    group = process(runs, id)
    time.sleep(0.3)
    assert alive(group) and group != os.getpgrp()
    jobs.cancel(id)
    assert state(id) == "cancelled" and not alive(group)
    jobs.go_on(id)
    assert state(id) == "running" and process(runs, id) != group


def test_a_waiting_job_is_cancelled_without_ever_starting(runs: Path) -> None:
    first, second = asked(1), asked(2)
    jobs.cancel(second)
    assert (state(first), state(second)) == ("running", "cancelled") and not (runs / second / "log.txt").exists()


def test_what_was_killed_is_broken_off_and_goes_on(runs: Path) -> None:
    id = asked()
    os.killpg(process(runs, id), signal.SIGKILL)
    jobs._wait_for(runs / id)
    assert state(id) == "broken off"
    assert asked() == id and state(id) == "running"  # asked again, it goes on


def test_a_process_of_another_that_has_the_number_is_left_alone(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    id = asked()
    os.killpg(process(runs, id), signal.SIGKILL)
    jobs._wait_for(runs / id)
    monkeypatch.setattr(jobs, "_kill", lambda pid, sign: pytest.fail("killed what is not its own"))
    jobs.cancel(id)
    assert state(id) == "cancelled"


@pytest.mark.parametrize("id", ["", "../x", "probe-0123456789ab/..", "probe-0123456789AB", "run-0123456789ab"])
def test_a_name_never_leads_out_of_the_folder(runs: Path, id: str) -> None:
    for call in (jobs.job, jobs.cancel, jobs.go_on):
        with pytest.raises(XaiError, match="no name of a job"):
            call(id)


def test_damaged_files_spoil_no_other_job(runs: Path) -> None:
    good = asked()
    for name, content in {"probe-000000000000": "{", "probe-000000000001": "[]", "audit-000000000002": '{"kind": 1}'}.items():
        (runs / name).mkdir()
        (runs / name / "job.json").write_text(content)
    (runs / "probe-000000000003").symlink_to(runs / good)
    assert [each.id for each in jobs.jobs()] == [good]
    (runs / good / "progress.json").write_text('{"done": 3, "total": 9, "rate": 2.0}')
    assert (jobs.job(good).done, jobs.job(good).total, jobs.job(good).to_go) == (3, 9, 3.0)


def test_a_refusal_is_kept_in_one_line(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "COMMAND", (sys.executable, jobs.__file__))
    id = jobs.ask("probe", ["m"], "voc:../../..#test", [], "")
    jobs._wait_for(runs / id)
    for _ in range(400):
        if state(id) != "running":
            break
        time.sleep(0.05)
    assert state(id) == "failed" and "no such folder in the data folder" in jobs.job(id).line


def test_words_of_a_user_are_no_options() -> None:
    line = jobs.words("probe", ["a", "b"], "--out=x", ["--limit", "3"], "out")
    assert line == ["probe", "--model", "a", "--model", "b", "--limit", "3", "--out", "out", "--", "--out=x"]


def test_progress_is_written_seldom_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, written = iter([0.0, 0.1, 0.6, 0.7, 1.0]), []
    monkeypatch.setattr("xaitools.cli.progress.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("xaitools.cli.progress.write_json", lambda path, value: written.append(value))
    call = ProgressFile(tmp_path / "progress.json")
    for done in (1, 2, 3, 4, 5):
        call(done, 5)
    assert [each["done"] for each in written] == [1, 3, 5]
    assert written[0]["rate"] is None and written[1]["rate"] == pytest.approx(2 / 0.6) and written[2]["rate"] == pytest.approx(4.0)
