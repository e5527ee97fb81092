"""What must hold for every net, the ledger, what is refused, and that nothing stays behind."""

from __future__ import annotations

import copy
import gc
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torchvision.models import mobilenet_v3_small
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import MultiScaleRoIAlign

from xaitools.architectures.unet import UNet
from xaitools.attribution.lrp import COMPOSITES, Relevance, composite, layer_names, relevance
from xaitools.errors import MethodError

Scores = Callable[[Tensor], Tensor]
SINGLE = [name for name in COMPOSITES if name.count("-") == 1]


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """The same nets each time."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        yield


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def settled(module: nn.Module) -> nn.Module:
    """Eval mode, float64, statistics of batch normalisation that are not those of a new layer."""
    generator = torch.Generator().manual_seed(7)
    for part in module.double().eval().modules():
        if isinstance(part, nn.BatchNorm2d):
            shape = part.running_mean.shape
            part.running_mean.data = torch.randn(shape, generator=generator, dtype=torch.float64) * 0.2
            part.running_var.data = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5
            part.weight.data = torch.randn(shape, generator=generator, dtype=torch.float64) + 0.5
            part.bias.data = torch.randn(shape, generator=generator, dtype=torch.float64) * 0.2
    return module


def unet() -> tuple[nn.Module, Scores, Tensor]:
    net = settled(UNet(3, base=6, depth=2))

    def scores(x: Tensor) -> Tensor:
        logits = net(x)[0]
        return torch.stack([logits[1, 2:9, 3:8].mean(), logits[2, 5, 5] - logits[0, 5, 5]])

    return net, scores, noise(1, 3, 19, 21)


def resnet18() -> tuple[nn.Module, Scores, Tensor]:
    net = settled(ResNet(BasicBlock, [2, 2, 2, 2], num_classes=3))
    return net, lambda x: net(x)[0, :1], noise(1, 3, 20, 20)


def mobilenet() -> tuple[nn.Module, Scores, Tensor]:
    net = settled(mobilenet_v3_small(num_classes=3))
    return net, lambda x: net(x)[0, :1], noise(1, 3, 32, 32)


def faster_rcnn() -> tuple[nn.Module, Scores, Tensor]:
    """torchvision's own transform, RoIAlign and heads, on given boxes; the second score is a contrast."""
    backbone = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
    )  # fmt: skip
    backbone.out_channels = 8
    head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 9, 10), nn.ReLU(inplace=True))
    predictor = nn.ModuleDict({"cls": nn.Linear(10, 3)})
    net = FasterRCNN(
        backbone, rpn_anchor_generator=AnchorGenerator(((8,),), ((1.0,),)), min_size=32, max_size=48, box_head=head,
        box_predictor=predictor, box_roi_pool=MultiScaleRoIAlign(["0"], 3, 2), image_mean=[0.0] * 3, image_std=[1.0] * 3,
    )  # fmt: skip
    settled(net)

    def scores(x: Tensor) -> Tensor:
        images, _ = net.transform(list(x))
        features = {"0": net.backbone(images.tensors)}
        boxes = [torch.tensor([[2.0, 3.0, 20.0, 22.0], [10.0, 8.0, 40.0, 31.0]], dtype=torch.float64)]
        logits = predictor["cls"](net.roi_heads.box_head(net.roi_heads.box_roi_pool(features, boxes, images.image_sizes)))
        return torch.stack([logits[0, 1], logits[1, 2] - torch.logsumexp(logits[1, :2], dim=0)])

    return net, scores, noise(1, 3, 25, 30)


NETS = [unet, resnet18, faster_rcnn, mobilenet]


def explain(made: tuple[nn.Module, Scores, Tensor], name: str, **settings: float | str) -> list[Relevance]:
    net, scores, x = made
    return relevance(scores, x, composite(name, **{"low": -5.0, "high": 5.0, **settings}), layer_names(net))


def gap(result: Relevance) -> float:
    return abs(result.score - float(result.values.sum()) - sum(absorbed for _, absorbed in result.ledger))


def alone(net: nn.Module, x: Tensor, name: str = "lrp-epsilon", **settings: float | str) -> Relevance:
    """Relevance of everything that the net gives, summed."""
    (result,) = relevance(lambda image: net(image).sum()[None], x, composite(name, **settings), layer_names(net))
    return result


