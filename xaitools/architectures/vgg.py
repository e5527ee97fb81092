"""VGG-16 (Simonyan and Zisserman 2015, table 1, column D), with the widths divided so that the file stays small.

Five groups of 3x3 convolutions and ReLU, each followed by 2x2 max pooling, then three fully connected layers with
dropout.  Where we differ: batch normalisation after each convolution; widths are divided by ``divide``; the last
map is brought to ``grid`` x ``grid`` cells (7 in the paper) by averaging, so that any size from 32 pixels on will do.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .base import ARCHITECTURES

GROUPS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Width and number of the convolutions before each pooling."""


def convolutions(before: int, width: int, count: int) -> nn.Sequential:
    """``count`` times a 3x3 convolution, batch normalisation and ReLU."""
    parts: list[nn.Module] = []
    for inputs in [before, *[width] * (count - 1)]:
        parts += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts)


@ARCHITECTURES.register("vgg")
class VGG(nn.Module):
    """(N, 3, H, W) -> logits (N, classes); H and W at least 32."""

    def __init__(self, classes: int, divide: int = 8, grid: int = 2, dropout: float = 0.5) -> None:
        super().__init__()
        widths, hidden = [width // divide for width, _ in GROUPS], 4096 // divide
        self.groups = nn.ModuleList(
            convolutions(before, width, count) for before, width, (_, count) in zip([3, *widths[:-1]], widths, GROUPS, strict=True)
        )
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.classifier = nn.Sequential(
            nn.Linear(widths[-1] * grid**2, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        for group in self.groups:
            x = F.max_pool2d(group(x), 2)
        return self.classifier(self.pool(x).flatten(1))
