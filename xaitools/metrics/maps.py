"""Is a map right?  Pure functions of a map, of what is known about the image, and of the model's answers.

Maps are signed (H, W): positive speaks for the explained score.  A measure that a map cannot have (it is zero
everywhere, or the object fills the image) is None, never 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

Scores = Callable[[Tensor], Tensor]
"""Images (N, 3, H, W) -> what the model makes of them, (N,)."""


def order(values: Tensor) -> Tensor:
    """Pixels of a map (H, W) from the one that speaks most for the score to the one that speaks most against it, (H * W,)."""
    return values.flatten().argsort(descending=True, stable=True)


def flipping(scores: Scores, image: Tensor, values: Tensor, fill: Tensor, *, steps: int = 16, insert: bool = False) -> Tensor | None:
    """The score (steps + 1,) while the strongest pixels are replaced by ``fill`` (3, H, W), or put back into it (``insert``).

    Pixel flipping (Bach et al. 2015, section 4; Samek et al. 2017) with equal shares of the pixels at each step;
    deletion and insertion of Petsiuk et al. 2018 are its mean.
    """
    if not bool(values.any()):
        return None
    rank = torch.empty(values.numel(), dtype=torch.long)
    rank[order(values)] = torch.arange(values.numel())
    shares = torch.linspace(0, values.numel(), steps + 1).round()
    taken = rank.view(1, 1, *values.shape) < shares.view(-1, 1, 1, 1)
    return scores(torch.where(taken ^ insert, fill, image).to(image))


def strongest(values: Tensor, share: float) -> Tensor:
    """(H, W) bool: the ``share`` of the pixels, in [0, 1], that speaks most for the score; what ``flipping`` has taken by then."""
    taken = torch.zeros(values.numel(), dtype=torch.bool)
    taken[order(values)[: round(share * values.numel())]] = True
    return taken.view(values.shape)


def blurred(image: Tensor) -> Tensor:
    """``image`` (.., H, W) under a Gaussian window of an eighth of each side: what is put where pixels are deleted."""
    sides = [2 * (max(2, each // 8) // 2) + 1 for each in image.shape[:-3:-1]]
    return gaussian_blur(image, sides, [each / 4 for each in sides])


def area_under(curve: Tensor) -> float:
    """Mean height of a curve over equal steps, by trapezoids."""
    return float(((curve[1:] + curve[:-1]) / 2).mean())


def pointing(values: Tensor, inside: Tensor) -> float | None:
    """1 if the strongest pixel lies inside (H, W) the object, else 0 (Zhang et al. 2018, without tolerance)."""
    if not bool((values > 0).any()):
        return None
    return float(inside.flatten()[order(values)[0]])


def mass(values: Tensor, inside: Tensor) -> float | None:
    """Share of the positive relevance inside (H, W) (Arras et al. 2022); chance is the share of its area."""
    total = values.clamp(min=0).sum()
    return None if float(total) <= 0 else float(values.clamp(min=0)[inside].sum() / total)


def mass_gain(values: Tensor, inside: Tensor) -> float | None:
    """``mass`` inside the object, minus the object's share of the image.

    0 is chance; divided by what is left, so that 1 is all of it inside.
    """
    share = mass(values, inside)
    return None if share is None else _gain(share, inside)


def rank_gain(values: Tensor, inside: Tensor) -> float | None:
    """Of as many strongest pixels as the object has, the share inside it (Arras et al. 2022), over chance as ``mass_gain``."""
    if not bool((values > 0).any()):
        return None
    count = int(inside.sum())
    return None if not count else _gain(float(inside.flatten()[order(values)[:count]].double().mean()), inside)


def _gain(share: float, inside: Tensor) -> float | None:
    area = float(inside.double().mean())
    return (share - area) / (1 - area) if 0 < area < 1 else None


def change(one: Tensor, other: Tensor) -> float | None:
    """1 minus the rank correlation (Spearman) of two maps: 0 if they order the pixels alike, 1 if they have nothing in common.

    More than 1 where one is the reverse of the other.
    """
    a, b = _ranks(one), _ranks(other)
    if a is None or b is None:
        return None
    return float(1 - (a * b).sum() / (a.norm() * b.norm()))


def _ranks(values: Tensor) -> Tensor | None:
    """Centred ranks (H * W,), equal values at their middle rank; None for a flat map."""
    _, inverse, counts = values.double().flatten().unique(return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return None
    ranks = (counts.cumsum(0) - (counts - 1) / 2)[inverse].double()
    return ranks - ranks.mean()


def edge_map(image: Tensor) -> Tensor:
    """Length of the Sobel gradient (H, W) of the grey image: a map that knows nothing of any model or target."""
    x = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    grey = F.pad(image.float().mean(0)[None, None], (1, 1, 1, 1), mode="replicate")
    return F.conv2d(grey, torch.stack([x, x.T])[:, None])[0].norm(dim=0)
