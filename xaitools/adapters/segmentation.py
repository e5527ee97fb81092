"""Semantic segmentation: a network that returns (N, C, h, w) logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError
from ..types import IGNORE, Decision, Prediction, Sample
from .base import Adapter, as_found, check_images, read


class SegmentationModel(Adapter):
    """``size`` (H, W) is what the network is fed, None for the image's own; logits come back at the image's size."""

    task = "segmentation"

    def __init__(self, module: nn.Module, classes: Sequence[str], *, size: tuple[int, int] | None = None, **options: Any) -> None:
        super().__init__(module, classes, **options)
        self.size = size

    def logits_from(self, x: Tensor) -> Tensor:
        """Logits (N, C, H, W) of normalised images (N, 3, H, W)."""
        shape = x.shape[-2:]
        if self.size is not None and tuple(shape) != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True)
        out: Any = self.module(x)
        if isinstance(out, dict):
            out = out.get("out")
        out = getattr(out, "logits", out)
        if not isinstance(out, Tensor) or out.dim() != 4 or out.shape[1] != len(self.classes):
            came = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ModelError(f"{self.name}: returned {came}; expected logits (N, {len(self.classes)}, h, w), one channel a class")
        if out.shape[-2:] != shape:
            out = F.interpolate(out, shape, mode="bilinear", align_corners=False)
        return out

    def predict(self, images: Tensor) -> list[Prediction]:
        check_images(images)
        with torch.no_grad(), as_found(self):
            probabilities = self.logits_from(self.normalise(images)).float().softmax(1).cpu()
        return [self._prediction(each) for each in probabilities]

    def _prediction(self, probabilities: Tensor) -> Prediction:
        best, semantic = probabilities.max(0)
        areas = torch.bincount(semantic.flatten(), minlength=len(self.classes))
        sums = torch.zeros(len(self.classes)).index_add_(0, semantic.flatten(), best.flatten())
        order = areas.argsort(descending=True, stable=True)
        order = order[areas[order] > 0]
        size = (semantic.shape[0], semantic.shape[1])
        return Prediction(self.task, self.classes, size, order, sums[order] / areas[order], semantic=semantic, background=self.background)

    def score_pairs(self, x: Tensor, pairs: Sequence[tuple[int, Decision]]) -> Tensor:
        logits = self.logits_from(x)
        return torch.stack([self._score(logits[row], decision) for row, decision in pairs])

    def _score(self, logits: Tensor, decision: Decision) -> Tensor:
        if decision.region is not None:
            logits = logits[:, decision.region.to(logits.device)]
        return read(logits, decision).mean()

    def loss(self, images: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Mean cross-entropy over the labelled pixels of each image."""
        truth = torch.stack([sample.semantic for sample in samples if sample.semantic is not None]).to(self.device)
        logits = self.logits_from(self.normalise(images))
        each = F.cross_entropy(logits, truth, ignore_index=IGNORE, reduction="none")
        return each.sum((1, 2)) / (truth != IGNORE).sum((1, 2)).clamp(min=1)
