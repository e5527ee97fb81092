r"""The propagation rules: each class is one formula.

A layer has inputs a_j, weights w_jk, bias b_k and output z_k; R_k is the relevance of its output and R_j
that of its input.  Every rule shares out R_k in proportion to terms,

    R_j = a_j c_j,   c = w^T s,   s_k = R_k / (z_k + ε sign z_k),   z_k = Σ_j a_j w_jk + b_k,   sign 0 = +1,

with its own idea of a, w and b.  What comes out is c, the *modified gradient*, so that R = a c.
The part of b_k in z_k is absorbed; ``biases="ignore"`` leaves b out of z.  x⁺ is max(x, 0) and x⁻ is min(x, 0).

Sources: Bach et al. 2015 (PLOS ONE 10(7) e0130140); Montavon et al. 2017 (Pattern Recognition 65, deep Taylor
decomposition); Lapuschkin et al. 2019 (Nature Communications 10, flat); Montavon et al. 2019 (LNCS 11700, ch. 10,
gamma); Andéol et al. 2021 (gamma for inputs of either sign).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from ...errors import MethodError
from .layers import Affine


def stabilised(z: Tensor, epsilon: float) -> Tensor:
    return z + torch.copysign(z.new_tensor(epsilon), z)


def part(x: Tensor, sign: int) -> Tensor:
    """x⁺ for sign +1, x⁻ for sign -1."""
    return x.clamp(min=0) if sign > 0 else x.clamp(max=0)


def where_positive(gate: Tensor, x: Tensor) -> Tensor:
    """x where gate > 0, else 0: the backward of a ReLU, which is twenty times as fast as ``torch.where``."""
    return torch.ops.aten.threshold_backward(x, gate, 0.0)  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class Term:
    """An input and the weights it meets; where the ``gate`` is not positive the input has no say and gets nothing."""

    slot: int  # 0 for the activations, then their shadows
    a: Tensor
    w: Tensor
    gate: Tensor | None = None


def by_sign(a: Tensor, weights: Callable[[int], Tensor]) -> list[Term]:
    """a⁺ with ``weights(+1)`` and a⁻ with ``weights(-1)``: behind a ReLU there is no a⁻, and half of the work is saved."""
    if a.numel() == 0 or not bool(a.amin() < 0):
        return [Term(0, a, weights(1), a)]
    return [Term(0, part(a, sign), weights(sign), sign * a) for sign in (1, -1)]


@dataclass(frozen=True, eq=False)
class Share:
    """One sharing out, c_t = ``factor`` w_t^T s for each term t with s = R / z.  Nothing here depends on R: it serves every target.

    z is Σ_t w_t a_t + b, stabilised, unless it is given; R is shared out where ``outputs`` are positive.
    """

    layer: Affine
    terms: Sequence[Term]
    bias: Tensor | None
    epsilon: float
    factor: float = 1.0
    outputs: Tensor | None = None
    given: Tensor | None = None

    @cached_property
    def z(self) -> Tensor:
        z = self.given
        if z is None:
            products = [self.layer.out(term.a, term.w) for term in self.terms]
            z = sum(products[1:], products[0])
            z = z if self.bias is None else z + self.bias
        return stabilised(z, self.epsilon)

    def gradients(self, relevance: Tensor) -> Iterator[tuple[int, Tensor]]:
        if self.outputs is not None:
            relevance = where_positive(self.outputs, relevance)
            if not bool(relevance.any()):
                return  # behind a ReLU no negative output is relevant
        s = relevance / self.z
        for term in self.terms:
            c = self.layer.back(s, term.w)
            c = c if term.gate is None else where_positive(term.gate, c)
            yield term.slot, c if self.factor == 1 else self.factor * c


Gradients = list[Tensor | None]
"""c for the activations, then for their shadows; None for what gets nothing."""


def gradients(shares: Sequence[Share], inputs: int, relevance: Tensor) -> Gradients:
    """What the shares send to each of the layer's ``inputs``."""
    found: Gradients = [None] * inputs
    for share in shares:
        for slot, c in share.gradients(relevance):
            before = found[slot]
            found[slot] = c if before is None else before + c
    return found


@dataclass(frozen=True)
class Rule(ABC):
    """``shares`` says how the relevance of one call's output goes to its inputs: the activations a, then the shadows.

    ``shadow`` says what stands in for the activations of a rule that is not proportional to them: "ones" or
    "box" (the lowest and the highest input).  Shadows share the way of the activations through the network,
    so that the relevance sent to them arrives at the right pixels.
    """

    epsilon: float = 1e-6
    biases: str = "absorb"
    shadow: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise MethodError(f"epsilon must be positive, got {self.epsilon}: it keeps divisions by zero away; try 1e-6")
        if self.biases not in ("absorb", "ignore"):
            raise MethodError(f"biases must be absorb or ignore, got {self.biases!r}")

    @abstractmethod
    def shares(self, layer: Affine, inputs: Sequence[Tensor], value: Tensor) -> list[Share]:
        """The ways in which the output ``value`` of one call is shared out."""

    def bias(self, layer: Affine) -> Tensor | None:
        return layer.bias if self.biases == "absorb" else None


