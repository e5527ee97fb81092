"""Two-stage detection: torchvision's Faster R-CNN and kin, every final box traced back to its proposal.

Ren et al. 2015; Girshick et al. 2014 and Girshick 2015, whose proposals come from outside the network.  The proposal and
class of a final box give the raw logit again, differentiable down to the image; proposals are constants for the second
stage (torchvision detaches them too).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.keypoint_rcnn import KeypointRCNN
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers
from torchvision.ops import batched_nms, clip_boxes_to_image

from ..errors import ModelError
from ..types import Decision, Prediction, Sample, Trace
from .base import Adapter, as_found, check_images, read
from .candidates import Candidates, around, missed, near, objects_of
from .tracing import Judged, at_least_float32, check_trace, edge_move, lowered, only_resizing, onto_image, outputs_of, scale_of, traced


class _Answer(NamedTuple):
    """What the network says of one image: its own final boxes, and what they were chosen from; ``shape`` is (H, W) of its input."""

    judged: Judged
    proposals: Tensor
    mask_logits: Tensor | None
    own: dict[str, Tensor]
    shape: tuple[int, int]


class TwoStageModel(Adapter):
    """``classes`` are the object classes; the network's output 0 is background, output i + 1 is class i.

    Boxes that score more than ``score_threshold`` are listed, also below the network's own threshold.  The explained
    number of an edge is how far its regression outputs move it, in sides of the proposal, to first order.
    """

    task = "detection"
    trunk = "backbone"
    module: Any  # torchvision's parts are typed as plain modules

    def __init__(self, module: nn.Module, classes: Sequence[str], *, score_threshold: float = 0.05, **options: Any) -> None:
        if not isinstance(module, GeneralizedRCNN) or isinstance(module, KeypointRCNN):
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
        with torch.no_grad(), as_found(self):
            return [self._prediction(answer, size) for answer in self._answers(*self._features(self.normalise(images)))]

    def trace(self, image: Tensor) -> Trace:
        check_images(image[None])
        size, heads = (int(image.shape[-2]), int(image.shape[-1])), self.module.roi_heads
        with torch.no_grad(), as_found(self):
            batch, features = self._features(self.normalise(image[None]))
            [answer] = self._answers(batch, features)
            first = self._first_stage(batch, features, answer.proposals, size)
        return traced(
            answer.judged, scale_of(answer.shape, size), size, score_threshold=self.score_threshold, nms=heads.nms_thresh,
            most=heads.detections_per_img, kind="proposal", classes=self.classes, priors=answer.proposals, first=first,
        )  # fmt: skip

    def _features(self, x: Tensor) -> tuple[ImageList, dict[str, Tensor]]:
        batch, _ = self.transform(list(x), None)
        features = self.module.backbone(batch.tensors)
        return batch, features if isinstance(features, dict) else {"0": features}

    def _second_stage(self, features: dict[str, Tensor], proposals: list[Tensor], batch: ImageList) -> tuple[Tensor, Tensor]:
        heads = self.module.roi_heads
        pooled = heads.box_roi_pool(features, proposals, batch.image_sizes)
        return heads.box_predictor(heads.box_head(pooled))

    def _probabilities(self, logits: Tensor) -> Tensor:
        """Of each output: a softmax over all, or what the heads say themselves (the SVMs of R-CNN judge each class alone)."""
        own = getattr(self.module.roi_heads, "class_scores", None)
        return logits.softmax(-1) if own is None else own(logits)

    def _answers(self, batch: ImageList, features: dict[str, Tensor]) -> Iterator[_Answer]:
        """What the network says of each image, its post-processing done again."""
        heads = self.module.roi_heads
        proposals, _ = self.module.rpn(batch, features, None)
        with lowered(heads, self.score_threshold), outputs_of(heads.box_predictor, heads.mask_predictor) as (boxes, masks):
            own, _ = heads(features, proposals, batch.image_sizes)
        (logits, deltas), counts = boxes[0], [len(each) for each in proposals]
        # for the whole batch at once, like the network: the last bit may depend on a tensor's length
        scores, decoded = self._probabilities(logits).split(counts), heads.box_coder.decode(deltas, proposals).split(counts)
        mask_logits = masks[0].split([len(each["labels"]) for each in own]) if masks else [None] * len(own)
        for row, shape in enumerate(batch.image_sizes):
            judged = self._judged(logits.split(counts)[row], scores[row], decoded[row], own[row], shape)
            yield _Answer(judged, proposals[row], mask_logits[row], own[row], shape)

    def _judged(self, logits: Tensor, scores: Tensor, decoded: Tensor, own: dict[str, Tensor], shape: tuple[int, int]) -> Judged:
        """torchvision's post-processing again, carrying proposal and class; refused if the result is not ``own``."""
        heads = self.module.roi_heads
        boxes, scores = clip_boxes_to_image(decoded, shape)[:, 1:], scores[:, 1:]
        whole = (boxes[..., 2:] - boxes[..., :2] >= 1e-2).all(-1)
        places, chances = boxes.reshape(-1, 4), scores.reshape(-1)
        labels = torch.arange(scores.shape[1], device=scores.device).repeat(len(scores))
        entered = torch.where((chances > min(heads.score_thresh, self.score_threshold)) & whole.flatten())[0]
        survived = entered[batched_nms(places[entered], chances[entered], labels[entered], heads.nms_thresh)]
        kept = survived[: heads.detections_per_img]
        check_trace(self.name, own, boxes=places[kept], scores=chances[kept], labels=labels[kept] + 1)
        return Judged(logits[:, 1:], scores, boxes, whole, entered, survived, kept[chances[kept] > self.score_threshold])

    def _prediction(self, answer: _Answer, size: tuple[int, int]) -> Prediction:
        judged, own, shape = answer.judged, answer.own, answer.shape
        origin, labels = judged.split(judged.kept)
        boxes, scale = judged.boxes[origin, labels], scale_of(shape, size).to(judged.boxes)
        return Prediction(
            self.task, self.classes, size, labels.cpu(), judged.scores[origin, labels].float().cpu(), boxes=at_least_float32(boxes / scale),
            origins=(answer.proposals[origin] / scale).cpu(),
            **self._masks(answer.mask_logits, own, own["scores"] > self.score_threshold, shape, size),
        )  # fmt: skip

    def _first_stage(self, batch: ImageList, features: dict[str, Tensor], proposals: Tensor, size: tuple[int, int]) -> Trace | None:
        """How the one image of the batch came to its ``proposals``; refused if they are not those of the network."""
        rpn, maps, shape = self.module.rpn, list(features.values()), batch.image_sizes[0]
        if not isinstance(rpn, RegionProposalNetwork):
            return None
        objectness, deltas = rpn.head(maps)
        counts = [each.numel() for each in objectness]
        logits, deltas = (each.detach() for each in concat_box_prediction_layers(objectness, deltas))
        [anchors] = rpn.anchor_generator(batch, maps)
        boxes = clip_boxes_to_image(rpn.box_coder.decode(deltas, [anchors])[:, 0], shape)
        scores, level = logits[:, 0].sigmoid(), torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(boxes.device)
        whole = (boxes[:, 2:] - boxes[:, :2] >= rpn.min_size).all(1)
        starts = [sum(counts[:number]) for number in range(len(counts))]
        ranked = torch.cat([start + each.topk(min(len(each), rpn.pre_nms_top_n()), dim=0).indices
                            for start, each in zip(starts, logits[:, 0].split(counts), strict=True)])  # fmt: skip
        entered = ranked[whole[ranked] & (scores[ranked] >= rpn.score_thresh)]
        survived = entered[batched_nms(boxes[entered], scores[entered], level[entered], rpn.nms_thresh)]
        kept = survived[: rpn.post_nms_top_n()]
        check_trace(self.name, {"boxes": proposals}, boxes=boxes[kept])
        judged = Judged(logits, scores[:, None], boxes[:, None], whole[:, None], entered, survived, kept, level)
        return traced(
            judged, scale_of(shape, size), size, score_threshold=rpn.score_thresh, nms=rpn.nms_thresh, most=rpn.post_nms_top_n(),
            kind="anchor", classes=("object",), priors=anchors,
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
        if decision.reading == "probability":
            return self._probabilities(logits)[decision.class_index + 1]
        if decision.edge is None:
            return read(logits, decision, first=1)
        return edge_move(deltas.view(-1, 4)[decision.class_index + 1], self.module.roi_heads.box_coder.weights, decision.edge)

    def onto_image(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        return onto_image(self.transform, maps, size)

    def candidates(self, images: Tensor, samples: Sequence[Sample] | None = None) -> list[Candidates]:
        """Of each image what the second stage says of its proposals, which are constants as in training.

        Where they are searched for outside the network and ``samples`` are given, those near the samples' objects, and true boxes
        moved and scaled a little: what the search finds once it has moved on, an attack has then met already.
        """
        batch, features = self._features(self.normalise(images))
        scale = scale_of(batch.image_sizes[0], (int(images.shape[-2]), int(images.shape[-1]))).to(batch.tensors)
        with torch.no_grad():
            proposals, _ = self.module.rpn(batch, features, None)
        if samples is not None and not isinstance(self.module.rpn, RegionProposalNetwork):
            places = [objects_of(sample, batch.tensors)[0] * scale for sample in samples]
            proposals = [torch.cat([around(some), near(found, some)]) for found, some in zip(proposals, places, strict=True)]
        logits, deltas = self._second_stage(features, proposals, batch)
        own = getattr(self.module.roi_heads, "class_scores", None)
        logs = logits.log_softmax(-1) if own is None else own(logits).clamp(min=1e-30).log()
        boxes, counts = self.module.roi_heads.box_coder.decode(deltas, proposals) / scale, [len(each) for each in proposals]
        return [Candidates(*each) for each in zip(boxes[:, 1:].split(counts), logs[:, 1:].split(counts), strict=True)]

    def loss(self, images: Tensor, samples: Sequence[Sample]) -> Tensor:
        return missed(self.candidates(images, samples), samples)
