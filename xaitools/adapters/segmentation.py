"""Semantic segmentation: a network that returns (N, C, h, w) logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import MethodError, ModelError
from ..types import IGNORE, Decision, Prediction, Sample
from .base import Adapter, as_found, check_images, read
from .fit import Fit


class SegmentationModel(Adapter):
    """The network is fed what ``fit`` makes of the image; logits come back at the image's size.

    A network that returns the class map itself, (N, h, w) whole numbers, is a black box: its segments have score 1
    and can be occluded and probed.
    """

    task = "segmentation"

    def __init__(self, module: nn.Module, classes: Sequence[str], *, fit: Fit | None = None, **options: Any) -> None:
        super().__init__(module, classes, **options)
        self.fit = fit or Fit()

    def logits_from(self, x: Tensor) -> Tensor:
        """Logits (N, C, H, W) of normalised images (N, 3, H, W)."""
        out = self._answer(x)
        if self.black_box:
            raise MethodError(f"{self.name} is a black box that returns a class map, without logits or gradients; use occlusion-drise")
        return out

    def _answer(self, x: Tensor) -> Tensor:
        """Logits (N, C, H, W), or of a black box the class map (N, H, W)."""
        size, x = (int(x.shape[-2]), int(x.shape[-1])), self.fit(x)
        seen = (int(x.shape[-2]), int(x.shape[-1]))
        out: Any = self.module(x)
        if isinstance(out, dict):
            out = out.get("out")
        out = getattr(out, "logits", out)
        self.black_box = isinstance(out, Tensor) and out.dim() == 3 and not out.dtype.is_floating_point
        if self.black_box:
            if out.numel() and not 0 <= int(out.min()) <= int(out.max()) < len(self.classes):
                raise ModelError(f"{self.name}: a class map from {int(out.min())} to {int(out.max())} for {len(self.classes)} classes")
            return self.fit.back(out[:, None].float(), size, seen, "nearest")[:, 0].long()
        if not isinstance(out, Tensor) or out.dim() != 4 or out.shape[:2] != (len(x), len(self.classes)):
            came = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ModelError(f"{self.name}: returned {came}; expected logits (N, {len(self.classes)}, h, w), one channel a class")
        return self.fit.back(out, size, seen)

    def predict(self, images: Tensor) -> list[Prediction]:
        check_images(images)
        with torch.no_grad(), as_found(self):
            out = self._answer(self.normalise(images))
        if self.black_box:
            return [self._prediction(torch.ones(each.shape), each.cpu()) for each in out]
        return [self._prediction(*each.max(0)) for each in out.float().softmax(1).cpu()]

    def _prediction(self, best: Tensor, semantic: Tensor) -> Prediction:
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
