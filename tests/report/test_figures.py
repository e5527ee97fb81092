"""Figures: neutral zeros, equal bytes, text that is text, and nothing that covers or leaves anything."""

from __future__ import annotations

import io
import itertools
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from xaitools.errors import XaiError
from xaitools.report.colours import class_colours, limit_of, map_rgb, overlay_rgb
from xaitools.report.figures import COLOURS, figure, number
from xaitools.report.page import extent, figure_bytes, fit, save_figure
from xaitools.types import Attribution, Explanation, Prediction, Refusal

CAMVID = ("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist")


def street(height: int, width: int) -> torch.Tensor:
    """A sky, a road, and a red box on it."""
    image = torch.tensor([0.5, 0.7, 0.9])[:, None, None].repeat(1, height, width) + 0.1 * torch.linspace(-1, 1, width)
    image[:, height // 2 :] = 0.35
    image[:, height // 3 : 2 * height // 3, width // 4 : width // 2] = torch.tensor([0.8, 0.2, 0.1])[:, None, None]
    return image.clip(0, 1)


def relevance(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    blob = torch.exp(-8 * ((x + 0.25) ** 2 + y**2)) - 0.4 * torch.exp(-20 * ((x - 0.4) ** 2 + y**2))
    return 1e-3 * (blob + 0.05 * torch.randn(height, width, generator=generator))


def segmented(height: int, width: int, classes: tuple[str, ...] = CAMVID) -> Prediction:
    semantic = torch.zeros(height, width, dtype=torch.int64)
    semantic[height // 2 :] = 3
    semantic[height // 3 : 2 * height // 3, width // 4 : width // 2] = 8
    semantic[: height // 2, 3 * width // 4 :] = 5
    return Prediction(
        "segmentation", classes, (height, width), torch.tensor([3, 0, 5, 8]), torch.tensor([0.9, 0.9, 0.8, 0.7]), semantic=semantic
    )


def detected(height: int, width: int, count: int = 15) -> Prediction:
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([0.75 * width, 0.75 * height])
    boxes = torch.cat([corner, corner + torch.tensor([0.22 * width, 0.2 * height])], 1)
    labels = torch.tensor([1 + index % 3 for index in range(count)])
    classes = ("background", "RBC", "WBC", "Platelets")
    return Prediction("detection", classes, (height, width), labels, torch.linspace(0.99, 0.3, count), boxes=boxes, background=0)


def explained(
    prediction: Prediction, targets: tuple[str, ...], methods: tuple[str, ...], refused: tuple[str, str] | None = None
) -> Explanation:
    size = prediction.image_size

    def pair(seed: int, target: str, method: str) -> Attribution | Refusal:
        if (target, method) == refused:
            return Refusal(target, method, f"{method} refuses {target}: this model is a black box; use occlusion-drise or drise")
        values = relevance(*size, seed)
        ledger = (("stem", 1.25), ("head", 7.31 - 1.25 - float(values.double().sum()))) if method.startswith("lrp") else None
        params = {"score": "margin"} if method == "occlusion" and target.startswith("box") else {}
        return Attribution(values, target, method, params, 0, 7.31, ledger)

    pairs = tuple(pair(seed, *each) for seed, each in enumerate(itertools.product(targets, methods)))
    return Explanation("unet-camvid", "street.png", street(*size), prediction, targets, methods, pairs)


LONG = tuple(f"a class with quite a long name, of the kind that some taxonomies like, number_{index}" for index in range(11))
METHODS = ("occlusion", "saliency", "lrp-epsilon-alpha2beta1-flat")

CASES = {
    "one target": lambda: explained(segmented(360, 480), ("region:Car",), METHODS),
    "boxes": lambda: explained(detected(480, 640), ("box:0", "box:11:left"), ("occlusion", "lrp")),
    "scene": lambda: explained(segmented(96, 96), ("region:Car", "pixel:40,50"), ("gradcam", *METHODS), ("region:Car", "gradcam")),
    "seven methods": lambda: explained(segmented(60, 80), ("class:Sky:vs:",), tuple(f"method-{index}" for index in range(7))),
    "wide": lambda: explained(segmented(100, 600), ("region:Car",), METHODS),
    "tall": lambda: explained(detected(600, 100), ("box:0",), METHODS),
    "long names": lambda: explained(segmented(120, 160, LONG), (f"region:{LONG[8]}",), METHODS),
    "one map": lambda: relevant("lrp"),
    "zero": lambda: relevant("saliency", torch.zeros(60, 80)),
    "sheet": lambda: [explained(segmented(90, 120), ("region:Car",), METHODS), explained(detected(120, 90), ("box:0",), METHODS)] * 2,
}


def relevant(method: str, values: torch.Tensor | None = None) -> Attribution:
    values = relevance(60, 80) if values is None else values
    return Attribution(values, "pixel:10,10", method, {}, 0, 2.0, (("stem", 1.0),) if method == "lrp" else None)


def words(drawing):
    """Every text of a drawing with its place in pixels."""
    FigureCanvasAgg(drawing).draw()
    renderer = drawing.canvas.get_renderer()
    texts = [text for text in drawing.findobj(matplotlib.text.Text) if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts]


@pytest.mark.parametrize(("case", "width"), [*((case, None) for case in CASES), ("sheet", 85), ("long names", 85), ("boxes", 60)])
def test_no_text_covers_another_or_leaves_the_page(case, width):
    drawing = figure(CASES[case](), dpi=100, width_mm=width)
    placed = words(drawing)
    for text, box in placed:
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= drawing.bbox.x1 + 1 and box.y1 <= drawing.bbox.y1 + 1, f"{text!r} is cut off"
    for (one, first), (two, second) in itertools.combinations(placed, 2):
        over = min(first.x1, second.x1) - max(first.x0, second.x0), min(first.y1, second.y1) - max(first.y0, second.y0)
        assert min(over) < 2, f"{one!r} covers {two!r}"


@pytest.mark.parametrize("form", ["png", "pdf", "svg"])
def test_same_input_same_bytes(form, tmp_path):
    make = CASES["scene"]
    first, second = (figure_bytes(figure(make(), dpi=60), form) for _ in range(2))
    assert first == second
    assert not any(word in first for word in (b"CreationDate", b"Matplotlib", b"dc:date", b"Software"))
    drawing = figure(make(), dpi=60)
    drawing.savefig(tmp_path / f"user.{form}")
    save_figure(drawing, tmp_path / f"ours.{form}")
    assert (tmp_path / f"user.{form}").read_bytes() == (tmp_path / f"ours.{form}").read_bytes() == first
    assert figure_bytes(figure(replace(make(), targets=("region:Car",), attributions=make().attributions[:4]), dpi=60), form) != first


def test_text_stays_text():
    svg = figure_bytes(figure(CASES["scene"](), dpi=60), "svg")
    written = {"".join(each.itertext()).strip() for each in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}
    assert {"region:Car, logit 7.31", "occlusion", "Car", "0", "refused"} <= written
    assert b"/Subtype /Type3" not in (pdf := figure_bytes(figure(CASES["scene"](), dpi=60), "pdf")) and b"/FontFile2" in pdf


def test_the_page_is_as_wide_as_asked():
    picture = Image.open(io.BytesIO(figure_bytes(figure(CASES["scene"](), width_mm=120, dpi=100), "png")))
    assert picture.width == pytest.approx(120 / 25.4 * 100, abs=1)
    page = figure_bytes(figure(CASES["scene"](), width_mm=120), "pdf")
    assert float(re.search(rb"/MediaBox \[ ?0 0 ([\d.]+)", page)[1]) == pytest.approx(120 / 25.4 * 72, abs=0.1)


def test_nothing_of_matplotlib_is_left_changed():
    before = dict(matplotlib.rcParams)
    figure_bytes(figure(relevant("lrp"), font="DejaVu Serif"), "svg")
    assert dict(matplotlib.rcParams) == before


def test_a_users_settings_do_not_reach_the_figure():
    plain = figure_bytes(figure(relevant("lrp"), dpi=60), "svg")
    with matplotlib.rc_context({"font.size": 20, "image.cmap": "jet", "axes.facecolor": "pink", "svg.fonttype": "path"}):
        assert figure_bytes(figure(relevant("lrp"), dpi=60), "svg") == plain


def test_zero_is_white_and_the_ends_are_equally_dark():
    colours = map_rgb(np.array([[-2.0, -1.0, 0.0, 1.0, 2.0, np.nan]]), 1.0)[0].astype(int)
    assert colours[2].tolist() == [255, 255, 255]
    assert (colours[0] == colours[1]).all() and (colours[3] == colours[4]).all(), "beyond the limit the colour stays"
    assert len(set(colours[5])) == 1 and colours[5][0] < 255, "undefined is grey, not white"
    ramp = map_rgb(np.linspace(-1, 1, 201)[None], 1.0)[0] @ [0.299, 0.587, 0.114]
    assert np.abs(ramp - ramp[::-1]).max() < 25 and (np.diff(ramp[100:]) <= 0).all()
    red, blue = colours[3], colours[1]
    assert red[0] > red[2] and blue[2] > blue[0], "red speaks for, blue against"


def test_the_bars_zero_is_the_maps_zero():
    drawing = figure(relevant("lrp"), dpi=60)
    bar = next(ax for ax in drawing.axes if len(ax.get_xticks()) == 3)
    low, zero, high = bar.get_xticks()
    assert low == -high and zero == 0 and [label.get_text() for label in bar.get_xticklabels()] == [number(low), "0", number(high)]
    assert high == pytest.approx(limit_of(relevance(60, 80)))
    assert COLOURS(0.5)[:3] == (1.0, 1.0, 1.0)
    assert "at least 99.5 % of |values| within" in [text for text, _ in words(drawing)]


def test_a_zero_map_is_white_and_has_no_scale():
    drawing = figure(relevant("saliency", torch.zeros(60, 80)), dpi=60)
    assert "zero everywhere" in [text for text, _ in words(drawing)] and len(drawing.axes) == 1
    assert (map_rgb(torch.zeros(4, 4), limit_of(torch.zeros(4, 4))) == 255).all()
    image = street(40, 40)
    assert (np.ptp(overlay_rgb(image, torch.zeros(40, 40), 0.0).astype(int), axis=2) == 0).all(), "the greyed image alone"


def test_the_limit_is_robust_and_keeps_small_spots():
    values = torch.linspace(-1, 1, 2001)[None].clone()
    values[0, 0] = 1e6
    assert limit_of(values) == pytest.approx(0.995, abs=0.01)
    spot = torch.zeros(100, 100)
    spot[50, 50:53] = torch.tensor([1.0, 2.0, 4.0])
    assert 3.5 < limit_of(spot) <= 4.0
    assert limit_of(-spot) == limit_of(spot) and limit_of(torch.full((2, 2), float("nan"))) == 0


def test_the_overlay_covers_in_proportion():
    grey = torch.full((3, 1, 3), 0.5)
    none, half, full = overlay_rgb(grey, torch.tensor([[0.0, 0.5, 1.0]]), 1.0)[0].astype(int)
    assert len(set(none)) == 1
    assert half[0] - half[2] == pytest.approx((full[0] - full[2]) / 2, abs=2)
    against = overlay_rgb(grey, torch.tensor([[0.0, -0.5, -1.0]]), 1.0)[0].astype(int)
    assert against[2][2] > against[2][0]


def test_scales():
    small, large = (replace(relevant("lrp"), values=factor * relevance(60, 80), target=f"pixel:{factor},1") for factor in (1, 10))

    def limits(**look: object) -> list[float]:
        return [ax.get_xticks()[2] for ax in figure([small, large], dpi=60, **look).axes if len(ax.get_xticks()) == 3]

    assert limits() == limits(scale="each") == [pytest.approx(limit_of(small.values)), pytest.approx(limit_of(large.values))]
    assert limits(scale="shared") == [pytest.approx(limit_of(large.values))] * 2
    assert limits(scale="0.25") == limits(scale=0.25) == [0.25, 0.25]
    sheet = figure([CASES["one target"](), CASES["wide"]()], dpi=60)
    assert sum(len(ax.get_xticks()) == 3 for ax in sheet.axes) == len(METHODS), "one bar for each column"


def test_lrp_says_where_its_relevance_went_and_a_margin_that_it_is_one():
    told = [text for text, _ in words(figure(CASES["boxes"](), dpi=60))]
    assert any(text.startswith("sum of relevance") for text in told) and any(text.startswith("absorbed") for text in told)
    assert "explains the margin 7.31" in told and "box:11:left, edge output 7.31" in told


def test_a_refused_pair_gives_its_reason():
    told = " ".join(text for text, _ in words(figure(CASES["scene"](), dpi=60)))
    assert "refused" in told and "black box" in told


def test_no_titles_leaves_only_numbers_and_the_legend():
    told = [text for text, _ in words(figure(CASES["one target"](), dpi=60, titles=False))]
    assert not any("region" in text or text in METHODS or "absorbed" in text for text in told)
    assert {"Car", "0"} <= set(told)


def test_the_explained_box_is_black_and_keeps_its_label():
    drawing = figure(explained(detected(480, 640, 60), ("box:59",), ("lrp",)), dpi=60)
    labels = [text.get_text() for text in drawing.axes[0].texts]
    assert labels[0].startswith("59 ") and len(set(labels)) == len(labels)


def test_classes_keep_their_colours_and_never_share_one():
    assert class_colours([1, 3])[3] == class_colours([3, 7, 2])[3]
    assert len(set(class_colours(range(16)).values())) == 16
    assert len(set(class_colours([0, 16, 32]).values())) == 3


def test_many_targets_end_in_a_count(monkeypatch):
    monkeypatch.setattr("xaitools.report.figures.MAX_ROWS", 2)
    drawing = figure(explained(detected(30, 40, 5), tuple(f"box:{index}" for index in range(5)), ("lrp",)), dpi=60)
    assert "3 more targets are in explanation.json" in [text for text, _ in words(drawing)]


@pytest.mark.parametrize(
    ("look", "told"),
    [
        ({"scale": "often"}, "each, shared, or"),
        ({"scale": -1}, "each, shared, or"),
        ({"font": "No Such Font"}, "not installed"),
        ({"width_mm": 5}, "30 to 1000 mm"),
        ({"dpi": 9000}, "30 to 1200 dpi"),
        ({"layout": "poster"}, "single or sheet"),
    ],
)
def test_a_wrong_look_is_one_line(look, told):
    with pytest.raises(XaiError, match=told):
        figure(relevant("lrp"), **look)


def test_what_cannot_be_drawn_is_one_line():
    for nothing in ([], 3, ["map"], [relevant("lrp"), CASES["zero"], 1]):
        with pytest.raises(XaiError, match="expected an attribution"):
            figure(nothing)
    with pytest.raises(XaiError, match="takes one image"):
        figure(CASES["sheet"](), layout="single")
    with pytest.raises(XaiError, match="maps have the size"):
        figure(relevant("lrp"), image=street(10, 10))
    with pytest.raises(XaiError, match="png, pdf, svg"):
        figure_bytes(figure(relevant("lrp")), "gif")


def test_text_is_fitted():
    assert fit("a short one", 100, 8) == ["a short one"]
    assert fit("", 100, 8) == [] and fit("", 100, 8, 3) == []
    [middle] = fit(LONG[7], 40, 8)
    assert middle.startswith("a class") and middle.endswith("number_7") and extent(middle, 8) <= 40
    lines = fit(LONG[7] + "x" * 100, 30, 8, 4)
    assert len(lines) == 4 and lines[-1].endswith("…") and all(extent(line, 8) <= 30 for line in lines)
    assert fit("tab\tand\x00zero\n", 100, 8) == ["tab and zero"]
    assert fit("$x_1$ costs $5", 100, 8) == ["$x_1$ costs $5"]
