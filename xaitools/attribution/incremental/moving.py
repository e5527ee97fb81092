"""Operations that move a map as it is: margins, crops, frames."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .graph import Node, Ref
from .pointwise import along
from .views import Operation, Place, View, arguments, same, shifted, size_of


def padded(node: Node, nodes: Sequence[Node]) -> Operation | None:
    x, pads = node.args[:2]
    value = float(node.args[2]) if len(node.args) > 2 else 0.0
    if not isinstance(x, Ref) or any(pads[4:]):
        return None
    left, top = pads[0], pads[2] if len(pads) > 2 else 0
    height, width = size_of(node)
    return Operation((View(x.number, (shifted(height, -top), shifted(width, -left)), value),), lambda parts, place: parts[0], 0.1)


def copied(node: Node, nodes: Sequence[Node]) -> Operation | None:
    """A map that is written over a constant one of the same size."""
    source = node.args[1]
    if not isinstance(source, Ref) or nodes[source.number].value.shape[-2:] != node.value.shape[-2:]:
        return None
    return _moved(node, source, 0, 0)


def select_scatter(node: Node, nodes: Sequence[Node]) -> Operation | None:
    """A map as the only entry of a batch."""
    base, source = node.args[:2]
    if not isinstance(base, Tensor) or not isinstance(source, Ref) or node.args[2] != 0 or len(base) != 1:
        return None
    return _moved(node, source, 0, 0)


def slice_scatter(node: Node, nodes: Sequence[Node]) -> Operation | None:
    """A map in a frame of one constant."""
    base, source, dim, start, _, step = arguments(node, None, None, 0, None, None, 1)
    if not isinstance(base, Tensor) or not isinstance(source, Ref) or step != 1 or bool((base != base.flatten()[0]).any()):
        return None
    axis, start = dim % base.dim() - base.dim(), start or 0
    if axis < -2:
        return _moved(node, source, 0, 0) if nodes[source.number].value.shape == node.value.shape else None
    return _moved(node, source, start if axis == -2 else 0, start if axis == -1 else 0, float(base.flatten()[0]))


def _moved(node: Node, source: Ref, down: int, right: int, outside: float = 0.0) -> Operation:
    height, width = size_of(node)
    lead = node.value.shape[:-2]

    def run(parts: list[Tensor], place: Place) -> Tensor:
        return parts[0].reshape(len(parts[0]), *lead, *parts[0].shape[-2:])

    return Operation((View(source.number, (shifted(height, -down), shifted(width, -right)), outside),), run, 0.1)


def sliced(node: Node, nodes: Sequence[Node]) -> Operation | None:
    x, dim, start, _, step = arguments(node, None, 0, None, None, 1)
    dim, start = dim % node.value.dim() - node.value.dim(), start or 0
    if not isinstance(x, Ref) or step != 1:
        return None
    if dim < -2:
        return along(node, nodes)
    length = nodes[x.number].value.shape[dim]
    start = max(start + length if start < 0 else start, 0)
    axes = [same(each) for each in size_of(node)]
    axes[dim] = shifted(node.value.shape[dim], start)
    return Operation((View(x.number, (axes[0], axes[1])),), lambda parts, place: parts[0], 0.1)


def restrided(node: Node, nodes: Sequence[Node]) -> Operation | None:
    """A map of one position that is only told another layout in memory, as pooling does where channels lie last."""
    x = node.args[0]
    if not isinstance(x, Ref) or size_of(node) != (1, 1) or nodes[x.number].value.shape != node.value.shape:
        return None
    if node.args[2] != [*nodes[x.number].value.stride()] and node.args[2][1] != 1:
        return None
    return Operation((View(x.number, (same(1), same(1))),), lambda parts, place: parts[0], 0.1)


def cropped_part(node: Node, nodes: Sequence[Node]) -> Operation | None:
    x, top, left, height, width = node.args
    return Operation((View(x.number, (shifted(height, top), shifted(width, left))),), lambda parts, place: parts[0], 0.1)
