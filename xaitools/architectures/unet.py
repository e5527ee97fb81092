"""U-Net (Ronneberger, Fischer and Brox 2015, figure 1), with the widths divided so that the file stays small.

Contracting path: two 3x3 convolutions and ReLU, then 2x2 max pooling; expansive path: 2x2 up-convolution,
concatenation with the map of the same level, two 3x3 convolutions; a 1x1 convolution at the end.
Where we differ: convolutions are padded, so the output has the input's size, and followed by batch
normalisation; widths double only up to ``widest``; a side that no longer divides by two is padded with zeros.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import ARCHITECTURES


class DoubleConv(nn.Sequential):
    def __init__(self, before: int, after: int) -> None:
        super().__init__(
            nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True),
        )  # fmt: skip


class Up(nn.Module):
    def __init__(self, below: int, skip: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(below, skip, 2, stride=2)
        self.conv = DoubleConv(2 * skip, skip)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.up(x)
        x = F.pad(x, (0, skip.shape[-1] - x.shape[-1], 0, skip.shape[-2] - x.shape[-2]))
        return self.conv(torch.cat([skip, x], dim=1))


@ARCHITECTURES.register("unet")
class UNet(nn.Module):
    """(N, 3, H, W) -> logits (N, classes, H, W); H and W at least 2 ** depth."""

    def __init__(self, classes: int, base: int = 64, depth: int = 4, widest: int = 1024) -> None:
        super().__init__()
        widths = [min(base * 2**level, widest) for level in range(depth + 1)]
        self.stem = DoubleConv(3, widths[0])
        self.down = nn.ModuleList(DoubleConv(a, b) for a, b in pairwise(widths))
        self.up = nn.ModuleList(Up(below, skip) for below, skip in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.classifier = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.stem(x)]
        for block in self.down:
            skips.append(block(F.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for block in self.up:
            x = block(x, skips.pop())
        return self.classifier(x)
