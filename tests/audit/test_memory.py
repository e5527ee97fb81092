"""Memory belongs to the batch, not to the dataset."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from xaitools.audit import probe
from xaitools.audit.plan import ALWAYS
from xaitools.metrics import image_weights
from xaitools.types import Prediction, Sample

SIDE = 8


class Many:
    """So many tiny pictures, drawn when they are asked for: bright ones and dark ones."""

    name, task, classes, semantic_classes, things = "many", "classification", ("dark", "bright"), (), frozenset[str]()

    def __init__(self, n: int) -> None:
        self.ids = [f"{index:06d}" for index in range(n)]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        shade = torch.full((3, SIDE, SIDE), (index * 7919 % 1000) / 1000)
        return Sample(self.ids[index], shade, label=int(index * 7919 % 1000 > 450))


class Bright:
    task, classes, name = "classification", Many.classes, "bright"

    def predict(self, images: Tensor) -> list[Prediction]:
        bright = images.mean((1, 2, 3)) > 0.5
        scores = torch.tensor([0.9, 0.1])
        order = torch.tensor([[0, 1], [1, 0]])
        return [Prediction("classification", self.classes, (SIDE, SIDE), order[int(each)], scores) for each in bright]


def resident(most: bool = False) -> int:
    """Bytes of this process that are in memory now, or at most since ``forget``."""
    name = "VmHWM:" if most else "VmRSS:"
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def forget() -> None:
    """What other tests of this process have needed does not count."""
    Path("/proc/self/clear_refs").write_text("5")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_items_take_no_more_memory_than_ten_thousand(tmp_path):
    n = 100_000
    seen: dict[int, int] = {}

    def look(done: int, total: int) -> None:
        seen[done] = resident()

    probe(Bright(), Many(2000), ["grey"], relevance=0, batch_size=500)  # what is imported and kept once
    forget()
    report = probe(Bright(), Many(n), ["grey"], out=tmp_path / "run", relevance=0, batch_size=500, progress=look).report
    peak = resident(most=True)
    conditions = 2 + len(ALWAYS)
    pieces = sorted(seen)
    assert report["n"] == n and len(pieces) == conditions * n // 500
    tenth, last = seen[pieces[len(pieces) // 10]], max(seen[each] for each in pieces[len(pieces) // 10 :])
    print(f"after a tenth {tenth / 2**20:.0f} MB, at most {last / 2**20:.0f} MB, with the report {peak / 2**20:.0f} MB")
    assert last - tenth < 32 * 2**20
    assert (peak - last) / (n * conditions) < 1024


def test_draws_take_a_byte_each_and_are_the_same_in_blocks():
    ids = [str(index) for index in range(300)]
    weights = image_weights(ids, seed=0, replicates=200)
    assert weights.nbytes == 200 * 300 and (weights.sum(1) == 300).all() and weights.max() > 3
    assert (image_weights(ids, seed=0, replicates=70) == weights[:70]).all()
