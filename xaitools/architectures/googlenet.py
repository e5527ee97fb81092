"""GoogLeNet (Szegedy et al. 2015, table 1 and figure 2b), with the widths divided so that the file stays small.

A stem of three convolutions, nine inception modules with max pooling between, the mean over all places, one fully
connected layer with dropout.  Where we differ: batch normalisation after each convolution; widths are divided by
``divide``; no auxiliary classifiers, and none of the stem's local response normalisation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import ARCHITECTURES

MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Widths of each inception module as in table 1: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj."""


def conv(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


class Inception(nn.Module):
    """Figure 2b: four ways side by side, their maps concatenated."""

    def __init__(self, before: int, one: int, reduce3: int, three: int, reduce5: int, five: int, pooled: int) -> None:
        super().__init__()
        self.one = conv(before, one, 1)
        self.three = nn.Sequential(conv(before, reduce3, 1), conv(reduce3, three, 3))
        self.five = nn.Sequential(conv(before, reduce5, 1), conv(reduce5, five, 5))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(before, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], dim=1)


@ARCHITECTURES.register("googlenet")
class GoogLeNet(nn.Module):
    """(N, 3, H, W) -> logits (N, classes), for any size."""

    def __init__(self, classes: int, divide: int = 4, dropout: float = 0.4) -> None:
        super().__init__()
        a, b = 64 // divide, 192 // divide
        self.stem = nn.Sequential(conv(3, a, 7, 2), nn.MaxPool2d(3, 2, 1), conv(a, a, 1), conv(a, b, 3))
        self.inception = nn.ModuleDict()
        before = b
        for name, table in MODULES.items():
            one, reduce3, three, reduce5, five, pooled = (width // divide for width in table)
            self.inception[name] = Inception(before, one, reduce3, three, reduce5, five, pooled)
            before = one + three + five + pooled
        self.dropout, self.classifier = nn.Dropout(dropout), nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for name, module in self.inception.items():
            if name in ("3a", "4a", "5a"):
                x = F.max_pool2d(x, 3, 2, 1)
            x = module(x)
        return self.classifier(self.dropout(x.mean((2, 3))))
