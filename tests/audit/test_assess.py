"""Assessing methods: what a right map, a random one and one without a target come to, and that a killed run goes on."""

import json

import pytest
import torch

import xaitools as xt
from xaitools.attribution.base import METHODS, Maps, Method
from xaitools.audit.assess import MEASURES, assess, cases_of
from xaitools.cli import main
from xaitools.errors import DataError, MethodError, PlanError
from xaitools.report.assess import assess_figure, shortfalls, table_text


@pytest.fixture(scope="module")
def detector():
    return xt.load_model("faster-rcnn-scenes")


@pytest.fixture(scope="module")
def scenes():
    return xt.load_dataset("scenes:val?n=3")


@pytest.fixture
def known_methods(monkeypatch):
    """Two methods of known quality: one paints the box of its target, one is the same whatever the target."""

    def painted(model, image, decisions, generator):
        values = torch.zeros(len(decisions), *image.shape[2:])
        for row, decision in enumerate(decisions):
            x1, y1, x2, y2 = decision.box.round().int().tolist()
            values[row, y1:y2, x1:x2] = 1 + torch.rand(y2 - y1, x2 - x1, generator=generator)
        return Maps(values, torch.zeros(len(decisions)))

    def blind(model, image, decisions, generator):
        return Maps(image[0].mean(0).expand(len(decisions), -1, -1).clone(), torch.zeros(len(decisions)))

    for name, function in (("painted", painted), ("blind", blind)):
        monkeypatch.setitem(METHODS._entries, name, Method(name, function, "predictions", {}))


def test_methods_of_known_quality_are_told_apart(detector, scenes, known_methods):
    document = assess(detector, scenes, ["painted", "blind"], replicates=200)
    values = {(row["method"], row["measure"]): row["value"] for row in document["rows"]}
    assert {row["measure"] for row in document["rows"]} == set(MEASURES) and document["cases"] >= 4 and document["n"] == 3
    assert values["painted", "mass_gain"] > 0.4 and values["painted", "pointing"] > 0.7
    assert values["blind", "mass_gain"] < 0.1 and values["blind", "target_sensitivity"] == pytest.approx(0, abs=1e-6)
    assert values["painted", "target_sensitivity"] > 0.5
    assert values["blind", "model_randomisation"] == pytest.approx(0, abs=1e-6)
    assert values["painted", "model_randomisation"] < 0.01, "the box stays where it is; only the noise on it may be drawn anew"
    assert values["painted", "deletion"] < values["blind", "deletion"] and values["painted", "insertion"] > values["blind", "insertion"]
    for row in document["rows"]:
        assert row["ci"][0] <= row["value"] <= row["ci"][1]
        if row["measure"] in ("mass_gain", "rank_gain"):
            assert abs(row["random"]) < 0.1


@pytest.mark.long
def test_lrp_is_better_than_chance_for_boxes(detector):
    rows = {row["measure"]: row for row in assess(detector, xt.load_dataset("scenes:test?n=10"), ["lrp"], replicates=50)["rows"]}
    for measure in ("mass_gain", "rank_gain", "insertion"):
        assert rows[measure]["value"] > max(rows[measure]["random"], rows[measure]["edge"]), measure
    assert rows["deletion"]["value"] < min(rows["deletion"]["random"], rows["deletion"]["edge"])
    assert rows["model_randomisation"]["value"] > 0.5


def test_only_what_the_model_got_right_is_a_case(detector, scenes):
    sample = scenes[0]
    prediction = detector.predict(sample.image[None])[0]
    right = cases_of(sample, prediction, 20)
    assert 0 < len(right) <= len(sample.boxes) and all(case.inside.any() for case in right)
    elsewhere = xt.Sample("moved", sample.image, boxes=sample.boxes * 0 + torch.tensor([0.0, 0, 2, 2]), labels=sample.labels)
    assert cases_of(elsewhere, prediction, 20) == []


def test_the_weights_stay_as_they_were(detector, scenes):
    before = [parameter.clone() for parameter in detector.module.parameters()]
    assess(detector, scenes, ["saliency"], limit=1, replicates=10)
    assert all(torch.equal(a, b) for a, b in zip(before, detector.module.parameters(), strict=True))


def test_a_killed_run_goes_on_and_gives_the_same_document(detector, scenes, tmp_path):
    whole = assess(detector, scenes, ["saliency"], replicates=50, journal=tmp_path / "a" / "journal.jsonl")
    lines = (tmp_path / "a" / "journal.jsonl").read_text().splitlines()
    cut = tmp_path / "b" / "journal.jsonl"
    cut.parent.mkdir()
    cut.write_text("\n".join(lines[:2]) + "\n" + lines[2][: len(lines[2]) // 2])  # killed while it wrote
    seen = []
    again = assess(detector, scenes, ["saliency"], replicates=50, journal=cut, resume=True, progress=lambda done, total: seen.append(done))
    assert again == whole and seen == [2, 3]
    with pytest.raises(PlanError, match="--resume"):
        assess(detector, scenes, ["saliency"], journal=cut)
    with pytest.raises(PlanError, match="other methods"):
        assess(detector, scenes, ["lrp"], journal=cut, resume=True)


def test_what_cannot_be_assessed_says_so(detector, scenes):
    with pytest.raises(MethodError, match="unknown method"):
        assess(detector, scenes, ["guesswork"])
    blank = xt.load_model("faster-rcnn-scenes", score_threshold=1.0)
    with pytest.raises(DataError, match="right nowhere"):
        assess(blank, scenes, ["saliency"])


def test_the_command_writes_document_tables_and_figure(tmp_path, capsys):
    with pytest.raises(SystemExit) as status:
        main(
            [
                "assess",
                "scenes:val?n=2&crop=64",
                "--model",
                "resnet-scenes",
                "--method",
                "saliency,lrp",
                "--out",
                str(tmp_path / "o"),
                "--json",
            ]
        )
    assert status.value.code == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((tmp_path / "o" / "assess.json").read_text())
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"assess.json", "assess.md", "assess.csv", "figure.png", "journal.jsonl"}
    assert set(document["rows"][0]) >= {"method", "measure", "value", "ci", "random", "edge", "undefined"}
    assert "deletion" in table_text(document) and assess_figure(document) is not None


def test_the_report_says_where_a_method_is_no_better_than_a_baseline():
    def row(measure, value, random, edge, better="higher"):
        return {"method": "m", "measure": measure, "value": value, "random": random, "edge": edge, "better": better}

    rows = [row("deletion", 0.5, 0.6, 0.7, "lower"), row("insertion", 0.8, 0.7, 0.9), row("target_sensitivity", 0.5, 1.0, 0.0)]
    assert shortfalls({"rows": rows})[0].endswith("in all but insertion")
    assert shortfalls({"rows": rows[::2]})[0].endswith("in all measures")
    assert shortfalls({"rows": [row("pointing", 0.4, 0.4, None), row("deletion", None, 0.1, 0.1, "lower")]})[0].endswith("all but pointing")
