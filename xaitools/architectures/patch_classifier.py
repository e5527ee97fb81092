"""A sliding window that classifies the pixel in its middle (Cireşan et al. 2012), cut out and run window by window.

Every ``stride`` pixels a ``window`` is cut out, with zeros beyond the border, and a small convolutional network says
which class its centre has.  What overlapping windows share is computed again for each of them: the cost is what it is
here to show.  Where we differ: one network instead of an average of several; a window stands for the ``stride`` x
``stride`` pixels in its middle, and in training only every ``skip``-th window of a row and a column is taken.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import ARCHITECTURES
from .vgg import convolutions

AT_ONCE = 1024
"""Windows that are classified together; more would need more memory, not less time."""


@ARCHITECTURES.register("patch-classifier")
class PatchClassifier(nn.Module):
    """(N, 3, H, W) -> logits (N, classes, h, w), one for each cell of ``stride`` pixels; H and W multiples of it.

    In training the cells are ``skip * stride`` pixels.
    """

    def __init__(
        self, classes: int, window: int = 48, stride: int = 6, skip: int = 2, width: int = 16, hidden: int = 128, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.window, self.stride, self.skip = window, stride, skip
        self.network = nn.Sequential(
            convolutions(3, width, 1), nn.MaxPool2d(2),
            convolutions(width, 2 * width, 1), nn.MaxPool2d(2),
            convolutions(2 * width, 4 * width, 1), nn.MaxPool2d(2),
            convolutions(4 * width, 4 * width, 1), nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * width * (window // 16) ** 2, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        stride = self.stride * (self.skip if self.training else 1)
        rows, columns = x.shape[-2] // stride, x.shape[-1] // stride
        before = (self.window - stride) // 2
        after = self.window - stride - before
        windows = F.unfold(F.pad(x, (before, after, before, after)), self.window, stride=stride)  # (N, 3 * window^2, rows * columns)
        windows = windows.transpose(1, 2).reshape(-1, 3, self.window, self.window)
        logits = torch.cat([self.network(part) for part in windows.split(AT_ONCE)])
        return logits.view(len(x), rows, columns, -1).permute(0, 3, 1, 2)