def equal(a: Tensor, b: Tensor, within: float = 1e-9) -> bool:
    return float((a - b).abs().max()) <= within * max(float(b.abs().max()), 1e-30)


# -- what must hold for every net


@pytest.mark.parametrize("made", [unet, resnet18, faster_rcnn])
def test_epsilon_to_zero_is_gradient_times_input(made: Callable[[], tuple[nn.Module, Scores, Tensor]]) -> None:
    net, scores, x = made()
    image = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(scores(image)[0], image)
    expected = gradient * x
    result = explain((net, scores, x), "lrp-epsilon", epsilon=1e-14)[0]
    assert float((result.values - expected).abs().sum() / expected.abs().sum()) < 1e-6
    assert not equal(explain((net, scores, x), "lrp-zplus")[0].values, expected, 0.1)


@pytest.mark.parametrize("made", NETS)
def test_ledger_closes(made: Callable[[], tuple[nn.Module, Scores, Tensor]]) -> None:
    net, scores, x = made()
    plain = scores(x)
    for name in COMPOSITES:
        for result, score in zip(explain((net, scores, x), name), plain.tolist(), strict=True):
            assert result.score == score, "the forward values are the network's own"
            assert result.values.shape == x.shape and bool(result.values.isfinite().all())
            assert gap(result) <= 1e-9 * abs(score), name


def test_ledger_has_one_row_for_each_layer_and_one_for_a_contrast() -> None:
    results = explain(faster_rcnn(), "lrp")
    rows = [name for name, _ in results[1].ledger]
    assert rows == ["backbone.0", "backbone.3", "roi_heads.box_head.1", "roi_heads.box_predictor.cls", "contrast"]
    assert dict(results[0].ledger)["contrast"] == 0 != dict(results[1].ledger)["contrast"]


def test_scores_share_a_pass_and_relevance_is_linear_in_them() -> None:
    net, scores, x = unet()

    def combined(image: Tensor) -> Tensor:
        first, second = scores(image)
        return torch.stack([first, second, 2 * first - 3 * second])

    first, second, both = (result.values for result in explain((net, combined, x), "lrp"))
    assert equal(both, 2 * first - 3 * second)
    for k, together in enumerate((first, second)):
        (single,) = explain((net, lambda image, k=k: scores(image)[k : k + 1], x), "lrp")
        assert equal(together, single.values, 1e-12)


@pytest.mark.parametrize("name", SINGLE)
def test_without_biases_relevance_grows_with_the_image(name: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2, bias=False)).double()
    x = noise(1, 3, 8, 8)
    assert equal(alone(net, 2 * x, name, epsilon=1e-13).values, 2 * alone(net, x, name, epsilon=1e-13).values, 1e-8)


def test_alpha_two_beta_one_does_not_conserve_and_the_ledger_says_how_much() -> None:
    net = nn.Linear(3, 1, bias=False).double()
    net.weight.data.abs_()
    x = noise(1, 3).abs()
    result = alone(net, x, "lrp-alpha2beta1", epsilon=1e-13)
    assert float(result.values.sum()) == pytest.approx(2 * result.score)  # nothing negative to subtract
    assert result.ledger == (("weight", pytest.approx(-result.score)),)


@pytest.mark.parametrize("name", COMPOSITES)
def test_nothing_outside_the_receptive_field(name: str) -> None:
    net = settled(UNet(2, base=4, depth=1))
    net.classifier.weight.data.abs_()  # z+ finds something to pass on
    x = noise(1, 3, 40, 40)
    (result,) = relevance(lambda image: net(image)[0, 0, 6:7, 6], x, composite(name, low=-5.0, high=5.0))
    seen = (result.values != 0).any(dim=1)[0]
    assert bool(seen[6, 6]) and not bool(seen[20:].any()) and not bool(seen[:, 20:].any())


@pytest.mark.parametrize("name", COMPOSITES)
def test_nothing_of_the_pass_stays_in_memory(name: str) -> None:
    net, kept = settled(UNet(3, base=4, depth=1)), []
    for part in net.modules():
        part.register_forward_hook(lambda module, given, out: kept.append(StorageWeakRef(out.untyped_storage())))
    relevance(lambda image: net(image)[0].mean((1, 2)), noise(1, 3, 8, 8), composite(name, low=-5.0, high=5.0))
    gc.collect()
    assert len(kept) > 10 and all(each.expired() for each in kept)


