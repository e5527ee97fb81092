"""Our propagation beside three others: by hand, the plain one on every construct of our models, and zennit on a plain chain."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from tests.attribution.plain_propagation import Run, Step, propagate, run
from xaitools.attribution.lrp import COMPOSITES, composite, layer_names, relevance

EQUAL = 1e-8
Example = tuple[nn.Module, list[Step], Callable[[Tensor], Tensor], Tensor]


def conv(before: int, after: int, size: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, **{"padding": size // 2, **options})


def settled(module: nn.Module, seed: int) -> nn.Module:
    """Eval mode, float64, with statistics, scales (of either sign) and biases of batch normalisation that matter."""
    generator = torch.Generator().manual_seed(seed)
    module.double().eval()
    for tensor in (*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())):
        tensor.data = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * (0.5 if tensor.dim() > 1 else 0.7)
    for name, buffer in module.named_buffers():
        if name.endswith("running_var"):
            buffer.data = buffer.data.abs() + 0.5
    return module


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


class Segmenter(nn.Module):
    """Resize, convolution and normalisation, pooling, transposed convolution, pad, concatenation, resize back."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_bn = conv(3, 3, bias=False), nn.BatchNorm2d(3)
        self.deep, self.deep_bn = conv(3, 4, groups=1), nn.BatchNorm2d(4)
        self.up, self.up_bn = nn.ConvTranspose2d(4, 2, 2, stride=2), nn.BatchNorm2d(2)
        self.join, self.join_bn = conv(5, 4, bias=False), nn.BatchNorm2d(4)
        self.classifier = conv(4, 3, 1)
        self.relu = nn.ReLU(inplace=True)

    def resize(self, x: Tensor) -> Tensor:
        return F.interpolate(x, (5, 6), mode="bilinear", antialias=True)

    def skip(self, stem: Tensor, up: Tensor) -> Tensor:
        return torch.cat([stem, F.pad(up, (0, stem.shape[-1] - up.shape[-1], 0, stem.shape[-2] - up.shape[-2]))], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.relu(self.stem_bn(self.stem(self.resize(x))))
        deep = self.relu(self.deep_bn(self.deep(F.max_pool2d(stem, 2))))
        up = self.up_bn(self.up(deep))
        logits = self.classifier(self.relu(self.join_bn(self.join(self.skip(stem, up)))))
        return F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=False)


def segmenter() -> Example:
    net, region = settled(Segmenter(), 1), noise(7, 8) > 0

    def scores(logits: Tensor) -> Tensor:
        masked = (logits[0, 0] * region).sum() / region.sum()
        return torch.stack([logits[0, 1][region].mean(), logits[0, 2, 3, 4] - logits[0, 0, 3, 4], masked])

    steps = [
        Step("small", "route", net.resize, ["x"]),
        Step("stem", "conv", lambda x: net.stem_bn(net.stem(x)), ["small"], first=True),
        Step("stem_relu", "relu", F.relu, ["stem"]),
        Step("pool", "max", lambda x: F.max_pool2d(x, 2), ["stem_relu"]),
        Step("deep", "conv", lambda x: net.deep_bn(net.deep(x)), ["pool"]),
        Step("deep_relu", "relu", F.relu, ["deep"]),
        Step("up", "conv", lambda x: net.up_bn(net.up(x)), ["deep_relu"]),
        Step("skip", "route", net.skip, ["stem_relu", "up"]),
        Step("join", "conv", lambda x: net.join_bn(net.join(x)), ["skip"]),
        Step("join_relu", "relu", F.relu, ["join"]),
        Step("logits", "conv", net.classifier, ["join_relu"]),
        Step("large", "route", lambda x: F.interpolate(x, (7, 8), mode="bilinear", align_corners=False), ["logits"]),
        Step("scores", "route", scores, ["large"]),
    ]
    return net, steps, lambda x: scores(net(x)), noise(1, 3, 7, 8)


