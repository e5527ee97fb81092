"""A network as a model: which adapter takes it, and how the image is brought to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.keypoint_rcnn import KeypointRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNN
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD

from ..adapters import Adapter, ClassificationModel, Fit, PlainDetector, SegmentationModel, TwoStageModel
from ..errors import ModelError
from ..types import TASKS

DTYPES = {"float32": torch.float32, "float64": torch.float64}
BOXES = ("detection", "instances")
BACKGROUNDS = ("first", "last", "none")
NOTHING = ("background", "__background__", "void", "unlabelled", "unlabeled", "no object")
"""Names that mean "nothing"; a class list that begins (or ends) with one of them already names its background."""


def wrap(
    module: Any,
    *,
    task: str,
    classes: Sequence[str],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    order: str = "rgb",
    size: tuple[int, int] | None = None,
    shorter: int | None = None,
    crop: tuple[int, int] | None = None,
    multiple: int = 1,
    background: str | None = None,
    score_threshold: float = 0.05,
    nms: float = 0.5,
    name: str = "wrapped",
    device: str | None = None,
    dtype: str | None = None,
    weights_hash: str = "",
) -> Adapter:
    """Your own network as a model; it is used in eval mode and left as it was found.

    task        classification, segmentation, detection or instances
    classes     the classes that count, in the order of the outputs
    background  which output means "nothing": first (the default of detectors), last, or none (the default of the
                rest).  It is an output of its own beside ``classes``; a list that names it ("background") may.
    mean, std   per channel in RGB order, of images in [0, 1]; ``order`` bgr turns the channels after that
    size        (H, W) that the network is fed; or ``shorter`` side in pixels and a centre ``crop`` (H, W)
    multiple    of which both sides must be multiples; zeros are added
    nms         IoU above which the weaker of two boxes of a class is suppressed (dicts of boxes and logits)

    The network gets float32 (N, 3, H, W) and returns logits (N, C); logits (N, C, h, w), a dict with "out" or an
    object with ``.logits``; a class map (N, h, w) of whole numbers; ``{"boxes": (N, A, 4), "logits": (N, A, C)[,
    "objectness": (N, A)]}`` before suppression; or torchvision's list of dicts.  torchvision's own detectors are
    traced.  The last two otherwise, and class maps, are black boxes.  See ``xt.check_model``.
    """
    if task not in TASKS:
        raise ModelError(f"task {task!r}; expected {', '.join(TASKS)}")
    if not isinstance(module, nn.Module):
        raise ModelError(f"got {type(module).__name__}; expected a torch.nn.Module, or an object with predict(images) as it is")
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError("a scripted or traced module hides its operations; give the network it was made from")
    if not 0 <= score_threshold <= 1 or not 0 <= nms <= 1:
        raise ModelError(f"score_threshold {score_threshold}, nms {nms}; expected 0 to 1")
    if size is not None and (shorter or crop):
        raise ModelError("size and shorter or crop; give one of the two ways to bring an image to the network")
    if min([*(size or ()), *(crop or ()), *([shorter] if shorter is not None else []), multiple]) < 1:
        raise ModelError(f"size {size}, shorter {shorter}, crop {crop}, multiple {multiple}; expected pixels, at least 1")
    if crop is not None and task != "classification":
        raise ModelError(f"crop with task {task}; a crop hides parts of the image, give size or shorter")
    background = background or default_background(task)
    names = adapter_classes(classes, task, background)
    placed(module, device, dtype)
    options: dict[str, Any] = {"name": name, "order": order, "weights_hash": weights_hash}
    options |= ({"mean": mean} if mean is not None else {}) | ({"std": std} if std is not None else {})
    fit = Fit(size, shorter, crop, multiple)
    if task in BOXES:
        if isinstance(module, GeneralizedRCNN | RetinaNet | FCOS | SSD):
            if size is not None or shorter is not None or multiple > 1:
                raise ModelError(f"{name}: torchvision's detectors resize by themselves; set min_size and max_size of the network")
            return _torchvision_detector(module, names, task, background, options | {"score_threshold": score_threshold})
        return PlainDetector(module, names, task=task, background=background, score_threshold=score_threshold, nms=nms, fit=fit, **options)
    options["background"] = {"first": 0, "last": len(names) - 1, "none": None}[background]
    kind = SegmentationModel if task == "segmentation" else ClassificationModel
    return kind(module, names, fit=fit, **options)


def _torchvision_detector(module: nn.Module, names: list[str], task: str, background: str, options: dict[str, Any]) -> Adapter:
    from ..adapters.instances import InstanceModel
    from ..adapters.one_stage import OneStageModel

    masks = isinstance(module, MaskRCNN)
    if isinstance(module, KeypointRCNN) or (task == "instances") > masks:
        raise ModelError(f"{type(module).__name__} gives no instance masks; wrap it with task=detection, keypoints are not explained")
    if isinstance(module, RetinaNet | FCOS) and background != "last":
        return OneStageModel(module, names, first=int(background == "first"), **options)
    if background != "first":
        raise ModelError(f"background={background}: output 0 of torchvision's {type(module).__name__} is background; give background=first")
    if isinstance(module, SSD):
        return OneStageModel(module, names, first=1, **options)
    return (InstanceModel if masks and task == "instances" else TwoStageModel)(module, names, **options)


def default_background(task: str) -> str:
    return "first" if task in BOXES else "none"


def adapter_classes(classes: Sequence[str], task: str, background: str) -> list[str]:
    """The classes of the model: a detector's are objects only, the others' name every output.

    >>> adapter_classes(["car", "bus"], "segmentation", "first"), adapter_classes(["background", "car"], "detection", "first")
    (['background', 'car', 'bus'], ['car'])
    """
    names = [classes] if isinstance(classes, str) else list(classes)
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ModelError(f"classes {names[:5]!r}; expected different names, in the order of the outputs")
    if background not in BACKGROUNDS:
        raise ModelError(f"background={background!r}; expected {', '.join(BACKGROUNDS)}")
    if background == "none":
        return names
    first = background == "first"
    listed = names[0 if first else -1].casefold() in NOTHING
    if task in BOXES:
        return (names[1:] if first else names[:-1]) if listed and len(names) > 1 else names
    return names if listed else ["background", *names] if first else [*names, "background"]


def outputs(classes: Sequence[str], task: str, background: str) -> int:
    """How many outputs a network with these classes has."""
    return len(adapter_classes(classes, task, background)) + (task in BOXES and background != "none")


def placed(module: nn.Module, device: str | None, dtype: str | None) -> nn.Module:
    """``module`` itself, moved where asked."""
    if dtype is not None and dtype not in DTYPES:
        raise ModelError(f"dtype {dtype!r}; expected {' or '.join(DTYPES)}")
    try:
        return module.to(None if device is None else torch.device(device), None if dtype is None else DTYPES[dtype])
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {device!r} cannot be used ({str(error).splitlines()[0]}); use cpu") from None
