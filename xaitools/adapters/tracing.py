"""What tracing the final boxes of a detector back to their logits needs, whatever the family."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms, box_iou

from ..errors import ModelError
from ..types import BELOW, BEYOND, EMPTY, KEPT, SUPPRESSED, UNRANKED, Trace

EDGES = {"left": (0, -0.5), "top": (1, -0.5), "right": (0, 0.5), "bottom": (1, 0.5)}


@dataclass(frozen=True, eq=False)
class Judged:
    """All that a detector judged in one image, A candidates in C classes, and what suppression left of it.

    A pair is a number, candidate * C + class.

    logits, scores  (A, C)
    boxes           (A, C, 4) xyxy in the pixels in which overlaps were measured, clipped to the image
    whole           (A, C) bool: something of the box lies inside
    entered         pairs that suppression was given,
    survived        those it left, by falling score,
    kept            and those that became final boxes
    groups          (A,): candidates of different groups do not suppress each other; None: all may
    """

    logits: Tensor
    scores: Tensor
    boxes: Tensor
    whole: Tensor
    entered: Tensor
    survived: Tensor
    kept: Tensor
    groups: Tensor | None = None

    def split(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """The candidates and the classes of pairs."""
        outputs = self.scores.shape[1]
        return pairs // outputs, pairs % outputs


def traced(
    judged: Judged, scale: Tensor, size: tuple[int, int], *, score_threshold: float, nms: float, priors: Tensor | None = None, **rest: Any
) -> Trace:
    """What was judged as a ``Trace``; ``scale`` (4,) leads from boxes of the image to the boxes and ``priors`` (A, 4) given."""
    best = torch.arange(len(judged.scores), device=judged.scores.device) * judged.scores.shape[1] + judged.scores.argmax(1)
    pairs = torch.cat([torch.where(judged.scores.flatten() > score_threshold)[0], best, judged.kept]).unique()
    candidates, labels = judged.split(pairs)
    scores, boxes = judged.scores[candidates, labels], judged.boxes[candidates, labels]
    fates = torch.full_like(pairs, UNRANKED)
    fates[torch.isin(pairs, judged.entered)] = SUPPRESSED
    fates[torch.isin(pairs, judged.survived)] = BEYOND
    fates[~judged.whole[candidates, labels]] = EMPTY
    fates[scores <= score_threshold] = BELOW
    finals, kept = torch.full_like(pairs, -1), torch.searchsorted(pairs, judged.kept)
    fates[kept], finals[kept] = KEPT, torch.arange(len(kept), device=kept.device)
    groups = labels if judged.groups is None else labels + judged.scores.shape[1] * judged.groups[candidates]
    survivors = torch.searchsorted(pairs, judged.survived[torch.isin(judged.survived, pairs)])
    winners, overlaps = _winners(boxes, groups, fates == SUPPRESSED, survivors, nms)
    scale = scale.to(boxes)
    return Trace(
        image_size=size, score_threshold=score_threshold, nms=nms, candidates=candidates.cpu(), labels=labels.cpu(),
        logits=at_least_float32(judged.logits[candidates, labels]), scores=scores.float().cpu(), boxes=at_least_float32(boxes / scale),
        fates=fates.cpu(), finals=finals.cpu(), winners=winners.cpu(), overlaps=overlaps.float().cpu(),
        priors=None if priors is None else at_least_float32(priors.to(boxes)[candidates] / scale), **rest,
    )  # fmt: skip


def resuppressed(trace: Trace, score_threshold: float, nms: float) -> Trace:
    """``trace`` as it would be with a higher score threshold and another IoU; its first stage stays as it was.

    Raises ModelError for a threshold below the trace's own, whose rows are not all there.
    """
    if score_threshold < trace.score_threshold or not 0 <= nms <= 1:
        asked = f"score_threshold {score_threshold:g}, nms {nms:g}"
        raise ModelError(
            f"{asked}; expected a score from {trace.score_threshold:g} on, with which the model was asked, and an IoU of 0 to 1"
        )
    apart = (trace.fates == EMPTY) | (trace.fates == UNRANKED)
    entered = torch.where((trace.scores > score_threshold) & ~apart)[0]
    survived = entered[batched_nms(trace.boxes[entered].float(), trace.scores[entered], trace.labels[entered], nms)]
    fates, finals = torch.full_like(trace.fates, BELOW), torch.full_like(trace.finals, -1)
    above = trace.scores > score_threshold
    fates[apart & above] = trace.fates[apart & above]
    fates[entered], fates[survived] = SUPPRESSED, BEYOND
    kept = survived[: trace.most]
    fates[kept], finals[kept] = KEPT, torch.arange(len(kept))
    winners, overlaps = _winners(trace.boxes, trace.labels, fates == SUPPRESSED, survived, nms)
    return replace(trace, score_threshold=score_threshold, nms=nms, fates=fates, finals=finals, winners=winners, overlaps=overlaps.float())


def _winners(boxes: Tensor, groups: Tensor, lost: Tensor, survivors: Tensor, nms: float) -> tuple[Tensor, Tensor]:
    """Of each row the survivor that suppressed it and their IoU: the strongest of its group that overlaps it by more than ``nms``."""
    winners, overlaps = torch.full_like(groups, -1), torch.full_like(boxes[:, 0], torch.nan)
    for group in groups[lost].unique():
        losers, rivals = torch.where(lost & (groups == group))[0], survivors[groups[survivors] == group]
        iou = box_iou(boxes[losers], boxes[rivals])
        over = iou > nms
        # rounded otherwise than in the network's own suppression, a narrow win may look like none
        first = torch.where(over.any(1), over.int().argmax(1), iou.argmax(1))
        winners[losers], overlaps[losers] = rivals[first], iou.gather(1, first[:, None])[:, 0]
    return winners, overlaps


def only_resizing(transform: nn.Module) -> Any:
    """The transform without its normalisation: the explained input is the normalised image at its own size."""
    copied: Any = copy.deepcopy(transform).eval()
    copied.image_mean, copied.image_std = [0.0] * 3, [1.0] * 3
    return copied


def scale_of(shape: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Factors (4,) from boxes of the image to boxes of the network's input."""
    down, right = shape[0] / size[0], shape[1] / size[1]
    return torch.tensor([right, down, right, down], dtype=torch.float64)


