"""SmoothGrad, integrated gradients, guided backpropagation and Grad-CAM against closed forms, captum, and every family of detector."""

import copy
import math
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.detectors import DETECTORS, mask_rcnn, model_of, two_stage
from tests.nets import CLASSES, Linear, detector, picture, segmenter, settled
from xaitools.adapters import ClassificationModel, Fit, SegmentationModel
from xaitools.adapters.tracing import onto_image
from xaitools.architectures import ARCHITECTURES
from xaitools.attribution import explain, explain_many
from xaitools.attribution.smoothgrad import global_seed
from xaitools.errors import MethodError

FAMILY = ("smoothgrad", "integrated-gradients", "guided-backprop", "gradcam", "class-model")
QUICK = {"smoothgrad": {"samples": 2}, "integrated-gradients": {"steps": 2}, "class-model": {"steps": 2}}


def linear() -> SegmentationModel:
    return SegmentationModel(Linear(12, 16).double(), CLASSES[:2])


def layers(activation: nn.Module) -> nn.Sequential:
    one, two, three = (copy.deepcopy(activation) for _ in range(3))
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), one, nn.Conv2d(6, 8, 3, 2), two, nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(32, 8), three, nn.Linear(8, 3),
    )  # fmt: skip


def classifier(net: nn.Module | None = None, **options) -> ClassificationModel:
    net = layers(nn.ReLU()) if net is None else net
    return ClassificationModel(settled(net).double(), CLASSES, mean=(0.5,) * 3, std=(0.25,) * 3, **options)


# --- the linear model ---


def test_smoothgrad_and_guided_backprop_of_a_linear_model_are_its_weights():
    weights = linear().module.weight.detach().abs().amax(0)
    for method in ("smoothgrad", "guided-backprop"):
        found = explain(linear(), picture(12, 16).double(), "class:disc", method)
        torch.testing.assert_close(found.values, weights)
    assert found.notes == ("no rectifier seen: the plain gradient",)


@pytest.mark.parametrize(("baseline", "start"), [("black", 0.0), ("0.25", 0.25), ("mean", None)])
def test_integrated_gradients_of_a_linear_model_are_weight_times_change(baseline, start):
    image = picture(12, 16).double()
    start = image.mean((1, 2), keepdim=True) if start is None else start
    found = explain(linear(), image, "class:disc", "integrated-gradients", baseline=baseline, steps=5)
    torch.testing.assert_close(found.values, (linear().module.weight.detach() * (image - start)).sum(0), rtol=1e-6, atol=1e-7)
    assert found.params["steps"] == 5 and not found.notes
    (_, there), (_, missed) = found.ledger
    assert abs(missed) < 1e-6 * abs(found.score - there)


def test_gradcam_of_two_layers_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    model, image = classifier(net), picture(6, 8).double()
    for relu in (True, False):
        found = explain(model, image, "class:disc", "gradcam", relu=relu)
        maps = (net[0].weight[:, :, 0, 0] @ model.normalise(image[None])[0].flatten(1) + net[0].bias[:, None]).clamp(min=0)
        expected = ((net[4].weight[1] / 48)[:, None] * maps).sum(0).view(6, 8).detach()
        torch.testing.assert_close(found.values, expected.clamp(min=0) if relu else expected)
        assert found.params["layer"] == "1"
    assert float(expected.min()) < 0 < float(expected.max()), "else the two would be the same"


# --- integrated gradients: completeness ---


@pytest.mark.parametrize("build", [segmenter, detector, classifier])
def test_the_ledger_of_integrated_gradients_closes(build):
    found = explain(build(torch.float64) if build is not classifier else build(), picture().double(), "top", "integrated-gradients")
    assert [name for name, _ in found.ledger] == ["baseline", "integration error"]
    total = float(found.values.double().sum()) + math.fsum(each for _, each in found.ledger)
    assert total == pytest.approx(found.score, abs=1e-9)
    (_, there), (_, missed) = found.ledger
    assert abs(missed) <= 0.01 * abs(found.score - there) or "steps miss" in found.notes[0]


