"""What a window does is known here: to linear models, where the image already is what shows through it, and whatever the batch."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import box_iou

import xaitools as xt
from tests.nets import CLASSES, Linear, detector, picture, segmenter
from xaitools.adapters import SegmentationModel
from xaitools.attribution import explain, explain_many
from xaitools.attribution.incremental import choice
from xaitools.attribution.sweep import windows
from xaitools.data.fill import fill as painted


@pytest.fixture(params=["parts", "whole"])
def occluded(request, monkeypatch):
    """``explain_many`` by occlusion in one of its two ways, which says that it went it."""
    monkeypatch.setattr(choice, "SMALL", 0)
    monkeypatch.setattr(choice, "WORTH", 0)

    def call(model, image, targets, **params):
        many = explain_many(model, image, targets, "occlusion", incremental=request.param == "parts", **params)
        assert all(each.params["computed"].startswith("in parts" if request.param == "parts" else "whole passes") for each in many)
        return many

    return call


class Chain(nn.Module):
    """Strides, a transposed convolution and resampling, but nothing that bends: (N, 3, 12, 16) -> (N, 2, 1, 1)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.down, self.up, self.last = nn.Conv2d(3, 6, 3, 2, 1), nn.ConvTranspose2d(6, 4, 2, 2), nn.Conv2d(4, 2, 3)
        self.weight = nn.Parameter(torch.randn(2, 9, 13))

    def forward(self, x):
        x = self.last(F.interpolate(self.up(self.down(x)), (11, 15), mode="bilinear"))
        return (x * self.weight).sum((2, 3), keepdim=True)


def blurred(image, reach):
    """A plain mean over the square of 2 * reach + 1 pixels, what lies outside mirrored at the border pixel."""
    rows, columns = (
        np.array([[min(abs(at), 2 * (n - 1) - at) for at in range(here - reach, here + reach + 1)] for here in range(n)]) for n in (12, 16)
    )
    mean = [[image[:, rows[y]][:, :, columns[x]].mean((1, 2)) for x in range(16)] for y in range(12)]
    return torch.stack([torch.stack(each) for each in mean]).permute(2, 0, 1)


def shown(image, fill, window):
    """What is known to show through each window."""
    match fill:
        case "mean":
            return lambda hole: image.mean((1, 2), keepdim=True).expand_as(image)
        case "noise":
            noise = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(7)).double()[0]
            return lambda hole: noise
        case "blur":
            blur = blurred(image, window)
            return lambda hole: blur
        case "inpaint":
            return lambda hole: painted(image.float(), hole).double()
    return lambda hole: torch.full_like(image, float(fill))


