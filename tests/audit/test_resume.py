"""Killed at any moment, gone on with, and the same report; another plan is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.probes.toys import Boxes, Shapes, reader
from xaitools.audit import make_plan, probe, probe_models
from xaitools.errors import PlanError
from xaitools.report.html import save_probe

OPTIONS = {"probes": ["background", "fog"], "batch_size": 4, "relevance": 2}
ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import sys, time
from tests.audit.test_resume import run
run(sys.argv[1], progress=lambda done, total: time.sleep(0.1))
"""


def run(out: str | Path, **options: object):
    return probe(reader("background"), Shapes(40), out=out, **{**OPTIONS, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    save_probe(run(out), out)
    return out


def same_reports(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in ("report.json", "report.html"))


def test_killed_in_the_middle_and_resumed_gives_the_same_bytes(whole, tmp_path):
    out = tmp_path / "run"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(out)], cwd=ROOT)
    deadline = time.monotonic() + 240
    while len(list(out.glob("records/*.parquet"))) < 3 and time.monotonic() < deadline:
        assert child.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    left = {path.name: path.stat().st_mtime_ns for path in out.glob("records/*.parquet")}
    assert 3 <= len(left) < len(list(whole.glob("records/*.parquet"))) and not (out / "report.json").exists()
    (out / "records" / ".000000-fog-3.parquet.99.draft").write_bytes(b"half")
    (out / ".run.json.99.draft").write_bytes(b"half")
    save_probe(run(out, resume=True), out)
    assert same_reports(out, whole)
    assert left.items() <= {path.name: path.stat().st_mtime_ns for path in out.glob("records/*.parquet")}.items()
    assert not list(out.rglob("*.draft"))


def test_a_finished_run_resumed_says_the_same_again(tmp_path):
    data = Shapes(8, masks=False, broken=(3,))
    first = probe(Boxes(), data, ["background", "texture"], out=tmp_path).report
    assert any("boxes stand for objects" in each for each in first["warnings"])
    assert probe(Boxes(), data, ["background", "texture"], out=tmp_path, resume=True).report == first


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    def full(self, *_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(PlanError, match="cannot be written .No space left on device."):
        run(tmp_path / "run")


def test_nothing_in_the_report_depends_on_folder_time_or_being_in_memory(whole, tmp_path):
    save_probe(run(None), tmp_path / "elsewhere")
    assert same_reports(tmp_path / "elsewhere", whole)
    report = (whole / "report.json").read_text() + (whole / "report.html").read_text()
    times = json.loads((whole / "run.json").read_text())["times"]
    assert not [text for text in (str(whole), times["started"], times["ended"]) if text in report]
    assert (tmp_path / "elsewhere" / "records" / "all.parquet").is_file()


@pytest.mark.parametrize("damage", ["truncated", *(pytest.param(each, marks=pytest.mark.long) for each in ("empty", "other plan"))])
def test_a_damaged_piece_is_done_again(whole, tmp_path, damage):
    out = tmp_path / "run"
    run(out)
    victim = sorted(out.glob("records/*.parquet"))[4]
    data = victim.read_bytes()
    replacement = {"truncated": data[: len(data) // 2], "empty": b""}.get(damage)
    if replacement is None:
        other = tmp_path / "other"
        run(other, seed=1)
        replacement = (other / "records" / victim.name).read_bytes()
    victim.write_bytes(replacement)
    save_probe(run(out, resume=True), out)
    assert same_reports(out, whole)
    assert victim.read_bytes() != replacement


def test_a_folder_is_never_overwritten(whole, tmp_path):
    with pytest.raises(PlanError, match="--resume"):
        run(whole)
    with pytest.raises(PlanError, match="seed: 0 -> 1"):
        run(whole, seed=1, resume=True)
    with pytest.raises(PlanError, match="probes.fog"):
        run(whole, probes=["background"], resume=True)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("do not touch")
    for attempt in (lambda: run(foreign), lambda: run(foreign, resume=True), lambda: save_probe(run(None), foreign)):
        with pytest.raises(PlanError, match="thesis.txt"):
            attempt()
    with pytest.raises(PlanError, match="a file stands there"):
        run(foreign / "thesis.txt")
    with pytest.raises(PlanError, match="thesis.txt"):
        probe_models([reader("object"), reader("background")], Shapes(), ["fog"], out=foreign)
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]


def test_run_json_tells_what_ran(whole):
    run_json = json.loads((whole / "run.json").read_text())
    assert {"plan", "versions", "seed", "times", "host", "identity"} <= set(run_json)
    assert run_json["plan"]["items"][0] == "shape-000" and run_json["times"]["ended"]


def test_any_change_of_the_plan_changes_its_identity():
    base = {"probes": ["pgd", "gap"], "severities": (3,), "batch_size": 8, "seed": 0, "limit": None, "params": None}

    def identity(model=None, data=None, **changed: object) -> str:
        return make_plan(model or reader("object"), data or Shapes(), **{**base, **changed})[0].identity

    changes = [
        {"probes": ["pgd"]}, {"severities": (3, 4)}, {"batch_size": 4}, {"seed": 1}, {"limit": 5},
        {"params": {"pgd": {"eps": 0.1}}}, {"params": {"pgd": {"steps": 3}}}, {"params": {"pgd": {"restarts": 2}}},
        {"params": {"pgd": {"subset": 3}}}, {"params": {"gap": {"by": "truth"}}}, {"params": {"gap": {"bootstraps": 500}}},
        {"data": Shapes(13)}, {"model": reader("background")},
    ]  # fmt: skip
    other = reader("object")
    other.module.gain.data += 1
    identities = [identity(), *(identity(**change) for change in changes), identity(model=other)]
    assert len(set(identities)) == len(identities)
    assert identity() == identities[0]
