"""SegNet (Badrinarayanan, Kendall and Cipolla 2017, figure 2), with the widths divided so that the file stays small.

The encoder has the thirteen convolutions of VGG-16 in five groups, each followed by 2x2 max pooling that remembers
where its maxima were; the decoder is its mirror image: each group puts the values back to those places, with zeros
between, and makes the sparse map dense by convolutions.  No other map is handed across.  Where we differ: ``widths``
are a fraction of the paper's 64, 128, 256, 512, 512.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from .base import ARCHITECTURES
from .vgg import GROUPS, convolutions


@ARCHITECTURES.register("segnet")
class SegNet(nn.Module):
    """(N, 3, H, W) -> logits (N, classes, H, W); H and W at least 32."""

    def __init__(self, classes: int, widths: Sequence[int] = (16, 32, 64, 80, 80)) -> None:
        super().__init__()
        counts = [count for _, count in GROUPS[: len(widths)]]
        befores = [3, *widths[:-1]]
        self.encoder = nn.ModuleList(map(convolutions, befores, widths, counts))
        self.decoder = nn.ModuleList(map(Decoder, widths[::-1], [*befores[:0:-1], widths[0]], counts[::-1]))
        self.classifier = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        taken = []
        for group in self.encoder:
            before = group(x)
            x, places = F.max_pool2d(before, 2, return_indices=True)
            taken.append((places, list(before.shape[-2:])))
        for group in self.decoder:
            places, size = taken.pop()
            x = group(F.max_unpool2d(x, places, [2, 2], output_size=size))
        return self.classifier(x)


class Decoder(nn.Sequential):
    """As many convolutions as the encoder's group has, the last of them to the width of the group below."""

    def __init__(self, width: int, after: int, count: int) -> None:
        super().__init__(convolutions(width, width, count - 1), convolutions(width, after, 1))
