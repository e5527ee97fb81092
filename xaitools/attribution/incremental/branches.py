"""A convolution of joined maps as the sum of one for each: where little of one map changes, little of its share is computed again.

In a U-Net a window changes the small neighbourhood of itself in a map that skips the depths, and nearly all of the one it is
joined with.  As one convolution both would have to be computed where either changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .graph import Graph, Node, Ref, replaced
from .plan import Plan
from .pointwise import affine, normalises
from .sliding import scaled

aten = torch.ops.aten

SAVES = 0.8
"""Share of a convolution's work that must be left for it to be split."""


def split(graph: Graph, plan: Plan) -> Graph | None:
    """``graph`` with the convolutions split for which that saves work under ``plan``; None if there are none."""
    chosen = {node.number for node in graph.nodes if _saves(node, graph, plan)}
    if not chosen:
        return None
    users = {number: {node.number for node in graph.nodes if number in node.inputs} for number in range(len(graph.nodes))}
    nodes, places = [graph.nodes[0]], {0: 0}

    def add(call: Callable[..., Any], args: tuple[Any, ...], inputs: tuple[int, ...]) -> int:
        node = Node(len(nodes), call, args, {}, inputs, nodes[0].value)
        node.value = node(lambda number: nodes[number].value)
        nodes.append(node)
        return node.number

    for node in graph.nodes[1:]:
        number = node.number
        if number in places:
            continue
        if number in chosen:
            x, weight, bias, *rest = node.args
            after = [graph.nodes[each] for each in users[number]]
            norm = after[0] if len(after) == 1 and number != graph.result and normalises(after[0]) else None
            if norm is not None:
                weight, bias = scaled(weight, bias, *affine(norm))
            total = None
            for part, share in _parts(graph.nodes[x.number], graph, weight):
                place = places[part.number]
                made = add(node.call, (Ref(place), share, bias if total is None else None, *rest), (place,))
                total = made if total is None else add(aten.add.Tensor, (Ref(total), Ref(made)), (total, made))
            assert total is not None
            places[number if norm is None else norm.number] = total
        elif number == graph.result or not users[number] or not users[number] <= chosen:
            args, options = replaced((node.args, node.kwargs), lambda each: Ref(places[each]))
            places[number] = len(nodes)
            inputs = tuple(places[each] for each in node.inputs)
            nodes.append(replace(node, number=len(nodes), args=args, kwargs=options, inputs=inputs))
    return Graph(nodes, places[graph.result])


def _parts(joined: Node, graph: Graph, weight: Tensor) -> list[tuple[Ref, Tensor]]:
    """The maps that were joined, each with its share of the kernel."""
    widths = [graph.nodes[each.number].value.shape[1] for each in joined.args[0]]
    return list(zip(joined.args[0], (each.contiguous() for each in weight.split(widths, 1)), strict=True))


def _saves(node: Node, graph: Graph, plan: Plan) -> bool:
    if node.call is not aten.convolution.default or not isinstance(node.args[0], Ref) or node.args[6] or node.args[8] != 1:
        return False
    joined = graph.nodes[node.args[0].number]
    if joined.call is not aten.cat.default or joined.args[1:] not in ((1,), (-3,)) or joined.number not in plan.operations:
        return False
    if joined.value.dim() != 4 or not all(isinstance(each, Ref) for each in joined.args[0]) or not isinstance(node.args[1], Tensor):
        return False
    areas = (plan.high - plan.low).prod(1)[:, plan.reaches].sum(1)
    own = sum(float(graph.nodes[each.number].value.shape[1] * areas[each.number]) for each in joined.args[0])
    return own < SAVES * float(joined.value.shape[1] * areas[joined.number])
