"""AlexNet (Krizhevsky, Sutskever and Hinton 2012, figure 2), with the widths divided so that the file stays small.

Five convolutions, of 11x11, 5x5 and three times 3x3; overlapping 3x3 max pooling with stride 2 after the first, the
second and the fifth; three fully connected layers with dropout.  Where we differ: one column instead of two graphics
cards; batch normalisation in place of the local response normalisation; widths are divided by ``divide``; the first
``stride`` is 2 for small images (4 in the paper), and the last map is brought to ``grid`` x ``grid`` cells (6 in the
paper) by averaging, so that any larger size will do.
"""

from __future__ import annotations

from torch import Tensor, nn

from .base import ARCHITECTURES


def conv(before: int, after: int, kernel: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(before, after, kernel, stride, padding, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]


@ARCHITECTURES.register("alexnet")
class AlexNet(nn.Module):
    """(N, 3, H, W) -> logits (N, classes); H and W at least 37, or 63 with ``stride`` 4."""

    def __init__(self, classes: int, divide: int = 8, stride: int = 2, grid: int = 2, dropout: float = 0.5) -> None:
        super().__init__()
        a, b, c, d, e = (width // divide for width in (96, 256, 384, 384, 256))
        hidden = 4096 // divide
        self.features = nn.Sequential(
            *conv(3, a, 11, stride, 2), nn.MaxPool2d(3, 2),
            *conv(a, b, 5, padding=2), nn.MaxPool2d(3, 2),
            *conv(b, c, 3, padding=1),
            *conv(c, d, 3, padding=1),
            *conv(d, e, 3, padding=1), nn.MaxPool2d(3, 2),
            nn.AdaptiveAvgPool2d(grid),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Linear(e * grid**2, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))
