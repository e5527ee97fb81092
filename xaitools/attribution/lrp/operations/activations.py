"""Activations and maxima, gates, and the log-sum-exp of a contrast."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torchvision.ops  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor
from torch.nn import functional as F

from ..rules import stabilised
from ..tape import Tape, refuse
from .table import is_constant, operation, plainly, trail_of

Function = Callable[..., Any]


def _kept(tape: Tape, x: Tensor) -> tuple[Tensor, ...]:
    """Shadows inside the network take no notice of an activation; those of the image end here."""
    shadows = trail_of(tape, x).shadows
    return shadows if tape.composite.hidden_shadows else ()


# -- piecewise linear through 0: autograd is right


@operation(F.relu, torch.relu, Tensor.relu, F.leaky_relu)
def rectify(tape: Tape, func: Function, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return tape.follow(func(input, *args, **kwargs), _kept(tape, input))


@operation(F.prelu, torch.prelu)
def prelu(tape: Tape, func: Function, input: Tensor, weight: Tensor) -> Tensor:
    return tape.follow(func(input, weight.detach()), _kept(tape, input))


@operation(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout)
def dropout(tape: Tape, func: Function, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if training:
        raise refuse("dropout in train mode", "call model.eval() first")
    return input


_WITH_INDICES: dict[Function, Function] = {
    F.max_pool1d: F.max_pool1d_with_indices, F.max_pool2d: F.max_pool2d_with_indices, F.max_pool3d: F.max_pool3d_with_indices,
    F.adaptive_max_pool1d: F.adaptive_max_pool1d_with_indices, F.adaptive_max_pool2d: F.adaptive_max_pool2d_with_indices,
    F.adaptive_max_pool3d: F.adaptive_max_pool3d_with_indices,
}  # fmt: skip


@operation(*_WITH_INDICES, *_WITH_INDICES.values())
def max_pool(tape: Tape, func: Function, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """The winner takes all, of the shadow too."""
    indexed = _WITH_INDICES.get(func, func)
    wanted = inspect.signature(indexed).bind(input, *args, **kwargs).arguments.get("return_indices", func is indexed)
    if not (kept := _kept(tape, input)) and not wanted:
        return tape.follow(func(input, *args, **kwargs))
    out, winners = indexed(input, *args, **{**kwargs, "return_indices": True})
    dims = int(indexed.__name__.partition("pool")[2][0])
    tape.follow(out, [s.flatten(-dims).gather(-1, winners.flatten(-dims)).reshape(out.shape) for s in kept])
    return (out, winners) if wanted else out


@operation(torch.ops.torchvision.roi_pool)
def roi_pool(tape: Tape, func: Function, input: Tensor, rois: Tensor, *args: Any) -> Any:
    """As ``max_pool``, in each cell of a box; a cell without pixels is 0 and has no winner (-1)."""
    if not is_constant(tape, rois):
        raise refuse("the coordinates of boxes", "detach the boxes: they count as given")
    kept = _kept(tape, input)
    out, winners = func(input, rois, *args)
    image, index = rois[:, 0].long(), winners.clamp(min=0).long().flatten(2)
    shadows = [s.flatten(2)[image].gather(2, index).reshape(out.shape) * (winners >= 0) for s in kept]
    return tape.follow(out, shadows), winners


# -- smooth: relevance passes; value / x stands for the slope, with its limit at 0

_LIMITS: dict[Function, float] = {
    F.silu: 0.5, F.hardswish: 0.5, F.gelu: 0.5, F.mish: 0.6, torch.tanh: 1.0, Tensor.tanh: 1.0, F.tanh: 1.0,
    F.relu6: 1.0, F.elu: 1.0, F.selu: 1.0, F.celu: 1.0,
}  # fmt: skip


@operation(*_LIMITS)
def activation(tape: Tape, func: Function, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    limit = _LIMITS.get(func, 1.0)

    def back(g: Tensor, x: Tensor, value: Tensor) -> Tensor:
        return g * torch.where(x == 0, limit, value / torch.where(x == 0, 1, x))

    out = tape.bend(tape.name(func.__name__), input, plainly(func, input, *args, **kwargs), back)
    return tape.follow(out, _kept(tape, input))


@operation(F.hardtanh)
def hardtanh(tape: Tape, func: Function, input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """Also ReLU6 as a module."""
    if not min_val <= 0 <= max_val:
        raise refuse(f"hardtanh from {min_val} to {max_val}", "its range must hold 0")
    return activation(tape, func, input, min_val, max_val)


@operation(named="sigmoid hardsigmoid")
def sigmoid(tape: Tape, func: Function, input: Tensor, inplace: bool = False) -> Tensor:
    """Not 0 at 0, so what the stabiliser loses is absorbed; as a factor it counts as a gate."""
    epsilon = tape.composite.linear.epsilon

    def back(g: Tensor, x: Tensor, value: Tensor) -> Tensor:
        return g * value / stabilised(x, epsilon)

    out = tape.bend(tape.name(func.__name__), input, plainly(func, input), back)
    return tape.follow(out, _kept(tape, input), gate=True)


@operation(named="logsumexp")
def logsumexp(tape: Tape, func: Function, input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """Of a contrast, behind the logits: its gradient is the softmax; the rest of its value stands under "contrast"."""

    def back(g: Tensor, x: Tensor, value: Tensor) -> Tensor:
        shape = x.sum(dim, keepdim=True).shape
        return g.reshape(shape) * (x - value.reshape(shape)).exp()

    return tape.follow(tape.bend("contrast", input, plainly(func, input, dim, keepdim), back))
