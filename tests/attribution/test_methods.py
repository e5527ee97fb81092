"""What is registered as a method is held to one contract, and each map to a truth that is known."""

import copy

import pytest
import torch
from torch import nn

from tests.nets import CLASSES, Linear, detector, picture, segmenter
from xaitools.adapters import SegmentationModel
from xaitools.attribution import METHODS, explain, explain_many
from xaitools.attribution.sweep import windows
from xaitools.errors import MethodError, TargetError, XaiError

MODELS = {"segmentation": (segmenter, ["top", "pixel:5,7", "class:disc:vs:"]), "detection": (detector, ["box:0", "box:1", "box:0:left"])}
DEAR = {"integrated-gradients", *(name for name in METHODS if name.startswith("lrp-"))} - {"lrp-epsilon"}
"""A second method of a kind that has a quicker one; with a detector they are long tests."""

CASES = [
    pytest.param(method, task, marks=[pytest.mark.long] if method in DEAR and task == "detection" else [])
    for method in METHODS
    for task in MODELS
    if METHODS[method].needs != "candidates" or task == "detection"
]

SCORED = [method for method in METHODS if METHODS[method].needs in ("scores", "gradients")]
"""Methods that look at scores; those that look at answers or candidates have tests with answers of their own."""

LOCAL = [method for method in SCORED if method not in ("gradcam", "class-model")]
"""Of these, those that point at pixels of the image: not at the cells of a coarse map, nor at an image of their own."""

INSIDE = ("gradcam", "feature-projection", "occlusion-panels")
"""Methods that look at a layer inside the network."""

QUICK = {"class-model": {"steps": 3}, "drise": {"masks": 60}, "integrated-gradients": {"steps": 2}, "smoothgrad": {"samples": 4}}
"""Fewer steps than are good for a picture are enough for the contract."""

ANY_MODEL = [method for method in METHODS if METHODS[method].needs != "candidates"]


def targets_for(method: str, targets: list[str]) -> list[str]:
    """A method that asks only what is found, or how, refuses what is no class, region or box."""
    plain = METHODS[method].needs in ("predictions", "candidates") or method == "occlusion-panels"
    refused = (":left", ":vs:") if plain else (":left",) if method == "class-model" else ()
    return [target for target in targets if not target.endswith(refused)]


def state_of(module: nn.Module) -> list[object]:
    tensors = [tensor.clone() for tensor in [*module.parameters(), *module.buffers()]]
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    facts = [(part.training, *(dict(getattr(part, name)) for name in hooks)) for part in module.modules()]
    return [tensors, facts, [(parameter.requires_grad, parameter.grad) for parameter in module.parameters()]]


def same(before: list[object], after: list[object]) -> bool:
    tensors = all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    return tensors and before[1:] == after[1:]


@pytest.mark.parametrize(("method", "task"), CASES)
def test_contract(method, task):
    build, targets = MODELS[task]
    model, image, targets = build(), picture(), targets_for(method, targets)
    before = state_of(model.module)
    together = explain_many(model, image, targets, method, seed=3, **QUICK.get(method, {}))
    assert same(before, state_of(model.module))
    for each, target in zip(together, targets, strict=True):
        assert each.values.shape == image.shape[1:] and bool(torch.isfinite(each.values).all())
        alone = explain(model, image, target, method, seed=3, **QUICK.get(method, {}))
        torch.testing.assert_close(alone.values, each.values, atol=2e-5 * float(each.values.abs().max()) + 1e-7, rtol=1e-3)
        assert alone.score == pytest.approx(each.score, abs=1e-4)
    again = explain_many(model, image, targets, method, seed=3, **QUICK.get(method, {}))
    assert all(torch.equal(a.values, b.values) for a, b in zip(together, again, strict=True))


@pytest.mark.parametrize(("method", "task"), CASES)
def test_nothing_is_left_on_the_model_after_an_error(method, task):
    build, targets = MODELS[task]
    model = build()
    model.module.train()
    prediction = model.predict(picture()[None])[0]
    before = state_of(model.module)
    asked = "predict" if METHODS[method].needs == "predictions" else "score_pairs"
    original = getattr(type(model), asked)

    def broken(self, *given):
        original(self, *given)
        raise ZeroDivisionError

    setattr(model, asked, broken.__get__(model))
    with pytest.raises(ZeroDivisionError):
        explain_many(model, picture(), targets[:1], method, prediction=prediction)
    assert same(before, state_of(model.module))