def onto_image(transform: nn.Module, maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (N, C, h, w) that tile what a ``transform`` makes of an image of ``size``, as maps over that image."""
    batch, _ = transform([maps.new_zeros((3, *size))], None)
    padded, (height, width) = batch.tensors.shape[-2:], batch.image_sizes[0]
    return F.interpolate(F.interpolate(maps, padded, mode="bilinear")[..., :height, :width], size, mode="bilinear")


def at_least_float32(values: Tensor) -> Tensor:
    return values.to("cpu", torch.promote_types(values.dtype, torch.float32))


def edge_move(deltas: Tensor, weights: Sequence[float], edge: str) -> Tensor:
    """How far the outputs (4,) of a ``BoxCoder`` move an edge to larger coordinates, in sides of the box they start from.

    To first order: the offset of the centre plus or minus half the log of the side.
    """
    axis, half = EDGES[edge]
    return deltas[axis] / weights[axis] + half * deltas[axis + 2] / weights[axis + 2]


def check_trace(name: str, own: Mapping[str, Tensor], **traced: Tensor) -> None:
    """Refuses a network whose post-processing is not the one that was traced."""
    for part, found in traced.items():
        if len(own[part]) != len(found):
            raise ModelError(f"{name}: the trace found {len(found)} {part}, the network {len(own[part])}; give this build as a black box")
        if not torch.equal(own[part], found):
            raise ModelError(f"{name}: traced {part} differ from the network's own; give this build as a black box")


@contextmanager
def lowered(part: Any, threshold: float) -> Iterator[None]:
    """The network's own ``score_thresh`` is at most ``threshold`` inside."""
    before = part.score_thresh
    part.score_thresh = min(before, threshold)
    try:
        yield
    finally:
        part.score_thresh = before


@contextmanager
def outputs_of(*parts: nn.Module | None) -> Iterator[list[list[Any]]]:
    """What each module gives inside, call after call."""
    outputs: list[list[Any]] = [[] for _ in parts]
    hooks = [
        part.register_forward_hook(lambda module, inputs, output, into=into: into.append(output))
        for part, into in zip(parts, outputs, strict=True)
        if part is not None
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
