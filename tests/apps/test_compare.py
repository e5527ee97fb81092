"""The page Compare: numbers of the cards, costs as the command line measures them, and two models on one picture."""

import json
from pathlib import Path

import cached
import pytest

from tests.apps.pages import checked, field, opened, pictures, words
from xaitools import zoo
from xaitools.locations import RUNS
from xaitools.metrics.compare import compare

DETECTOR, SEGMENTER, CLASSIFIER = "tiny-detector", "tiny-segmenter", "tiny-classifier"


def test_numbers_are_those_of_the_cards_and_of_the_command_line() -> None:
    app = opened("compare", compared=[SEGMENTER, CLASSIFIER], map="saliency")
    table = app.dataframe[0].value.set_index("model")
    rows = {row["model"]: row for row in compare([zoo.load_model(name) for name in (SEGMENTER, CLASSIFIER)], rounds=3)["rows"]}
    for name in (SEGMENTER, CLASSIFIER):
        card = zoo.card(name)["scores"]["test"]
        assert table.loc[name, "value"] == card["value"] and table.loc[name, "n"] == card["n"]
        assert table.loc[name, "95 % interval"] == "0.200 to 0.300"
        assert table.loc[name, "GFLOP"] == pytest.approx(rows[name]["gflops"]) and table.loc[name, "parameters"] == rows[name]["parameters"]
        assert table.loc[name, "memory MB"] == pytest.approx(rows[name]["memory_mb"]) and table.loc[name, "latency ms"] > 0
    assert f"xaitools compare --model {SEGMENTER} --model {CLASSIFIER} --out compare" in words(app)
    [figure] = app.get("image")
    assert f"{SEGMENTER} mIoU 0.250 at" in figure.proto.imgs[0].alt


@pytest.mark.long
def test_two_models_on_one_picture() -> None:
    app = opened("compare", compared=[DETECTOR, SEGMENTER], map="saliency", item="2")
    assert set(pictures(app)) == {"left picture", "left map saliency", "right picture", "right map saliency"}
    before = pictures(app)
    field(app, "map").set_value("gradient-x-input").run()
    assert set(pictures(checked(app))) == {"left picture", "left map gradient-x-input", "right picture", "right map gradient-x-input"}
    field(app, "right").set_value(DETECTOR).run()
    assert pictures(checked(app))["right picture"]["boxes"] == pictures(app)["left picture"]["boxes"]
    field(app, "item").set_value(3).run()
    assert pictures(checked(app))["left picture"]["image"] != before["left picture"]["image"]


@pytest.mark.long
def test_it_starts_with_the_best_of_each_task_and_measures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(cached, "compare", lambda models, rounds: calls.append(len(models)) or compare(models, rounds=rounds))
    cached.compared.cache_clear()
    app = opened("compare", map="saliency")
    assert set(field(app, "compared").value) == {SEGMENTER, DETECTOR}
    field(app, "item").set_value(1).run()
    assert calls == [2]
    field(app, "compared").set_value([]).run()
    assert checked(app).info[0].value == "Choose at least one model." and not pictures(app)


def test_robustness_is_what_runs_have_measured_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUNS, str(tmp_path))
    address = {"compared": [SEGMENTER, DETECTOR], "map": "saliency"}
    app = opened("compare", **address)
    assert len(app.dataframe) == 1 and "no run in the runs folder has measured these models" in words(app)
    row = {"family": "domain", "n": 7, "primary": {"value": 0.2, "drop": 0.051, "ci": [0.01, 0.09], "p": 0.1, "says": ""}}
    for model in (SEGMENTER, "another"):
        report = {"model": model, "dataset": "scenes:test", "metric": "mIoU", "n": 7, "clean": {}, "versions": {}, "warnings": [],
                  "probes": {"fog": row, "night": row | {"primary": row["primary"] | {"drop": None, "ci": None}}}}  # fmt: skip
        (tmp_path / model).mkdir()
        (tmp_path / model / "report.json").write_text(json.dumps(report))
    table = opened("compare", **address).dataframe[1].value
    assert table["model"].tolist() == [SEGMENTER] * 2 and table["probe"].tolist() == ["fog", "night"] and set(table["n"]) == {7}
    assert table["drop"].tolist()[0] == 5.1 and table["95 % interval"].tolist() == ["1.0 to 9.0", ""] and table["drop"].isna().tolist()[1]
