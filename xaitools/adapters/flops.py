"""How many operations a network takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def flops(call: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products, convolutions and attentions in ``call()``, by torch's formulas.

    A multiply-add is two.  Only calls of this thread are seen.  torch's own ``FlopCounterMode`` puts hooks on every module of the
    process while it counts, and backward passes of other threads fail by them.

    >>> import torch
    >>> flops(lambda: torch.ones(2, 3) @ torch.ones(3, 5))
    60
    """
    with _Counter() as counter:
        call()
    return counter.total


class _Counter(TorchDispatchMode):
    total = 0

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        formula = flop_registry.get(func.overloadpacket)
        if formula is None:
            with self:  # what stands for several operations, as it comes from inference mode, is counted by these
                parts = func.decompose(*args, **given)
            if parts is not NotImplemented:
                return parts
        found = func(*args, **given)
        if formula is not None:
            self.total += formula(*args, **given, out_val=found)
        return found