class Detector(nn.Module):
    """Normalisation, padding by writing into a batch, two levels joined top down, one head called twice, RoIAlign."""

    boxes = torch.tensor([[0.5, 1.0, 7.5, 6.0], [-2.0, 0.5, 3.0, 9.0]], dtype=torch.float64)

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.n1 = conv(3, 3, stride=2, bias=False), FrozenBatchNorm2d(3)
        self.c2, self.n2 = conv(3, 4, stride=2, bias=False), FrozenBatchNorm2d(4)
        self.side1, self.side2, self.shared = conv(3, 2, 1), conv(4, 2, 1), conv(2, 2)
        self.pool = MultiScaleRoIAlign(["0", "1"], 2, 2, canonical_scale=6, canonical_level=2)
        self.pool.scales, self.pool.map_levels = [0.5, 0.25], lambda boxes: torch.tensor([0, 1])
        self.fc, self.predictor = nn.Linear(8, 5), nn.Linear(5, 3)

    def normalise(self, x: Tensor) -> Tensor:
        return (x - torch.tensor([0.3, -0.2, 0.1]).double().reshape(3, 1, 1)) / torch.tensor([0.5, 2.0, 0.8]).double().reshape(3, 1, 1)

    def batch(self, x: Tensor) -> Tensor:
        batch = x.new_full((1, 3, 8, 8), 0)
        batch[0, :, : x.shape[-2], : x.shape[-1]].copy_(x[0])
        return batch

    def rois(self, low: Tensor, high: Tensor) -> Tensor:
        return self.pool(OrderedDict([("0", low), ("1", high)]), [self.boxes], [(8, 8)])

    def forward(self, x: Tensor) -> Tensor:
        c1 = F.relu(self.n1(self.c1(self.batch(self.normalise(x)))))
        c2 = F.relu(self.n2(self.c2(c1)), inplace=True)
        top = self.side2(c2)
        low = self.side1(c1) + F.interpolate(top, size=(4, 4), mode="nearest")
        return self.predictor(F.relu(self.fc(self.rois(self.shared(low), self.shared(top)).flatten(1))))


def detector() -> Example:
    net = settled(Detector(), 2)

    def scores(logits: Tensor) -> Tensor:
        return torch.stack([logits[0, 1], logits[1, 2] - logits[1, 0]])

    steps = [
        Step("normal", "affine", net.normalise, ["x"]),
        Step("batch", "route", net.batch, ["normal"]),
        Step("c1", "conv", lambda x: net.n1(net.c1(x)), ["batch"], first=True),
        Step("r1", "relu", F.relu, ["c1"]),
        Step("c2", "conv", lambda x: net.n2(net.c2(x)), ["r1"]),
        Step("r2", "relu", F.relu, ["c2"]),
        Step("side1", "conv", net.side1, ["r1"]),
        Step("top", "conv", net.side2, ["r2"]),
        Step("low", "route", lambda a, b: a + F.interpolate(b, size=(4, 4), mode="nearest"), ["side1", "top"]),
        Step("p1", "conv", net.shared, ["low"]),
        Step("p2", "conv", net.shared, ["top"]),
        Step("rois", "route", lambda a, b: net.rois(a, b).flatten(1), ["p1", "p2"]),
        Step("fc", "linear", net.fc, ["rois"]),
        Step("fc_relu", "relu", F.relu, ["fc"]),
        Step("logits", "linear", net.predictor, ["fc_relu"]),
        Step("scores", "route", scores, ["logits"]),
    ]
    return net, steps, lambda x: scores(net(x)), noise(1, 3, 7, 6)


