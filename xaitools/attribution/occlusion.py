"""Occlusion sensitivity (Zeiler and Fergus 2014, section 4.2): how much the score falls when a window is hidden."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..adapters import Adapter
from ..errors import MethodError
from ..registry import About
from ..types import REST, Decision, Prediction
from . import speed
from .base import Detail, Maps, Progress, default_score, method
from .kept import Kept
from .sweep import Score, make_sweep, swept


@method(
    "occlusion",
    needs="scores",
    about=About(
        means=(
            "How far does the score fall when a part of the image is hidden? A window moves over the image, and each pixel gets the "
            "mean fall over the windows that hid it. Red pixels speak for the target, blue ones against it."
        ),
        paper="Zeiler and Fergus 2014, Visualizing and Understanding Convolutional Networks, section 4.2",
        doubt=(
            "The model has never seen such windows in training; set occlusion.fill=blur to see whether that matters, and mind that "
            "two copies of one cause cover for each other."
        ),
    ),
)
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
    channels_last: bool = False,
    bf16: bool = False,
    coarse_to_fine: int = 0,
    batch_size: int = 0,
    progress: Progress | None = None,
    kept: Kept | None = None,
) -> Maps:
    """Mean fall of the score over the windows that hide a pixel; positive where the pixel speaks for the target.

    window, stride  pixels; 0 chooses a twelfth of the shorter side, at least 8, and half of that
    fill            mean (of the image, per channel), blur, noise (uniform, from the seed), inpaint (each window painted over
                    from around it), or a number in [0, 1]
    score           logit, probability or margin (against all other classes); margin for boxes, else logit

    incremental     where it is worth it, compute again only what the window can change and the score can see, which agrees
                    with whole passes to 1e-4 (checked at three windows of each call); false: every window by a whole pass.
                    Targets that are far apart are swept one by one where that takes less
    batch_size      windows at once; 0 chooses by the size of the image and by what is computed

    For more speed, with other numbers:
    channels_last   another layout in memory; moves scores in their last digits
    bf16            half precision (bfloat16) in convolutions and matrix products: scores are off by some hundredths, a note says
                    by how much; of use on processors that have instructions for it
    coarse_to_fine  N from 2 on: only every Nth window of the grid in both directions, then those around the quarter of them that
                    change the score most; between the others falls are interpolated: a spot that no coarse window hides is missed

    The target stays what it was on the unchanged image (same pixels, same proposal).  A window that the score
    cannot see has a fall of exactly 0.
    """
    decisions = [reading(decision, score) for decision in decisions]

    def scores_of(some: Sequence[Decision], half: bool = bf16) -> Score:
        def scores(images: Tensor) -> Tensor:
            with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=half):
                return model.score_table(images, some).float() if half else model.score_table(images, some)

        return scores

    plan = make_sweep(image, generator, window, stride, fill, batch_size, coarse=coarse_to_fine, half=bf16)
    singles = [scores_of([each]) for each in decisions] if len(decisions) > 1 else []
    with speed.channels_last(model.module, channels_last):
        maps = swept(plan, scores_of(decisions), progress, incremental=incremental, singles=singles, kept=kept)
        if not bf16:
            return maps
        shown = torch.cat([image, image.flip(-1), image.mean((-2, -1), keepdim=True).expand_as(image)])
        far = float((scores_of(decisions)(shown) - scores_of(decisions, half=False)(shown)).abs().max())
    return replace(maps, notes=(f"half precision moves the scores by up to {far:.2g} (this image, mirrored, and in one colour)",))


@method(
    "occlusion-drise",
    needs="predictions",
    about=About(
        means=(
            "Is the same box, region or class still found when a part of the image is hidden? A window moves over the image, and each "
            "pixel gets the mean loss of the best match over the windows that hid it. It needs only the final answer, so black boxes "
            "can be asked."
        ),
        paper="Windows of Zeiler and Fergus 2014, section 4.2; the match of Petsiuk et al. 2021, D-RISE",
        doubt="A final answer may jump to a neighbour of the class; best_match says under how many windows another box won.",
    ),
)
def occlusion_drise(
    model: Adapter,
    image: Tensor,
    decisions: Sequence[Decision],
    generator: torch.Generator,
    *,
    window: int = 0,
    stride: int = 0,
    fill: str = "mean",
    batch_size: int = 0,
    progress: Progress | None = None,
    kept: Kept | None = None,
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
    plan = make_sweep(image, generator, window, stride, fill, batch_size, name="occlusion-drise")
    matches, last = torch.full((len(plan.places), len(decisions), 4), torch.nan), list[list[Tensor | None]]()

    def watch(found: Sequence[Prediction]) -> None:
        last[:] = [[best_match(prediction, decision)[1] for decision in decisions] for prediction in found]

    def note(some: Sequence[int]) -> None:
        for index, row in zip(some, last, strict=False):  # the last batch ends in clean images
            for k, box in enumerate(row):
                if box is not None:
                    matches[index, k] = box

    scores = still_found(model, decisions, "occlusion-drise", watch)
    maps = swept(plan, scores, progress, kept=kept, beside={"matches": matches}, after=note)
    clean = model.predict(image)[0]
    details = [_matched(clean, decision, matches[:, k]) for k, decision in enumerate(decisions)]
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


def _matched(clean: Prediction, decision: Decision, matches: Tensor) -> Detail:
    """Which boxes of the unchanged image the best matches (windows, 4) were; NaN is none."""
    if clean.boxes is None or decision.box is None:
        return Detail()
    same = torch.where(clean.labels == decision.class_index)[0]
    places = torch.cat([decision.box[None].to(clean.boxes), clean.boxes[same]])
    names = ["target", *(f"box:{index}" for index in same.tolist())]
    # of equal overlaps numpy takes the first, which is the target
    won = Counter("none" if bool(box.isnan().any()) else names[int(box_iou(box[None], places)[0].numpy().argmax())] for box in matches)
    others = {name: won[name] for name in names[1:] if won[name]}
    told = ", ".join(f"{name} {times}" for name, times in others.items())
    kind = clean.classes[decision.class_index]
    notes = (f"under {sum(others.values())} of {len(matches)} windows the best match was another {kind}: {told}",) if others else ()
    return Detail({"best_match": {"target": won["target"], **others, "none": won["none"]}}, notes)


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
