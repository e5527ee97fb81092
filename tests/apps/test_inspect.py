"""The page Inspect without a browser: what is drawn follows from what is chosen, and nothing ends in a traceback."""

import io
import json
from typing import Any

import cached
import pytest
import sources
import torch
from PIL import Image
from safetensors.torch import load
from streamlit.testing.v1 import AppTest

from tests.apps.pages import checked, field, opened, pictures, words
from xaitools import zoo
from xaitools.attribution.base import METHODS, Maps, Method
from xaitools.errors import MethodError
from xaitools.types import Explanation

DETECTOR, SEGMENTER, CLASSIFIER = "tiny-detector", "tiny-segmenter", "tiny-classifier"


def open_page(**address: Any) -> AppTest:
    return opened("inspect", **{"method": ["saliency"], **address})


@pytest.mark.parametrize("model", [DETECTOR, SEGMENTER, CLASSIFIER])
def test_opens_with_a_picture_and_a_map(model: str) -> None:
    app = open_page(model=model)
    assert list(pictures(app)) == ["picture", "map saliency"]
    assert not app.warning
    assert "n = 40" in words(app)


def test_a_classifier_is_asked_about_a_class() -> None:
    app = open_page(model=CLASSIFIER)
    chips = pictures(app)["picture"]["chips"]
    assert len(chips) == 5 and [chip["chosen"] for chip in chips] == [True, False, False, False, False]
    other = chips[1]["target"].removeprefix("class:")
    before = pictures(app)["map saliency"]
    field(app, "classed").set_value(other).run()
    assert field(checked(app), "target").value == f"class:{other}"
    assert pictures(app)["map saliency"] != before and [chip["chosen"] for chip in pictures(app)["picture"]["chips"]][1]


def test_the_address_is_the_view() -> None:
    app = open_page(model=SEGMENTER, data="scenes:val", item="3", target="pixel:30,40:vs:", method=["saliency", "gradient-x-input"])
    assert list(pictures(app)) == ["picture", "map saliency", "map gradient-x-input"]
    assert pictures(app)["picture"]["point"] == [30, 40]
    assert "at pixel 30, 40 against all other classes" in words(app)
    command = (
        "xaitools explain scenes:val --item val-00003 --model tiny-segmenter --target pixel:30,40:vs: --method saliency,gradient-x-input"
    )
    assert f"{command} --out explanation" in words(app)
    assert (field(app, "x").value, field(app, "y").value) == (30, 40)


CHANGES = {
    "item": (DETECTOR, lambda app: field(app, "item").set_value(1), {"picture", "map saliency"}),
    "target by text": (DETECTOR, lambda app: field(app, "target").set_value("box:1"), {"picture", "map saliency"}),
    "target by choice": (DETECTOR, lambda app: field(app, "box").set_value("box:1"), {"picture", "map saliency"}),
    "edge": (DETECTOR, lambda app: field(app, "edge").set_value("left"), {"map saliency"}),
    "contrast": (DETECTOR, lambda app: field(app, "against").set_value("all other classes"), {"map saliency"}),
    "score": (DETECTOR, lambda app: field(app, "least").set_value(0.95), {"picture"}),
    "x": (SEGMENTER, lambda app: field(app, "x").set_value(5), {"picture", "map saliency"}),
    "unit": (SEGMENTER, lambda app: field(app, "click").set_value("class"), {"picture", "map saliency"}),
    "tint": (SEGMENTER, lambda app: field(app, "tint").set_value(10), {"picture"}),
    "blend": (SEGMENTER, lambda app: field(app, "blend").set_value(90), {"map saliency"}),
    "method": (SEGMENTER, lambda app: field(app, "method").set_value(["saliency", "gradient-x-input"]), {"map gradient-x-input"}),
    "model": (SEGMENTER, lambda app: field(app, "model").set_value(DETECTOR), {"picture", "map saliency"}),
}