class Residual(nn.Module):
    """Additions in place, a normalisation behind an addition, a gate, LeakyReLU, average pooling, a strided convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2, self.c3 = conv(3, 4), conv(4, 4, groups=2), conv(4, 4, stride=2)
        self.n2, self.n = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.squeeze, self.head = conv(4, 4, 1), nn.Linear(4, 3)
        self.relu = nn.ReLU(inplace=True)

    def gate(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.squeeze(F.adaptive_avg_pool2d(x, 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.c1(x))
        out = self.n2(self.c2(x).contiguous())
        out += x
        x = F.leaky_relu(self.n(out), 0.2)
        x = F.relu(self.c3(F.dropout(x, training=False)))
        return self.head(F.avg_pool2d(self.gate(x) * x, 3).flatten(1))


def residual() -> Example:
    net = settled(Residual(), 3)
    steps = [
        Step("c1", "conv", net.c1, ["x"], first=True),
        Step("r1", "relu", F.relu, ["c1"]),
        Step("c2", "conv", lambda x: net.n2(net.c2(x)), ["r1"]),
        Step("sum", "route", lambda a, b: a + b, ["c2", "r1"]),
        Step("n", "affine", net.n, ["sum"]),
        Step("leaky", "relu", lambda x: F.leaky_relu(x, 0.2), ["n"]),
        Step("c3", "conv", net.c3, ["leaky"]),
        Step("r3", "relu", F.relu, ["c3"]),
        Step("gated", "gate", lambda x: x * net.gate(x), ["r3"]),
        Step("mean", "route", lambda x: F.avg_pool2d(x, 3).flatten(1), ["gated"]),
        Step("logits", "linear", net.head, ["mean"]),
        Step("scores", "route", lambda x: x[0], ["logits"]),
    ]
    return net, steps, lambda x: net(x)[0], noise(1, 3, 6, 6)


def difference(ours: Tensor, other: Tensor) -> float:
    assert float(other.abs().max()) > 1e-6
    return float((ours - other).abs().max() / other.abs().max())


@cache
def prepared(example: Callable[[], Example]) -> tuple[Example, Run]:
    made = example()
    with torch.no_grad():
        return made, run(made[1], made[3])


@pytest.mark.parametrize("biases", ["absorb", "ignore"])
@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.parametrize("example", [segmenter, detector, residual])
def test_agrees_with_the_plain_propagation(example: Callable[[], Example], name: str, biases: str) -> None:
    (net, _, scores, x), plain_run = prepared(example)
    settings = dict(epsilon=1e-3, gamma=0.4, alpha=1.5, beta=0.5, low=-3.0, high=3.5)
    with torch.no_grad():
        expected_scores, expected = propagate(plain_run, name, biases=biases == "absorb", **settings)
    ours = relevance(scores, x, composite(name, biases=biases, **settings), layer_names(net))
    for mine, score, plain in zip(ours, expected_scores, expected, strict=True):
        assert mine.score == pytest.approx(float(score), rel=1e-12)
        assert difference(mine.values, plain) < EQUAL


def chain() -> nn.Sequential:
    layers = [
        conv(3, 5), nn.ReLU(), nn.MaxPool2d(2), conv(5, 6, groups=1, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(24, 7), nn.ReLU(), nn.Linear(7, 3),
    ]  # fmt: skip
    return nn.Sequential(*layers)


@pytest.mark.parametrize("biases", ["absorb", "ignore"])
@pytest.mark.parametrize("name", COMPOSITES)
def test_agrees_with_zennit_on_a_chain(name: str, biases: str) -> None:
    from zennit import rules
    from zennit.core import Composite

    net, x = settled(chain(), 4), noise(2, 3, 8, 8)
    given = {"zero_params": None if biases == "absorb" else ["bias"]}
    kinds = {
        "flat": rules.Flat(**given), "wsquare": rules.WSquare(**given), "epsilon": rules.Epsilon(**given), "zplus": rules.ZPlus(**given),
        "gamma": rules.Gamma(**given), "alpha2beta1": rules.AlphaBeta(**given), "box": rules.ZBox(-3.0, 3.5, **given),
    }  # fmt: skip
    first, hidden, linear = {
        "lrp": ("flat", "zplus", "epsilon"), "lrp-epsilon-plus-flat": ("flat", "zplus", "epsilon"),
        "lrp-epsilon-gamma-box": ("box", "gamma", "epsilon"), "lrp-epsilon-alpha2beta1-flat": ("flat", "alpha2beta1", "epsilon"),
    }.get(name, (name.removeprefix("lrp-"),) * 3)  # fmt: skip

    def rule_of(ctx: object, name: str, module: nn.Module) -> object:
        if isinstance(module, nn.ReLU):
            return rules.Pass()
        if isinstance(module, nn.Linear):
            return kinds[linear]
        return kinds[first if name == "0" else hidden] if isinstance(module, nn.Conv2d) else None

    with Composite(module_map=rule_of).context(net) as hooked:
        image = x.clone().requires_grad_()
        logits = hooked(image)
        (expected,) = torch.autograd.grad(logits, image, logits.detach() * torch.tensor([0.0, 1.0, -1.0]))

    def margin(image: Tensor) -> Tensor:
        logits = net(image)
        return (logits[:, 1] - logits[:, 2]).sum()[None]

    (ours,) = relevance(margin, x, composite(name, low=-3.0, high=3.5, biases=biases))
    assert difference(ours.values, expected) < EQUAL


# -- by hand: inputs 2 and -1; units with z = 1, 4.5 and -3.5

UNITS = {"small": ([3.0, 4.0], -1.0), "positive": ([1.0, -2.0], 0.5), "negative": ([-1.0, 1.0], -0.5)}
BY_HAND = {
    ("lrp-epsilon", "small"): (6, -4),
    ("lrp-epsilon", "positive"): (2, 2),
    ("lrp-epsilon", "negative"): (-2, -1),
    ("lrp-zplus", "small"): (1, 0),
    ("lrp-zplus", "positive"): (2, 2),
    ("lrp-zplus", "negative"): (0, 0),  # no positive product, so everything is absorbed
    ("lrp-gamma", "small"): (9 / 4, -1),  # gamma = 0.5: 6 + 3 and -4, bias -1
    ("lrp-gamma", "positive"): (2, 2),  # 3 and 3, bias 0.75
    ("lrp-gamma", "negative"): (-2, -1),  # -3 and -1.5, bias -0.75
    ("lrp-alpha2beta1", "small"): (2, -4 / 5),
    ("lrp-alpha2beta1", "positive"): (4, 4),
    ("lrp-alpha2beta1", "negative"): (2, 1),
    ("lrp-wsquare", "small"): (9 / 26, 16 / 26),
    ("lrp-wsquare", "positive"): (4.5 / 5.25, 4.5 * 4 / 5.25),
    ("lrp-wsquare", "negative"): (-3.5 / 2.25, -3.5 / 2.25),
    ("lrp-flat", "small"): (1 / 2, 1 / 2),
    ("lrp-flat", "positive"): (9 / 4, 9 / 4),
    ("lrp-flat", "negative"): (-7 / 4, -7 / 4),
    ("lrp-epsilon-gamma-box", "small"): (3 / 4, 1 / 4),  # low -2, high 3: 6 + 6 and -4 + 8
    ("lrp-epsilon-gamma-box", "positive"): (3 / 2, 3),  # 2 + 2 and 2 + 6
    ("lrp-epsilon-gamma-box", "negative"): (-7 / 4, -7 / 4),  # -2 + 3 and -1 + 2
}


@pytest.mark.parametrize(("name", "unit"), BY_HAND)
@pytest.mark.parametrize("kind", ["linear", "conv", "transposed"])
def test_rule_by_hand(name: str, unit: str, kind: str) -> None:
    weights, bias = UNITS[unit]
    net = {"linear": nn.Linear(2, 1), "conv": nn.Conv2d(2, 1, 1), "transposed": nn.ConvTranspose2d(2, 1, 1)}[kind].double()
    net.weight.data = torch.tensor(weights, dtype=torch.float64).reshape(net.weight.shape)
    net.bias.data[:] = bias
    x = torch.tensor([2.0, -1.0], dtype=torch.float64).reshape((1, 2) if kind == "linear" else (1, 2, 1, 1))
    rules = composite(name, epsilon=1e-12, gamma=0.5, low=-2.0, high=3.0)
    (result,) = relevance(lambda image: net(image).reshape(1), x, rules, layer_names(net))
    expected = torch.tensor(BY_HAND[name, unit], dtype=torch.float64).reshape(x.shape)
    assert torch.allclose(result.values, expected, atol=1e-10)
    assert float(result.values.sum()) + sum(absorbed for _, absorbed in result.ledger) == pytest.approx(result.score, rel=1e-12)


def test_biases_ignored_by_hand() -> None:
    net = nn.Linear(2, 1).double()
    net.weight.data[:], net.bias.data[:] = torch.tensor([3.0, 4.0]), -1.0
    x = torch.tensor([[2.0, -1.0]], dtype=torch.float64)
    rules = composite("lrp-epsilon", epsilon=1e-12, biases="ignore")
    (result,) = relevance(lambda image: net(image).reshape(1), x, rules, layer_names(net))
    assert torch.allclose(result.values, torch.tensor([[3.0, -2.0]]).double())  # z = 2: 6/2 and -4/2
    assert result.ledger == (("weight", pytest.approx(0, abs=1e-9)),)
