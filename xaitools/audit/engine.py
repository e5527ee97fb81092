"""Who does the work of a run: this process, several processes of this machine, or actors on Ray; the report is the same for all.

What is to be done are tasks, values that can be sent.  Another process makes model, dataset and plan by itself, from the words or
objects that this one had (``Blueprint``), and refuses to work if its plan is not the same.  Batches and threads belong to the plan, so
no number depends on who does what.  A worker that dies is replaced, and what it had in hand is done again.
"""

from __future__ import annotations

import os
import pickle
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch

from ..adapters import Model
from ..data import Dataset
from ..errors import PlanError, XaiError, unknown
from .clock import Clock
from .folder import differences
from .plan import Piece, Plan, make_plan
from .records import Folder, Memory, Row
from .work import Worker

ENGINES = ("local", "ray")

AHEAD = 2
"""Tasks that a worker holds, so that it need not wait for the next."""

SHARE = 4
"""A chunk of images is read by several workers where else fewer than so many bundles came to each."""

DEATHS = 3
"""Workers that may die at the same task before the run gives up."""

WORTH = 1000
"""Images to predict for which a further process is worth its start, which costs as much as a few hundred of a small model."""

MOST = 8
"""Processes that nobody has asked for by number: each has a model of its own in memory."""

LONG = ("items", "clusters", "groups")
"""Facts of a plan that are not sent along to be compared; the identity covers them."""


@dataclass(frozen=True)
class Task:
    """piece  where its rows are kept, or a name for it where they are kept elsewhere
    items  ids that it is about
    work   what is to be done, with the worker that does it; it can be pickled
    rows   whether rows of ``piece`` come of it, which a worker that sees the folder writes itself
    """

    piece: Piece
    items: tuple[str, ...]
    work: Callable[[Worker], Any]
    rows: bool = True


@dataclass(frozen=True)
class Given:
    """A model and a dataset as they are; they reach another process as a pickle."""

    model: Model
    dataset: Dataset

    def __call__(self) -> tuple[Model, Dataset]:
        return self.model, self.dataset


@dataclass(frozen=True)
class Blueprint:
    """All that a plan is made of.  ``origin`` gives model and dataset, ``options`` are those of ``make_plan``."""

    origin: Callable[[], tuple[Model, Dataset]]
    probes: Sequence[str] | None
    options: Mapping[str, Any]

    def made(self) -> tuple[Plan, Any]:
        return make_plan(*self.origin(), self.probes, **self.options)


Payload = tuple[Blueprint, int, Mapping[str, Any], str, Path | None]
"""The blueprint, and of the plan that must come of it threads, facts and identity; the folder, None where a worker does not see it."""


class Station:
    """What another process holds: the model, the images, and the folder where it leaves what it has done.

    ``answer`` never raises, for what goes wrong has to be sent.
    """

    def __init__(self, payload: Payload) -> None:
        self._failed: Exception | None = None
        try:
            self._begin(*payload)
        except Exception as error:
            self._failed = error

    def _begin(self, blueprint: Blueprint, threads: int, facts: Mapping[str, Any], identity: str, out: Path | None) -> None:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        plan, context = blueprint.made()
        if plan.identity != identity:
            short = {name: each for name, each in plan.facts.items() if name not in LONG}
            what = "; ".join(list(differences(facts, short))[:3]) or "its items, clusters or groups"
            raise PlanError(f"a worker came to another plan, which differs in {what}; give every machine the same code, data and model")
        self._worker, self._store = Worker(plan, context), None if out is None else Folder(out, identity)

    def answer(self, task: Task) -> tuple[Any, Clock] | Exception:
        """What came of it, None where that is in the folder now, and where the time went; or why it failed."""
        try:
            if self._failed is not None:
                raise self._failed
            self._worker.clock = Clock()
            found = task.work(self._worker)
            if task.rows and self._store is not None:
                self._store.write(task.piece, found)
                found = None
            return found, self._worker.clock
        except Exception as error:
            return _sendable(error)


def _sendable(error: Exception) -> Exception:
    """Ours are made of one text; of what others raise the text alone is sure to arrive."""
    return error if isinstance(error, XaiError) else RuntimeError(f"{type(error).__name__}: {error}")


class Died(Exception):
    """A worker has ended before it answered; says how."""


class Hand(ABC):
    """One worker, seen from here; ``held`` are the tasks that it has, ``bundle`` those that are meant for it."""

    def __init__(self) -> None:
        self.held: deque[Task] = deque()
        self.bundle: deque[Task] = deque()

    @abstractmethod
    def send(self, task: Task) -> None: ...

    @abstractmethod
    def receive(self) -> tuple[Any, Clock] | Exception:
        """The answer to the first task that it holds.  Raises Died."""

    @abstractmethod
    def stop(self) -> None: ...


