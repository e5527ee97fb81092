"""Attacks on segmentation, which must flip every pixel: SegPGD, CosPGD, and an ensemble in the manner of SEA.

Like PGD they keep the image on which the largest share of the labelled pixels is wrong and record the mean cross-entropy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...adapters import Model
from ...types import IGNORE, Sample
from ..base import probe
from ..objects import Context
from .ascent import Ascent, Ball, check_counts, stacked
from .objectives import Dense, dense

NEEDS = ("gradients", "pixels")

PHASES = ((2.0, 0.3), (1.5, 0.3), (1.0, 0.4))
"""SEA's schedule: factor of the radius, share of the iterations (Croce et al. 2024, section 3.3)."""

MOMENTUM = 0.75
"""Of a step of APGD; the rest is the step before (Croce and Hein 2020, section 3)."""

Generators = Sequence[np.random.Generator]


def _segpgd(logits: Tensor, truth: Tensor, entropy: Tensor, right: Tensor, done: float) -> Tensor:
    share = done / 2
    return entropy * torch.where(right, 1 - share, share)


def _cospgd(logits: Tensor, truth: Tensor, entropy: Tensor, right: Tensor, done: float) -> Tensor:
    chances = logits.detach().softmax(1)
    return entropy * chances.gather(1, truth[:, None])[:, 0] / chances.norm(dim=1)


def _divergence(logits: Tensor, truth: Tensor, entropy: Tensor, right: Tensor, done: float) -> Tensor:
    """Jensen-Shannon divergence of the probabilities and the truth; of the probability p of the true class alone."""
    p = (-entropy).exp()
    mean = (1 + p) / 2
    return ((1 - p) * np.log(2) + torch.where(p > 0, p * (p.clamp(min=1e-30) / mean).log(), 0.0) - mean.log()) / 2


def _masked(logits: Tensor, truth: Tensor, entropy: Tensor, right: Tensor, done: float) -> Tensor:
    return entropy * right


def _balanced(logits: Tensor, truth: Tensor, entropy: Tensor, right: Tensor, done: float) -> Tensor:
    counts = torch.stack([torch.bincount(each.flatten(), minlength=logits.shape[1]) for each in truth]).to(entropy)
    return entropy * right / counts.gather(1, truth.flatten(1)).view_as(entropy).clamp(min=1) * truth[0].numel()


ENSEMBLE = (_divergence, _masked, _balanced)


@probe("segpgd", family="adversarial", needs=NEEDS, batched=True, subset=64, control="random_direction")
def segpgd(
    samples: Sequence[Sample], severity: int, generators: Generators, context: Context, *, eps: float | None = None, steps: int = 10,
    restarts: int = 1,
) -> list[Sample]:  # fmt: skip
    """PGD on a cross-entropy in which pixels that are wrong already count little at first and as much as the others at last
    (SegPGD, Gu et al. 2022, equations 3 to 5).

    Step t of T weighs right pixels by 1 - lambda and wrong ones by lambda = (t - 1) / (2 T).  Parameters as of pgd.
    """
    return _climbed("segpgd", _segpgd, samples, generators, context, Ball.of(eps, severity), steps, restarts)


@probe("cospgd", family="adversarial", needs=NEEDS, batched=True, subset=64, control="random_direction")
def cospgd(
    samples: Sequence[Sample], severity: int, generators: Generators, context: Context, *, eps: float | None = None, steps: int = 10,
    restarts: int = 1,
) -> list[Sample]:  # fmt: skip
    """PGD on a cross-entropy weighted by the cosine between the probabilities of a pixel and its true class (CosPGD, Agnihotri et
    al. 2024).

    The weight is held constant in the gradient.  Parameters as of pgd.
    """
    return _climbed("cospgd", _cospgd, samples, generators, context, Ball.of(eps, severity), steps, restarts)


def _climbed(
    name: str, weigh: Dense, samples: Sequence[Sample], generators: Generators, context: Context, ball: Ball, steps: int, restarts: int
) -> list[Sample]:
    model = check_counts(name, context.model, steps=steps, restarts=restarts)
    truths = [context.truth(sample) for sample in samples]
    ascent = Ascent(model, stacked(samples), dense(model, truths, weigh))
    for _ in range(restarts):
        ascent.climb(ball.anywhere(ascent.clean, generators), ball, steps)
    return ascent.samples(samples)


