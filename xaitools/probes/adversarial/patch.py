"""One patch for all images, pasted beside the objects (Brown et al. 2017; on detectors Liu et al. 2019, Thys et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...adapters import as_found
from ...errors import DataError, XaiError
from ...types import IGNORE, Sample
from ..base import MEASURED, probe
from ..objects import Context
from .ascent import STEP, check_counts
from .objectives import objective_of

SIDES = (0.1, 0.15, 0.2, 0.25, 0.3)
"""Side of the square by severity, as a share of the image's short side."""

BATCH, MOMENTUM = 4, 0.9
"""Images of one step of training; what stays of the gradient of the steps before (Dong et al. 2018)."""

COVERED = 0.5
"""An object of whose area the patch hides more than this counts neither as found nor as missed."""

NEEDS = ("gradients", "training")

Window = tuple[int, int, int]
"""Top, left, side in pixels."""


@probe("patch", family="adversarial", needs=NEEDS, batched=True, subset=64, reference="scored_patch", control="shuffled_patch")
def patch(
    samples: Sequence[Sample], severity: int, generators: Sequence[np.random.Generator], context: Context, *, side: float | None = None,
    steps: int = 100, train: int = 16, objective: str = "loss",
) -> list[Sample]:  # fmt: skip
    """A square pasted where it covers no object, or least, the same on all images: how much does its pattern alone cost elsewhere?

    side       share of the image's short side; None: by severity
    steps      of training, each on the next four of ``train`` images, which are not scored: those whose names hash lowest, at
               most half of the dataset
    objective  as of pgd

    The truth stays and is not scored under the square.  Nothing in the training is random, so that the patch follows from
    dataset, model and parameters alone.
    """
    learnt, (before, after) = trained(context, severity, side, steps, train, objective)
    told = {MEASURED: {"loss_before": before, "loss_after": after}}
    return [replace(each, tags={**each.tags, **told}) for each in (_pasted(context, sample, severity, side, learnt) for sample in samples)]


@probe("shuffled_patch", family="control", needs=NEEDS, subset=64, reference="scored_patch")
def shuffled_patch(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, side: float | None = None, steps: int = 100,
    train: int = 16, objective: str = "loss",
) -> Sample:  # fmt: skip
    """The trained patch at the same place with its pixels in random order: what a square of these colours costs anyway."""
    learnt, _ = trained(context, severity, side, steps, train, objective)
    order = torch.from_numpy(generator.permutation(learnt[0].numel()))
    return _pasted(context, sample, severity, side, learnt.flatten(1)[:, order].view_as(learnt))


@probe("scored_patch", family="control", needs=("training",), subset=64)
def scored_patch(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, side: float | None = None, train: int = 16
) -> Sample:
    """The unchanged image, not scored where the patch would lie: what the patch is compared with."""
    return _scored(context, sample, place(context, sample, _side(side, severity)))


def trained(
    context: Context, severity: int, side: float | None, steps: int, train: int, objective: str
) -> tuple[Tensor, tuple[float, float]]:
    """The patch (3, P, P), and the mean loss of the training images with grey in its place and with it; made once and kept."""
    model = check_counts("patch", context.model, steps=steps, train=train)
    key = ("patch", _side(side, severity), steps, train, objective)
    if key not in context.kept:
        samples = [sample for sample in map(context.readable, context.held_out(train)) if sample is not None]
        if not samples:
            raise DataError("no image is left to train a patch on")
        windows = [place(context, sample, _side(side, severity)) for sample in samples]
        scored = [_scored(context, sample, window) for sample, window in zip(samples, windows, strict=True)]
        truths = [context.truth(sample) for sample in scored]
        goals = [objective_of(objective, context, [truth]) for truth in truths]

        def loss(row: int, square: Tensor) -> Tensor:
            return goals[row](_paste(samples[row].image, square, windows[row])[None], 0.0).climbed[0]

        square = torch.full((3, windows[0][2], windows[0][2]), 0.5)
        start, speed = square.clone(), torch.zeros_like(square)
        with as_found(model):
            for step in range(steps):
                square = square.detach().requires_grad_()
                rows = [(step * BATCH + each) % len(samples) for each in range(min(BATCH, len(samples)))]
                with torch.enable_grad():
                    (gradient,) = torch.autograd.grad(torch.stack([loss(row, square) for row in rows]).sum(), square)
                gradient = gradient.nan_to_num(0, 0, 0)
                speed = MOMENTUM * speed + gradient / gradient.abs().mean().clamp(min=1e-30)
                square = (square.detach() + STEP / 2 / steps * speed.sign()).clamp(0, 1)
            with torch.no_grad():
                losses = [float(np.mean([float(loss(row, each)) for row in range(len(samples))])) for each in (start, square)]
        context.kept[key] = square.detach(), (losses[0], losses[1])
    return context.kept[key]  # type: ignore[return-value]


def place(context: Context, sample: Sample, share: float) -> Window:
    """Where a square of that share of the short side covers least of the objects; of equal places the one nearest the middle.

    In the corner where nobody says where the objects are.
    """
    height, width = sample.image.shape[-2:]
    side = max(2, round(share * min(height, width)))
    if sample.boxes is None and sample.semantic is None and sample.masks is None:
        return 0, 0, side
    objects = context.objects(sample)
    covered = objects.any(0) if len(objects) else torch.zeros((height, width), dtype=torch.bool)
    step = max(1, side // 4)
    hidden = F.avg_pool2d(covered[None, None].double(), side, step)[0, 0]
    rows, columns = (torch.arange(count) * step + side / 2 for count in hidden.shape)
    off = (rows - height / 2).square()[:, None] + (columns - width / 2).square()
    best = int((hidden * (height**2 + width**2) * side**2 + off).argmin())
    return best // hidden.shape[1] * step, best % hidden.shape[1] * step, side


def _side(side: float | None, severity: int) -> float:
    if side is not None and not 0 < side <= 0.9:
        raise XaiError(f"patch.side={side:g}: expected a share of the image's short side, 0 < side <= 0.9")
    return SIDES[severity - 1] if side is None else side


def _paste(image: Tensor, square: Tensor, window: Window) -> Tensor:
    top, left, side = window
    if square.shape[-1] != side:
        square = F.interpolate(square[None], (side, side), mode="bilinear")[0]
    image = image.clone()
    image[:, top : top + side, left : left + side] = square.to(image)
    return image


def _pasted(context: Context, sample: Sample, severity: int, side: float | None, square: Tensor) -> Sample:
    window = place(context, sample, _side(side, severity))
    return replace(_scored(context, sample, window), image=_paste(sample.image, square, window))


def _scored(context: Context, sample: Sample, window: Window) -> Sample:
    top, left, side = window
    under = torch.zeros(sample.image.shape[-2:], dtype=torch.bool)
    under[top : top + side, left : left + side] = True
    if sample.semantic is not None:
        sample = replace(sample, semantic=torch.where(under, IGNORE, sample.semantic))
    if sample.boxes is not None and len(sample.boxes):
        masks = context.pieces(sample).masks.flatten(1)
        gone = (masks & under.flatten()).sum(1) > COVERED * masks.sum(1)
        sample = replace(sample, ignore=gone if sample.ignore is None else sample.ignore | gone)
    return sample
