"""Faster R-CNN (Ren et al. 2015) with a feature pyramid (Lin et al. 2017), small enough to ship.

The region proposal network, RoIAlign, heads and post-processing are torchvision's; the backbone is ours:
a plain convolutional network, halved in size at each stage, and a top-down path that brings context from the
coarsest map down to the finest.  Where we differ: one pyramid level is used for proposals and regions, and the
widths are a fraction of the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from .base import ARCHITECTURES


def block(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True))


class Pyramid(nn.Module):
    """(N, 3, H, W) -> {"0": (N, out_channels, H / s, W / s)}, s = 2 ** (level + 1).

    Stage i halves the size and has ``widths[i]`` channels.  Stages from ``level`` on are joined top-down.
    """

    def __init__(self, widths: Sequence[int], level: int, out_channels: int) -> None:
        super().__init__()
        self.level, self.out_channels = level, out_channels
        befores = [3, *widths[:-1]]
        self.stages = nn.ModuleList(
            nn.Sequential(block(before, after, stride=2), block(after, after)) for before, after in zip(befores, widths, strict=True)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, out_channels, 1) for width in widths[level:])
        self.smooth = block(out_channels, out_channels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        laterals = [conv(each) for conv, each in zip(self.lateral, maps[self.level :], strict=True)]
        top = laterals.pop()
        while laterals:
            below = laterals.pop()
            top = below + F.interpolate(top, size=below.shape[-2:], mode="nearest")
        return {"0": self.smooth(top)}


def two_stage(
    kind: type[FasterRCNN],
    classes: int,
    widths: Sequence[int] = (16, 32, 64, 96, 128),
    level: int = 2,
    out_channels: int = 64,
    hidden: int = 192,
    pool: int = 5,
    anchors: Sequence[int] = (16, 32, 64),
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
    side: int = 96,
    longest: int = 128,
    detections: int = 100,
    proposals: int = 200,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.25, 0.25, 0.25),
    **heads: nn.Module,
) -> Any:
    """torchvision's Faster R-CNN or a ``kind`` that has more ``heads``, on the pyramid above.

    ``classes`` without background; the shorter ``side`` and ``longest`` side of the input in pixels.
    """
    backbone = Pyramid(widths, level, out_channels)
    return kind(
        backbone,
        min_size=side, max_size=longest, image_mean=list(mean), image_std=list(std),
        rpn_anchor_generator=AnchorGenerator((tuple(anchors),), (tuple(ratios),)),
        rpn_pre_nms_top_n_train=600, rpn_post_nms_top_n_train=proposals,
        rpn_pre_nms_top_n_test=600, rpn_post_nms_top_n_test=proposals,
        rpn_batch_size_per_image=128, box_batch_size_per_image=96, box_detections_per_img=detections,
        box_roi_pool=MultiScaleRoIAlign(["0"], pool, 2),
        box_head=TwoMLPHead(out_channels * pool * pool, hidden),
        box_predictor=FastRCNNPredictor(hidden, classes + 1),
        **heads,
    )  # fmt: skip


@ARCHITECTURES.register("faster-rcnn")
def faster_rcnn(classes: int, **options: Any) -> FasterRCNN:
    """``options`` are those of ``two_stage``."""
    return two_stage(FasterRCNN, classes, **options)