@pytest.mark.parametrize(("model", "change", "expected"), CHANGES.values(), ids=CHANGES)
def test_one_input_changes_what_it_should_and_nothing_else(model: str, change: Any, expected: set[str]) -> None:
    app = open_page(model=model, target="pixel:50,50" if model == SEGMENTER else "box:0")
    before = pictures(app)
    change(app).run()
    after = pictures(checked(app))
    assert {key for key in after if after[key] != before.get(key)} == expected


def test_shared_scale_ends_all_maps_at_the_largest_limit() -> None:
    app = open_page(model=SEGMENTER, target="pixel:50,50", method=["saliency", "gradient-x-input"])
    each = [shown["bar"]["high"] for key, shown in pictures(app).items() if key != "picture"]
    field(app, "scale").set_value("shared").run()
    shared = [shown["bar"]["high"] for key, shown in pictures(checked(app)).items() if key != "picture"]
    assert shared == [max(each, key=float)] * 2 and each[0] != each[1]
    assert f"--scale {float(shared[0]):.2g}"[:12] in words(app)


def test_a_target_of_the_other_model_is_let_go_but_a_wrong_address_is_told() -> None:
    app = open_page(model=SEGMENTER, target="pixel:5,5")
    field(app, "model").set_value(DETECTOR).run()
    assert not checked(app).warning and field(app, "target").value == ""
    app = open_page(model=DETECTOR, target="pixel:5,5")
    assert len(app.warning) == 1 and "has no such target" in app.warning[0].value
    assert list(pictures(app)) == ["picture"]


@pytest.mark.parametrize(
    "address",
    [
        {"target": "box:999"},
        {"target": "]]<b>"},
        {"set": "occlusion.widow=3"},
        {"set": "x"},
        {"data": "camvid:../..#test"},
        {"data": "nonsense"},
    ],
    ids=str,
)
def test_a_wrong_address_gets_its_line(address: dict[str, str]) -> None:
    app = open_page(model=DETECTOR, **address)
    assert len(app.warning) == 1 and "\n" not in app.warning[0].value


def test_a_refusal_stands_in_place_of_its_map(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*args: Any, **kwargs: Any) -> Maps:
        """Never."""
        raise MethodError("this method wants [nothing](http://x) of the kind")

    METHODS["saliency"]  # the registry is read before something is put into it
    monkeypatch.setitem(METHODS._entries, "refuses", Method("refuses", refuses, "gradients", {}))
    app = open_page(model=DETECTOR, method=["refuses", "saliency"])
    assert list(pictures(app)) == ["picture", "map saliency"]
    assert app.warning[0].value == r"this method wants \[nothing\]\(http\:\/\/x\) of the kind"


def test_settings_reach_the_method_and_the_command() -> None:
    app = open_page(model=SEGMENTER, target="pixel:50,50", method=["occlusion"], set="occlusion.window=48 occlusion.stride=48")
    assert "window 48, stride 48" in words(app)
    assert "--set occlusion.stride=48 --set occlusion.window=48" in words(app)


def test_coarse_windows_are_seen_first_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def slow(model: Any, image: torch.Tensor, decisions: Any, generator: Any, *, window: int = 0, stride: int = 0) -> Maps:
        asked.append((window, stride))
        return Maps(torch.ones(len(decisions), *image.shape[-2:]), torch.ones(len(decisions)), used={"window": window})

    monkeypatch.setitem(METHODS._entries, "slow", Method("slow", slow, "gradients", {"window": 0, "stride": 0}))
    app = open_page(model=SEGMENTER, method=["slow"])
    assert list(pictures(checked(app))) == ["picture", "map slow"]
    field(app, "weak").set_value(30).run()
    open_page(model=SEGMENTER, method=["slow"], set="slow.window=12")
    assert asked == [(32, 32), (16, 16), (0, 0), (24, 24), (12, 0)]


def test_the_address_says_what_is_seen() -> None:
    app = open_page(model=SEGMENTER, data="scenes:val", item="7")
    assert "val-00007" in words(app)
    field(app, "item").set_value(3).run()
    assert "val-00003" in words(app) and app.query_params["item"] == "3"
    assert app.query_params["data"] == "scenes:val"
    for wrong in ("many", "-1", "999", "²"):
        assert opened("inspect", model=SEGMENTER, method=["saliency"], item=wrong).query_params["item"] == str(199 * (wrong == "999"))


