"""The network whose gradient times input relevance under epsilon tends to, where it is more than ReLUs and maxima."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

BENT = (F.hardswish, F.hardtanh, F.silu, F.relu6)
GATES = (F.hardsigmoid, torch.sigmoid, Tensor.sigmoid, F.sigmoid)


class Frozen(TorchFunctionMode):
    """The plain network run again, but gates, statistics, lengths and the slopes of bent activations are constants."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.group_norm:
            return self.group_norm(*args, **kwargs)
        if func is F.normalize:
            return args[0] / args[0].detach().pow(2).sum(1, keepdim=True).sqrt()
        if func in BENT:
            x, *rest = args
            value = func(x.detach().clone(), *rest, **kwargs)
            return x * torch.where(x.detach() == 0, 1, value / torch.where(x == 0, 1, x).detach())
        if func in GATES:
            return func(*args, **kwargs).detach()
        return func(*args, **kwargs)

    def group_norm(self, x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        parts = x.detach().split(x.shape[1] // groups, dim=1)
        mean = torch.cat([part.mean((1, 2, 3), keepdim=True).expand_as(part) for part in parts], 1)
        std = torch.cat([(part.var((1, 2, 3), correction=0, keepdim=True) + eps).sqrt().expand_as(part) for part in parts], 1)
        return (x - mean) / std * weight.view(-1, 1, 1) + bias.view(-1, 1, 1)
