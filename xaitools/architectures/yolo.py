"""YOLO with anchors (YOLO9000, Redmon and Farhadi 2017; YOLOv3, 2018): several boxes per cell, each with its own classes.

Every box starts from an anchor, whose sides are the centres of a k-means clustering of the training boxes with
1 - IoU as the distance (YOLO9000, section 2).  Centres are bound to their cell by a logistic function, sides are the
anchor's times an exponential.  Classes are judged one by one (YOLOv3, section 2.2).
Where we differ: a narrow network and one scale; the boxes are taught by the root of their squared error, which is
not small where the error is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_iou

from .base import ARCHITECTURES
from .yolo_v1 import Darknet, cells, corners, overlap

IGNORED = 0.5
"""A box that overlaps an object more than this, and is not the one for it, is not taught to be empty (YOLOv3, section 2.1)."""

RARE = 0.01
"""What the objectness of every box is before training; nearly all boxes are empty."""


@ARCHITECTURES.register("yolo")
class Yolo(nn.Module):
    """(N, 3, H, W) -> boxes (N, A, 4) xyxy in pixels of the input, logits (N, A, C) and objectness (N, A), as a dict.

    ``anchors`` are widths and heights in pixels of the input; A = rows * columns * anchors, in that order.
    """

    kind = "anchor"

    def __init__(
        self,
        classes: int,
        anchors: Sequence[Sequence[float]] = ((16, 16), (28, 28), (44, 44)),
        widths: Sequence[Sequence[int]] = ((16,), (32, 64), (96, 96, 96, 96)),
    ) -> None:
        super().__init__()
        self.classes, self.anchors = classes, [tuple(map(float, each)) for each in anchors]
        self.backbone = Darknet(widths)
        self.head = nn.Conv2d(self.backbone.out_channels, len(anchors) * (5 + classes), 1)
        assert self.head.bias is not None
        with torch.no_grad():
            self.head.bias.view(len(anchors), -1)[:, 4] = torch.tensor(RARE).logit()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        raw = self.parts(self.raw(x))
        flat = raw.flatten(1, 3)
        return {"boxes": self.decoded(raw[..., :4]).flatten(1, 3), "logits": flat[..., 5:], "objectness": flat[..., 4]}

    def priors(self, size: tuple[int, int]) -> Tensor:
        """xyxy (A, 4) in pixels of an input of ``size`` (H, W): where each box starts, its anchor in the middle of its cell."""
        anchors = torch.tensor(self.anchors)
        rows, columns = (side // self.backbone.stride for side in size)
        centres = (cells(rows, columns, anchors)[:, :, None] + 0.5) * self.backbone.stride
        return corners(centres.expand(-1, -1, len(anchors), -1), anchors.expand(rows, columns, -1, -1)).flatten(0, 2)

    def raw(self, x: Tensor) -> Tensor:
        """The outputs of each cell before any squashing, (N, anchors * (5 + classes), rows, columns)."""
        return self.head(self.backbone(x))

    def parts(self, raw: Tensor) -> Tensor:
        """(N, rows, columns, anchors, 5 + classes): where the box is, objectness, classes."""
        n, _, rows, columns = raw.shape
        return raw.view(n, len(self.anchors), 5 + self.classes, rows, columns).permute(0, 3, 4, 1, 2)

    def decoded(self, place: Tensor) -> Tensor:
        """xyxy in pixels from t_x, t_y, t_w, t_h (YOLO9000, figure 3)."""
        rows, columns = place.shape[1:3]
        centres = (cells(rows, columns, place)[:, :, None] + place[..., :2].sigmoid()) * self.backbone.stride
        return corners(centres, place.new_tensor(self.anchors) * place[..., 2:].clamp(max=8.0).exp())

    def loss(self, raw: Tensor, owners: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """Per object, for T objects: image of the batch (T,), xyxy in pixels of the input (T, 4), class (T,).

        The root of the squared error of the box plus binary cross-entropies of objectness and of the classes.  The
        anchor whose shape is nearest to the object is responsible, in the cell of the object's centre.
        """
        parts = self.parts(raw)
        rows, columns = parts.shape[1:3]
        centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2 / self.backbone.stride, boxes[:, 2:] - boxes[:, :2]
        x, y = centres[:, 0].long().clamp(0, columns - 1), centres[:, 1].long().clamp(0, rows - 1)
        anchors = boxes.new_tensor(self.anchors)
        nearest = shape_overlaps(sides, anchors).argmax(1)
        mine = parts[owners, y, x, nearest]
        off = torch.cat([mine[:, :2].sigmoid() - (centres - torch.stack([x, y], 1)), mine[:, 2:4] - (sides / anchors[nearest]).log()], 1)
        # small boxes count up to twice, as in the authors' own program
        small = 2 - sides.prod(1) / (rows * columns * self.backbone.stride**2)
        places = (small * (off.square().sum(1) + 1e-8).sqrt()).sum()
        kinds = F.binary_cross_entropy_with_logits(mine[:, 5:], F.one_hot(labels, self.classes).to(mine), reduction="sum")
        truth = torch.zeros_like(parts[..., 4])
        truth[owners, y, x, nearest] = 1.0
        with torch.no_grad():
            decoded = self.decoded(parts[..., :4]).flatten(1, 3)
            near = torch.stack([best_overlaps(each, boxes[owners == n]) for n, each in enumerate(decoded)]) > IGNORED
            counts = (truth > 0) | ~near.view_as(truth)
        objects = F.binary_cross_entropy_with_logits(parts[..., 4][counts], truth[counts], reduction="sum")
        return (places + objects + kinds) / max(1, len(boxes))


def best_overlaps(boxes: Tensor, truths: Tensor) -> Tensor:
    """For boxes (A, 4) the highest IoU with any of the truths (T, 4), 0 where there is none."""
    return box_iou(boxes, truths).max(1).values if len(truths) else boxes.new_zeros(len(boxes))


def shape_overlaps(sides: Tensor, anchors: Tensor) -> Tensor:
    """IoU (T, K) of boxes with sides (T, 2) and anchors (K, 2) when their centres coincide."""
    return overlap(corners(torch.zeros_like(sides), sides)[:, None], corners(torch.zeros_like(anchors), anchors)[None])


def cluster_anchors(sides: Tensor, count: int, rounds: int = 100) -> Tensor:
    """``count`` anchors (count, 2) for boxes with these sides (T, 2), the smallest first: k-means by 1 - IoU.

    It starts from the boxes at equal steps of area, so the same boxes give the same anchors.

    >>> cluster_anchors(torch.tensor([[10.0, 10.0], [12.0, 10.0], [40.0, 20.0], [40.0, 22.0]]), 2)
    tensor([[11., 10.],
            [40., 21.]])
    """
    ordered = sides[sides.prod(1).argsort()]
    anchors = ordered[((torch.arange(count) + 0.5) / count * len(sides)).long()]
    for _ in range(rounds):
        nearest = shape_overlaps(sides, anchors).argmax(1)
        moved = torch.stack([sides[nearest == k].mean(0) if bool((nearest == k).any()) else anchors[k] for k in range(count)])
        if torch.equal(moved, anchors):
            break
        anchors = moved
    return anchors[anchors.prod(1).argsort()]
