"""Trains a semantic segmenter from a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data import Dataset, readable
from ..types import IGNORE, Sample
from .loop import State, fit, layout


def train(
    network: nn.Module,
    training: Dataset,
    validation: Dataset,
    recipe: Mapping[str, Any],
    out: Path,
    *,
    resume: bool,
    say: Callable[[str], None],
) -> State:
    settings = dict(recipe["training"])
    size = tuple(recipe["input"]["size"]) if "size" in recipe["input"] else None
    mean, std = (torch.tensor(recipe["input"][key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    autocast, batch_size = bool(settings.get("autocast", False)), int(settings["batch_size"])
    images, maps = _preload(training, say)
    val_images, val_maps = _preload(validation, say)
    counts = torch.bincount(maps[maps != IGNORE].long(), minlength=len(training.semantic_classes)).double()
    # rare classes weigh more, by the square root so that pixel accuracy does not pay for it
    weights = ((counts.sum() / counts.clamp(min=1)) ** float(settings.get("balance", 0.5))).float()
    weights = weights / (weights * (counts / counts.sum()).float()).sum()
    memory = layout(network)
    settings["steps_per_epoch"] = len(images) // batch_size
    full = size or (int(images.shape[-2]), int(images.shape[-1]))

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(1000 * int(settings.get("seed", 0)) + epoch)
        order = torch.randperm(len(images), generator=generator)
        # the first epochs see everything at half the size, which costs a quarter and teaches most of it
        target = (full[0] // 2, full[1] // 2) if epoch < int(settings.get("half_size_epochs", 0)) else full
        for start in range(0, len(order) - batch_size + 1, batch_size):
            pairs = [augment(images[i], maps[i], target, settings, generator) for i in order[start : start + batch_size]]
            yield torch.stack([image for image, _ in pairs]), torch.stack([semantic for _, semantic in pairs])

    def logits(batch: Tensor) -> Tensor:
        x = ((batch - mean) / std).contiguous(memory_format=memory)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            return network(x)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        out, truth = logits(batch[0]).float(), batch[1]
        if out.shape[-2:] != truth.shape[-2:]:  # one answer a cell: it is held against the middle of its cell
            truth = F.interpolate(truth[:, None].float(), out.shape[-2:], mode="nearest-exact")[:, 0].long()
        return F.cross_entropy(out, truth, weights, ignore_index=IGNORE, label_smoothing=0.02)

    def validate() -> float:
        """Mean IoU over the classes present, at the size of the annotation."""
        classes = len(weights)
        confusion = torch.zeros(classes * classes, dtype=torch.int64)
        for start in range(0, len(val_images), 8):
            x = val_images[start : start + 8].float() / 255
            truth = val_maps[start : start + 8].long()
            if size is not None:
                x = F.interpolate(x, size, mode="bilinear", antialias=True)
            guess = F.interpolate(logits(x).float(), truth.shape[-2:], mode="bilinear").argmax(1)
            known = truth != IGNORE
            confusion += torch.bincount(truth[known] * classes + guess[known], minlength=classes * classes)
        table = confusion.view(classes, classes).double()
        union = table.sum(0) + table.sum(1) - table.diag()
        present = table.sum(1) > 0
        return float((table.diag()[present] / union[present]).mean())

    network.to(memory_format=memory)
    return fit(network, batches, loss, validate, settings, out, resume=resume, say=say)


def _preload(dataset: Dataset, say: Callable[[str], None]) -> tuple[Tensor, Tensor]:
    """All images (N, 3, H, W) and maps (N, H, W) as uint8; broken items are named and left out."""
    images, maps = [], []
    for _, item in readable(dataset):
        if isinstance(item, Sample) and item.semantic is not None:
            images.append((item.image * 255).round().to(torch.uint8))
            maps.append(item.semantic.to(torch.uint8))
        else:
            say(f"left out: {item}")
    return torch.stack(images), torch.stack(maps)


def augment(
    image: Tensor, semantic: Tensor, target: tuple[int, int], settings: Mapping[str, Any], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A random part of the image at the network's size, perhaps mirrored, its light and colour changed a little."""

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    height, width = image.shape[-2:]
    share, aspect = draw(float(settings.get("crop", 0.5)), 1.0), draw(0.9, 1.1) if settings.get("crop", 0.5) < 1 else 1.0
    h, w = min(height, round(height * share * aspect)), min(width, round(width * share / aspect))
    top, left = int(draw(0, height - h + 0.999)), int(draw(0, width - w + 0.999))
    part = image[:, top : top + h, left : left + w].float() / 255
    labels = semantic[top : top + h, left : left + w]
    if part.shape[-2:] != target:
        part = F.interpolate(part[None], target, mode="bilinear", antialias=True)[0].clamp(0, 1)
        labels = F.interpolate(labels[None, None].float(), target, mode="nearest-exact")[0, 0]
    if settings.get("mirror", True) and draw(0, 1) < 0.5:
        part, labels = part.flip(-1), labels.flip(-1)
    strength = float(settings.get("colour", 0.25))
    gain = torch.tensor([draw(1 - strength / 2, 1 + strength / 2) for _ in range(3)]).view(3, 1, 1) * draw(1 - strength, 1 + strength)
    middle = part.mean()
    part = ((part * gain - middle) * draw(1 - strength, 1 + strength) + middle).clamp(0, 1)
    return part, labels.long()
