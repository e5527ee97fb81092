"""Any network as the list of steps of the plain propagation, read off the kernels that one forward pass runs.

The tape of the package sees the functions that a network calls in Python; here the pass is written down one level below,
after autograd and with operations in place made functional, where a padded batch, a level of RoIAlign or a
normalisation is nothing but a few kernels.  Each is a layer, bends its input, or is affine in it, which is checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torchvision  # registers its kernels  # noqa: F401
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.attribution.plain_propagation import Step

LAYERS = {"aten.convolution.default": "conv", "aten.addmm.default": "linear", "aten.mm.default": "linear"}
RELUS = ("aten.relu.default", "aten.leaky_relu.default")
# their second output is where the winners lie
MAXIMA = ("aten.max_pool2d_with_indices.default", "torchvision.roi_pool.default")
# nothing passes; all but the first read a shape only
CUT = ("aten.detach.default", "aten.new_full.default", "aten.full_like.default", "aten.zeros_like.default")
# what may follow a layer and be one with it, where its constants are one number a channel
MERGED = ("aten.native_batch_norm.default", "aten.mul.Tensor", "aten.div.Tensor", "aten.add.Tensor", "aten.sub.Tensor")
AFFINE = (
    *MERGED, "aten.cat.default", "aten.stack.default", "aten.select.int", "aten.slice.Tensor", "aten.view.default",
    "aten._unsafe_view.default", "aten.permute.default", "aten.clone.default", "aten.unsqueeze.default", "aten.expand.default",
    "aten.mean.default", "aten.mean.dim", "aten.sum.default", "aten.upsample_bilinear2d.default", "aten.upsample_nearest2d.default",
    "aten._adaptive_avg_pool2d.default", "aten.constant_pad_nd.default", "aten.index.Tensor", "aten.index_put.default",
    "aten.copy.default", "aten.select_scatter.default", "aten.slice_scatter.default", "aten.unbind.int", "aten.max_unpool2d.default",
    "torchvision.roi_align.default",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Call:
    """One kernel: the tensors it was given, in the order met, and those it gave."""

    kernel: Callable[..., Any]
    args: Any
    given: Sequence[Tensor]
    out: Any


class Listener(TorchDispatchMode):
    """Keeps every call, and with it every tensor, so that identity tells which output became which input."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls.append(Call(func, (args, kwargs or {}), flat((args, kwargs or {})), out))
        return out


def flat(x: Any) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    parts = x.values() if isinstance(x, dict) else x if isinstance(x, (list, tuple)) else ()
    return [tensor for part in parts for tensor in flat(part)]


def replaced(x: Any, new: dict[int, Tensor]) -> Any:
    if isinstance(x, Tensor):
        return new.get(id(x), x)
    if isinstance(x, dict):
        return {key: replaced(part, new) for key, part in x.items()}
    return type(x)(replaced(part, new) for part in x) if isinstance(x, (list, tuple)) else x


def recorded(scores: Callable[[Tensor], Tensor], x: Tensor) -> list[Step]:
    """The steps from the image ``x`` (1, 3, H, W) to ``scores(x)`` (K,), those that do not lead there left out."""
    with torch.no_grad(), Listener() as listener:
        result = torch.func.functionalize(scores)(x)
    names = {id(x): "x"}
    steps: dict[str, Step] = {}
    direct = {"x"}  # between these and the image lie no layers
    by_channel: set[str] = set()
    for number, call in enumerate(listener.calls):
        alive = list({id(tensor): tensor for tensor in call.given if id(tensor) in names}.values())
        kernel = str(call.kernel)
        if not alive or kernel in CUT:
            continue
        outputs = call.out if isinstance(call.out, (list, tuple)) else [call.out]
        for place, out in enumerate(outputs[:1] if kernel in MAXIMA or "batch_norm" in kernel else outputs):
            if id(out) in names or not out.is_floating_point():
                continue
            name = f"{number}.{place} {kernel}"
            names[id(out)] = name
            steps[name] = step = step_of(call, kernel, name, [names[id(tensor)] for tensor in alive], alive, place)
            if is_by_channel(call, kernel, alive):
                by_channel.add(name)
            if step.kind in ("route", "affine") and direct.issuperset(step.inputs):
                direct.add(name)
            if step.kind in ("conv", "linear"):
                steps[name] = replace(step, first=direct.issuperset(step.inputs))
    return merged(needed(steps, names[id(result)]), by_channel)


def step_of(call: Call, kernel: str, name: str, inputs: Sequence[str], alive: Sequence[Tensor], place: int) -> Step:
    args, kwargs = call.args

    def function(*values: Tensor) -> Tensor:
        new = {id(tensor): value for tensor, value in zip(alive, values, strict=True)}
        out = call.kernel(*replaced(args, new), **replaced(kwargs, new))
        return out[place] if isinstance(out, (list, tuple)) else out

    kind = LAYERS.get(kernel) or ("relu" if kernel in RELUS else "max" if kernel in MAXIMA else "unknown")
    if kernel in AFFINE:
        nothing = function(*(torch.zeros_like(tensor) for tensor in alive))
        once, twice = function(*alive), function(*(2 * tensor for tensor in alive))
        affine = torch.allclose(twice - nothing, 2 * (once - nothing), rtol=1e-9, atol=1e-12)
        kind = "unknown" if not affine else "affine" if bool(nothing.any()) else "route"
    if kind == "max":
        return Step(name, kind, function, inputs, winners=lambda x: call.out[1])
    return Step(name, kind, function, inputs)


def needed(steps: dict[str, Step], last: str) -> list[Step]:
    wanted = {last}
    for name in reversed(steps):
        if name in wanted:
            assert steps[name].kind != "unknown", f"{name} is no kernel whose relevance is known"
            wanted.update(steps[name].inputs)
    return [step for name, step in steps.items() if name in wanted]


def merged(steps: Sequence[Step], by_channel: set[str]) -> list[Step]:
    """A normalisation or factor behind a layer made one with it, where nothing else reads the layer."""
    read = Counter(name for step in steps for name in step.inputs)
    done: dict[str, Step] = {}
    for step in steps:
        layer = done.get(step.inputs[0])
        if layer is not None and layer.kind in ("conv", "linear") and step.name in by_channel and read[layer.name] == 1:
            del done[layer.name]
            step = replace(layer, name=step.name, function=lambda x, f=layer.function, g=step.function: g(f(x)))
        done[step.name] = step
    return list(done.values())


def is_by_channel(call: Call, kernel: str, alive: Sequence[Tensor]) -> bool:
    """Does the call scale and shift one tensor by constants that hold one number a channel?"""
    if kernel == "aten.native_batch_norm.default":
        return True
    constants = [each for each in call.given if each is not alive[0]]
    if kernel not in MERGED or len(constants) != 1 or alive[0].dim() < 2:
        return False
    channels, shape = alive[0].shape[1], [1] * (alive[0].dim() - constants[0].dim()) + list(constants[0].shape)
    return shape[1] == channels == constants[0].numel()
