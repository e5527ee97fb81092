"""Mask R-CNN (He et al. 2017): our small Faster R-CNN with a third head that draws a mask in each box.

The head is the paper's fully convolutional one (figure 4, right), one logit map per class, so that masks do not
compete between classes (section 3); losses and post-processing are torchvision's.  Where we differ: fewer and
narrower layers than the paper's four of 256.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from .base import ARCHITECTURES
from .faster_rcnn import two_stage


@ARCHITECTURES.register("mask-rcnn")
def mask_rcnn(classes: int, out_channels: int = 64, mask_widths: Sequence[int] = (32, 32), mask_pool: int = 10, **options: Any) -> MaskRCNN:
    """Masks have twice ``mask_pool`` cells a side; ``options`` are those of ``two_stage``."""
    return two_stage(
        MaskRCNN, classes, out_channels=out_channels, **options,
        mask_roi_pool=MultiScaleRoIAlign(["0"], mask_pool, 2),
        mask_head=MaskRCNNHeads(out_channels, tuple(mask_widths), 1),
        mask_predictor=MaskRCNNPredictor(mask_widths[-1], mask_widths[-1], classes + 1),
    )  # fmt: skip
