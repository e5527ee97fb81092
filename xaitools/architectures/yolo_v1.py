"""YOLO (Redmon, Divvala, Girshick and Farhadi 2016): one grid, every cell says what is in it and where.

A cell gives B boxes with a confidence each, and class probabilities once for all of them (section 2).  A test-time
score is Pr(class | object) * confidence (equation 1); training minimises the sum of squares of equation 3.
Where we differ: seven or so narrow convolutions with batch normalisation (as in YOLO9000) instead of 24; the fully
connected head is a 1x1 convolution, so the grid is as large as the input allows; boxes, confidences and class
probabilities pass a logistic function, where the paper regresses them linearly; the loss is divided by the number
of objects.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError
from .base import ARCHITECTURES

COORD, NOOBJ = 5.0, 0.5
"""Weights of the boxes and of the confidence of empty boxes, lambda_coord and lambda_noobj of equation 3."""


def convolution(before: int, after: int, side: int = 3, stride: int = 1) -> nn.Sequential:
    """The activation is equation 2."""
    return nn.Sequential(
        nn.Conv2d(before, after, side, stride, side // 2, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.1, inplace=True)
    )


class Darknet(nn.Sequential):
    """(N, 3, H, W) -> (N, C, H / stride, W / stride), stride = 2 ** number of stages; H and W multiples of it.

    ``widths`` lists the convolutions of each stage.  The first is 7x7 with stride 2, as in the paper's figure 3, the
    others are 3x3; 2x2 max pooling lies between stages.
    """

    def __init__(self, widths: Sequence[Sequence[int]]) -> None:
        layers: list[nn.Module] = []
        before = 3
        for number, stage in enumerate(widths):
            layers += [nn.MaxPool2d(2)] if number else []
            for after in stage:
                layers.append(convolution(before, after) if layers else convolution(before, after, side=7, stride=2))
                before = after
        super().__init__(*layers)
        self.out_channels, self.stride = before, 2 ** len(widths)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2] % self.stride or x.shape[-1] % self.stride:
            raise ModelError(f"an input of {x.shape[-2]}x{x.shape[-1]}; expected multiples of {self.stride}, give size or multiple")
        return super().forward(x)


def cells(rows: int, columns: int, like: Tensor) -> Tensor:
    """(rows, columns, 2): x and y of the upper left corner of each cell, in cells."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([x, y], -1).to(like)


def corners(centres: Tensor, sides: Tensor) -> Tensor:
    """xyxy boxes (..., 4) from centres and sides (..., 2)."""
    return torch.cat([centres - sides / 2, centres + sides / 2], -1)


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """IoU (...) of each xyxy box with the one at the same place."""
    inside = (torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])).clamp(min=0).prod(-1)
    both = (one[..., 2:] - one[..., :2]).prod(-1) + (other[..., 2:] - other[..., :2]).prod(-1)
    return inside / (both - inside).clamp(min=1e-9)


@ARCHITECTURES.register("yolo-v1")
class YoloV1(nn.Module):
    """(N, 3, H, W) -> boxes (N, A, 4) xyxy in pixels of the input, logits (N, A, C) and objectness (N, A), as a dict.

    ``boxes`` is the paper's B; A = B * H / stride * W / stride, ordered by row, column and box.  All boxes of a cell
    share their class logits.  With ``conditional=False`` there is no objectness, so that a score is the class
    probability alone: what the factor is good for shows in the empty cells, where nothing taught the classes.
    """

    kind = "cell box"

    def __init__(
        self,
        classes: int,
        widths: Sequence[Sequence[int]] = ((16,), (32, 64), (96, 96), (128, 128, 128)),
        boxes: int = 2,
        conditional: bool = True,
    ) -> None:
        super().__init__()
        self.classes, self.boxes, self.conditional = classes, boxes, conditional
        self.backbone = Darknet(widths)
        self.head = nn.Conv2d(self.backbone.out_channels, classes + 5 * boxes, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits, confidence, place = self.parts(self.raw(x))
        count = confidence[0].numel()
        shared = torch.stack([logits] * self.boxes, 3)
        found = {"boxes": self.decoded(place).reshape(len(x), count, 4), "logits": shared.reshape(len(x), count, self.classes)}
        return found | ({"objectness": confidence.reshape(len(x), count)} if self.conditional else {})

    def priors(self, size: tuple[int, int]) -> Tensor:
        """xyxy (A, 4) in pixels of an input of ``size`` (H, W): the cell that each box belongs to."""
        rows, columns = (side // self.backbone.stride for side in size)
        corner = cells(rows, columns, torch.ones(()))
        return torch.cat([corner, corner + 1], -1).view(-1, 4).repeat_interleave(self.boxes, 0) * self.backbone.stride

    def raw(self, x: Tensor) -> Tensor:
        """The outputs of each cell before any squashing, (N, classes + 5 * boxes, rows, columns)."""
        return self.head(self.backbone(x))

    def parts(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each cell class logits (N, rows, columns, C), confidence logits (.., B), and where its boxes are (.., B, 4)."""
        raw = raw.permute(0, 2, 3, 1)
        place = raw[..., self.classes + self.boxes :]
        return raw[..., : self.classes], raw[..., self.classes : self.classes + self.boxes], place.reshape(*place.shape[:3], self.boxes, 4)

    def decoded(self, place: Tensor) -> Tensor:
        """xyxy in pixels: the centre within its cell, and the roots of width and height as shares of the image."""
        rows, columns = place.shape[1:3]
        place = place.sigmoid()
        centres = (cells(rows, columns, place)[:, :, None] + place[..., :2]) * self.backbone.stride
        return corners(centres, place[..., 2:] ** 2 * place.new_tensor([columns, rows]) * self.backbone.stride)

    def loss(self, raw: Tensor, owners: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """Equation 3 per object, for T objects: image of the batch (T,), xyxy in pixels of the input (T, 4), class (T,).

        Of several objects whose centres share a cell the first counts: a cell can say one class only.
        """
        logits, confidence, place = self.parts(raw)
        (rows, columns), stride = place.shape[1:3], self.backbone.stride
        decoded = self.decoded(place)
        centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2 / stride, boxes[:, 2:] - boxes[:, :2]
        x, y = centres[:, 0].long().clamp(0, columns - 1), centres[:, 1].long().clamp(0, rows - 1)
        first: dict[tuple[int, ...], int] = {}
        for position, cell in enumerate(torch.stack([owners, y, x], 1).tolist()):
            first.setdefault(tuple(cell), position)
        mine = torch.tensor(list(first.values()), dtype=torch.long)
        n, x, y, boxes, labels = owners[mine], x[mine], y[mine], boxes[mine], labels[mine]
        iou = overlap(decoded[n, y, x], boxes[:, None])
        responsible = iou.argmax(1)
        guess = place[n, y, x, responsible].sigmoid()
        within = centres[mine] - torch.stack([x, y], 1)
        roots = (sides[mine] / stride / boxes.new_tensor([columns, rows])).sqrt()
        coordinates = (guess[:, :2] - within).square().sum() + (guess[:, 2:] - roots).square().sum()
        truth, weight = torch.zeros_like(confidence), torch.full_like(confidence, NOOBJ)
        truth[n, y, x, responsible] = iou.detach().gather(1, responsible[:, None])[:, 0]
        weight[n, y, x, responsible] = 1.0
        objects = (weight * (confidence.sigmoid() - truth).square()).sum()
        kinds = (logits[n, y, x].sigmoid() - F.one_hot(labels, self.classes)).square().sum()
        return (COORD * coordinates + objects + kinds) / max(1, len(mine))
