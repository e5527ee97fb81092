"""Runs whose folder is in an object store: killed anywhere, gone on with elsewhere, the same report; nothing there is overwritten."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from tests.audit.test_engine import QUICK
from tests.audit.test_resume import ROOT, run, same_reports
from tests.audit.test_shift import Tagged, corner
from tests.probes.toys import Shapes, reader
from tests.store_server import Server, served
from xaitools.audit import probe_models
from xaitools.audit.examine import audit
from xaitools.audit.remote import workplace
from xaitools.cli import main
from xaitools.errors import PlanError, StoreError
from xaitools.report import save
from xaitools.report.html import save_probe, write_report
from xaitools.stores import Store, asking

OUT = "s3://bucket/prefix"
FEW = {"probes": ["fog"], "relevance": 1}


class Shelf(Store):
    """A store in a folder, which counts what it is asked and fails at a write."""

    def __init__(self, root: Path, uri: str) -> None:
        super().__init__(SubTreeFileSystem(str(root), LocalFileSystem()), uri.partition("://")[2], uri)
        self.place, self.left, self.reads, self.writes = root / self.root, -1, Counter[str](), Counter[str]()

    def read(self, name: str, limit: int) -> bytes:
        self.reads[name] += 1
        return super().read(name, limit)

    def write(self, name: str, data: bytes) -> None:
        with asking(f"{self.uri}/{name}", "cannot be written"):
            if self.left == 0:
                raise OSError("AWS Error NETWORK_CONNECTION during PutObject operation: curlCode: 7, Could not connect to server")
        self.left -= 1
        self.writes[name] += 1
        super().write(name, data)

    @property
    def content(self) -> dict[str, bytes]:
        return {path.relative_to(self.place).as_posix(): path.read_bytes() for path in self.place.rglob("*") if path.is_file()}


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Shelf:
    """What ``OUT`` names; files that runs make elsewhere go to ``tmp_path / "here"``."""
    (tmp_path / "here").mkdir()
    (tmp_path / "store").mkdir()
    found = Shelf(tmp_path / "store", OUT)
    monkeypatch.setattr("xaitools.audit.remote.opened", lambda uri: {OUT: found}[uri])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "here"))
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run in a folder that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    save_probe(run(out, **FEW), out)
    return out


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_store_gets_what_a_folder_would(shelf, whole, tmp_path):
    written = save(run(OUT, **FEW), OUT)
    assert set(shelf.content) == names(whole) and same_reports(shelf.place, whole)
    assert {f"{OUT}/{name}" for name in ("report.json", "report.html")} <= set(written) <= {f"{OUT}/{name}" for name in shelf.content}
    assert shelf.writes["run.json"] == 2 and {count for name, count in shelf.writes.items() if name != "run.json"} == {1}
    order = list(shelf.writes)
    assert order[0] == "run.json" and order[-1] == "report.json"
    assert not list((tmp_path / "here").iterdir())


def test_a_store_that_fails_in_the_middle_is_one_line_and_the_run_goes_on_elsewhere(shelf, whole, tmp_path):
    shelf.left = 8
    with pytest.raises(StoreError, match=r"s3://bucket/prefix/records/.*: cannot be written .*it does not answer.*go on with --resume"):
        run(OUT, **FEW)
    before = shelf.content
    assert len(before) == 8 and not list((tmp_path / "here").iterdir())
    shelf.left, shelf.writes = -1, Counter()
    save_probe(run(OUT, resume=True, **FEW), OUT)
    assert same_reports(shelf.place, whole) and set(shelf.content) == names(whole)
    pieces = {name for name in before if name.startswith("records/")}
    assert len(pieces) == 7 and not pieces & set(shelf.writes) and all(shelf.content[name] == before[name] for name in pieces)
    assert all(shelf.reads[name] == 1 for name in pieces)


def test_another_error_or_a_ctrl_c_leaves_in_the_store_what_is_done(shelf, monkeypatch):
    def stop(done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr("xaitools.audit.remote.SHARE", 10**9)  # it looks once, and then only at the end
    with pytest.raises(KeyboardInterrupt):
        run(OUT, progress=stop, **FEW)
    assert sum(name.startswith("records/") for name in shelf.content) == 6


def test_nothing_in_the_store_is_overwritten(shelf):
    run(OUT, probes=["fog"], relevance=0)
    before = shelf.content
    with pytest.raises(PlanError, match=f"--out {OUT}: holds this very run; go on with --resume"):
        run(OUT, probes=["fog"], relevance=0)
    shelf.reads.clear()
    with pytest.raises(PlanError, match=f"--out {OUT}: holds another run, which differs in .*seed: 0 -> 1"):
        run(OUT, probes=["fog"], relevance=0, seed=1, resume=True)
    assert set(shelf.reads) == {"run.json"}  # of another run nothing else is fetched
    with pytest.raises(PlanError, match=f"{OUT}: holds .* not of this run"):
        save_probe(run(None, probes=["fog"], relevance=0, seed=1), OUT)
    assert shelf.content == before
    for foreign in ("thesis.txt", "letters/thesis.txt"):
        shutil.rmtree(shelf.place)
        shelf.write(foreign, b"do not touch")
        top = foreign.partition("/")[0]
        for resume in (False, True):
            with pytest.raises(PlanError, match=f"--out {OUT}: holds '{top}' and no run of xaitools"):
                run(OUT, resume=resume)
        with pytest.raises(PlanError, match=top):
            save_probe(run(None, probes=["fog"], relevance=0), OUT)
        with pytest.raises(PlanError, match=top):
            probe_models([reader("object"), reader("background")], Shapes(), ["fog"], out=OUT)
        assert shelf.content == {foreign: b"do not touch"}


@pytest.mark.long
def test_several_models_have_a_folder_each_and_one_that_holds_something_else_is_left_alone(shelf, tmp_path):
    models, options = [reader("object"), reader("background")], {"probes": ["fog"], "relevance": 0}
    for out in (OUT, tmp_path / "folder"):
        write_report(probe_models(models, Shapes(), out=out, **options), out)
    assert set(shelf.content) == names(tmp_path / "folder")
    same = {name for name in shelf.content if not name.endswith("run.json")}
    assert all(shelf.content[name] == (tmp_path / "folder" / name).read_bytes() for name in same)
    first = next(name for name in sorted(shelf.content) if name.endswith("/run.json"))
    (shelf.place / first).unlink()
    before = shelf.content
    with pytest.raises(PlanError, match=f"--out {OUT}/{first.partition('/')[0]}: holds .* and no run of xaitools"):
        probe_models(models, Shapes(), out=OUT, resume=True, **options)
    assert shelf.content == before


def test_a_file_uri_is_the_folder_itself(tmp_path):
    asked: list[Path] = []
    with workplace(f"file://{tmp_path}/my%20run", asked.append) as place:
        assert asked == [place.folder] == [tmp_path / "my run"] and place.named(tmp_path) == tmp_path
    with (
        pytest.raises(PlanError, match="names another machine, 'server'; write file:///FOLDER"),
        workplace("file://server/runs", asked.append),
    ):
        pass


@pytest.mark.long
@pytest.mark.parametrize("writes", [1, 30, 45, 60, 75])
def test_an_audit_goes_on_from_the_store_wherever_that_failed(shelf, tmp_path, writes):
    data = Tagged(24)
    save_probe(audit(corner(), data, out=tmp_path / "folder", **QUICK), tmp_path / "folder")
    shelf.left = writes
    with pytest.raises(StoreError, match="go on with --resume"):
        audit(corner(), data, out=OUT, **QUICK)
    shelf.left = -1
    save_probe(audit(corner(), data, out=OUT, resume=True, **QUICK), OUT)
    assert set(shelf.content) == names(tmp_path / "folder")
    same = {name for name in shelf.content if name not in ("run.json", "counterfactual.jsonl")}
    assert all(shelf.content[name] == (tmp_path / "folder" / name).read_bytes() for name in same)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch, served() as found:
        for name, value in found.environment.items():
            patch.setenv(name, value)
        yield found


CHILD = """
import sys, time
from tests.audit.test_resume import run
from xaitools import errors, stores
from xaitools.report.html import save_probe
stores.REQUEST = stores.CONNECT = 1.0
try:
    out, resume = sys.argv[1], sys.argv[2] == "resume"
    save_probe(run(out, resume=resume, probes=["fog"], relevance=1, progress=None if resume else lambda done, total: time.sleep(0.2)), out)
