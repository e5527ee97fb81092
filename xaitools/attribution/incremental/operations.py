"""The operations whose results can be computed in a part of the map, and how.

``known(node, graph)`` gives an ``Operation`` for them and None for any other, whose whole output is then computed from its
whole input: a model of operations that nobody listed here is slow, not wrong.  A map is a tensor whose last two dimensions
lie on the image: (1, C, H, W), (C, H, W) or (H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .graph import Node, crop
from .moving import copied, cropped_part, padded, restrided, select_scatter, slice_scatter, sliced
from .pointwise import affine, along, batch_norm, elementwise, expanded, reshaped
from .resampling import averaged, resampled
from .sliding import average_pool, convolution, max_pool, max_unpool
from .views import Operation, Place

aten = torch.ops.aten


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
        folded = convolution(nodes[before], nodes, *affine(node))
        assert folded is not None
        return folded
    first = operations[before]
    if node.call is aten.relu.default and nodes[before].call in FRESH:
        return Operation(first.views, lambda parts, place: first.run(parts, place).relu_(), first.cost + mine.cost, first.alone)

    def run(parts: list[Tensor], place: Place) -> Tensor:
        return mine.run([first.run(parts, place)], Place(place.starts, place.size, [place.starts]))

    return Operation(first.views, run, first.cost + mine.cost, first.alone)


FRESH = {aten.convolution.default, aten.native_batch_norm.default, aten.add.Tensor, aten.cat.default}
"""Operations whose result is nobody else's, so that what follows may write into it."""


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
        elementwise: ELEMENTWISE, along: ALONG, resampled: RESAMPLED, reshaped: ("view", "_unsafe_view"), expanded: ("expand",),
        batch_norm: ("native_batch_norm",),
        convolution: ("convolution",), max_pool: ("max_pool2d_with_indices",), max_unpool: ("max_unpool2d",),
        average_pool: ("avg_pool2d",), averaged: ("mean",),
        padded: ("constant_pad_nd",), sliced: ("slice",), copied: ("copy",), select_scatter: ("select_scatter",),
        slice_scatter: ("slice_scatter",), restrided: ("as_strided", "as_strided_"),
    }  # fmt: skip
    return {crop: cropped_part} | {
        getattr(getattr(aten, name), overload): make
        for make, names in groups.items()
        for name in names
        for overload in getattr(aten, name).overloads()
    }


TABLE = _table()
