"""What a model costs: parameters, operations, memory and time of one image, and the compute of its training.

Numbers that cannot be had are None, never 0: a black box hides its network, and torch's counter knows convolutions,
matrix products and attention only.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from ..adapters.base import Model
from ..adapters.flops import flops

MEGABYTE = 1e6
TRAINING_TO_FORWARD = 3
"""A training step costs a forward pass and about twice as much for the backward one (Hernandez & Brown 2020)."""


def network(model: Model) -> nn.Module | None:
    """The network behind ``model``, None for a black box."""
    module = getattr(model, "module", None)
    return module if isinstance(module, nn.Module) else None


def parameters(model: Model) -> int | None:
    module = network(model)
    return None if module is None else sum(parameter.numel() for parameter in module.parameters())


def forward_flops(model: Model, image: Tensor) -> int | None:
    """Floating-point operations of one prediction on ``image`` (3, H, W), by torch's formulas; a multiply-add is two.

    It sees what the dispatcher sees; resizing, normalisation, activations and suppression of boxes are not counted.

    >>> from xaitools.adapters import SegmentationModel
    >>> forward_flops(SegmentationModel(nn.Conv2d(3, 2, 1), ["sky", "road"]), torch.zeros(3, 8, 8))  # 64 pixels, 3 by 2
    768
    """
    if network(model) is None:
        return None
    with torch.no_grad():
        return flops(lambda: model.predict(image[None])) or None


def peak_memory(model: Model, image: Tensor) -> float | None:
    """Most megabytes (10^6) that live at one time while ``image`` (3, H, W) is predicted: weights, buffers,
    the image and activations.

    Every tensor that an operation returns is counted from then until its storage is freed, views and in-place results
    once, on any device.  What an operation needs for itself and gives back before it returns (a convolution's workspace)
    and the allocator's reserve are not seen, so that a process needs more than this.
    """
    module = network(model)
    if module is None:
        return None
    # by address: it is theirs as long as the network lives
    weights = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in (*module.parameters(), *module.buffers())}
    watch = _Storages(set(weights))
    with torch.no_grad(), watch:
        model.predict(image[None])
    return (sum(weights.values()) + watch.most) / MEGABYTE


class _Storages(TorchDispatchMode):
    """Sums the storages of all tensors that operations return, as long as they live; ``known`` ones are left out."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.known, self.alive, self.most = known, 0, 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in tree_flatten(result)[0]:
            if isinstance(each, Tensor) and each.layout == torch.strided:
                self._count(each.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key, size = id(storage), storage.nbytes()
        if storage.data_ptr() in self.known or key in self._seen:
            return
        self.alive += size
        self.most = max(self.most, self.alive)

        def freed(_: Any, key: int = key, size: int = size) -> None:
            self._seen.pop(key, None)
            self.alive -= size

        self._seen[key] = weakref.ref(storage, freed)


def latencies(models: Mapping[str, tuple[Model, Tensor]], *, rounds: int = 15) -> dict[str, dict[str, Any]]:
    """Time of one prediction of each model on its image (3, H, W), side by side: every round runs all of them once.

    ``latency_ms`` is the median of n rounds after one that is not counted, ``quartiles_ms`` the middle half,
    ``latency_ratio`` the median over the rounds of the time against the first model's in the same round, so that what
    slows the machine for a while slows both.  The order turns from round to round.
    """
    names = list(models)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        turn = number % max(1, len(names))
        for name in names[turn:] + names[:turn]:
            model, image = models[name]
            took = _timed(lambda model=model, image=image: model.predict(image[None]), image, model)  # type: ignore[misc]
            if number:
                seconds[name].append(took)
    found = {}
    for name in names:
        own, first = np.array(seconds[name]), np.array(seconds[names[0]])
        low, high = np.quantile(own, [0.25, 0.75])
        found[name] = {
            "latency_ms": 1e3 * float(np.median(own)),
            "quartiles_ms": [1e3 * float(low), 1e3 * float(high)],
            "latency_ratio": float(np.median(own / first)),
            "latency_n": len(own),
        }
    return found


def _timed(call: Callable[[], Any], image: Tensor, model: Model) -> float:
    device = torch.device(getattr(model, "device", "cpu"))
    started = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def train_petaflop(flops: int | None, recipe: Mapping[str, Any] | None, samples: int | None) -> float | None:
    """10^15 operations of a training run: 3 x forward operations x samples x epochs of the recipe (Hernandez & Brown 2020).

    An estimate at the size of prediction: an early end and smaller crops make the true number lower, validation and a
    second forward pass of detectors' losses higher.

    >>> train_petaflop(10**9, {"training": {"epochs": 10}}, 1000)
    0.03
    """
    epochs = (recipe or {}).get("training", {}).get("epochs")
    if flops is None or not epochs or samples is None:
        return None
    return TRAINING_TO_FORWARD * flops * samples * int(epochs) / 1e15
