"""What if it were not there?  Whole objects are taken out of the image, and the fall of the score is the answer.

Each object is painted over with what is behind it (see ``data.fill``), so that what remains looks like a picture, which a
grey window does not; how much a model minds the painting itself is what ``audit.counterfactual`` measures beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..adapters import Adapter
from ..data import Dataset
from ..data.fill import fill
from ..data.objects import extents
from ..data.present import BACKGROUND, Contents, annotated, predicted
from ..errors import MethodError
from ..registry import About
from ..types import Decision, Sample
from .base import Detail, Maps, Progress, default_score, method
from .occlusion import reading, still_found
from .sweep import filled

SCORES = ("logit", "probability", "margin", "found")
STILL = "still found"
"""What ``found`` is called in reports, as for ``occlusion-drise``."""

ITSELF = 0.5
"""Overlap from which a removed part is what the target speaks of."""

Score = Callable[[Tensor], Tensor]
"""Images (N, 3, H, W) -> explained numbers (K, N)."""


@dataclass(frozen=True, eq=False)
class Removal:
    """What is taken out: its name, that of its class, and the pixels (H, W) that no longer show it."""

    name: str
    kind: str
    hole: Tensor


@method(
    "counterfactual",
    needs="predictions",
    about=About(
        means=(
            "How far does the score fall when one object, or all of the background, were not there? Each is painted over as a whole, "
            "and its pixels show the fall. It speaks of things that have a name, where a window hides squares."
        ),
        paper="Close to Shetty, Schiele and Fritz 2019, Not Using the Car to See the Sidewalk",
        doubt=(
            "Painting leaves traces that may cost something by themselves, and an object that was not annotated or found cannot be "
            "taken out."
        ),
    ),
)
def counterfactual(
    model: Adapter,
    image: Tensor,
    decisions: Sequence[Decision],
    generator: torch.Generator,
    *,
    score: str | None = None,
    background: str = "mean",
    most: int = 60,
    batch_size: int = 8,
    sample: Sample | None = None,
    data: Dataset | None = None,
    truth_classes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Maps:
    """How much the score falls when an object, a segment or the background is taken out as a whole; for black boxes too.

    The objects are the annotated ones where the sample has masks, boxes or a class map, else those that the model finds
    itself; ``objects`` says which.  Classes of a map that are no objects are segments, each taken out as a whole.  A pixel
    has the mean fall over the removed parts that cover it, and the falls stand in ``falls`` part by part, the largest first:
    ``{"object": "car 0", "fall": 1.5, "covers": 0.02, "itself": False}``.

    itself      whether the part is what the target speaks of, so that its fall says nothing of the company it keeps: it
                overlaps the target's box by an IoU of 0.5, holds half of its region or lies half in it, or has its class
                where the target has no place
    covers      share of the target's box or region that went with the part; None where the target has no place

    score       logit, probability, margin (against all other classes), or found (see ``occlusion-drise``); margin for boxes,
                else logit, and found for black boxes
    background  what all that no object covers becomes, in one piece: mean (its mean colour), or what ``occlusion.fill`` takes
    most        objects and segments that are taken out; of more, the largest (of boxes found, the surest).  Pixels of the
                rest are 0

    Objects are painted over with what lies around them, a margin for shadows with them; other objects keep all their pixels
    and are not copied from.  The target stays what it was on the unchanged image (same pixels, same proposal).
    """
    if most < 1 or batch_size < 1:
        raise MethodError(f"counterfactual.most={most}, batch_size={batch_size}; they must be at least 1")
    height, width = int(image.shape[-2]), int(image.shape[-1])
    contents, source = _contents(model, image, sample, data, truth_classes)
    behind = filled(image, background, max(8, min(height, width) // 12), generator, "counterfactual.background")[0]
    asked = _asked(model, decisions, score)
    chosen = _chosen(contents, most, source)
    removals = [Removal(part.name, part.kind, part.mask) for part in (contents.parts[place] for place in chosen)]
    if bool(contents.background.any()):
        removals.append(Removal(BACKGROUND, BACKGROUND, contents.background))

    def changed() -> Iterator[Tensor]:
        for removal in removals:
            if removal.name == BACKGROUND:
                yield without_background(image[0], removal.hole, behind if background != "mean" else None)
            else:
                yield without(image[0], removal.hole, contents.things)

    clean, falls = falls_of(asked, image[0], changed(), len(removals), batch_size, progress)
    values, covers = torch.zeros(len(decisions), height, width, dtype=torch.float64), torch.zeros(height, width, dtype=torch.float64)
    for column, removal in enumerate(removals):
        values += falls[:, column, None, None] * removal.hole
        covers += removal.hole
    left_out = len(contents.parts) - len(chosen)
    details = [
        _detail(model, decision, score, removals, falls[row].tolist(), left_out) for row, decision in enumerate(decisions)
    ]  # fmt: skip
    used = {"objects": source, "removed": len(removals)}
    return Maps((values / covers.clamp(min=1)).float(), clean, used=used, details=details)


# -- shared with the table over a dataset


def score_name(model: Adapter, decision: Decision, score: str | None) -> str:
    """What ``score`` asks for, where it may be None; one line where nobody knows it."""
    if score is None:
        return STILL if model.black_box else default_score(decision)
    if score not in (*SCORES, STILL):
        raise MethodError(f"score={score!r}; expected {', '.join(SCORES)}")
    return STILL if score == "found" else score


def read_off(model: Adapter, decisions: Sequence[Decision]) -> Score:
    """The explained number of each target."""

    def scores(images: Tensor) -> Tensor:
        with torch.no_grad():
            return model.score_table(images, decisions).double().cpu()

    return scores


def without(image: Tensor, hole: Tensor, things: Tensor) -> Tensor:
    """``image`` (3, H, W) with ``hole`` (H, W) painted over; all other pixels of ``things`` (H, W) stay."""
    return fill(image, hole, things & ~hole).to(image)


def without_background(image: Tensor, hole: Tensor, behind: Tensor | None = None) -> Tensor:
    """``image`` (3, H, W) with ``hole`` (H, W) in its own mean colour, or as it is in ``behind`` (3, H, W)."""
    if behind is None:
        behind = image[:, hole].mean(1)[:, None, None].expand_as(image)
    return torch.where(hole, behind, image)


def falls_of(
    score: Score, image: Tensor, changed: Iterator[Tensor], count: int, batch_size: int, progress: Progress | None = None
) -> tuple[Tensor, Tensor]:
    """The scores (K,) of ``image`` (3, H, W), and their falls (K, N) on the N = ``count`` images ``changed``.

    The clean image stands at the same place of an equal batch, so that no change is exactly 0.
    """
    size = max(1, min(batch_size, count))
    clean = score(image.expand(size, -1, -1, -1))
    falls = torch.zeros(len(clean), count, dtype=torch.float64)
    for start in range(0, count, size):
        batch = image.repeat(size, 1, 1, 1)
        filled_up = min(size, count - start)
        for row in range(filled_up):
            batch[row] = next(changed)
        falls[:, start : start + filled_up] = (clean - score(batch)).double().cpu()[:, :filled_up]
        if progress is not None:
            progress(start + filled_up, count)
    return clean[:, 0].double().cpu(), falls


# -- what is taken out, and what of it is the target itself


def _contents(
    model: Adapter, image: Tensor, sample: Sample | None, data: Dataset | None, truth_classes: Sequence[str]
) -> tuple[Contents, str]:  # fmt: skip
    if sample is not None:
        names = ((), truth_classes, None) if data is None else (data.classes, data.semantic_classes, data.things)
        if (contents := annotated(sample, *names)) is not None:
            return contents, "annotated"
    contents = predicted(model.predict(image)[0])
    if contents is None:
        raise MethodError(
            f"counterfactual takes out objects: a {model.task} model finds none and the image has no annotated ones; "
            "give a dataset with masks, boxes or class maps, or take occlusion"
        )
    return contents, "predicted"


def _asked(model: Adapter, decisions: Sequence[Decision], score: str | None) -> Score:
    """One function for all targets, whatever each of them is read by."""
    names = [score_name(model, decision, score) for decision in decisions]
    if STILL in names:  # of one model either all or none
        return still_found(model, decisions, "score=found")
    return read_off(model, [reading(decision, name) for decision, name in zip(decisions, names, strict=True)])


def _chosen(contents: Contents, most: int, source: str) -> list[int]:
    """Places of the parts that are taken out, in their order; a part without pixels is none."""
    areas = [int(part.mask.sum()) for part in contents.parts]
    places = [place for place, area in enumerate(areas) if area]
    if len(places) > most:
        places = places[:most] if source == "predicted" else sorted(sorted(places, key=lambda place: -areas[place])[:most])
    return places


def _detail(
    model: Adapter, decision: Decision, score: str | None, removals: Sequence[Removal], falls: Sequence[float], left_out: int
) -> Detail:  # fmt: skip
    rows: list[dict[str, Any]] = []
    for removal, fall in zip(removals, falls, strict=True):
        covers, itself = of_target(removal, decision, model.classes)
        rows.append({"object": removal.name, "fall": fall, "covers": covers, "itself": itself})
    if rows[-1]["object"] == BACKGROUND:  # which is in every box; it is the target only where no object is
        rows[-1]["itself"] &= not any(row["itself"] for row in rows[:-1])
    rows.sort(key=lambda row: -row["fall"])
    notes = [f"without {row['object']}, the target itself: {_moves(row)}" for row in rows if row["itself"]][:1]
    others = [row for row in rows if not row["itself"]]
    if others:
        strongest = max(others, key=lambda row: abs(row["fall"]))
        notes.append(f"without {strongest['object']}, of {len(others)} other{'s' * (len(others) > 1)} the strongest: {_moves(strongest)}")
    if left_out:
        notes.append(f"{left_out} more objects were not taken out; see counterfactual.most")
    return Detail(used={"score": score_name(model, decision, score), "falls": rows}, notes=tuple(notes))


def _moves(row: Mapping[str, Any]) -> str:
    return f"{'falls' if row['fall'] >= 0 else 'rises'} by {abs(row['fall']):.3g}"


def of_target(removal: Removal, decision: Decision, classes: Sequence[str]) -> tuple[float | None, bool]:
    """What share of the target's place goes with a removal, and whether what is removed is the target itself."""
    hole = removal.hole
    if decision.box is not None:
        box = decision.box.double()
        inside = _inside(box, hole)
        covers = float(inside / ((box[2:] - box[:2]).clamp(min=0).prod()).clamp(min=1e-9))
        if removal.name == BACKGROUND:
            return covers, covers >= ITSELF
        overlap = box_iou(box[None], torch.tensor(extents(hole[None]), dtype=torch.float64))
        return covers, float(overlap) >= ITSELF
    if decision.region is not None and not bool(decision.region.all()):
        shared, region = int((decision.region & hole).sum()), int(decision.region.sum())
        return shared / region, shared >= ITSELF * min(region, int(hole.sum()))
    return None, classes[decision.class_index].casefold() == removal.kind.casefold()


def _inside(box: Tensor, hole: Tensor) -> Tensor:
    """Area in square pixels that ``box`` (4,) shares with ``hole`` (H, W)."""
    sides = [
        (torch.arange(length, dtype=torch.float64) + 1).clamp(max=float(box[axis + 2]))
        - torch.arange(length, dtype=torch.float64).clamp(min=float(box[axis]))
        for axis, length in ((1, hole.shape[0]), (0, hole.shape[1]))
    ]
    down, across = (side.clamp(min=0) for side in sides)
    return down @ hole.double() @ across
