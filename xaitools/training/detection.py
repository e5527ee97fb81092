"""Trains a torchvision detector from a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Dataset, readable
from ..types import Sample
from .loop import State, fit

Pair = tuple[Tensor, dict[str, Tensor]]


def train(
    network: nn.Module,
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
    pairs = [_pair(item) for _, item in readable(training) if isinstance(item, Sample) and item.boxes is not None]
    say(f"{len(pairs)} training images")
    settings["steps_per_epoch"] = len(pairs) // batch_size

    def batches(epoch: int) -> Iterator[list[Pair]]:
        generator = torch.Generator().manual_seed(1000 * int(settings.get("seed", 0)) + epoch)
        torch.manual_seed(1000 * int(settings.get("seed", 0)) + epoch)  # torchvision's samplers draw from the global generator
        order = torch.randperm(len(pairs), generator=generator).tolist()
        for start in range(0, len(order) - batch_size + 1, batch_size):
            yield [_augment(pairs[index][0], pairs[index][1], settings, generator) for index in order[start : start + batch_size]]

    def loss(batch: list[Pair]) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            parts = network([image for image, _ in batch], [target for _, target in batch])
        return torch.stack([part.float() for part in parts.values()]).sum()

    return fit(network, batches, loss, lambda: score(network, validation), settings, out, resume=resume, say=say)


def _pair(sample: Sample) -> Pair:
    assert sample.boxes is not None and sample.labels is not None
    keep = torch.ones(len(sample.labels), dtype=torch.bool) if sample.ignore is None else ~sample.ignore
    target = {"boxes": sample.boxes[keep].float(), "labels": sample.labels[keep] + 1}
    if sample.masks is not None:
        target["masks"] = sample.masks[keep].to(torch.uint8)
    return (sample.image * 255).round().to(torch.uint8), target


def _augment(image: Tensor, target: dict[str, Tensor], settings: Mapping[str, Any], generator: torch.Generator) -> Pair:
    """Perhaps mirrored in either direction, light and colour changed a little."""

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    picture, target = image.float() / 255, dict(target)
    for axis, name in ((-1, "mirror"), (-2, "upside_down")):
        if settings.get(name, axis == -1) and draw(0, 1) < 0.5:
            picture, side = picture.flip(axis), picture.shape[axis]
            low, high = (0, 2) if axis == -1 else (1, 3)
            boxes = target["boxes"].clone()
            boxes[:, low], boxes[:, high] = side - target["boxes"][:, high], side - target["boxes"][:, low]
            target["boxes"] = boxes
            if "masks" in target:
                target["masks"] = target["masks"].flip(axis)
    strength = float(settings.get("colour", 0.2))
    gain = torch.tensor([draw(1 - strength / 2, 1 + strength / 2) for _ in range(3)]).view(3, 1, 1) * draw(1 - strength, 1 + strength)
    middle = picture.mean()
    return (picture * gain - middle).mul(draw(1 - strength, 1 + strength)).add(middle).clamp(0, 1), target
