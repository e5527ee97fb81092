"""What a long sweep has found so far, in a file from which the same question goes on after Ctrl-C or a kill."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..files import UNFINISHED, canonical, write_bytes

PAUSE = 5.0
"""Seconds between two writings, and what a sweep must last to be written at all, unless it is broken off."""

SHARE = 20
"""The pause is at least so many times what the last writing took."""


@dataclass(eq=False)
class Kept:
    """Tensors in ``folder``, in a file named after the question that they belong to.

    With them goes ``clean``, what the unchanged image gives: where another model answers by the same name, nothing is read.
    """

    folder: Path
    name: str
    due: float = field(default_factory=lambda: time.monotonic() + PAUSE)

    @classmethod
    def of(cls, folder: Path, question: Mapping[str, Any], image: Tensor) -> Kept:
        told = canonical(question).encode() + image.contiguous().numpy().tobytes()
        return cls(folder, hashlib.sha256(told).hexdigest()[:16])

    def part(self, number: int) -> Kept:
        """That of one of several sweeps that answer the question."""
        return Kept(self.folder, f"{self.name}-{number}")

    @property
    def path(self) -> Path:
        return self.folder / f"{UNFINISHED}{self.name}.safetensors"

    def read(self, clean: Tensor, tensors: Mapping[str, Tensor]) -> None:
        """Fills ``tensors`` with what was kept, or leaves them as they are where nothing was that has their shapes and ``clean``."""
        try:
            found = load(self.path.read_bytes())
        except (OSError, SafetensorError):
            return
        wanted = {**tensors, "clean": clean}
        if {name: (each.shape, each.dtype) for name, each in found.items()} != {
            name: (each.shape, each.dtype) for name, each in wanted.items()
        } or not torch.equal(found["clean"], clean):
            return
        for name, each in tensors.items():
            each.copy_(found[name])

    def write(self, clean: Tensor, tensors: Mapping[str, Tensor], *, now: bool = False) -> None:
        """Writes where that is due, or ``now``.  A disk that is full stops no sweep: what it finds is still to be had."""
        start = time.monotonic()
        if not now and start < self.due:
            return
        with suppress(OSError):
            write_bytes(self.path, save({"clean": clean.contiguous(), **{name: each.contiguous() for name, each in tensors.items()}}))
        end = time.monotonic()
        self.due = end + max(PAUSE, SHARE * (end - start))


@contextmanager
def keeping(kept: Kept | None, clean: Tensor, tensors: Mapping[str, Tensor]) -> Iterator[Callable[[], None]]:
    """A sweep that fills ``tensors``, first with what was kept of them; it calls what it is given after every batch.

    That writes them where it is due, and they are written when the sweep is broken off.
    """
    if kept is None:
        yield lambda: None
        return
    kept.read(clean, tensors)
    try:
        yield lambda: kept.write(clean, tensors)
    except BaseException:
        kept.write(clean, tensors, now=True)
        raise


def unfinished(folders: Sequence[Path]) -> list[Path]:
    """What sweeps have kept there."""
    return [path for folder in folders for path in folder.glob(f"{UNFINISHED}*.safetensors")]


def clear(folders: Sequence[Path]) -> None:
    """Removes what sweeps have kept: the whole is done."""
    for path in unfinished(folders):
        path.unlink(missing_ok=True)
