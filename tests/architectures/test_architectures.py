"""The contract of every network of the model set, with random weights, tiny widths and odd sizes."""

import pytest
import torch

import xaitools as xt
from tests.nets import picture, settled
from xaitools import zoo
from xaitools.architectures import ARCHITECTURES
from xaitools.targets import bind

CLASSES = ["background", "disc", "square"]
TINY = {
    "alexnet": ("classification", {"divide": 32}),
    "deconvnet": ("segmentation", {"widths": (4, 4, 6, 8, 8), "hidden": 8}),
    "deeplabv3plus": ("segmentation", {"widths": (4, 6, 8, 8), "pyramid": 8, "low": 4}),
    "fcn-full": ("segmentation", {"width": 4, "depth": 3}),
    "googlenet": ("classification", {"divide": 8}),
    "patch-classifier": ("segmentation", {"window": 32, "stride": 8, "width": 4, "hidden": 16}),
    "pspnet": ("segmentation", {"widths": (4, 6, 8, 8)}),
    "resnet": ("classification", {"divide": 8}),
    "segnet": ("segmentation", {"widths": (4, 4, 6, 8, 8)}),
    "vgg": ("classification", {"divide": 32}),
}  # fmt: skip
"""architecture -> its task and the options that make it small."""

ELSEWHERE = {"dpm", "unet", "rcnn", "fast-rcnn", "faster-rcnn", "mask-rcnn", "yolo", "yolo-v1"}
"""Held to their contract in tests/adapters, test_dpm, test_regions, test_yolo and tests/training."""


def made(name, **options):
    """The tiny network as a card would give it."""
    task, network = TINY[name]
    image = {"mean": [0.5] * 3, "std": [0.25] * 3, "multiple": network.get("stride", 1)}
    facts = {"architecture": name, "task": task, "classes": CLASSES, "network": network, "input": image}
    return zoo.adapt(settled(zoo.build(facts)), facts, name=name, **options)


@pytest.fixture(scope="module", params=TINY)
def model(request):
    return made(request.param)


@pytest.fixture(scope="module")
def images():
    return torch.stack([picture(71, 93, seed) for seed in (0, 1)])


def test_every_architecture_is_held_to_it():
    assert set(TINY) | ELSEWHERE == set(ARCHITECTURES)


@pytest.mark.parametrize("name", TINY)
def test_a_file_of_half_floats_is_small(name):
    state = ARCHITECTURES[name](6).state_dict()
    assert sum(2 * value.numel() for value in state.values()) < 2 * 2**20


def test_answers_have_the_size_of_the_image_and_are_the_same_twice(model, images):
    for one, other in zip(model.predict(images), model.predict(images), strict=True):
        assert one.image_size == (71, 93) and len(one.labels) > 0
        assert torch.equal(one.labels, other.labels) and torch.equal(one.scores, other.scores)
        if one.semantic is not None:
            assert one.semantic.shape == (71, 93) and torch.equal(one.semantic, other.semantic)


def test_a_batch_of_two_equals_two_singles(model, images):
    decisions = [bind("top", model.predict(image[None])[0]) for image in images]
    with torch.no_grad():
        both = model.scores(images, decisions)
        singles = torch.stack([model.scores(image[None], [decision])[0] for image, decision in zip(images, decisions, strict=True)])
    torch.testing.assert_close(both, singles, rtol=1e-5, atol=1e-5)
    assert float(both[0]) != float(both[1])  # the two images are not the same to it


def test_a_gradient_reaches_the_image_and_nothing_stays_behind(model, images):
    prediction = model.predict(images[:1])[0]
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    with torch.enable_grad():
        x = model.normalise(images[:1]).requires_grad_()
        (gradient,) = torch.autograd.grad(model.scores_from(x, [bind("top", prediction)]).sum(), x)
    assert bool(torch.isfinite(gradient).all()) and float(gradient.abs().sum()) > 0
    assert all(torch.equal(value, before[key]) for key, value in model.module.state_dict().items())


@pytest.mark.parametrize("method", ["lrp", "lrp-epsilon", "lrp-epsilon-gamma-box", "lrp-epsilon-alpha2beta1-flat"])
def test_the_ledger_of_lrp_closes(model, images, method):
    attribution = xt.explain(model, images[0], "top", method)
    assert attribution.values.shape == (71, 93) and bool(torch.isfinite(attribution.values).all())
    assert float(attribution.values.abs().sum()) > 0 and attribution.ledger is not None
    absorbed = [value for _, value in attribution.ledger]
    gap = attribution.score - float(attribution.values.double().sum()) - sum(absorbed)
    assert abs(gap) <= 1e-5 * (abs(attribution.score) + sum(map(abs, absorbed)) + float(attribution.values.abs().sum()))


@pytest.mark.parametrize("name", TINY)
def test_lrp_with_epsilon_towards_zero_is_gradient_times_input(name, images):
    """The networks are piecewise linear, so the two agree however they branch, pool and unpool."""
    exact = made(name, dtype="float64")
    lrp = xt.explain(exact, images[0], "top", "lrp-epsilon", epsilon=1e-12).values.double()
    reference = xt.explain(exact, images[0], "top", "gradient-x-input").values.double()
    assert float((lrp - reference).abs().sum() / reference.abs().sum()) < 1e-5
