"""Another dataset as target domain: its truths, unpaired intervals, classes on one side."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.probes.toys import CLASSES, Boxes, Shapes, reader
from xaitools.audit import probe
from xaitools.audit.plan import CLEAN, Condition, make_plan
from xaitools.audit.records import from_table
from xaitools.audit.target_domain import on_classes
from xaitools.errors import DataError, XaiError
from xaitools.metrics import Table, image_statistics
from xaitools.probes import objects
from xaitools.types import Prediction, Sample

ELSEWHERE = {"dataset": {"donors": "other:data"}}


@pytest.fixture
def elsewhere(monkeypatch):
    """What ``donors`` names."""
    held = {"data": Shapes(20, tied=False)}
    monkeypatch.setattr(objects, "load_dataset", lambda name: held["data"])
    return held


def run(model, dataset, **options):
    return probe(model, dataset, ["domain.dataset"], params=ELSEWHERE, **options)


def test_the_drop_is_that_of_two_independent_samples(elsewhere):
    model = reader("background")  # right where backgrounds are tied, at chance where they are not
    result = run(model, Shapes(12))
    row, rows = result.report["probes"]["dataset"], from_table(result.records)
    assert (row["n"], row["n_elsewhere"], row["one_side"]) == (12, 20, {"here": [], "elsewhere": []})
    tables = [[each.metric for each in rows if each.condition == name] for name in ("clean", "dataset")]
    here, there = (Table("segmentation", CLASSES, side) for side in tables)
    assert row["reference"]["value"] == pytest.approx(here.metric()) and row["primary"]["value"] == pytest.approx(there.metric())
    assert row["primary"]["drop"] == pytest.approx(here.metric() - there.metric()) and row["primary"]["drop"] > 0.3
    generator = np.random.default_rng(1)  # each side drawn by itself
    draws = [table.metric(generator.multinomial(table.n, np.full(table.n, 1 / table.n), size=1500)) for table in (here, there)]
    assert row["primary"]["ci"] == pytest.approx(np.quantile(draws[0] - draws[1], [0.025, 0.975]).tolist(), abs=0.03)
    assert row["primary"]["p"] < 0.01


def test_the_same_images_elsewhere_are_not_paired(elsewhere):
    elsewhere["data"] = Shapes(16, tied=False)
    row = run(reader("background"), Shapes(16, tied=False)).report["probes"]["dataset"]
    assert row["primary"]["drop"] == 0 and row["primary"]["ci"][0] < -0.05 < 0.05 < row["primary"]["ci"][1]


def test_classes_with_truth_on_one_side_do_not_count(elsewhere):
    elsewhere["data"] = Shapes(9, kinds=1)  # discs alone
    report = run(reader("background"), Shapes(12, tied=False), limit=8).report
    row = report["probes"]["dataset"]
    assert row["one_side"] == {"here": ["square"], "elsewhere": []} and (row["n"], row["n_elsewhere"]) == (8, 8)
    assert row["per_class"]["square"] is None and "left out: square (here alone)" in row["notes"][-1]
    assert row["reference"]["value"] != pytest.approx(report["clean"]["value"])


def test_boxes_too_and_a_model_without_the_truth_is_refused(elsewhere):
    row = run(Boxes(), Shapes(6)).report["probes"]["dataset"]
    assert row["n_elsewhere"] == 20 and row["primary"]["drop"] is not None
    elsewhere["data"] = Shapes(6, masks=False)
    elsewhere["data"].semantic_classes = ()
    with pytest.raises(DataError, match="no semantic maps"):
        run(reader("object"), Shapes(6))
    with pytest.raises(XaiError, match=r"--set dataset\.donors="):
        probe(Boxes(), Shapes(6), ["dataset"])


def test_the_plan_tells_the_datasets_apart_and_a_run_goes_on(elsewhere, tmp_path):
    plans = [make_plan(Boxes(), Shapes(6), ["dataset", "grey"], params=ELSEWHERE)[0] for _ in range(2)]
    assert plans[0].identity == plans[1].identity and plans[0].elsewhere(CLEAN) is None
    assert plans[0].elsewhere(Condition("dataset", 1)) == "other:data"
    pieces = list(plans[0].pieces())
    assert [(piece.condition.probe, len(piece.items)) for piece in pieces[-2:]] == [("dataset", 16), ("dataset", 4)]
    assert len({piece.id for piece in pieces}) == len(pieces) and len({piece.number for piece in pieces}) == 3
    first = run(Boxes(), Shapes(6), out=tmp_path / "run").report
    (tmp_path / "run" / "records" / f"{pieces[-1].id}.parquet").unlink(missing_ok=True)
    assert run(Boxes(), Shapes(6), out=tmp_path / "run", resume=True).report == first
    elsewhere["data"] = Shapes(21, tied=False)
    assert make_plan(Boxes(), Shapes(6), ["dataset", "grey"], params=ELSEWHERE)[0].identity != plans[0].identity


def test_truth_of_other_classes_goes_from_every_task():
    keep = np.array([True, False, True])
    names, size = ("a", "b", "c"), (2, 2)
    semantic = torch.tensor([[0, 1], [1, 2]])
    found = Prediction("segmentation", names, size, torch.tensor([0]), torch.ones(1), semantic=torch.tensor([[0, 0], [1, 2]]))
    sample = Sample("one", torch.zeros(3, 2, 2), label=1, semantic=semantic)
    kept = on_classes(image_statistics(sample, found), keep)["confusion"].reshape(3, 3)
    assert kept.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
    found = Prediction("classification", names, size, torch.tensor([1, 0, 2]), torch.ones(3))
    assert on_classes(image_statistics(sample, found), keep)["label"].tolist() == [-1]
    assert on_classes({"label": np.array([2]), "guess": np.array([2])}, keep)["label"].tolist() == [2]
    assert on_classes({"positives": np.array([1, 2, 3])}, keep)["positives"].tolist() == [1, 0, 3]
