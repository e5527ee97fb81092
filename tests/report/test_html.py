from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from tests.probes.toys import Boxes, Shapes, reader
from xaitools.audit import probe, probe_models
from xaitools.report import parts
from xaitools.report.comparison import comparison_page
from xaitools.report.html import page, save_probe, write_report
from xaitools.report.page import figure_bytes
from xaitools.report.probe_figures import image_figure

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
    content = json.loads((folder / "comparison.json").read_text())
    assert [model["folder"] for model in content["models"]] == sorted(path.parent.name for path in folder.glob("*/report.json"))[::-1]
    drops = [model["probes"]["gap"]["drop"] for model in content["models"]]
    assert drops[1] - drops[0] > 0.5
    text = (folder / "comparison.html").read_text()
    assert all(parts.points(drop) in text for drop in drops)


def test_no_interval_of_a_control_leaves_its_plot(folder):
    content = json.loads((folder / "comparison.json").read_text())
    next(iter(content["models"][0]["controls"].values())).update(drop=-0.1, ci=[-0.8, 0.1])
    ends = [float(end) for path in re.findall(r'class="ci" d="M([^"]+)"', comparison_page(content)) for end in re.findall(r"[\d.-]+", path)]
    assert min(ends) >= 0 and max(ends) <= parts.PLOT


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
    assert "data:image" not in page(result.report, figures) and "did not fit" in page(result.report, figures)
    assert "No example pictures" in page(result.report, {})


def test_intervals_are_drawn_where_they_belong():
    scale = (-10.0, 90.0)
    drawn = parts.plot({"drop": 0.4, "ci": [0.2, 0.6]}, scale, "cue")
    assert 'x="24.0" width="96.0"' in drawn and "M72.0 6v8M72.0 10H168.0M168.0 6v8" in drawn
    assert "rect" not in parts.plot({"drop": None, "ci": None}, scale, "cue")


def test_shares_of_relevance_stand_beside_the_drops(folder):
    (path, _) = sorted(folder.glob("*/report.html"))
    text = path.read_text()
    assert "What changed in the explanation" in text and text.count('class="part-object"') == 2 * 4  # gap, fog and two controls
    report = json.loads((path.parent / "report.json").read_text())
    found = report["probes"]["fog"]["relevance"]
    assert f"{100 * found['before']['object']:.0f} → {100 * found['after']['object']:.0f}" in text
    assert f'width="{200 * found["before"]["object"]:.1f}"' in text
    assert "black box" in page(probe(Boxes(), Shapes(6), ["texture"]).report, {})


def test_many_probes_with_large_pictures_stay_below_fifteen_megabytes():
    """Noise is the worst that JPEG can meet."""
    report = probe(reader("object"), Shapes(6), ["domain"], relevance=0).report
    row = report["probes"]["fog"]
    report = {**report, "probes": {f"fog {number}": row for number in range(40)}}
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1000, 3), dtype=np.uint8)).save(buffer, "PNG", compress_level=1)
    text = page(report, dict.fromkeys(report["probes"], buffer.getvalue()))
    assert 3 < text.count("data:image/") < 40 and len(text.encode()) < 15 * 2**20
    assert "Pictures that did not fit" in text


def test_comparison_shows_the_relevance_of_each_model(folder):
    content = json.loads((folder / "comparison.json").read_text())
    text = (folder / "comparison.html").read_text()
    assert text.count('class="part-object"') == 2 * 2 * 2  # two models, gap and fog, before and after
    for model in content["models"]:
        before = model["relevance"]["gap"]["before"]["object"]
        assert f"object {100 * before:.0f} → " in text


def test_an_image_alone_fills_its_figure_and_carries_boxes():
    image = np.zeros((3, 40, 80), np.float32)
    drawing = image_figure(torch.from_numpy(image), None, {"#ff0000": (40, 10, 60, 30)})
    pixels = np.asarray(Image.open(io.BytesIO(figure_bytes(drawing, "png"))).convert("RGB")).astype(int)
    height, width = pixels.shape[:2]
    assert width / height == pytest.approx(2, rel=0.02) and not pixels[2 : height // 5, 2 : width // 3].any()
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 60)
    rows, columns = np.nonzero(red)
    ends = [columns.mean() * 80 / width, rows.mean() * 40 / height]
    assert ends == pytest.approx([50, 20], abs=0.5) and not red[height // 2, width * 50 // 80]
