"""Random masks (RISE, Petsiuk et al. 2018; for boxes D-RISE, Petsiuk et al. 2021): what the score gains as a pixel comes into view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..adapters import Adapter
from ..errors import MethodError
from ..registry import About
from ..types import Decision
from .base import Detail, Maps, Progress, method
from .kept import Kept, keeping
from .occlusion import still_found
from .sweep import filled, passes

CHECK = 200
"""Masks between two looks at the stability, whatever the size of a batch."""

TOP = 0.1
"""Share of the pixels whose place two halves of the masks must agree on."""

FLAT = 1e-12
"""A variance of mask values below this is rounding."""


@method(
    "drise",
    needs="predictions",
    about=About(
        means=(
            "How much more of the target is found where a random mask shows a pixel than where it hides it? Many random masks are "
            "laid over the image, until two halves of them agree on the map. It needs only the final answer, so black boxes can be "
            "asked."
        ),
        paper="Petsiuk, Das and Saenko 2018, RISE; for boxes Petsiuk et al. 2021, D-RISE",
        doubt="Nothing finer than a cell of the masks is resolved; where stability_reached is low the map is mostly chance.",
    ),
)
def drise(
    model: Adapter,
    image: Tensor,
    decisions: Sequence[Decision],
    generator: torch.Generator,
    *,
    masks: int = 4000,
    grid: int = 8,
    stability: float = 0.8,
    keep: float = 0.5,
    fill: str = "mean",
    batch_size: int = 0,
    progress: Progress | None = None,
    kept: Kept | None = None,
) -> Maps:
    """How much more of the target is found where a random mask shows a pixel than where it hides it; for black boxes too.

    The map is cov(f, M) / var(M), the least-squares slope of the score f on the mask's value M at each pixel: f's own unit,
    positive where showing the pixel helps.  f in [0, 1] is that of ``occlusion-drise``: best IoU * score among the boxes of
    the class, share of the region's pixels that get its class, or probability of the class.

    masks      the most that are drawn
    grid       cells along the shorter side of the image; the same squares fill the longer one
    stability  in (0, 1]: stop as soon as the maps of two independent halves of the masks agree that much, as IoU of their
               top tenths.  Two random maps agree by 0.05.  The first look at which they do counts, a lucky one too: on
               scenes, the whole maps of two seeds that had stopped at 0.8 agreed by 0.78 to 0.88
    keep       probability that a cell is shown
    fill       what shows through where it is hidden: mean, blur, noise or a number in [0, 1], as for ``occlusion``

    ``masks_drawn`` and ``stability_reached`` (None where the halves have no top tenths, as when the score never moved) stand
    beside what was asked.  All targets see the same masks, but each has its own stop, so that its map does not depend on
    what else was asked.
    RISE's own map, the mean of f * M over E[M] (equation 6), is never negative and lies on a floor of E[f]; the slope is
    signed and has no floor.  It is not the effect of a pixel alone: what lies up to two cells away is shown with it, and
    nothing finer than a cell is resolved.
    """
    scores = still_found(model, decisions, "drise")
    height, width = int(image.shape[-2]), int(image.shape[-1])
    _check(height, width, masks, grid, stability, keep, batch_size)
    cell, size = min(height, width) / grid, passes(image, batch_size, min(CHECK, masks))
    filling = filled(image, fill, math.ceil(cell), generator, "drise.fill")
    clean = scores(image.expand(size, -1, -1, -1))
    halves = [Moments.none(len(decisions), height, width) for _ in range(2)]
    values, agreed, stops = torch.zeros(len(decisions), height, width), [math.nan] * len(decisions), [0] * len(decisions)
    waiting, drawn = list(range(len(decisions))), 0
    rises = torch.full((len(decisions), masks), torch.nan, dtype=clean.dtype)
    with keeping(kept, clean[:, 0], {"rises": rises}) as note:
        while waiting and drawn < masks:
            end = min(drawn + CHECK, masks)
            for start in range(drawn, end, size):
                count = min(size, end - start)
                shown, mine = random_masks(count, height, width, cell, keep, generator), rises[:, start : start + count]
                if bool(mine.isnan().any()):  # else it was kept
                    batch = image.repeat(size, 1, 1, 1)  # the clean image fills a short batch, so that no change is exactly 0
                    batch[:count] = filling + shown[:, None].to(image) * (image - filling)
                    mine.copy_((scores(batch) - clean)[:, :count])
                    note()
                for number, half in enumerate(halves):
                    own = slice((number - start) % 2, None, 2)
                    half.add(shown[own] - keep, mine[:, own])
                if progress is not None:
                    progress(start + count, masks)
            drawn = end
            both = halves[0] + halves[1]
            for row in waiting:
                agreed[row], stops[row], values[row] = agreement(*(half.slope(row) for half in halves)), drawn, both.slope(row)
            waiting = [row for row in waiting if not agreed[row] >= stability]
    moved = values.flatten(1).any(1).tolist()
    details = [_detail(*each, masks, stability) for each in zip(stops, agreed, moved, strict=True)]
    return Maps(values, clean[:, 0], used={"score": "still found", "batch_size": size}, details=details)


def random_masks(count: int, height: int, width: int, cell: float, keep: float, generator: torch.Generator) -> Tensor:
    """(N, H, W) float64 in [0, 1]: random bits on a grid of ``cell`` pixels at a random shift, with straight lines between them.

    Each mask takes its own numbers from the generator, one after the other, so that N does not matter.
    RISE enlarges to whole pixels and its outermost cells are flat; here mean ``keep`` and variance are the same at every pixel.
    """
    rows, columns = (math.ceil(length / cell) + 2 for length in (height, width))
    draws = torch.stack([torch.rand(2 + rows * columns, generator=generator, dtype=torch.float64) for _ in range(count)])
    bits = (draws[:, 2:] < keep).double().view(count, rows, columns)
    down, across = _tents(height, rows, cell, draws[:, 0]), _tents(width, columns, cell, draws[:, 1])
    return (down @ bits @ across.mT).clamp(0, 1)


def _tents(length: int, bits: int, cell: float, shifts: Tensor) -> Tensor:
    """(N, length, bits): the weight of each bit at each pixel along one axis; shifts (N,) are shares of a cell."""
    places = (torch.arange(length, dtype=torch.float64) + 0.5) / cell + shifts[:, None]
    return (1 - (places[..., None] - torch.arange(bits)).abs()).clamp(min=0)


@dataclass
class Moments:
    """Sums over masks m (H, W) and scores f (K,), float64; both about a fixed centre near their mean, so that little cancels."""

    count: int
    f: Tensor
    m: Tensor
    mm: Tensor
    fm: Tensor

    @classmethod
    def none(cls, targets: int, height: int, width: int) -> Moments:
        sizes = ((targets,), (height, width), (height, width), (targets, height, width))
        return cls(0, *(torch.zeros(size, dtype=torch.float64) for size in sizes))

    def add(self, masks: Tensor, scores: Tensor) -> None:
        """Masks (N, H, W) and their scores (K, N)."""
        self.count += len(masks)
        self.f += scores.sum(1)
        self.m += masks.sum(0)
        self.mm += (masks**2).sum(0)
        self.fm += torch.einsum("kn,nhw->khw", scores, masks)

    def __add__(self, other: Moments) -> Moments:
        return Moments(*(one + two for one, two in zip(vars(self).values(), vars(other).values(), strict=True)))

    def slope(self, row: int) -> Tensor:
        """(H, W): cov(f, m) / var(m) for score ``row``, 0 where m did not vary."""
        mean = self.m / self.count
        variance = self.mm / self.count - mean**2
        covariance = (self.fm[row] - self.f[row] * mean) / self.count
        return torch.where(variance > FLAT, covariance / variance, 0.0)


def agreement(one: Tensor, other: Tensor) -> float:
    """IoU of the top tenths of two maps; NaN where neither has one."""
    one, other = top_tenth(one), top_tenth(other)
    either = int((one | other).sum())
    return int((one & other).sum()) / either if either else math.nan


def top_tenth(values: Tensor) -> Tensor:
    """Where the largest tenth of the values lies; less where it ends among equal ones, so that a constant map has none."""
    count = math.ceil(TOP * values.numel())
    bound = values.flatten().kthvalue(values.numel() - count + 1).values
    top = values >= bound
    return top if int(top.sum()) == count else values > bound


def _detail(drawn: int, agreed: float, moved: bool, masks: int, stability: float) -> Detail:
    if math.isnan(agreed) and not moved:
        note = f"not stable: the score was the same under all {drawn} masks, and the map is 0; try another drise.fill or drise.keep"
    elif math.isnan(agreed):
        note = f"not stable: two halves of {drawn} masks have no top tenth to compare; raise drise.masks"
    elif agreed < stability:
        note = f"not stable: two halves of {drawn} masks agree by {_down(agreed)}, {stability:g} was asked; raise drise.masks"
    else:
        note = f"two halves of {drawn} masks agree by {_down(agreed)}; {masks} were allowed"
    return Detail({"masks_drawn": drawn, "stability_reached": None if math.isnan(agreed) else agreed}, (note,))


def _down(share: float) -> str:
    """Two digits, never rounded up to what was not reached."""
    return f"{math.floor(100 * share + 1e-9) / 100:.2f}"


def _check(height: int, width: int, masks: int, grid: int, stability: float, keep: float, batch_size: int) -> None:
    if masks < 2 or batch_size < 0:
        raise MethodError(
            f"drise.masks={masks}, batch_size={batch_size}; expected at least 2 masks, one for each half; images at once, or 0 to choose"
        )
    if not 1 <= grid <= min(height, width):
        raise MethodError(f"drise.grid={grid}; expected 1 to {min(height, width)} cells along the shorter side of an image {height, width}")
    if not 0 < stability <= 1:
        raise MethodError(
            f"drise.stability={stability}; expected an IoU above 0 and up to 1; 1 draws all masks unless the halves are equal"
        )
    if not 0 < keep < 1:
        raise MethodError(f"drise.keep={keep}; expected a probability between 0 and 1; at either end no mask differs from another")
