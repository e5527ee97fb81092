"""The ledger in words and as bars."""

import pytest
import torch

import xaitools as xt
from tests.nets import picture, segmenter
from xaitools.attribution import explain, explain_many
from xaitools.errors import XaiError
from xaitools.report.shares import grouped, ledger_words
from xaitools.report.store import explanations_of, save_explanation
from xaitools.types import Attribution


def attribution(ledger, score=4.0, method="lrp"):
    return Attribution(torch.full((2, 2), 0.25), "top", method, {}, 0, score, ledger)


def test_layers_are_summed_by_the_beginnings_of_their_names_until_they_fit():
    rows = [(f"body.{block}.{layer}", 1.0) for block in range(10) for layer in range(3)] + [("head", -2.0)]
    assert grouped(rows) == [*((f"body.{block}", 3.0) for block in range(10)), ("head", -2.0)]
    assert grouped(rows, most=5) == [("body", 30.0), ("head", -2.0)]
    flat = [(f"layer{number}", 1.0) for number in range(6)]
    assert grouped(flat, most=4) == [*flat[:3], ("3 more", 3.0)] and grouped(flat) == flat and grouped([]) == []


def test_words():
    assert (
        ledger_words(-4.0, -1.0, [("stem", -2.0), ("head", -1.0)])
        == "25 % of the score reaches the image; stem absorbs 50 %, head absorbs 25 %"
    )
    assert ledger_words(4.0, -1.0, [("a", 5.0)]) == "25 % of the score reaches the image with the other sign; a absorbs 125 %"
    assert ledger_words(0.0, 1.0, [("a", -1.0)]) == ledger_words(1.0, 1.0, []) == ""


def test_bars_are_the_shares_and_only_lrp_has_them():
    drawing = xt.ledger_figure(attribution((("stem", 2.0), ("head", 1.5), ("body", -0.5))))
    (axes,) = drawing.axes
    assert [bar.get_width() for bar in axes.patches] == [25.0, 50.0, 37.5, -12.5]
    for wrong in (attribution(None), attribution((("baseline", 3.0),), method="integrated-gradients")):
        with pytest.raises(XaiError, match="explain with lrp"):
            xt.ledger_figure(wrong)


def test_without_titles_there_are_only_bars_and_their_names():
    told, bare = (xt.ledger_figure(attribution((("stem", 3.0),)), titles=titles) for titles in (True, False))
    assert [text.get_text() for text in bare.texts] == ["reaches the image", "stem"]
    assert len(told.texts) == 4 and bare.get_figheight() < told.get_figheight()


def test_it_is_saved_beside_the_figure(tmp_path):
    model, image = segmenter(), picture()
    both = [*explain_many(model, image, ["class:disc", "class:square"], "lrp"), explain(model, image, "class:disc", "saliency")]
    [explanation] = explanations_of(both, image)
    for _ in range(2):
        names = {path.name for path in save_explanation(explanation, tmp_path / "out", ("png", "svg"))}
        assert {"ledger.png", "ledger.svg"} <= names
    first = (tmp_path / "out" / "ledger.svg").read_bytes()
    save_explanation(explanation, tmp_path / "out", ("svg",))
    assert (tmp_path / "out" / "ledger.svg").read_bytes() == first and not (tmp_path / "out" / "ledger.png").exists()
    plain = {path.name for path in save_explanation(explanations_of(both[-1], image)[0], tmp_path / "other")}
    assert not any(name.startswith("ledger") for name in plain)
