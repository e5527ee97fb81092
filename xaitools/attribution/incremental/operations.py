"""The operations whose results can be computed in a part of the map, and how.

``known(node, graph)`` gives an ``Operation`` for them and None for any other, whose whole output is then computed from its
whole input: a model of operations that nobody listed here is slow, not wrong.  A map is a tensor whose last two dimensions
lie on the image: (1, C, H, W), (C, H, W) or (H, W).  Along each axis the positions first[o]..last[o] of an input make
position o of the output; both never fall as o grows, and may lie outside the input, where it is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .graph import Node, Ref, crop

aten = torch.ops.aten
Axis = tuple[np.ndarray, np.ndarray]
"""(first, last) of each output position."""


@dataclass(frozen=True, eq=False)
class View:
    """What an operation sees of one input: the node, its axes (vertical, horizontal), and what lies outside of it."""

    node: int
    axes: tuple[Axis, Axis]
    outside: float = 0.0


@dataclass(frozen=True, eq=False)
class Place:
    """A box of the output of B windows: ``starts`` (B, 2) int, ``size`` (h, w), and ``begins`` (B, 2) of each input's part."""

    starts: np.ndarray
    size: tuple[int, int]
    begins: list[np.ndarray]


Run = Callable[[list[Tensor], Place], Tensor]


@dataclass(frozen=True, eq=False)
class Operation:
    """``run`` makes the box (B, ..., h, w) from the parts (B, ..., ih, iw) of the inputs that its positions need.

    cost   multiplications for one output position
    alone  whether each output position depends on the same position of one input only
    """

    views: tuple[View, ...]
    run: Run
    cost: float
    alone: bool = False


def known(node: Node, nodes: Sequence[Node], maps: set[int]) -> Operation | None:
    """The operation of ``node``, whose inputs that are maps have the numbers ``maps``; None if it is not one of ours."""
    make = TABLE.get(node.call)
    if make is None or not set(node.inputs) <= maps or node.value.dim() < 2:
        return None
    return make(node, nodes)


def merged(node: Node, operations: Mapping[int, Operation], nodes: Sequence[Node]) -> Operation:
    """The operation of ``node``, which is ``alone``, and of the one before it, whose result nothing else needs, in one."""
    mine = operations[node.number]
    before = mine.views[0].node
    if node.call is aten.native_batch_norm.default and nodes[before].call is aten.convolution.default:
        folded = _convolution(nodes[before], nodes, *_affine(node))
        assert folded is not None
        return folded
    first = operations[before]

    def run(parts: list[Tensor], place: Place) -> Tensor:
        return mine.run([first.run(parts, place)], Place(place.starts, place.size, [place.starts]))

    return Operation(first.views, run, first.cost + mine.cost, first.alone)


def size_of(node: Node) -> tuple[int, int]:
    return int(node.value.shape[-2]), int(node.value.shape[-1])


# -- axes


def same(length: int) -> Axis:
    here = np.arange(length)
    return here, here


def shifted(length: int, by: int) -> Axis:
    here = np.arange(length) + by
    return here, here