@pytest.mark.parametrize("method", [method for method in ANY_MODEL if method not in INSIDE])
def test_a_constant_model_has_no_spatial_preference(method):
    net = nn.Conv2d(3, 3, 3, padding=1)
    net.weight.data.zero_()
    net.bias.data = torch.tensor([1.0, 2.0, 0.0])
    values = explain(SegmentationModel(net, CLASSES), picture(), "class:disc", method, **QUICK.get(method, {})).values
    inner = values[2:-2, 2:-2]  # the flat rule gives pixels at the border less, whatever the image
    assert float(inner.max() - inner.min()) < 1e-6


@pytest.mark.parametrize("method", LOCAL)
def test_exactly_zero_outside_the_receptive_field(method):
    """A corner pixel of a U-Net of depth 1 sees at most 18 pixels far; most of the image lies outside."""
    from tests.nets import settled
    from xaitools.architectures import ARCHITECTURES

    model = SegmentationModel(settled(ARCHITECTURES["unet"](3, base=4, depth=1, widest=8)), CLASSES, mean=(0.5,) * 3, std=(0.25,) * 3)
    params = {"window": 6, "stride": 3} if method.startswith("occlusion") else {}
    values = explain(model, picture(64, 80), "pixel:4,4:disc", method, **params).values
    reach = 4 + 18 + 6
    outside = torch.ones(64, 80, dtype=torch.bool)
    outside[:reach, :reach] = False
    assert float(outside.float().mean()) > 0.3
    assert torch.equal(values[outside], torch.zeros(int(outside.sum())))
    assert values.abs().sum() > 0


# Grad-CAM's weights are means over all places: behind a linear head they are the same for every box of a class
@pytest.mark.parametrize("method", [
    pytest.param(method, marks=pytest.mark.long) if method in DEAR else method for method in METHODS if method != "gradcam"
])  # fmt: skip
def test_two_boxes_of_one_class_give_different_maps(method):
    first, second = explain_many(detector(), picture(), ["box:2,2,20,18:disc", "box:30,18,50,38:disc"], method, **QUICK.get(method, {}))
    assert not torch.allclose(first.values, second.values)


def test_occlusion_of_a_linear_model_is_weight_times_change():
    model = SegmentationModel(Linear(12, 16).double(), CLASSES[:2])
    image = picture(12, 16).double()
    found = explain(model, image, "class:disc", "occlusion", window=1, stride=1, fill="0.25").values
    expected = (model.module.weight * (image - 0.25)).sum(0)
    torch.testing.assert_close(found.double(), expected.detach(), atol=1e-6, rtol=1e-6)


def test_occlusion_with_what_is_already_there_changes_nothing():
    model = segmenter()
    values = explain(model, torch.full((3, 30, 34), 0.5), "class:disc", "occlusion", window=8, stride=4, fill="0.5").values
    assert torch.equal(values, torch.zeros(30, 34))


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_occlusion_does_not_depend_on_the_batch_size(batch_size):
    model, image = segmenter(torch.float64), picture()
    reference = explain(model, image, "top", "occlusion", window=12, stride=6).values
    torch.testing.assert_close(explain(model, image, "top", "occlusion", window=12, stride=6, batch_size=batch_size).values, reference)


@pytest.mark.parametrize(("height", "width", "window", "stride"), [(20, 31, 8, 4), (8, 8, 8, 8), (9, 30, 16, 5), (33, 17, 4, 4)])
def test_windows_cover_every_pixel_and_stay_inside(height, width, window, stride):
    covered = torch.zeros(height, width)
    for top, left, bottom, right in windows(height, width, window, stride):
        assert 0 <= top < bottom <= height and 0 <= left < right <= width
        covered[top:bottom, left:right] += 1
    assert covered.min() >= 1


def test_pixels_between_windows_have_the_fall_of_the_nearest():
    model, image = SegmentationModel(Linear(12, 17).double(), CLASSES[:2]), picture(12, 17).double()
    found = explain(model, image, "class:disc", "occlusion", window=2, stride=5, fill="0.25").values.double()
    change = (model.module.weight * (image - 0.25)).sum(0).detach()
    assert torch.allclose(found[5:7, 5:7], change[5:7, 5:7].sum().expand(2, 2), atol=1e-6)
    assert torch.equal(found[7, 5:7], found[6, 5:7]) and torch.equal(found[9, 5:7], found[10, 5:7])  # 5.5 and 10.5 are the middles
    assert torch.equal(found[5, 7], found[5, 6]) and torch.equal(found[9, 9], found[10, 10])


