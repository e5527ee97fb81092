"""What a report says about how sure its numbers are."""

from __future__ import annotations

from functools import partial
from time import process_time
from types import SimpleNamespace

import numpy as np
import pytest
from torch import Tensor

from tests.probes.toys import Shapes, reader
from xaitools import audit
from xaitools.audit import recount
from xaitools.audit.plan import CLEAN, Condition
from xaitools.audit.records import Row, from_table
from xaitools.audit.recount import _plan
from xaitools.audit.reporting import _control_warnings, _resolution_warnings
from xaitools.audit.tally import Tally
from xaitools.errors import PlanError, XaiError
from xaitools.metrics import holm
from xaitools.report.html import page, save_probe
from xaitools.types import Prediction

probe = partial(audit.probe, relevance=0)  # what it says of explanations has tests of its own

DATA = Shapes(24, tied=False)


@pytest.fixture(scope="module")
def result():
    groups = {id: ("dark" if place % 3 else "light") for place, id in enumerate(DATA.ids)}
    clusters = {id: f"scene {place // 2}" for place, id in enumerate(DATA.ids[:-2])}
    return probe(reader("background"), DATA, ["fog", "night", "gap", "only_fg"], severities=(1, 3), clusters=clusters, groups=groups)


def test_one_declared_number_stands_for_each_family(result):
    report = result.report
    assert {family: row["probe"] for family, row in report["families"].items()} == {"domain": "fog", "background": "gap"}
    assert result.run["plan"]["declared"] == {"domain": "fog", "background": "gap"} and result.run["plan"]["margin"] == 0.03
    ps = [report["probes"][name]["primary"]["p"] for name in ("fog", "gap")]
    assert [row["p_holm"] for row in report["families"].values()] == holm(ps) and max(holm(ps)) >= max(ps)
    assert "p_holm" not in report["probes"]["night"]["primary"]
    gap = report["families"]["background"]
    assert gap["no_drop"] is False and gap["says"] == "a drop" and gap["drop"] == report["probes"]["gap"]["primary"]["drop"]


def test_every_cell_lies_in_a_band_of_its_family(result):
    for row in result.report["probes"].values():
        for cell in (row["primary"], *row["severities"]):
            assert cell["band"][0] <= cell["ci"][0] <= cell["ci"][1] <= cell["band"][1]
        assert row["primary"]["band"] == next(each["band"] for each in row["severities"] if each["severity"] == row["primary"]["severity"])


def test_clusters_are_drawn_and_what_has_none_is_said(result):
    assert result.report["intervals"] | {"coverage": None} == {
        "method": "studentised", "level": 0.95, "unit": "cluster", "units": 13, "coverage": None, "margin": 0.03,
    }  # fmt: skip
    assert "images without a cluster, each drawn by itself: 2" in result.report["warnings"]
    assert any("with 13 clusters, fewer than 100" in each for each in result.report["warnings"])
    assert result.report["controls"]["identity"]["ci"] == [0.0, 0.0]


def test_the_worst_group_of_a_probe_is_where_it_costs_most(result):
    for row in result.report["probes"].values():
        assert {name: each["n"] for name, each in row["groups"].items()} == {"dark": 16, "light": 8}
        assert row["worst"] == max(row["groups"], key=lambda name: row["groups"][name]["drop"]) and row["groups"]["light"]["small"]
    assert result.report["groups"]["per_group"]["dark"]["n"] == 16
    text = page(result.report, {})
    assert "Where a probe costs most" in text and "13 clusters" in text and "None" not in text


def test_the_records_give_other_intervals_without_the_model(result, tmp_path):
    save_probe(result, tmp_path / "run")
    again, read = recount(result), recount(tmp_path / "run")
    for name, row in result.report["probes"].items():
        assert again[name].interval() == read[name].interval() == row["primary"]["ci"] and again[name].p == row["primary"]["p"]
    low, high = again["fog"].interval(0.99)
    assert low < again["fog"].interval()[0] < again["fog"].interval()[1] < high
    other = recount(result, seed=1, replicates=300, clusters={})["gap"]
    assert len(other.samples) == 300 and len(other.moves) == 24 and other.value == again["gap"].value
    with pytest.raises(PlanError, match="no run that can be read"):
        recount(tmp_path)
    with pytest.raises(XaiError, match="fewer than 10 clusters"):
        recount(result, clusters=dict.fromkeys(DATA.ids, "one"))