def test_two_images_are_explained_as_each_alone() -> None:
    net, x = settled(UNet(2, base=4, depth=1)), noise(2, 3, 9, 8)

    def scores(images: Tensor) -> Tensor:
        return net(images)[:, 1].mean(dim=(1, 2))

    both = relevance(scores, x, composite("lrp"))
    for n in range(2):
        (single,) = relevance(scores, x[n : n + 1], composite("lrp"))
        assert equal(both[n].values[n], single.values[0]) and not bool(both[n].values[1 - n].any())


def test_a_shared_layer_equals_its_untied_copy() -> None:
    conv = nn.Conv2d(3, 3, 3, padding=1).double()
    other = copy.deepcopy(conv)
    x = noise(1, 3, 5, 5)
    shared = alone(nn.Sequential(conv, nn.ReLU(), conv), x, "lrp")
    untied = alone(nn.Sequential(conv, nn.ReLU(), other), x, "lrp")
    assert equal(shared.values, untied.values, 1e-14)
    assert [name for name, _ in shared.ledger] == ["0"] and len(untied.ledger) == 2


def test_float32_and_inference_mode() -> None:
    net, scores, x = unet()
    expected = explain((net, scores, x), "lrp")[0].values
    net.float()
    with torch.inference_mode():
        result = explain((net, scores, x.float()), "lrp")[0]
    assert result.values.dtype == torch.float32 and equal(result.values.double(), expected, 1e-3)


def test_the_image_box_turns_with_the_sign_of_a_factor() -> None:
    net = nn.Conv2d(3, 2, 3).double()
    turned = copy.deepcopy(net)
    turned.weight.data.neg_()
    x = noise(1, 3, 5, 5)
    rule = composite("lrp-epsilon-gamma-box", low=-4.0, high=3.0)
    (ours,) = relevance(lambda image: net(-image).sum()[None], x, rule)
    (expected,) = relevance(lambda image: turned(image).sum()[None], x, rule)
    assert equal(ours.values, expected.values)


def test_ignored_biases_warn_in_deep_nets() -> None:
    deep = nn.Sequential(*[nn.Conv2d(1, 1, 1) for _ in range(11)]).double()
    with pytest.warns(UserWarning, match="11 layers"):
        alone(deep, noise(1, 1, 2, 2), "lrp", biases="ignore")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone(deep[:10], noise(1, 1, 2, 2), "lrp", biases="ignore")


# -- constants, and operations in place


def test_constants_that_are_added_absorb() -> None:
    x, c = noise(1, 2, 3, 3), noise(1, 2, 3, 3, seed=1)

    def scores(image: Tensor) -> Tensor:
        return torch.cat([3 - (image + c) / 2, c[:, :1]], dim=1).sum()[None]

    (result,) = relevance(scores, x, composite("lrp"))
    assert equal(result.values, -x / 2)
    expected = [("constant-1", -float(c.sum()) / 2), ("constant-2", 3.0 * 18), ("constant-3", float(c[:, :1].sum()))]
    assert result.ledger == tuple((name, pytest.approx(amount)) for name, amount in expected)


def test_a_batch_written_over_old_content() -> None:
    """Only what stays of the old content absorbs."""

    def scores(image: Tensor) -> Tensor:
        canvas = torch.full((1, 1, 2, 4), 5.0, dtype=torch.float64)
        canvas[:, :, :, :2] = image
        canvas[0, 0, 0, 3:].copy_(image[0, 0, 0, :1])
        return canvas.sum()[None]

    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], dtype=torch.float64)
    (result,) = relevance(scores, x, composite("lrp"))
    assert result.score == 26 and result.ledger == (("constant-1", 15.0),)
    assert torch.equal(result.values, x * torch.tensor([[2.0, 1.0], [1.0, 1.0]]))


