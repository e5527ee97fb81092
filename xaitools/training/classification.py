"""Trains a classifier from a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data import Dataset, readable
from ..errors import DataError
from ..types import Sample
from .loop import State, fit, layout
from .segmentation import augment


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
    """Cross-entropy with the label of each image; the best state is the one with the highest top-1 accuracy on val."""
    settings = dict(recipe["training"])
    size = tuple(recipe["input"]["size"]) if "size" in recipe["input"] else None
    mean, std = (torch.tensor(recipe["input"][key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    autocast, batch_size = bool(settings.get("autocast", False)), int(settings["batch_size"])
    memory = layout(network)
    images, labels = _preload(training, size, say)
    val_images, val_labels = _preload(validation, size, say)
    settings["steps_per_epoch"] = len(images) // batch_size
    target = (int(images.shape[-2]), int(images.shape[-1]))
    nothing = torch.zeros(target, dtype=torch.uint8)  # the map that an image without one has

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(1000 * int(settings.get("seed", 0)) + epoch)
        torch.manual_seed(1000 * int(settings.get("seed", 0)) + epoch)  # dropout draws from the global generator
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(order) - batch_size + 1, batch_size):
            rows = order[start : start + batch_size]
            yield torch.stack([augment(images[row], nothing, target, settings, generator)[0] for row in rows]), labels[rows]

    def logits(batch: Tensor) -> Tensor:
        x = ((batch - mean) / std).contiguous(memory_format=memory)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            return network(x).float()

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(logits(batch[0]), batch[1], label_smoothing=0.02)

    def validate() -> float:
        guesses = [logits(part.float() / 255).argmax(1) for part in val_images.split(50)]
        return float((torch.cat(guesses) == val_labels).float().mean())

    network.to(memory_format=memory)
    return fit(network, batches, loss, validate, settings, out, resume=resume, say=say)


def _preload(dataset: Dataset, size: tuple[int, int] | None, say: Callable[[str], None]) -> tuple[Tensor, Tensor]:
    """All images (N, 3, H, W) as uint8, of ``size`` where given, and labels (N,); broken items are named and left out."""
    images, labels = [], []
    for _, item in readable(dataset):
        if isinstance(item, Sample) and item.label is not None:
            image = item.image if size is None else F.interpolate(item.image[None], size, mode="bilinear", antialias=True)[0]
            images.append((image * 255).round().to(torch.uint8))
            labels.append(item.label)
        else:
            say(f"left out: {item if isinstance(item, DataError) else f'{item.id} has no label'}")
    if len({image.shape for image in images}) != 1:
        raise DataError(f"{dataset.name}: no images with labels, or of different sizes; give the recipe an [input] size")
    return torch.stack(images), torch.tensor(labels)
