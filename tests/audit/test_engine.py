"""The same bytes whoever does the work: one process, several of which one is killed, actors on Ray."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.audit.test_resume import OPTIONS, ROOT, run, same_reports
from tests.audit.test_shift import Tagged, corner
from tests.probes.toys import Shapes, reader
from xaitools.audit import probe
from xaitools.audit.engine import DEATHS, SHARE, Blueprint, Crew, Died, Given, Hand, Payload, Station, Task, _payload, bundled, hired, worth
from xaitools.audit.examine import audit
from xaitools.audit.plan import CLEAN, Piece, make_plan
from xaitools.audit.run import Changed
from xaitools.errors import PlanError, XaiError
from xaitools.report.html import save_probe

QUICK = {"robustness": False, "relevance": 4, "relevance_method": "gradient-x-input", "explained": 8, "batch_size": 4}
WORDS = ["scenes:test?n=24&shortcut=tag", "--model", "unet-scenes-tag", "--no-robustness", "--explained", "8", "--quiet"]


SLOPPY = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
"""Ray leaves files and processes to the garbage collector."""


def toys() -> tuple[object, Shapes]:
    return reader("background"), Shapes(40)


def test_so_many_processes_as_are_worth_their_start(monkeypatch):
    model, dataset = toys()
    plan, _ = make_plan(model, dataset, ["blur"], severities=(1, 3), threads=2)
    predicted = sum(len(plan.members[each.probe]) for each in plan.conditions)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(12)), raising=False)
    assert worth(plan) == 1  # a small run
    monkeypatch.setattr("xaitools.audit.engine.WORTH", predicted // 3)
    assert worth(plan) == 3
    monkeypatch.setattr("xaitools.audit.engine.WORTH", 1)
    assert worth(plan) == 6  # of 12 cores each model takes 2
    plan.facts["model"]["device"] = "cuda:0"
    assert worth(plan) == 1


class Lone(Hand):
    """A worker in this very process; it dies when it is sent one of ``fatal``, as often as that says."""

    def __init__(self, payload: Payload, fatal: dict[str, int]) -> None:
        super().__init__()
        self.station, self.fatal, self.asked = Station(payload), fatal, deque[Task]()

    def send(self, task: Task) -> None:
        assert pickle.dumps(task)  # it can be sent
        self.asked.append(task)

    def receive(self):
        task = self.asked.popleft()
        if self.fatal.get(task.piece.id, 0):
            self.fatal[task.piece.id] -= 1
            raise Died("by SIGKILL")
        return self.station.answer(task)

    def stop(self) -> None:
        pass


class Alone(Crew):
    """Workers of this process; they answer one after another, the last one first."""

    def __init__(self, payload: Payload, count: int, fatal: dict[str, int]) -> None:
        super().__init__(count)
        self.payload, self.fatal, self.hired = payload, fatal, 0

    def hire(self) -> Hand:
        self.hired += 1
        return Lone(self.payload, self.fatal)

    def ready(self, hands: Sequence[Hand]) -> Sequence[Hand]:
        return hands[-1:]


def staffed(count: int, fatal: dict[str, int]) -> tuple[Alone, list[Task]]:
    plan, _ = make_plan(*toys(), ["fog"], batch_size=4)
    crew = Alone(_payload(Blueprint(toys, ["fog"], {"batch_size": 4}), plan, None, count), count, fatal)
    names = plan.facts["items"]
    return crew, [Task(piece, tuple(names[index] for index in piece.items), Changed(piece)) for piece in plan.pieces()]


def test_two_processes_of_which_one_is_killed_give_the_same_bytes(tmp_path):
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if done > 2 and not killed:
            killed.append(multiprocessing.active_children()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    options = {"workers": 2, "origin": toys, "progress": kill}
    save_probe(run(None, probes=["fog"], relevance=1), tmp_path / "whole")
    save_probe(run(tmp_path / "run", probes=["fog"], relevance=1, **options), tmp_path / "run")
    assert killed and not multiprocessing.active_children()
    assert same_reports(tmp_path / "run", tmp_path / "whole")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["host"]["workers"] == 2
    assert torch.get_num_threads() == 1


def test_what_a_dead_worker_had_in_hand_is_done_by_the_next():
    crew, tasks = staffed(2, {})
    whole = {task.piece.id: [row.statistics["confusion"].tolist() for row in rows] for task, rows in crew.done(tasks)}
    fatal = {tasks[3].piece.id: DEATHS - 1, tasks[-1].piece.id: 1}
    crew, tasks = staffed(2, fatal)
    again = {task.piece.id: [row.statistics["confusion"].tolist() for row in rows] for task, rows in crew.done(tasks)}
    assert again == whole and list(whole) != [task.piece.id for task in tasks]
    assert crew.hired == 2 + DEATHS and not any(fatal.values()) and crew.clock.images == 5 * 40


def test_a_task_at_which_workers_always_die_ends_the_run_in_one_line():
    crew, tasks = staffed(2, {"000001-fog-3": DEATHS})
    with pytest.raises(PlanError, match=r"3 workers died at 000001-fog-3, the last by SIGKILL; what is done stays"):
        list(crew.done(tasks))


def test_a_worker_with_another_plan_refuses_to_work():
    plan, _ = make_plan(*toys(), ["fog"])
    station = Station(_payload(Blueprint(toys, ["fog"], {"seed": 1}), plan, None, 2))
    answer = station.answer(Task(Piece(0, CLEAN, (0,)), ("shape-000",), len))
    assert isinstance(answer, PlanError) and "differs in seed: 0 -> 1" in str(answer)


def test_what_cannot_be_sent_is_refused_in_one_line():
    model = reader("object")
    model.module.forward = lambda x: x
    with pytest.raises(XaiError, match=r"workers=2: the model or the dataset cannot be sent to another process"):
        probe(model, Shapes(4), ["fog"], workers=2)
    for options, words in (
        ({"engine": "rey"}, "did you mean ray"),
        ({"workers": -1}, "expected a number of processes"),
        ({"address": "auto"}, "only --engine ray"),
    ):
        with pytest.raises(XaiError, match=words):
            probe(reader("object"), Shapes(4), ["fog"], **options)


def test_bundles_keep_chunks_together_and_leave_no_worker_idle():
    tasks = [Task(Piece(number, CLEAN, (number,)), (), len) for number in range(4) for _ in range(10)]
    for count in (1, 2, 5, 50):
        bundles = bundled(tasks, count)
        assert [task for bundle in bundles for task in bundle] == tasks
        assert all(len({task.piece.number for task in bundle}) == 1 for bundle in bundles)
        assert len(bundles) >= min(len(tasks), SHARE * count)
    assert len(bundled(tasks, 1)) == 4


def test_threads_belong_to_the_plan_and_are_put_back():
    blueprint = Blueprint(Given(*toys()), ["fog"], {"threads": 2})
    plan, _ = blueprint.made()
    assert plan.identity != make_plan(*toys(), ["fog"])[0].identity
    with hired(blueprint, plan, None) as crew:
        assert crew is None and torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1
    with pytest.raises(XaiError, match="threads=0"):
        make_plan(*toys(), ["fog"], threads=0)


@pytest.mark.long
@pytest.mark.timeout(900)
@SLOPPY
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_an_audit_is_the_same_for_both_engines(tmp_path, engine):
    if engine == "ray":
        pytest.importorskip("ray")
    one = audit(corner(), Tagged(24), **QUICK)
    other = audit(corner(), Tagged(24), out=tmp_path / "run", engine=engine, workers=2, **QUICK)
    save_probe(one, tmp_path / "one")
    save_probe(other, tmp_path / "run")
    assert same_reports(tmp_path / "one", tmp_path / "run")
    assert one.report["spray"] and one.report["counterfactual"]["rows"]  # they were asked for, and not all empty


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_command_line_killed_and_gone_on_with_by_another_number_of_workers(tmp_path):
    def words(name: str, *more: str) -> list[str]:
        return [sys.executable, "-m", "xaitools", "audit", *WORDS, "--out", str(tmp_path / name), *more]

    subprocess.run(words("one"), cwd=ROOT, check=True, capture_output=True)
    child = subprocess.Popen(words("two", "--workers", "2"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    workers = killed_in_the_middle(child, tmp_path / "two", 20)
    assert len(workers) == 2
    deadline = time.monotonic() + 60  # orphans end by themselves
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    subprocess.run(words("two", "--workers", "3", "--resume"), cwd=ROOT, check=True, capture_output=True)
    assert same_reports(tmp_path / "one", tmp_path / "two")


def killed_in_the_middle(child: subprocess.Popen, out: Path, pieces: int) -> list[int]:
    """Kills a run once so many pieces are there; the ids of the workers that it had."""
    deadline = time.monotonic() + 240
    while len(list(out.glob("records/*.parquet"))) < pieces and time.monotonic() < deadline:
        assert child.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    found = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    workers = [int(pid) for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    return workers


def descendants(pid: int) -> list[int]:
    """All processes below one, as far as they are still there."""
    try:
        children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [each for child in children for each in (child, *descendants(child))]


@pytest.mark.long
@pytest.mark.timeout(900)
@SLOPPY
def test_a_ray_actor_killed_in_the_middle_costs_nothing(tmp_path):
    ray = pytest.importorskip("ray")
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if done > 3 and not killed:
            actors = [pid for pid in descendants(os.getpid()) if b"ray::Station" in Path(f"/proc/{pid}/cmdline").read_bytes()]
            killed.append(actors[0])
            os.kill(killed[0], signal.SIGKILL)

    save_probe(run(None, probes=["fog"], relevance=1), tmp_path / "whole")
    again = run(tmp_path / "run", probes=["fog"], relevance=1, engine="ray", workers=2, origin=toys, progress=kill)
    save_probe(again, tmp_path / "run")
    assert killed and not ray.is_initialized()
    assert same_reports(tmp_path / "run", tmp_path / "whole")


def test_ray_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(XaiError, match=r"ray is not installed; pip install 'xaitools\[ray\]', or take --engine local"):
        run(None, engine="ray", **{name: each for name, each in OPTIONS.items() if name != "probes"})
