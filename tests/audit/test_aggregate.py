"""A probe that stands for several: its means, their intervals, and what it hands on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.probes.toys import Shapes, reader
from xaitools.audit import probe, recount
from xaitools.audit.plan import Condition, make_plan, scored
from xaitools.audit.records import from_table
from xaitools.errors import DataError, XaiError
from xaitools.metrics import Dual, Table, draw, image_weights
from xaitools.probes import PROBES, select
from xaitools.probes.base import aggregate

CHEAP = ("contrast", "distortion.fog", "zoom_blur")


@pytest.fixture
def few(monkeypatch):
    """``few`` stands for three members."""
    entries = dict(PROBES._load())
    monkeypatch.setattr(PROBES, "_entries", entries)
    aggregate("few", of=CHEAP, family="distortion", about="Three of them.")
    return "few"


def mean_iou(rows, condition):
    confusion = sum(row.statistics["confusion"] for row in rows if (row.condition, row.severity) == condition).reshape(3, 3)
    return np.mean([confusion[k, k] / (confusion[k].sum() + confusion[:, k].sum() - confusion[k, k]) for k in range(3)])


def test_the_means_are_those_of_the_records(few):
    result = probe(reader("background"), Shapes(tied=False), [few, "fog"], severities=(2, 5), relevance=0)
    row, rows = result.report["probes"][few], from_table(result.records)
    values = {(name, severity): mean_iou(rows, (name, severity)) for name in CHEAP for severity in (2, 5)}
    assert {row.condition for row in rows} == {"clean", "identity", "reencode", "resize", "fog", *CHEAP}
    assert values["distortion.fog", 5] != mean_iou(rows, ("fog", 5)) == result.report["probes"]["fog"]["severities"][1]["value"]
    clean, members = mean_iou(rows, ("clean", 0)), {name: np.mean([values[name, 2], values[name, 5]]) for name in CHEAP}
    mpc, still = np.mean(list(members.values())), np.mean([members["contrast"], members["distortion.fog"]])
    found = {name: each["value"] for name, each in row["means"].items()}
    assert found == pytest.approx({"mPC": mpc, "rPC": mpc / clean, "photometric_mPC": still, "photometric_rPC": still / clean})
    assert {name: each["value"] for name, each in row["members"].items()} == pytest.approx(members)
    assert row["primary"]["value"] == pytest.approx(mpc) and row["primary"]["drop"] == pytest.approx(clean - mpc)
    for cell in row["severities"]:
        assert cell["value"] == pytest.approx(np.mean([values[name, cell["severity"]] for name in CHEAP]))
    assert "severities 2, 5" in row["notes"][0] and "without zoom_blur" in row["notes"][1] and row["primary"]["severity"] is None
    assert {example.images for example in result.examples if example.probe == few} <= set(CHEAP)


def test_one_set_of_draws_serves_all_and_the_ratio_is_drawn_jointly(few):
    data, model = Shapes(tied=False), reader("background")
    result = probe(model, data, [few], severities=(3,), params={few: {"bootstraps": 300}})
    rows = from_table(result.records)
    weights = image_weights(data.ids, seed=0, replicates=300)
    tables = {
        name: Table("segmentation", model.classes, [row.metric for row in rows if row.condition == name]) for name in ("clean", *CHEAP)
    }
    clean, mean = tables["clean"].metric(weights), np.mean([tables[name].metric(weights) for name in CHEAP], 0)
    row, again = result.report["probes"][few], recount(result)[few]
    assert again.samples == pytest.approx(clean - mean) and row["primary"]["ci"] == pytest.approx(again.interval())
    ours = draw(
        tables,
        lambda each: {"drop": each["clean"] - each["contrast"], "ratio": Dual.mean([each[name] for name in CHEAP]) / each["clean"]},
        weights,
    )
    assert row["members"]["contrast"]["ci"] == pytest.approx(ours["drop"].interval())
    assert row["means"]["rPC"]["ci"] == pytest.approx(ours["ratio"].interval()) and ours["ratio"].samples == pytest.approx(mean / clean)


def test_parameters_are_handed_to_the_members_and_told():
    model, data = reader("object"), Shapes(2)
    plan, _ = make_plan(
        model, data, ["benchmark"], severities=(1, 4), params={"benchmark": {"mode": "relative"}, "elastic_transform": {"labels": "moved"}}
    )
    assert {name for name, each in plan.params.items() if each.get("mode") == "relative"} == {
        "benchmark", "defocus_blur", "glass_blur", "motion_blur", "distortion.snow", "pixelate",
    }  # fmt: skip
    assert plan.params["elastic_transform"]["labels"] == "moved"
    entry = PROBES["benchmark"]
    assert scored(entry, 4)[9] == Condition("distortion.fog", 4) and set(scored(entry, 1)) < set(plan.conditions)
    assert len(plan.conditions) == 4 + 2 * 15 and [each.name for each in select(["distortion", "contrast"])] == ["benchmark", "contrast"]
    with pytest.raises(XaiError, match="differ, but they share images"):
        make_plan(model, data, ["benchmark"], params={"benchmark": {"mode": "relative"}, "distortion.snow": {"mode": "absolute"}})


def test_what_is_not_as_published_is_said(few):
    report = probe(reader("object"), Shapes(3), [few, "elastic_transform"], params={"elastic_transform": {"labels": "moved"}}).report
    assert report["probes"][few]["notes"][-1] == "constants as published"
    assert not any("misplaced truth" in each for each in report["probes"]["elastic_transform"]["notes"])
    report = probe(reader("object"), Shapes(3), ["zoom_blur"]).report
    assert any("misplaced truth" in each for each in report["probes"]["zoom_blur"]["notes"])


def test_an_image_that_one_member_fails_on_is_left_out_of_all(few, monkeypatch):
    def fails(sample, severity, generator, context):
        if sample.id == "shape-002":
            raise DataError("too dark")
        return sample

    PROBES._entries["contrast"] = replace(PROBES["contrast"], change=fails)
    report = probe(reader("object"), Shapes(), [few]).report
    row = report["probes"][few]
    assert (report["n"], row["n"]) == (12, 11) and row["members"]["contrast"]["drop"] == 0.0
    monkeypatch.setitem(
        PROBES._entries, "contrast", replace(PROBES["contrast"], change=lambda *_: (_ for _ in ()).throw(DataError("too dark")))
    )
    report = probe(reader("object"), Shapes(), [few]).report
    row = report["probes"][few]
    assert row["n"] == 0 and row["primary"]["value"] is None and row["means"]["rPC"] == {"value": None, "ci": None}
    assert any("few is undefined: no image could be used (too dark)" in each for each in report["warnings"])
