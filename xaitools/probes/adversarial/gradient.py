"""FGSM and PGD, which follow the gradient of any objective, and random directions of the same size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ...types import Sample
from ..base import probe
from ..objects import Context
from .ascent import Ascent, Ball, check_counts, stacked
from .objectives import objective_of

Generators = Sequence[np.random.Generator]


@probe("fgsm", family="adversarial", needs=("gradients",), batched=True, subset=64, control="random_direction")
def fgsm(
    samples: Sequence[Sample], severity: int, generators: Generators, context: Context, *, eps: float | None = None, objective: str = "loss"
) -> list[Sample]:
    """The fast gradient sign method (Goodfellow et al. 2015): every value moves by the radius along the sign of the gradient, once.

    Parameters as of pgd.  The image after the step is kept whatever came of it.
    """
    model = check_counts("fgsm", context.model)
    ball, truths = Ball.of(eps, severity), [context.truth(sample) for sample in samples]
    ascent = Ascent(model, stacked(samples), objective_of(objective, context, truths))
    value, gradient = ascent.gradient(ascent.clean, 0.0)
    moved = ball.inside(ascent.clean + ball.radius * ball.uphill(gradient), ascent.clean)
    after = ascent.value(moved)
    ascent.keep(moved, after)
    ascent.path = [value.loss, after.loss]
    return ascent.samples(samples, _empty(context, truths))


@probe("pgd", family="adversarial", needs=("gradients",), default=True, batched=True, subset=64, control="random_direction")
def pgd(
    samples: Sequence[Sample], severity: int, generators: Generators, context: Context, *, eps: float | None = None, steps: int = 10,
    restarts: int = 1, objective: str = "loss",
) -> list[Sample]:  # fmt: skip
    """Projected gradient ascent on the model's loss in an L-infinity ball (Madry et al. 2018), random start.

    eps        radius as a fraction of [0, 1] (8/255 is 0.0314); None: by severity
    steps      of size 2.5 eps / steps along the sign of the gradient
    restarts   the best of so many starts
    objective  loss: the model's own, of a detector that objects are missed or renamed; of a segmenter how probable it is that
               a pixel is wrong (``mistaken``), for the cross-entropy is led by pixels that are wrong already.  own: the model's
               own of a segmenter too.  Of a detector also class: the names of the boxes; box: their places; vanish: that
               nothing is found; fabricate: boxes where no object is

    Of the images seen on the way the one with the highest loss is kept, of a segmenter the one with most wrong pixels, for each
    image alone; the losses are recorded, of a segmenter the cross-entropy.  Truth that the loss cannot use (an image without
    objects) leaves a random start.
    """
    return _pgd("pgd", samples, generators, context, Ball.of(eps, severity), steps, restarts, objective)


@probe("pgd_l2", family="adversarial", needs=("gradients",), batched=True, subset=64, control="random_l2")
def pgd_l2(
    samples: Sequence[Sample], severity: int, generators: Generators, context: Context, *, eps: float | None = None, steps: int = 10,
    restarts: int = 1, objective: str = "loss",
) -> list[Sample]:  # fmt: skip
    """Projected gradient ascent in a Euclidean ball (Madry et al. 2018): some pixels may change much, others not at all.

    eps is the root mean square of the change over all values: the L2 norm is eps * sqrt(3 H W), and the usual 3.0 on images of
    224 x 224 is eps = 2/255.  A ball of pgd of equal eps lies inside.  Other parameters as of pgd.
    """
    return _pgd("pgd_l2", samples, generators, context, Ball.of(eps, severity, euclidean=True), steps, restarts, objective)


def _pgd(
    name: str, samples: Sequence[Sample], generators: Generators, context: Context, ball: Ball, steps: int, restarts: int, objective: str
) -> list[Sample]:
    model = check_counts(name, context.model, steps=steps, restarts=restarts)
    truths = [context.truth(sample) for sample in samples]
    ascent = Ascent(model, stacked(samples), objective_of(objective, context, truths))
    for _ in range(restarts):
        ascent.climb(ball.anywhere(ascent.clean, generators), ball, steps)
    return ascent.samples(samples, _empty(context, truths))


def _empty(context: Context, truths: Sequence[Sample]) -> list[bool]:
    """Whose truth holds no object for a detector."""
    detects = context.model is not None and context.model.task in ("detection", "instances")
    return [detects and (truth.boxes is None or not len(truth.boxes)) for truth in truths]


@probe("random_direction", family="adversarial", subset=64)
def random_direction(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, eps: float | None = None
) -> Sample:
    """Every channel of every pixel up or down by the same radius, at random: the control of an attack."""
    signs = torch.from_numpy(generator.integers(0, 2, sample.image.shape)).to(sample.image) * 2 - 1
    return replace(sample, image=sample.image + Ball.of(eps, severity).radius * signs)


@probe("random_l2", family="control", subset=64)
def random_l2(sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, eps: float | None = None) -> Sample:
    """Gaussian noise of the same L2 norm, in a random direction: the control of an attack in a Euclidean ball."""
    return replace(sample, image=Ball.of(eps, severity, euclidean=True).anywhere(sample.image[None], [generator])[0])
