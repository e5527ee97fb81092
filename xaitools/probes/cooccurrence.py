"""Co-occurrence: what else is in the image.  The other objects go, or one comes that was never there.

The subject is the class that the image is about: its label, else the class with the largest object area.
"""

from __future__ import annotations

import operator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..data.fill import fill
from ..data.objects import extents
from ..errors import DataError
from ..types import IGNORE, Sample
from .base import probe
from .geometry import lay, shift
from .objects import Context

SHARE = 0.12
"""Largest share of the image that a pasted object's box takes; a larger object is scaled down."""

SHRINK = 0.75
STEPS = 5
"""Where no place is free, the object is made smaller so many times, each time by that factor."""


@probe("cooccurrence.remove", family="cooccurrence", needs=("objects",), default=True, degrees=False, reference="scored_subject")
def remove(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """All objects of other classes than that which the image is about, its subject, are painted over; scored on what is left.

    They stay in the truth as ignored objects and their pixels have no label in the semantic map: whether they are found does not
    count, neither here nor where they are still to be seen, in the image that this is compared with.  No pixel of the subject's
    objects changes; where boxes stand for masks, what lies in a box of the subject's stays.  An image without an
    object of another class is left out.
    """
    left, gone, keep = _subject_alone(sample, context)
    return replace(left, image=fill(sample.image, gone, keep))


@probe("scored_subject", family="control", needs=("objects",))
def scored_subject(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """The unchanged image, scored on what ``cooccurrence.remove`` leaves: what that is compared with."""
    return _subject_alone(sample, context)[0]


def _subject_alone(sample: Sample, context: Context) -> tuple[Sample, Tensor, Tensor]:
    """``sample`` with the objects of its subject's class alone to be found, where all others are, and where the subject's are."""
    pieces = context.pieces(sample)
    subject = context.subject(sample)
    own = torch.tensor([kind in (subject, "") for kind in context.kinds(pieces)], dtype=torch.bool)
    keep = _union(pieces.masks[own])
    gone = _union(pieces.masks[~own]) & ~keep
    if subject is None or not bool(own.any()) or not bool(gone.any()):
        raise DataError("no object of another class in this image")
    semantic = sample.semantic
    if semantic is not None:
        semantic = torch.where(gone, torch.full_like(semantic, IGNORE), semantic)
    if sample.boxes is not None or sample.masks is not None:
        sample = replace(sample, ignore=~own if sample.ignore is None else sample.ignore | ~own)
    return replace(sample, semantic=semantic), gone, keep


@probe("cooccurrence.paste", family="cooccurrence", needs=("objects", "others"), degrees=False)
def paste(sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "") -> Sample:
    """An object of another class, from another image (``donors``: of another dataset), is pasted where no object is.

    It covers no object and at most an eighth of the image, and is made smaller until it fits.  It joins the truth as an
    ignored object, and its pixels have no label in the semantic map: whether it is found does not count, only
    whether all else is still seen as it was.  A model that takes it for something else has a false alarm.
    """
    subject = context.subject(sample)
    if subject is None:
        raise DataError("no object in this image")
    pool = context.donors(donors)
    other, mask, kind = pool.piece(sample, generator, partial(operator.ne, context.key(subject)))
    taken = _union(context.objects(sample))
    if sample.boxes is not None:
        taken |= _union(context.pieces(sample).masks)
    matrix = _place(mask, taken, generator)
    laid = lay(sample.image, other.image, mask, matrix)
    if not bool(laid.place.any()):
        raise DataError("no free place for another object")
    semantic = sample.semantic
    if semantic is not None:
        semantic = torch.where(laid.place, torch.full_like(semantic, IGNORE), semantic)
    tags = {**sample.tags, "donor": other.id, "pasted": kind}
    return _joined(replace(sample, image=laid.image, semantic=semantic, tags=tags), laid.place, _index(context, kind))


def _union(masks: Tensor) -> Tensor:
    return masks.any(0) if len(masks) else torch.zeros(masks.shape[1:], dtype=torch.bool)


def _place(mask: Tensor, taken: Tensor, generator: np.random.Generator) -> np.ndarray:
    """The matrix that brings the object ``mask`` to a random place where its box meets nothing ``taken``."""
    height, width = taken.shape
    x1, y1, x2, y2 = extents(mask[None])[0]
    full = min(1.0, float(np.sqrt(SHARE * height * width / ((x2 - x1) * (y2 - y1)))), 0.9 * width / (x2 - x1), 0.9 * height / (y2 - y1))
    sums = np.pad(taken.numpy().astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    for scale in full * SHRINK ** np.arange(STEPS):
        down, right = max(1, int(np.ceil(scale * (y2 - y1)))), max(1, int(np.ceil(scale * (x2 - x1))))
        inside = sums[down:, right:] - sums[:-down, right:] - sums[down:, :-right] + sums[:-down, :-right]
        free = np.argwhere(inside == 0)
        if len(free):
            top, left = free[generator.integers(len(free))]
            return shift(left, top) @ np.diag([scale, scale, 1.0]) @ shift(-x1, -y1)
    raise DataError("no free place for another object")


def _index(context: Context, kind: str) -> int | None:
    """The class of this dataset that a donor of another may call otherwise; None where it has no such class."""
    key, classes = context.key(kind), context.dataset.classes
    same = [index for index, name in enumerate(classes) if name == kind or (key is not None and context.key(name) == key)]
    return same[0] if same else None


def _joined(sample: Sample, place: Tensor, label: int | None) -> Sample:
    """``sample`` with one more object, ignored."""
    if sample.boxes is None or sample.labels is None or label is None:
        return sample
    ignore = torch.zeros(len(sample.boxes), dtype=torch.bool) if sample.ignore is None else sample.ignore
    return replace(
        sample,
        boxes=torch.cat([sample.boxes, torch.tensor(extents(place[None]), dtype=sample.boxes.dtype)]),
        labels=torch.cat([sample.labels, torch.tensor([label])]),
        masks=None if sample.masks is None else torch.cat([sample.masks, place[None]]),
        ignore=torch.cat([ignore, torch.tensor([True])]),
    )