@probe("ensemble", family="adversarial", needs=NEEDS, batched=True, subset=64, control="random_direction")
def ensemble(
    samples: Sequence[Sample], severity: int, generators: Generators, context: Context, *, eps: float | None = None, steps: int = 10
) -> list[Sample]:
    """The worst of three attacks in the manner of SEA (Croce et al. 2024): Jensen-Shannon divergence, cross-entropy of the right
    pixels, and the same with each class counting alike, climbed by APGD while the radius shrinks from 2 eps over 1.5 eps to eps.

    steps  iterations of each of the three, 3 to 3 to 4; the paper has 300, so that fewer are optimistic

    Where we differ: of each image the attack is kept that leaves it the lowest mean IoU of its own, for a probe changes images
    one by one; the paper chooses so that the metric of the whole set is lowest.  A class weighs by its pixels in the image,
    not in the training data.
    """
    model = check_counts("ensemble", context.model, steps=steps)
    ball, clean, truths = Ball.of(eps, severity), stacked(samples), [context.truth(sample) for sample in samples]
    runs = []
    for weigh in ENSEMBLE:
        ascent = Ascent(model, clean, dense(model, truths, weigh))
        _auto(ascent, ball.times(PHASES[0][0]).anywhere(clean, generators), ball, steps)
        runs.append((ascent, _own_miou(model, truths, ascent.images)))
    first = runs[0][0]
    least = runs[0][1].clone()
    for ascent, values in runs[1:]:
        better = values < least
        first.images[better], first.loss[better], least[better] = ascent.images[better], ascent.loss[better], values[better]
    return first.samples(samples)


def _auto(ascent: Ascent, start: Tensor, ball: Ball, steps: int) -> None:
    """APGD (Croce and Hein 2020, algorithm 1) once in each of SEA's phases, from the best image of the one before.

    Only images within ``ball`` itself are kept.
    """
    ends = [round(steps * sum(share for _, share in PHASES[: number + 1])) for number in range(len(PHASES))]
    attacked = start
    for (factor, _), first, end in zip(PHASES, [0, *ends], ends, strict=False):
        final = factor == 1
        attacked = _phase(ascent, attacked, ball.times(factor), max(end - first, int(final)), final)


def _phase(ascent: Ascent, start: Tensor, ball: Ball, steps: int, final: bool) -> Tensor:
    """The image with the highest objective after ``steps`` of APGD.

    A step begins with twice the radius; at each checkpoint it is halved for the images whose objective rose in less than 3/4
    of the steps since the last, or whose best has not changed since, and these go on from their best.
    """
    here = before = best = ball.inside(start, ascent.clean)
    stride = torch.full((len(here), 1, 1, 1), 2 * ball.radius).to(here)
    highest = last = torch.full((len(here),), -torch.inf)
    checks, rises, held, mark = _checkpoints(steps), torch.zeros(len(here)), highest.clone(), 0
    uphill = best
    for step in range(steps + 1):
        value, gradient = ascent.gradient(here, 0.0)
        if final:
            ascent.keep(here, value)
        better = value.climbed > highest
        best, uphill = torch.where(_wide(better), here, best), torch.where(_wide(better), gradient, uphill)
        rises += value.climbed > last
        highest, last = torch.maximum(highest, value.climbed), value.climbed
        ascent.path.append(value.loss)
        if step in checks:
            stuck = (rises < 0.75 * (step - mark)) | (highest <= held)
            stride = torch.where(_wide(stuck), stride / 2, stride)
            here, gradient = torch.where(_wide(stuck), best, here), torch.where(_wide(stuck), uphill, gradient)
            before = torch.where(_wide(stuck), best, before)
            rises, held, mark = torch.zeros_like(rises), highest.clone(), step
        ahead = ball.inside(here + stride * ball.uphill(gradient), ascent.clean)
        moved = here + MOMENTUM * (ahead - here) + (1 - MOMENTUM) * (here - before) if step else ahead
        here, before = ball.inside(moved, ascent.clean), here
    return best


def _wide(flags: Tensor) -> Tensor:
    return flags.view(-1, 1, 1, 1)


def _checkpoints(steps: int) -> set[int]:
    """After which steps APGD looks back (section 3.1).

    >>> sorted(_checkpoints(20))
    [5, 9, 12, 14, 16, 18, 19]
    """
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    found = {int(np.ceil(round(share * steps, 9))) for share in shares[1:]}
    return {step for step in found if step < steps}


def _own_miou(model: Model, truths: Sequence[Sample], images: Tensor) -> Tensor:
    """(N,): of each image alone the mean IoU over the classes that are there or are said."""
    found = []
    for sample, prediction in zip(truths, model.predict(images), strict=True):
        truth, guess = sample.semantic, prediction.semantic
        assert truth is not None and guess is not None
        labelled = truth != IGNORE
        pairs = truth[labelled] * len(model.classes) + guess[labelled]
        counts = torch.bincount(pairs, minlength=len(model.classes) ** 2).view(len(model.classes), -1).double()
        union = counts.sum(0) + counts.sum(1) - counts.diagonal()
        found.append((counts.diagonal() / union)[union > 0].mean().nan_to_num(0))
    return torch.stack(found)
