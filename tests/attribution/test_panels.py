"""The deconvnet's way back against a slow plain one, and Zeiler and Fergus' panels against one pass for each window."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.nets import CLASSES, detector, picture, segmenter
from xaitools import explain, explain_many
from xaitools.adapters import ClassificationModel
from xaitools.attribution.sweep import windows
from xaitools.errors import MethodError, XaiError
from xaitools.report.panels import panels_document, panels_figure
from xaitools.report.store import explanations_of, save_explanation


class Small(nn.Module):
    """Convolution, rectifier, pooling, convolution, rectifier, mean; the rectifiers in one of three ways."""

    def __init__(self, way: str = "module") -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second, self.last = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 4, 3), nn.Linear(4, 3)
        self.one, self.two, self.way = nn.ReLU(way == "in place"), nn.ReLU(way == "in place"), way

    def forward(self, x):
        if self.way == "function":
            hidden = F.max_pool2d(F.relu(self.first(x)), 2)
            return self.last(torch.relu_(self.second(hidden)).mean((2, 3)))
        return self.last(self.two(self.second(F.max_pool2d(self.one(self.first(x)), 2))).mean((2, 3)))


def small(way="module"):
    return ClassificationModel(Small(way).double(), CLASSES)


def led_back(net, x, feature, peak):
    """Section 2.1 of the paper, step by step."""
    hidden = F.relu(net.first(x))
    pooled, switches = F.max_pool2d(hidden, 2, return_indices=True)
    found = F.relu(net.second(pooled))
    kept = torch.zeros_like(found)
    kept[:, feature] = found[:, feature]
    if peak:
        kept *= kept == kept.max()
    back = F.conv_transpose2d(kept, net.second.weight)
    back = F.relu(F.max_unpool2d(back, switches, 2, output_size=hidden.shape[-2:]))
    return F.conv_transpose2d(back, net.first.weight, padding=1)[0], found[0]


@pytest.mark.parametrize("part", ["map", "peak"])
@pytest.mark.parametrize("way", ["module", "in place", "function"])
@torch.no_grad()
def test_the_way_back_is_the_deconvnets(way, part):
    model, image = small(way), picture(20, 26).double()
    layer = "second" if way == "function" else "two"
    found = explain(model, image, "class:disc", "feature-projection", layer=layer, part=part)
    expected, maps = led_back(model.module, image[None], found.params["feature"], part == "peak")
    assert found.params["feature"] == int(maps.sum((1, 2)).argmax())
    torch.testing.assert_close(found.values, expected.abs().amax(0), rtol=1e-10, atol=1e-14)
    limit = float(expected.abs().flatten().quantile(0.99))
    assert bool((((found.image - 0.5) * expected)[expected.abs() < limit] >= 0).all())  # grey is 0, and the sign stays
    plain = explain(model, image, "class:disc", "saliency").values
    assert not torch.allclose(plain / plain.max(), found.values / found.values.max(), atol=0.1)


def test_the_target_says_where_the_map_must_answer():
    """The first channel answers on the left, the second on the right; the layer is the same for both targets."""

    class Sides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps, self.last = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 3, 1)

        def forward(self, x):
            return self.last(torch.relu(self.maps(x)))

    from xaitools.adapters import SegmentationModel

    net = Sides()
    net.maps.weight.data = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).view(2, 3, 1, 1)
    net.maps.bias.data.zero_()
    image = torch.zeros(3, 12, 20)
    image[0, :, :10], image[1, :, 10:] = 0.9, 0.8
    left, right = explain_many(
        SegmentationModel(net, CLASSES), image, ["pixel:3,5:disc", "pixel:15,5:disc"], "feature-projection", layer="maps"
    )
    assert (left.params["feature"], right.params["feature"]) == (0, 1)
    assert float(left.values[5, 3]) > 0 and float(left.values.sum()) == pytest.approx(float(left.values[5, 3]))
    assert float(right.values[5, 15]) > 0 and float(right.values.sum()) == pytest.approx(float(right.values[5, 15]))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"layer": "two", "feature": 4}, "has 4 maps; give 0 to 3"),
        ({"layer": "tow"}, "unknown layer 'tow'"),
        ({"part": "half"}, "expected map or peak"),
    ],
)
def test_a_projection_that_cannot_be_is_one_line(options, error):
    with pytest.raises(MethodError, match=error):
        explain(small(), picture(20, 26).double(), "top", "feature-projection", **options)


def case(task):
    if task == "classification":
        return small(), picture(20, 26).double(), "class:disc", {"layer": "two"}
    if task == "segmentation":
        return segmenter(torch.float64), picture(24, 32).double(), "region:disc", {}
    return detector(), picture(40, 48), "box:2,2,30,30:disc", {}


@pytest.mark.parametrize("task", ["classification", "segmentation", "detection"])
def test_panels_equal_one_pass_for_each_window(task):
    model, image, target, options = case(task)
    found = explain(model, image, target, "occlusion-panels", window=10, stride=7, fill="0.5", batch_size=3, **options)
    panels, places = found.panels, windows(*image.shape[1:], 10, 7)
    assert [(y, x) for y in panels.tops.tolist() for x in panels.lefts.tolist()] == [place[:2] for place in places]
    held = []
    hook = model.module.get_submodule(panels.layer).register_forward_hook(lambda module, inputs, out: held.append(out.detach().clone()))
    chances, sums = [], []
    for top, left, bottom, right in places:
        shown = image.clone()
        shown[:, top:bottom, left:right] = 0.5
        chances.append([explain(model, shown, target.replace("disc", name), "occlusion", score="probability", window=40).score
                        for name in model.classes] if task == "detection" else plain_chances(model, shown, image, target))  # fmt: skip
        held.clear()
        model.predict(shown[None])
        sums.append(float(held[0][0, panels.feature].clamp(min=0).sum()))
    hook.remove()
    table = torch.tensor(chances, dtype=torch.float64)
    torch.testing.assert_close(panels.probability.flatten(), table[:, model.classes.index("disc")], rtol=1e-5, atol=1e-7)
    assert (panels.probability.min() < panels.clean_probability) and panels.labels.flatten().tolist() == [
        len(model.classes) if 1 - row.sum() > row.max() else int(row.argmax()) for row in table
    ]
    if task == "classification":
        torch.testing.assert_close(panels.activation.flatten(), torch.tensor(sums, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    worst = places[int(table[:, model.classes.index("disc")].argmin())]
    changed = (panels.occluded != image).any(0).nonzero()
    assert changed.min(0).values.tolist() == list(worst[:2]) and (changed.max(0).values + 1).tolist() == list(worst[2:])
    falls = explain(model, image, target, "occlusion", window=10, stride=7, fill="0.5", score="probability").values
    torch.testing.assert_close(found.values, falls, rtol=1e-4, atol=1e-6)


def plain_chances(model, shown, image, target):
    out = model.logits_from(model.normalise(shown[None])).detach()[0].softmax(0)
    if out.dim() == 1:
        return out.tolist()
    region = model.predict(image[None])[0].semantic == model.classes.index("disc")
    return out[:, region].mean(1).tolist()


def test_panels_are_drawn_and_written(tmp_path):
    model, image, _, _ = case("segmentation")
    many = explain_many(model, image, ["region:disc", "pixel:5,5"], "occlusion-panels", window=10, stride=7)
    drawing = panels_figure(many, image=image)
    assert len(drawing.axes) >= 10 and {"region:disc", "probability"} <= {
        part for text in drawing.texts for part in text.get_text().split(", ")
    }
    (explanation,) = explanations_of(many, image)
    files = {path.name for path in save_explanation(explanation, tmp_path / "out", ("svg",))}
    assert {"panels.json", "panels.svg", "figure.svg"} <= files
    rows = json.loads((tmp_path / "out" / "panels.json").read_text())["panels"]
    assert [row["target"] for row in rows] == ["region:disc", "pixel:5,5"] and rows == panels_document(explanation)["panels"]
    assert torch.equal(torch.tensor(rows[0]["labels"]), many[0].panels.labels)
    save_explanation(explanations_of([explain(model, image, "region:disc", "saliency")], image)[0], tmp_path / "out")
    assert not (tmp_path / "out" / "panels.json").exists()
    with pytest.raises(XaiError, match="explain with occlusion-panels"):
        panels_figure(explain(model, image, "region:disc", "saliency"))


def test_what_has_no_class_has_no_panels():
    model, image, _, _ = case("detection")
    with pytest.raises(MethodError, match="drop the rest"):
        explain(model, image, "box:2,2,30,30:disc:vs:", "occlusion-panels")
