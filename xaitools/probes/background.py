"""Background: this image's objects in front of another image's background (Xiao et al. 2020, Mixed-Same and Mixed-Rand).

Both are pasted, so that traces of pasting cancel, and both are scored on the objects alone.  Their difference is
the background gap.  Where we differ from the paper: the class of a donor is by default what *the model* sees in
it, not its label.  On data whose backgrounds follow the class the two agree; on data where they do not, labels would
pair every class with every background and hide a model that reads nothing else.  ``by=truth`` is the paper's.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, XaiError
from ..types import IGNORE, Sample
from .base import contrast, probe
from .objects import Context, cover


@probe("mixed_same", family="background", needs=("objects", "donors"), degrees=False)
def mixed_same(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "", by: str = "model"
) -> Sample:
    """The objects of the image before the background of an image that shows the same class."""
    return _mixed(sample, generator, context, donors, by, same=True)


@probe("mixed_rand", family="background", needs=("objects", "donors"), degrees=False)
def mixed_rand(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "", by: str = "model"
) -> Sample:
    """The objects of the image before the background of an image that shows another class."""
    return _mixed(sample, generator, context, donors, by, same=False)


contrast(
    "gap",
    of="mixed_rand",
    against="mixed_same",
    about="The same objects before the background of another class, against the background of their own class.",
    default=True,
)


def _mixed(sample: Sample, generator: np.random.Generator, context: Context, donors: str, by: str, *, same: bool) -> Sample:
    if by not in ("model", "truth"):
        raise XaiError(f"by={by!r}: expected model (what the model sees in the donor) or truth (the donor's label)")
    foreground = context.foreground(sample)
    subject = context.subject(sample)
    if subject is None or (own := context.key(subject)) is None:
        raise DataError("no class to choose a background by")
    pool = context.donors(donors)
    index = pool.draw(sample, generator, by, lambda other: (other == own) is same)
    height, width = foreground.shape
    image = paste(sample.image, foreground, cover(pool.background(index), height, width))
    tags = {**sample.tags, "donor": pool.context.dataset.ids[index]}
    semantic = sample.semantic
    if semantic is not None:
        semantic = torch.where(foreground, semantic, torch.full_like(semantic, IGNORE))
    return replace(sample, image=image, semantic=semantic, tags=tags)


def paste(image: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
    """The pixels of ``foreground`` as they are; a ring of one pixel around it is half and half."""
    near = cv2.dilate(foreground.numpy().astype(np.uint8), np.ones((3, 3), np.uint8))
    share = torch.from_numpy(near).float() / 2
    share[foreground] = 1
    return torch.lerp(background, image, share)
