"""The sweep itself: for each batch of windows the boxes of the plan, pasted into what is known of the clean image."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .graph import Graph, Node, Ref
from .plan import WHOLE, Plan
from .views import Place, View, size_of

STRIPS = 30_000
"""Numbers in a part from which on it is quicker to copy four strips around the box than all of it."""

Filling = Callable[[int], Tensor]
"""Of a window its number -> the image (1, 3, H, W) that shows through it."""


@dataclass(eq=False)
class Boxes:
    """B boxes (B, ..., h, w) of a map, each at its own corner (B, 2)."""

    values: Tensor
    starts: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        return int(self.values.shape[-2]), int(self.values.shape[-1])


class Incremental:
    """Scores of a graph for images that differ from its own in one window each."""

    def __init__(self, graph: Graph, plan: Plan) -> None:
        self.graph, self.plan = graph, plan
        self._padded: dict[tuple[int, tuple[int, ...], float], Tensor] = {}

    @property
    def clean(self) -> Tensor:
        """(K,) of the unchanged image."""
        return self.graph.nodes[self.graph.result].value

    def scores(self, chosen: np.ndarray, filling: Filling) -> Tensor:
        """(K, B) where window ``chosen[b]`` shows the image that ``filling`` gives for it; of what was there already exactly ``clean``."""
        nodes = self.graph.nodes
        state: dict[int, Boxes] = {}
        unchanged = torch.zeros(len(chosen), dtype=torch.bool, device=nodes[0].value.device)
        for number in (0, *self.plan.operations):
            low, high = self.plan.low[number][:, chosen], self.plan.high[number][:, chosen]
            extent = (high - low).max(1)
            if not extent.all():
                continue
            full = np.array(size_of(nodes[number]))
            if extent.prod() >= WHOLE * full.prod():
                extent = full
            starts = np.minimum(low, (full - extent)[:, None]).T
            size = (int(extent[0]), int(extent[1]))
            if number == 0:
                state[0], unchanged = self._shown(chosen, filling, starts, size)
                continue
            operation = self.plan.operations[number]
            begins, parts = [], []
            for view in operation.views:
                begin = np.stack([view.axes[axis][0][starts[:, axis]] for axis in (0, 1)], 1)
                end = np.stack([view.axes[axis][1][starts[:, axis] + size[axis] - 1] for axis in (0, 1)], 1) + 1
                wanted = (end - begin).max(0)
                begins.append(begin)
                parts.append(self._parts(view, state.get(view.node), begin, (int(wanted[0]), int(wanted[1]))))
            state[number] = Boxes(operation.run(parts, Place(starts, size, begins)), starts)
        return torch.where(unchanged, self.clean[:, None], self._finished(state, len(chosen)))

    def _shown(self, chosen: np.ndarray, filling: Filling, starts: np.ndarray, size: tuple[int, int]) -> tuple[Boxes, Tensor]:
        """Boxes of the image with each window's filling, and (B,) whether that is what was there already."""
        image, low, high = self.graph.nodes[0].value, self.plan.low[0], self.plan.high[0]
        boxes, same = empty(image, len(chosen), size), torch.zeros(len(chosen), dtype=torch.bool, device=image.device)
        for row, (index, start) in enumerate(zip(chosen.tolist(), starts.tolist(), strict=True)):
            boxes[row] = _part(image, start, size)
            corner, extent = low[:, index].tolist(), (high - low)[:, index].tolist()
            hole, shown = _part(boxes[row], [corner[0] - start[0], corner[1] - start[1]], extent), _part(filling(index), corner, extent)
            same[row] = torch.equal(hole, shown)
            hole.copy_(shown)
        return Boxes(boxes, starts), same

    def _parts(self, view: View, boxes: Boxes | None, begin: np.ndarray, size: tuple[int, int]) -> Tensor:
        """Of each window the part (B, ..., h, w) of an input that starts at ``begin``, which may lie outside."""
        if boxes is not None and boxes.size == size and bool((boxes.starts == begin).all()):
            return boxes.values
        value = self.graph.nodes[view.node].value
        height, width = size_of(self.graph.nodes[view.node])
        low, past = begin.min(0), begin.max(0) + np.array(size)
        pads = (max(0, -int(low[1])), max(0, int(past[1]) - width), max(0, -int(low[0])), max(0, int(past[0]) - height))
        base = self._with_margin(view, value, pads)
        top, left = pads[2], pads[0]
        if boxes is None and bool((begin == begin[0]).all()):
            part = _part(base, (int(begin[0, 0]) + top, int(begin[0, 1]) + left), size)
            return part.expand(len(begin), *part.shape)
        out = empty(value, len(begin), size)
        corners = begin + np.array([top, left])
        if boxes is None:
            for row, (y, x) in enumerate(corners.tolist()):
                out[row] = base[..., y : y + size[0], x : x + size[1]]
            return out
        inner = _overlap(begin, size, boxes)
        for row, ((y, x), (y1, x1, y2, x2)) in enumerate(zip(corners.tolist(), inner.tolist(), strict=True)):
            _around(out[row], base[..., y : y + size[0], x : x + size[1]], (y1, x1, y2, x2))
        at = begin - boxes.starts
        if bool((at == at[0]).all() and (inner == inner[0]).all()):
            _paste(out, boxes.values, inner[0].tolist(), at[0].tolist())
        else:
            for row, (place, offset) in enumerate(zip(inner.tolist(), at.tolist(), strict=True)):
                _paste(out[row], boxes.values[row], place, offset)
        return out

    def _with_margin(self, view: View, value: Tensor, pads: tuple[int, int, int, int]) -> Tensor:
        if not any(pads):
            return value
        key = (view.node, pads, view.outside)
        if key not in self._padded:
            self._padded[key] = F.pad(value, pads, value=view.outside)
        return self._padded[key]

    def _finished(self, state: dict[int, Boxes], count: int) -> Tensor:
        """The nodes that are no maps, computed for all windows at once."""
        nodes, result = self.graph.nodes, self.graph.result
        given: dict[int, Tensor] = {}

        def whole(number: int) -> Tensor:
            height, width = size_of(nodes[number])
            view = View(number, ((np.arange(height),) * 2, (np.arange(width),) * 2))
            return self._parts(view, state[number], np.zeros((count, 2), int), (height, width))

        for number in self.plan.tail:
            node = nodes[number]
            given |= {each: whole(each) for each in node.inputs if each in state and each not in given}
            values = {each: given[each] for each in node.inputs if each in given}
            if values:
                given[number] = BY_HAND.get(node.call, _each)(node, values, lambda each: nodes[each].value)
        if result in state:
            return whole(result).T
        return given[result].T if result in given else self.clean[:, None].expand(-1, count)


