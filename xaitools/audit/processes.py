"""A crew of processes of this machine, each with a model of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from .clock import Clock
from .engine import Crew, Died, Hand, Payload, Station, Task

PATIENCE = 5.0
"""Seconds that a process has to end by itself."""


class Processes(Crew):
    def __init__(self, payload: Payload, count: int) -> None:
        super().__init__(count)
        self._payload = payload

    def hire(self) -> Hand:
        return _Process(self._payload)

    def ready(self, hands: Sequence[Hand]) -> Sequence[Hand]:
        by_pipe = {hand.pipe: hand for hand in hands if isinstance(hand, _Process)}
        return [by_pipe[pipe] for pipe in wait(list(by_pipe))]  # type: ignore[index]


class _Process(Hand):
    def __init__(self, payload: Payload) -> None:
        super().__init__()
        context = multiprocessing.get_context("spawn")  # a fork of a process that has used threads may hang
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, payload), daemon=True)
        self.process.start()
        theirs.close()  # so that its end is seen here

    def send(self, task: Task) -> None:
        with suppress(OSError):  # it has died, which shows when an answer is awaited
            self.pipe.send(task)

    def receive(self) -> tuple[Any, Clock] | Exception:
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.stop()
            code = self.process.exitcode
            raise Died(f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with status {code}") from None

    def stop(self) -> None:
        self.pipe.close()  # where it waits, it ends
        if self.held:
            self.process.terminate()
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def serve(pipe: Connection, payload: Payload) -> None:
    """What a process does: answers tasks until nobody is there any more, also where that one was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the one who hired decides
    os.dup2(2, 1)  # standard output belongs to the result
    station = Station(payload)
    while True:
        try:
            pipe.send(station.answer(pipe.recv()))
        except (EOFError, OSError):
            return