@dataclass(frozen=True)
class Epsilon(Rule):
    """z = w a + b (Bach et al. 2015, eq. 58): the output itself, so nothing is computed again."""

    def shares(self, layer: Affine, inputs: Sequence[Tensor], value: Tensor) -> list[Share]:
        z = value if self.biases == "absorb" else value - layer.bias
        return [Share(layer, [Term(0, inputs[0], layer.weight)], None, self.epsilon, given=z)]


@dataclass(frozen=True)
class ZPlus(Rule):
    """z = w⁺ a⁺ + w⁻ a⁻ + b⁺ (the z⁺-rule of Montavon et al. 2017, for inputs of either sign): alpha-beta with 1 and 0."""

    def shares(self, layer: Affine, inputs: Sequence[Tensor], value: Tensor) -> list[Share]:
        w, b = layer.weight, self.bias(layer)
        return [Share(layer, by_sign(inputs[0], lambda sign: part(w, sign)), None if b is None else part(b, 1), self.epsilon)]


@dataclass(frozen=True)
class Gamma(Rule):
    """Where z > 0: (w + γw⁺) a⁺ + (w + γw⁻) a⁻ + b + γb⁺; where z < 0 with w⁺, w⁻ and b⁺, b⁻ exchanged.

    Montavon et al. 2019 for positive inputs, Andéol et al. 2021 for the rest.
    """

    gamma: float = 0.25

    def shares(self, layer: Affine, inputs: Sequence[Tensor], value: Tensor) -> list[Share]:
        w, b = layer.weight, self.bias(layer)

        def favoured(x: Tensor, sign: int) -> Tensor:
            return x + self.gamma * part(x, sign)

        def share(side: int) -> Share:
            terms = by_sign(inputs[0], lambda sign: favoured(w, side * sign))
            return Share(layer, terms, None if b is None else favoured(b, side), self.epsilon, outputs=side * value)

        return [share(side) for side in (1, -1)]


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """R_j = α a_j c_j⁺ - β a_j c_j⁻ (Bach et al. 2015, eq. 60, with the sign of β turned), α - β = 1.

    c⁺ has z⁺ = w⁺ a⁺ + w⁻ a⁻ + b⁺ and c⁻ has z⁻ = w⁻ a⁺ + w⁺ a⁻ + b⁻.
    """

    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha < 0 or self.beta < 0 or abs(self.alpha - self.beta - 1) > 1e-9:
            raise MethodError(f"alpha - beta must be 1 with neither negative, got alpha={self.alpha} and beta={self.beta}")

    def shares(self, layer: Affine, inputs: Sequence[Tensor], value: Tensor) -> list[Share]:
        w, b = layer.weight, self.bias(layer)

        def share(factor: float, side: int) -> Share:
            terms = by_sign(inputs[0], lambda sign: part(w, side * sign))
            return Share(layer, terms, None if b is None else part(b, side), self.epsilon, factor)

        return [share(factor, side) for factor, side in ((self.alpha, 1), (-self.beta, -1)) if factor]


@dataclass(frozen=True)
class WSquare(Rule):
    """z = w² 1 + b² (the w²-rule of Montavon et al. 2017): activations do not matter, their shadow of ones does."""

    shadow: ClassVar[str | None] = "ones"

    def shares(self, layer: Affine, inputs: Sequence[Tensor], value: Tensor) -> list[Share]:
        b = self.bias(layer)
        return [Share(layer, [Term(1, inputs[1], layer.weight**2)], None if b is None else b**2, self.epsilon)]


@dataclass(frozen=True)
class Flat(Rule):
    """z = 1 1 (Lapuschkin et al. 2019): every input that a unit sees gets the same; no bias takes part."""

    shadow: ClassVar[str | None] = "ones"

    def shares(self, layer: Affine, inputs: Sequence[Tensor], value: Tensor) -> list[Share]:
        return [Share(layer, [Term(1, inputs[1], torch.ones_like(layer.weight))], None, self.epsilon)]


@dataclass(frozen=True)
class ZBox(Rule):
    """z = w a - w⁺ l - w⁻ h with l <= a <= h (the z^B-rule of Montavon et al. 2017); no bias takes part.

    ``low`` and ``high`` are the bounds of the network's own input, one number or one per channel.
    """

    low: float | tuple[float, ...] = 0.0
    high: float | tuple[float, ...] = 1.0
    shadow: ClassVar[str | None] = "box"

    def shares(self, layer: Affine, inputs: Sequence[Tensor], value: Tensor) -> list[Share]:
        (a, low, high), w = inputs, layer.weight
        return [Share(layer, [Term(0, a, w), Term(1, low, -part(w, 1)), Term(2, high, -part(w, -1))], None, self.epsilon)]
