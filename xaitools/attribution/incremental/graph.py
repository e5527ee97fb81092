"""A score as a list of operations, each with what it gave on the unchanged image.

The score is traced at the level of aten, once for one image: what does not depend on the image is a constant, control flow
that does is refused, and modules and functional calls look alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx


@dataclass(eq=False)
class Node:
    """One operation: ``inputs`` are the numbers of the nodes it depends on, ``value`` is what it gives for the clean image.

    Of an operation with several results each one that is used is a node, with its number as ``item``.
    """

    number: int
    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[int, ...]
    value: Tensor
    item: int | None = None

    def __call__(self, values: Callable[[int], Any]) -> Any:
        """The operation on other values of its inputs."""
        result = self.call(*replaced(self.args, values), **replaced(self.kwargs, values))
        return result if self.item is None else result[self.item]


SHAPE_ONLY = ("new_full", "new_zeros", "new_ones", "full_like", "zeros_like", "ones_like")
"""Operations that take the shape of a tensor and none of its numbers."""


@dataclass(frozen=True)
class Ref:
    """Stands in the arguments of a node for the value of another."""

    number: int


@dataclass(eq=False)
class Graph:
    """``nodes`` in order, the first is the image (1, 3, H, W); ``result`` is the number of the last, (K,)."""

    nodes: list[Node]
    result: int


class Untraceable(Exception):
    """The score cannot be written as a list of operations; the reason in words."""


def record(score: Callable[[Tensor], Tensor], image: Tensor) -> Graph:
    """The operations of ``score`` that depend on ``image`` (1, 3, H, W)."""
    try:
        module = make_fx(functionalize(score), tracing_mode="real")(image)
    except Exception as error:  # whatever a stranger's forward does that cannot be traced: the sweep then stays dense
        raise Untraceable(f"{type(error).__name__}: {str(error).splitlines()[0][:120]}") from error
    module.graph.eliminate_dead_code()
    known: dict[fx.Node, Any] = {}
    nodes = [Node(0, torch.clone, (), {}, (), image)]

    def clean(number: int) -> Tensor:
        return nodes[number].value

    for entry in module.graph.nodes:
        arguments: tuple[Any, Any] = ((), {})
        if entry.op in ("call_function", "output"):
            arguments = fx.map_arg((entry.args, entry.kwargs), known.__getitem__)
        match entry.op:
            case "placeholder":
                known[entry] = Ref(0)
            case "get_attr":
                known[entry] = _attribute(module, str(entry.target))
            case "output":
                result = arguments[0][0]
                if not isinstance(result, Ref):
                    raise Untraceable("the score does not depend on the image")
                return Graph(nodes, result.number)
            case "call_function" if entry.target is getitem:
                whole, item = arguments[0]
                known[entry] = whole[item] if not isinstance(whole, Several) else whole.one(item, nodes)
            case _:
                arguments = _narrowed(entry.target, arguments, nodes)
                inputs = tuple(dict.fromkeys(_references(arguments)))
                node = Node(len(nodes), entry.target, *arguments, inputs, image)
                value = node(clean)
                if not inputs or _name(entry.target) in SHAPE_ONLY or (isinstance(value, Tensor) and not value.numel()):
                    known[entry] = value  # also what is empty: the level of a pyramid on which no region lies
                elif isinstance(value, Tensor):
                    node.value = value
                    nodes.append(node)
                    known[entry] = Ref(node.number)
                else:
                    known[entry] = Several(node, value)
    raise Untraceable("no result")


# -- operations that look at a part of a map: they get that part alone, so that nothing else counts as needed


def crop(x: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    return x[..., top : top + height, left : left + width]


def _narrowed(call: Any, arguments: tuple[Any, Any], nodes: list[Node]) -> tuple[Any, Any]:
    """``arguments`` with a crop of the map in the place of the map, where ``call`` takes pixels of a mask or regions of boxes."""
    (x, *rest), options = arguments[0] or (None,), arguments[1]
    if not isinstance(x, Ref) or nodes[x.number].value.dim() < 2:
        return arguments
    height, width = (int(each) for each in nodes[x.number].value.shape[-2:])
    if call is torch.ops.aten.index.Tensor and isinstance(rest[0][-1], Tensor) and rest[0][-1].dtype == torch.bool:
        mask = rest[0][-1]
        if mask.shape == (height, width) and len(rest[0]) == nodes[x.number].value.dim() - 1 and bool(mask.any()):
            rows, columns = (torch.where(mask.any(axis))[0] for axis in (1, 0))
            top, left, bottom, right = int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
            part = _cropped(x, (top, left, bottom, right), nodes)
            return (part, [*rest[0][:-1], mask[top:bottom, left:right]]), options
    if call is torch.ops.torchvision.roi_align.default and isinstance(rest[0], Tensor) and len(rest[0]):
        rois, scale = rest[:2]
        offset = 0.5 if rest[5] else 0.0
        corners = rois[:, 1:].double() * scale - offset
        # samples lie inside the region (at least one pixel large where not aligned), each between two pixels
        low, high = corners[:, :2].amin(0).floor(), torch.maximum(corners[:, 2:], corners[:, :2] + 1).amax(0).ceil() + 1
        left, top = (max(0, min(int(each) - 1, end - 2)) for each, end in zip(low, (width, height), strict=True))
        right, bottom = (
            min(end, max(int(each) + 1, start + 2)) for each, end, start in zip(high, (width, height), (left, top), strict=True)
        )
        moved = rois.clone()
        moved[:, 1:] -= torch.tensor([left, top, left, top]).to(rois) / scale
        return (_cropped(x, (top, left, bottom, right), nodes), moved, *rest[1:]), options
    return arguments


def _cropped(x: Ref, box: tuple[int, int, int, int], nodes: list[Node]) -> Ref:
    top, left, bottom, right = box
    place = (top, left, bottom - top, right - left)
    nodes.append(Node(len(nodes), crop, (x, *place), {}, (x.number,), crop(nodes[x.number].value, *place)))
    return Ref(len(nodes) - 1)


@dataclass(eq=False)
class Several:
    """An operation with several results, none of which is a node before it is used."""

    node: Node
    values: Sequence[Tensor]

    def one(self, item: int, nodes: list[Node]) -> Ref:
        nodes.append(replace(self.node, number=len(nodes), item=item, value=self.values[item]))
        return Ref(len(nodes) - 1)


def replaced(argument: Any, value: Callable[[int], Any]) -> Any:
    if isinstance(argument, Ref):
        return value(argument.number)
    if isinstance(argument, tuple | list):
        return type(argument)(replaced(each, value) for each in argument)
    if isinstance(argument, dict):
        return {key: replaced(each, value) for key, each in argument.items()}
    return argument


def _references(argument: Any) -> list[int]:
    if isinstance(argument, Ref):
        return [argument.number]
    if isinstance(argument, dict):
        argument = list(argument.values())
    return [number for each in argument for number in _references(each)] if isinstance(argument, tuple | list) else []


def _name(call: Any) -> str:
    return getattr(getattr(call, "overloadpacket", None), "__name__", "")


def _attribute(module: Any, path: str) -> Any:
    for part in path.split("."):
        module = getattr(module, part)
    return module
