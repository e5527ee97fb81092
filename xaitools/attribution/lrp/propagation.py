"""Layer-wise relevance propagation as a modified gradient, on unmodified networks.

With R = a g for every tensor a, propagating g instead of R makes everything linear or piecewise homogeneous
(add, concat, pooling, interpolation, RoIAlign, ReLU) right by plain autograd.  Only the calls of layers with
weights need a rule, and only what shifts or bends needs a note of what it absorbs.  A torch function mode sees
every call while the network runs; its forward values stay the network's own, bit by bit.

Rules that ignore the activations (flat, w-square) or look at their bounds (z-box) cannot be written as a g: an
activation may be zero.  They send relevance to *shadows*, images of ones or bounds that are led through the
same operations beside the activations.

What each call absorbs is its relevance out minus in, summed in float64 into the ledger:
score = sum of input relevance + sum of absorbed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .composites import Composite
from .operations import IN_PLACE, OPERATIONS
from .tape import Tape, total

DEEP = 10
"""Layers beyond which propagation that ignores biases tends to explode (1e11 and more in deep networks)."""


@dataclass(frozen=True, eq=False)
class Relevance:
    """One explained score: ``score == values.sum() + sum of absorbed`` up to rounding.

    values  of the input's shape, signed
    ledger  rows (layer, absorbed) in the order of the forward pass; calls of one layer share a row
    """

    values: Tensor
    score: float
    ledger: tuple[tuple[str, float], ...]


def layer_names(module: nn.Module) -> dict[int, str]:
    """id(parameter) -> name of the module that holds it, for the rows of the ledger."""
    return {id(parameter): name.rpartition(".")[0] or name for name, parameter in module.named_parameters()}


def relevance(
    forward: Callable[[Tensor], Tensor], x: Tensor, composite: Composite, names: Mapping[int, str] | None = None
) -> list[Relevance]:
    """The relevance of the input ``x`` (N, C, H, W) for each of the K scores (K,) that ``forward(x)`` gives.

    One forward pass, K backward passes.  ``x`` is the network's own, normalised input.  A score is a logit or a
    linear combination of logits (a mean, a margin); ``logsumexp`` is taken by its gradient and the rest of it stands
    in the ledger as "contrast".  What the network detaches counts as constant.  Nothing is left on the network.

    MethodError: train mode, an operation without a known rule, or one that was hidden from us (scripted modules).
    """
    with torch.inference_mode(False), torch.enable_grad():
        tape = Tape(composite, names or {}, OPERATIONS, IN_PLACE)
        image = x.detach().clone().requires_grad_()
        shadows = tuple(shadow.requires_grad_() for shadow in composite.shadows(image))
        tape.follow(image, shadows, reads_image=True)
        with tape:
            scores = tape.outcome(forward(image))
        if composite.ignores_biases and tape.layers > DEEP:
            warnings.warn(f"biases are ignored in {tape.layers} layers; relevance tends to explode beyond {DEEP}", stacklevel=2)
        return [_propagate(tape, scores[k], (image, *shadows), last=k == len(scores) - 1) for k in range(len(scores))]


def _propagate(tape: Tape, score: Tensor, inputs: tuple[Tensor, ...], last: bool) -> Relevance:
    tape.ledger.clear()
    tape.passes.more = not last
    leaves = (*inputs, *(leaf for _, leaf in tape.constants))
    gradients = torch.autograd.grad(score, leaves, retain_graph=not last, allow_unused=True)
    products = [_product(leaf.detach(), g) for leaf, g in zip(leaves, gradients, strict=True)]
    for (row, _), product in zip(tape.constants, products[len(inputs) :], strict=True):
        tape.ledger.add(row, total(product))
    return Relevance(sum(products[1 : len(inputs)], products[0]), score.item(), tape.ledger.rows())


def _product(leaf: Tensor, gradient: Tensor | None) -> Tensor:
    """Also 0 where memory that the network overwrote before using it held nan or infinity."""
    return torch.zeros_like(leaf) if gradient is None else torch.where(gradient == 0, 0, leaf * gradient)
