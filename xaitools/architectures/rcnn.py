"""R-CNN (Girshick, Donahue, Darrell and Malik 2014): every proposal is cut out, warped, and judged by itself.

Figure 1 of the paper: selective search proposes; each region is warped to a fixed square with some context around it
(appendix A); an AlexNet turns it into features; for each class a linear SVM says yes or no (section 2.2) and a linear
regression on the last pooled map moves the box (appendix C); suppression is class by class.  Training has three stages:
fine-tuning as a classifier of regions (section 2.3), then the SVMs with hard negatives, then the regressors; see
``training.rcnn``.  Where we differ: the AlexNet has an eighth of the widths and is trained from random weights; the
region is cut out by bilinear interpolation, so that a margin can be led back through the crop to the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import batched_nms, clip_boxes_to_image, roi_align

from .alexnet import AlexNet
from .base import ARCHITECTURES
from .selective_search import ExactResize, SelectiveSearch

STEEPNESS = 4.0
"""A score is the logistic function of so many margins: the edges of the SVM, -1 and 1, read 0.02 and 0.98."""


class Pixels(nn.Module):
    """The image is its own feature map."""

    out_channels = 3

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"0": x}


class Warp(nn.Module):
    """(images, boxes of each image, sizes) -> crops (R, 3, side, side), ``context`` of whose pixels lie outside the box on each side.

    What lies outside the image is 0, the mean colour of normalised images.
    """

    def __init__(self, side: int, context: int) -> None:
        super().__init__()
        self.side, self.context = side, context

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        half = self.side / (self.side - 2 * self.context) / 2
        wide = []
        for each in boxes:
            centres, sides = (each[:, :2] + each[:, 2:]) / 2, each[:, 2:] - each[:, :2]
            wide.append(torch.cat([centres - sides * half, centres + sides * half], 1))
        return roi_align(features["0"], wide, self.side, sampling_ratio=2, aligned=True)


class RegionPredictor(nn.Module):
    """Last pooled maps (R, F) -> margins (R, 1 + classes) and offsets (R, 4 * (1 + classes)).

    Output 0 is "nothing", whose margin is 0 once the SVMs are fitted.
    """

    def __init__(self, network: AlexNet, classes: int) -> None:
        super().__init__()
        first, *layers, last = network.classifier
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        self.features = nn.Sequential(first, *layers)
        self.cls_score = nn.Linear(last.in_features, classes + 1)
        self.bbox_pred = nn.Linear(first.in_features, 4 * (classes + 1))
        nn.init.zeros_(self.bbox_pred.weight)
        nn.init.zeros_(self.bbox_pred.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(self.features(pooled)), self.bbox_pred(pooled)


class RegionHeads(RoIHeads):
    """torchvision's second stage, in which every class is judged by itself and boxes are no part of the first training."""

    def inherit(self, network: AlexNet) -> None:
        """Begins where a classifier of the same widths ended (section 2.3: pre-training, then fine-tuning on regions)."""
        box_head: Any = self.box_head
        box_head[0].load_state_dict(network.features.state_dict())
        self.box_predictor.features.load_state_dict(network.classifier[:-1].state_dict())

    def class_scores(self, logits: Tensor) -> Tensor:
        """In [0, 1], each class against nothing; column 0 is of no use."""
        return (STEEPNESS * (logits - logits[..., :1])).sigmoid()

    def forward(self, *args: Any, **kwargs: Any) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        found, losses = super().forward(*args, **kwargs)
        losses.pop("loss_box_reg", None)
        return found, losses

    def postprocess_detections(
        self, class_logits: Tensor, box_regression: Tensor, proposals: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        counts = [len(each) for each in proposals]
        scores = self.class_scores(class_logits)[:, 1:].split(counts)
        decoded = self.box_coder.decode(box_regression, proposals)[:, 1:].split(counts)
        found = [self._suppressed(*each) for each in zip(decoded, scores, image_shapes, strict=True)]
        boxes, kept, labels = (list(part) for part in zip(*found, strict=True))
        return boxes, kept, labels

    def _suppressed(self, boxes: Tensor, scores: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        boxes = clip_boxes_to_image(boxes, shape)
        large = ((boxes[..., 2:] - boxes[..., :2]) >= 1e-2).all(-1)
        rows, classes = torch.where((scores > self.score_thresh) & large)
        boxes, scores = boxes[rows, classes], scores[rows, classes]
        keep = batched_nms(boxes, scores, classes, self.nms_thresh)[: self.detections_per_img]
        return boxes[keep], scores[keep], classes[keep] + 1


@ARCHITECTURES.register("rcnn")
def rcnn(
    classes: int,
    crop: int = 56,
    context: int = 4,
    divide: int = 8,
    grid: int = 2,
    side: int = 96,
    longest: int = 128,
    detections: int = 20,
    scale: int = 40,
    smallest: int = 6,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.25, 0.25, 0.25),
) -> GeneralizedRCNN:
    """``classes`` without background; regions are warped to ``crop`` x ``crop`` pixels.

    ``divide`` and ``grid`` are those of ``AlexNet``, ``scale`` and ``smallest`` of ``SelectiveSearch``.
    """
    network = AlexNet(classes, divide=divide, grid=grid)
    heads = RegionHeads(
        Warp(crop, context), nn.Sequential(network.features, nn.Flatten()), RegionPredictor(network, classes),
        fg_iou_thresh=0.5, bg_iou_thresh=0.5, batch_size_per_image=32, positive_fraction=0.25, bbox_reg_weights=(1.0, 1.0, 1.0, 1.0),
        score_thresh=0.05, nms_thresh=0.3, detections_per_img=detections,
    )  # fmt: skip
    search, resize = SelectiveSearch(mean, std, scale, smallest=smallest), ExactResize(side, longest, list(mean), list(std))
    return GeneralizedRCNN(Pixels(), search, heads, resize)
