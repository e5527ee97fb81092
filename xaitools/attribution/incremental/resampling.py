"""Resampling is linear and separable, so the operation itself says what its two matrices are; means over a whole map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .graph import Node, Ref
from .pointwise import along
from .views import Axis, Operation, Place, View, arguments, size_of


def resampled(node: Node, nodes: Sequence[Node]) -> Operation | None:
    x = node.args[0]
    if not isinstance(x, Ref) or nodes[x.number].value.dim() != 4:
        return None
    matrices = [_matrix(node, nodes[x.number].value, axis) for axis in (0, 1)]
    axes = [_support(each.numpy()) for each in matrices]
    # one more column than there are positions, for parts that reach beyond the end
    wide = [F.pad(each, (0, 1)).to(node.value) for each in matrices]

    def run(parts: list[Tensor], place: Place) -> Tensor:
        (part,) = parts
        down, across = (_rows(wide[axis], place, axis, part.shape[axis - 2]) for axis in (0, 1))
        if part.stride(-3) == 1 and part.stride(-1) != 1:  # channels last: products of what lies in one piece
            made = (across if across.dim() == 2 else across[:, 0]) @ part[:, 0].movedim(1, -1)
            made = (down if down.dim() == 2 else down[:, 0, 0]) @ made.flatten(-2)
            return made.unflatten(-1, (across.shape[-2], -1)).movedim(-1, 1)[:, None]
        return down @ (part @ across.transpose(-1, -2))

    cost = float(np.mean([(last - first + 1).mean() for first, last in axes]) * 2 * node.value.shape[:-2].numel())
    return Operation((View(x.number, (axes[0], axes[1])),), run, cost)


def _matrix(node: Node, value: Tensor, axis: int) -> Tensor:
    """(target, source) weights along an axis: what the operation makes of unit impulses."""
    length, size = value.shape[axis - 2], [2, 2]  # two and not one: of maps one wide torch's antialiased kernel mistakes the layout
    size[axis] = size_of(node)[axis]
    precise = torch.promote_types(value.dtype, torch.float32)  # numpy has no bfloat16
    impulses = torch.eye(length, dtype=precise, device=value.device)[None]
    wide = torch.stack([impulses, impulses], 3 - axis)
    made = node.call(wide, size, *node.args[2:], **node.kwargs)
    return made[0].select(2 - axis, 0).T.contiguous().cpu()


def _support(matrix: np.ndarray) -> Axis:
    """First and last column that counts in each row."""
    some = np.abs(matrix) > 0
    some[~some.any(1)] = True
    first, last = some.argmax(1), matrix.shape[1] - 1 - some[:, ::-1].argmax(1)
    return np.minimum.accumulate(first[::-1])[::-1], np.maximum.accumulate(last)


def _rows(matrix: Tensor, place: Place, axis: int, width: int) -> Tensor:
    """The part of a resampling matrix for each window, (B, 1, 1, h, width), or one (h, width) for all."""
    starts, begins = place.starts[:, axis], place.begins[0][:, axis]
    height = place.size[axis]
    rows = torch.as_tensor(starts)[:, None] + torch.arange(height)
    columns = (torch.as_tensor(begins)[:, None] + torch.arange(width)).clamp(max=matrix.shape[1] - 1)
    chosen = matrix[rows[:, :, None].to(matrix.device), columns[:, None, :].to(matrix.device)]
    if bool((chosen == chosen[:1]).all()):
        return chosen[0]
    return chosen[:, None, None]


def averaged(node: Node, nodes: Sequence[Node]) -> Operation | None:
    """Over the whole map, as a map of one position; over leading dimensions otherwise."""
    x, dims, keep = arguments(node, None, None, False)[:3]
    if not isinstance(x, Ref) or dims is None:
        return None
    rank = nodes[x.number].value.dim()
    if not keep or {each % rank - rank for each in dims} != {-1, -2}:
        return along(node, nodes) if all(each % rank < rank - 2 for each in dims) else None
    ends = [(np.array([0]), np.array([length - 1])) for length in size_of(nodes[x.number])]
    cost = float(nodes[x.number].value.numel())
    return Operation((View(x.number, (ends[0], ends[1])),), lambda parts, place: parts[0].mean((-1, -2), keepdim=True), cost)
