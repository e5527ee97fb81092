"""DeconvNet (Noh, Hong and Han 2015, figure 2), with the widths divided so that the file stays small.

VGG-16 up to its fully connected layers, which are convolutions here, then the mirror image: a transposed convolution
for the fully connected layers, and for each group unpooling, which puts the values back to where the maxima were (the
switches), and transposed 3x3 convolutions.  Not to be confused with the deconvnet of Zeiler and Fergus, which projects
features.  Where we differ: ``widths`` and ``hidden`` are a fraction of the paper's; the fully connected layers see
``kernel`` x ``kernel`` cells of the last map (7 in the paper) and are padded, so that any size will do; the whole image
goes through, not object proposals.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from .base import ARCHITECTURES
from .vgg import GROUPS, convolutions


def deconvolutions(width: int, after: int, count: int) -> nn.Sequential:
    """``count`` times a transposed 3x3 convolution, batch normalisation and ReLU, the last of them to ``after``."""
    parts: list[nn.Module] = []
    for outputs in [*[width] * (count - 1), after]:
        parts += [nn.ConvTranspose2d(width, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts)


@ARCHITECTURES.register("deconvnet")
class DeconvNet(nn.Module):
    """(N, 3, H, W) -> logits (N, classes, H, W); H and W at least 32."""

    def __init__(self, classes: int, widths: Sequence[int] = (16, 32, 64, 64, 64), hidden: int = 128, kernel: int = 3) -> None:
        super().__init__()
        counts = [count for _, count in GROUPS[: len(widths)]]
        befores = [3, *widths[:-1]]
        self.encoder = nn.ModuleList(map(convolutions, befores, widths, counts))
        self.connected = nn.Sequential(
            nn.Conv2d(widths[-1], hidden, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(hidden), nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU(inplace=True),
            nn.ConvTranspose2d(hidden, widths[-1], kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(widths[-1]),
            nn.ReLU(inplace=True),
        )  # fmt: skip
        self.decoder = nn.ModuleList(map(deconvolutions, widths[::-1], [*befores[:0:-1], widths[0]], counts[::-1]))
        self.classifier = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        switches = []
        for group in self.encoder:
            before = group(x)
            x, places = F.max_pool2d(before, 2, return_indices=True)
            switches.append((places, list(before.shape[-2:])))
        x = self.connected(x)
        for group in self.decoder:
            places, size = switches.pop()
            x = group(F.max_unpool2d(x, places, [2, 2], output_size=size))
        return self.classifier(x)
