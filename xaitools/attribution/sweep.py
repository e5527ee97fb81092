"""A window goes over the image: what shows through it, the falls of a score under it, and the map that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.fill import fill as inpainted
from ..errors import MethodError
from . import speed
from .base import Detail, Maps, Progress
from .gradients import MANY, batch_for
from .incremental import Choice, Filling, Incremental, apart, batches, in_parts
from .kept import Kept, keeping

Window = tuple[int, int, int, int]
Score = Callable[[Tensor], Tensor]
"""Images (N, 3, H, W) -> (K, N)."""

FEW = 4
"""So many images at least go through a model together, and on a processor no more of large ones.

What a layer makes of larger batches is too large to be kept for the next one and is asked of the system anew each time: for whole
passes of a U-Net over 360 x 480 on one core, batches of 16 took 2.3 times as long as those of 4.
"""


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along one axis; the last is moved in so that all is covered."""
    last = max(0, length - window)
    return sorted({*range(0, last + 1, stride), last})


def windows(height: int, width: int, window: int, stride: int) -> list[Window]:
    """(top, left, bottom, right) of every position, row by row."""
    rows, columns = starts(height, window, stride), starts(width, window, stride)
    return [(y, x, min(y + window, height), min(x + window, width)) for y in rows for x in columns]


