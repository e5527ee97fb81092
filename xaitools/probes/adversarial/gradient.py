"""Adversarial: the smallest changes that the model itself says hurt most.  An attack only bounds robustness from above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..adapters import Model, as_found
from ..errors import XaiError
from ..types import Sample
from .base import MEASURED, probe
from .objects import Context

RADII = tuple(radius / 255 for radius in (0.5, 1, 2, 4, 8))
"""L-infinity radius by severity, as a fraction of the range [0, 1]."""


@probe("pgd", family="adversarial", needs=("gradients",), default=True, batched=True, subset=64)
def pgd(
    samples: Sequence[Sample],
    severity: int,
    generators: Sequence[np.random.Generator],
    context: Context,
    *,
    eps: float | None = None,
    steps: int = 10,
    restarts: int = 1,
) -> list[Sample]:
    """Projected gradient ascent on the model's loss in an L-infinity ball (Madry et al. 2018), random start.

    eps       radius as a fraction of [0, 1] (8/255 is 0.0314); None: by severity
    steps     of size 2.5 eps / steps along the sign of the gradient
    restarts  the best of so many starts

    The image with the highest loss seen on the way is kept, for each image alone; the loss before and after is
    recorded.  Truth that the loss cannot use (an image without objects) leaves a random start.
    """
    model = context.model
    if model is None or steps < 1 or restarts < 1:
        raise XaiError(f"pgd: needs a model, steps >= 1 and restarts >= 1; got steps={steps}, restarts={restarts}")
    radius = _radius(eps, severity)
    clean = torch.stack([sample.image for sample in samples])
    truths = [context.truth(sample) for sample in samples]
    best, before = clean.clone(), _loss(model, clean, truths)
    highest = torch.full_like(before, -torch.inf)
    for _ in range(restarts):
        noise = [generator.uniform(-radius, radius, clean.shape[1:]) for generator in generators]
        attacked = (clean + torch.from_numpy(np.stack(noise)).to(clean)).clamp(0, 1)
        for step in range(steps + 1):
            loss, gradient = _climb(model, attacked, truths)
            better = loss > highest
            best[better], highest[better] = attacked[better], loss[better]
            if step < steps:
                moved = attacked + 2.5 * radius / steps * gradient.sign()
                attacked = clean + (moved - clean).clamp(-radius, radius)
                attacked = attacked.clamp(0, 1)
    return [
        replace(sample, image=image, tags={**sample.tags, MEASURED: {"loss_before": float(low), "loss_after": float(high)}})
        for sample, image, low, high in zip(samples, best, before, highest, strict=True)
    ]


@probe("random_direction", family="adversarial", subset=64)
def random_direction(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, eps: float | None = None
) -> Sample:
    """Every channel of every pixel up or down by the same radius, at random: the control of an attack."""
    signs = torch.from_numpy(generator.integers(0, 2, sample.image.shape)).to(sample.image) * 2 - 1
    return replace(sample, image=sample.image + _radius(eps, severity) * signs)


def _radius(eps: float | None, severity: int) -> float:
    if eps is not None and not 0 < eps <= 1:
        raise XaiError(f"eps={eps:g}: expected a fraction of the range, 0 < eps <= 1; 8/255 is 0.0314")
    return RADII[severity - 1] if eps is None else eps


def _loss(model: Model, images: Tensor, truths: Sequence[Sample]) -> Tensor:
    with torch.no_grad(), as_found(model):
        return model.loss(images, truths).detach().float().cpu()  # type: ignore[attr-defined]


def _climb(model: Model, images: Tensor, truths: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Loss (N,) and its gradient (N, 3, H, W); images do not see each other, so one backward pass serves all."""
    with torch.enable_grad(), as_found(model):
        images = images.detach().requires_grad_()
        loss = model.loss(images, truths)  # type: ignore[attr-defined]
        (gradient,) = torch.autograd.grad(loss.sum(), images)
    return loss.detach().float().cpu(), gradient.detach().to(images)
