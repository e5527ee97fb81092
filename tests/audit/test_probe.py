"""Runs on drawn shapes with models whose cue is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from tests.probes.toys import SIDE, Boxes, Shapes, reader
from xaitools import audit
from xaitools.audit import probe_models
from xaitools.audit.records import Row, from_table, to_table
from xaitools.audit.tally import Tally
from xaitools.errors import DataError, PlanError, XaiError
from xaitools.metrics import evaluate, image_weights
from xaitools.types import Prediction

probe = partial(audit.probe, relevance=0)  # what it says of explanations has tests of its own


class Failing:
    """A reader that raises, or returns NaN, on images of one brightness."""

    task, name, background = "segmentation", "failing", 0

    def __init__(self, samples: Sequence[Tensor], nan: bool) -> None:
        self.inner, self.bad, self.nan = reader("object"), samples, nan
        self.classes = self.inner.classes

    def predict(self, images: Tensor) -> list[Prediction]:
        hit = [any(torch.equal(image, bad) for bad in self.bad) for image in images]
        if any(hit) and not self.nan:
            raise RuntimeError("shapes do not match\nand more lines")
        found = self.inner.predict(images)
        for prediction, bad in zip(found, hit, strict=True):
            if bad:
                prediction.scores.fill_(float("nan"))
        return found


def test_the_gap_tells_the_background_reader_from_the_object_reader():
    for tied in (True, False):
        drops = {}
        for cue in ("object", "background"):
            report = probe(reader(cue), Shapes(tied=tied), ["background"]).report
            row = report["probes"]["gap"]
            drops[cue] = row["primary"]["drop"]
            assert row["reference"]["name"] == "mixed_same" and row["n"] == 12
            assert row["primary"]["value"] == pytest.approx(row["reference"]["value"] - row["primary"]["drop"])
        assert abs(drops["object"]) < 0.02 and drops["background"] > 0.8, tied


def test_a_clean_run_says_what_interface_promises():
    result = probe(reader("object"), Shapes(), ["texture", "domain", "adversarial"], severities=(1, 3, 5))
    report = result.report
    assert {"model", "dataset", "task", "n", "skipped", "metric", "clean", "controls", "probes", "warnings"} <= set(report)
    assert report["controls"]["identity"]["drop"] == 0.0 and report["controls"]["identity"]["ci"] == [0.0, 0.0]
    assert set(report["controls"]) == {"identity", "reencode", "resize", "random_direction"}
    assert (report["n"], report["metric"], report["skipped"]) == (12, "mIoU", [])
    for row in report["probes"].values():
        assert [cell["severity"] for cell in row["severities"]] == [1, 3, 5] and row["primary"]["severity"] == 3
        assert set(row["primary"]) >= {"value", "drop", "ci", "p"} and set(row["severities"][0]) >= {"severity", "value", "drop", "ci"}
    assert report["probes"]["pgd"]["measured"]["loss_after"] > report["probes"]["pgd"]["measured"]["loss_before"]
    assert any("too narrow" in each for each in report["warnings"])
    json.dumps(report, allow_nan=False)
    assert {example.probe for example in result.examples} == set(report["probes"])


def test_controls_are_exact_for_a_detector_without_gradients():
    result = probe(Boxes(), Shapes(), ["texture", "adversarial", "background"])
    assert result.report["controls"]["identity"]["drop"] == 0.0 and "pgd" not in result.report["probes"]
    assert any("pgd was left out: the model gives no gradients" in each for each in result.report["warnings"])
    assert result.report["metric"] == "mAP50" and result.report["clean"]["value"] == 1.0


def test_a_drop_is_the_difference_of_the_metrics_of_the_two_tables():
    result = probe(reader("background"), Shapes(tied=False), ["fog", "gap"])
    rows = from_table(result.records)
    confusions = {name: sum(row.statistics["confusion"] for row in rows if row.condition == name) for name in ("clean", "fog")}
    values = {}
    for name, confusion in confusions.items():
        table = confusion.reshape(3, 3)
        values[name] = np.mean([table[k, k] / (table[k].sum() + table[:, k].sum() - table[k, k]) for k in range(3)])
    fog = result.report["probes"]["fog"]["primary"]
    assert fog["value"] == pytest.approx(values["fog"]) and fog["drop"] == pytest.approx(values["clean"] - values["fog"])


def test_the_interval_of_a_class_is_that_of_a_loop_over_the_draws():
    result = probe(reader("background"), Shapes(tied=False), ["fog"])
    rows = {name: [row for row in from_table(result.records) if row.condition == name] for name in ("clean", "fog")}
    tables = {name: np.stack([row.statistics["confusion"].reshape(3, 3) for row in each]) for name, each in rows.items()}

    def drop(weights: np.ndarray) -> float:
        whole = {name: np.tensordot(weights, each, 1)[[1], :] for name, each in tables.items()}
        union = {name: row.sum() + np.tensordot(weights, tables[name], 1)[:, 1].sum() - row[0, 1] for name, row in whole.items()}
        return whole["clean"][0, 1] / union["clean"] - whole["fog"][0, 1] / union["fog"]

    def error(weights: np.ndarray) -> float:
        slopes = [(drop(weights + step) - drop(weights - step)) / 2e-6 for step in 1e-6 * np.eye(12)]
        return float(np.sqrt(weights @ np.square(slopes)))

    ones = np.ones(12)
    draws = image_weights([row.item for row in rows["clean"]], seed=0, replicates=2000)
    t = [(drop(each) - drop(ones)) / (error(each) or error(ones)) for each in draws]
    low, high = np.quantile(t, [0.025, 0.975])
    row = result.report["probes"]["fog"]
    assert row["per_class"]["disc"] == pytest.approx(drop(ones))
    assert row["per_class_ci"]["disc"] == pytest.approx([drop(ones) - high * error(ones), drop(ones) - low * error(ones)], abs=1e-3)


def test_evaluate_gives_the_interval_of_the_clean_images():
    data = Shapes(24, tied=False, company=True)
    twelve, two = ({id: str(place // size) for place, id in enumerate(data.ids)} for size in (2, 12))
    for model, clusters in ((Boxes(), None), (reader("background"), twelve), (reader("background"), two)):
        report, document = probe(model, data, ["fog"], clusters=clusters).report, evaluate(model, data, clusters=clusters)
        assert (document["value"], document["ci"]) == (report["clean"]["value"], report["clean"]["ci"])
        assert document["intervals"].items() <= report["intervals"].items()
        assert (document["ci"] is None) == (clusters is two) and document.get("range") == report["clean"].get("range")
    assert len(document["range"]) == 2 and any("only 2 clusters" in each for each in document["warnings"])


@pytest.mark.parametrize("nan", [True, False])
def test_items_the_model_fails_on_are_listed_and_left_out_on_both_sides(nan):
    data = Shapes()
    model = Failing([data[4].image, data[7].image], nan)
    report = probe(model, data, ["fog"]).report
    assert [each["id"] for each in report["skipped"] if "condition" not in each] == ["shape-004", "shape-007"]
    assert report["n"] == report["probes"]["fog"]["n"] == report["controls"]["identity"]["n"] == 10
    reasons = {each["reason"] for each in report["skipped"]}
    assert len(reasons) == 1 and ("NaN" if nan else "RuntimeError: shapes do not match") in reasons.pop()
    assert report["controls"]["identity"]["drop"] == 0.0


def test_broken_items_are_listed_counted_and_cost_nothing():
    whole, broken = Shapes(), Shapes(broken=(2, 5))
    report = probe(reader("object"), broken, ["background", "fog"]).report
    assert report["skipped"] == [{"id": f"shape-00{n}", "reason": f"shape-00{n}: the picture is cut short"} for n in (2, 5)]
    assert report["n"] == 10 and any("left out" in each for each in report["warnings"])
    assert report["probes"]["fog"]["n"] == 10
    assert probe(reader("object"), whole, ["fog"]).report["n"] == 12


def test_batch_size_and_order_do_not_change_the_images():
    one = probe(reader("object"), Shapes(), ["fog", "texture"], batch_size=1).report
    other = probe(reader("object"), Shapes(), ["texture", "fog"], batch_size=5).report
    assert one["probes"]["fog"]["primary"] == other["probes"]["fog"]["primary"]
    assert one["probes"]["patch_shuffle"]["per_class"] == other["probes"]["patch_shuffle"]["per_class"]


def test_a_model_at_chance_is_not_assessable():
    class Blind(Boxes):
        def predict(self, images: Tensor) -> list[Prediction]:
            nothing = Prediction("detection", self.classes, (SIDE, SIDE), torch.zeros(0).long(), torch.zeros(0), boxes=torch.zeros(0, 4))
            return [nothing for _ in images]

    report = probe(Blind(), Shapes(), ["fog", "background"]).report
    assert all(row["primary"]["drop"] is None and row["primary"]["ci"] is None for row in report["probes"].values())
    assert all(cell["drop"] is None for row in report["probes"].values() for cell in row["severities"])
    assert any("not assessable" in each for each in report["warnings"])


def test_one_class_alone_has_no_background_gap():
    report = probe(reader("object"), Shapes(kinds=1), ["background"]).report
    found = report["probes"]["gap"]["primary"]
    assert all(found[name] is None for name in ("value", "drop", "ci", "p", "band", "no_drop", "p_holm")) and found["says"] == "undefined"
    assert any(each.startswith("gap is undefined: no image could be used (no fitting donor") for each in report["warnings"])


def test_an_attack_that_raises_no_loss_is_reported():
    model = reader("object")
    model.loss = lambda images, samples: (0 * images).sum((1, 2, 3))
    report = probe(model, Shapes(), ["adversarial"], params={"pgd": {"objective": "own"}}).report
    assert any("did not raise the loss" in each for each in report["warnings"])


def test_the_attack_runs_on_a_declared_subset_against_the_same_clean_images():
    report = probe(reader("object"), Shapes(), ["adversarial"], params={"pgd": {"subset": 5, "steps": 1}}).report
    row = report["probes"]["pgd"]
    assert row["n"] == 5 == report["controls"]["random_direction"]["n"]
    assert any("on 5 images drawn at random by seed 0" in each for each in row["notes"])
    assert report["params"]["pgd"]["steps"] == 1


def test_conditions_are_shared():
    calls = []
    model = reader("object")
    predict = model.predict
    model.predict = lambda images: calls.append(len(images)) or predict(images)
    result = probe(model, Shapes(), ["gap", "mixed_same", "mixed_rand"], relevance=0)
    rows = from_table(result.records)
    assert {(row.condition, row.severity) for row in rows} == {
        ("clean", 0), ("identity", 0), ("reencode", 1), ("resize", 1), ("mixed_same", 1), ("mixed_rand", 1), ("scored_objects", 1),
        ("self_paste", 1), ("same_class_paste", 1),
    }  # fmt: skip
    assert len(rows) == 9 * 12


def test_records_hold_all_that_the_report_needs():
    result = probe(reader("object"), Shapes(broken=(3,)), ["fog"])
    rows = from_table(to_table(from_table(result.records)))
    assert [row.reason is None for row in rows if row.condition == "clean"].count(False) == 1
    assert rows[0].statistics["confusion"].shape == (9,)


def test_rows_come_back_from_a_table_with_what_each_of_them_has():
    made = [
        Row("a", "clean", 0, None, {"label": np.array([1, 2]), "score": np.array([0.5, np.nan], np.float32), "void": np.array([True])}),
        Row("b", "fog", 3, "it is gone"),
        Row("c", "fog", 3, None, {"label": np.array([], int), "score": np.array([[0.1, 0.2], [0.3, 0.4]], np.float32)}),
    ]
    table = pa.concat_tables([to_table(made), to_table(made)], promote_options="permissive")
    rows = from_table(table.slice(1))
    assert [(row.item, row.condition, row.severity, row.reason) for row in rows[2:]] == [
        (row.item, row.condition, row.severity, row.reason) for row in made
    ]
    for row, one in zip(rows, [*made[1:], *made], strict=True):
        assert set(row.statistics) == set(one.statistics) and len(row.statistics) == len(one.statistics)
        for name, values in one.statistics.items():
            np.testing.assert_array_equal(row.statistics[name], values.ravel())
            assert row.statistics[name].dtype == values.dtype
    assert "void" not in rows[0].statistics and rows[0].statistics.get("label") is None and from_table(table.slice(0, 0)) == []


def test_arguments_at_fault_are_named():
    data = Shapes()
    cases = [
        ({"probes": ["fogg"]}, XaiError, "did you mean fog"),
        ({"severities": (6,)}, XaiError, "0 to 5"),
        ({"limit": 0}, XaiError, "at least 1"),
        ({"probes": ["fog"], "params": {"pgd": {"eps": 0.1}}}, XaiError, "pgd"),
        ({"probes": ["gap"], "params": {"gap": {"donor": "x"}}}, XaiError, "did you mean donors"),
        ({"probes": ["gap"], "params": {"gap": {"by": "luck"}}}, XaiError, "by='luck'"),
    ]
    for options, kind, words in cases:
        with pytest.raises(kind, match=words):
            probe(reader("object"), data, **options)
    with pytest.raises(PlanError, match="none of 4 items is usable; the first: shape-000: the picture is cut short"):
        probe(reader("object"), Shapes(4, broken=range(4)), ["fog"])
    with pytest.raises(DataError, match="semantic maps"):
        stranger = Shapes()
        stranger.semantic_classes = ()
        probe(reader("object"), stranger, ["fog"])


def test_several_models_share_images_and_have_their_own_folders(tmp_path):
    results = probe_models([reader("object"), reader("background")], Shapes(), ["background"], out=tmp_path)
    assert list(results) == ["object-reader", "background-reader"]
    assert {path.name for path in tmp_path.iterdir()} == set(results)
    drops = {name: result.report["probes"]["gap"]["primary"]["drop"] for name, result in results.items()}
    assert drops["background-reader"] - drops["object-reader"] > 0.5


def test_examples_are_worst_first_and_hold_both_predictions():
    result = probe(reader("background"), Shapes(tied=False), ["gap"])
    roles = [example.role for example in result.examples]
    assert roles == ["worst", "worst", "typical", "best"] and result.examples[0].drop >= result.examples[1].drop > 0
    assert result.examples[3].drop == min(example.drop for example in result.examples)
    told = [(case["id"], case["role"], case["drop"], case["images"]) for case in result.report["probes"]["gap"]["examples"]]
    assert told == [(example.id, example.role, example.drop, "mixed_rand") for example in result.examples]
    first = result.examples[0]
    assert first.reference == "mixed_same" and not torch.equal(first.before, first.after)
    assert first.truth.background == 0 and first.predicted_after.semantic.shape == (SIDE, SIDE)


def test_tally_needs_items_sound_on_both_sides():
    result = probe(reader("object"), Shapes(broken=(0,)), ["fog"])
    rows = from_table(result.records)
    plan = audit.probe.__globals__["make_plan"](reader("object"), Shapes(broken=(0,)), ["fog"])[0]
    tally = Tally(plan, rows)
    clean, fog = plan.conditions[0], plan.conditions[-1]
    assert "shape-000" not in tally.shared(clean, fog) and len(tally.shared(clean, fog)) == 11
