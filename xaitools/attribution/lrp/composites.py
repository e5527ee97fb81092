"""Which rule a layer gets: by what it is and by whether it reads the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import MethodError, unknown
from .rules import AlphaBeta, Epsilon, Flat, Gamma, Rule, WSquare, ZBox, ZPlus


@dataclass(frozen=True)
class Composite:
    """A rule for convolutions, one for fully connected layers and, where given, one for the layers that read the image.

    A layer reads the image if nothing but linear routing (resizing, padding, normalising, slicing) lies between.
    """

    conv: Rule
    linear: Rule
    first: Rule | None = None

    def __post_init__(self) -> None:
        if "box" in (self.conv.shadow, self.linear.shadow):
            raise MethodError("the z-box rule holds for the image only; give it as the rule of the first layer")

    def rule(self, kind: str, reads_image: bool) -> Rule:
        if self.first is not None and reads_image:
            return self.first
        return self.linear if kind == "linear" else self.conv

    @property
    def hidden_shadows(self) -> bool:
        """Do layers inside the network send relevance to shadows?"""
        return "ones" in (self.conv.shadow, self.linear.shadow)

    def shadows(self, image: Tensor) -> tuple[Tensor, ...]:
        """The images that stand in for the input, see ``Rule.shadow``."""
        if isinstance(self.first, ZBox) and not self.hidden_shadows:
            return tuple(_per_channel(bound, image) for bound in (self.first.low, self.first.high))
        if self.hidden_shadows or (self.first is not None and self.first.shadow == "ones"):
            return (torch.ones_like(image),)
        return ()

    @property
    def ignores_biases(self) -> bool:
        return "ignore" in (self.conv.biases, self.linear.biases)


def _per_channel(bound: float | tuple[float, ...], image: Tensor) -> Tensor:
    channels = torch.tensor(bound, dtype=image.dtype, device=image.device).reshape(-1, *[1] * (image.dim() - 2))
    if channels.shape[0] not in (1, image.shape[1]):
        raise MethodError(f"low and high need one number per channel, {image.shape[1]}; got {channels.shape[0]}")
    return channels.expand(image.shape).clone()


COMPOSITES = (
    "lrp", "lrp-epsilon-plus-flat", "lrp-epsilon-gamma-box", "lrp-epsilon-alpha2beta1-flat",
    "lrp-epsilon", "lrp-zplus", "lrp-gamma", "lrp-alpha2beta1", "lrp-wsquare", "lrp-flat",
)  # fmt: skip
"""The composites by name; ``lrp`` is ``lrp-epsilon-plus-flat``."""


def composite(
    name: str,
    *,
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    alpha: float = 2.0,
    beta: float = 1.0,
    biases: str = "absorb",
    low: float | tuple[float, ...] = 0.0,
    high: float | tuple[float, ...] = 1.0,
) -> Composite:
    """The composite of that name; ``low`` and ``high`` bound the network's own (normalised) input.

    >>> composite("lrp").rule("conv", reads_image=True)
    Flat(epsilon=1e-06, biases='absorb')
    """
    if name not in COMPOSITES:
        raise MethodError(unknown("method", name, COMPOSITES))
    eps, flat = Epsilon(epsilon, biases), Flat(epsilon, biases)
    match name:
        case "lrp" | "lrp-epsilon-plus-flat":
            return Composite(conv=ZPlus(epsilon, biases), linear=eps, first=flat)
        case "lrp-epsilon-gamma-box":
            return Composite(conv=Gamma(epsilon, biases, gamma), linear=eps, first=ZBox(epsilon, biases, low, high))
        case "lrp-epsilon-alpha2beta1-flat":
            return Composite(conv=AlphaBeta(epsilon, biases, alpha, beta), linear=eps, first=flat)
    alone: dict[str, Rule] = {
        "lrp-epsilon": eps,
        "lrp-zplus": ZPlus(epsilon, biases),
        "lrp-gamma": Gamma(epsilon, biases, gamma),
        "lrp-alpha2beta1": AlphaBeta(epsilon, biases, alpha, beta),
        "lrp-wsquare": WSquare(epsilon, biases),
        "lrp-flat": flat,
    }
    return Composite(conv=alone[name], linear=alone[name])
