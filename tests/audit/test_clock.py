"""The time of a run: where it went, and that it stays out of the report."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import pytest
from torch import Tensor

from tests.probes.toys import Boxes, Shapes
from xaitools.audit import probe
from xaitools.types import Prediction

SLEEP = 0.02


class Slow(Boxes):
    def predict(self, images: Tensor) -> list[Prediction]:
        time.sleep(SLEEP * len(images))
        return super().predict(images)


def keys(value: object) -> Sequence[str]:
    return [*value, *(name for each in value.values() for name in keys(each))] if isinstance(value, dict) else []


def test_a_run_says_how_fast_it_was_and_what_of_it_was_the_model(tmp_path):
    result = probe(Slow(), Shapes(6), ["grey", "cooccurrence"], out=tmp_path / "run", relevance=0)
    times = json.loads((tmp_path / "run" / "run.json").read_bytes())["times"]
    assert times == result.run["times"]
    shown = 2 * len(result.examples)  # predicted once more, before and after
    assert times["images"] == 6 * 5 + shown  # clean, three controls, grey; no image has company to remove
    assert times["images_per_second"] == pytest.approx(times["images"] / times["seconds"], rel=0.05)
    rows = times["by_probe"]
    assert rows["grey"]["predict"] >= 6 * SLEEP and rows["clean"]["change"] < 0.05
    assert times["model_share"] == pytest.approx(sum(row["predict"] for row in rows.values()) / times["seconds"], rel=0.05)
    assert "model_share" not in keys(result.report)
    again = probe(Slow(), Shapes(6), ["grey", "cooccurrence"], out=tmp_path / "run", resume=True, relevance=0)
    assert again.run["times"]["images"] == shown and again.report == result.report
