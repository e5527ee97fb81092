"""Relevance through torchvision's detectors: the ledger, gradient x input as epsilon goes to 0, and what is new in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.attribution.frozen import Frozen
from tests.attribution.plain_propagation import Run, Step, propagate, run
from tests.detectors import BUILDERS, DETECTORS, built, model_of
from tests.nets import picture, settled
from xaitools.adapters import as_found
from xaitools.attribution import explain, explain_many
from xaitools.attribution.lrp import COMPOSITES, Relevance, composite, layer_names, relevance
from xaitools.errors import MethodError
from xaitools.targets import EDGES, bind


def decisions_of(model: Any, image: Tensor) -> list[Any]:
    """A box, a contrast, an edge that moved (FCOS's outputs may be 0) and, where there is one, a mask."""
    prediction = model.predict(image)[0]
    edges = [bind(f"box:{index}:{edge}", prediction) for index in range(3) for edge in EDGES]
    moved = next(each for each in edges if float(model.scores(image, [each])))
    masks = [] if prediction.cells is None else [f"mask:{[bool(cells.any()) for cells in prediction.cells].index(True)}"]
    return [moved, *(bind(target, prediction) for target in ("box:0", "box:2:vs:", *masks))]


def relevances(model: Any, image: Tensor, decisions: list[Any], name: str, **settings: float) -> list[Relevance]:
    rules = composite(name, **{"low": -5.0, "high": 5.0, **settings})
    return relevance(lambda x: model.scores_from(x, decisions), model.normalise(image), rules, model.parameter_names())


def gap(result: Relevance) -> float:
    return abs(result.score - float(result.values.sum()) - sum(absorbed for _, absorbed in result.ledger))


def check_epsilon_to_zero(model: Any, image: Tensor, decisions: list[Any]) -> None:
    """On the frozen net, which has the same scores."""
    ours = relevances(model, image, decisions, "lrp-epsilon", epsilon=1e-14)
    x = model.normalise(image).requires_grad_()
    with Frozen():
        scores = model.scores_from(x, decisions)
    for k, mine in enumerate(ours):
        (gradient,) = torch.autograd.grad(scores[k], x, retain_graph=True)
        expected = gradient * x.detach()
        assert mine.score == pytest.approx(scores[k].item(), rel=1e-12)
        assert float((mine.values - expected).abs().sum() / expected.abs().sum()) < 1e-6


@pytest.mark.parametrize("family", DETECTORS)
def test_epsilon_to_zero_is_gradient_times_input(family: str) -> None:
    model, image = model_of(DETECTORS[family]()), picture(45, 61)[None].double()
    with as_found(model):
        decisions = decisions_of(model, image)
        check_epsilon_to_zero(model, image, decisions)


@pytest.mark.parametrize("family", DETECTORS)
def test_ledger_closes(family: str) -> None:
    model, image = model_of(DETECTORS[family]()), picture(45, 61)[None].double()
    with as_found(model):
        decisions = decisions_of(model, image)
        plain = model.scores(image, decisions).tolist()
        for name in COMPOSITES:
            for result, score in zip(relevances(model, image, decisions, name), plain, strict=True):
                assert result.score == score, "the forward values are the network's own"
                assert bool(result.values.isfinite().all()) and bool(result.values.any())
                assert gap(result) <= 1e-9 * max(abs(score), abs(float(result.values.sum()))), name


QUICK = ("fasterrcnn_mobilenet_v3_large_320_fpn", "fcos_resnet50_fpn")


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in BUILDERS])
def test_torchvisions_own_networks(name: str) -> None:
    model, image = model_of(built(name)), picture(61, 75)[None].double()
    with as_found(model):
        decisions = decisions_of(model, image)
        for result in relevances(model, image, decisions, "lrp"):
            assert bool(result.values.any()) and gap(result) <= 1e-9 * max(abs(result.score), abs(float(result.values.sum())))
        check_epsilon_to_zero(model, image, decisions)


@pytest.mark.parametrize("family", DETECTORS)
def test_targets_of_one_class_differ_and_share_a_pass(family: str) -> None:
    model, image = model_of(DETECTORS[family](), score_threshold=0.05), picture(45, 61)
    prediction = model.predict(image[None])[0]
    of_class = torch.where(prediction.labels == prediction.labels.mode().values)[0].tolist()
    targets = [f"box:{of_class[0]}", f"box:{of_class[1]}", f"box:{of_class[0]}:right"]
    together = explain_many(model, image, targets, prediction=prediction)
    for target, mine in zip(targets, together, strict=True):
        alone = explain(model, image, target)
        assert alone.score == pytest.approx(mine.score, rel=1e-12)
        torch.testing.assert_close(alone.values, mine.values, rtol=1e-10, atol=1e-10 * float(mine.values.abs().max()))
    for other in together[1:]:
        assert float((together[0].values - other.values).abs().max()) > 1e-3 * float(other.values.abs().max())


@pytest.mark.parametrize("family", DETECTORS)
def test_nothing_stays_on_the_network(family: str) -> None:
    model, image = model_of(DETECTORS[family]()), picture(45, 61)
    model.predict(image[None])  # torchvision's pooler and anchors remember their scales

    def state() -> tuple[list[Tensor], list[object]]:
        tensors = [*model.module.parameters(), *model.module.buffers()]
        facts = [(part.training, len(part._forward_hooks), len(part._backward_hooks), len(vars(part))) for part in model.module.modules()]
        return [t.clone() for t in tensors], [*facts, *((id(t), t._version, t.requires_grad, t.grad) for t in tensors)]

    model.module.train()
    before = state()
    first = explain(model, image, "top").values
    decision = bind("top", model.predict(image[None])[0])
    with pytest.raises(MethodError, match="exp"), as_found(model):
        relevance(lambda x: model.scores_from(x, [decision]).exp(), model.normalise(image[None]), composite("lrp"))
    after = state()
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True)) and before[1] == after[1]
    assert torch.equal(first, explain(model, image, "top").values)


