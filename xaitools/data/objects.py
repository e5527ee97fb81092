"""From annotated objects to a Sample: what the readers of boxes and masks have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..types import IGNORE, Sample

MAX_OBJECTS = 10_000
MAX_MASK_BYTES = 2**31

Box = tuple[float, float, float, float]


class Annotated(NamedTuple):
    """One object as the annotation gives it: class index, (x1, y1, x2, y2) in pixel edges, VOC difficult or COCO iscrowd."""

    label: int
    box: Box
    ignore: bool = False


def counted_from_one(xmin: float, ymin: float, xmax: float, ymax: float) -> Box:
    """Pixel edges of a box given by its first and last pixel, counted from 1, as PASCAL did.

    Equal or inverted corners are a stray click and not an object of one pixel: they stay as they are, without area.

    >>> counted_from_one(1, 1, 640, 480)
    (0, 0, 640, 480)
    >>> counted_from_one(504, 337, 504, 337)
    (504, 337, 504, 337)
    """
    if xmax <= xmin or ymax <= ymin:
        return xmin, ymin, xmax, ymax
    return xmin - 1, ymin - 1, xmax, ymax


def detection_sample(
    id: str,
    image: Tensor,
    objects: Sequence[Annotated],
    classes: Sequence[str],
    *,
    masks: Tensor | None = None,
    semantic: Tensor | None = None,
    tags: Mapping[str, Any],
) -> Sample:
    """A Sample with its boxes clipped to the image; those left without area are dropped, with their masks.

    ``masks`` is (len(objects), H, W).  ``tags["dropped"]`` says for each box that is left out which it was and why.
    """
    height, width = image.shape[1:]
    boxes = torch.tensor([entry.box for entry in objects], dtype=torch.float32).reshape(-1, 4)
    boxes = boxes.clamp(min=0).minimum(torch.tensor([width, height, width, height]))
    solid = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    kept = [entry for entry, whole in zip(objects, solid, strict=True) if whole]
    dropped = tuple(
        f"object {number} ({classes[entry.label]}): no area within the image, box {' '.join(f'{edge:g}' for edge in entry.box)}"
        for number, (entry, whole) in enumerate(zip(objects, solid, strict=True), start=1)
        if not whole
    )
    return Sample(
        id=id,
        image=image,
        semantic=semantic,
        boxes=boxes[solid],
        labels=torch.tensor([entry.label for entry in kept], dtype=torch.int64),
        masks=None if masks is None else masks[solid],
        ignore=torch.tensor([entry.ignore for entry in kept], dtype=torch.bool),
        tags={**tags, "dropped": dropped},
    )


def instance_masks(instances: Tensor, count: int, shown: str) -> Tensor | None:
    """(count, H, W) bool from a map (H, W) in which the n-th object has value n; 0 and IGNORE are no object.

    None where the map does not hold exactly the values 1..count: then nobody knows which mask is whose.
    """
    values = [value for value in np.unique(instances).tolist() if value not in (0, IGNORE)]
    if values != list(range(1, count + 1)):
        return None
    check_room(count, instances.shape, shown)
    return torch.from_numpy(instances.numpy() == np.arange(1, count + 1)[:, None, None])


def disjoint(masks: Tensor) -> bool:
    """Whether each pixel of (N, H, W) is in one mask at most, and no mask is empty: what one map of numbers can hold."""
    return bool((masks.sum(0) <= 1).all() and masks.any(2).any(1).all())


def extents(masks: Tensor) -> list[Box]:
    """The box of each mask (N, H, W) in pixel edges; (0, 0, 0, 0) where a mask is empty.

    >>> extents(torch.ones(1, 4, 6, dtype=torch.bool))
    [(0, 0, 6, 4)]
    """
    boxes: list[Box] = []
    for mask in masks.numpy():
        y, x = (np.flatnonzero(mask.any(axis)).tolist() or [0, -1] for axis in (1, 0))
        boxes.append((x[0], y[0], x[-1] + 1, y[-1] + 1))
    return boxes


def areas(masks: Tensor) -> Tensor:
    """How many pixels each bool mask (N, H, W) has, (N,); many times faster than a sum, which makes them integers first.

    >>> areas(torch.ones(2, 4, 6, dtype=torch.bool)).tolist()
    [24, 24]
    """
    return torch.tensor([np.count_nonzero(mask) for mask in masks.numpy()], dtype=torch.int64)


def check_room(count: int, size: Sequence[int], shown: str) -> None:
    """Refuse what would fill the memory: ``count`` objects with a mask of ``size`` (H, W) each."""
    if count * size[0] * size[1] > MAX_MASK_BYTES:
        raise DataError(f"{shown}: {count} masks of {size[1]} x {size[0]} pixels are too many to hold; scale the image down")
