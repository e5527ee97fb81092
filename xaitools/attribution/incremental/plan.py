"""What has to be computed again for each window: of every map the box that the window can change and the score can see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .graph import Graph, Node
from .operations import known, merged
from .views import Axis, Operation, size_of

WHOLE = 0.85
"""Share of a map from which on it is computed whole."""

NOWHERE = np.iinfo(np.int32).max
"""Where a box begins that is empty."""

WASTE = 1.15
"""Windows share a batch while their common boxes cost at most that much more than their own."""


@dataclass(eq=False)
class Plan:
    """``operations`` are those of the maps, ``tail`` the other nodes; ``low`` and ``high`` (nodes, 2, windows) bound the boxes.

    reaches  (windows,) whether a window can change the score at all
    cost     (windows,) multiplications for each, and ``dense`` those of one whole pass
    """

    operations: dict[int, Operation]
    tail: list[int]
    low: np.ndarray
    high: np.ndarray
    reaches: np.ndarray
    cost: np.ndarray
    dense: float

    @property
    def ratio(self) -> float:
        """Operations of the dense sweep over ours."""
        return float(self.dense * len(self.cost) / max(1.0, self.cost.sum()))


def make_plan(graph: Graph, windows: Sequence[tuple[int, int, int, int]]) -> Plan:
    nodes = graph.nodes
    operations, tail = _sorted_out(graph)
    maps = {0, *operations}
    _merge(nodes, operations, {graph.result, *(each for number in tail for each in nodes[number].inputs)})
    need = np.stack([np.concatenate(_needs(graph, operations, tail, axis, np.zeros(1, int), np.array([side])), 1)
                     for axis, side in enumerate(_sides(nodes[graph.result]))], 1)  # fmt: skip
    count = len(windows)
    low, high = np.zeros((2, len(nodes), 2, count), np.int32)
    corners = np.array(windows, np.int32).reshape(count, 4).T
    low[0], high[0] = _met(corners[:2], corners[2:], need[0])
    for number, operation in operations.items():
        lows, highs = [], []
        for view in operation.views:
            reached = [_reach(axis, low[view.node, at], high[view.node, at]) for at, axis in enumerate(view.axes)]
            untouched = (low[view.node] >= high[view.node]).any(0)
            lows.append(np.where(untouched, NOWHERE, [each[0] for each in reached]))
            highs.append(np.where(untouched, 0, [each[1] for each in reached]))
        low[number], high[number] = _met(np.min(lows, 0), np.max(highs, 0), need[number])
    empty = np.any(low >= high, axis=1)
    low[np.repeat(empty[:, None], 2, 1)], high[np.repeat(empty[:, None], 2, 1)] = 0, 0
    ends = {number for each in tail for number in nodes[each].inputs if number in maps} | ({graph.result} & maps)
    reaches = np.zeros(count, bool)
    for number in ends:
        reaches |= ~empty[number]
    areas = (high - low).prod(1).astype(float)
    costs = {number: operation.cost for number, operation in operations.items()}
    rest = float(sum(_rough(graph, number) for number in tail))
    dense = rest + sum(cost * float(np.prod(size_of(nodes[number]))) for number, cost in costs.items())
    cost = np.where(reaches, rest + sum((cost * areas[number] for number, cost in costs.items()), np.zeros(count)), 0)
    return Plan(operations, tail, low, high, reaches, cost, dense)


def _merge(nodes: Sequence[Node], operations: dict[int, Operation], wanted: set[int]) -> None:
    """Puts what works position by position and the operation before it into one, where nobody else wants the map between."""
    users = Counter(view.node for operation in operations.values() for view in operation.views)
    for number in list(operations):
        if operations[number].alone:
            before = operations[number].views[0].node
            if before in operations and users[before] == 1 and before not in wanted:
                operations[number] = merged(nodes[number], operations, nodes)
                del operations[before]


def batches(plan: Plan, size: int, among: Sequence[int] | None = None) -> Iterator[np.ndarray]:
    """The windows, all or ``among`` these, that can change the score, those alike together, at most ``size`` in a batch."""
    extents = (plan.high - plan.low)[list(plan.operations)]
    weights = np.array([operation.cost for operation in plan.operations.values()])
    tall, wide = weights @ extents[:, 0], weights @ extents[:, 1]
    order = np.where(plan.reaches)[0] if among is None else np.array([each for each in among if plan.reaches[each]], int)
    order = order[np.lexsort((wide[order], tall[order]))]
    start = 0
    while start < len(order):
        widest, own = extents[:, :, order[start]], 0.0
        end = start
        while end < len(order) and end - start < size:
            grown = np.maximum(widest, extents[:, :, order[end]])
            own += float(weights @ extents[:, :, order[end]].prod(1))
            if end > start and float(weights @ grown.prod(1)) * (end - start + 1) > WASTE * own:
                break
            widest, end = grown, end + 1
        yield order[start:end]
        start = end


def fields(graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """Receptive fields: the first and past-the-last row of the image (h, 2) that each row of the result, a map (..., h, w), depends on.

    Then the same of its columns (w, 2).  First is not below past where nothing of the image is seen, only padding.
    """
    operations, tail = _sorted_out(graph)
    rows, columns = (
        np.stack([bound[0] for bound in _needs(graph, operations, tail, axis, np.arange(side), np.arange(side) + 1)], 1)
        for axis, side in enumerate(_sides(graph.nodes[graph.result]))
    )
    return rows, columns


def _sorted_out(graph: Graph) -> tuple[dict[int, Operation], list[int]]:
    """The operations on maps, by number, and the numbers of all other nodes."""
    maps, operations, tail = {0}, {}, []
    for node in graph.nodes[1:]:
        operation = known(node, graph.nodes, maps)
        if operation is None:
            tail.append(node.number)
        else:
            operations[node.number] = operation
            maps.add(node.number)
    return operations, tail


def _sides(node: Node) -> tuple[int, int]:
    return size_of(node) if node.value.dim() > 1 else (1, 1)


def _needs(
    graph: Graph, operations: dict[int, Operation], tail: Sequence[int], axis: int, first: np.ndarray, past: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis, for n parts first..past - 1 of the result: the same bounds (nodes, n) of every map that they depend on."""
    nodes = graph.nodes
    low, high = np.full((len(nodes), len(first)), NOWHERE, np.int64), np.zeros((len(nodes), len(first)), np.int64)

    def wants(number: int, begin: np.ndarray, end: np.ndarray) -> None:
        begin, end = np.maximum(begin, 0), np.minimum(end, size_of(nodes[number])[axis])
        some = begin < end
        low[number] = np.minimum(low[number], np.where(some, begin, NOWHERE))
        high[number] = np.maximum(high[number], np.where(some, end, 0))

    for number in tail:
        for each in nodes[number].inputs:
            if each == 0 or each in operations:
                wants(each, np.zeros_like(first), np.full_like(first, NOWHERE))
    if graph.result == 0 or graph.result in operations:
        wants(graph.result, first, past)
    for number in sorted(operations, reverse=True):
        some = low[number] < high[number]
        begin, end = np.where(some, low[number], 0), np.where(some, high[number] - 1, 0)
        for view in operations[number].views:
            wants(view.node, view.axes[axis][0][begin], np.where(some, view.axes[axis][1][end] + 1, 0))
    return low, high


def _reach(axis: Axis, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The outputs that depend on the inputs low..high - 1."""
    first, last = axis
    return np.searchsorted(last, low, "left"), np.searchsorted(first, high, "left")


def _met(low: np.ndarray, high: np.ndarray, need: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.maximum(low, need[:, :1]), np.minimum(high, need[:, 1:])


def _rough(graph: Graph, number: int) -> float:
    """About how many multiplications a node takes: a matrix product by its sizes, anything else one for each number."""
    node = graph.nodes[number]
    shapes = [graph.nodes[each].value.shape for each in node.inputs] + [each.shape for each in node.args if hasattr(each, "shape")]
    name = getattr(getattr(node.call, "overloadpacket", None), "__name__", "")
    if name == "convolution":
        return float(node.value.numel() * node.args[1][0].numel())
    if name in ("addmm", "mm", "bmm", "matmul", "linear"):
        return float(node.value.numel() * max((shape[-1] for shape in shapes if len(shape)), default=1))
    return float(node.value.numel())