def png(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(buffer, "png")
    return buffer.getvalue()


def test_an_upload_is_explained() -> None:
    app = open_page(model=SEGMENTER, data="upload")
    assert not pictures(app) and len(app.info) == 1
    app.file_uploader[0].upload("mine.png", png((70, 50))).run()
    assert (pictures(checked(app))["picture"]["width"], pictures(app)["picture"]["height"]) == (70, 50)
    assert "xaitools explain mine.png --model" in words(app)


BAD = {
    "renamed page": ("a.png", b"<html><script>alert(1)</script></html>"),
    "cut short": ("a.png", png((300, 300))[:9000]),
    "empty": ("a.png", b""),
    "one pixel": ("a.png", png((1, 1))),
    "script in the name": ("<script>alert(1)</script>.png", b"GIF89a"),
}


@pytest.mark.parametrize(("name", "content"), BAD.values(), ids=BAD)
def test_a_bad_upload_gets_one_line(name: str, content: bytes) -> None:
    app = open_page(model=SEGMENTER, data="upload")
    app.file_uploader[0].upload(name, content, "image/png").run()
    assert len(checked(app).warning) == 1 and not pictures(app)
    assert "<script>" not in app.warning[0].value.replace("\\<", "")


def test_nothing_is_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = METHODS["gradient-x-input"]

    def counted(*args: Any, **kwargs: Any) -> Maps:
        """Counts."""
        calls.append(1)
        return original.function(*args, **kwargs)

    monkeypatch.setitem(METHODS._entries, "counted", Method("counted", counted, "gradients", {}))
    cached._explain.cache_clear()
    app = open_page(model=SEGMENTER, target="pixel:50,50", method=["counted"])
    field(app, "blend").set_value(10).run()
    open_page(model=SEGMENTER, target="pixel:50,50", method=["counted"])
    assert len(calls) == 1
    open_page(model=SEGMENTER, target="pixel:50,51", method=["counted"])
    assert len(calls) == 2


def test_other_weights_under_the_same_name_are_another_model(tiny_models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cached.load(SEGMENTER)
    assert cached.load(SEGMENTER) is first
    facts = zoo.card(SEGMENTER)
    for place in (zoo, zoo.shipped):
        monkeypatch.setattr(place, "card", lambda name: facts | {"weights": {"sha256": "0" * 64}})
    with pytest.raises(ValueError, match="sha256"):
        cached.load(SEGMENTER)


def test_files_are_those_of_the_command_line() -> None:
    question = cached.Question(cached.load(DETECTOR), sources.from_dataset("scenes:test", 0), "box:0", "saliency")
    prediction, result = cached.predict(question.loaded, question.picture), cached.explain(question)
    explanation = Explanation(DETECTOR, "test-00000", question.picture.sample.image, prediction, ("box:0",), ("saliency",), (result,))
    made = cached.files(explanation, "each", "pdf")
    assert set(made) == {"figure.pdf", "attributions.safetensors", "explanation.json"}
    assert made["figure.pdf"].startswith(b"%PDF")
    assert json.loads(made["explanation.json"])["explanations"][0]["target"] == "box:0"
    assert torch.equal(load(made["attributions.safetensors"])["saliency"][0], result.values)


def test_the_model_brings_its_kind_of_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {name: zoo.card(name) for name in zoo.names()}
    facts[SEGMENTER]["data"] = {"train": "camvid:{data}/cam#train", "test": "camvid:{data}/cam#test"}
    monkeypatch.setattr(zoo, "card", facts.get)
    monkeypatch.setattr(sources, "offered", lambda: [*sources.SCENES, "camvid:cam#test"])
    app = open_page(data="scenes:val")
    assert (field(app, "model").value, field(app, "data").value) == (DETECTOR, "scenes:val")
    field(app, "model").set_value(SEGMENTER).run()
    assert field(app, "data").value == "camvid:cam#test"
    field(app, "model").set_value(DETECTOR).run()
    assert field(app, "data").value == "scenes:test"
