"""Composites of zennit (Anders et al. 2021) as methods ``zennit:NAME``, on networks where zennit is right."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..adapters import Adapter, UserModel
from ..errors import MethodError, unknown
from ..types import Decision
from .base import METHODS, Maps, Method
from .gradients import input_gradients
from .guided_backprop import RECTIFIERS, SMOOTH

RIGHT = 1e-3
"""How far, in relative L1, zennit's epsilon rule may be off gradient x input: its merged batch normalisations are not exact."""

TINY = 1e-12

OF_GRADIENTS = {"guided_backprop": "guided-backprop", "deconvnet": "guided-backprop", "beta_smooth": "smoothgrad"}
"""Composites that change the gradient of ReLU modules and of nothing else, and what to use in their place."""

NAMES = {*RECTIFIERS.values(), *SMOOTH.values()}

UNSEEN = {
    "add", "iadd", "sub", "mul", "imul", "div", "mean", "sum", "avg_pool2d", "adaptive_avg_pool2d", "interpolate", "normalize", "roi_align",
    "softmax", "sigmoid", "matmul", "scaled_dot_product_attention", "batch_norm", "group_norm", "layer_norm", "conv2d", "linear",
}  # fmt: skip
"""Operations through which relevance does not pass rightly where they are called as functions."""


@METHODS.family("zennit")
def composite_method(name: str) -> Method:
    """The method ``zennit:NAME``; the numbers of the composite's signature are its parameters."""
    try:
        from zennit.composites import COMPOSITES
    except ImportError:
        raise MethodError(f"method zennit:{name} needs the package zennit; install xaitools[reference], or use lrp") from None
    if name not in COMPOSITES:
        raise MethodError(unknown("method", f"zennit:{name}", [f"zennit:{each}" for each in COMPOSITES]))
    parameters = inspect.signature(COMPOSITES[name]).parameters.values()
    defaults = {each.name: each.default for each in parameters if isinstance(each.default, float)}
    function = partial(zennit_composite, composite=name)
    function.__doc__ = zennit_composite.__doc__
    return Method(f"zennit:{name}", function, "gradients", defaults)


def zennit_composite(
    model: Adapter, image: Tensor, decisions: Sequence[Decision], generator: torch.Generator, *, composite: str, **numbers: float
) -> Maps:
    """What a composite of zennit gives, summed over the channels: for rules of LRP signed relevance, else a modified gradient.

    zennit propagates relevance from module to module and lets autograd carry it through what lies between: right for
    plain networks and torchvision's ResNets, wrong without a word for residual additions, averages and interpolations
    called as functions, and for modules that run twice.  So its epsilon rule is first compared with gradient x input
    on this very image and target, in double precision, and the network is refused where they differ; composites that
    change the gradient of ReLU are refused where a rectifier is no ReLU module.  All of this happens on a copy.
    """
    if isinstance(model, UserModel) or model.trunk:
        instead = OF_GRADIENTS.get(composite, "lrp")
        raise MethodError(f"{model.name}: zennit:{composite} needs one network that runs as a whole; use {instead}")
    twin = in_double(model)
    x = twin.normalise(image)
    maps, scores = [], []
    for decision in decisions:
        (check_rectifiers if composite in OF_GRADIENTS else check_relevance)(twin, image, decision, composite)
        values, score = propagated(twin, x, decision, built(composite, model, numbers), relevance=composite not in OF_GRADIENTS)
        maps.append(values[0].sum(0))
        scores.append(score)
    return Maps(torch.stack(maps).to(image), torch.stack(scores))


def in_double(model: Adapter) -> Adapter:
    """A copy, so that whatever zennit merges, hooks or forgets does not touch the network."""
    twin = copy.deepcopy(model)
    twin.module.double()
    twin.mean, twin.std, twin.dtype = twin.mean.double(), twin.std.double(), torch.float64
    return twin


def built(composite: str, model: Adapter, numbers: Mapping[str, float]) -> Any:
    from zennit.composites import COMPOSITES
    from zennit.torchvision import ResNetCanonizer  # merges batch normalisation; knows the additions of torchvision's ResNets

    bounds = {key: model.normalise(torch.full((1, 3, 1, 1), value)).double() for key, value in (("low", 0.0), ("high", 1.0))}
    asked = inspect.signature(COMPOSITES[composite]).parameters
    return COMPOSITES[composite](**numbers, **{key: bound for key, bound in bounds.items() if key in asked}, canonizers=[ResNetCanonizer()])


