"""Whether a sweep is worth its plan, and whether the plan is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from .graph import Graph, Untraceable, record
from .plan import Plan, batches, make_plan
from .run import Filling, Incremental

SMALL = 1e11
"""Multiplications of a dense sweep below which tracing takes longer than it saves (about 3 s of one core)."""

RATE, START, ROW = 3e10, 6e-5, 1e-5
"""Multiplications in a second, seconds for an operation on a batch and more for each window in it: what the choice reckons with.

Constants and not measured, so that the same call takes the same way again.
"""

WORTH = 1.15
"""Predicted gain from which on a sweep is made in parts."""

TOLERANCE = (1e-4, 1e-3)
"""Largest difference from a whole pass, absolute and of the largest fall seen."""

Score = Callable[[Tensor], Tensor]
"""(N, 3, H, W) -> (K, N)."""


def in_parts(
    scores: Score, image: Tensor, filling: Filling, places: Sequence[tuple[int, int, int, int]], size: int
) -> tuple[Incremental | None, str]:
    """The engine for windows at ``places`` (top, left, bottom, right) in each of which its ``filling`` shows, or None; and in words why."""
    counter = FlopCounterMode(display=False)
    with counter:
        scores(image)
    whole = counter.get_total_flops() / 2 * len(places)
    if whole < SMALL:
        return None, "whole passes, the model is small"
    try:
        graph = record(lambda x: scores(x)[:, 0], image)
        plan = make_plan(graph, places)
        engine = Incremental(graph, plan)
        gain = _seconds(graph, plan, size, whole)
        if gain < WORTH:
            return None, f"whole passes, parts would gain {gain:.2g} times"
        wrong = _disagreement(engine, scores, image, filling, places)
    except (Untraceable, RuntimeError, ValueError, TypeError) as error:  # what a stranger's network may do under tracing
        return None, f"whole passes, the model cannot be traced ({str(error).splitlines()[0][:80]})"
    if wrong is not None:
        return None, f"whole passes, parts disagreed with them by {wrong:.2g} at three windows"
    return (
        engine,
        f"in parts, {plan.ratio:.1f} times fewer operations, {1 - plan.reaches.mean():.0%} of the windows cannot reach the target",
    )


def _seconds(graph: Graph, plan: Plan, size: int, whole: float) -> float:
    """Predicted time of the dense sweep over that in parts, tracing included."""
    steps = len(plan.operations) + len(plan.tail)
    tracing = 4e-3 * len(graph.nodes) + 3 * plan.dense / RATE
    counts = [len(each) for each in batches(plan, size)]
    ours = plan.cost.sum() / RATE + steps * sum(START + ROW * count for count in counts)
    return float(whole / RATE / (tracing + ours))


def _disagreement(
    engine: Incremental, scores: Score, image: Tensor, filling: Filling, places: Sequence[tuple[int, int, int, int]]
) -> float | None:
    """How far the costliest, the cheapest and a middle window are from whole passes, if too far."""
    reached = np.where(engine.plan.reaches)[0]
    if not len(reached):
        return None
    order = reached[np.argsort(engine.plan.cost[reached], kind="stable")]
    chosen = np.unique(order[[0, len(order) // 2, -1]])
    batch = image.repeat(len(chosen), 1, 1, 1)
    for row, index in enumerate(chosen.tolist()):
        top, left, bottom, right = places[index]
        batch[row, :, top:bottom, left:right] = filling(index)[0, :, top:bottom, left:right]
    dense, mine = scores(batch), engine.scores(chosen, filling)
    far = float((dense - mine).abs().max())
    fall = float((engine.clean[:, None] - dense).abs().max())
    close = bool(torch.isfinite(mine).all()) and far <= min(
        TOLERANCE[0] * max(1.0, float(dense.abs().max())), max(TOLERANCE[1] * fall, 1e-6 * float(dense.abs().max()))
    )
    return None if close else far