@torch.no_grad()
def test_a_window_can_be_painted_over_from_around_it():
    from xaitools.data.fill import fill

    model, image = SegmentationModel(Linear(24, 32).double(), CLASSES[:2]), picture(24, 32).double()
    found = explain(model, image, "class:disc", "occlusion", window=8, stride=8, fill="inpaint").values.double()
    for top, left, bottom, right in windows(24, 32, 8, 8):
        hole = torch.zeros(24, 32, dtype=torch.bool)
        hole[top:bottom, left:right] = True
        painted = fill(image.float(), hole).double()
        expected = (model.module.weight * (image - painted))[:, hole].sum()
        assert float(found[top, left]) == pytest.approx(float(expected), rel=1e-4, abs=1e-5)


def test_gradient_x_input_of_a_linear_model_sums_to_the_score():
    model = SegmentationModel(Linear(12, 16).double(), CLASSES[:2])
    attribution = explain(model, picture(12, 16).double(), "class:disc", "gradient-x-input")
    assert float(attribution.values.sum()) == pytest.approx(attribution.score, rel=1e-6)


@torch.no_grad()
def test_saliency_agrees_with_finite_differences():
    model, image = segmenter(torch.float64), picture(20, 24).double()
    values = explain(model, image, "pixel:10,9:disc", "saliency").values
    from xaitools.targets import bind

    decision = bind("pixel:10,9:disc", model.predict(image[None])[0])
    x = model.normalise(image[None])
    for y, column in [(9, 10), (8, 12), (14, 7)]:
        slopes = []
        for channel in range(3):
            step = torch.zeros_like(x)
            step[0, channel, y, column] = 1e-6
            slopes.append(float((model.scores_from(x + step, [decision]) - model.scores_from(x - step, [decision])) / 2e-6))
        assert float(values[y, column]) == pytest.approx(max(map(abs, slopes)), rel=1e-4)


def test_the_planted_cause_takes_the_mass():
    """The network looks only at the upper left quarter; a map that is right has (nearly) nothing elsewhere."""

    class Quarter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            seen = torch.relu(self.conv(x[..., :16, :20])).mean((2, 3), keepdim=True)
            return seen.expand(-1, -1, 8, 8)

    torch.manual_seed(0)
    model = SegmentationModel(Quarter(), CLASSES)
    for method in LOCAL:
        params = {"window": 4, "stride": 2} if method.startswith("occlusion") else {}
        values = explain(model, picture(32, 40), "class:square", method, **params).values.abs()
        assert float(values[:19, :23].sum() / values.sum()) > 0.999, method


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"method": "lpr"}, "did you mean lrp"), ({"method": "occlusion", "windw": 3}, "no parameter 'windw'"),
        ({"method": "occlusion", "window": "big"}, "whole number"), ({"method": "occlusion", "stride": -9}, "must not be negative"),
        ({"method": "occlusion", "fill": "purple"}, "expected mean"), ({"method": "occlusion", "score": "loud"}, "expected logit"),
    ],
)  # fmt: skip
def test_a_wrong_method_or_parameter_is_one_line(arguments, error):
    with pytest.raises(MethodError, match=error):
        explain(segmenter(), picture(), "top", **arguments)


def test_a_wrong_image_or_target_is_one_line():
    with pytest.raises(XaiError, match="one tensor"):
        explain(segmenter(), picture()[None], "top")
    with pytest.raises(TargetError, match="unknown class 'cat'"):
        explain(segmenter(), picture(), "class:cat")
    with pytest.raises(MethodError, match="explain_many"):
        explain(detector(), picture(), "all", "saliency")


def test_a_model_with_predictions_only_is_refused_by_name():
    class Box:
        task, classes = "segmentation", CLASSES

        def __init__(self) -> None:
            self.predict = segmenter().predict

    with pytest.raises(MethodError, match="method saliency needs gradients"):
        explain(Box(), picture(), "top", "saliency")


def test_weights_are_bitwise_unchanged_by_all_methods():
    model = detector()
    before = copy.deepcopy(model.module.state_dict())
    for method in METHODS:
        explain(model, picture(), "box:0", method, **QUICK.get(method, {}))
    assert all(torch.equal(before[key], value) for key, value in model.module.state_dict().items())
