r"""The propagation rules: each class is one formula.

A layer has inputs a_j, weights w_jk, bias b_k and output z_k; R_k is the relevance of its output and R_j
that of its input.  Every rule shares out R_k in proportion to terms,

    R_j = a_j c_j,   c = w^T s,   s_k = R_k / (z_k + ε sign z_k),   z_k = Σ_j a_j w_jk + b_k,   sign 0 = +1,

with its own idea of a, w and b.  What a rule returns is c, the *modified gradient*, so that R = a c.
The part of b_k in z_k is absorbed; ``biases="ignore"`` leaves b out of z.  x⁺ is max(x, 0) and x⁻ is min(x, 0).

Sources: Bach et al. 2015 (PLOS ONE 10(7) e0130140); Montavon et al. 2017 (Pattern Recognition 65, deep Taylor
decomposition); Lapuschkin et al. 2019 (Nature Communications 10, flat); Montavon et al. 2019 (LNCS 11700, ch. 10,
gamma); Andéol et al. 2021 (gamma for inputs of either sign).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...errors import MethodError
from .layers import Affine

Term = tuple[Tensor, Tensor]
"""An input and the weights it meets."""

Gradients = tuple[Tensor | None, ...]
"""c for the activations, then for their shadows; None for what gets nothing."""


def stabilised(z: Tensor, epsilon: float) -> Tensor:
    return torch.where(z < 0, z - epsilon, z + epsilon)


def part(x: Tensor, sign: int) -> Tensor:
    """x⁺ for sign +1, x⁻ for sign -1."""
    return x.clamp(min=0) if sign > 0 else x.clamp(max=0)


def signs(a: Tensor) -> tuple[int, ...]:
    """The signs to look after: behind a ReLU there are no negative inputs, and half of the work is saved."""
    return (1, -1) if bool((a < 0).any()) else (1,)


def by_sign(a: Tensor, c: Sequence[Tensor]) -> Tensor:
    """c of the positive part where a > 0, of the negative part where a < 0, else 0."""
    return sum((torch.where(sign * a > 0, c_part, 0) for sign, c_part in zip(signs(a), c, strict=True)), torch.zeros_like(a))


@dataclass(frozen=True)
class Rule:
    """``gradients`` gives c for the inputs of one call: the activations a, and the shadows if the rule wants any.

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

    def gradients(self, layer: Affine, inputs: Sequence[Tensor], value: Tensor, relevance: Tensor) -> Gradients:
        raise NotImplementedError

    def bias(self, layer: Affine) -> Tensor:
        return layer.bias if self.biases == "absorb" else torch.zeros_like(layer.bias)

    def share(self, layer: Affine, relevance: Tensor, terms: Sequence[Term], bias: Tensor) -> list[Tensor]:
        """c_t = w_t^T s for each term t, with s = R / z and z = Σ_t w_t a_t + b."""
        z = sum((layer.out(a, w) for a, w in terms), bias)
        s = relevance / stabilised(z, self.epsilon)
        return [layer.back(s, w) for _, w in terms]


@dataclass(frozen=True)
class Epsilon(Rule):
    """z = w a + b (Bach et al. 2015, eq. 58): the output itself, so nothing is computed again."""

    def gradients(self, layer: Affine, inputs: Sequence[Tensor], value: Tensor, relevance: Tensor) -> Gradients:
        z = value if self.biases == "absorb" else value - layer.bias
        return (layer.back(relevance / stabilised(z, self.epsilon), layer.weight),)


@dataclass(frozen=True)
class ZPlus(Rule):
    """z = w⁺ a⁺ + w⁻ a⁻ + b⁺ (the z⁺-rule of Montavon et al. 2017, for inputs of either sign): alpha-beta with 1 and 0."""

    def gradients(self, layer: Affine, inputs: Sequence[Tensor], value: Tensor, relevance: Tensor) -> Gradients:
        (a,), w = inputs, layer.weight
        terms = [(part(a, sign), part(w, sign)) for sign in signs(a)]
        return (by_sign(a, self.share(layer, relevance, terms, part(self.bias(layer), 1))),)


@dataclass(frozen=True)
class Gamma(Rule):
    """Where z > 0: (w + γw⁺) a⁺ + (w + γw⁻) a⁻ + b + γb⁺; where z < 0 with w⁺, w⁻ and b⁺, b⁻ exchanged.

    Montavon et al. 2019 for positive inputs, Andéol et al. 2021 for the rest.
    """

    gamma: float = 0.25

    def gradients(self, layer: Affine, inputs: Sequence[Tensor], value: Tensor, relevance: Tensor) -> Gradients:
        (a,), w, b = inputs, layer.weight, self.bias(layer)
        c = torch.zeros_like(a)
        for side in (1, -1):
            explained = torch.where(side * value > 0, relevance, 0)
            if not bool(explained.any()):
                continue  # behind a ReLU no negative output is relevant
            terms = [(part(a, sign), w + self.gamma * part(w, side * sign)) for sign in signs(a)]
            c = c + by_sign(a, self.share(layer, explained, terms, b + self.gamma * part(b, side)))
        return (c,)


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

    def gradients(self, layer: Affine, inputs: Sequence[Tensor], value: Tensor, relevance: Tensor) -> Gradients:
        (a,), w, b = inputs, layer.weight, self.bias(layer)
        c = torch.zeros_like(a)
        for factor, side in ((self.alpha, 1), (-self.beta, -1)):
            if factor:
                terms = [(part(a, sign), part(w, side * sign)) for sign in signs(a)]
                c = c + factor * by_sign(a, self.share(layer, relevance, terms, part(b, side)))
        return (c,)


@dataclass(frozen=True)
class WSquare(Rule):
    """z = w² 1 + b² (the w²-rule of Montavon et al. 2017): activations do not matter, their shadow of ones does."""

    shadow: ClassVar[str | None] = "ones"

    def gradients(self, layer: Affine, inputs: Sequence[Tensor], value: Tensor, relevance: Tensor) -> Gradients:
        _, ones = inputs
        return None, *self.share(layer, relevance, [(ones, layer.weight**2)], self.bias(layer) ** 2)


@dataclass(frozen=True)
class Flat(Rule):
    """z = 1 1 (Lapuschkin et al. 2019): every input that a unit sees gets the same; no bias takes part."""

    shadow: ClassVar[str | None] = "ones"

    def gradients(self, layer: Affine, inputs: Sequence[Tensor], value: Tensor, relevance: Tensor) -> Gradients:
        _, ones = inputs
        return None, *self.share(layer, relevance, [(ones, torch.ones_like(layer.weight))], torch.zeros_like(layer.bias))


@dataclass(frozen=True)
class ZBox(Rule):
    """z = w a - w⁺ l - w⁻ h with l <= a <= h (the z^B-rule of Montavon et al. 2017); no bias takes part.

    ``low`` and ``high`` are the bounds of the network's own input, one number or one per channel.
    """

    low: float | tuple[float, ...] = 0.0
    high: float | tuple[float, ...] = 1.0
    shadow: ClassVar[str | None] = "box"

    def gradients(self, layer: Affine, inputs: Sequence[Tensor], value: Tensor, relevance: Tensor) -> Gradients:
        (a, low, high), w = inputs, layer.weight
        terms = [(a, w), (low, -part(w, 1)), (high, -part(w, -1))]
        return tuple(self.share(layer, relevance, terms, torch.zeros_like(layer.bias)))
