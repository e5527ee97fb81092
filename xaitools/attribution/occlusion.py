"""Occlusion sensitivity (Zeiler and Fergus 2014, section 4.2): how much the score falls when a window is hidden."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..adapters import Model
from ..errors import MethodError
from ..types import REST, Decision
from .base import Maps, Progress, default_score, method

Window = tuple[int, int, int, int]


def windows(height: int, width: int, window: int, stride: int) -> list[Window]:
    """(top, left, bottom, right) of every position; the last row and column are moved in so that all is covered."""

    def starts(length: int) -> list[int]:
        last = max(0, length - window)
        return sorted({*range(0, last + 1, stride), last})

    return [(y, x, min(y + window, height), min(x + window, width)) for y in starts(height) for x in starts(width)]


@method("occlusion", needs="scores")
def occlusion(
    model: Model,
    image: Tensor,
    decisions: Sequence[Decision],
    generator: torch.Generator,
    *,
    window: int = 0,
    stride: int = 0,
    fill: str = "mean",
    score: str | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Maps:
    """Mean fall of the score over the windows that hide a pixel; positive where the pixel speaks for the target.

    window, stride  pixels; 0 chooses a twelfth of the shorter side, at least 8, and half of that
    fill            mean (of the image, per channel), blur, noise (uniform, from the seed), or a number in [0, 1]
    score           logit, probability or margin (against all other classes); margin for boxes, else logit

    The target stays what it was on the unchanged image (same pixels, same proposal).  A window that the score
    cannot see has a fall of exactly 0: clean and occluded image are computed at the same place of equal batches.
    """
    height, width = int(image.shape[-2]), int(image.shape[-1])
    if window < 0 or stride < 0 or batch_size < 1:
        raise MethodError(f"occlusion.window={window}, stride={stride}, batch_size={batch_size}; they must be positive")
    window = window or max(8, min(height, width) // 12)
    stride = stride or max(1, window // 2)
    if stride > window:
        raise MethodError(f"occlusion.stride={stride} is larger than window={window}; pixels between windows would never be hidden")
    decisions = [_reading(decision, score) for decision in decisions]
    places = windows(height, width, window, stride)
    filling = _filling(image, fill, window, generator)
    falls = torch.zeros(len(decisions), height, width, dtype=torch.float64)
    covers = torch.zeros(height, width, dtype=torch.float64)
    size = min(batch_size, len(places))
    clean = _scores(model, image.expand(size, -1, -1, -1), decisions)
    done = 0
    for group in _groups(places, size):
        batch = image.repeat(size, 1, 1, 1)
        for row, (top, left, bottom, right) in enumerate(group):
            batch[row, :, top:bottom, left:right] = filling[0, :, top:bottom, left:right]
        drops = (clean - _scores(model, batch, decisions)).double().cpu()
        for row, (top, left, bottom, right) in enumerate(group):
            falls[:, top:bottom, left:right] += drops[:, row, None, None]
            covers[top:bottom, left:right] += 1
        done += len(group)
        if progress is not None:
            progress(done, len(places))
    return Maps((falls / covers).float(), clean[:, 0].cpu(), used={"window": window, "stride": stride})


def _groups(places: Sequence[Window], size: int) -> Iterator[Sequence[Window]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]


def _scores(model: Model, images: Tensor, decisions: Sequence[Decision]) -> Tensor:
    """(K, N): every decision on every image."""
    count = len(images)
    with torch.no_grad():
        if hasattr(model, "score_table"):
            return model.score_table(images, decisions)
        return torch.stack([model.scores(images, [decision] * count) for decision in decisions])


def _reading(decision: Decision, score: str | None) -> Decision:
    match score or default_score(decision):
        case "logit":
            return decision
        case "probability" | "margin" if decision.edge is not None:
            raise MethodError(f"target {decision.target}: a box edge is a regression output and has no {score}; use score=logit")
        case "probability" | "margin" if decision.versus is not None:
            raise MethodError(f"target {decision.target}: already a contrast; use score=logit")
        case "probability":
            return replace(decision, reading="probability")
        case "margin":
            return replace(decision, versus=REST)
    raise MethodError(f"occlusion.score={score!r}; expected logit, probability or margin")


def _filling(image: Tensor, fill: str, window: int, generator: torch.Generator) -> Tensor:
    """What shows through a window, as an image of the same size."""
    if fill == "mean":
        return image.mean((-2, -1), keepdim=True).expand_as(image)
    if fill == "noise":
        return torch.rand(image.shape, generator=generator).to(image)
    if fill == "blur":
        radius = min(window, min(image.shape[-2:]) - 1)
        padded = F.pad(image, [radius] * 4, mode="reflect")
        return F.avg_pool2d(padded, 2 * radius + 1, stride=1)
    try:
        value = float(fill)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise MethodError(f"occlusion.fill={fill!r}; expected mean, blur, noise or a number from 0 to 1")
    return torch.full_like(image, value)
