"""DeepLabv3+ (Chen et al. 2018, figure 2), with the widths divided so that the file stays small.

Encoder: a residual network whose last stage is dilated, and the atrous pyramid: a 1x1 convolution, three 3x3
convolutions at different ``rates`` and the mean of the whole map, side by side, joined by a 1x1 convolution.  Decoder:
its output, enlarged, beside the narrowed map of the first stage, then two 3x3 convolutions; the logits are brought to
the size of the image.  Where we differ: basic blocks as in ResNet-18, two a stage, instead of Xception, and plain
convolutions instead of separable ones; ``widths`` are a fraction of the paper's; for small images the stem has no
pooling, so that the decoder works at 1/2 and the pyramid at 1/8 of the image's size (1/4 and 1/16 in the paper).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import ARCHITECTURES
from .resnet import conv, stage


def layer(before: int, after: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(conv(before, after, kernel, dilation=dilation), nn.ReLU(inplace=True))


class AtrousPyramid(nn.Module):
    """(N, before, H, W) -> (N, after, H, W)."""

    def __init__(self, before: int, after: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.one, self.image = layer(before, after, 1), layer(before, after, 1)
        self.atrous = nn.ModuleList(layer(before, after, 3, dilation=rate) for rate in rates)
        self.project = layer((2 + len(rates)) * after, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        image = self.image(F.adaptive_avg_pool2d(x, 1)).expand(-1, -1, *x.shape[-2:])
        return self.project(torch.cat([self.one(x), *(each(x) for each in self.atrous), image], dim=1))


@ARCHITECTURES.register("deeplabv3plus")
class DeepLabV3Plus(nn.Module):
    """(N, 3, H, W) -> logits (N, classes, H, W), for any size."""

    def __init__(
        self, classes: int, widths: Sequence[int] = (16, 32, 64, 96), pyramid: int = 64, low: int = 12, rates: Sequence[int] = (2, 4, 6),
        pool: bool = False, dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        a, b, c, d = widths
        self.stem = nn.Sequential(layer(3, a, 3), nn.MaxPool2d(3, 2, 1) if pool else nn.Identity())
        self.first = stage(a, a, stride=2)
        self.stages = nn.Sequential(stage(a, b, stride=2), stage(b, c, stride=2), stage(c, d, dilation=2))
        self.pyramid = AtrousPyramid(d, pyramid, rates)
        self.low = layer(a, low, 1)
        self.decoder = nn.Sequential(layer(pyramid + low, pyramid, 3), layer(pyramid, pyramid, 3), nn.Dropout2d(dropout))
        self.classifier = nn.Conv2d(pyramid, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        low = self.first(self.stem(x))
        high = F.interpolate(self.pyramid(self.stages(low)), low.shape[-2:], mode="bilinear")
        logits = self.classifier(self.decoder(torch.cat([high, self.low(low)], dim=1)))
        return F.interpolate(logits, x.shape[-2:], mode="bilinear")
