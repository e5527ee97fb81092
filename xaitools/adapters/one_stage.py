"""One-stage detection: torchvision's RetinaNet, FCOS and SSD, every final box traced back to its anchor.

Lin et al. 2017, Tian et al. 2019, Liu et al. 2016.  Anchors are numbered over all levels, in the order of the heads'
outputs.  The number and the class of a final box give the raw logit again, differentiable down to the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.fcos import FCOS, FCOSClassificationHead, FCOSRegressionHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetClassificationHead, RetinaNetRegressionHead
from torchvision.models.detection.ssd import SSD, SSDScoringHead
from torchvision.ops import batched_nms, clip_boxes_to_image

from ..errors import ModelError
from ..types import Decision, Prediction, Sample, Trace
from .base import Adapter, as_found, check_images, read
from .candidates import Candidates, missed
from .tracing import Judged, at_least_float32, check_trace, edge_move, lowered, only_resizing, onto_image, scale_of, traced

HEADS = {
    RetinaNet: (RetinaNetClassificationHead, RetinaNetRegressionHead),
    FCOS: (FCOSClassificationHead, FCOSRegressionHead),
    SSD: (SSDScoringHead, SSDScoringHead),
}


class _Answer(NamedTuple):
    """What the network says of one image: raw outputs of all anchors, its own final boxes; ``shape`` is (H, W) of its input.

    ``counts`` are the anchors of each level.
    """

    outputs: dict[str, Tensor]
    anchors: Tensor
    counts: list[int]
    own: dict[str, Tensor]
    shape: tuple[int, int]


class _Ranked(NamedTuple):
    """What suppression was given (scores, labels, numbers of anchors, boxes), what of it survived, and what was kept.

    Label -1 is the unused output.
    """

    scores: Tensor
    labels: Tensor
    numbers: Tensor
    boxes: Tensor
    survived: Tensor
    kept: Tensor


class OneStageModel(Adapter):
    """``classes`` are the object classes; the network's output ``first + i`` is class i.

    torchvision's weights have 1 as ``first``: output 0 is background (SSD) or never used (RetinaNet, FCOS).  Boxes that
    score more than ``score_threshold`` are listed, also below the network's own threshold.

    The explained number of a box is the raw class logit of its anchor.  RetinaNet and FCOS judge each class by itself, by
    a sigmoid.  FCOS's centerness, which takes part in its score √(sigmoid(class) sigmoid(centerness)), is no part of it.
    That of an edge is how far the regression outputs move it, in sides of the anchor: exactly for FCOS, whose outputs
    are distances from the anchor's centre, to first order for the others.
    """

    task = "detection"
    trunk = "backbone"
    module: Any  # torchvision's parts are typed as plain modules

    def __init__(self, module: nn.Module, classes: Sequence[str], *, first: int = 1, score_threshold: float = 0.05, **options: Any) -> None:
        family = next((each for each in HEADS if isinstance(module, each)), None)
        if family is None:
            raise ModelError(f"got {type(module).__name__}; expected a torchvision RetinaNet, FCOS or SSD")
        transform: Any = module.transform
        options = {"mean": transform.image_mean, "std": transform.image_std} | options
        super().__init__(module, classes, **options)
        heads = (getattr(module.head, "classification_head", None), getattr(module.head, "regression_head", None))
        if not all(isinstance(head, kind) for head, kind in zip(heads, HEADS[family], strict=True)):
            came = " and ".join(type(head).__name__ for head in heads)
            raise ModelError(f"{self.name}: heads {came}; expected those of torchvision's {family.__name__}")
        self.sigmoid, self.first, self.score_threshold = family is not SSD, first, score_threshold
        if first not in (0, 1) or (first == 0 and not self.sigmoid):
            raise ModelError(
                f"{self.name}: first={first}; expected 1" + (" or 0" if self.sigmoid else ", output 0 of an SSD is background")
            )
        outputs: Any = getattr(heads[0], "num_classes" if self.sigmoid else "num_columns")
        if outputs != len(self.classes) + first:
            rest = f" and {'an unused output' if self.sigmoid else 'background'} before them" if first else ""
            remedy = "give all classes" + (", or the other of first=0 and first=1" if self.sigmoid else "")
            raise ModelError(f"{self.name}: {outputs} class outputs for {len(self.classes)} classes{rest}; {remedy}")
        self.transform = only_resizing(transform)

    def predict(self, images: Tensor) -> list[Prediction]:
        check_images(images)
        size = (int(images.shape[-2]), int(images.shape[-1]))
        with torch.no_grad(), as_found(self), lowered(self.module, self.score_threshold):
            return [self._prediction(answer, self._ranked(answer), size) for answer in self._answers(self.normalise(images))]

    def trace(self, image: Tensor) -> Trace:
        check_images(image[None])
        size, net = (int(image.shape[-2]), int(image.shape[-1])), self.module
        with torch.no_grad(), as_found(self), lowered(net, self.score_threshold):
            [answer] = self._answers(self.normalise(image[None]))
            judged = self._judged(answer, self._ranked(answer))
        return traced(
            judged, scale_of(answer.shape, size), size, score_threshold=self.score_threshold, nms=net.nms_thresh,
            most=net.detections_per_img, kind="anchor", classes=self.classes, priors=answer.anchors,
        )  # fmt: skip

    def _answers(self, x: Tensor) -> Iterator[_Answer]:
        """What the network says of each normalised image."""
        net = self.module
        batch, features = self._features(x)
        outputs, anchors, counts = net.head(features), net.anchor_generator(batch, features), self._counts(features)
        if self.sigmoid:
            split = {key: list(value.split(counts, dim=1)) for key, value in outputs.items()}
            own = net.postprocess_detections(split, [list(each.split(counts)) for each in anchors], batch.image_sizes)
        else:
            own = net.postprocess_detections(outputs, anchors, batch.image_sizes)
        for row, shape in enumerate(batch.image_sizes):
            yield _Answer({key: value[row] for key, value in outputs.items()}, anchors[row], counts, own[row], shape)

    def _features(self, x: Tensor) -> tuple[ImageList, list[Tensor]]:
        batch, _ = self.transform(list(x), None)
        features = self.module.backbone(batch.tensors)
        return batch, list(features.values()) if isinstance(features, dict) else [features]

    def _counts(self, features: Sequence[Tensor]) -> list[int]:
        """How many anchors each level has."""
        each = self.module.anchor_generator.num_anchors_per_location()
        return [level.shape[-2] * level.shape[-1] * per_place for level, per_place in zip(features, each, strict=True)]

    # -- the trace

    def _ranked(self, answer: _Answer) -> _Ranked:
        """torchvision's post-processing again, carrying the anchor; refused if the result is not the network's own."""
        net = self.module
        groups = self._by_level(answer) if self.sigmoid else self._by_class(answer)
        scores, labels, numbers, boxes = (torch.cat(each) for each in zip(*groups, strict=True))
        survived = batched_nms(boxes, scores, labels, net.nms_thresh)
        keep = survived[: net.detections_per_img]
        check_trace(self.name, answer.own, boxes=boxes[keep], scores=scores[keep], labels=labels[keep])
        # torchvision also lists boxes without area, clipped away at the border, and the unused output 0
        keep = keep[(scores[keep] > self.score_threshold) & (labels[keep] >= self.first) & (boxes[keep, 2:] > boxes[keep, :2]).all(1)]
        return _Ranked(scores, labels - self.first, numbers, boxes, survived, keep)

    def _prediction(self, answer: _Answer, ranked: _Ranked, size: tuple[int, int]) -> Prediction:
        scores, labels, numbers, boxes, _, keep = ranked
        scale, decode = scale_of(answer.shape, size).to(boxes), self._decoder(answer.shape)
        return Prediction(
            self.task, self.classes, size, labels[keep].cpu(), scores[keep].float().cpu(), boxes=at_least_float32(boxes[keep] / scale),
            anchors=numbers[keep].cpu(), candidates=at_least_float32(decode(answer.outputs["bbox_regression"], answer.anchors) / scale),
        )  # fmt: skip

    def _judged(self, answer: _Answer, ranked: _Ranked) -> Judged:
        """All anchors in all classes; ``ranked`` are those that suppression was given."""
        scores = torch.cat(list(self._scores(answer)))[:, self.first :]
        boxes = self._decoder(answer.shape)(answer.outputs["bbox_regression"], answer.anchors)
        boxes[ranked.numbers] = ranked.boxes  # the last bit may depend on a tensor's length
        whole, pairs = (boxes[:, 2:] > boxes[:, :2]).all(1), ranked.numbers * scores.shape[1] + ranked.labels
        survived = ranked.survived[ranked.labels[ranked.survived] >= 0]
        return Judged(
            answer.outputs["cls_logits"][:, self.first :], scores, boxes[:, None].expand(-1, scores.shape[1], -1),
            whole[:, None].expand_as(scores), pairs[ranked.labels >= 0], pairs[survived], pairs[ranked.kept],
        )  # fmt: skip

    def _scores(self, answer: _Answer) -> Iterator[Tensor]:
        """(A, outputs) in [0, 1], level by level; SSD's all at once, for its classes are ranked over all levels."""
        logits = answer.outputs["cls_logits"]
        if not self.sigmoid:
            yield logits.softmax(-1)
            return
        centres = answer.outputs["bbox_ctrness"].split(answer.counts) if "bbox_ctrness" in answer.outputs else [None] * len(answer.counts)
        for level, centre in zip(logits.split(answer.counts), centres, strict=True):
            yield level.sigmoid() if centre is None else torch.sqrt(level.sigmoid() * centre.sigmoid())

    def _decoder(self, shape: tuple[int, int]) -> Callable[[Tensor, Tensor], Tensor]:
        """(regression outputs, anchors) -> boxes inside the network's input of that shape."""
        coder = self.module.box_coder
        plain = coder.decode if isinstance(self.module, FCOS) else coder.decode_single
        return lambda deltas, anchors: clip_boxes_to_image(plain(deltas, anchors), shape)

    def _by_level(self, answer: _Answer) -> Iterator[tuple[Tensor, ...]]:
        """RetinaNet and FCOS: the best of all classes, level by level."""
        start, decode = 0, self._decoder(answer.shape)
        places = [each.split(answer.counts) for each in (answer.outputs["bbox_regression"], answer.anchors)]
        for chances, deltas, boxes in zip(self._scores(answer), *places, strict=True):
            scores, classes = chances.flatten(), chances.shape[-1]
            best = self._best(scores)
            numbers = best // classes
            yield scores[best], best % classes, start + numbers, decode(deltas[numbers], boxes[numbers])
            start += len(deltas)

    def _by_class(self, answer: _Answer) -> Iterator[tuple[Tensor, ...]]:
        """SSD: the best anchors over all levels, class by class."""
        [chances], boxes = self._scores(answer), self._decoder(answer.shape)(answer.outputs["bbox_regression"], answer.anchors)
        for label, scores in enumerate(chances.unbind(-1)):
            if label:
                best = self._best(scores)
                yield scores[best], torch.full_like(best, label), best, boxes[best]

    def _best(self, scores: Tensor) -> Tensor:
        above = torch.where(scores > self.module.score_thresh)[0]
        return above[scores[above].topk(min(len(above), self.module.topk_candidates)).indices]

    # -- the explained number

    def score_pairs(self, x: Tensor, pairs: Sequence[tuple[int, Decision]]) -> Tensor:
        _, features = self._features(x)
        places = [self._place(decision, self._counts(features)) for _, decision in pairs]
        # the heads look at one level after the other, so that only the levels in question need running
        heads = self.module.head.classification_head, self.module.head.regression_head
        ran: dict[tuple[int, bool], Tensor] = {}
        scores = []
        for (row, decision), (level, number) in zip(pairs, places, strict=True):
            moved = decision.edge is not None
            if (level, moved) not in ran:
                ran[level, moved] = _on_level(heads[moved], features, level)
            scores.append(self._score(ran[level, moved][row, number], decision))
        return torch.stack(scores)

    def _place(self, decision: Decision, counts: Sequence[int]) -> tuple[int, int]:
        """Level of an anchor and its number there."""
        if decision.anchor is None:
            raise ModelError(f"{self.name}: target {decision.target} names no box; a detector explains boxes")
        number = decision.anchor
        for level, count in enumerate(counts):
            if 0 <= number < count:
                return level, number
            number -= count
        raise ModelError(f"{self.name}: anchor {decision.anchor} of {sum(counts)}; the image has another size than the predicted one")

    def _score(self, outputs: Tensor, decision: Decision) -> Tensor:
        if decision.edge is None:
            return read(outputs[self.first :], decision, sigmoid=True) if self.sigmoid else read(outputs, decision, first=self.first)
        if isinstance(self.module, FCOS):
            side = ("left", "top", "right", "bottom").index(decision.edge)
            return outputs[side] if side >= 2 else -outputs[side]
        return edge_move(outputs, self.module.box_coder.weights, decision.edge)

    def onto_image(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        return onto_image(self.transform, maps, size)

    def candidates(self, images: Tensor, samples: Sequence[Sample] | None = None) -> list[Candidates]:
        batch, features = self._features(self.normalise(images))
        outputs, anchors, shape = self.module.head(features), self.module.anchor_generator(batch, features), batch.image_sizes[0]
        logits, scale = outputs["cls_logits"], scale_of(shape, (int(images.shape[-2]), int(images.shape[-1]))).to(images.device)
        logs = (F.logsigmoid(logits) if self.sigmoid else logits.log_softmax(-1))[..., self.first :]
        if "bbox_ctrness" in outputs:
            logs = (logs + F.logsigmoid(outputs["bbox_ctrness"])) / 2
        places = [self._decoder(shape)(deltas, own) for deltas, own in zip(outputs["bbox_regression"], anchors, strict=True)]
        return [Candidates((place / scale.to(place))[:, None].expand(-1, each.shape[1], -1), each)
                for place, each in zip(places, logs, strict=True)]  # fmt: skip

    def loss(self, images: Tensor, samples: Sequence[Sample]) -> Tensor:
        return missed(self.candidates(images), samples)


def _on_level(head: nn.Module, features: Sequence[Tensor], level: int) -> Tensor:
    """What a head says of all anchors of one level, (N, A, columns)."""
    if isinstance(head, SSDScoringHead):  # one module per level
        head = SSDScoringHead(nn.ModuleList([head.module_list[level]]), head.num_columns)
    outputs = head([features[level]])
    return outputs[0] if isinstance(outputs, tuple) else outputs