def test_the_steps_are_raised_until_the_integral_is_right_or_it_is_said():
    class Wave(nn.Module):
        def forward(self, x):
            return torch.stack([x.mean((1, 2, 3)), torch.sin(self.rate * x.mean((1, 2, 3)))], 1)

    model = ClassificationModel(Wave(), CLASSES[:2])
    for rate, steps, said in ((1.0, 2, False), (9.0, 8, False), (400.0, 16, True)):
        model.module.rate = rate
        found = explain(model, torch.ones(3, 8, 8), "class:disc", "integrated-gradients", steps=2)
        assert (found.params["steps"], bool(found.notes)) == (steps, said), rate


# --- the same numbers as captum, called directly ---


@pytest.mark.filterwarnings("ignore:Setting backward hooks:UserWarning")
def test_what_captum_gives_directly_on_a_classifier():
    from captum.attr import GuidedBackprop, IntegratedGradients, LayerGradCam, NoiseTunnel, Saliency

    model, image = classifier(), picture(20, 24).double()
    x = model.normalise(image[None]).requires_grad_()
    black = model.normalise(torch.zeros_like(image[None]))

    def found(method, **params):
        return explain(model, image, "class:disc", method, **params).values

    parts = IntegratedGradients(model.module).attribute(x, black, target=1, n_steps=64)
    torch.testing.assert_close(found("integrated-gradients", steps=64), parts.sum((0, 1)).detach())
    guided = GuidedBackprop(model.module).attribute(x, target=1)
    torch.testing.assert_close(found("guided-backprop"), guided[0].abs().amax(0).detach())
    cells = LayerGradCam(model.module, model.module[3]).attribute(x, target=1, relu_attributions=True)
    torch.testing.assert_close(found("gradcam"), F.interpolate(cells, (20, 24), mode="bilinear")[0, 0].detach())
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(0)))
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        spread = 0.2 * float((x.max() - x.min()).detach())
        mean = NoiseTunnel(Saliency(model.module)).attribute(x, target=1, abs=False, nt_samples=6, stdevs=spread, nt_samples_batch_size=4)
    torch.testing.assert_close(found("smoothgrad", samples=6, noise=0.2, batch_size=4), mean[0].abs().amax(0).detach())