# -- the new constructs, against the plain propagation


class Normalised(nn.Module):
    """A group normalisation behind a convolution, one behind a ReLU; a length normalised and rescaled."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.g1 = nn.Conv2d(3, 4, 3, 2, 1), nn.GroupNorm(2, 4)
        self.c2, self.g2 = nn.Conv2d(4, 6, 3, 1, 1, bias=False), nn.GroupNorm(3, 6)
        self.c3, self.weight = nn.Conv2d(6, 3, 1), nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.g1(F.relu(self.g1(self.c1(x))))
        x = F.relu(self.g2(self.c2(x)))
        return self.c3(self.weight.view(1, -1, 1, 1) * F.normalize(x))


def frozen_group_norm(norm: nn.GroupNorm, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The affine map that ``norm`` is for the statistics of ``x`` (1, C, H, W)."""
    grouped = x.reshape(norm.num_groups, -1)
    mean, variance = grouped.mean(1), ((grouped - grouped.mean(1, keepdim=True)) ** 2).mean(1)
    each = x.shape[1] // norm.num_groups
    mean, std = (v.repeat_interleave(each).view(-1, 1, 1) for v in (mean, (variance + norm.eps).sqrt()))
    return lambda y: (y - mean) / std * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)


@cache
def normalised() -> tuple[nn.Module, Run, Tensor]:
    net = settled(Normalised()).double()
    x = torch.randn(1, 3, 6, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    with torch.no_grad():
        c1 = net.c1(x)
        r1 = F.relu(net.g1(c1))
        c2 = net.c2(net.g1(r1))
        g1, again, g2 = frozen_group_norm(net.g1, c1), frozen_group_norm(net.g1, r1), frozen_group_norm(net.g2, c2)
        length = F.relu(net.g2(c2)).norm(dim=1, keepdim=True)
        steps = [
            Step("c1", "conv", lambda x: g1(net.c1(x)), ["x"], first=True),
            Step("r1", "relu", F.relu, ["c1"]),
            Step("again", "affine", again, ["r1"]),
            Step("c2", "conv", lambda x: g2(net.c2(x)), ["again"]),
            Step("r2", "relu", F.relu, ["c2"]),
            Step("unit", "affine", lambda x: net.weight.view(-1, 1, 1) * x / length, ["r2"]),
            Step("logits", "conv", net.c3, ["unit"]),
            Step("scores", "route", chosen, ["logits"]),
        ]
        return net, run(steps, x), x


def chosen(logits: Tensor) -> Tensor:
    return torch.stack([logits[0, 1].mean(), logits[0, 0].mean() - logits[0, 2, 0, 0]])


@pytest.mark.parametrize("biases", ["absorb", "ignore"])
@pytest.mark.parametrize("name", COMPOSITES)
def test_normalisations_agree_with_the_plain_propagation(name: str, biases: str) -> None:
    net, plain_run, x = normalised()
    settings = dict(epsilon=1e-3, gamma=0.4, alpha=1.5, beta=0.5, low=-4.0, high=4.5)
    with torch.no_grad():
        scores, expected = propagate(plain_run, name, biases=biases == "absorb", **settings)
    ours = relevance(lambda image: chosen(net(image)), x, composite(name, biases=biases, **settings), layer_names(net))
    for mine, score, plain in zip(ours, scores, expected, strict=True):
        assert mine.score == pytest.approx(float(score), rel=1e-12)
        assert float(plain.abs().max()) > 1e-6 and float((mine.values - plain).abs().max() / plain.abs().max()) < 1e-8
        assert gap(mine) <= 1e-9 * max(1, float(plain.abs().sum()))


@pytest.mark.parametrize("name", COMPOSITES)
def test_each_image_has_its_own_statistics(name: str) -> None:
    net = normalised()[0]
    x = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(6), dtype=torch.float64) * torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    rules = composite(name, low=-15.0, high=15.0)
    both = relevance(lambda images: net(images)[:, 1].mean((1, 2)), x, rules)
    for n in range(2):
        (alone,) = relevance(lambda image: net(image)[:, 1].mean((1, 2)), x[n : n + 1], rules)
        torch.testing.assert_close(both[n].values[n], alone.values[0], rtol=1e-9, atol=1e-9 * float(alone.values.abs().max()))
        assert not bool(both[n].values[1 - n].any())


def test_normalising_keeps_relevance_where_the_gradient_would_lose_it() -> None:
    """The gradient of a normalised vector is orthogonal to it."""
    net = nn.Conv2d(3, 4, 1, bias=False).double()
    x = picture(4, 5)[None].double()

    def length(image: Tensor) -> Tensor:
        unit = F.normalize(net(image))
        return (unit * unit.detach()).sum()[None]

    (ours,) = relevance(length, x, composite("lrp-epsilon", epsilon=1e-14))
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(length(leaf)[0], leaf)
    assert float(ours.values.sum()) == pytest.approx(ours.score) == pytest.approx(20)
    assert abs(float((gradient * x).sum())) < 1e-9
    with pytest.raises(MethodError, match="given tensor"):
        relevance(lambda image: F.normalize(image, out=torch.empty_like(x)).sum()[None], x, composite("lrp"))