def propagated(model: Adapter, x: Tensor, decision: Decision, composite: Any, *, relevance: bool = True) -> tuple[Tensor, Tensor]:
    """What reaches the image, (1, 3, H, W), and the score.

    Relevance starts at the network's outputs as output times slope of the score: the score seeded as a whole would
    count each pixel of a region as often as there are pixels.
    """
    outputs: list[Tensor] = []
    with torch.enable_grad(), composite.context(model.module), exact_identities(model.module):
        hook = model.module.register_forward_hook(lambda module, inputs, out: outputs.extend(tensors(out)))
        try:
            leaf = x.detach().clone().requires_grad_()
            score = model.scores_from(leaf, [decision])[0]
            slopes = torch.autograd.grad(score, outputs, retain_graph=True, materialize_grads=True)
            seeds = [slope * out.detach() if relevance else slope for slope, out in zip(slopes, outputs, strict=True)]
            (values,) = torch.autograd.grad(outputs, leaf, seeds, materialize_grads=True)
        finally:
            hook.remove()
    return values, score.detach()


@contextmanager
def exact_identities(network: nn.Module) -> Iterator[None]:
    """What zennit leaves of a merged batch normalisation divides by the root of 1 + eps; inside by 1."""
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None]
    merged = [(part, part.eps) for part in norms if not bool(part.running_mean.any()) and bool((part.running_var == 1).all())]  # type: ignore
    try:
        for part, _ in merged:
            part.eps = 0.0
        yield
    finally:
        for part, eps in merged:
            part.eps = eps


def tensors(out: Any) -> Iterator[Tensor]:
    """The differentiable tensors in what a network returns."""
    if isinstance(out, Tensor):
        if out.requires_grad:
            yield out
    else:
        for each in out.values() if isinstance(out, Mapping) else out if isinstance(out, list | tuple) else vars(out).values():
            if isinstance(each, Tensor | Mapping | list | tuple):
                yield from tensors(each)


class Loose(TorchFunctionMode):
    """Notes what a network calls that is no module: the names of operations, and how many rectifiers are no ``nn.ReLU``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.rectifiers = network, 0
        self.running: list[nn.Module] = []
        self.called: set[str] = set()
        self.hooks: list[Any] = []

    def __enter__(self) -> Loose:
        for part in self.network.modules():
            self.hooks.append(part.register_forward_pre_hook(lambda module, inputs: self.running.append(module)))
            self.hooks.append(part.register_forward_hook(lambda module, inputs, out: self.running.remove(module)))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self.hooks:
            hook.remove()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.running and isinstance(out, Tensor) and out.requires_grad:
            name, module = getattr(func, "__name__", "").strip("_"), self.running[-1]
            if any(module.children()) or module is self.network:
                self.called.add(name)
            self.rectifiers += name in NAMES and not isinstance(module, nn.ReLU)
        return out


def looked_at(model: Adapter, image: Tensor, decision: Decision) -> tuple[Loose, Tensor]:
    """What the network calls beside its modules, and gradient x input."""
    with Loose(model.module) as loose:
        x, gradients, _ = input_gradients(model, image, [decision])
    return loose, gradients * x


def check_relevance(model: Adapter, image: Tensor, decision: Decision, composite: str) -> None:
    """MethodError where zennit's epsilon rule, with hardly an epsilon, is not gradient x input."""
    from zennit.composites import LayerMapComposite, layer_map_base
    from zennit.rules import Epsilon
    from zennit.torchvision import ResNetCanonizer
    from zennit.types import Linear

    loose, truth = looked_at(model, image, decision)
    rules = LayerMapComposite([*layer_map_base(TINY), (Linear, Epsilon(epsilon=TINY))], canonizers=[ResNetCanonizer()])
    values, _ = propagated(model, model.normalise(image), decision, rules)
    off = float((values - truth).abs().sum() / truth.abs().sum().clamp(min=torch.finfo(truth.dtype).tiny))
    if not off <= RIGHT:
        unseen = ", ".join(sorted(loose.called & UNSEEN))
        raise MethodError(
            f"{model.name}: zennit's epsilon rule is off gradient x input by {off:.2g} here (relative L1; {RIGHT:g} would be right)"
            + (f", it does not see the functions {unseen}" if unseen else "") + f"; zennit:{composite} is refused, use lrp"
        )  # fmt: skip


def check_rectifiers(model: Adapter, image: Tensor, decision: Decision, composite: str) -> None:
    """MethodError where a rectifier is no module that zennit knows: it would be left alone without a word."""
    loose, _ = looked_at(model, image, decision)
    if loose.rectifiers:
        raise MethodError(
            f"{model.name}: {loose.rectifiers} rectifiers are no nn.ReLU modules, which zennit:{composite} leaves alone; "
            f"use {OF_GRADIENTS[composite]}"
        )
