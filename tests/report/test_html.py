from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from tests.probes.toys import Boxes, Shapes, reader
from xaitools.audit import probe, probe_models
from xaitools.report import parts
from xaitools.report.html import page, save_probe, write_report

HOSTILE = "<script>alert('x')</script>\"&"


class Hostile(Shapes):
    semantic_classes = ("background", HOSTILE, "square")
    classes = (HOSTILE, "square")
    things = frozenset(classes)


class Tags(HTMLParser):
    """Every tag opened, and those never closed."""

    VOID = frozenset({"meta", "img", "br", "rect", "line", "path"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("several") / "run"
    models = [reader("object"), reader("background")]
    for model in models:
        model.classes = Hostile.semantic_classes
        model.name = f"{model.name} {HOSTILE}"
    write_report(probe_models(models, Hostile(8, broken=(3,)), ["background", "fog"], severities=(1, 3)), out)
    return out


def test_words_from_outside_are_escaped_and_nothing_is_loaded_or_run(folder):
    pages = [*folder.glob("*/report.html"), folder / "comparison.html"]
    assert len(pages) == 3
    for path in pages:
        text = path.read_text()
        tags = Tags(text)
        assert tags.open == [] and "script" not in {tag for tag, _ in tags.seen}
        assert "<script" not in text and "&lt;script&gt;" in text
        links = [value for _, attrs in tags.seen for name, value in attrs.items() if name in ("src", "href")]
        assert all(value.startswith(("data:image/", "#")) or value.endswith("/report.html") for value in links)
        assert not [name for _, attrs in tags.seen for name in attrs if name.startswith("on")]
        assert not re.search(r"url\(|@import|https?://", text)
        assert path.stat().st_size < 15 * 2**20


def test_the_page_says_what_the_report_says(folder):
    (path, _) = sorted(folder.glob("*/report.html"))
    text = path.read_text()
    assert "background" in text and "gap" in text and "cut short" in text and "too narrow" in text
    assert text.count('src="data:image/') == 2
    for figure in ("drops", "fog", "gap"):
        assert (path.parent / "figures" / f"{figure}.png").read_bytes().startswith(b"\x89PNG")


def test_comparison_shows_each_model_beside_the_other(folder):
    import json

    content = json.loads((folder / "comparison.json").read_text())
    assert [model["folder"] for model in content["models"]] == sorted(path.parent.name for path in folder.glob("*/report.json"))[::-1]
    drops = [model["probes"]["gap"]["drop"] for model in content["models"]]
    assert drops[1] - drops[0] > 0.5
    text = (folder / "comparison.html").read_text()
    assert all(parts.points(drop) in text for drop in drops)


def test_undefined_numbers_are_words():
    report = probe(reader("object"), Shapes(6, kinds=1), ["background"]).report
    text = page(report, {})
    assert "undefined" in text and "None" not in text and "nan" not in text.lower()


def test_a_detector_gets_its_pictures(tmp_path):
    written = save_probe(probe(Boxes(), Shapes(6), ["texture"]), tmp_path / "run")
    assert [path.name for path in written] == ["report.json", "report.html", "drops.png", "patch_shuffle.png", "swap.png"]
    assert save_probe(probe(Boxes(), Shapes(6), ["texture"]), tmp_path / "run") == written


def test_a_picture_that_does_not_fit_is_left_out(monkeypatch):
    from xaitools.report import html

    result = probe(Boxes(), Shapes(6), ["texture"])
    monkeypatch.setattr(html, "MOST", 10)
    figures = dict(html._figures(result))
    assert "data:image" not in page(result.report, figures) and "No example pictures" in page(result.report, figures)


def test_intervals_are_drawn_where_they_belong():
    scale = (-10.0, 90.0)
    drawn = parts.plot({"drop": 0.4, "ci": [0.2, 0.6]}, scale, "cue")
    assert 'x="24.0" width="96.0"' in drawn and "M72.0 6v8M72.0 10H168.0M168.0 6v8" in drawn
    assert "rect" not in parts.plot({"drop": None, "ci": None}, scale, "cue")
