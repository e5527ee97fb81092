"""Sums, and products with constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tape import Tape, operation_name, ordered, refuse
from .table import is_constant, operation, plainly, trail_of

Function = Callable[..., Any]


@operation(named="add sub subtract rsub __rsub__ __radd__")
def add(tape: Tape, func: Function, input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """A constant per channel right behind a layer is a bias of that layer; any other constant absorbs."""
    parts, options = (input, other), {} if alpha == 1 else {"alpha": alpha}
    for place in (0, 1):
        x, constant = parts[place], parts[1 - place]
        source = None if is_constant(tape, x) else trail_of(tape, x).source
        if source is not None and isinstance(constant, Tensor) and is_constant(tape, constant) and source.layer.per_channel(constant):
            zero, one = torch.zeros_like(constant), torch.ones_like(constant)
            if (func(*_swapped(one, zero, place), **options) == 1).all():  # not where x is subtracted
                shift = func(*_swapped(zero, constant.detach(), place), **options)
                return tape.layer(source.then(shift=shift), plainly(func, *parts, **options))

    like = next(x for x in parts if not is_constant(tape, x))
    leaves = [tape.constant(x, like) if is_constant(tape, x) else x for x in parts]
    out = func(*leaves, **options)
    trails = [trail for x in leaves if (trail := tape.trail(x)) is not None]
    many = len(trails[0].shadows)
    if any(len(trail.shadows) != many for trail in trails):
        return tape.follow(out)
    if many == 1:  # ones: a sum and a difference are both fed by both
        ones = sum((trail.shadows[0] for trail in trails[1:]), trails[0].shadows[0])
        shadows: Sequence[Tensor] = (ones.expand(out.shape),)
    else:
        bounds = [[x if (trail := tape.trail(x)) is None else trail.shadows[i] for x in leaves] for i in range(many)]
        shadows = ordered([func(*bound, **options) for bound in bounds])
    return tape.follow(out, shadows, all(trail.reads_image for trail in trails))


def _swapped(x: Any, constant: Any, place: int) -> tuple[Any, Any]:
    return (constant, x) if place else (x, constant)


@operation(named="mul multiply div divide true_divide")
def multiply(tape: Tape, func: Function, input: Any, other: Any, **options: Any) -> Tensor:
    """By a constant: a change of units.  Of two that depend on the image, one must be a gate, which is frozen."""
    dividing = "div" in func.__name__
    if options.get("rounding_mode") or (dividing and not is_constant(tape, other)):
        raise refuse(f"{operation_name(func)} with rounding, or by something computed from the image", "use another method")
    if not is_constant(tape, input) and not is_constant(tape, other):
        gates = [trail_of(tape, x).gate for x in (input, other)]
        if gates[0] == gates[1]:
            both = f"{operation_name(func)} of two tensors that depend on the image, of which not exactly one is a gate"
            raise refuse(both, "use another method")
        input, other = (input.detach(), other) if gates[0] else (input, other.detach())
    input, other = (x.detach() if isinstance(x, Tensor) and is_constant(tape, x) else x for x in (input, other))
    x, factor = (other, input) if is_constant(tape, input) else (input, other)
    trail = trail_of(tape, x)
    scale = factor if isinstance(factor, Tensor) else torch.as_tensor(factor, dtype=x.dtype, device=x.device)
    scale = scale.reciprocal() if dividing else scale
    if trail.source is not None and trail.source.layer.per_channel(scale):
        return tape.layer(trail.source.then(scale), plainly(func, input, other))
    return tape.follow(func(input, other), trail.rescaled(scale), trail.reads_image, trail.gate)


@operation(F.normalize)
def normalize(
    tape: Tape, func: Function, input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None
) -> Tensor:
    """The length counts as constant: the gradient of a normalised vector is orthogonal to it and would explain nothing."""
    if out is not None:
        raise refuse("normalize into a given tensor", "leave out= away")
    length = input.detach().norm(p, dim, keepdim=True).clamp_min(eps)
    return multiply(tape, torch.div, input, length.expand_as(input))


@operation(named="neg negative")
def negative(tape: Tape, func: Function, input: Tensor) -> Tensor:
    return multiply(tape, torch.mul, input, -1)
