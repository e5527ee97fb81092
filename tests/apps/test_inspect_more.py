"""The parts of Inspect beside maps: deletion, the steps of a detector, ledgers, panels, and what is weak."""

import base64
import io
import json
from dataclasses import replace
from typing import Any

import cached
import numpy as np
import pytest
import sources
import torch
from components.views import MASKED
from PIL import Image
from streamlit.testing.v1 import AppTest

from tests.apps.pages import checked, field, opened, pictures, words
from xaitools.locations import part
from xaitools.metrics.maps import blurred, order
from xaitools.types import Prediction

DETECTOR, SEGMENTER = "tiny-detector", "tiny-segmenter"


def inspected(**address: Any) -> AppTest:
    return opened("inspect", **{"method": ["saliency"], **address})


def pixels(picture: dict[str, Any], part: str = "image") -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture[part].partition(",")[2]))))


def test_the_strongest_pixels_go_first_and_the_score_is_followed() -> None:
    app = inspected(model=SEGMENTER, target="pixel:50,50", delete="true", share="20")
    shot = sources.from_dataset("scenes:test", 0)
    question = cached.Question(cached.load(SEGMENTER), shot, "pixel:50,50", "saliency")
    gone = torch.zeros(96 * 96, dtype=torch.bool)
    gone[order(cached.explain(question).values)[: round(0.2 * 96 * 96)]] = True
    expected = sources.as_rgb(torch.where(gone.view(96, 96), blurred(shot.sample.image), shot.sample.image))
    assert (pixels(pictures(app)["rest"]) == expected).all()
    curve = cached.deletion(question)
    assert curve is not None and len(curve.ordered) == 17
    loaded, label = question.loaded, int(cached.predict(question.loaded, shot).semantic[50, 50])
    for place, image in ((0, shot.sample.image), (16, blurred(shot.sample.image))):
        logits = loaded.model.module(loaded.model.normalise(image[None]))[0, :, 50, 50]
        assert (
            curve.ordered[place] == pytest.approx(float(logits.softmax(0)[label]), abs=1e-5) == pytest.approx(curve.random[place], abs=1e-5)
        )
    assert f"score {curve.ordered[0]:.3f}, with 20 % deleted" in words(app)
    rule, lines = json.loads(app.get("vega_lite_chart")[0].proto.spec)["layer"]
    assert rule["data"]["values"] == [{"deleted": 20}]
    assert [row["score"] for row in lines["data"]["values"]] == pytest.approx([*curve.ordered, *curve.random])
    assert [row["deleted"] for row in lines["data"]["values"][:3]] == [0, 6.25, 12.5]
    before = pictures(app)["rest"]
    field(app, "share").set_value(60).run()
    assert pictures(checked(app))["rest"]["image"] != before["image"]


def test_masks_are_seen_and_can_be_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    predict = cached.predict

    def with_masks(loaded: cached.Loaded, shot: sources.Picture) -> Prediction:
        found = predict(loaded, shot)
        masks = torch.zeros(len(found.labels), 96, 96, dtype=torch.bool)
        masks[0, 10:20, 30:45] = True
        return replace(found, masks=masks, cells=torch.ones(len(masks), 4, 4, dtype=torch.bool))

    monkeypatch.setattr(cached, "predict", with_masks)
    app = inspected(model=DETECTOR, method=[], target="box:0")
    alpha = np.zeros((96, 96), np.uint8)
    alpha[10:20, 30:45] = MASKED
    assert (pixels(pictures(app)["picture"], "layer")[..., 3] == alpha).all()
    field(app, "edge").set_value("mask").run()
    assert field(checked(app), "target").value == "mask:0" and "Why the mask of box 0, " in words(app)
    alpha[10:20, 30:45] = 255
    alpha[11:19, 31:44] = MASKED
    assert (pixels(pictures(app)["picture"], "layer")[..., 3] == alpha).all()
    assert pictures(app)["picture"]["boxes"][0]["chosen"] and field(app, "against").disabled
    field(app, "edge").set_value("left").run()
    assert field(checked(app), "target").value == "box:0:left"


def test_boxes_of_each_step_and_what_other_thresholds_leave() -> None:
    app = inspected(model=DETECTOR, steps="true")
    trace = cached.trace(cached.load(DETECTOR), sources.from_dataset("scenes:test", 0))
    final = int((trace.finals >= 0).sum())
    assert len(pictures(app)["step picture"]["boxes"]) == final
    for name, count in (("proposals", int((trace.first.finals >= 0).sum())), ("anchors", min(300, len(trace.first.labels)))):
        field(app, "step").set_value(name).run()
        assert len(pictures(checked(app))["step picture"]["boxes"]) == count
    field(app, "step").set_value("suppressed").run()
    suppressed = len(pictures(app)["step picture"]["boxes"])
    field(app, "overlap").set_value(0.05).run()
    assert len(pictures(checked(app))["step picture"]["boxes"]) >= suppressed and "suppressed at an IoU above 0.05" in words(app)
    field(app, "above").set_value(0.95).run()
    assert f"final boxes {int((trace.scores > 0.95).sum())}, with the model's own thresholds {final}" in words(checked(app))


def test_a_segmenter_has_no_steps() -> None:
    app = inspected(model=SEGMENTER, steps="true")
    assert "step picture" not in pictures(app) and not any(getattr(each, "key", "") == "steps" for each in app.main)


def test_what_is_weaker_is_not_shown_and_the_numbers_stay() -> None:
    app = inspected(model=SEGMENTER, target="pixel:50,50", blend="100")
    before = pictures(app)["map saliency"]
    field(app, "weak").set_value(50).run()
    after = pictures(checked(app))["map saliency"]
    white = [(pixels(each) == 255).all(-1).mean() for each in (before, after)]
    assert white[1] > white[0] and after["bar"] == before["bar"] and after["alt"] == before["alt"]


def test_a_ledger_is_told_and_drawn() -> None:
    app = inspected(model=SEGMENTER, target="pixel:50,50", method=["lrp"])
    assert "of the score reaches the image" in words(app) and len(app.get("image")) == 1
    assert app.dataframe[0].value["absorbed"].sum() != 0


@pytest.mark.parametrize(
    "method", [*(pytest.param(name, marks=pytest.mark.long) for name in ("occlusion-panels", "feature-projection")), "detection-trace"]
)
def test_what_a_method_made_is_shown_with_words_for_it(method: str) -> None:
    app = inspected(
        model=DETECTOR,
        target="box:0",
        method=[method],
        set="occlusion-panels.window=48 occlusion-panels.stride=48"[: 99 * (method[0] == "o")],
    )
    [image] = app.get("image")
    assert f"{method} for box:0" in image.proto.imgs[0].alt


def test_a_fault_of_ours_is_said_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit, told to keep details to itself, would leave half a page without a word."""
    monkeypatch.setattr(cached, "explain", lambda *_: [][0])
    app = AppTest.from_file(str(part("apps") / "dashboard.py"), default_timeout=200)
    app.query_params.update({"model": SEGMENTER, "method": "saliency"})
    app.run()
    assert [each.value for each in app.error] == [
        "This page came to a fault of its own (IndexError) that the server's terminal tells; reload it or choose anew."
    ]
    assert len(app.exception) == 1
