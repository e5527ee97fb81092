"""Two-stage detection: torchvision's Faster R-CNN, every final box traced back to its proposal.

Ren et al. 2015.  The proposal and class of a final box give the raw logit again, differentiable down to
the image; proposals are constants for the second stage (torchvision detaches them too).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.keypoint_rcnn import KeypointRCNN
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

from ..errors import ModelError
from ..types import Decision, Prediction, Sample
from .base import Adapter, as_found, check_images, read
from .tracing import at_least_float32, check_trace, edge_move, lowered, only_resizing, outputs_of, scale_of


class TwoStageModel(Adapter):
    """``classes`` are the object classes; the network's output 0 is background, output i + 1 is class i.

    Boxes that score more than ``score_threshold`` are listed, also below the network's own threshold.  The explained
    number of an edge is how far its regression outputs move it, in sides of the proposal, to first order.
    """

    task = "detection"
    module: Any  # torchvision's parts are typed as plain modules

    def __init__(self, module: nn.Module, classes: Sequence[str], *, score_threshold: float = 0.05, **options: Any) -> None:
        if not isinstance(module, FasterRCNN) or isinstance(module, KeypointRCNN):
            raise ModelError(f"got {type(module).__name__}; expected a torchvision FasterRCNN (keypoints cannot be explained)")
        transform: Any = module.transform
        options = {"mean": transform.image_mean, "std": transform.image_std} | options
        super().__init__(module, classes, **options)
        logits = getattr(module.roi_heads.box_predictor, "cls_score", None)
        if not isinstance(logits, nn.Linear):
            raise ModelError(f"{self.name}: a box predictor without cls_score; expected one like torchvision's FastRCNNPredictor")
        if logits.out_features != len(self.classes) + 1:
            came = f"{logits.out_features} class outputs for {len(self.classes)} classes and background"
            raise ModelError(f"{self.name}: {came}; give all classes")
        self.score_threshold = score_threshold
        self.transform = only_resizing(transform)

    def predict(self, images: Tensor) -> list[Prediction]:
        check_images(images)
        size = (int(images.shape[-2]), int(images.shape[-1]))
        heads = self.module.roi_heads
        with torch.no_grad(), as_found(self):
            batch, features = self._features(self.normalise(images))
            proposals, _ = self.module.rpn(batch, features, None)
            with lowered(heads, self.score_threshold), outputs_of(heads.box_predictor, heads.mask_predictor) as (boxes, masks):
                own, _ = heads(features, proposals, batch.image_sizes)
            (logits, deltas), counts = boxes[0], [len(each) for each in proposals]
            # for the whole batch at once, like the network: the last bit may depend on a tensor's length
            scores, decoded = logits.softmax(-1).split(counts), heads.box_coder.decode(deltas, proposals).split(counts)
            mask_logits = masks[0].split([len(each["labels"]) for each in own]) if masks else [None] * len(own)
            parts = zip(scores, decoded, proposals, mask_logits, own, batch.image_sizes, strict=True)
            return [self._trace(*of_image, size=size) for of_image in parts]

    def _features(self, x: Tensor) -> tuple[ImageList, dict[str, Tensor]]:
        batch, _ = self.transform(list(x), None)
        features = self.module.backbone(batch.tensors)
        return batch, features if isinstance(features, dict) else {"0": features}

    def _second_stage(self, features: dict[str, Tensor], proposals: list[Tensor], batch: ImageList) -> tuple[Tensor, Tensor]:
        heads = self.module.roi_heads
        pooled = heads.box_roi_pool(features, proposals, batch.image_sizes)
        return heads.box_predictor(heads.box_head(pooled))

    def _trace(
        self, scores: Tensor, decoded: Tensor, proposals: Tensor, mask_logits: Tensor | None, own: dict[str, Tensor],
        shape: tuple[int, int], *, size: tuple[int, int],
    ) -> Prediction:  # fmt: skip
        """torchvision's post-processing again, carrying proposal and class; refused if the result is not ``own``."""
        heads, (count, classes) = self.module.roi_heads, scores.shape
        threshold = min(heads.score_thresh, self.score_threshold)
        boxes, scores = clip_boxes_to_image(decoded, shape)[:, 1:].reshape(-1, 4), scores[:, 1:].reshape(-1)
        labels = torch.arange(classes - 1, device=scores.device).repeat(count)
        origin = torch.arange(count, device=scores.device).repeat_interleave(classes - 1)
        sides = boxes[:, 2:] - boxes[:, :2]
        keep = torch.where((scores > threshold) & (sides >= 1e-2).all(1))[0]
        keep = keep[batched_nms(boxes[keep], scores[keep], labels[keep], heads.nms_thresh)][: heads.detections_per_img]
        check_trace(self.name, own, boxes=boxes[keep], scores=scores[keep], labels=labels[keep] + 1)
        listed = scores[keep] > self.score_threshold
        keep, scale = keep[listed], scale_of(shape, size).to(boxes)
        return Prediction(
            self.task, self.classes, size, labels[keep].cpu(), scores[keep].float().cpu(), boxes=at_least_float32(boxes[keep] / scale),
            origins=(proposals[origin[keep]] / scale).cpu(), **self._masks(mask_logits, own, listed, shape, size),
        )  # fmt: skip

    def _masks(
        self, logits: Tensor | None, own: dict[str, Tensor], listed: Tensor, shape: tuple[int, int], size: tuple[int, int]
    ) -> dict[str, Any]:
        """What a model of instances adds to the prediction."""
        return {}

    def score_pairs(self, x: Tensor, pairs: Sequence[tuple[int, Decision]]) -> Tensor:
        batch, features = self._features(x)
        return self._scores(features, batch, scale_of(batch.image_sizes[0], (int(x.shape[-2]), int(x.shape[-1]))), pairs)

    def _scores(self, features: dict[str, Tensor], batch: ImageList, scale: Tensor, pairs: Sequence[tuple[int, Decision]]) -> Tensor:
        boxes, place = self._by_image(pairs, [self._proposal(decision) * scale for _, decision in pairs], batch)
        logits, deltas = self._second_stage(features, boxes, batch)
        return torch.stack([self._score(logits[place[p]], deltas[place[p]], d) for p, (_, d) in enumerate(pairs)])

    @staticmethod
    def _by_image(pairs: Sequence[tuple[int, Decision]], boxes: Sequence[Tensor], batch: ImageList) -> tuple[list[Tensor], dict[int, int]]:
        """One box of each pair, image by image as torchvision wants them, and where each pair came to stand."""
        images = batch.tensors
        order = sorted(range(len(pairs)), key=lambda position: pairs[position][0])
        grouped = [
            torch.stack(mine).to(images) if (mine := [boxes[p] for p in order if pairs[p][0] == row]) else images.new_zeros((0, 4))
            for row in range(len(images))
        ]
        return grouped, {position: index for index, position in enumerate(order)}

    def _proposal(self, decision: Decision) -> Tensor:
        if decision.proposal is None:
            raise ModelError(f"{self.name}: target {decision.target} names no box; a detector explains boxes")
        return decision.proposal.to("cpu", torch.float64)

    def _score(self, logits: Tensor, deltas: Tensor, decision: Decision) -> Tensor:
        if decision.edge is None:
            return read(logits, decision, first=1)
        return edge_move(deltas.view(-1, 4)[decision.class_index + 1], self.module.roi_heads.box_coder.weights, decision.edge)

    def loss(self, images: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Cross-entropy of the second stage at the true boxes plus objectness of the anchors on them.

        Raising it makes the detector miss or rename what is there.  (N,); 0 for an image without objects.
        """
        batch, features = self._features(self.normalise(images))
        scale = scale_of(batch.image_sizes[0], (int(images.shape[-2]), int(images.shape[-1])))
        boxes = [(sample.boxes.double() * scale).to(batch.tensors) if sample.boxes is not None else batch.tensors.new_zeros((0, 4))
                 for sample in samples]  # fmt: skip
        logits, _ = self._second_stage(features, boxes, batch)
        rpn = self.module.rpn
        objectness = rpn.head(list(features.values()))[0]
        flat = torch.cat([level.permute(0, 2, 3, 1).reshape(len(images), -1) for level in objectness], 1)
        anchors = rpn.anchor_generator(batch, list(features.values()))
        losses = []
        for row, (mine, found) in enumerate(zip(logits.split([len(b) for b in boxes]), boxes, strict=True)):
            labels = samples[row].labels
            if labels is None or not len(found):
                losses.append(mine.sum() + flat[row].sum() * 0)
                continue
            near = box_iou(anchors[row], found).max(1).values >= 0.5
            seen = F.softplus(-flat[row][near]).mean() if bool(near.any()) else flat[row].sum() * 0
            losses.append(F.cross_entropy(mine, labels.to(mine.device) + 1) + seen)
        return torch.stack(losses)