class InPlace(nn.Module):
    """Drops what the operations in place return, and goes on with what they changed."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.conv, self.inplace = nn.Conv2d(2, 2, 1).double(), inplace

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if not self.inplace:
            return self.conv((y.relu() + x) * 3)
        y.relu_()
        y += x
        y.mul_(3)
        return self.conv(y)


def test_in_place_equals_out_of_place() -> None:
    net, x = InPlace(inplace=True), noise(1, 2, 3, 3)
    changed = alone(net, x, "lrp-gamma")
    net.inplace = False
    assert torch.equal(changed.values, alone(net, x, "lrp-gamma").values)


# -- what is refused

REFUSED: dict[str, tuple[Scores, str]] = {
    "exp": (lambda x: x.exp().sum()[None], "exp"),
    "softmax": (lambda x: F.softmax(x, dim=1).sum()[None], "softmax"),
    "layer norm": (lambda x: F.layer_norm(x, (4,)).sum()[None], "layer_norm"),
    "matmul": (lambda x: (x @ torch.ones(4, 4).double()).sum()[None], "matmul"),
    "product": (lambda x: (x * x.relu()).sum()[None], "depend on the image"),
    "quotient": (lambda x: (1 / x).sum()[None], "__rtruediv__"),
    "dynamic weights": (lambda x: F.linear(x, x[0, 0]).sum()[None], "weights computed from the image"),
    "batch norm": (lambda x: F.batch_norm(x, None, None, training=True).sum()[None], "eval"),
    "dropout": (lambda x: F.dropout(x, training=True).sum()[None], "eval"),
    "scripted": (lambda x: SCRIPTED(x).sum()[None], "scripted"),
    "custom function": (lambda x: Twice.apply(x).sum()[None], "custom autograd"),
    "view in place": (lambda x: changed_through_a_view(x).sum()[None], "through a view"),
    "coloured pad": (lambda x: F.pad(x, (1, 1), value=0.5).sum()[None], "pad"),
    "detached": (lambda x: x.detach().sum()[None], "do not depend on the image"),
    "two scores in a matrix": (lambda x: x.sum()[None, None], "1-D"),
}


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return 2 * gradient


def changed_through_a_view(x: Tensor) -> Tensor:
    y = x * 2
    y[:, :1].mul_(3)
    return y


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    SCRIPTED = torch.jit.trace(nn.Conv2d(3, 1, 1).double().eval(), torch.zeros(1, 3, 4, 4, dtype=torch.float64))


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str) -> None:
    scores, words = REFUSED[case]
    with pytest.raises(MethodError, match=words):
        relevance(scores, noise(1, 3, 4, 4), composite("lrp"))


def test_parameters_are_checked() -> None:
    for settings, words in [
        ({"epsilon": 0.0}, "epsilon"),
        ({"alpha": 1.0}, "alpha - beta"),
        ({"biases": "zero"}, "biases"),
    ]:
        with pytest.raises(MethodError, match=words):
            composite("lrp-alpha2beta1", **settings)
    with pytest.raises(MethodError, match="did you mean lrp-zplus"):
        composite("lrp-zpluss")
    with pytest.raises(MethodError, match="one number per channel"):
        relevance(lambda x: x.sum()[None], noise(1, 3, 4, 4), composite("lrp-epsilon-gamma-box", low=(0.0, 0.0)))


# -- leaves no trace


def state(net: nn.Module) -> list[object]:
    tensors = [*net.parameters(), *net.buffers()]
    facts = [
        {key: value for key, value in vars(part).items() if key not in ("_parameters", "_buffers", "_modules")} for part in net.modules()
    ]
    return [[t.clone() for t in tensors], [(id(t), t._version, t.requires_grad, t.grad) for t in tensors], copy.copy(facts)]


@pytest.mark.parametrize("made", [unet, faster_rcnn])
def test_nothing_stays_behind(made: Callable[[], tuple[nn.Module, Scores, Tensor]]) -> None:
    net, scores, x = made()
    next(net.parameters()).requires_grad_(False)
    scores(x)  # torchvision's pooler remembers its scales
    before, image = state(net), x.clone()

    def failing(y: Tensor) -> Tensor:
        scores(y)
        raise RuntimeError("on the way")

    first = explain((net, scores, x), "lrp")[0].values
    with pytest.raises(RuntimeError, match="on the way"):
        explain((net, failing, x), "lrp")
    with pytest.raises(MethodError, match="exp"):
        explain((net, lambda y: scores(y).exp(), x), "lrp")
    after = state(net)
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    assert before[1:] == after[1:] and torch.equal(x, image) and not x.requires_grad
    assert torch.is_grad_enabled() and x.exp().isfinite().all(), "no mode is left on"
    assert torch.equal(first, explain((net, scores, x), "lrp")[0].values), "two calls share nothing"
