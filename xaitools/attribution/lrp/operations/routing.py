"""Linear operations that only move and mix: autograd is right, and shadows take the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchvision.ops  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor
from torch.nn import functional as F

from ..tape import Tape, mapped, refuse, tensors
from .table import is_constant, operation

Function = Callable[..., Any]


def _mirror(tape: Tape, func: Function, *args: Any, **kwargs: Any) -> Any:
    """Calls the function, and once more for each shadow with the shadow in the place of its tensor."""
    given = list(tensors((args, kwargs)))
    trails = [trail for x in given if (trail := tape.trail(x)) is not None]
    out = func(*args, **kwargs)
    many = min(len(trail.shadows) for trail in trails)

    def shadow(i: int) -> Callable[[Any], Any]:
        def stand_in(x: Any) -> Any:
            trail = tape.trail(x)
            if trail is not None:
                return trail.shadows[i]
            constant = isinstance(x, Tensor) and x.requires_grad  # no pixel, so 0 among ones
            return torch.zeros_like(x) if constant and many == 1 else x

        return stand_in

    mirrored = [list(tensors(func(*mapped(args, shadow(i)), **mapped(kwargs, shadow(i))))) for i in range(many)]
    for n, made in enumerate(tensors(out)):
        if made.requires_grad and all(made is not x for x in given):  # x.contiguous() may be x, which we know already
            tape.follow(made, [m[n] for m in mirrored], all(t.reads_image for t in trails), all(t.gate for t in trails))
    return out


@operation(
    Tensor.T.__get__, Tensor.mT.__get__,  # type: ignore[attr-defined]
    Tensor.__getitem__, F.interpolate, F.upsample, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d,
    F.adaptive_avg_pool3d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.pixel_shuffle, F.pixel_unshuffle, F.fold, F.unfold,
    F.max_unpool1d, F.max_unpool2d, F.max_unpool3d,
    named="reshape reshape_as view view_as flatten unflatten ravel permute transpose t swapaxes swapdims movedim moveaxis contiguous "
    "clone squeeze unsqueeze expand expand_as broadcast_to repeat tile repeat_interleave select narrow index_select gather take unbind "
    "split chunk tensor_split diagonal flip roll masked_select to float double type type_as cpu cuda sum mean",
)  # fmt: skip
def route(tape: Tape, func: Function, *args: Any, **kwargs: Any) -> Any:
    return _mirror(tape, func, *args, **kwargs)


@operation(named="cat concat concatenate stack hstack vstack dstack")
def join(tape: Tape, func: Function, parts: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
    like = next(x for x in parts if not is_constant(tape, x))
    leaves = [tape.constant(x, like) if is_constant(tape, x) else x for x in parts]
    return _mirror(tape, func, leaves, *args, **kwargs)


@operation(F.pad)
def pad(tape: Tape, func: Function, input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
    if value:
        raise refuse(f"pad with {value}", "pad with zeros, or explain the padded image")
    out: Tensor = _mirror(tape, func, input, pad, mode)
    return out


@operation(torch.ops.torchvision.roi_align, torch.ops.torchvision.ps_roi_align, torch.ops.torchvision.ps_roi_pool)
def roi_align(tape: Tape, func: Function, input: Tensor, rois: Tensor, *args: Any) -> Any:
    if not is_constant(tape, rois):
        raise refuse("the coordinates of boxes", "detach the boxes: they count as given")
    return _mirror(tape, func, input, rois, *args)


@operation(Tensor.copy_, Tensor.__setitem__)
def write(tape: Tape, func: Function, target: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Into a part of another tensor, where it stands: views of it must see the change.

    Should the network overwrite something that is still needed, autograd raises.
    """
    *where, written = args
    whole = target._base if target._is_view() and target._base is not None else target
    trail, before = tape.trail(written), tape.trail(whole)
    if before is None and bool((whole != 0).any()):  # what stays of the old content is a constant
        leaf = tape.constant(whole, whole)
        whole.zero_().add_(leaf)
    if trail is None:
        written = tape.constant(written, whole)

    def place(memory: Tensor) -> Tensor:
        """The part of ``memory`` that ``target`` is of ``whole``."""
        return memory if target is whole else memory.as_strided(target.shape, target.stride(), target.storage_offset())

    known = [t for t in (trail, before) if t is not None]
    many = min(len(t.shadows) for t in known)
    shadows = [torch.zeros_like(whole) if before is None else before.shadows[i].clone() for i in range(many)]
    for i, shadow in enumerate(shadows):
        constant = torch.zeros_like(written) if many == 1 else written  # no pixel, so 0 among ones
        func(place(shadow), *where, constant if trail is None else trail.shadows[i], **kwargs)
    out = func(target, *where, written, **kwargs)
    for made in (whole, target):
        tape.follow(made, [shadow if made is whole else place(shadow) for shadow in shadows], all(t.reads_image for t in known))
    return out
