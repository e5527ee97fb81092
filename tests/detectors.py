"""Detectors of torchvision's make, one of each family and small, with settled weights; three classes and a first output before them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from tests.nets import settled
from xaitools.adapters import InstanceModel, OneStageModel, TwoStageModel
from xaitools.architectures import ARCHITECTURES

CLASSES = ("disc", "square", "star")


class Levels(nn.Module):
    """(N, 3, H, W) -> maps of strides 4 and 8, the finer one joined with what is above it."""

    def __init__(self, channels: int = 8, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.out_channels = channels
        widths = (3, 6, 8, 10)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), norm(after), nn.ReLU(inplace=True))
            for before, after in pairwise(widths)
        )
        self.low, self.high = nn.Conv2d(8, channels, 1), nn.Conv2d(10, channels, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        low = self.stages[1](self.stages[0](x))
        high = self.high(self.stages[2](low))
        return OrderedDict([("0", self.low(low) + F.interpolate(high, size=low.shape[-2:], mode="nearest")), ("1", high)])


class Rescaled(nn.Module):
    """The way of SSD's VGG: the first map has its length normalised, and each map its own width."""

    def __init__(self, activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), activation(), nn.MaxPool2d(2, ceil_mode=True))
        self.scale_weight = nn.Parameter(torch.ones(6) * 2)
        self.deep = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.BatchNorm2d(8), activation())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        low = self.stem(x)
        return OrderedDict([("0", self.scale_weight.view(1, -1, 1, 1) * F.normalize(low)), ("1", self.deep(low))])


SIZES: dict[str, Any] = dict(min_size=48, max_size=64, size_divisible=8)


def anchors(*sizes: tuple[int, ...]) -> AnchorGenerator:
    return AnchorGenerator(sizes, ((1.0,),) * len(sizes))


def retinanet(outputs: int = 4, group_norm: bool = False) -> RetinaNet:
    head = RetinaNetHead(8, 2, outputs, norm_layer=partial(nn.GroupNorm, 2)) if group_norm else None
    return RetinaNet(Levels(), outputs, anchor_generator=anchors((8, 16), (24, 32)), head=head, topk_candidates=60, **SIZES)


def fcos(outputs: int = 4) -> FCOS:
    return FCOS(Levels(64), outputs, anchor_generator=anchors((4,), (8,)), head=FCOSHead(64, 1, outputs, 2), score_thresh=0.3, **SIZES)


def ssd() -> SSD:
    return SSD(Rescaled(), DefaultBoxGenerator([[2], [2]]), (56, 48), 4, score_thresh=0.1, topk_candidates=30)


def ssdlite() -> SSD:
    boxes = DefaultBoxGenerator([[2], [2]])
    head = SSDLiteHead([6, 8], boxes.num_anchors_per_location(), 4, nn.BatchNorm2d)
    return SSD(Rescaled(partial(nn.Hardswish, inplace=True)), boxes, (48, 48), 4, head=head)


def two_stage(
    kind: type[FasterRCNN] = FasterRCNN, outputs: int = 4, norm: Callable[[int], nn.Module] = nn.BatchNorm2d, **parts: Any
) -> Any:
    return kind(
        Levels(norm=norm), rpn_anchor_generator=anchors((8, 16), (24, 32)), rpn_post_nms_top_n_test=20, box_detections_per_img=8,
        box_roi_pool=MultiScaleRoIAlign(["0", "1"], 3, 2), box_head=TwoMLPHead(8 * 9, 12),
        box_predictor=FastRCNNPredictor(12, outputs), **SIZES, **parts,
    )  # fmt: skip


def mask_rcnn(outputs: int = 4) -> MaskRCNN:
    parts = dict(mask_roi_pool=MultiScaleRoIAlign(["0", "1"], 5, 2), mask_head=MaskRCNNHeads(8, (6, 6), 1))
    return two_stage(MaskRCNN, outputs, mask_predictor=MaskRCNNPredictor(6, 7, outputs), **parts)


def fast_rcnn(outputs: int = 4) -> nn.Module:
    return ARCHITECTURES["fast-rcnn"](outputs - 1, widths=(4, 6, 8), out_channels=8, hidden=12, pool=3, side=48, longest=64, detections=8)


def rcnn(outputs: int = 4) -> nn.Module:
    net: Any = ARCHITECTURES["rcnn"](outputs - 1, divide=32, side=48, longest=64, detections=8)
    nn.init.normal_(net.roi_heads.box_predictor.bbox_pred.weight, std=0.05)  # as if its regressors had been fitted
    return net


ONE_STAGE: dict[str, Callable[[], nn.Module]] = {
    "retinanet": retinanet, "retinanet-group-norm": partial(retinanet, group_norm=True), "fcos": fcos, "ssd": ssd, "ssdlite": ssdlite,
}  # fmt: skip
TWO_STAGE: dict[str, Callable[[], nn.Module]] = {
    "rcnn": rcnn, "fast-rcnn": fast_rcnn,
    "faster-rcnn": two_stage, "faster-rcnn-frozen": partial(two_stage, norm=FrozenBatchNorm2d), "mask-rcnn": mask_rcnn,
}  # fmt: skip
DETECTORS = ONE_STAGE | TWO_STAGE


def model_of(net: nn.Module, dtype: torch.dtype = torch.float64, classes: tuple[str, ...] = CLASSES, **options: Any) -> Any:
    settled(net).to(dtype)
    kind = InstanceModel if isinstance(net, MaskRCNN) else TwoStageModel if isinstance(net, GeneralizedRCNN) else OneStageModel
    return kind(net, classes, **{"score_threshold": 0.0, **options})


BUILDERS: dict[str, dict[str, Any]] = {
    "fasterrcnn_resnet50_fpn": {"rpn_post_nms_top_n_test": 30},
    "fasterrcnn_resnet50_fpn_v2": {"rpn_post_nms_top_n_test": 30},
    "fasterrcnn_mobilenet_v3_large_320_fpn": {"rpn_post_nms_top_n_test": 30},
    "maskrcnn_resnet50_fpn": {"rpn_post_nms_top_n_test": 30, "box_detections_per_img": 5},
    "retinanet_resnet50_fpn": {},
    "retinanet_resnet50_fpn_v2": {},
    "fcos_resnet50_fpn": {"score_thresh": 0.05},
    "ssd300_vgg16": {},
    "ssdlite320_mobilenet_v3_large": {},
}


def built(name: str) -> nn.Module:
    """torchvision's own network of that name with random weights, fed small images where it allows it."""
    from torchvision.models import detection

    size = {} if name.startswith("ssd") else {"min_size": 64, "max_size": 96}
    return getattr(detection, name)(weights=None, weights_backbone=None, num_classes=4, **size, **BUILDERS[name])