def sliding(length: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> Axis:
    first = np.arange(length) * stride - padding
    return first, first + dilation * (kernel - 1)


def spreading(length: int, kernel: int, stride: int, padding: int, dilation: int) -> Axis:
    """A transposed convolution: input i reaches the outputs i * stride - padding + dilation * j."""
    here = np.arange(length) + padding
    return -((dilation * (kernel - 1) - here) // stride), here // stride


def broadcast(length: int, available: int) -> Axis:
    return same(length) if available == length else (np.zeros(length, int), np.zeros(length, int))


# -- elementwise, along other dimensions than those of the image


def _elementwise(node: Node, nodes: Sequence[Node]) -> Operation | None:
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
    if any(each.dim() > rank or _spatial(each) != (1, 1) for each in constants):
        return None

    def run(parts: list[Tensor], place: Place) -> Tensor:
        given = dict(zip(node.inputs, (_ranked(each, rank) for each in parts), strict=True))
        return node(given.__getitem__)

    return Operation(tuple(views), run, 0.25, len(views) == 1 and size_of(nodes[views[0].node]) == (height, width))


def _spatial(value: Tensor) -> tuple[int, int]:
    shape = (1, 1, *value.shape)
    return int(shape[-2]), int(shape[-1])


def _ranked(part: Tensor, rank: int) -> Tensor:
    """(B, ..., h, w) with as many dimensions behind B as the output has, so that B stays first."""
    missing = rank - (part.dim() - 1)
    return part.reshape(part.shape[0], *[1] * missing, *part.shape[1:]) if missing > 0 else part


def _batch_norm(node: Node, nodes: Sequence[Node]) -> Operation | None:
    x, training = node.args[0], node.args[5]
    if training or not isinstance(x, Ref) or node.value.dim() != 4:
        return None
    scale, shift = (each[:, None, None] for each in _affine(node))
    height, width = size_of(node)
    return Operation((View(x.number, (same(height), same(width))),), lambda parts, place: parts[0] * scale + shift, 0.25, True)


def _affine(node: Node) -> tuple[Tensor, Tensor]:
    """(C,) factor and (C,) summand of a batch normalisation in eval mode."""
    _, weight, bias, mean, variance, _, _, eps = node.args
    scale = (variance.double() + eps).rsqrt() * (1 if weight is None else weight.double())
    shift = (0 if bias is None else bias.double()) - mean.double() * scale
    return scale.to(mean.dtype), shift.to(mean.dtype)


def _along(node: Node, nodes: Sequence[Node]) -> Operation | None:
    """Something along leading dimensions only: the picture of each position stays where it is."""
    height, width = size_of(node)
    if any(size_of(nodes[number]) != (height, width) for number in node.inputs) or not _leading(node, nodes):
        return None
    views = tuple(View(number, (same(height), same(width))) for number in node.inputs)

    def run(parts: list[Tensor], place: Place) -> Tensor:
        return torch.vmap(lambda *mine: node(dict(zip(node.inputs, mine, strict=True)).__getitem__))(*parts)

    return Operation(views, run, 0.25)


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


def _reshaped(node: Node, nodes: Sequence[Node]) -> Operation | None:
    """A view of the leading dimensions."""
    (number,) = node.inputs
    height, width = size_of(node)
    if size_of(nodes[number]) != (height, width):
        return None
    lead = node.value.shape[:-2]
    return Operation(
        (View(number, (same(height), same(width))),), lambda parts, place: parts[0].reshape(len(parts[0]), *lead, *parts[0].shape[-2:]), 0.1
    )


def _expanded(node: Node, nodes: Sequence[Node]) -> Operation | None:
    """One row or column repeated."""
    (number,) = node.inputs
    if nodes[number].value.dim() != node.value.dim():
        return None
    (height, width), (rows, columns), lead = size_of(node), size_of(nodes[number]), node.value.shape[:-2]

    def run(parts: list[Tensor], place: Place) -> Tensor:
        return parts[0].expand(len(parts[0]), *lead, *place.size)

    return Operation((View(number, (broadcast(height, rows), broadcast(width, columns))),), run, 0.1)


# -- windows


def _convolution(node: Node, nodes: Sequence[Node], scale: Tensor | None = None, shift: Tensor | None = None) -> Operation | None:
    """Its result times ``scale`` (C,) plus ``shift`` (C,), where they are given."""
    x, weight, bias, stride, padding, dilation, transposed, _, groups = node.args
    if not isinstance(x, Ref) or not isinstance(weight, Tensor) or isinstance(bias, Ref) or weight.dim() != 4 or len(node.value) != 1:
        return None
    if scale is not None and shift is not None:
        lined_up = weight.unflatten(0, (groups, -1)) if transposed else weight
        by = scale.view(groups, 1, -1, 1, 1) if transposed else scale.view(-1, 1, 1, 1)
        weight = (lined_up * by).view_as(weight)
        bias = shift if bias is None else bias * scale + shift
    sides = list(zip(size_of(node), weight.shape[2:], *(_pair(each) for each in (stride, padding, dilation)), strict=True))
    cost = float(weight[0].numel() * node.value.shape[1])
    if transposed:
        cost = float(weight.numel()) / (sides[0][2] * sides[1][2])
        axes = tuple(spreading(*each) for each in sides)

        def run(parts: list[Tensor], place: Place) -> Tensor:
            whole = F.conv_transpose2d(parts[0][:, 0], weight, bias, stride, 0, 0, groups, dilation)
            corners = [place.starts[:, axis] + pad - place.begins[0][:, axis] * step for axis, (_, _, step, pad, _) in enumerate(sides)]
            return _cropped(whole, np.stack(corners, 1), place.size)[:, None]
    else:
        axes = tuple(sliding(*each) for each in sides)

        def run(parts: list[Tensor], place: Place) -> Tensor:
            return F.conv2d(parts[0][:, 0], weight, bias, stride, 0, dilation, groups)[:, None]

    return Operation((View(x.number, (axes[0], axes[1])),), run, cost)


def _cropped(whole: Tensor, corners: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Of each picture (B, C, H, W) the box of ``size`` at its corner; zeros where the picture ends."""
    low, high = np.minimum(corners, 0), np.maximum(corners + np.array(size) - np.array(whole.shape[-2:]), 0)
    (top, left), (bottom, right) = -low.min(0), high.max(0)
    whole = F.pad(whole, (int(left), int(right), int(top), int(bottom)))
    corners = corners + np.array([top, left])
    if bool((corners == corners[0]).all()):
        y, x = corners[0].tolist()
        return whole[..., y : y + size[0], x : x + size[1]]
    return torch.stack([each[..., y : y + size[0], x : x + size[1]] for each, (y, x) in zip(whole, corners.tolist(), strict=True)])


def _max_pool(node: Node, nodes: Sequence[Node]) -> Operation | None:
    """The largest of each window, or (item 1) where in the whole map it stands."""
    x = node.args[0]
    if not isinstance(x, Ref) or len(node.value) != 1:
        return None
    kernel, stride, padding, dilation = _pooling(node)
    axes = [sliding(*each) for each in zip(size_of(node), kernel, stride, padding, dilation, strict=True)]
    length = size_of(nodes[x.number])[1]

    def run(parts: list[Tensor], place: Place) -> Tensor:
        if node.item == 0:
            return F.max_pool2d(parts[0][:, 0], kernel, stride, 0, dilation)[:, None]
        here = F.max_pool2d(parts[0][:, 0], kernel, stride, 0, dilation, return_indices=True)[1]
        down, right = _columns(place.begins[0], here)
        width = parts[0].shape[-1]
        return ((here // width + down) * length + here % width + right)[:, None]

    return Operation((View(x.number, (axes[0], axes[1]), -torch.inf),), run, float(kernel[0] * kernel[1]))


def _pooling(node: Node) -> tuple[tuple[int, int], ...]:
    """Kernel, stride, padding and dilation of a max pooling."""
    _, kernel, stride, padding, dilation = _arguments(node, None, None, None, 0, 1)[:5]
    return _pair(kernel), _pair(stride or kernel), _pair(padding), _pair(dilation)


def _max_unpool(node: Node, nodes: Sequence[Node]) -> Operation | None:
    """Values back to the places that a pooling recorded."""
    x, places = node.args[:2]
    if not isinstance(x, Ref) or not isinstance(places, Ref) or len(node.value) != 1:
        return None
    pooling = nodes[places.number]
    if pooling.call is not aten.max_pool2d_with_indices.default or size_of(nodes[pooling.inputs[0]]) != size_of(node):
        return None
    sides = zip(size_of(node), *_pooling(pooling), strict=True)
    axes = [spreading(*each) for each in sides]
    length = size_of(node)[1]

    def run(parts: list[Tensor], place: Place) -> Tensor:
        values, where = parts[0].flatten(-2), parts[1].flatten(-2)
        height, width = place.size
        down, right = _columns(place.starts, where)
        y, x = where.div(length, rounding_mode="floor") - down, where % length - right
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        out = values.new_zeros((*values.shape[:-1], height * width + 1))
        out.scatter_(-1, torch.where(inside, y * width + x, height * width), values)
        return out[..., :-1].unflatten(-1, (height, width))

    both = (axes[0], axes[1])
    return Operation((View(x.number, both), View(places.number, both, -1.0)), run, 2.0)


def _columns(corners: np.ndarray, like: Tensor) -> list[Tensor]:
    """Rows and columns (B, 2) of corners as two tensors (B, 1, ...) of as many dimensions as ``like``."""
    return [torch.as_tensor(corners[:, axis], device=like.device).view(-1, *[1] * (like.dim() - 1)) for axis in (0, 1)]


def _average_pool(node: Node, nodes: Sequence[Node]) -> Operation | None:
    x, kernel, stride, padding, ceil, counted, divisor = _arguments(node, None, None, None, 0, False, True, None)
    kernel, padding = _pair(kernel), _pair(padding)
    stride = _pair(stride) if stride else kernel
    if not isinstance(x, Ref) or ceil or divisor or (any(padding) and not counted) or len(node.value) != 1:
        return None
    axes = [sliding(*each) for each in zip(size_of(node), kernel, stride, padding, strict=True)]

    def run(parts: list[Tensor], place: Place) -> Tensor:
        return F.avg_pool2d(parts[0][:, 0], kernel, stride)[:, None]

    return Operation((View(x.number, (axes[0], axes[1])),), run, float(kernel[0] * kernel[1]))


def _arguments(node: Node, *defaults: Any) -> tuple[Any, ...]:
    """The arguments by position, the rest as ``defaults`` say."""
    return (*node.args, *defaults[len(node.args) :])


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1])


def _padded(node: Node, nodes: Sequence[Node]) -> Operation | None:
    x, pads = node.args[:2]
    value = float(node.args[2]) if len(node.args) > 2 else 0.0
    if not isinstance(x, Ref) or any(pads[4:]):
        return None
    left, top = pads[0], pads[2] if len(pads) > 2 else 0
    height, width = size_of(node)
    return Operation((View(x.number, (shifted(height, -top), shifted(width, -left)), value),), lambda parts, place: parts[0], 0.1)


def _copied(node: Node, nodes: Sequence[Node]) -> Operation | None:
    """A map that is written over a constant one of the same size."""
    source = node.args[1]
    if not isinstance(source, Ref) or nodes[source.number].value.shape[-2:] != node.value.shape[-2:]:
        return None
    return _moved(node, source, 0, 0)


def _select_scatter(node: Node, nodes: Sequence[Node]) -> Operation | None:
    """A map as the only entry of a batch."""
    base, source = node.args[:2]
    if not isinstance(base, Tensor) or not isinstance(source, Ref) or node.args[2] != 0 or len(base) != 1:
        return None
    return _moved(node, source, 0, 0)


def _slice_scatter(node: Node, nodes: Sequence[Node]) -> Operation | None:
    """A map in a frame of one constant."""
    base, source, dim, start, _, step = _arguments(node, None, None, 0, None, None, 1)
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


def _slice(node: Node, nodes: Sequence[Node]) -> Operation | None:
    x, dim, start, _, step = _arguments(node, None, 0, None, None, 1)
    dim, start = dim % node.value.dim() - node.value.dim(), start or 0
    if not isinstance(x, Ref) or step != 1:
        return None
    if dim < -2:
        return _along(node, nodes)
    length = nodes[x.number].value.shape[dim]
    start = max(start + length if start < 0 else start, 0)
    axes = [same(each) for each in size_of(node)]
    axes[dim] = shifted(node.value.shape[dim], start)
    return Operation((View(x.number, (axes[0], axes[1])),), lambda parts, place: parts[0], 0.1)


def _crop(node: Node, nodes: Sequence[Node]) -> Operation | None:
    x, top, left, height, width = node.args
    return Operation((View(x.number, (shifted(height, top), shifted(width, left))),), lambda parts, place: parts[0], 0.1)


# -- resampling: linear and separable, so the operation itself says what its two matrices are


def _resampled(node: Node, nodes: Sequence[Node]) -> Operation | None:
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
        return down @ (part @ across.transpose(-1, -2))

    cost = float(np.mean([(last - first + 1).mean() for first, last in axes]) * 2 * node.value.shape[:-2].numel())
    return Operation((View(x.number, (axes[0], axes[1])),), run, cost)


def _matrix(node: Node, value: Tensor, axis: int) -> Tensor:
    """(target, source) weights along an axis: what the operation makes of unit impulses."""
    length, size = value.shape[axis - 2], [2, 2]  # two and not one: of maps one wide torch's antialiased kernel mistakes the layout
    size[axis] = size_of(node)[axis]
    impulses = torch.eye(length, dtype=value.dtype, device=value.device)[None]
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


def _mean(node: Node, nodes: Sequence[Node]) -> Operation | None:
    """Over the whole map, as a map of one position; over leading dimensions otherwise."""
    x, dims, keep = _arguments(node, None, None, False)[:3]
    if not isinstance(x, Ref) or dims is None:
        return None
    rank = nodes[x.number].value.dim()
    if not keep or {each % rank - rank for each in dims} != {-1, -2}:
        return _along(node, nodes) if all(each % rank < rank - 2 for each in dims) else None
    ends = [(np.array([0]), np.array([length - 1])) for length in size_of(nodes[x.number])]
    cost = float(nodes[x.number].value.numel())
    return Operation((View(x.number, (ends[0], ends[1])),), lambda parts, place: parts[0].mean((-1, -2), keepdim=True), cost)


ELEMENTWISE = (
    "relu", "leaky_relu", "sigmoid", "tanh", "silu", "hardswish", "hardsigmoid", "hardtanh", "gelu", "elu", "mish", "softplus", "exp",
    "log", "sqrt", "rsqrt", "abs", "neg", "clamp", "clamp_min", "clamp_max", "pow", "square", "reciprocal", "add", "sub", "rsub", "mul",
    "div",     "maximum", "minimum", "clone", "detach", "alias", "_to_copy", "lift_fresh_copy", "threshold", "log_sigmoid_forward", "erf",
)  # fmt: skip
ALONG = (
    "cat", "select", "squeeze", "unsqueeze", "_softmax", "_log_softmax", "logsumexp", "unbind", "amax", "sum", "split", "split_with_sizes",
)  # fmt: skip
RESAMPLED = (
    "upsample_bilinear2d", "upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa",
    "_adaptive_avg_pool2d",
)  # fmt: skip
Make = Callable[[Node, Sequence[Node]], Operation | None]


def _table() -> dict[Any, Make]:
    groups: dict[Make, Sequence[str]] = {
        _elementwise: ELEMENTWISE, _along: ALONG, _resampled: RESAMPLED, _reshaped: ("view", "_unsafe_view"), _expanded: ("expand",),
        _batch_norm: ("native_batch_norm",),
        _convolution: ("convolution",), _max_pool: ("max_pool2d_with_indices",), _max_unpool: ("max_unpool2d",),
        _average_pool: ("avg_pool2d",), _mean: ("mean",),
        _padded: ("constant_pad_nd",), _slice: ("slice",), _copied: ("copy",), _select_scatter: ("select_scatter",),
        _slice_scatter: ("slice_scatter",),
    }  # fmt: skip
    return {crop: _crop} | {
        getattr(getattr(aten, name), overload): make
        for make, names in groups.items()
        for name in names
        for overload in getattr(aten, name).overloads()
    }


TABLE = _table()