class Called(nn.Module):
    """A function where a module could be."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


RELUS = {
    "module": nn.ReLU(), "module in place": nn.ReLU(inplace=True), "F.relu": Called(F.relu), "torch.relu": Called(torch.relu),
    "Tensor.relu": Called(torch.Tensor.relu), "Tensor.relu_": Called(torch.Tensor.relu_), "F.relu_": Called(F.relu_),
    "F.relu in place": Called(lambda x: F.relu(x, inplace=True)), "leaky": Called(lambda x: F.leaky_relu(x, 0.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", RELUS)
@pytest.mark.filterwarnings("ignore:Setting backward hooks:UserWarning")
def test_guided_backprop_sees_rectifiers_however_they_are_called(name):
    from captum.attr import GuidedBackprop

    image, reference, model = picture(20, 24).double(), classifier(), classifier(layers(RELUS[name]))
    expected = explain(reference, image, "class:disc", "guided-backprop").values
    torch.testing.assert_close(explain(model, image, "class:disc", "guided-backprop").values, expected)
    plain = explain(reference, image, "class:disc", "saliency").values
    assert not torch.allclose(expected, plain)
    if "module" not in name:
        x = model.normalise(image[None]).requires_grad_()
        torch.testing.assert_close(GuidedBackprop(model.module).attribute(x, target=1)[0].abs().amax(0), plain)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_guided_backprop_names_smooth_activations_and_refuses_scripts():
    found = explain(classifier(layers(nn.SiLU())), picture().double(), "top", "guided-backprop")
    assert found.notes == ("silu treated as a rectifier",)
    scripted = classifier()
    scripted.module = torch.jit.trace(scripted.module, torch.rand(1, 3, 40, 52).double())
    with pytest.raises(MethodError, match="scripted module hides"):
        explain(scripted, picture().double(), "top", "guided-backprop")


# --- seeds ---


def test_smoothgrad_depends_on_its_seed_alone_and_leaves_the_global_one():
    model, image = segmenter(), picture()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = explain(model, image, "top", "smoothgrad", seed=1, samples=4).values
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    assert torch.equal(first, explain(model, image, "top", "smoothgrad", seed=1, samples=4).values)
    assert not torch.equal(first, explain(model, image, "top", "smoothgrad", seed=2, samples=4).values)
    assert torch.equal(
        explain(model, image, "top", "smoothgrad", noise=0.0, samples=1).values, explain(model, image, "top", "saliency").values
    )


# --- every family, every target ---


@pytest.mark.parametrize("method", FAMILY)
@pytest.mark.parametrize("family", [*DETECTORS, "segmenter"])
def test_every_family_gets_a_finite_map_that_is_not_zero(family, method):
    model = segmenter(torch.float64) if family == "segmenter" else model_of(DETECTORS[family]())
    params = QUICK.get(method, {}) | ({"relu": False} if method == "gradcam" else {})
    if (family, method) == ("rcnn", "gradcam"):
        with pytest.raises(MethodError, match="no convolution whose map lies on the image as a whole; use"):
            explain(model, picture().double(), "top", method)
        return
    values = explain(model, picture().double(), "top", method, **params).values
    assert values.shape == (40, 52) and bool(torch.isfinite(values).all()) and float(values.abs().sum()) > 0


TARGETS = {
    "segmentation": ["class:disc", "pixel:5,7", "region:square", "class:disc:vs:", "class:disc:vs:square"],
    "instances": ["box:0", "box:0:left", "mask:0", "box:2,2,30,30:disc", "box:0:vs:", "class:square"],
}


@pytest.mark.parametrize("method", FAMILY)
@pytest.mark.parametrize("task", TARGETS)
def test_many_targets_equal_one_by_one(task, method):
    model = segmenter(torch.float64) if task == "segmentation" else model_of(mask_rcnn())
    image, params = picture().double(), QUICK.get(method, {})
    targets = [each for each in TARGETS[task] if method != "class-model" or each not in ("box:0:left", "mask:0")]
    for together in explain_many(model, image, targets, method, **params):
        alone = explain(model, image, together.target, method, **params)
        torch.testing.assert_close(together.values, alone.values, rtol=1e-9, atol=1e-12)
        assert (together.params, together.notes) == (alone.params, alone.notes)


# --- Grad-CAM: where the layer is, and where its map lies ---

ENDS = {
    "alexnet": "features.16", "vgg": "groups.4", "googlenet": "inception.5b", "resnet": "stages", "unet": "down.3",
    "segnet": "encoder.4", "deconvnet": "connected", "pspnet": "head.2", "deeplabv3plus": "pyramid", "fcn-full": "features",
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_the_end_of_the_encoder_is_found(name):
    from xaitools.attribution.layers import end_of_encoder, watched

    net = settled(ARCHITECTURES[name](3, **({"base": 4, "depth": 4, "widest": 8} if name == "unet" else {})))
    kind = ClassificationModel if name in ("alexnet", "vgg", "googlenet", "resnet") else SegmentationModel
    model = kind(net, CLASSES)
    x = picture(96, 96)[None].requires_grad_()
    seen, _ = watched(model, lambda x: model.logits_from(x).flatten(1).sum(1), x)
    assert end_of_encoder(model, seen) == ENDS[name]


def test_windows_that_are_classified_one_by_one_have_no_map_of_the_image():
    net = settled(ARCHITECTURES["patch-classifier"](3, width=4, hidden=8))
    with pytest.raises(MethodError, match="no convolution whose map lies on the image"):
        explain(SegmentationModel(net, CLASSES), picture(48, 48), "class:disc", "gradcam")


@pytest.mark.parametrize(
    ("layer", "error"),
    [
        ("down.7", "unknown layer 'down.7'; did you mean down"), ("classifier", None),
    ],
)  # fmt: skip
def test_a_layer_is_taken_by_name(layer, error):
    if error is None:
        assert explain(segmenter(), picture(), "top", "gradcam", layer=layer).params["layer"] == layer
        return
    with pytest.raises(MethodError, match=error):
        explain(segmenter(), picture(), "top", "gradcam", layer=layer)


def test_layers_of_single_boxes_and_layers_run_twice_are_refused():
    with pytest.raises(MethodError, match=r"in its backbone"):
        explain(model_of(two_stage()), picture().double(), "box:0", "gradcam", layer="roi_heads.box_head.fc6")
    twice = classifier(layers(nn.ReLU()))
    twice.module[3] = twice.module[1]
    with pytest.raises(MethodError, match="gave 2 maps"):
        explain(twice, picture().double(), "top", "gradcam", layer="1")


def test_gradcam_says_what_goes_round_its_layer():
    model = segmenter()
    assert any("skip connections" in note for note in explain(model, picture(), "top", "gradcam").notes)
    assert explain(classifier(), picture().double(), "top", "gradcam", relu=False).notes == ()


def ramps(height: int, width: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([y, x]).double()[None] + 10


@pytest.mark.parametrize("fit", [Fit(), Fit(multiple=16), Fit(size=(60, 90)), Fit(shorter=80, multiple=32), Fit(size=(20, 26), multiple=8)])
def test_a_map_comes_back_to_where_the_image_was(fit):
    back = fit.onto_image(fit(ramps(40, 52)), (40, 52))
    torch.testing.assert_close(back[..., 4:-4, 4:-4], ramps(40, 52)[..., 4:-4, 4:-4], atol=0.05, rtol=0)


def test_a_map_comes_back_through_a_crop_with_zeros_around():
    back = Fit(shorter=40, crop=(24, 30)).onto_image(Fit(crop=(24, 30))(ramps(40, 52)), (40, 52))
    expected = torch.zeros_like(back)
    expected[..., 8:32, 11:41] = ramps(40, 52)[..., 8:32, 11:41]
    torch.testing.assert_close(back, expected)
    small = Fit(crop=(24, 30)).onto_image(Fit(crop=(24, 30))(ramps(20, 22)), (20, 22))
    torch.testing.assert_close(small, ramps(20, 22))


def test_a_map_comes_back_through_the_transform_of_a_detector():
    model = model_of(two_stage())
    batch, _ = model.transform([torch.cat([ramps(40, 52)[0], torch.zeros(1, 40, 52)])], None)
    back = onto_image(model.transform, batch.tensors, (40, 52))[:, :2]
    torch.testing.assert_close(back[..., 3:-3, 3:-3], ramps(40, 52)[..., 3:-3, 3:-3], atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("method", "params", "error"),
    [
        ("smoothgrad", {"samples": 0}, "at least one sample"), ("smoothgrad", {"noise": -1.0}, "no negative noise"),
        ("smoothgrad", {"batch_size": -1}, "expected a positive number"), ("integrated-gradients", {"steps": 0}, "a positive number"),
        ("integrated-gradients", {"baseline": "white"}, "integrated-gradients.baseline='white'; expected mean"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_one_line(method, params, error):
    with pytest.raises(MethodError, match=error):
        explain(segmenter(), picture(), "top", method, **params)


def test_one_thread_at_a_time_has_the_global_generator():
    """Else the noise of one tab of the dashboard would depend on another's."""
    drawn, cpu = list[torch.Tensor](), torch.device("cpu")

    def other():
        with global_seed(5, cpu):
            drawn.append(torch.rand(3))

    with global_seed(4, cpu):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.2)
        assert not drawn and torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(4)))
    thread.join()
    assert torch.equal(drawn[0], torch.rand(3, generator=torch.Generator().manual_seed(5)))
