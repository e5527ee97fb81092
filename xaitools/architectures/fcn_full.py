"""A fully convolutional network at full resolution, without any downsampling: the first idea of a segmenter.

Plain 3x3 convolutions and ReLU, all at the size of the image, then a 1x1 convolution (Long, Shelhamer and Darrell 2015
discuss why this is not done).  Each layer is as dear as the first of a U-Net, and after ``depth`` of them a pixel has
seen no more than 2 ``depth`` + 1 pixels a side: the cost and the narrow view are what it is here to show.
"""

from __future__ import annotations

from torch import Tensor, nn

from .base import ARCHITECTURES
from .vgg import convolutions


@ARCHITECTURES.register("fcn-full")
class FullFCN(nn.Module):
    """(N, 3, H, W) -> logits (N, classes, H, W), for any size."""

    def __init__(self, classes: int, width: int = 16, depth: int = 12) -> None:
        super().__init__()
        self.features = convolutions(3, width, depth)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))
