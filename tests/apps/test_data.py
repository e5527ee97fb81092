"""The page Data: images with what is annotated and found, filters, the confusion of what was looked at, and scenes drawn by hand."""

from typing import Any

import cached
import looking
import pytest
from components.drawing import FACTORS
from streamlit.testing.v1 import AppTest

from tests.apps.pages import checked, field, opened, pictures, words
from xaitools.data import load_dataset
from xaitools.metrics.confusion import Confusion
from xaitools.metrics.evaluate import evaluate
from xaitools.metrics.mistakes import ERRORS, events
from xaitools.zoo import load_model

DETECTOR, SEGMENTER, CLASSIFIER = "tiny-detector", "tiny-segmenter", "tiny-classifier"


def tiles(app: AppTest) -> list[dict[str, Any]]:
    return pictures(app)["gallery"]["tiles"] if "gallery" in pictures(app) else []


@pytest.mark.parametrize("model", [DETECTOR, SEGMENTER])
def test_a_page_of_images_each_with_its_link(model: str) -> None:
    app = opened("data", model=model, data="scenes:val?n=30")
    shown = tiles(app)
    assert [tile["number"] for tile in shown] == list(range(12)) and not app.warning
    assert shown[3]["href"] == f"./?model={model}&data=scenes%3Aval%3Fn%3D30&item=3"
    assert "n = 12" in words(app) and "What was taken for what, n = 12 images" in words(app)
    app = opened("data", model=model, data="scenes:val?n=30", page="3")
    assert [tile["number"] for tile in tiles(app)] == list(range(24, 30))
    assert "images 24 to 29 of 30 looked at, n = 6" in words(app)


def test_filters_keep_the_images_that_have_what_is_asked_for() -> None:
    app = opened("data", model=DETECTOR, data="scenes:test?n=24", least="0.3")
    model, data = load_model(DETECTOR), load_dataset("scenes:test?n=24")
    found = [events(data[item], model.predict(data[item].image[None])[0], score=0.3) for item in range(12)]
    for wrong in ([ERRORS[0]], [ERRORS[2]], [ERRORS[1], ERRORS[2]]):
        field(app, "wrong").set_value(wrong).run()
        assert [tile["number"] for tile in tiles(checked(app))] == [i for i in range(12) if any(each.what in wrong for each in found[i])]
    field(app, "wrong").set_value(["missed"])
    field(app, "size").set_value(["small"]).run()
    both = [i for i in range(12) if any((each.what, each.size) == ("missed", "small") for each in found[i])]
    assert [tile["number"] for tile in tiles(checked(app))] == both and len(both) < 12
    assert f"{len(both)} of them with what is asked for" in words(app)


def test_the_confusion_is_that_of_the_images_looked_at() -> None:
    app = opened("data", model=DETECTOR, data="scenes:test?n=24", least="0.3", wrong="missed")
    model, data, counted = load_model(DETECTOR), load_dataset("scenes:test?n=24"), Confusion(load_dataset("scenes:test").classes, score=0.3)
    for item in range(12):
        counted.add(data[item], model.predict(data[item].image[None])[0])
    table = app.dataframe[0].value.set_index("annotated")
    for name in table.columns:
        place = (*counted.classes, "(missed)").index(name)
        for row, value in table[name].items():
            assert value == counted.table[(*counted.classes, "(no truth)").index(row), place]
    assert int(table.to_numpy().sum()) == int(counted.table.sum())


@pytest.mark.long
def test_pixels_of_a_segmenter_as_evaluate_counts_them() -> None:
    app = opened("data", model=SEGMENTER, data="scenes:test?n=12")
    expected = evaluate(load_model(SEGMENTER), load_dataset("scenes:test?n=12"), replicates=5)["confusion"]["table"]
    table = app.dataframe[0].value.set_index("annotated")
    for name, counts in zip(expected["rows"], expected["counts"], strict=True):
        assert (name in table.index) == any(counts)
        for column, count in zip(expected["columns"], counts, strict=True):
            assert count == 0 or table.loc[name, column] == pytest.approx(100 * count / sum(counts), abs=0.051)
        assert not any(counts) or table.loc[name, "pixels"] == sum(counts)


@pytest.mark.long
def test_a_classifier_has_one_picture_of_each_kind() -> None:
    app = opened("data", model=CLASSIFIER, data="scenes:test?n=12&crop=32", wrong="wrong class")
    data, model = load_dataset("scenes:test?n=12&crop=32"), load_model(CLASSIFIER)
    wrong = [i for i in range(12) if int(model.predict(data[i].image[None])[0].labels[0]) != data[i].label]
    assert [tile["number"] for tile in tiles(app)] == wrong


def test_nothing_is_predicted_that_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    loaded = cached.load(DETECTOR)
    original = loaded.model.predict
    monkeypatch.setattr(loaded.model, "predict", lambda images: calls.append(len(images)) or original(images))
    looking.look.cache_clear()
    app = opened("data", model=DETECTOR, data="scenes:test?n=400")
    assert sum(calls) == 12
    field(app, "wrong").set_value(["missed"]).run()
    assert sum(calls) == 12


def test_data_of_another_kind_is_shown_and_says_why_it_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    app = opened("data", model=DETECTOR, data="scenes:test?n=3&crop=32")
    assert len(tiles(app)) == 3 and len(app.warning) == 1 and "no boxes" in app.warning[0].value
    assert not app.dataframe


def test_a_factor_moves_the_picture_and_the_prediction_with_it() -> None:
    app = opened("data", view="Draw scenes", model=SEGMENTER, scene="2")
    before, chosen = pictures(app), {}
    assert before["scene as drawn"]["image"] == before["scene as chosen"]["image"]
    for name, value in load_dataset("scenes:test?n=3")[2].tags.items():
        if name not in FACTORS:
            continue
        values = FACTORS[name]
        chosen[name] = values[(int(value[0] if isinstance(value, tuple) else value) + 1) % len(values)]
        field(app, f"draw_{name}").set_value(chosen[name]).run()
        after = pictures(checked(app))
        assert (
            after["scene as chosen"]["image"] != before["scene as chosen"]["image"] and after["scene as drawn"] == before["scene as drawn"]
        )
        before = after
    assert set(chosen) == set(FACTORS) and f"background {chosen['background']}, light {chosen['light']}" in words(app)
    shared = {f"draw_{name}": value for name, value in chosen.items()}
    assert (
        pictures(opened("data", view="Draw scenes", model=SEGMENTER, scene="2", **shared))["scene as chosen"] == before["scene as chosen"]
    )
    field(app, "seed").set_value(5).run()
    assert pictures(checked(app))["scene as drawn"]["image"] != before["scene as drawn"]["image"]


@pytest.mark.long
@pytest.mark.parametrize("model", [DETECTOR, CLASSIFIER])
def test_scenes_can_be_drawn_for_every_task(model: str) -> None:
    app = opened("data", view="Draw scenes", model=model)
    assert set(pictures(app)) == {"scene as drawn", "scene as chosen"} and "on this one image" in words(app)


def test_an_upload_is_no_dataset() -> None:
    app = opened("data", model=DETECTOR, data="upload")
    assert len(app.info) == 1 and not tiles(app)
