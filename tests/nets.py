"""Tiny networks made by hand, shared by the tests; weights are random but fixed, or set so that the answer is known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xaitools.adapters import SegmentationModel, TwoStageModel
from xaitools.adapters.fit import Fit
from xaitools.architectures import ARCHITECTURES

CLASSES = ("background", "disc", "square")


def settled(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and BatchNorm statistics drawn so that nothing is at its initial, too convenient value."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if "num_batches" in name:
            continue
        draw = torch.randn(tensor.shape, generator=generator).to(tensor)
        if "running_var" in name:
            tensor.data = 0.5 + draw.abs()
        elif tensor.dim() == 1:
            tensor.data = 0.3 * draw + (1.0 if "weight" in name else 0.0)
        else:
            tensor.data = draw / tensor[0].numel() ** 0.5
    return module.eval()


def segmenter(dtype: torch.dtype = torch.float32, size: tuple[int, int] | None = None) -> SegmentationModel:
    net = settled(ARCHITECTURES["unet"](3, base=4, depth=2, widest=8)).to(dtype)
    return SegmentationModel(net, CLASSES, mean=(0.5,) * 3, std=(0.25,) * 3, background=0, fit=Fit(size=size))


def detector(dtype: torch.dtype = torch.float32, **options: float) -> TwoStageModel:
    net = ARCHITECTURES["faster-rcnn"](
        2, widths=(4, 8, 8), level=1, out_channels=8, hidden=8, pool=3, anchors=(12, 24), ratios=(1.0,), side=48, longest=64,
        proposals=20, detections=10,
    )  # fmt: skip
    settled(net).to(dtype)
    return TwoStageModel(net, CLASSES[1:], **{"score_threshold": 0.05, **options})


class Linear(nn.Module):
    """(N, 3, H, W) -> (N, 2, 1, 1): class 1 is a fixed weighted sum of the pixels, class 0 is zero."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, height, width, generator=torch.Generator().manual_seed(1)).double())

    def forward(self, x: Tensor) -> Tensor:
        total = (x * self.weight).sum((1, 2, 3)).view(-1, 1, 1, 1)
        return torch.cat([torch.zeros_like(total), total], 1)


def picture(height: int = 40, width: int = 52, seed: int = 0) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))
