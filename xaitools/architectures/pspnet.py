"""PSPNet (Zhao et al. 2017, figure 3), with the widths divided so that the file stays small.

A residual network whose last two stages are dilated instead of made smaller; a pyramid of averages over 1, 2, 3 and 6
cells a side, each narrowed by a 1x1 convolution, brought back to the size of the map and put beside it; one 3x3 and one
1x1 convolution; the logits are brought to the size of the image.  Where we differ: basic blocks as in ResNet-18, two a
stage; ``widths`` are a fraction of the paper's; the map has 1 / ``stride`` of the image's size, 8 in the paper and 4 for
small images, where the max pooling of the stem is left out; no auxiliary loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError
from .base import ARCHITECTURES
from .resnet import conv, stage

BINS = (1, 2, 3, 6)


class Pyramid(nn.Module):
    """(N, C, H, W) -> (N, 2 C, H, W): the map and, from coarse to fine, its averages over ``BINS`` cells a side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Sequential(conv(width, width // len(BINS), 1), nn.ReLU(inplace=True)) for _ in BINS)

    def forward(self, x: Tensor) -> Tensor:
        averages = [level(F.adaptive_avg_pool2d(x, bins)) for level, bins in zip(self.levels, BINS, strict=True)]
        return torch.cat([x, *(F.interpolate(each, x.shape[-2:], mode="bilinear") for each in averages)], dim=1)


@ARCHITECTURES.register("pspnet")
class PSPNet(nn.Module):
    """(N, 3, H, W) -> logits (N, classes, H, W), for any size."""

    def __init__(self, classes: int, widths: Sequence[int] = (32, 48, 64, 96), stride: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        if stride not in (4, 8):
            raise ModelError(f"pspnet: stride {stride}; expected 4 or 8")
        a, b, c, d = widths
        self.stem = nn.Sequential(conv(3, a // 2, 3, stride=2), nn.ReLU(inplace=True), conv(a // 2, a), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, 2, 1) if stride == 8 else nn.Identity()
        self.stages = nn.Sequential(stage(a, a), stage(a, b, stride=2), stage(b, c, dilation=2), stage(c, d, dilation=4))
        self.pyramid = Pyramid(d)
        self.head = nn.Sequential(conv(2 * d, d), nn.ReLU(inplace=True), nn.Dropout2d(dropout), nn.Conv2d(d, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(self.pyramid(self.stages(self.pool(self.stem(x)))))
        return F.interpolate(logits, x.shape[-2:], mode="bilinear")
