"""Small folders made by hand, and what every sample that is read keeps to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xaitools.data.base import Dataset
from xaitools.errors import DataError
from xaitools.types import IGNORE, Sample

HEIGHT, WIDTH = 24, 32


def paint(file: Path, values: np.ndarray | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 200, np.uint8) if values is None else values).save(file)


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def rectangles(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """(24, 32) uint8, value n within the n-th (x1, y1, x2, y2)."""
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes, start=1):
        values[y1:y2, x1:x2] = number
    return values


def refused(action: Callable[[], object], *words: str) -> None:
    with pytest.raises(DataError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    for word in words:
        assert word in message


def check(dataset: Dataset, sample: Sample) -> None:
    """What every sample of every data set keeps to."""
    assert sample.image.dtype == torch.float32 and sample.image.min() >= 0 and sample.image.max() <= 1
    height, width = sample.image.shape[1:]
    if sample.semantic is not None:
        assert sample.semantic.shape == (height, width) and sample.semantic.dtype == torch.int64
        assert set(np.unique(sample.semantic).tolist()) <= {*range(len(dataset.semantic_classes)), IGNORE}
    if sample.boxes is not None:
        count = len(sample.boxes)
        assert sample.boxes.shape == (count, 4) and sample.boxes.dtype == torch.float32
        assert sample.labels.shape == sample.ignore.shape == (count,)
        assert sample.labels.dtype == torch.int64 and sample.ignore.dtype == torch.bool
        assert ((sample.labels >= 0) & (sample.labels < len(dataset.classes))).all()
        assert (sample.boxes >= 0).all() and (sample.boxes[:, 2:] > sample.boxes[:, :2]).all()
        assert (sample.boxes[:, 2:] <= torch.tensor([width, height])).all()
    if sample.masks is not None:
        assert sample.masks.shape == (len(sample.boxes), height, width) and sample.masks.dtype == torch.bool


def extents(masks: torch.Tensor) -> torch.Tensor:
    """(N, 4) xyxy, the pixel edges of each mask (N, H, W)."""
    places = [torch.where(mask) for mask in masks]
    return torch.tensor([[x.min(), y.min(), x.max() + 1, y.max() + 1] for y, x in places], dtype=torch.float32)
