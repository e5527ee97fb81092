"""Instance segmentation: torchvision's Mask R-CNN, boxes and masks traced back to their logits.

He et al. 2017.  A final box, in the pixels of the network's input, gives the mask logits again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNN

from ..errors import ModelError
from ..types import Decision
from .base import read
from .tracing import check_trace
from .two_stage import TwoStageModel

Pairs = Sequence[tuple[int, Decision]]


class InstanceModel(TwoStageModel):
    """A ``TwoStageModel`` with masks: 1 where torchvision's pasted probability is at least 0.5.

    The explained number of a mask is the mean of its class's logits over the cells where they were positive.
    """

    task = "instances"

    def __init__(self, module: nn.Module, classes: Sequence[str], **options: Any) -> None:
        if not isinstance(module, MaskRCNN):
            raise ModelError(f"got {type(module).__name__}; expected a torchvision MaskRCNN")
        super().__init__(module, classes, **options)

    def _masks(
        self, logits: Tensor | None, own: dict[str, Tensor], listed: Tensor, shape: tuple[int, int], size: tuple[int, int]
    ) -> dict[str, Any]:
        if logits is None:
            raise ModelError(f"{self.name}: the mask predictor did not run; expected torchvision's RoIHeads")
        index = torch.arange(len(logits), device=logits.device)
        check_trace(self.name, own, masks=logits.sigmoid()[index, own["labels"]][:, None])
        kept = [{"boxes": own["boxes"][listed], "masks": own["masks"][listed]}]
        pasted = self.transform.postprocess(kept, [shape], [size])[0]["masks"]
        return {"masks": (pasted[:, 0] >= 0.5).cpu(), "cells": (logits[index, own["labels"]] > 0)[listed].cpu()}

    def _scores(self, features: dict[str, Tensor], batch: ImageList, scale: Tensor, pairs: Pairs) -> Tensor:
        masks = [p for p, (_, decision) in enumerate(pairs) if decision.cells is not None]
        boxes = [p for p, (_, decision) in enumerate(pairs) if decision.cells is None]
        scores: dict[int, Tensor] = {}
        if boxes:
            scores |= zip(boxes, super()._scores(features, batch, scale, [pairs[p] for p in boxes]), strict=True)
        if masks:
            scores |= zip(masks, self._mask_scores(features, batch, scale, [pairs[p] for p in masks]), strict=True)
        return torch.stack([scores[p] for p in range(len(pairs))])

    def _mask_scores(self, features: dict[str, Tensor], batch: ImageList, scale: Tensor, pairs: Pairs) -> list[Tensor]:
        heads = self.module.roi_heads
        boxes, place = self._by_image(pairs, [self._box(decision) * scale for _, decision in pairs], batch)
        logits = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(features, boxes, batch.image_sizes)))
        return [self._mask_score(logits[place[p]], decision) for p, (_, decision) in enumerate(pairs)]

    def _box(self, decision: Decision) -> Tensor:
        if decision.box is None:
            raise ModelError(f"{self.name}: target {decision.target} names no box; a mask is drawn in a box")
        return decision.box.to("cpu", torch.float64)

    @staticmethod
    def _mask_score(logits: Tensor, decision: Decision) -> Tensor:
        assert decision.cells is not None
        return read(logits[:, decision.cells.to(logits.device)], decision, first=1, sigmoid=True).mean()
