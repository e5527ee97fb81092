"""Trains a torchvision detector, of boxes or of instances, from a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..architectures.rcnn import RegionHeads
from ..architectures.selective_search import SelectiveSearch
from ..data import Dataset, readable
from ..data.selected import Selected
from ..types import Sample
from . import rcnn
from .loop import State, fit

Pair = tuple[Tensor, dict[str, Tensor]]

SEEN = 0.4
"""Share of a box that must be in view for it to count in a part of the image."""


def train(
    network: Any,
    training: Dataset,
    validation: Dataset,
    recipe: Mapping[str, Any],
    out: Path,
    *,
    resume: bool,
    say: Callable[[str], None],
    score: Callable[[nn.Module, Dataset], float],
) -> State:
    """``score(network, validation)`` is the mAP50 by which the best state is chosen."""
    settings = dict(recipe["training"])
    batch_size, autocast = int(settings["batch_size"]), bool(settings.get("autocast", False))
    pairs = pairs_of(training)
    if isinstance(network.rpn, SelectiveSearch):
        say(f"searching {len(pairs)} images for proposals")
        pairs = [(image, target | {"regions": _proposed(network, image)}) for image, target in pairs]
    say(f"{len(pairs)} training images")
    settings["steps_per_epoch"] = len(pairs) // batch_size

    def batches(epoch: int) -> Iterator[list[Pair]]:
        generator = torch.Generator().manual_seed(1000 * int(settings.get("seed", 0)) + epoch)
        torch.manual_seed(1000 * int(settings.get("seed", 0)) + epoch)  # torchvision's samplers draw from the global generator
        order = torch.randperm(len(pairs), generator=generator).tolist()
        for start in range(0, len(order) - batch_size + 1, batch_size):
            drawn = [pairs[index] for index in order[start : start + batch_size]]
            yield [augment(image, target, settings, generator) for image, target in drawn]

    def loss(batch: list[Pair]) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            parts = network([image for image, _ in batch], [_in_shares(*pair) for pair in batch])
        return torch.stack([part.float() for part in parts.values()]).sum()

    state = fit(network, batches, loss, lambda: score(network, validation), settings, out, resume=resume, say=say)
    if isinstance(network.roi_heads, RegionHeads):
        network.load_state_dict(state)
        rcnn.finish(network, pairs, int(settings.get("seed", 0)), say)
        state = network.state_dict()
    return state


def pairs_of(dataset: Dataset) -> list[Pair]:
    """Every image as uint8 with its objects as torchvision wants them: class 0 is background."""
    return [_pair(item) for _, item in readable(dataset) if isinstance(item, Sample) and item.boxes is not None]


def _pair(sample: Sample) -> Pair:
    assert sample.boxes is not None and sample.labels is not None
    keep = torch.ones(len(sample.labels), dtype=torch.bool) if sample.ignore is None else ~sample.ignore
    target = {"boxes": sample.boxes[keep].float(), "labels": sample.labels[keep] + 1}
    if sample.masks is not None:
        target["masks"] = sample.masks[keep].to(torch.uint8)
    return (sample.image * 255).round().to(torch.uint8), target


def augment(image: Tensor, target: dict[str, Tensor], settings: Mapping[str, Any], generator: torch.Generator) -> Pair:
    """Perhaps a part of the image, perhaps mirrored in either direction, light and colour changed a little."""

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    if float(settings.get("crop", 1.0)) < 1:
        height, width = image.shape[-2:]
        share = min(1.0, draw(float(settings["crop"]), 2 - float(settings["crop"])))  # every other image stays whole
        h, w = round(height * share), round(width * share)
        image, target = cropped(image, target, int(draw(0, height - h + 0.999)), int(draw(0, width - w + 0.999)), h, w)
    picture, target = image.float() / 255, dict(target)
    for axis, name in ((-1, "mirror"), (-2, "upside_down")):
        if settings.get(name, axis == -1) and draw(0, 1) < 0.5:
            picture, side = picture.flip(axis), picture.shape[axis]
            low, high = (0, 2) if axis == -1 else (1, 3)
            for kind in ("boxes", "regions"):
                if kind in target:
                    boxes = target[kind].clone()
                    boxes[:, low], boxes[:, high] = side - target[kind][:, high], side - target[kind][:, low]
                    target[kind] = boxes
            if "masks" in target:
                target["masks"] = target["masks"].flip(axis)
    strength = float(settings.get("colour", 0.2))
    gain = torch.tensor([draw(1 - strength / 2, 1 + strength / 2) for _ in range(3)]).view(3, 1, 1) * draw(1 - strength, 1 + strength)
    middle = picture.mean()
    return (picture * gain - middle).mul(draw(1 - strength, 1 + strength)).add(middle).clamp(0, 1), target


def cropped(image: Tensor, target: dict[str, Tensor], top: int, left: int, height: int, width: int) -> Pair:
    """The part of the image from there on; objects of which less than ``SEEN`` is left in view are dropped."""
    seen, keep = _in_view(target["boxes"], top, left, height, width)
    part = {"boxes": seen[keep], "labels": target["labels"][keep]}
    if "regions" in target:
        seen, found = _in_view(target["regions"], top, left, height, width)
        part["regions"] = seen[found]
    if "masks" in target:
        part["masks"] = target["masks"][keep, top : top + height, left : left + width]
    return image[:, top : top + height, left : left + width], part


def _in_view(boxes: Tensor, top: int, left: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Boxes (N, 4) as far as that part shows them, in its pixels, and which of them (N,) it shows enough of."""
    boxes = boxes - torch.tensor([left, top, left, top])
    seen = torch.stack([boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)], 2).flatten(1)
    return seen, (seen[:, 2:] - seen[:, :2]).prod(1) >= SEEN * (boxes[:, 2:] - boxes[:, :2]).prod(1)


def _proposed(network: Any, image: Tensor) -> Tensor:
    """Proposals in pixels of the uint8 image, searched as the network sees it."""
    batch, _ = network.transform([image.float() / 255], None)
    (found,), _ = network.rpn(batch)
    (height, width), (rows, columns) = image.shape[-2:], batch.image_sizes[0]
    return found * torch.tensor([width / columns, height / rows] * 2)


def _in_shares(image: Tensor, target: dict[str, Tensor]) -> dict[str, Tensor]:
    """With regions as shares of the image, which the network's own resizing leaves as they are."""
    if "regions" not in target:
        return target
    height, width = image.shape[-2:]
    return target | {"regions": target["regions"] / torch.tensor([width, height] * 2)}


def held_out(training: Dataset, every: int) -> dict[str, Dataset]:
    """train and val of a layout that has no val: every so-manieth item of its train, counted from the first, is val."""
    val = range(0, len(training), every)
    rest = [index for index in range(len(training)) if index % every]
    return {
        "train": Selected(training, rest, f"{training.name} without val"),
        "val": Selected(training, val, f"{training.name}, 1 of {every}"),
    }
