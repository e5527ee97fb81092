"""Convolutions and pools: a box of the output from a slightly larger one of the input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .graph import Node, Ref
from .views import Operation, Place, View, arguments, pair, size_of, sliding, spreading

aten = torch.ops.aten


def convolution(node: Node, nodes: Sequence[Node], scale: Tensor | None = None, shift: Tensor | None = None) -> Operation | None:
    """Its result times ``scale`` (C,) plus ``shift`` (C,), where they are given."""
    x, weight, bias, stride, padding, dilation, transposed, _, groups = node.args
    if not isinstance(x, Ref) or not isinstance(weight, Tensor) or isinstance(bias, Ref) or weight.dim() != 4 or len(node.value) != 1:
        return None
    if scale is not None and shift is not None:
        weight, bias = scaled(weight, bias, scale, shift, groups if transposed else 0)
    sides = list(zip(size_of(node), weight.shape[2:], *(pair(each) for each in (stride, padding, dilation)), strict=True))
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


def scaled(weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor, groups: int = 0) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a convolution, of a transposed one in ``groups``, whose result is that times ``scale`` plus ``shift`` (C,)."""
    lined_up = weight.unflatten(0, (groups, -1)) if groups else weight
    by = scale.view(groups, 1, -1, 1, 1) if groups else scale.view(-1, 1, 1, 1)
    # statistics stay float where kernels are half
    return (lined_up * by).view_as(weight).to(weight.dtype), (shift if bias is None else bias * scale + shift).to(weight.dtype)


def _cropped(whole: Tensor, corners: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Of each picture (B, C, H, W) the box of ``size`` at its corner; zeros where the picture ends."""
    low, high = np.minimum(corners, 0), np.maximum(corners + np.array(size) - np.array(whole.shape[-2:]), 0)
    (top, left), (bottom, right) = -low.min(0), high.max(0)
    if low.any() or high.any():
        whole = F.pad(whole, (int(left), int(right), int(top), int(bottom)))
    corners = corners + np.array([top, left])
    if bool((corners == corners[0]).all()):
        y, x = corners[0].tolist()
        return whole[..., y : y + size[0], x : x + size[1]]
    return torch.stack([each[..., y : y + size[0], x : x + size[1]] for each, (y, x) in zip(whole, corners.tolist(), strict=True)])


def max_pool(node: Node, nodes: Sequence[Node]) -> Operation | None:
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
        down, right = columns(place.begins[0], here)
        width = parts[0].shape[-1]
        return ((here // width + down) * length + here % width + right)[:, None]

    return Operation((View(x.number, (axes[0], axes[1]), -torch.inf),), run, float(kernel[0] * kernel[1]))


def _pooling(node: Node) -> tuple[tuple[int, int], ...]:
    """Kernel, stride, padding and dilation of a max pooling."""
    _, kernel, stride, padding, dilation = arguments(node, None, None, None, 0, 1)[:5]
    return pair(kernel), pair(stride or kernel), pair(padding), pair(dilation)


def max_unpool(node: Node, nodes: Sequence[Node]) -> Operation | None:
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
        down, right = columns(place.starts, where)
        y, x = where.div(length, rounding_mode="floor") - down, where % length - right
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        out = values.new_zeros((*values.shape[:-1], height * width + 1))
        out.scatter_(-1, torch.where(inside, y * width + x, height * width), values)
        return out[..., :-1].unflatten(-1, (height, width))

    both = (axes[0], axes[1])
    return Operation((View(x.number, both), View(places.number, both, -1.0)), run, 2.0)


def columns(corners: np.ndarray, like: Tensor) -> list[Tensor]:
    """Rows and columns (B, 2) of corners as two tensors (B, 1, ...) of as many dimensions as ``like``."""
    return [torch.as_tensor(corners[:, axis], device=like.device).view(-1, *[1] * (like.dim() - 1)) for axis in (0, 1)]


def average_pool(node: Node, nodes: Sequence[Node]) -> Operation | None:
    x, kernel, stride, padding, ceil, counted, divisor = arguments(node, None, None, None, 0, False, True, None)
    kernel, padding = pair(kernel), pair(padding)
    stride = pair(stride) if stride else kernel
    if not isinstance(x, Ref) or ceil or divisor or (any(padding) and not counted) or len(node.value) != 1:
        return None
    axes = [sliding(*each) for each in zip(size_of(node), kernel, stride, padding, strict=True)]

    def run(parts: list[Tensor], place: Place) -> Tensor:
        return F.avg_pool2d(parts[0][:, 0], kernel, stride)[:, None]

    return Operation((View(x.number, (axes[0], axes[1])),), run, float(kernel[0] * kernel[1]))