except errors.PlanError as error:
    sys.exit(str(error))
"""


def started(out: str, here: Path, how: str = "anew") -> subprocess.Popen[str]:
    """A run by a machine of its own, as far as files go."""
    here.mkdir()
    environment = {**os.environ, "TMPDIR": str(here)}
    return subprocess.Popen([sys.executable, "-c", CHILD, out, how], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def until(store: Store, pieces: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while len(store.listed("records")) < pieces:
        assert process.poll() is None and time.monotonic() < deadline, "the run ended before it was disturbed"
        time.sleep(0.05)


def content(store: Store) -> dict[str, bytes]:
    return {name: store.read(name, 2**30) for name in store.listed()}


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said = process.communicate(timeout=240)[1]
    return process.returncode, said.strip()


@pytest.mark.long
def test_killed_on_one_machine_and_resumed_on_another_from_a_real_server(server, whole, tmp_path, capsys):
    store = server.bucket("killed", "s3://killed/team/run")
    process = started(store.uri, tmp_path / "one")
    until(store, 3, process)
    process.send_signal(signal.SIGKILL)
    assert ended(process) == (-signal.SIGKILL, "")
    left = content(store)
    assert "run.json" in left and "report.json" not in left
    for resume in ((), ("--resume",)):
        with pytest.raises(SystemExit) as over:
            main(["probe", "scenes:test?n=4", "--model", "unet-scenes", "--probes", "fog", "--out", store.uri, *resume])
        said = capsys.readouterr().err.strip()
        assert over.value.code == 2 and len(said.splitlines()) == 1
        assert f"--out {store.uri}: holds another run, which differs in model" in said
    with pytest.raises(PlanError, match=f"--out {store.uri}: holds this very run; go on with --resume"):
        run(store.uri, **FEW)
    assert content(store) == left
    assert ended(started(store.uri, tmp_path / "two", "resume")) == (0, "")
    assert not list((tmp_path / "two").glob("xaitools-*"))
    found = content(store)
    assert set(found) == names(whole) and json.loads(found["run.json"])["times"]["ended"]
    assert all(found[name] == (whole / name).read_bytes() for name in found if name != "run.json")
    assert all(found[name] == left[name] for name in left if name != "run.json")


@pytest.mark.long
def test_a_real_server_that_hangs_in_the_middle_ends_in_one_line_and_the_run_goes_on(server, whole, tmp_path):
    store = server.bucket("hangs", "s3://hangs/run")
    process = started(store.uri, tmp_path / "one")
    until(store, 3, process)
    server.process.send_signal(signal.SIGSTOP)
    try:
        status, said = ended(process)
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert status == 1 and len(said.splitlines()) == 1
    assert "it does not answer: check the network" in said and "go on with --resume" in said
    left = content(store)
    assert ended(started(store.uri, tmp_path / "two", "resume")) == (0, "")
    found = content(store)
    assert all(found[name] == (whole / name).read_bytes() for name in found if name != "run.json") and set(found) == names(whole)
    assert all(found[name] == left[name] for name in left if name != "run.json")
