"""Occlusion sensitivity (Zeiler and Fergus 2014, section 4.2): how much the score falls when a window is hidden."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from ..adapters import Adapter
from ..data.fill import fill as inpainted
from ..errors import MethodError
from ..types import REST, Decision, Prediction
from .base import Detail, Maps, Progress, default_score, method
from .incremental import Filling, Incremental, batches, in_parts

Window = tuple[int, int, int, int]


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along one axis; the last is moved in so that all is covered."""
    last = max(0, length - window)
    return sorted({*range(0, last + 1, stride), last})


def windows(height: int, width: int, window: int, stride: int) -> list[Window]:
    """(top, left, bottom, right) of every position, row by row."""
    rows, columns = starts(height, window, stride), starts(width, window, stride)
    return [(y, x, min(y + window, height), min(x + window, width)) for y in rows for x in columns]


@method("occlusion", needs="scores")
def occlusion(
    model: Adapter,
    image: Tensor,
    decisions: Sequence[Decision],
    generator: torch.Generator,
    *,
    window: int = 0,
    stride: int = 0,
    fill: str = "mean",
    score: str | None = None,
    incremental: bool = True,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Maps:
    """Mean fall of the score over the windows that hide a pixel; positive where the pixel speaks for the target.

    window, stride  pixels; 0 chooses a twelfth of the shorter side, at least 8, and half of that
    fill            mean (of the image, per channel), blur, noise (uniform, from the seed), inpaint (each window painted over
                    from around it), or a number in [0, 1]
    score           logit, probability or margin (against all other classes); margin for boxes, else logit

    incremental     where it is worth it, compute again only what the window can change and the score can see, which agrees
                    with whole passes to 1e-4 (checked at three windows of each call); false: every window by a whole pass

    The target stays what it was on the unchanged image (same pixels, same proposal).  A window that the score
    cannot see has a fall of exactly 0.
    """
    decisions = [reading(decision, score) for decision in decisions]

    def scores(images: Tensor) -> Tensor:
        with torch.no_grad():
            return model.score_table(images, decisions)

    return sweep(scores, image, generator, window, stride, fill, batch_size, incremental, progress)


@method("occlusion-drise", needs="predictions")
def occlusion_drise(
    model: Adapter,
    image: Tensor,
    decisions: Sequence[Decision],
    generator: torch.Generator,
    *,
    window: int = 0,
    stride: int = 0,
    fill: str = "mean",
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Maps:
    """Is there still such a detection?  Mean fall of the best match over the windows that hide a pixel; for black boxes too.

    detection       best IoU * score among the boxes of the class (D-RISE, Petsiuk et al. 2021, with one-hot class
                    vectors, since a final box has one class); in [0, 1], and it may jump to a neighbour of the class
    segmentation    share of the target's pixels that still get its class
    classification  probability of the class

    window, stride, fill are those of ``occlusion``.  ``best_match`` says of a box under how many windows it was the best match
    itself, under how many another box of its class in the unchanged image was (by the larger IoU), and under how many nothing
    of its class overlapped it: ``{"target": 480, "box:2": 20, "none": 29}``.
    """
    matches: list[list[Tensor | None]] = []

    def watch(found: Sequence[Prediction]) -> None:
        matches.extend([best_match(prediction, decision)[1] for decision in decisions] for prediction in found)

    scores = still_found(model, decisions, "occlusion-drise", watch)
    maps = sweep(scores, image, generator, window, stride, fill, batch_size, False, progress)
    count = len(windows(int(image.shape[-2]), int(image.shape[-1]), maps.used["window"], maps.used["stride"]))
    first = min(batch_size, count)  # a batch of clean images goes before the windows, and the last batch ends in clean images
    clean = model.predict(image)[0]
    details = [_matched(clean, decision, [row[k] for row in matches[first : first + count]]) for k, decision in enumerate(decisions)]
    return replace(maps, used={**maps.used, "score": "still found"}, details=details)


def still_found(
    model: Adapter, decisions: Sequence[Decision], name: str, watch: Callable[[Sequence[Prediction]], None] | None = None
) -> Callable[[Tensor], Tensor]:
    """(N, 3, H, W) -> how much of each target is still found, (K, N) in [0, 1]; MethodError, by ``name``, for what is never found.

    ``watch`` is shown the answers that it comes from.
    """
    for decision in decisions:
        if decision.edge is not None or decision.cells is not None or decision.versus is not None:
            raise MethodError(f"target {decision.target}: {name} asks whether a box, class or region is found; drop the rest")

    def scores(images: Tensor) -> Tensor:
        found = model.predict(images)
        if watch is not None:
            watch(found)
        return torch.tensor([[found_again(prediction, decision) for prediction in found] for decision in decisions], dtype=torch.float64)

    return scores


def found_again(prediction: Prediction, decision: Decision) -> float:
    """How much of what ``decision`` speaks of is in ``prediction``, in [0, 1]."""
    same = prediction.labels == decision.class_index
    if prediction.semantic is not None and decision.region is not None:
        return float((prediction.semantic == decision.class_index)[decision.region].double().mean())
    if prediction.boxes is None or decision.box is None:
        return float(prediction.scores[same].sum())
    return best_match(prediction, decision)[0]


def best_match(prediction: Prediction, decision: Decision) -> tuple[float, Tensor | None]:
    """Best IoU * score of the target's box with a box of its class, and that box (4,); 0 and None where none overlaps it."""
    if prediction.boxes is None or decision.box is None:
        return 0.0, None
    same = prediction.labels == decision.class_index
    matches = box_iou(decision.box[None].to(prediction.boxes), prediction.boxes[same])[0] * prediction.scores[same]
    if not bool((matches > 0).any()):
        return 0.0, None
    return float(matches.max()), prediction.boxes[same][matches.argmax()]


def _matched(clean: Prediction, decision: Decision, matches: Sequence[Tensor | None]) -> Detail:
    """Which boxes of the unchanged image the best matches under the windows were."""
    if clean.boxes is None or decision.box is None:
        return Detail()
    same = torch.where(clean.labels == decision.class_index)[0]
    places = torch.cat([decision.box[None].to(clean.boxes), clean.boxes[same]])
    names = ["target", *(f"box:{index}" for index in same.tolist())]
    # of equal overlaps numpy takes the first, which is the target
    won = Counter("none" if box is None else names[int(box_iou(box[None], places)[0].numpy().argmax())] for box in matches)
    others = {name: won[name] for name in names[1:] if won[name]}
    told = ", ".join(f"{name} {times}" for name, times in others.items())
    kind = clean.classes[decision.class_index]
    notes = (f"under {sum(others.values())} of {len(matches)} windows the best match was another {kind}: {told}",) if others else ()
    return Detail({"best_match": {"target": won["target"], **others, "none": won["none"]}}, notes)


def sweep(
    scores: Callable[[Tensor], Tensor],
    image: Tensor,
    generator: torch.Generator,
    window: int,
    stride: int,
    fill: str,
    batch_size: int,
    incremental: bool,
    progress: Progress | None,
) -> Maps:
    """The falls of ``scores``, (N, 3, H, W) -> (K, N), over all windows."""
    height, width = int(image.shape[-2]), int(image.shape[-1])
    window, stride = sides(image, window, stride, batch_size)
    places = windows(height, width, window, stride)
    filling = filler(image, fill, window, places, generator)
    size = min(batch_size, len(places))
    engine, how = in_parts(scores, image, filling, places, size) if incremental else (None, "whole passes")
    if engine is None:
        clean, parts = _whole(scores, image, filling, places, size)
    else:
        clean, parts = engine.clean, _parts(engine, filling, size)
    falls = torch.zeros(len(clean), height, width, dtype=torch.float64)
    covers = torch.zeros(height, width, dtype=torch.float64)
    done = 0
    for chosen, drops in parts:
        for column, index in enumerate(chosen):
            top, left, bottom, right = places[index]
            falls[:, top:bottom, left:right] += drops[:, column, None, None]
            covers[top:bottom, left:right] += 1
        done += len(chosen)
        if progress is not None:
            progress(done, len(places))
    return Maps(spread(falls, covers, places), clean.cpu(), used={"window": window, "stride": stride, "computed": how})


def spread(falls: Tensor, covers: Tensor, places: Sequence[Window]) -> Tensor:
    """Sums (..., H, W) over windows as means; pixels between windows, which none hides, have that of the nearest window."""
    rows, columns = (
        (torch.arange(length)[:, None] - torch.tensor(sorted({(place[axis] + place[axis + 2] - 1) / 2 for place in places})))
        .abs()
        .argmin(1)
        for axis, length in enumerate(covers.shape)
    )
    middles = [torch.tensor(sorted({(place[axis] + place[axis + 2]) // 2 for place in places})) for axis in (0, 1)]
    means = falls / covers
    return torch.where(covers > 0, means, means[..., middles[0], :][..., middles[1]][..., rows, :][..., columns]).float()


def sides(image: Tensor, window: int, stride: int, batch_size: int) -> tuple[int, int]:
    """Window and stride, chosen by the size of the image where they are 0; MethodError if they cannot be."""
    if window < 0 or stride < 0 or batch_size < 1:
        raise MethodError(f"occlusion.window={window}, stride={stride}, batch_size={batch_size}; they must be positive")
    window = window or max(8, min(image.shape[-2:]) // 12)
    return window, stride or max(1, window // 2)


def hidden(image: Tensor, filling: Filling, places: Sequence[Window], size: int) -> Iterator[tuple[range, Tensor]]:
    """Numbers of windows, and a batch of ``size`` images in which each shows its filling; the last batch ends in clean images."""
    for start in range(0, len(places), size):
        chosen, batch = range(start, min(start + size, len(places))), image.repeat(size, 1, 1, 1)
        for row, index in enumerate(chosen):
            top, left, bottom, right = places[index]
            batch[row, :, top:bottom, left:right] = filling(index)[0, :, top:bottom, left:right]
        yield chosen, batch


Falls = Iterator[tuple[Sequence[int], Tensor]]
"""Numbers of windows, and the falls (K, n) of the score under them."""


def _whole(
    scores: Callable[[Tensor], Tensor], image: Tensor, filling: Filling, places: Sequence[Window], size: int
) -> tuple[Tensor, Falls]:
    """Clean scores (K,) and falls, the clean image at the same place of equal batches, so that no change is exactly 0."""
    clean = scores(image.expand(size, -1, -1, -1))

    def falls() -> Falls:
        for chosen, batch in hidden(image, filling, places, size):
            yield chosen, (clean - scores(batch)).double().cpu()

    return clean[:, 0], falls()


def _parts(engine: Incremental, filling: Filling, size: int) -> Falls:
    out_of_reach = np.where(~engine.plan.reaches)[0].tolist()
    yield out_of_reach, torch.zeros(len(engine.clean), len(out_of_reach), dtype=torch.float64)
    for chosen in batches(engine.plan, size):
        with torch.no_grad():
            yield chosen.tolist(), (engine.clean[:, None] - engine.scores(chosen, filling)).double().cpu()


def reading(decision: Decision, score: str | None) -> Decision:
    """``decision`` with what ``score`` (logit, probability, margin or None) asks of it."""
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
    raise MethodError(f"score={score!r}; expected logit, probability or margin")


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
