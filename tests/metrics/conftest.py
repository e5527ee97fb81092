"""Small made-up truths and predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from xaitools.types import Prediction, Sample

CLASSES = ("cat", "dog", "eel")
SIZE = (60, 80)


def boxed(
    truth: Sequence[tuple] = (), found: Sequence[tuple] = (), *, ignore: Sequence[bool] | None = None, id: str = "a"
) -> tuple[Sample, Prediction]:
    """``truth`` rows are (class, x1, y1, x2, y2), ``found`` rows (class, score, x1, y1, x2, y2)."""
    given = torch.tensor(truth, dtype=torch.float32).reshape(-1, 5)
    seen = torch.tensor(found, dtype=torch.float32).reshape(-1, 6)
    difficult = None if ignore is None else torch.tensor(ignore, dtype=torch.bool)
    sample = Sample(id, torch.zeros(3, *SIZE), boxes=given[:, 1:], labels=given[:, 0].long(), ignore=difficult)
    return sample, Prediction("detection", CLASSES, SIZE, seen[:, 0].long(), seen[:, 1], boxes=seen[:, 2:])


def random_boxes(generator: np.random.Generator, id: str, *, crowded: bool = True) -> tuple[Sample, Prediction]:
    """Overlapping truths, some ignored, and detections near them, some doubled; whole pixels, so levels are hit exactly."""

    def corners(low: np.ndarray, size: np.ndarray) -> np.ndarray:
        return np.concatenate([low, low + size], 1)

    count, found = generator.integers(0, 6), generator.integers(0, 12)
    truth = corners(generator.integers(0, 30, (count, 2)), generator.integers(4, 30, (count, 2)))
    near = truth[generator.integers(count, size=found)] if count else corners(np.zeros((found, 2), int), np.full((found, 2), 9))
    near = corners(near[:, :2] + generator.integers(-2, 3, (found, 2)), near[:, 2:] - near[:, :2] + generator.integers(0, 4, (found, 2)))
    scores = generator.permutation(10_000)[:found] / 10_000
    sample, prediction = boxed(
        [(generator.integers(3), *box) for box in truth],
        [(generator.integers(3), score, *box) for score, box in zip(scores, near, strict=True)],
        ignore=list(generator.random(count) < 0.25) if crowded else None,
        id=id,
    )
    return sample, prediction


@pytest.fixture
def make_boxed() -> Callable:
    return boxed


@pytest.fixture
def make_random_boxes() -> Callable:
    return random_boxes