def sides(image: Tensor, window: int, stride: int, batch_size: int, name: str) -> tuple[int, int]:
    """Window and stride, chosen by the size of the image where they are 0; MethodError if they cannot be."""
    if min(window, stride, batch_size) < 0:
        raise MethodError(f"{name}.window={window}, stride={stride}, batch_size={batch_size}; they must not be negative")
    window = window or max(8, min(image.shape[-2:]) // 12)
    return window, stride or max(1, window // 2)


def passes(image: Tensor, batch_size: int, most: int) -> int:
    """Copies of an image (1, 3, H, W) that go through a model together: as asked, or for 0 as many as are quickest, up to ``most``."""
    return batch_for(image, batch_size, most, least=MANY if image.is_cuda else FEW)


@dataclass(frozen=True, eq=False)
class Sweep:
    """Windows over one image (1, 3, H, W); what ``filling`` gives shows through them.

    size     windows in a batch of whole passes
    parts    windows in a batch where only parts of the passes are computed
    coarse   0, or a step from 2 on, see ``speed``
    half     whether scores are in half precision
    """

    image: Tensor
    window: int
    stride: int
    places: Sequence[Window]
    filling: Filling
    size: int
    parts: int
    coarse: int = 0
    half: bool = False

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        height, width = self.image.shape[-2:]
        return len(starts(int(height), self.window, self.stride)), len(starts(int(width), self.window, self.stride))


def make_sweep(
    image: Tensor, generator: torch.Generator, window: int, stride: int, fill: str, batch_size: int, *, coarse: int = 0,
    half: bool = False, name: str = "occlusion",
) -> Sweep:  # fmt: skip
    """Raises MethodError for a parameter, of the method ``name``, that cannot be."""
    window, stride = sides(image, window, stride, batch_size, name)
    if coarse < 0 or coarse == 1:
        raise MethodError(f"{name}.coarse_to_fine={coarse}; expected 0 for every window, or a step from 2 on")
    places = windows(int(image.shape[-2]), int(image.shape[-1]), window, stride)
    filling = filler(image, fill, window, places, generator, f"{name}.fill")
    size, parts = passes(image, batch_size, len(places)), min(batch_size or MANY, len(places))
    return Sweep(image, window, stride, places, filling, size, parts, coarse, half)


def swept(
    plan: Sweep, scores: Score, progress: Progress | None, *, incremental: bool = False, singles: Sequence[Score] = (),
    kept: Kept | None = None, beside: Mapping[str, Tensor] | None = None, after: Callable[[Sequence[int]], None] | None = None,
) -> Maps:  # fmt: skip
    """The mean falls of ``scores`` over the windows that hide a pixel; ``singles`` are the same scores one by one.

    ``after`` is called with the numbers of the windows of a batch when their scores are known, to fill their rows of ``beside``,
    tensors with one row for each window.  What is known goes into ``kept``, and windows that were kept are not asked again.
    """
    image, places = plan.image, plan.places
    choice = Choice(None, "whole passes")
    if incremental:
        choice = in_parts(scores, image, plan.filling, places, plan.parts, half=plan.half)
        if singles and apart(singles, choice, image, places, plan.parts):
            alone = [
                swept(plan, each, _share(progress, place, len(singles)), incremental=True, kept=kept and kept.part(place))
                for place, each in enumerate(singles)
            ]
            values, scored = torch.cat([each.values for each in alone]), torch.cat([each.scores for each in alone])
            return Maps(values, scored, used=_used(plan), details=[Detail(each.used) for each in alone])
    engine = choice.engine
    clean = scores(image.expand(plan.size, -1, -1, -1)) if engine is None else engine.clean[:, None]
    falls, known = torch.zeros(len(clean), len(places), dtype=torch.float64), torch.zeros(len(places), dtype=torch.bool)
    scored, tensors = clean[:, 0].cpu(), {"falls": falls, "known": known, **(beside or {})}

    def run(chosen: Sequence[int]) -> None:
        chosen = [each for each in chosen if not known[each]]
        total = int(known.sum()) + len(chosen)
        for some, drops in _whole(plan, scores, clean, chosen) if engine is None else _parts(plan, engine, chosen):
            if after is not None:
                after(some)
            falls[:, some], known[some] = drops[:, : len(some)], True
            note()
            if progress is not None:
                progress(int(known.sum()), total)

    used = {"computed": choice.words, "batch_size": plan.size if engine is None else plan.parts}
    with keeping(kept, scored, tensors) as note:
        if plan.coarse:
            _coarse_to_fine(plan, falls, known, run)
            used["windows"] = f"{known.sum()} of {len(places)}"
        else:
            run(range(len(places)))
    return Maps(spread(plan, falls), scored, used=_used(plan) | used)


def _used(plan: Sweep) -> dict[str, object]:
    return {"window": plan.window, "stride": plan.stride}


def _share(progress: Progress | None, place: int, count: int) -> Progress | None:
    """Progress of one of ``count`` equal sweeps, as that of all of them."""
    return None if progress is None else lambda done, total: progress(place * total + done, count * total)


def _coarse_to_fine(plan: Sweep, falls: Tensor, known: Tensor, run: Callable[[Sequence[int]], None]) -> None:
    """Fills ``falls`` (K, windows) from a coarse grid and from the windows around the largest there."""
    rows, columns = speed.every(plan.grid, plan.coarse)
    numbers = np.arange(len(plan.places)).reshape(plan.grid)
    first = numbers[np.ix_(rows, columns)]
    run(first.ravel().tolist())
    found = falls[:, first.ravel()].view(-1, *first.shape)
    near = numbers[speed.beside(found, rows, columns, plan.grid)]
    run(near.tolist())
    between = speed.interpolated(found, rows, columns, plan.grid).flatten(1)
    falls[:, ~known] = between[:, ~known]


def spread(plan: Sweep, falls: Tensor) -> Tensor:
    """Falls (K, windows) as maps (K, H, W): means over the windows that hide a pixel.

    Pixels between windows, which none hides, have that of the nearest window.
    """
    height, width = (int(each) for each in plan.image.shape[-2:])
    sums, covers = torch.zeros(len(falls), height, width, dtype=torch.float64), torch.zeros(height, width, dtype=torch.float64)
    for (top, left, bottom, right), drops in zip(plan.places, falls.T, strict=True):
        sums[:, top:bottom, left:right] += drops[:, None, None]
        covers[top:bottom, left:right] += 1
    rows, columns = (
        (torch.arange(length)[:, None] - torch.tensor(sorted({(place[axis] + place[axis + 2] - 1) / 2 for place in plan.places})))
        .abs()
        .argmin(1)
        for axis, length in enumerate((height, width))
    )
    middles = [torch.tensor(sorted({(place[axis] + place[axis + 2]) // 2 for place in plan.places})) for axis in (0, 1)]
    means = sums / covers
    return torch.where(covers > 0, means, means[..., middles[0], :][..., middles[1]][..., rows, :][..., columns]).float()


def hidden(plan: Sweep, chosen: Sequence[int] | None = None) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Numbers of windows, and a batch of images in which each shows its filling; the last batch ends in clean images."""
    chosen = range(len(plan.places)) if chosen is None else chosen
    for start in range(0, len(chosen), plan.size):
        some, batch = chosen[start : start + plan.size], plan.image.repeat(plan.size, 1, 1, 1)
        for row, index in enumerate(some):
            top, left, bottom, right = plan.places[index]
            batch[row, :, top:bottom, left:right] = plan.filling(index)[0, :, top:bottom, left:right]
        yield some, batch


Falls = Iterator[tuple[Sequence[int], Tensor]]
"""Numbers of windows, and the falls (K, at least as many) of the score under them."""


def _whole(plan: Sweep, scores: Score, clean: Tensor, chosen: Sequence[int]) -> Falls:
    """By whole passes; ``clean`` (K, size) has the clean image at the same place of an equal batch, so that no change is exactly 0."""
    for some, batch in hidden(plan, chosen):
        yield some, (clean - scores(batch)).double().cpu()


def _parts(plan: Sweep, engine: Incremental, chosen: Sequence[int]) -> Falls:
    out_of_reach = [each for each in chosen if not engine.plan.reaches[each]]
    yield out_of_reach, torch.zeros(len(engine.clean), len(out_of_reach), dtype=torch.float64)
    for some in batches(engine.plan, plan.parts, chosen):
        with torch.no_grad():
            yield some.tolist(), (engine.clean[:, None] - engine.scores(some, plan.filling)).double().cpu()


def filler(
    image: Tensor, fill: str, window: int, places: Sequence[Window], generator: torch.Generator, name: str = "occlusion.fill"
) -> Filling:
    """What shows through each window: ``inpaint``, or the same image for all of them, see ``filled``."""
    if fill != "inpaint":
        same = filled(image, fill, window, generator, name, also="inpaint, ")
        return lambda index: same

    def painted(index: int) -> Tensor:
        top, left, bottom, right = places[index]
        hole = torch.zeros(image.shape[-2:], dtype=torch.bool)
        hole[top:bottom, left:right] = True
        return inpainted(image[0].float().cpu(), hole)[None].to(image)

    return painted


def filled(image: Tensor, fill: str, window: int, generator: torch.Generator, name: str = "occlusion.fill", also: str = "") -> Tensor:
    """What shows through a window, as an image of the same size; ``name`` is that of the parameter."""
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
        raise MethodError(f"{name}={fill!r}; expected mean, blur, noise, {also}or a number from 0 to 1")
    return torch.full_like(image, value)
