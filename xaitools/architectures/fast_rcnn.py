"""Fast R-CNN (Girshick 2015): the image passes the network once, every proposal is pooled from its map.

Figure 1 of the paper: selective search proposes, RoI max pooling cuts a fixed grid out of the shared map (section 2.1),
and two fully connected layers end in a softmax over the classes and background and in a box regressor for each class.
Sampling and the multi-task loss are torchvision's (section 2.3; a negative may lie anywhere, the paper wants an overlap
of at least 0.1).  Where we differ: a small backbone with a top-down path, the one of our Faster R-CNN, in place of VGG-16.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import roi_pool

from .base import ARCHITECTURES
from .faster_rcnn import Pyramid
from .selective_search import ExactResize, SelectiveSearch


class RoIPool(nn.Module):
    """(maps, boxes of each image, sizes) -> (R, C, cells, cells), the largest value in each cell; one map, of ``stride``."""

    def __init__(self, cells: int, stride: int) -> None:
        super().__init__()
        self.cells, self.stride = cells, stride

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        maps = features["0"].to(boxes[0].dtype)  # the maps may come in half precision
        return roi_pool(maps, boxes, self.cells, 1 / self.stride)


@ARCHITECTURES.register("fast-rcnn")
def fast_rcnn(
    classes: int,
    widths: Sequence[int] = (16, 32, 64, 96, 96),
    level: int = 1,
    out_channels: int = 64,
    hidden: int = 160,
    pool: int = 5,
    side: int = 96,
    longest: int = 128,
    detections: int = 20,
    scale: int = 40,
    smallest: int = 6,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.25, 0.25, 0.25),
) -> GeneralizedRCNN:
    """``classes`` without background; ``scale`` and ``smallest`` are those of ``SelectiveSearch``, the rest of ``two_stage``."""
    heads = RoIHeads(
        RoIPool(pool, 2 ** (level + 1)), TwoMLPHead(out_channels * pool**2, hidden), FastRCNNPredictor(hidden, classes + 1),
        fg_iou_thresh=0.5, bg_iou_thresh=0.5, batch_size_per_image=64, positive_fraction=0.25, bbox_reg_weights=None,
        score_thresh=0.05, nms_thresh=0.5, detections_per_img=detections,
    )  # fmt: skip
    search, resize = SelectiveSearch(mean, std, scale, smallest=smallest), ExactResize(side, longest, list(mean), list(std))
    return GeneralizedRCNN(Pyramid(widths, level, out_channels), search, heads, resize)
