"""Class-model images (Simonyan, Vedaldi and Zisserman 2013, section 2): what a network takes for a class, drawn by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..adapters import Adapter
from ..errors import MethodError
from ..registry import About
from ..types import Decision
from .base import Detail, Maps, Progress, method
from .gradients import scores_of

GREY = 0.5


@method(
    "class-model",
    about=About(
        means=(
            "What does the network take for the class, when it may draw freely? An image is changed step by step so that the score of "
            "the class rises. The given picture lends its size only."
        ),
        paper="Simonyan, Vedaldi and Zisserman 2013, Deep Inside Convolutional Networks, section 2",
        doubt=(
            "It shows what is enough for a high score, not what the class looks like in the data, nor what a decision about a "
            "photograph rests on."
        ),
    ),
)
def class_model(
    model: Adapter,
    image: Tensor,
    decisions: Sequence[Decision],
    generator: torch.Generator,
    *,
    steps: int = 200,
    rate: float = 0.05,
    variation: float = 30.0,
    blur: float = 1.0,
    jitter: float = 0.12,
    noise: float = 0.3,
    progress: Progress | None = None,
) -> Maps:
    """An image that the score of a class rises on, and where it differs from the grey it began as: mean of |I - 0.5| over the channels.

    argmax over I in [0, 1] of S(I) - ``variation`` * TV(I), TV the mean absolute difference of neighbours, I drawn with a
    brush of ``blur`` and seen at shifted places and through noise (equation 1 of the paper has |I|^2 instead, and no
    bounds).  S is the class logit; of a segmenter its mean over the image, of a detector that of the target's box.  The
    given image lends its size.

    steps, rate  of Adam's ascent
    blur         standard deviation of the brush in pixels, 0 for single pixels
    jitter       largest shift, drawn at each step, as a share of the shorter side
    noise        standard deviation of the noise, drawn at each step; without it other networks often see another class

    The map is in [0, 0.5] and has no sign; the image itself comes with the attribution.  It shows what is enough for a high
    score, not what the class looks like in the data, nor what a decision about a photograph rests on.
    """
    if steps < 1 or rate <= 0 or min(variation, blur, jitter, noise) < 0 or jitter > 0.5:
        came = f"steps={steps}, rate={rate}, variation={variation}, blur={blur}, jitter={jitter}, noise={noise}"
        raise MethodError(f"class-model: {came}; expected steps and rate above 0, none negative, jitter up to 0.5")
    wanted = [_of_class(decision) for decision in decisions]
    reach, seed = round(jitter * min(image.shape[-2:])), int(torch.randint(2**62, (), generator=generator))
    with torch.no_grad():
        scores = model.score_table(image, decisions)[:, 0]
    made, details = [], []
    for number, decision in enumerate(wanted):
        score, brush = scores_of(model, decision), torch.full_like(image, GREY, requires_grad=True)
        ascent, draws = torch.optim.Adam([brush], lr=rate), torch.Generator().manual_seed(seed)  # the same for every target
        for step in range(steps):
            down, right = torch.randint(-reach, reach + 1, (2,), generator=draws).tolist()
            grain = noise * torch.randn(image.shape, generator=draws).to(image)
            with torch.enable_grad():
                drawn = blurred(brush, blur)
                loss = variation * total_variation(drawn) - score(model.normalise(shifted(drawn, down, right) + grain)).sum()
                (brush.grad,) = torch.autograd.grad(loss, brush, materialize_grads=True)
            ascent.step()
            brush.data.clamp_(0, 1)
            if progress is not None:
                progress(number * steps + step + 1, len(wanted) * steps)
        with torch.no_grad():
            drawn = blurred(brush, blur)
            start, end = (float(score(model.normalise(each))) for each in (torch.full_like(image, GREY), drawn))
        made.append(drawn[0])
        details.append(Detail(notes=(f"the image made scores {end:.3g}, plain grey {start:.3g}",), image=drawn[0].cpu()))
    return Maps((torch.stack(made) - GREY).abs().mean(1), scores, details=details)


def _of_class(decision: Decision) -> Decision:
    if decision.edge is not None or decision.cells is not None:
        raise MethodError(f"target {decision.target}: class-model draws what scores high for a class; give a class or a whole box")
    return replace(decision, region=None)


def shifted(images: Tensor, down: int, right: int) -> Tensor:
    """The border's colours come in at the other side."""
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - right).clamp(0, width - 1)
    return images[..., rows[:, None], columns]


def blurred(images: Tensor, deviation: float) -> Tensor:
    """Gaussian, with the border's colours beyond it, so that values stay within their bounds."""
    if deviation == 0:
        return images
    radius = max(1, round(3 * deviation))
    places = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = (-((places / deviation) ** 2) / 2).softmax(0).expand(images.shape[1], 1, 1, -1)
    for sides, weight in (((radius, radius, 0, 0), kernel), ((0, 0, radius, radius), kernel.mT)):
        images = F.conv2d(F.pad(images, sides, mode="replicate"), weight, groups=images.shape[1])
    return images


def total_variation(images: Tensor) -> Tensor:
    return images.diff(dim=-1).abs().mean() + images.diff(dim=-2).abs().mean()
