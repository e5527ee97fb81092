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
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

from ..errors import ModelError
from ..types import Decision, Prediction, Sample
from .base import Adapter, as_found, check_images, read

EDGES = {"left": (0, -0.5), "top": (1, -0.5), "right": (0, 0.5), "bottom": (1, 0.5)}


class TwoStageModel(Adapter):
    """``classes`` are the object classes; the network's output 0 is background, output i + 1 is class i."""

    task = "detection"
    module: Any  # torchvision's parts are typed as plain modules

    def __init__(self, module: nn.Module, classes: Sequence[str], *, score_threshold: float = 0.05, **options: Any) -> None:
        if not isinstance(module, FasterRCNN):
            raise ModelError(f"got {type(module).__name__}; expected a torchvision FasterRCNN")
        transform = module.transform
        options = {"mean": transform.image_mean, "std": transform.image_std} | options
        super().__init__(module, classes, **options)
        outputs = module.roi_heads.box_predictor.cls_score.out_features  # type: ignore[union-attr]
        if outputs != len(self.classes) + 1:
            raise ModelError(f"{self.name}: {outputs} class outputs for {len(self.classes)} classes and background; give all classes")
        self.score_threshold = score_threshold
        # the explained input is the normalised one, so the inner transform only resizes and pads
        self.transform = GeneralizedRCNNTransform(transform.min_size, transform.max_size, [0.0] * 3, [1.0] * 3)
        self.transform.eval()

    def predict(self, images: Tensor) -> list[Prediction]:
        check_images(images)
        size = (int(images.shape[-2]), int(images.shape[-1]))
        with torch.no_grad(), as_found(self):
            batch, features = self._features(self.normalise(images))
            proposals, _ = self.module.rpn(batch, features, None)
            heads = self.module.roi_heads
            logits, deltas = self._second_stage(features, proposals, batch)
            counts = [len(each) for each in proposals]
            return [
                self._trace(rows, moves, boxes, shape, size, heads)
                for rows, moves, boxes, shape in zip(logits.split(counts), deltas.split(counts), proposals, batch.image_sizes, strict=True)
            ]

    def _features(self, x: Tensor) -> tuple[ImageList, dict[str, Tensor]]:
        batch, _ = self.transform(list(x), None)
        features = self.module.backbone(batch.tensors)
        return batch, features if isinstance(features, dict) else {"0": features}

    def _second_stage(self, features: dict[str, Tensor], proposals: list[Tensor], batch: ImageList) -> tuple[Tensor, Tensor]:
        heads = self.module.roi_heads
        pooled = heads.box_roi_pool(features, proposals, batch.image_sizes)
        return heads.box_predictor(heads.box_head(pooled))

    def _trace(
        self, logits: Tensor, deltas: Tensor, proposals: Tensor, shape: tuple[int, int], size: tuple[int, int], heads: Any
    ) -> Prediction:
        """torchvision's post-processing again, carrying proposal and class; refused if the boxes differ from its own."""
        count, classes = logits.shape
        boxes = clip_boxes_to_image(heads.box_coder.decode(deltas, [proposals]), shape)[:, 1:].reshape(-1, 4)
        scores = logits.softmax(-1)[:, 1:].reshape(-1)
        labels = torch.arange(classes - 1, device=logits.device).repeat(count)
        origin = torch.arange(count, device=logits.device).repeat_interleave(classes - 1)
        threshold = min(heads.score_thresh, self.score_threshold)
        sides = boxes[:, 2:] - boxes[:, :2]
        keep = torch.where((scores > threshold) & (sides >= 1e-2).all(1))[0]
        keep = keep[batched_nms(boxes[keep], scores[keep], labels[keep], heads.nms_thresh)][: heads.detections_per_img]
        if self.score_threshold <= heads.score_thresh:
            own_boxes, _, own_labels = heads.postprocess_detections(logits, deltas, [proposals], [shape])
            if len(own_boxes[0]) != len(keep) and threshold == heads.score_thresh:
                raise ModelError(f"{self.name}: the trace found {len(keep)} boxes, the network {len(own_boxes[0])}; this build differs")
            if threshold == heads.score_thresh and not (
                torch.equal(own_boxes[0], boxes[keep]) and torch.equal(own_labels[0], labels[keep] + 1)
            ):
                raise ModelError(f"{self.name}: traced boxes differ from the network's own; this build cannot be explained")
        keep = keep[scores[keep] > self.score_threshold]
        scale = self._scale(shape, size).to(boxes)
        return Prediction(
            self.task, self.classes, size, labels[keep].cpu(), scores[keep].float().cpu(),
            boxes=(boxes[keep] / scale).float().cpu(), origins=(proposals[origin[keep]] / scale).cpu(),
        )  # fmt: skip

    @staticmethod
    def _scale(shape: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Factors (4,) from boxes of the image to boxes of the network's input."""
        down, right = shape[0] / size[0], shape[1] / size[1]
        return torch.tensor([right, down, right, down], dtype=torch.float64)

    def score_pairs(self, x: Tensor, pairs: Sequence[tuple[int, Decision]]) -> Tensor:
        batch, features = self._features(x)
        scale = self._scale(batch.image_sizes[0], (int(x.shape[-2]), int(x.shape[-1])))
        scaled = [(self._proposal(decision) * scale).to(x) for _, decision in pairs]
        # torchvision wants the proposals image by image; ``order`` leads back to the order asked for
        order = sorted(range(len(pairs)), key=lambda position: pairs[position][0])
        proposals = [
            torch.stack(mine) if (mine := [scaled[p] for p in order if pairs[p][0] == row]) else x.new_zeros((0, 4))
            for row in range(len(x))
        ]
        logits, deltas = self._second_stage(features, proposals, batch)
        place = {position: index for index, position in enumerate(order)}
        return torch.stack([self._score(logits[place[p]], deltas[place[p]], d) for p, (_, d) in enumerate(pairs)])

    def _proposal(self, decision: Decision) -> Tensor:
        if decision.proposal is None:
            raise ModelError(f"{self.name}: target {decision.target} names no box; a detector explains boxes")
        return decision.proposal.to("cpu", torch.float64)

    def _score(self, logits: Tensor, deltas: Tensor, decision: Decision) -> Tensor:
        if decision.edge is None:
            return read(logits, decision, first=1)
        # centre offset plus or minus half the log of the side: the edge's move in sides of the proposal, to first order
        axis, half = EDGES[decision.edge]
        moves = deltas.view(-1, 4)[decision.class_index + 1]
        weights = self.module.roi_heads.box_coder.weights
        return moves[axis] / weights[axis] + half * moves[axis + 2] / weights[axis + 2]

    def loss(self, images: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Cross-entropy of the second stage at the true boxes plus objectness of the anchors on them.

        Raising it makes the detector miss or rename what is there.  (N,); 0 for an image without objects.
        """
        batch, features = self._features(self.normalise(images))
        scale = self._scale(batch.image_sizes[0], (int(images.shape[-2]), int(images.shape[-1])))
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
