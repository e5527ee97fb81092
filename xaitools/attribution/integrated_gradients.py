"""Integrated gradients (Sundararajan, Taly and Yan 2017) with the error of the integration in the ledger, by captum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..adapters import Adapter
from ..errors import MethodError
from ..registry import About
from ..types import Decision
from .base import Detail, Maps, differentiable, method
from .gradients import batch_for, scores_of
from .sweep import filled

TOLERANCE = 0.01
"""Share of the score's change along the path that the integration may miss before it takes more steps."""

DOUBLINGS = 3


@method(
    "integrated-gradients",
    about=About(
        means=(
            "How do the pixels share the difference between this image and a baseline that shows nothing? The gradient is summed "
            "along the straight way from the baseline to the image. The map is signed and adds up to that difference, but for an "
            "error that the ledger states."
        ),
        paper="Sundararajan, Taly and Yan 2017, Axiomatic Attribution for Deep Networks",
        doubt=(
            "What looks like the baseline gets nothing, so that black things vanish with the black one; try another baseline before "
            "believing a gap."
        ),
    ),
)
def integrated_gradients(
    model: Adapter,
    image: Tensor,
    decisions: Sequence[Decision],
    generator: torch.Generator,
    *,
    steps: int = 32,
    baseline: str = "black",
    batch_size: int = 0,
) -> Maps:
    """The gradient integrated on the straight way from a baseline x0 to the image x, times x - x0; signed.

    sum over channels of (x - x0) * integral over a in [0, 1] of dS(x0 + a (x - x0))/dx (equation 1 of the paper).  Complete:
    the map sums up to S(x) - S(x0), but for the error of the integral by ``steps`` points.  The ledger has both,
    score = sum of the map + "baseline", S(x0), + "integration error".

    steps       points of Gauss-Legendre quadrature; doubled up to three times while the error is above 1 % of |S(x) - S(x0)|
    baseline    black, mean (of the image, per channel), blur, noise (uniform, from the seed), or a number in [0, 1]
    batch_size  images at once; 0 chooses by their size

    What looks like the baseline gets nothing: black things, with the black one.  The way leads through images that the
    model has never seen.
    """
    if steps < 1:
        raise MethodError(f"integrated-gradients.steps={steps}; expected a positive number")
    from captum.attr import IntegratedGradients

    start = filled(image, "0" if baseline == "black" else baseline, max(image.shape[-2:]) // 4, generator, "integrated-gradients.baseline")
    size = batch_for(image, batch_size, steps)
    maps, scores, ledgers, details = [], [], [], []
    with differentiable(model.normalise(image)) as x:
        x0 = model.normalise(start)
        for decision in decisions:
            score = scores_of(model, decision)
            with torch.no_grad():
                here, there = float(score(x)), float(score(x0))
            for points in [steps * 2**k for k in range(DOUBLINGS + 1)]:
                parts = IntegratedGradients(score).attribute(x, x0, n_steps=points, internal_batch_size=size)
                values = parts.detach().sum((0, 1))
                missed = here - there - float(values.double().sum())
                if abs(missed) <= TOLERANCE * abs(here - there):
                    notes: tuple[str, ...] = ()
                    break
                notes = (f"{points} steps miss {missed:.2g} of {here - there:.3g}",)
            maps.append(values)
            scores.append(here)
            ledgers.append((("baseline", there), ("integration error", missed)))
            details.append(Detail({"steps": points}, notes))
    return Maps(torch.stack(maps), torch.tensor(scores, dtype=torch.float64), ledgers, {"batch_size": size}, details=details)