def test_of_few_clusters_stands_the_range():
    data = Shapes(12, tied=False)
    data.clusters = {id: f"drive {place % 3}" for place, id in enumerate(data.ids)}
    data.scope = lambda ids: "these three drives only"
    result = probe(reader("background"), data, ["fog", "gap"])
    report = result.report
    found = report["probes"]["gap"]["primary"]
    tally = Tally(_plan(result.run["plan"], 0, None), from_table(result.records))
    alone = []
    for name in range(3):
        items = [id for id in data.ids if data.clusters[id] == f"drive {name}"]
        alone.append(tally.table(Condition("mixed_same", 1), items).metric() - tally.table(Condition("mixed_rand", 1), items).metric())
    assert found["range"] == pytest.approx([min(alone), max(alone)])
    assert all(found[name] is None for name in ("ci", "p", "band", "no_drop", "p_holm")) and report["clean"]["ci"] is None
    assert report["controls"]["identity"]["range"] == [0.0, 0.0] and report["intervals"]["coverage"] is None
    assert any(each.startswith("only 3 clusters") for each in report["warnings"])
    assert "neighbouring frames count as one; intervals speak of these three drives only" in report["warnings"]
    text = page(report, {})
    assert "range [" in text and "only 3 clusters" in text and "these three drives only" in text


def test_choosing_examples_takes_time_in_proportion_to_the_images():
    """Eight times the images took seventy times as long: all rows of a condition were gone through for each of them."""
    plan, grey = SimpleNamespace(facts={"model": {"task": "classification", "classes": ["dark", "bright"]}}), Condition("grey", 1)

    def seconds(n: int) -> float:
        rows = [
            Row(str(item), each.probe, each.severity, None, {"label": np.array([item % 2]), "guess": np.array([int(each == CLEAN)])})
            for each in (CLEAN, grey)
            for item in range(n)
        ]
        tally, started = Tally(plan, rows), process_time()
        drops = tally.image_drops(CLEAN, grey)
        assert len(drops) == n and set(drops.values()) == {-1.0, 1.0}
        return process_time() - started

    assert seconds(8000) < 25 * seconds(1000)


def test_each_control_warns():
    fine = {"drop": 0.0, "ci": [-0.01, 0.02]}
    listed = {"identity": {"drop": 0.0, "ci": [0.0, 0.0]}, "reencode": fine, "resize": fine, "self_paste": fine}
    assert _control_warnings(listed, 0.03) == []
    assert "not deterministic" in _control_warnings(listed | {"identity": {"drop": -0.001, "ci": [-0.01, 0.0]}}, 0.03)[0]
    for name in ("reencode", "resize", "self_paste"):
        (words,) = _control_warnings(listed | {name: {"drop": 0.01, "ci": [0.0, 0.031]}}, 0.03)
        assert words.startswith(f"control {name}: a drop of up to 3.1 points")
        assert len(_control_warnings(listed | {name: {"drop": 0.01, "ci": None, "range": [0.0, 0.05]}}, 0.03)) == 1
    assert len(_control_warnings(listed, 0.015)) == 3


def test_a_model_that_guesses_anew_fails_the_identity_control():
    class Fickle:
        task, name, classes, background = "segmentation", "fickle", reader("object").classes, 0
        calls = 0

        def predict(self, images: Tensor) -> list[Prediction]:
            self.calls += 1
            found = reader("object").predict(images)
            for each in found if self.calls % 2 == 0 else ():
                each.semantic[:6] = 1
            return found

    report = probe(Fickle(), Shapes(4), ["fog"], batch_size=4).report
    assert report["controls"]["identity"]["drop"] > 0 and any("not deterministic" in each for each in report["warnings"])


def test_margins_out_of_range_are_named():
    with pytest.raises(XaiError, match="margin 3"):
        probe(reader("object"), Shapes(4), ["fog"], margin=3)


def test_more_images_are_asked_for_only_where_the_question_is_open():
    cells = {"found": ([0.1, 0.4], False), "none": ([-0.02, 0.02], True), "open": ([-0.1, 0.1], None), "gain": ([-0.3, -0.1], None)}
    rows = {name: {"n": 50, "primary": {"ci": ci, "no_drop": no_drop}} for name, (ci, no_drop) in cells.items()}
    assert _resolution_warnings(rows) == ["too few images to resolve a drop of 5 points in open (409 instead of 50)"]
