"""Image gradients (Simonyan et al. 2013) and gradient x input, at the network's normalised input."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..adapters import Adapter
from ..errors import MethodError
from ..registry import About
from ..types import Decision
from .base import Maps, differentiable, method

UNREACHED = "no gradient of the score reaches the image (detached, or without grad); use occlusion"

AT_ONCE = 2**18
"""Pixels of the images whose activations are kept together where a method averages over many."""

MANY = 16
"""Never more images at once than these, unless asked for."""


def input_gradients(model: Adapter, image: Tensor, decisions: Sequence[Decision]) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised input (1, 3, H, W), its gradients (K, 3, H, W), scores (K,); one forward, K backward passes."""
    with differentiable(model.normalise(image)) as x:
        scores = model.scores_from(x, decisions)
        last = len(decisions) - 1
        if not scores.requires_grad:
            raise MethodError(f"{model.name}: {UNREACHED}")
        rows = [torch.autograd.grad(score, x, retain_graph=k < last, materialize_grads=True)[0][0] for k, score in enumerate(scores)]
    return x.detach(), torch.stack(rows), scores.detach()


def scores_of(model: Adapter, decision: Decision) -> Callable[[Tensor], Tensor]:
    """The number of one decision for each of many normalised images, (N, 3, H, W) -> (N,): a model as captum wants it."""

    def forward(x: Tensor) -> Tensor:
        scores = model.scores_from(x, [decision])
        if torch.is_grad_enabled() and not scores.requires_grad:
            raise MethodError(f"{model.name}: {UNREACHED}")
        return scores

    return forward


def batch_for(image: Tensor, batch_size: int, most: int, least: int = 1) -> int:
    """How many images of this size go through together: as asked, or for 0 what ``AT_ONCE`` allows, from ``least`` to ``MANY``."""
    if batch_size < 0:
        raise MethodError(f"batch_size={batch_size}; expected a positive number, or 0 to choose by the size of the image")
    return min(most, batch_size or max(least, min(MANY, AT_ONCE // (image.shape[-2] * image.shape[-1]))))


@method(
    "saliency",
    about=About(
        means=(
            "Which pixels would move the score fastest if each changed a little? The score is differentiated by the image, and each "
            "pixel shows the largest of its channels. The map has no sign: it does not say whether a change would help or harm."
        ),
        paper="Simonyan, Vedaldi and Zisserman 2013, Deep Inside Convolutional Networks, section 3.1",
        doubt=(
            "It is a slope at one point, noisy, and says little where the network is saturated: a cause that cannot be made stronger "
            "gets no gradient."
        ),
    ),
)
def saliency(model: Adapter, image: Tensor, decisions: Sequence[Decision], generator: torch.Generator) -> Maps:
    """Largest absolute gradient over the channels (Simonyan et al. 2013, section 3.1); never negative.

    Differs from the paper in that the gradient is taken at the normalised input.
    """
    _, gradients, scores = input_gradients(model, image, decisions)
    return Maps(gradients.abs().amax(1), scores)


@method(
    "gradient-x-input",
    about=About(
        means=(
            "How much would each pixel add if the network were linear around this image? The gradient is multiplied by the normalised "
            "input and summed over the channels. In a network of rectifiers without biases the map sums up to the score."
        ),
        paper="Shrikumar et al. 2016, Not Just a Black Box",
        doubt=(
            "A pixel at the mean of the training data gets nothing whatever it means, and with biases or saturated units the sum is "
            "far from the score."
        ),
    ),
)
def gradient_x_input(model: Adapter, image: Tensor, decisions: Sequence[Decision], generator: torch.Generator) -> Maps:
    """Gradient times normalised input, summed over the channels (Shrikumar et al. 2016)."""
    x, gradients, scores = input_gradients(model, image, decisions)
    return Maps((gradients * x).sum(1), scores)
