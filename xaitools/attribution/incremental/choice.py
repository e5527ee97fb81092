"""Whether a sweep is worth its plan, and whether the plan is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...adapters.flops import flops
from .branches import split
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

ALONE = 1.15
"""Predicted gain from which on targets are swept one by one."""

TOLERANCE = (1e-4, 1e-3)
"""Largest difference from a whole pass, absolute and of the largest fall seen."""

HALF = 0.02
"""The same of scores in half precision, of the largest of them: they are rounded to eight bits on either way."""

Score = Callable[[Tensor], Tensor]
"""(N, 3, H, W) -> (K, N)."""

Places = Sequence[tuple[int, int, int, int]]
"""(top, left, bottom, right) of each window."""


@dataclass(frozen=True, eq=False)
class Choice:
    """``engine`` for the windows, or None for whole passes; in ``words`` why; ``seconds`` that the sweep is reckoned to take.

    ``planned`` is whether parts could be reckoned with at all.
    """

    engine: Incremental | None
    words: str
    seconds: float = 0.0
    planned: bool = False


def in_parts(scores: Score, image: Tensor, filling: Filling, places: Places, size: int, *, half: bool = False) -> Choice:
    """How windows at ``places``, in each of which its ``filling`` shows, are best swept in batches of ``size``."""
    whole = flops(lambda: scores(image)) / 2 * len(places)
    dense = whole / RATE
    if whole < SMALL:
        return Choice(None, "whole passes, the model is small", dense)
    try:
        graph, plan = _planned(scores, image, places)
        engine, seconds = Incremental(graph, plan), _seconds(graph, plan, size)
        if dense < WORTH * seconds:
            return Choice(None, f"whole passes, parts would gain {dense / seconds:.2g} times", dense, True)
        wrong = _disagreement(engine, scores, image, filling, places, half)
    except (Untraceable, RuntimeError, ValueError, TypeError) as error:  # what a stranger's network may do under tracing
        return Choice(None, f"whole passes, the model cannot be traced ({str(error).splitlines()[0][:80]})", dense)
    if wrong is not None:
        return Choice(None, f"whole passes, parts disagreed with them by {wrong:.2g} at three windows", dense)
    return Choice(
        engine,
        f"in parts, {plan.ratio:.1f} times fewer operations, {1 - plan.reaches.mean():.0%} of the windows cannot reach the target",
        seconds,
        True,
    )


def apart(singles: Sequence[Score], together: Choice, image: Tensor, places: Places, size: int) -> bool:
    """Whether a sweep for each score alone takes less than ``together``: of targets that are far apart, few windows reach both."""
    limit, tracing = together.seconds / ALONE, 2 * flops(lambda: singles[0](image)) / RATE
    if not together.planned or limit < 2 * len(singles) * tracing:
        return False
    for single in singles:
        limit -= _seconds(*_planned(single, image, places), size) + tracing
        if limit < 0:
            return False
    return True


def _planned(scores: Score, image: Tensor, places: Places) -> tuple[Graph, Plan]:
    graph = record(lambda x: scores(x)[:, 0], image)
    plan = make_plan(graph, places)
    if (other := split(graph, plan)) is not None and (better := make_plan(other, places)).cost.sum() < plan.cost.sum():
        return other, better
    return graph, plan


def _seconds(graph: Graph, plan: Plan, size: int) -> float:
    """Predicted time of a sweep in parts, tracing included."""
    steps = len(plan.operations) + len(plan.tail)
    tracing = 4e-3 * len(graph.nodes) + 3 * plan.dense / RATE
    counts = [len(each) for each in batches(plan, size)]
    return float(tracing + plan.cost.sum() / RATE + steps * sum(START + ROW * count for count in counts))


def _disagreement(engine: Incremental, scores: Score, image: Tensor, filling: Filling, places: Places, half: bool) -> float | None:
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
    far, most = float((dense - mine).abs().max()), float(dense.abs().max())
    fall = float((engine.clean[:, None] - dense).abs().max())
    near = HALF * max(1.0, most) if half else min(TOLERANCE[0] * max(1.0, most), max(TOLERANCE[1] * fall, 1e-6 * most))
    return None if bool(torch.isfinite(mine).all()) and far <= near else far
