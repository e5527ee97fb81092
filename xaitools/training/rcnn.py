"""What R-CNN learns after its network: a linear SVM and a box regressor for each class (Girshick et al. 2014)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

Pair = tuple[Tensor, dict[str, Tensor]]

NEGATIVE, NEAR = 0.3, 0.6
"""Overlap below which a proposal is no example of a class (section 2.3), and above which it teaches the regressor (appendix C)."""

NORM = 20.0
"""Mean length to which features are brought, so that constants mean about the same whatever the network."""

SLACK, RIDGE = 0.01, 10.0
"""C of the SVMs and lambda of the regressors.

The paper has 0.001 and 1000, for thousands of features and objects; with hundreds the penalty would win and nothing be learnt.
"""

FIRST, ROUNDS, HARD = 20_000, 4, 20_000
"""Negatives to begin with; rounds of mining; the most that a round adds."""


@dataclass(frozen=True)
class Regions:
    """R regions of all images: features before the SVMs (R, D) float16 and before the regressors (R, P); for each class the
    overlap with its nearest object (R, C), the offsets to that (R, C, 4), and whether the region is that object itself (R, C)."""

    features: Tensor
    pooled: Tensor
    overlap: Tensor
    offsets: Tensor
    exact: Tensor


@torch.no_grad()
def finish(network: Any, pairs: Sequence[Pair], seed: int, say: Callable[[str], None]) -> None:
    """Fits SVMs and regressors to the network's features and writes them into its last layers."""
    network.eval()
    predictor, classes = network.roi_heads.box_predictor, network.roi_heads.box_predictor.cls_score.out_features - 1
    regions = _joined([_regions(network, image, target, classes) for image, target in pairs])
    say(f"{len(regions.overlap)} regions for the SVMs")
    generator = torch.Generator().manual_seed(seed)
    for parameter in (*predictor.cls_score.parameters(), *predictor.bbox_pred.parameters()):
        parameter.zero_()
    stretch = NORM / float(regions.features.float().norm(dim=1).mean())
    pooled_stretch = NORM / float(regions.pooled.norm(dim=1).mean())
    for index in range(classes):
        weight, bias, told = _svm(regions, index, stretch, generator)
        predictor.cls_score.weight[index + 1], predictor.cls_score.bias[index + 1] = weight * stretch, bias
        weight, bias = _regressor(regions, index, pooled_stretch)
        rows = slice(4 * (index + 1), 4 * (index + 2))
        predictor.bbox_pred.weight[rows], predictor.bbox_pred.bias[rows] = weight * pooled_stretch, bias
        say(f"class {index + 1}/{classes}: {told}")


def _regions(network: Any, image: Tensor, target: dict[str, Tensor], classes: int) -> Regions:
    """The proposals of one image and its objects themselves, seen by the network."""
    heads, (height, width) = network.roi_heads, image.shape[-2:]
    batch, _ = network.transform([image.float() / 255], None)
    down, right = batch.image_sizes[0][0] / height, batch.image_sizes[0][1] / width
    scale = torch.tensor([right, down, right, down])
    truth, labels = target["boxes"] * scale, target["labels"] - 1
    boxes = torch.cat([truth, target["regions"] * scale])
    pooled = heads.box_head(heads.box_roi_pool(network.backbone(batch.tensors), [boxes], batch.image_sizes))
    overlap, offsets = torch.zeros(len(boxes), classes), torch.zeros(len(boxes), classes, 4)
    exact = torch.zeros(len(boxes), classes, dtype=torch.bool)
    exact[torch.arange(len(truth)), labels] = True
    for index in range(classes):
        if bool((labels == index).any()):
            mine = truth[labels == index]
            overlap[:, index], nearest = box_iou(boxes, mine).max(1)
            offsets[:, index] = heads.box_coder.encode([mine[nearest]], [boxes])[0]
    return Regions(heads.box_predictor.features(pooled).half(), pooled, overlap, offsets, exact)


def _joined(parts: Sequence[Regions]) -> Regions:
    names = ("features", "pooled", "overlap", "offsets", "exact")
    return Regions(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _svm(regions: Regions, index: int, stretch: float, generator: torch.Generator) -> tuple[Tensor, Tensor, str]:
    """Weights (D,) of stretched features and bias of one class: the objects against everything that overlaps none of them much.

    Begins with some negatives and adds, round by round, those that lie inside the margin (section 2.3).
    """
    from sklearn.svm import LinearSVC

    positive = regions.features[regions.exact[:, index]].float() * stretch
    others = regions.features[(regions.overlap[:, index] < NEGATIVE) & ~regions.exact[:, index]]
    chosen = torch.zeros(len(others), dtype=torch.bool)
    chosen[torch.randperm(len(others), generator=generator)[:FIRST]] = True
    weight, bias = torch.zeros(others.shape[1]), torch.zeros(())
    for _ in range(ROUNDS):
        x = torch.cat([positive, others[chosen].float() * stretch]).numpy()
        y = [1] * len(positive) + [0] * int(chosen.sum())
        svm = LinearSVC(C=SLACK, class_weight={1: 2.0}, intercept_scaling=10.0, random_state=0, max_iter=20_000).fit(x, y)
        weight, bias = torch.from_numpy(svm.coef_[0]).float(), torch.tensor(float(svm.intercept_[0]))
        margins = torch.cat([part.float() @ weight for part in others.split(50_000)]) * stretch + bias
        hard = torch.where((margins > -1) & ~chosen)[0]
        hard = hard[margins[hard].argsort(descending=True)[:HARD]]
        if not len(hard):
            break
        chosen[hard] = True
    return weight, bias, f"{len(positive)} objects, {int(chosen.sum())} of {len(others)} negatives"


def _regressor(regions: Regions, index: int, stretch: float) -> tuple[Tensor, Tensor]:
    """Weights (4, P) of stretched maps and biases (4,) that move the box of a near proposal to its object."""
    from sklearn.linear_model import Ridge

    near = (regions.overlap[:, index] >= NEAR) & ~regions.exact[:, index]
    if int(near.sum()) < 2:
        return torch.zeros(4, regions.pooled.shape[1]), torch.zeros(4)
    ridge = Ridge(alpha=RIDGE).fit((regions.pooled[near] * stretch).numpy(), regions.offsets[near, index].numpy())
    return torch.from_numpy(ridge.coef_).float(), torch.from_numpy(ridge.intercept_).float()