def _each(node: Node, values: dict[int, Tensor], clean: Callable[[int], Tensor]) -> Tensor:
    """The node on each row of ``values`` (B, ...); its other inputs are clean."""

    def one(*mine: Tensor) -> Tensor:
        known = dict(zip(values, mine, strict=True))
        return node(lambda number: known[number] if number in known else clean(number))

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # an operation without a rule for rows is looped over
        return torch.vmap(one)(*values.values())


def _regions(node: Node, values: dict[int, Tensor], clean: Callable[[int], Tensor]) -> Tensor:
    """One map and its regions in each row, for which vmap has no rule."""
    x, rois, *rest = node.args
    if not isinstance(x, Ref) or not isinstance(rois, Tensor):
        return _each(node, values, clean)
    maps = values[x.number][:, 0]
    rows = torch.arange(len(maps)).to(rois).repeat_interleave(len(rois))[:, None]
    pooled = node.call(maps, torch.cat([rows, rois[:, 1:].repeat(len(maps), 1)], 1), *rest)
    pooled = pooled if node.item is None else pooled[node.item]
    return pooled.view(len(maps), len(rois), *pooled.shape[1:])


BY_HAND: dict[Any, Callable[[Node, dict[int, Tensor], Callable[[int], Tensor]], Tensor]] = {
    torch.ops.torchvision.roi_align.default: _regions, torch.ops.torchvision.roi_pool.default: _regions,
}  # fmt: skip


def empty(like: Tensor, count: int, size: tuple[int, int]) -> Tensor:
    """(count, ..., h, w) whose channels lie in memory as those of ``like`` (..., H, W) do."""
    lead = like.shape[:-2]
    if like.dim() < 3 or like.stride(-3) != 1 or like.stride(-1) == 1:
        return like.new_empty((count, *lead, *size))
    return like.new_empty((count, *lead[:-1], *size, lead[-1])).movedim(-1, -3)


def _overlap(begin: np.ndarray, size: tuple[int, int], boxes: Boxes) -> np.ndarray:
    """Of each part the (top, left, bottom, right) that its box covers, (B, 4), counted from where the part begins."""
    low, high = np.maximum(begin, boxes.starts), np.minimum(begin + np.array(size), boxes.starts + np.array(boxes.size))
    inner = np.concatenate([low - begin, high - begin], 1)
    inner[(low >= high).any(1)] = 0
    return inner


def _around(out: Tensor, clean: Tensor, inner: tuple[int, int, int, int]) -> None:
    """Writes ``clean`` into ``out`` (..., h, w), at least where ``inner`` will not be written over."""
    top, left, bottom, right = inner
    if out.numel() < STRIPS or (bottom - top) * (right - left) * 2 < out.shape[-1] * out.shape[-2]:
        out.copy_(clean)
        return
    for strip in ((slice(0, top), slice(None)), (slice(bottom, None), slice(None)), (slice(top, bottom), slice(0, left)),
                  (slice(top, bottom), slice(right, None))):  # fmt: skip
        out[..., *strip] = clean[..., *strip]


def _paste(out: Tensor, box: Tensor, inner: list[int], at: list[int]) -> None:
    """Writes the part of ``box`` that lies at ``inner`` of ``out``, whose corner lies at ``at`` of the box."""
    top, left, bottom, right = inner
    out[..., top:bottom, left:right] = box[..., top + at[0] : bottom + at[0], left + at[1] : right + at[1]]


def _part(value: Tensor, start: Sequence[int], size: Sequence[int]) -> Tensor:
    return value[..., start[0] : start[0] + size[0], start[1] : start[1] + size[1]]
