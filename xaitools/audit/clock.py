"""Where the time of a run goes: into changing images, asking the model, and the rest.  No part of a report, which must not depend on it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Clock:
    """Seconds by probe and by what was done, ``change`` or ``predict``, and how many images were predicted.

    What a probe asks the model while it changes an image (see ``Context.decisions``, attacks) counts as changing it.

    >>> clock = Clock()
    >>> with clock.measured("fog", "predict", images=4): pass
    >>> clock.images
    4
    """

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = {}
        self.images = 0

    @contextmanager
    def measured(self, probe: str, what: str, images: int = 0) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.images += images
            row = self.seconds.setdefault(probe, {"change": 0.0, "predict": 0.0})
            row[what] += time.perf_counter() - start

    def add(self, other: Clock) -> None:
        """What another process spent its time on."""
        self.images += other.images
        for probe, spent in other.seconds.items():
            row = self.seconds.setdefault(probe, dict.fromkeys(spent, 0.0))
            for what, seconds in spent.items():
                row[what] += seconds

    def facts(self, seconds: float, workers: int = 1) -> dict[str, Any]:
        """For run.json, of a run that took ``seconds``: images, images_per_second, model_share (of the time of all ``workers``), by_probe;
        rounded."""
        asked = sum(row["predict"] for row in self.seconds.values())
        return {
            "images": self.images,
            "images_per_second": round(self.images / max(seconds, 1e-9), 2),
            "model_share": round(asked / max(seconds * workers, 1e-9), 4),
            "by_probe": {name: {what: round(each, 3) for what, each in row.items()} for name, row in self.seconds.items()},
        }
