"""Operations that leave every position where it is: elementwise, along channels, views of leading dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .graph import Node, Ref
from .views import Operation, Place, View, broadcast, same, size_of


def elementwise(node: Node, nodes: Sequence[Node]) -> Operation | None:
    """Each output position from the same position of every input, which may have a single row or column."""
    height, width = size_of(node)
    views = []
    rank = node.value.dim()
    for number in node.inputs:
        value = nodes[number].value
        if value.dim() < 2 or size_of(nodes[number])[0] not in (1, height) or size_of(nodes[number])[1] not in (1, width):
            return None
        views.append(View(number, (broadcast(height, value.shape[-2]), broadcast(width, value.shape[-1]))))
    constants = [each for each in (*node.args, *node.kwargs.values()) if isinstance(each, Tensor)]
    if any(each.dim() > rank or spatial(each) != (1, 1) for each in constants):
        return None

    def run(parts: list[Tensor], place: Place) -> Tensor:
        given = dict(zip(node.inputs, (ranked(each, rank) for each in parts), strict=True))
        return node(given.__getitem__)

    return Operation(tuple(views), run, 0.25, len(views) == 1 and size_of(nodes[views[0].node]) == (height, width))


def spatial(value: Tensor) -> tuple[int, int]:
    shape = (1, 1, *value.shape)
    return int(shape[-2]), int(shape[-1])


def ranked(part: Tensor, rank: int) -> Tensor:
    """(B, ..., h, w) with as many dimensions behind B as the output has, so that B stays first."""
    missing = rank - (part.dim() - 1)
    return part.reshape(part.shape[0], *[1] * missing, *part.shape[1:]) if missing > 0 else part


def batch_norm(node: Node, nodes: Sequence[Node]) -> Operation | None:
    x = node.args[0]
    if not normalises(node):
        return None
    scale, shift = (each[:, None, None] for each in affine(node))
    height, width = size_of(node)
    return Operation(
        (View(x.number, (same(height), same(width))),), lambda parts, place: (parts[0] * scale + shift).to(parts[0].dtype), 0.25, True
    )


def normalises(node: Node) -> bool:
    """Whether it is a batch normalisation of a map in eval mode."""
    if node.call is not torch.ops.aten.native_batch_norm.default or node.args[5] or node.item != 0:
        return False
    return isinstance(node.args[0], Ref) and node.value.dim() == 4 and len(node.inputs) == 1


def affine(node: Node) -> tuple[Tensor, Tensor]:
    """(C,) factor and (C,) summand of a batch normalisation in eval mode."""
    _, weight, bias, mean, variance, _, _, eps = node.args
    scale = (variance.double() + eps).rsqrt() * (1 if weight is None else weight.double())
    shift = (0 if bias is None else bias.double()) - mean.double() * scale
    return scale.to(mean.dtype), shift.to(mean.dtype)


def along(node: Node, nodes: Sequence[Node]) -> Operation | None:
    """Something along leading dimensions only: the picture of each position stays where it is."""
    height, width = size_of(node)
    if any(size_of(nodes[number]) != (height, width) for number in node.inputs) or not _leading(node, nodes):
        return None
    views = tuple(View(number, (same(height), same(width))) for number in node.inputs)

    def run(parts: list[Tensor], place: Place) -> Tensor:
        return torch.vmap(lambda *mine: node(dict(zip(node.inputs, mine, strict=True)).__getitem__))(*parts)

    def joined(parts: list[Tensor], place: Place) -> Tensor:
        """Channels of single images, in the layout that they have."""
        return torch.cat([part[:, 0] for part in parts], 1)[:, None]

    channels = node.call is torch.ops.aten.cat.default and node.value.dim() == 4 and len(node.value) == 1
    plain = channels and node.args[1:] in ((1,), (-3,)) and len(node.inputs) == len(node.args[0])
    return Operation(views, joined if plain else run, 0.25)


def _leading(node: Node, nodes: Sequence[Node]) -> bool:
    """Whether the dimensions that ``node`` works along all lie before the last two."""
    value = nodes[node.inputs[0]].value
    name = node.call.overloadpacket.__name__  # type: ignore[attr-defined]
    if name == "unbind":
        dims: Any = node.args[1] if len(node.args) > 1 else 0
    elif name in ("squeeze", "unsqueeze", "select", "slice", "cat", "stack", "_softmax", "split", "chunk"):
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        if name in ("split", "chunk"):
            dims = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    else:
        dims = node.args[1]
    rank = value.dim() + (name in ("unsqueeze", "stack"))
    return all(each % rank < rank - 2 for each in (dims if isinstance(dims, list | tuple) else [dims]))


def reshaped(node: Node, nodes: Sequence[Node]) -> Operation | None:
    """A view of the leading dimensions."""
    (number,) = node.inputs
    height, width = size_of(node)
    if size_of(nodes[number]) != (height, width):
        return None
    lead = node.value.shape[:-2]
    return Operation(
        (View(number, (same(height), same(width))),), lambda parts, place: parts[0].reshape(len(parts[0]), *lead, *parts[0].shape[-2:]), 0.1
    )


def expanded(node: Node, nodes: Sequence[Node]) -> Operation | None:
    """One row or column repeated."""
    (number,) = node.inputs
    if nodes[number].value.dim() != node.value.dim():
        return None
    (height, width), (rows, columns), lead = size_of(node), size_of(nodes[number]), node.value.shape[:-2]

    def run(parts: list[Tensor], place: Place) -> Tensor:
        return parts[0].expand(len(parts[0]), *lead, *place.size)

    return Operation((View(number, (broadcast(height, rows), broadcast(width, columns))),), run, 0.1)
