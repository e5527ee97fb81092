"""Trains a detector that has its own loss (YOLO) from a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data import Dataset
from .detection import Pair, augment, pairs_of
from .loop import State, fit, layout

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Images (N, 3, H, W); of all their objects the image (T,), box xyxy (T, 4) and class (T,)."""


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
    """``network`` has ``raw(x)`` and ``loss(raw, owners, boxes, labels)``; ``score`` as in ``detection.train``."""
    settings, size = dict(recipe["training"]), (int(recipe["input"]["size"][0]), int(recipe["input"]["size"][1]))
    mean, std = (torch.tensor(recipe["input"][key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    batch_size, autocast = int(settings["batch_size"]), bool(settings.get("autocast", False))
    memory = layout(network)
    room = 1 / float(settings.get("crop", 1.0)) ** 0.5  # for crops, an image is kept larger than the network sees it, if it is
    pairs = [_kept(image, target, (round(size[0] * room), round(size[1] * room))) for image, target in pairs_of(training)]
    say(f"{len(pairs)} training images")
    settings["steps_per_epoch"] = len(pairs) // batch_size

    def batches(epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(1000 * int(settings.get("seed", 0)) + epoch)
        order = torch.randperm(len(pairs), generator=generator).tolist()
        for start in range(0, len(order) - batch_size + 1, batch_size):
            drawn = [pairs[index] for index in order[start : start + batch_size]]
            yield _joined([_fitted(*augment(image, target, settings, generator), size) for image, target in drawn])

    def loss(batch: Batch) -> Tensor:
        images, owners, boxes, labels = batch
        x = ((images - mean) / std).contiguous(memory_format=memory)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            raw = network.raw(x)
        return network.loss(raw.float(), owners, boxes, labels)

    network.to(memory_format=memory)
    return fit(network, batches, loss, lambda: score(network, validation), settings, out, resume=resume, say=say)


def _kept(image: Tensor, target: dict[str, Tensor], most: tuple[int, int]) -> Pair:
    """The uint8 image, no larger than that, and its boxes without masks."""
    size = min(image.shape[-2], most[0]), min(image.shape[-1], most[1])
    picture, target = _fitted(image.float() / 255, target, size)
    return (picture * 255).round().to(torch.uint8), target


def _fitted(picture: Tensor, target: dict[str, Tensor], size: tuple[int, int]) -> Pair:
    """Stretched to exactly ``size``, as the adapter's ``Fit`` does."""
    height, width = picture.shape[-2:]
    boxes = target["boxes"] * torch.tensor([size[1] / width, size[0] / height] * 2)
    if (height, width) != size:
        picture = F.interpolate(picture[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    return picture, {"boxes": boxes, "labels": target["labels"]}


def _joined(pairs: list[Pair]) -> Batch:
    owners = torch.cat([torch.full((len(target["labels"]),), number) for number, (_, target) in enumerate(pairs)])
    boxes, labels = (torch.cat([target[key] for _, target in pairs]) for key in ("boxes", "labels"))
    return torch.stack([picture for picture, _ in pairs]), owners, boxes, labels - 1
