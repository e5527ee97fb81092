"""Guided backpropagation (Springenberg et al. 2015), also through rectifiers that are called as functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..adapters import Adapter
from ..errors import MethodError
from ..registry import About
from ..types import Decision
from .base import Maps, method
from .gradients import input_gradients

HOMES: tuple[Any, ...] = (torch, Tensor, F)


def calls(*names: str) -> dict[Callable[..., Any], str]:
    """Every function of torch, Tensor and F of these names, in place or not, and what it is called."""
    found = {getattr(home, name + end, None): name for home in HOMES for name in names for end in ("", "_")}
    return {function: name for function, name in found.items() if function is not None}


RECTIFIERS = calls("relu", "relu6", "leaky_relu", "prelu", "rrelu", "threshold", "hardtanh")
SMOOTH = calls("silu", "gelu", "hardswish", "mish", "elu", "selu", "celu", "softplus")
"""Not what the paper speaks of; they bend like a rectifier, and are treated as one."""


class Guided(TorchFunctionMode):
    """What goes back into the output of a rectifier goes on only where it is positive.  ``seen`` names what was guided.

    Captum hooks modules and so leaves calls such as ``F.relu`` alone, without a word.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, None] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = RECTIFIERS.get(func) or SMOOTH.get(func)
        if name is not None and isinstance(out, Tensor) and out.requires_grad:
            self.seen[name] = None
            out.register_hook(lambda gradient: gradient.clamp(min=0))  # of an in-place call: of the value that it leaves
        return out


@method(
    "guided-backprop",
    about=About(
        means=(
            "A sharp picture of the edges on the way from the image to the score. Gradients flow back through a rectifier only where "
            "both the activation and the gradient are positive. The map has no sign."
        ),
        paper="Springenberg et al. 2015, Striving for Simplicity: The All Convolutional Net",
        doubt=(
            "It hardly changes with the class or with shuffled weights (Adebayo et al. 2018), so it is no evidence of what a decision "
            "rests on."
        ),
    ),
)
def guided_backprop(model: Adapter, image: Tensor, decisions: Sequence[Decision], generator: torch.Generator) -> Maps:
    """Largest absolute guided gradient over the channels; never negative.

    The gradient at the network's normalised input, where each rectifier hands back [x > 0] * max(0, g) instead of
    [x > 0] * g (Springenberg et al. 2015, figure 1).  Smooth activations such as SiLU are treated alike, which the paper
    does not cover, and named in the notes.

    The pictures are sharp because the method restores edges of the image; they hardly depend on the class or on the
    weights of upper layers (Adebayo et al. 2018), so they are no evidence of what a decision rests on.
    """
    if any(isinstance(part, torch.jit.ScriptModule) for part in model.module.modules()):
        raise MethodError(f"{model.name}: a scripted module hides its rectifiers from guided-backprop; use smoothgrad")
    with Guided() as guided:
        _, gradients, scores = input_gradients(model, image, decisions)
    smooth = [name for name in guided.seen if name in SMOOTH.values()]
    notes = (f"{', '.join(smooth)} treated as a rectifier",) if smooth else ()
    return Maps(gradients.abs().amax(1), scores, notes=notes if guided.seen else ("no rectifier seen: the plain gradient",))
