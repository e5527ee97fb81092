"""A batch through somebody else's model: what fails is tried in smaller ones, so that one bad image spoils no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from ..errors import ModelError, XaiError, first_line
from ..types import Prediction

T = TypeVar("T")

MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
"""How torch says it."""


def tried(work: Callable[[Sequence[T]], list[Any]], items: Sequence[T], halved: Callable[[int], None] | None = None) -> list[Any]:
    """``work`` on all items at once, or for each why it failed.

    Where memory does not suffice both halves are tried, and ``halved`` hears of how many items they are; after any other error each
    item alone.  An XaiError that is no more than that is raised: an argument is at fault, not an item.
    """
    if not items:
        return []
    try:
        return work(items)
    except Exception as error:  # a model may raise anything
        if type(error) is XaiError:
            raise
        if len(items) == 1:
            return [error if isinstance(error, XaiError) else ModelError(f"the model failed: {_said(error)}")]
        if out_of_memory(error):
            size = -(-len(items) // 2)
            if halved is not None:
                halved(size)
        else:
            size = 1
    # not in the except clause, where the error would still hold what the batch took
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return [each for start in range(0, len(items), size) for each in tried(work, items[start : start + size], halved)]


def flaw(prediction: Prediction) -> ModelError | None:
    """Why a prediction cannot be used; None where it can."""
    numbers = [prediction.scores, *([prediction.boxes] if prediction.boxes is not None else [])]
    sound = all(bool(torch.isfinite(each).all()) for each in numbers)
    return None if sound else ModelError("the model returned NaN or infinite numbers")


def out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in MEMORY)


def _said(error: Exception) -> str:
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"
