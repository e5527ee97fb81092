"""``zennit:COMPOSITE`` runs where zennit is right, refuses where it is not, and leaves the model as it was."""

import copy
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.attribution.test_methods import same, state_of
from tests.nets import CLASSES, detector, picture, segmenter, settled
from xaitools.adapters import ClassificationModel, SegmentationModel
from xaitools.architectures import ARCHITECTURES
from xaitools.attribution import METHODS, explain, explain_many
from xaitools.errors import MethodError

RELEVANCE = "zennit:epsilon_plus_flat"


def classifier(name: str = "vgg", **options) -> ClassificationModel:
    net = settled(ARCHITECTURES[name](3, **({"divide": 16} | options)))
    return ClassificationModel(net, CLASSES, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.mark.parametrize("name", ["epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1_flat", "guided_backprop", "deconvnet"])
def test_the_same_as_zennit_called_directly(name):
    from zennit.attribution import Gradient
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.composites import COMPOSITES

    model, image = classifier(), picture(48, 48)
    found = explain(model, image, "class:disc", f"zennit:{name}")
    net = copy.deepcopy(model.module).double()
    x = model.normalise(image[None]).double()
    bounds = {"low": model.normalise(torch.zeros(1, 3, 1, 1)).double(), "high": model.normalise(torch.ones(1, 3, 1, 1)).double()}
    composite = COMPOSITES[name](**(bounds if name == "epsilon_gamma_box" else {}), canonizers=[SequentialMergeBatchNorm()])
    seed = torch.zeros(1, 3).double()
    seed[0, 1] = 1.0 if name in ("guided_backprop", "deconvnet") else net(x)[0, 1].item()
    with Gradient(net, composite) as attributor:
        _, relevance = attributor(x, seed)
    torch.testing.assert_close(found.values.double(), relevance.sum((0, 1)), rtol=1e-3, atol=1e-4 * float(found.values.abs().max()))


def test_it_runs_through_a_u_net_and_its_regions():
    """The region's mean must not count each pixel as often as there are pixels: relevance sums up to the score and what biases absorb."""
    model, image = segmenter(), picture(32, 40)
    ours = explain(model, image, "region:square", "gradient-x-input").values
    found = explain(model, image, "region:square", "zennit:epsilon_plus").values
    assert bool(torch.isfinite(found).all()) and 0 < float(found.abs().sum()) < 100 * float(ours.abs().sum())


@pytest.mark.parametrize(
    ("build", "method", "error"),
    [
        (lambda: classifier("resnet"), RELEVANCE, r"off gradient x input by .* does not see the functions add, mean; .* use lrp"),
        (lambda: classifier("googlenet"), RELEVANCE, r"functions mean;"),
        (lambda: classifier("resnet"), "zennit:guided_backprop", "17 rectifiers are no nn.ReLU modules, .* use guided-backprop"),
        (lambda: SegmentationModel(settled(ARCHITECTURES["pspnet"](3)), CLASSES), RELEVANCE, "adaptive_avg_pool2d, add, interpolate"),
        (detector, RELEVANCE, "needs one network that runs as a whole; use lrp"),
    ],
)
def test_networks_on_which_zennit_is_wrong_are_refused_with_the_reason(build, method, error):
    model = build()
    before = state_of(model.module)
    with pytest.raises(MethodError, match=error):
        explain(model, picture(48, 48), "top", method)
    assert same(before, state_of(model.module))


def test_a_module_that_runs_twice_is_found_out_by_the_numbers():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.shared, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)
            self.pool = nn.AdaptiveAvgPool2d(1)

        def forward(self, x):
            x = F.relu(self.shared(F.relu(self.shared(F.relu(self.first(x))))))
            return self.last(self.pool(x).flatten(1))

    with pytest.raises(MethodError, match="off gradient x input"):
        explain(ClassificationModel(settled(Twice()), CLASSES), picture(), "top", RELEVANCE)


def test_residual_networks_of_torchvision_are_right_with_their_canonizer():
    from torchvision.models import resnet18

    model = ClassificationModel(settled(resnet18(num_classes=3)), CLASSES)
    before = state_of(model.module)
    found = explain(model, picture(48, 48), "top", RELEVANCE)
    assert bool(torch.isfinite(found.values).all()) and same(before, state_of(model.module))


def test_nothing_is_left_after_an_error(monkeypatch):
    model = classifier()
    model.module.train()
    before = state_of(model.module)
    monkeypatch.setattr("xaitools.attribution.zennit_rules.check_relevance", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        explain(model, picture(48, 48), "class:disc", RELEVANCE)
    assert same(before, state_of(model.module))


def test_parameters_many_targets_and_names():
    assert METHODS["zennit:epsilon_gamma_box"].defaults == {"epsilon": 1e-6, "gamma": 0.25, "stabilizer": 1e-6}
    assert not any(name.startswith("zennit") for name in METHODS)
    model, image = classifier(), picture(48, 48)
    both = explain_many(model, image, ["class:disc", "class:square:vs:"], "zennit:epsilon_plus", epsilon="0.1")
    for each in both:
        assert each.params["epsilon"] == 0.1
        assert torch.equal(each.values, explain(model, image, each.target, "zennit:epsilon_plus", epsilon=0.1).values)
    with pytest.raises(MethodError, match="unknown method 'zennit:epsilon'; did you mean zennit:epsilon_plus"):
        explain(model, image, "top", "zennit:epsilon")
    with pytest.raises(MethodError, match="has no parameter 'gamma'"):
        explain(model, image, "top", "zennit:epsilon_plus", gamma=1)


def test_without_the_package_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "zennit.composites", None)
    with pytest.raises(MethodError, match=r"needs the package zennit; install xaitools\[reference\]"):
        METHODS["zennit:epsilon_plus"]
