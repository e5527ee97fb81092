"""Layers with weights, and batch and group normalisation, which are merged into the layer before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..layers import Affine
from ..tape import Source, Tape, operation_name, refuse
from .table import operation, plainly, trail_of

Function = Callable[..., Any]


def _layer(tape: Tape, func: Function, kind: str, input: Tensor, weight: Tensor, bias: Tensor | None, options: Mapping[str, Any]) -> Tensor:
    if tape.trail(weight) is not None or tape.trail(bias) is not None:
        raise refuse(f"{operation_name(func)} with weights computed from the image", "use another method")
    trail, dims = trail_of(tape, input), weight.dim() - 2
    spread: dict[str, Any] = {key: tuple(v) if isinstance(v, Sequence) else (v,) * dims for key, v in options.items() if key != "groups"}
    layer = Affine(kind, weight.detach(), None if bias is None else bias.detach(), input.shape, **spread, groups=options.get("groups", 1))
    tape.layers += 1
    source = Source(layer, (input, *trail.shadows), trail.reads_image, tape.name(func.__name__, weight, bias))
    return tape.layer(source, plainly(func, input, weight, bias, **options))


@operation(F.linear)
def linear(tape: Tape, func: Function, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return _layer(tape, func, "linear", input, weight, bias, {})


@operation(named="conv1d conv2d conv3d")
def convolution(
    tape: Tape, func: Function, input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    if padding == "valid":
        padding = 0
    elif padding == "same":
        steps = dilation if isinstance(dilation, Sequence) else (dilation,) * (weight.dim() - 2)
        reach = [step * (kernel - 1) for step, kernel in zip(steps, weight.shape[2:], strict=True)]
        if any(r % 2 for r in reach):
            raise refuse('a convolution with an even kernel and padding="same"', "pad before it, explicitly")
        padding = tuple(r // 2 for r in reach)
    options = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
    return _layer(tape, func, "conv", input, weight, bias, options)


@operation(named="conv_transpose1d conv_transpose2d conv_transpose3d")
def transposed_convolution(
    tape: Tape, func: Function, input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    options = dict(stride=stride, padding=padding, output_padding=output_padding, groups=groups, dilation=dilation)
    return _layer(tape, func, "conv_transpose", input, weight, bias, options)


@operation(F.batch_norm)
def batch_norm(
    tape: Tape, func: Function, input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Merged into the layer before it; elsewhere it scales, and its shift absorbs."""
    if training or running_mean is None or running_var is None:
        raise refuse("batch_norm in train mode", "call model.eval() first")
    trail = trail_of(tape, input)
    scale = (running_var + eps).rsqrt() if weight is None else weight.detach() * (running_var + eps).rsqrt()
    shift = -running_mean * scale if bias is None else bias.detach() - running_mean * scale
    compute = plainly(func, input, running_mean, running_var, weight, bias, False, momentum, eps)
    if trail.source is not None and input.dim() == trail.source.layer.dims + 2:
        return tape.layer(trail.source.then(scale, shift), compute)
    slope, level = (v.reshape(-1, *[1] * (input.dim() - 2)) for v in (scale, shift))
    out = tape.bend(tape.name("batch_norm", weight, bias), input, compute, lambda g, x, value: g * slope)
    return tape.follow(out, trail.rescaled(slope, level), trail.reads_image)


@operation(F.group_norm, torch.group_norm)
def group_norm(
    tape: Tape, func: Function, input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, *enabled: bool,
) -> Tensor:  # fmt: skip
    """Mean and variance of the image count as constants; what is left is a batch normalisation, another one for each image."""
    trail, compute = trail_of(tape, input), plainly(func, input, num_groups, weight, bias, eps, *enabled)
    values = input.detach().reshape(len(input), num_groups, -1)
    variance, mean = torch.var_mean(values, 2, correction=0)
    each = input.shape[1] // num_groups
    scale = (variance + eps).rsqrt().repeat_interleave(each, 1)  # (N, C)
    scale = scale if weight is None else weight.detach() * scale
    shift = -mean.repeat_interleave(each, 1) * scale
    shift = shift if bias is None else bias.detach() + shift
    if trail.source is None or input.dim() != trail.source.layer.dims + 2:
        slope, level = (v.reshape(*v.shape, *[1] * (input.dim() - 2)) for v in (scale, shift))
        out = tape.bend(tape.name("group_norm", weight, bias), input, compute, lambda g, x, value: g * slope)
        return tape.follow(out, trail.rescaled(slope, level), trail.reads_image)
    outs, value = [], compute()
    for n in range(len(input)):
        alone = trail.source.of_image(n).then(scale[n], shift[n])
        outs.append(tape.layer(alone, lambda n=n: value[n : n + 1]))  # type: ignore[misc]
    shadows = zip(*(trail_of(tape, out).shadows for out in outs), strict=True)
    return tape.follow(torch.cat(outs), [torch.cat(beside) for beside in shadows])
