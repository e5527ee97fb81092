"""Detectors of any make, by what they return.

A dict ``{"boxes": (N, A, 4), "logits": (N, A, C)[, "objectness": (N, A)]}`` before suppression (the head of a YOLO,
the queries of a DETR) is thresholded, suppressed and differentiated here.  A list of N dicts with boxes, labels and
scores is a black box: it can be occluded and probed, and says nothing of the logits behind its boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms

from ..errors import MethodError, ModelError
from ..types import Decision, Prediction, Sample, Trace
from .base import Adapter, as_found, check_images, read
from .candidates import Candidates, missed
from .fit import Fit
from .tracing import Judged, traced

EDGES = {"left": 0, "top": 1, "right": 2, "bottom": 3}
FORMS = 'a dict {"boxes": (N, A, 4), "logits": (N, A, C)} or a list of N dicts with boxes (D, 4), labels (D,), scores (D,)'


class PlainDetector(Adapter):
    """``background`` says which output or label means nothing: first, last, or none.

    With a background the class probabilities are a softmax over all outputs, without one each is a sigmoid of its
    own; a score is the class probability times the sigmoid of the objectness, where there is one.  The explained
    number is the class logit, and the edge of a box is its coordinate in pixels of the image.
    """

    def __init__(
        self,
        module: nn.Module,
        classes: Sequence[str],
        *,
        task: str = "detection",
        background: str = "first",
        score_threshold: float = 0.05,
        nms: float = 0.5,
        most: int = 100,
        fit: Fit | None = None,
        **options: Any,
    ) -> None:
        super().__init__(module, classes, **options)
        self.task, self.fit = task, fit or Fit()
        self.first, self.sigmoid = int(background == "first"), background == "none"
        self.score_threshold, self.nms, self.most = score_threshold, nms, most
        self.black_box = None

    def predict(self, images: Tensor) -> list[Prediction]:
        check_images(images)
        size = (int(images.shape[-2]), int(images.shape[-1]))
        with torch.no_grad(), as_found(self):
            out, seen = self._answer(self.normalise(images))
        if self.black_box:
            return [self._listed(each, seen, size) for each in out]
        return [self._prediction(judged, boxes, size) for judged, boxes in self._judged(out, size)]

    def trace(self, image: Tensor) -> Trace:
        check_images(image[None])
        size = (int(image.shape[-2]), int(image.shape[-1]))
        with torch.no_grad(), as_found(self):
            out, seen = self._answer(self.normalise(image[None]))
        if self.black_box:
            raise MethodError(f"{self.name} is a black box that returns only final boxes; its candidates are not to be seen")
        [(judged, boxes)] = self._judged(out, size)
        return traced(
            judged, torch.ones(4), size, score_threshold=self.score_threshold, nms=self.nms, most=self.most, classes=self.classes,
            **self._started(seen, size, len(boxes)),
        )  # fmt: skip

    def _started(self, seen: tuple[int, int], size: tuple[int, int], count: int) -> dict[str, Any]:
        """What the candidates are called and where they started, as far as the network says: ``kind`` and ``priors((H, W))``."""
        start: Any = getattr(self.module, "priors", None)
        if not callable(start):
            return {"kind": "candidate"}
        priors = start(seen)
        if priors.shape != (count, 4):
            raise ModelError(f"{self.name}: priors are {tuple(priors.shape)}; expected ({count}, 4), xyxy in pixels of the input")
        return {"kind": str(getattr(self.module, "kind", "candidate")), "priors": self.fit.boxes_back(priors.float(), size)}

    def _answer(self, x: Tensor) -> tuple[Any, tuple[int, int]]:
        """What the network says of normalised images, checked, and the (H, W) that it saw."""
        x = self.fit(x)
        out, seen = self.module(x), (int(x.shape[-2]), int(x.shape[-1]))
        if isinstance(out, list | tuple) and len(out) == len(x) and all(isinstance(each, Mapping) for each in out):
            self.black_box = True
            return out, seen
        if not isinstance(out, Mapping) or "boxes" not in out or "logits" not in out:
            keys = f" with {', '.join(map(str, out))}" if isinstance(out, Mapping) else ""
            raise ModelError(f"{self.name}: returned {type(out).__name__}{keys}; expected {FORMS}")
        self.black_box = False
        boxes, logits, objectness = out["boxes"], out["logits"], out.get("objectness")
        outputs = len(self.classes) + (not self.sigmoid)
        if boxes.dim() != 3 or boxes.shape[0] != len(x) or boxes.shape[-1] != 4:
            raise ModelError(f"{self.name}: boxes are {tuple(boxes.shape)}; expected ({len(x)}, A, 4), xyxy in pixels of the input")
        if logits.shape != (*boxes.shape[:2], outputs):
            what = "one a class" if self.sigmoid else "the classes and background; say background=none if there is none"
            raise ModelError(f"{self.name}: logits are {tuple(logits.shape)}; expected {(*boxes.shape[:2], outputs)}, {what}")
        if objectness is not None and objectness.shape != boxes.shape[:2]:
            raise ModelError(f"{self.name}: objectness is {tuple(objectness.shape)}; expected {tuple(boxes.shape[:2])}")
        return (boxes, logits, objectness), seen

    def _judged(self, out: tuple[Tensor, Tensor, Tensor | None], size: tuple[int, int]) -> Iterator[tuple[Judged, Tensor]]:
        """Of each image what threshold and suppression within each class leave, and the boxes (A, 4) before clipping."""
        boxes, logits, objectness = out
        boxes, logits = self.fit.boxes_back(boxes.float(), size).cpu(), logits.float().cpu()
        classes = slice(self.first, self.first + len(self.classes))
        scores = (logits.sigmoid() if self.sigmoid else logits.softmax(-1))[..., classes]
        if objectness is not None:
            scores = scores * objectness.float().cpu().sigmoid()[..., None]
        for place, raw, chances in zip(boxes, logits[..., classes], scores, strict=True):
            inside = _clipped(place, size)
            whole = (inside[:, 2:] > inside[:, :2]).all(1)
            anchors, labels = torch.where((chances > self.score_threshold) & whole[:, None])
            survived = batched_nms(inside[anchors], chances[anchors, labels], labels, self.nms)
            pairs, outputs = anchors * chances.shape[1] + labels, inside[:, None].expand(-1, chances.shape[1], -1)
            passed = pairs[survived]
            yield Judged(raw, chances, outputs, whole[:, None].expand_as(chances), pairs, passed, passed[: self.most]), place

    def _prediction(self, judged: Judged, candidates: Tensor, size: tuple[int, int]) -> Prediction:
        anchors, labels = judged.split(judged.kept)
        return Prediction(
            self.task, self.classes, size, labels, judged.scores[anchors, labels], boxes=judged.boxes[anchors, labels], anchors=anchors,
            candidates=candidates,
        )  # fmt: skip

    def _listed(self, out: Mapping[str, Any], seen: tuple[int, int], size: tuple[int, int]) -> Prediction:
        """A black box's own final boxes, in pixels of the image."""
        missing = [key for key in ("boxes", "labels", "scores") if not isinstance(out.get(key), Tensor)]
        if missing:
            raise ModelError(f"{self.name}: a dict without {', '.join(missing)} as a tensor; expected {FORMS}")
        boxes, labels, scores = (out[key].detach().cpu() for key in ("boxes", "labels", "scores"))
        count, outputs = len(scores), len(self.classes) + (not self.sigmoid)
        if boxes.shape != (count, 4) or labels.shape != (count,) or scores.dim() != 1:
            shapes = f"boxes {tuple(boxes.shape)}, labels {tuple(labels.shape)}, scores {tuple(scores.shape)}"
            raise ModelError(f"{self.name}: {shapes}; expected (D, 4), (D,), (D,)")
        if count and not 0 <= int(labels.min()) <= int(labels.max()) < outputs:
            came = f"labels {int(labels.min())} to {int(labels.max())}"
            raise ModelError(f"{self.name}: {came}; expected 0 to {outputs - 1}; see background=first|last|none")
        labels = labels.long() - self.first
        order = scores.argsort(descending=True, stable=True)
        real = (scores > self.score_threshold) & (labels >= 0) & (labels < len(self.classes))
        order = order[real[order]][: self.most]
        place = _clipped(self.fit.boxes_back(boxes[order].float(), size), size)
        masks = self._masks(out.get("masks"), order, seen, size) if self.task == "instances" else None
        return Prediction(self.task, self.classes, size, labels[order], scores[order].float(), boxes=place, masks=masks)

    def _masks(self, masks: Any, order: Tensor, seen: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """(D, H, W) bool at the image's size from masks (D, 1, h, w) or (D, h, w) in [0, 1]."""
        if not isinstance(masks, Tensor) or tuple(masks.shape[-2:]) != seen or masks.dim() not in (3, 4):
            came = tuple(masks.shape) if isinstance(masks, Tensor) else type(masks).__name__
            raise ModelError(f"{self.name}: masks are {came}; expected (D, 1, {seen[0]}, {seen[1]}) in [0, 1] for instances")
        each = masks.detach().cpu().float().reshape(-1, 1, seen[0], seen[1])[order]
        return self.fit.back(each, size, seen)[:, 0] >= 0.5

    def score_pairs(self, x: Tensor, pairs: Sequence[tuple[int, Decision]]) -> Tensor:
        out, _ = self._answer(x)
        if self.black_box:
            raise MethodError(f"{self.name} is a black box that returns only final boxes, without logits or gradients; use occlusion-drise")
        boxes, logits, _ = out
        boxes = self.fit.boxes_back(boxes, (int(x.shape[-2]), int(x.shape[-1])))
        return torch.stack([self._score(boxes[row], logits[row], decision) for row, decision in pairs])

    def _score(self, boxes: Tensor, logits: Tensor, decision: Decision) -> Tensor:
        if decision.anchor is None:
            raise ModelError(f"{self.name}: target {decision.target} names no box; a detector explains boxes")
        if decision.edge is not None:
            return boxes[decision.anchor, EDGES[decision.edge]]
        return read(logits[decision.anchor], decision, first=self.first, sigmoid=self.sigmoid)

    def candidates(self, images: Tensor, samples: Sequence[Sample] | None = None) -> list[Candidates]:
        out, _ = self._answer(self.normalise(images))
        if self.black_box:
            raise MethodError(f"{self.name} is a black box without gradients; attacks need them")
        boxes, logits, objectness = out
        boxes = self.fit.boxes_back(boxes, (int(images.shape[-2]), int(images.shape[-1])))
        logs = F.logsigmoid(logits) if self.sigmoid else logits.log_softmax(-1)[..., self.first : self.first + len(self.classes)]
        logs = logs if objectness is None else logs + F.logsigmoid(objectness)[..., None]
        return [Candidates(place[:, None].expand(-1, each.shape[1], -1), each) for place, each in zip(boxes, logs, strict=True)]

    def loss(self, images: Tensor, samples: Sequence[Sample]) -> Tensor:
        return missed(self.candidates(images), samples)


def _clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    return torch.stack([boxes[:, i].clamp(0, height if i % 2 else width) for i in range(4)], 1)
