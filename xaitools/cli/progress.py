"""How far a command is, in a file that another program may read at any time."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

from ..files import write_json

EVERY = 0.5
"""Seconds between two writings at least: who looks more often sees no more."""

WINDOW = 30.0
"""Seconds over which the rate is taken: a resumed run passes what was done before in no time."""


class ProgressFile:
    """Called with (steps done, steps in all), keeps {"done", "total", "rate"} in ``path``; ``rate`` is steps a second, null at first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written = float("-inf")
        self._marks: deque[tuple[float, int]] = deque()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        self._marks.append((now, done))
        while self._marks[0][0] < now - WINDOW and len(self._marks) > 2:
            self._marks.popleft()
        if now - self._written < EVERY and done < total:
            return
        start, before = self._marks[0]
        rate = (done - before) / (now - start) if done > before and now > start else None
        write_json(self.path, {"done": done, "total": total, "rate": rate})
        self._written = now
