"""Layers whose maps lie on the image: which there are, and which is the end of the encoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from ..adapters import Adapter
from ..errors import MethodError, ModelError, unknown
from ..types import Decision

STEEP = 4
"""A map smaller than the one before by more than this, in one step and a side, is a summary beside the encoder, not a part of it."""

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


@dataclass(frozen=True, eq=False)
class Seen:
    """One call of a module that gave a map (1, C, h, w).

    summary  whether it comes from pooling to a few cells
    grown    how often maps had been enlarged before, other than by convolutions
    counts   whether the score depends on it
    """

    name: str
    convolution: bool
    size: tuple[int, int]
    summary: bool
    grown: int
    counts: bool


def watched(model: Adapter, score: Callable[[Tensor], Tensor], x: Tensor) -> tuple[list[Seen], Tensor]:
    """What the modules of the trunk gave, in the order in which they ended, and the score."""
    with outputs_in(model) as outputs:
        value = score(x)[0]
    found = torch.autograd.grad(value, [out for _, out, _, _ in outputs], allow_unused=True) if outputs else ()
    known = parts(model)
    seen = [
        Seen(name, isinstance(known[name], CONVOLUTIONS), (int(out.shape[-2]), int(out.shape[-1])), summary, grown, gradient is not None)
        for (name, out, summary, grown), gradient in zip(outputs, found, strict=True)
    ]
    return seen, value.detach()


@contextmanager
def outputs_in(model: Adapter) -> Iterator[list[tuple[str, Tensor, bool, int]]]:
    """Name of the module, map (1, C, h, w), ``summary`` and ``grown`` (see ``Seen``) of every call inside."""
    outputs: list[tuple[str, Tensor, bool, int]] = []
    sizes = Sizes()

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, out: Any) -> None:
            if isinstance(out, Tensor) and out.dim() == 4 and len(out) == 1 and out.requires_grad:
                outputs.append((name, out, out in sizes.summaries, sizes.grown))

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in parts(model).items()]
    try:
        with sizes:
            yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def parts(model: Adapter) -> dict[str, nn.Module]:
    """The modules whose maps lie on the image as a whole, by their names in the network."""
    return {name: module for name, module in model.module.named_modules() if name and f"{name}.".startswith(model.trunk)}


class Sizes(TorchFunctionMode):
    """Counts how often maps are enlarged, and knows those that come from pooling to a few cells, as in a pyramid or a gate.

    These stay summaries as long as they keep their size; that they are enlarged to go back beside the map does not count.
    """

    POOLING = ("adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "amax")
    ENLARGING = ("interpolate", "upsample", "max_unpool2d", "pixel_shuffle")

    def __init__(self) -> None:
        super().__init__()
        self.summaries: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.grown = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.dim() == 4:
            given = [each for arg in args for each in (arg if isinstance(arg, list | tuple) else [arg]) if isinstance(each, Tensor)]
            name, resized = getattr(func, "__name__", ""), [each for each in given if each.shape[-2:] != out.shape[-2:]]
            self.grown += name in self.ENLARGING and any(each not in self.summaries for each in resized[:1])
            same = [each for each in given if each.shape[-2:] == out.shape[-2:]]
            if (name in self.POOLING and resized) or any(each in self.summaries for each in same):
                self.summaries[out] = True
        return out


def end_of_encoder(model: Adapter, seen: Sequence[Seen]) -> str:
    """The last convolution before the maps grow again, with what follows it at the same size up to the next convolution.

    Of ResNet that is its last stage, of a U-Net the lowest level, of an inception network the last module.  A detector
    with a backbone looks at boxes on the last map that the score depends on, of a pyramid the level of the box.  A layer
    that makes the logits themselves does not count, nor one that runs more than once.
    """
    runs = Counter(each.name for each in seen)
    usable = [each for each in seen if each.counts and not each.summary and runs[each.name] == 1]
    convolutions = [each for each in usable if each.convolution]
    if model.task != "classification" and not model.trunk and len(convolutions) > 1:
        convolutions.pop()
    if not convolutions:
        raise MethodError(f"{model.name}: no convolution whose map lies on the image as a whole; use smoothgrad or occlusion")
    if model.trunk:
        convolutions = convolutions[-1:]
    chosen = convolutions[0]
    for each in convolutions[1:]:
        if each.size[0] > chosen.size[0] or each.size[1] > chosen.size[1] or each.grown > chosen.grown:
            break
        if max(each.size) * STEEP >= max(chosen.size):
            chosen = each
    for each in seen[seen.index(chosen) + 1 :]:
        if each.convolution or (each.size, each.grown) != (chosen.size, chosen.grown):
            break
        chosen = each if each in usable else chosen
    return chosen.name


class Reached(BaseException):
    """Ends a forward pass; no ``except Exception`` of a stranger's network holds it."""


def map_at(model: Adapter, x: Tensor, layer: str, decision: Decision) -> Tensor:
    """What ``layer`` gives (1, C, h, w) for the normalised image ``x``; what comes after it does not run.

    ``decision`` only opens the way in: any that the model can read, also one that was bound to another image.
    """
    held: list[Tensor] = []

    def hold(module: nn.Module, inputs: Any, out: Tensor) -> None:
        held.append(out)
        raise Reached

    hook = model.module.get_submodule(layer).register_forward_hook(hold)
    try:
        model.score_pairs(x, [(0, decision)])
    except Reached:
        return held[0]
    finally:
        hook.remove()
    raise ModelError(f"layer {layer} does not run for an image of (H, W) = {tuple(x.shape[-2:])}; choose another")


def checked(model: Adapter, seen: Sequence[Seen], layer: str, decision: Decision, method: str) -> str:
    """``layer`` itself, or one line that says why it has no map for this target."""
    known, calls = parts(model), [each for each in seen if each.name == layer]
    if layer not in known:
        where = f" in its {model.trunk}" if model.trunk else ""
        raise MethodError(f"{method}.layer: {unknown('layer', layer, {each.name for each in seen} or known)}{where}")
    if len(calls) != 1:
        raise MethodError(f"{method}.layer={layer}: gave {len(calls)} maps (1, C, h, w) of the image, expected exactly one; choose another")
    if not calls[0].counts:
        raise MethodError(f"{method}.layer={layer}: the score of {decision.target} does not depend on it; choose another")
    return layer
