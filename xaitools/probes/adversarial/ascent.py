"""How attacks climb: a ball around the image, steps along the gradient, the best image seen on the way, and an honest record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...adapters import Model, as_found
from ...errors import XaiError
from ...types import Sample
from ..base import MEASURED

RADII = tuple(radius / 255 for radius in (0.5, 1, 2, 4, 8))
"""Radius by severity, as a fraction of the range [0, 1]; of a Euclidean ball see ``Ball``."""

STEP = 2.5
"""The steps together are so many radii long (Madry et al. 2018)."""


class Value(NamedTuple):
    """What an objective says of N images, (N,) each.

    climbed  what the gradient is taken of
    loss     what is recorded
    harm     by what the best image is chosen
    """

    climbed: Tensor
    loss: Tensor
    harm: Tensor


Objective = Callable[[Tensor, float], Value]
"""(images (N, 3, H, W), share of the steps that are done, in [0, 1)) -> Value; images do not see each other."""


@dataclass(frozen=True)
class Ball:
    """All images within ``radius`` of an image and within [0, 1].

    L-infinity: no value changes by more than ``radius``.  Euclidean: the root of the mean square of all changes is at most
    ``radius``, so that one number means alike in images of all sizes; the L2 norm is radius * sqrt(3 H W), and the usual 3.0 on
    224 x 224 is 2/255.
    """

    radius: float
    euclidean: bool = False

    @classmethod
    def of(cls, eps: float | None, severity: int, euclidean: bool = False) -> Ball:
        if eps is not None and not 0 < eps <= 1:
            raise XaiError(f"eps={eps:g}: expected a fraction of the range, 0 < eps <= 1; 8/255 is 0.0314")
        return cls(RADII[severity - 1] if eps is None else eps, euclidean)

    def times(self, factor: float) -> Ball:
        return replace(self, radius=self.radius * factor)

    def inside(self, moved: Tensor, clean: Tensor) -> Tensor:
        """The nearest images in the ball, and then in [0, 1]."""
        offset = moved - clean
        if self.euclidean:
            offset = offset * (self.radius / size(offset).clamp(min=1e-12)).clamp(max=1)
        else:
            offset = offset.clamp(-self.radius, self.radius)
        return (clean + offset).clamp(0, 1)

    def uphill(self, gradient: Tensor) -> Tensor:
        """The change of size 1 that raises most what has this gradient."""
        return gradient / size(gradient).clamp(min=1e-30) if self.euclidean else gradient.sign()

    def anywhere(self, clean: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
        """Random images of the ball, each by its own generator."""
        draws = [each.standard_normal(clean.shape[1:]) if self.euclidean else each.uniform(-1, 1, clean.shape[1:]) for each in generators]
        noise = torch.from_numpy(np.stack(draws)).to(clean)
        return (clean + self.radius * (noise / size(noise) if self.euclidean else noise)).clamp(0, 1)


def size(change: Tensor) -> Tensor:
    """Root mean square (N, 1, 1, 1) of each image's change."""
    return change.square().mean((1, 2, 3), keepdim=True).sqrt()


class Ascent:
    """The best images that were seen, and how the first climb went.

    images  (N, 3, H, W); ``harm`` (N,) of each
    before  (N,) loss of the clean images; ``loss`` of ``images``
    path    the loss (N,) at the start of the first climb and after each of its steps
    blind   (N,) whether the gradient at the first start was 0 everywhere or not finite somewhere; None before it was asked
    """

    def __init__(self, model: Model, clean: Tensor, objective: Objective) -> None:
        self.model, self.clean, self.objective = model, clean, objective
        self.images, self.harm = clean.clone(), torch.full((len(clean),), -torch.inf)
        self.before = self.value(clean).loss
        self.loss, self.path = self.before.clone(), list[Tensor]()
        self.blind: Tensor | None = None

    def value(self, images: Tensor, done: float = 0.0) -> Value:
        with torch.no_grad(), as_found(self.model):
            return Value(*(each.detach().float().cpu() for each in self.objective(images, done)))

    def gradient(self, images: Tensor, done: float) -> tuple[Value, Tensor]:
        """One backward pass serves all images, for they do not see each other.  Values that are not finite count as 0."""
        with torch.enable_grad(), as_found(self.model):
            images = images.detach().requires_grad_()
            value = self.objective(images, done)
            (gradient,) = torch.autograd.grad(value.climbed.sum(), images)
        gradient = gradient.detach().to(images)
        if self.blind is None:
            flat = gradient.flatten(1)
            self.blind = ((flat == 0).all(1) | ~flat.isfinite().all(1)).cpu()
        return Value(*(each.detach().float().cpu() for each in value)), gradient.nan_to_num(0, 0, 0)

    def keep(self, images: Tensor, value: Value) -> None:
        """Takes each image that does more harm than the best so far, or as much with a higher loss."""
        better = (value.harm > self.harm) | ((value.harm == self.harm) & (value.loss > self.loss))
        self.images[better], self.harm[better], self.loss[better] = images[better], value.harm[better], value.loss[better]

    def climb(self, start: Tensor, ball: Ball, steps: int) -> None:
        """``steps`` of size ``STEP`` / steps radii; the best image on the way is kept, the start included."""
        attacked, path = start, []
        for step in range(steps):
            value, gradient = self.gradient(attacked, step / steps)
            self.keep(attacked, value)
            path.append(value.loss)
            attacked = ball.inside(attacked + STEP / steps * ball.radius * ball.uphill(gradient), self.clean)
        value = self.value(attacked, 1 - 1 / steps)
        self.keep(attacked, value)
        self.path = self.path or [*path, value.loss]

    def samples(self, samples: Sequence[Sample], empty: Sequence[bool] | None = None) -> list[Sample]:
        """The samples with their best images; the records get loss_before, loss_after, loss_step_K and without_gradient (0 or 1).

        ``empty`` are those whose truth gives nothing to attack: their gradient tells nothing.
        """
        found = []
        for row, sample in enumerate(samples):
            told = {"loss_before": self.before[row], "loss_after": self.loss[row]}
            told |= {f"loss_step_{step}": loss[row] for step, loss in enumerate(self.path)}
            if self.blind is not None and not (empty and empty[row]):
                told["without_gradient"] = self.blind[row]
            numbers = {name: float(number) for name, number in told.items()}
            found.append(replace(sample, image=self.images[row], tags={**sample.tags, MEASURED: numbers}))
        return found


def stacked(samples: Sequence[Sample]) -> Tensor:
    return torch.stack([sample.image for sample in samples])


def check_counts(name: str, model: Model | None, **counts: int) -> Model:
    """``model``, or one line that says which count is too small."""
    if model is None or min(counts.values(), default=1) < 1:
        raise XaiError(f"{name}: needs a model and {', '.join(f'{each} >= 1' for each in counts)}; got {counts}")
    return model
