"""ResNet-18 (He et al. 2016, table 1 and figure 2), with the widths divided so that the file stays small.

A 7x7 convolution and 3x3 max pooling, both with stride 2; four stages of two basic blocks, each stage after the
first at half the size of the one before; the mean over all places; one fully connected layer.  Where we differ:
widths are divided by ``divide``.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .base import ARCHITECTURES


def conv(before: int, after: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """A convolution that keeps the size up to its stride, and batch normalisation."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(nn.Conv2d(before, after, kernel, stride, padding, dilation, bias=False), nn.BatchNorm2d(after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside the identity, or beside a 1x1 convolution where the shape changes."""

    def __init__(self, before: int, after: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.one, self.two = conv(before, after, 3, stride, dilation), conv(after, after, 3, 1, dilation)
        self.shortcut = nn.Identity() if (before, stride) == (after, 1) else conv(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.two(F.relu(self.one(x))) + self.shortcut(x))


def stage(before: int, after: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Two basic blocks, the first with ``stride``."""
    return nn.Sequential(BasicBlock(before, after, stride, dilation), BasicBlock(after, after, 1, dilation))


@ARCHITECTURES.register("resnet")
class ResNet(nn.Module):
    """(N, 3, H, W) -> logits (N, classes), for any size."""

    def __init__(self, classes: int, divide: int = 4) -> None:
        super().__init__()
        a, b, c, d = (width // divide for width in (64, 128, 256, 512))
        self.stem = conv(3, a, 7, stride=2)
        self.stages = nn.Sequential(stage(a, a), stage(a, b, stride=2), stage(b, c, stride=2), stage(c, d, stride=2))
        self.classifier = nn.Linear(d, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)
        return self.classifier(self.stages(x).mean((2, 3)))
