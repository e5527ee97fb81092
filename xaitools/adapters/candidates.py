"""What a detector thinks of before suppression, differentiable down to the image: what attacks on detectors climb.

A detection is lost for good when no candidate near the object says its class any more, whichever of them suppression
would have chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..types import Sample

NEAR = 0.5
"""IoU from which a box counts as found."""


WITHIN_REACH = 0.2
"""IoU from which regression may turn a proposal into the box of an object."""

SHIFTS, SCALES = (-0.15, 0.0, 0.15), (0.8, 1.0, 1.25)
"""By which shares of their sides boxes are moved, and by what they are scaled; all of these overlap the box they come from."""


class Candidates(NamedTuple):
    """Of one image: boxes (A, C, 4) xyxy in pixels of the image, as regressed for each class, and the logs (A, C) of their scores."""

    boxes: Tensor
    log_scores: Tensor

    @property
    def log_silence(self) -> Tensor:
        """log(1 - score), (A, C)."""
        return (-torch.expm1(self.log_scores.clamp(max=-1e-30))).log()

    def near(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Rows (P,) of candidates and objects (P,): all pairs in which the candidate's box of the object's class is ``NEAR`` it.

        Of an object that none is near, the candidate that overlaps it most.  Objects that count neither way are left out.
        """
        truth, labels = objects_of(sample, self.boxes)
        if not len(labels) or not len(self.boxes):
            return labels[:0], labels[:0]
        places = self.boxes.detach()
        overlaps = torch.cat([box_iou(places[:, label], box[None]) for box, label in zip(truth, labels, strict=True)], 1)
        close = overlaps >= NEAR
        close[overlaps.argmax(0), torch.arange(len(labels))] = True
        rows, objects = torch.where(close)
        return rows, objects


def objects_of(sample: Sample, like: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (T, 4) and classes (T,) of the objects that count, on the device of ``like``."""
    if sample.boxes is None or sample.labels is None:
        return like.new_zeros((0, 4)), torch.zeros(0, dtype=torch.int64, device=like.device)
    counts = torch.ones(len(sample.labels), dtype=torch.bool) if sample.ignore is None else ~sample.ignore
    return sample.boxes[counts].to(like), sample.labels[counts].to(like.device)


def missed(found: Sequence[Candidates], samples: Sequence[Sample]) -> Tensor:
    """The log-probability (N,) that an object is missed or renamed: sum of log(1 - score of its class) over the candidates near
    it, mean over the objects of an image.  At most 0; 0 without objects."""
    losses = []
    for candidates, sample in zip(found, samples, strict=True):
        rows, objects = candidates.near(sample)
        _, labels = objects_of(sample, candidates.boxes)
        losses.append(candidates.log_silence[rows, labels[objects]].sum() / max(1, len(labels)))
    return torch.stack(losses)


def around(boxes: Tensor) -> Tensor:
    """Each of the boxes (T, 4) xyxy in 27 variants, moved and scaled a little (27 T, 4).

    >>> len(around(torch.tensor([[0.0, 0.0, 10.0, 10.0]]))), float(around(torch.tensor([[0.0, 0.0, 10.0, 10.0]]))[13, 2])
    (27, 10.0)
    """
    moves = torch.cartesian_prod(*map(torch.tensor, (SCALES, SHIFTS, SHIFTS))).to(boxes)
    sides, centres = boxes[:, None, 2:] - boxes[:, None, :2], (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    centres, halves = centres + moves[:, 1:] * sides, moves[:, :1] * sides / 2
    return torch.cat([centres - halves, centres + halves], 2).flatten(0, 1)


def near(proposals: Tensor, boxes: Tensor) -> Tensor:
    """Those of the proposals (P, 4) that overlap one of the boxes (T, 4) by ``WITHIN_REACH`` or more.

    >>> found = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 3.0], [0.0, 0.0, 10.0, 1.0]])
    >>> near(found, found[:1])[:, 3]
    tensor([10.,  3.])
    """
    return proposals[(box_iou(proposals, boxes) >= WITHIN_REACH).any(1)]