@pytest.mark.parametrize("fill", ["0.25", "mean", "blur", "noise", "inpaint"])
@pytest.mark.parametrize("net", [lambda: Linear(12, 16), Chain], ids=["sum", "chain"])
def test_a_linear_model_falls_by_weight_times_change(occluded, net, fill):
    model, image = SegmentationModel(net().double(), CLASSES[:2]), picture(12, 16).double()
    x = image[None].clone().requires_grad_()
    (weight,) = torch.autograd.grad(model.module(x)[0, 1].sum(), x)
    (found,) = occluded(model, image, ["class:disc"], window=4, stride=4, fill=fill, seed=7)
    through = shown(image, fill, 4)
    for top, left, bottom, right in windows(12, 16, 4, 4):
        hole = torch.zeros(12, 16, dtype=torch.bool)
        hole[top:bottom, left:right] = True
        expected = float((weight[0] * (image - through(hole)))[:, hole].sum())
        assert float(found.values[top, left]) == pytest.approx(expected, rel=1e-6, abs=1e-9)  # maps are float32
        assert torch.equal(found.values[hole], found.values[top, left].expand(16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_patch_that_is_already_there_changes_nothing_at_all(occluded, dtype):
    flat = torch.full((3, 40, 52), 0.5, dtype=dtype)
    spotted = flat.clone()
    spotted[:, :9, :9] = 0.9
    for model, targets in ((segmenter(dtype), ["class:disc", "class:disc:vs:"]), (detector(dtype), ["box:2,2,20,18:disc"])):
        for each in occluded(model, flat, targets, window=8, stride=6, fill="0.5"):
            assert torch.equal(each.values, torch.zeros(40, 52))
        for each in occluded(model, spotted, targets, window=8, stride=8, fill="0.5"):
            assert torch.equal(each.values[16:], torch.zeros(24, 52)) and torch.equal(each.values[:, 16:], torch.zeros(40, 36))
            assert bool((each.values[:8, :8] != 0).all())


@pytest.mark.parametrize("name", ["unet-scenes", "resnet-scenes"])
def test_nor_does_it_where_rounding_would(occluded, name):
    """A part of a large map is not rounded like the whole: these moved by 1e-7 before windows without a change were left out."""
    flat = torch.full((3, 64, 80), 0.5)
    (found,) = occluded(xt.load_model(name), flat, ["class:fish"], window=16, stride=24, fill="0.5")
    assert torch.equal(found.values, torch.zeros(64, 80))


def scene(model):
    """A part of a scene with its objects, (3, 48, 64); a cropped one for classifiers."""
    sample = xt.load_dataset(f"scenes:val?n=4{'&crop=64' * (model.task == 'classification')}")[1]
    if model.task == "classification":
        return sample.image[:, :48]
    x, y = (int(each) for each in sample.boxes[0, :2].clamp(max=32))
    return sample.image[:, min(y, 48) :, x:][:, :48, :64]


SWEPT = {"unet-scenes": "top", "faster-rcnn-scenes": "box:0"}
SWEPT_LONG = {
    "pspnet-scenes": "class:fish:vs:", "deeplabv3plus-scenes": "top", "yolo-scenes": "box:0", "mask-rcnn-scenes": "mask:0",
    "resnet-scenes": "top",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "target"), [*SWEPT.items(), *(pytest.param(*each, marks=pytest.mark.long) for each in SWEPT_LONG.items())]
)
def test_no_result_depends_on_the_batch_size(occluded, name, target):
    """1e-6 of the largest value; in float64, since float32 differs by more between batches of a network alone."""
    model = xt.load_model(name, dtype="float64")
    image = scene(model)
    known = {"window": 16, "stride": 12, "prediction": model.predict(image[None])[0]}
    one, *more = (occluded(model, image, [target], batch_size=size, **known)[0] for size in (1, 3, 16, 64))
    for each in more:
        torch.testing.assert_close(each.values, one.values, rtol=1e-6, atol=1e-6 * float(one.values.abs().max()))


@pytest.mark.parametrize("name", ["unet-scenes", "faster-rcnn-scenes", pytest.param("mask-rcnn-scenes", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("method", "params"), [("occlusion-drise", {"window": 16, "stride": 12}), ("drise", {"masks": 20}), ("counterfactual", {})]
)  # fmt: skip
def test_no_answer_depends_on_the_batch_size(method, params, name):
    model = xt.load_model(name, dtype="float64")
    image = scene(model)
    known = {**params, "prediction": model.predict(image[None])[0]}
    one, *more = (explain(model, image, "top", method, batch_size=size, **known) for size in (1, 3, 16, 64))
    assert float(one.values.abs().max()) > 1e-3
    for each in more:
        torch.testing.assert_close(each.values, one.values, rtol=1e-6, atol=1e-6 * float(one.values.abs().max()))
        assert each.params.get("best_match") == one.params.get("best_match")


@pytest.mark.parametrize(("side", "size"), [(40, 16), (180, 8), (300, 4)])
@pytest.mark.parametrize("method", ["occlusion", "occlusion-drise", "drise"])
def test_as_many_images_at_once_as_their_size_allows(method, side, size):
    """Sixteen small ones or four large ones: larger batches are slower on a processor."""
    seen, net = list[int](), nn.Conv2d(3, 2, 1)
    net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    model, params = SegmentationModel(net, CLASSES[:2]), {"masks": 20} if method == "drise" else {"window": side // 5, "stride": side // 5}
    found = explain(model, picture(side, side), "pixel:9,9", method, **params)
    assert found.params["batch_size"] == size == max(seen)


LAMPS = torch.tensor([[8.0, 20, 20, 28], [16, 20, 28, 28], [30, 4, 40, 14], [2, 2, 12, 12]])
"""Two that overlap by a fifth of their union, one of the same class far away, and one of another class."""


class Lamps(nn.Module):
    """Boxes that are as sure as what lies in them is bright, but the second never sees the first's half of it; dark ones are not found."""

    def forward(self, x):
        found = []
        for image in x:
            scores = torch.stack([image[0, int(y1) : int(y2), int(max(x1, 20) if k == 1 else x1) : int(x2)].mean()
                                  for k, (x1, y1, x2, y2) in enumerate(LAMPS.tolist())])  # fmt: skip
            kept = scores > 0.05
            found.append({"boxes": LAMPS[kept], "labels": torch.tensor([1, 1, 1, 2])[kept], "scores": scores[kept]})
        return found


def test_it_says_which_detection_was_the_best_match():
    model = xt.wrap(Lamps(), task="detection", classes=["lamp", "candle"], score_threshold=0.0)
    image, options = torch.ones(3, 30, 44), {"window": 12, "stride": 4, "fill": "0", "batch_size": 7}
    prediction = model.predict(image[None])[0]
    number = int((prediction.boxes - LAMPS[0]).abs().sum(1).argmin())
    neighbour = int((prediction.boxes - LAMPS[1]).abs().sum(1).argmin())
    found = explain(model, image, f"box:{number}", "occlusion-drise", prediction=prediction, **options)
    places, expected = windows(30, 44, 12, 4), Counter()
    overlap = float(box_iou(LAMPS[:1], LAMPS[1:2]))
    for top, left, bottom, right in places:
        hidden = image.clone()
        hidden[:, top:bottom, left:right] = 0
        first, second = (float(each) for each in (hidden[0, 20:28, 8:20].mean(), hidden[0, 20:28, 20:28].mean()))
        first, second = (each if each > 0.05 else 0.0 for each in (first, second))
        expected["none" if first == second == 0 else "target" if first >= overlap * second else f"box:{neighbour}"] += 1
    assert found.params["best_match"] == {"none": 0, **expected} and expected[f"box:{neighbour}"] > 0 and expected["target"] > 0
    [note] = found.notes
    assert note == f"under {expected[f'box:{neighbour}']} of {len(places)} windows the best match was another lamp: box:{neighbour} " + str(
        expected[f"box:{neighbour}"]
    )
    alone = explain(model, image, "box:30,4,40,14:lamp", "occlusion-drise", **options)
    assert set(alone.params["best_match"]) == {"target", "none"} and alone.notes == ()
    missed = explain(model, image, "box:30,4,40,14:candle", "occlusion-drise", **options)
    assert missed.params["best_match"] == {"target": 0, "none": len(places)} and missed.score == 0
    assert "best_match" not in explain(segmenter(), picture(), "top", "occlusion-drise", window=30).params