class Crew(ABC):
    """Workers that live as long as the run, hired when there is something to do."""

    def __init__(self, count: int) -> None:
        self.count, self.clock = count, Clock()
        self._hands: list[Hand] = []

    @abstractmethod
    def hire(self) -> Hand: ...

    @abstractmethod
    def ready(self, hands: Sequence[Hand]) -> Sequence[Hand]:
        """Those who have answered, or died; waits for the first."""

    def close(self) -> None:
        for hand in self._hands:
            hand.stop()
        self._hands.clear()

    def done(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Each task as soon as it is done, with what came of it: None where that lies in the folder."""
        bundles, deaths = bundled(tasks, self.count), Counter[str]()
        while True:
            while len(self._hands) < min(self.count, len(bundles) + sum(1 for hand in self._hands if hand.held)):
                self._hands.append(self.hire())
            for hand in self._hands:
                while len(hand.held) < AHEAD and (hand.bundle or bundles):
                    hand.bundle = hand.bundle or bundles.popleft()
                    hand.held.append(hand.bundle.popleft())
                    hand.send(hand.held[-1])
            busy = [hand for hand in self._hands if hand.held]
            if not busy:
                return
            for hand in self.ready(busy):
                try:
                    answer = hand.receive()
                except Died as death:
                    bundles.appendleft(self._lost(hand, str(death), deaths))
                    continue
                if isinstance(answer, Exception):
                    raise answer
                found, clock = answer
                self.clock.add(clock)
                yield hand.held.popleft(), found

    def _lost(self, hand: Hand, how: str, deaths: Counter[str]) -> deque[Task]:
        """What a dead worker had to do.  Raises PlanError where others have died of the same."""
        self._hands.remove(hand)
        lost = deque([*hand.held, *hand.bundle])
        name = lost[0].piece.id
        deaths[name] += 1
        if deaths[name] >= DEATHS:
            raise PlanError(
                f"{DEATHS} workers died at {name}, the last {how}; what is done stays: give them more memory or take fewer --workers, and "
                f"go on with --resume (a script that asks for workers does so below if __name__ == '__main__')"
            )
        return lost


def bundled(tasks: Sequence[Task], count: int) -> deque[deque[Task]]:
    """``tasks`` in order, those of one chunk together, so that its images are read by few."""
    most = max(1, len(tasks) // (SHARE * count))
    bundles: deque[deque[Task]] = deque()
    for task in tasks:
        last = bundles[-1] if bundles else deque[Task]()
        if last and last[-1].piece.number == task.piece.number and len(last) < most:
            last.append(task)
        else:
            bundles.append(deque([task]))
    return bundles


def carried(
    store: Folder | Memory, tasks: Sequence[Task], here: Callable[[Task], list[Row]], crew: Crew | None = None,
    told: Callable[[int], None] | None = None,
) -> Iterator[list[Row]]:  # fmt: skip
    """The rows of each task in turn, once all are done: those that ``store`` lacks by ``crew``, or without one by ``here``.

    While they are done none are held, so that a run needs no more memory for more images; ``told`` hears how many are done.
    """
    missing = [task for task in tasks if store.read(task.piece, task.items) is None]
    results: Iterable[tuple[Task, Any]] = ((task, here(task)) for task in missing) if crew is None else crew.done(missing)
    before = len(tasks) - len(missing)
    if told is not None and before:
        told(before)
    for count, (task, rows) in enumerate(results, before + 1):
        if rows is not None:
            store.write(task.piece, rows)
        if told is not None:
            told(count)
    for task in tasks:
        found = store.read(task.piece, task.items)
        if found is None:
            raise PlanError(f"piece {task.piece.id} was done and is gone; leave the run's folder alone, and go on with --resume")
        yield found


@contextmanager
def hired(
    blueprint: Blueprint, plan: Plan, out: Path | None, *, engine: str = "local", workers: int = 1, address: str | None = None
) -> Iterator[Crew | None]:
    """The crew that carries out ``plan``; None where this process does it alone.  Inside, torch has the plan's threads.

    ``workers`` 0 stands for as many as are worth it (``worth``).
    Raises XaiError for an unknown engine, for model or dataset that cannot be sent, and where Ray is missing or cannot be reached.
    """
    if engine not in ENGINES:
        raise XaiError(unknown("engine", engine, ENGINES))
    if workers < 0:
        raise XaiError(f"workers={workers}: expected a number of processes, or 0 for as many as are worth it")
    if address is not None and engine != "ray":
        raise XaiError(f"address {address!r}: only --engine ray has one")
    workers = workers or worth(plan)
    threads, before = int(plan.facts["threads"]), torch.get_num_threads()
    torch.set_num_threads(threads)
    crew: Crew | None = None
    try:
        if engine == "ray":
            from .on_ray import Actors

            # the nodes of a cluster need not see the folder
            crew = Actors(_payload(blueprint, plan, None, workers), workers, plan.facts, address)
        elif workers > 1:
            from .processes import Processes

            crew = Processes(_payload(blueprint, plan, out, workers), workers)
        yield crew
    finally:
        if crew is not None:
            crew.close()
        torch.set_num_threads(before)


def worth(plan: Plan) -> int:
    """One process for each core that the threads of its model leave, but none for a small run, and one alone for a GPU."""
    images = sum(len(plan.members[each.probe]) for each in plan.conditions)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    on_cpu = plan.facts["model"]["device"] == "cpu"
    return max(1, min(cores // int(plan.facts["threads"]), images // WORTH, MOST)) if on_cpu else 1


def _payload(blueprint: Blueprint, plan: Plan, out: Path | None, workers: int) -> Payload:
    facts = {name: each for name, each in plan.facts.items() if name not in LONG}
    payload = (blueprint, int(plan.facts["threads"]), facts, plan.identity, out)
    try:
        pickle.dumps(payload)  # only to see whether it can be sent
        return payload
    except Exception as error:  # pickling what somebody else has written may raise anything
        why = " ".join(str(error).split())[:160]
        raise XaiError(
            f"workers={workers}: the model or the dataset cannot be sent to another process ({why}); take workers=1, or name both as the "
            f"command line does"
        ) from None
