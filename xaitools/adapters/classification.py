"""Classification: a network that returns (N, C) logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import DataError, ModelError
from ..types import Decision, Prediction, Sample
from .base import Adapter, as_found, check_images, read
from .fit import Fit


class ClassificationModel(Adapter):
    """One label an image; ``fit`` brings the image to the size that the network was made for."""

    task = "classification"

    def __init__(self, module: nn.Module, classes: Sequence[str], *, fit: Fit | None = None, **options: Any) -> None:
        super().__init__(module, classes, **options)
        self.fit = fit or Fit()

    def logits_from(self, x: Tensor) -> Tensor:
        """Logits (N, C) of normalised images (N, 3, H, W)."""
        out: Any = self.module(self.fit(x))
        out = getattr(out, "logits", out)
        if not isinstance(out, Tensor) or out.dim() != 2 or out.shape != (len(x), len(self.classes)):
            came = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ModelError(f"{self.name}: returned {came}; expected logits (N, {len(self.classes)}), one column a class")
        return out

    def predict(self, images: Tensor) -> list[Prediction]:
        check_images(images)
        with torch.no_grad(), as_found(self):
            probabilities = self.logits_from(self.normalise(images)).float().softmax(1).cpu()
        scores, labels = probabilities.sort(dim=1, descending=True, stable=True)
        size = (int(images.shape[-2]), int(images.shape[-1]))
        return [
            Prediction(self.task, self.classes, size, label, score, background=self.background)
            for label, score in zip(labels, scores, strict=True)
        ]

    def score_pairs(self, x: Tensor, pairs: Sequence[tuple[int, Decision]]) -> Tensor:
        logits = self.logits_from(x)
        return torch.stack([read(logits[row], decision) for row, decision in pairs])

    def loss(self, images: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Cross-entropy of each image's label."""
        labels = [sample.label for sample in samples]
        if None in labels:
            raise DataError(f"{samples[labels.index(None)].id}: no label that the model knows")
        truth = torch.tensor(labels, device=self.device)
        return F.cross_entropy(self.logits_from(self.normalise(images)), truth, reduction="none")
