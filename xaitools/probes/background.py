"""Background: what is behind the objects.  It changes and the objects stay, or the objects go and it stays.

Mixed-Same, Mixed-Rand and Mixed-Next put this image's objects in front of another image's background (Xiao et al. 2020).
All are pasted, so that traces of pasting cancel, and scored on the objects alone.  The difference of the first two is
the background gap.  Where we differ from the paper: the class of a donor is by default what *the model* sees in
it, not its label.  On data whose backgrounds follow the class the two agree; on data where they do not, labels would
pair every class with every background and hide a model that reads nothing else.  ``by=truth`` is the paper's.

``only_fg``, ``blur`` and ``recolour`` are scored on the objects alone too.  ``no_fg`` and ``only_bg`` show no object, and so
have none in their truth: what a model still sees is a false alarm.  Each is compared with the unchanged image scored on
the same part of its truth, lest a drop be one of the truth.
"""

from __future__ import annotations

import operator
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.objects import extents
from ..data.present import rectangles
from ..types import IGNORE, Sample
from .base import MEASURED, contrast, probe
from .geometry import kept
from .objects import Context, Wanted, cover

BLURS = (0.01, 0.02, 0.035, 0.05, 0.08)
"""Standard deviation of the blur by severity, as a share of the shorter side."""

RECOLOURS = ((30, 6), (60, 10), (90, 14), (135, 18), (180, 22))
"""Degrees by which hues turn, and the tint in units of CIELAB, by severity."""


@probe("mixed_same", family="background", needs=("objects", "donors"), degrees=False, reference="scored_objects")
def mixed_same(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "", by: str = "model"
) -> Sample:
    """The objects of the image before the background of an image that shows the same class."""
    return mixed(sample, generator, context, donors, by, [operator.eq])


@probe("mixed_rand", family="background", needs=("objects", "donors"), degrees=False, reference="scored_objects")
def mixed_rand(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "", by: str = "model"
) -> Sample:
    """The objects of the image before the background of an image that shows another class."""
    return mixed(sample, generator, context, donors, by, [operator.ne])


@probe("mixed_next", family="background", needs=("objects", "donors"), degrees=False, reference="scored_objects")
def mixed_next(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "", by: str = "model"
) -> Sample:
    """The objects of the image before the background of an image of the next class, in the dataset's order, that has one."""
    return mixed(sample, generator, context, donors, by, _following(sample, context))


contrast(
    "gap",
    of="mixed_rand",
    against="mixed_same",
    about="The same objects before the background of another class, against the background of their own class.",
    default=True,
)


@probe("only_fg", family="background", needs=("objects",), degrees=False, reference="scored_objects")
def only_fg(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """The objects before the mean colour of the image (Xiao et al. 2020, Only-FG, which has black)."""
    flat = sample.image.mean((1, 2), keepdim=True).expand_as(sample.image)
    return before(sample, context.foreground(sample), flat)


@probe("no_fg", family="background", needs=("objects",), degrees=False, reference="scored_background")
def no_fg(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """The objects painted over, so that nothing tells of their shape (Xiao et al. 2020, No-FG, which leaves them black).

    The truth is that nothing is there.  Segmentation: where the objects were is "background", or has no label where the
    data has no such class; classes without truth do not count, so with a background the mIoU is 1 less the share of
    false alarms.  Detection: no box is left to find, so mAP is undefined.  Classification has no word for nothing: the label
    stays, and the value is what the background alone achieves; there a *small* drop is the bad sign.

    Compared with the unchanged image scored beside its objects.  Recorded under MEASURED, of segmenters and detectors:
    ``false_alarms``, the share of the pixels, or the number of boxes with a score of 0.5 or more, that the model gives to
    classes of objects.
    """
    foreground = context.foreground(sample)
    return _emptied(sample, context, context.painted(sample.image, foreground), foreground)


@probe("only_bg", family="background", needs=("objects",), degrees=False, reference="scored_background")
def only_bg(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """Flat boxes in the image's mean colour over the objects (Xiao et al. 2020, Only-BG-B, which has black).

    The truth, and what the value means, are those of ``no_fg``.
    """
    context.foreground(sample)
    covered = rectangles(torch.tensor(extents(context.objects(sample))).float(), sample.image.shape[-2:]).any(0)
    image = torch.where(covered, sample.image.mean((1, 2), keepdim=True), sample.image)
    return _emptied(sample, context, image, covered)


@probe("blur", family="background", needs=("objects",), reference="scored_objects")
def blur(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """The background out of focus; nothing of the objects bleeds into it."""
    foreground = context.foreground(sample)
    open_ = (~foreground).float().numpy()
    sigma = BLURS[severity - 1] * min(open_.shape)
    pixels = sample.image.permute(1, 2, 0).numpy() * open_[..., None]
    light, share = (_smooth(each, sigma) for each in (pixels, open_))
    blurred = torch.from_numpy(light / np.maximum(share, 1e-6)[..., None]).permute(2, 0, 1)
    return before(sample, foreground, torch.where(torch.from_numpy(share > 1e-6), blurred, sample.image))


@probe("recolour", family="background", needs=("objects",), reference="scored_objects")
def recolour(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """The background in other colours: in CIELAB hues turn, to a random side, and a random tint is added; lightness stays."""
    turn, tint = RECOLOURS[severity - 1]
    angle = np.deg2rad(turn) * (int(generator.integers(2)) * 2 - 1)
    towards = generator.uniform(0, 2 * np.pi)
    lab = cv2.cvtColor(np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy()), cv2.COLOR_RGB2LAB)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    lab[..., 1:] = lab[..., 1:] @ rotation.T + np.array([np.cos(towards), np.sin(towards)], np.float32) * tint
    image = torch.from_numpy(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)).permute(2, 0, 1).clamp(0, 1)
    return before(sample, context.foreground(sample), image)


@probe("scored_objects", family="control", needs=("objects",))
def scored_objects(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """The unchanged image, scored on the objects alone: what probes of the background are compared with."""
    return _only(sample, context.foreground(sample))


@probe("scored_background", family="control", needs=("objects",))
def scored_background(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """The unchanged image, scored beside its objects: what ``no_fg`` and ``only_bg`` are compared with."""
    return _without_rows(_only(sample, ~context.foreground(sample)))


@probe("self_paste", family="control", needs=("objects",), degrees=False, reference="scored_objects")
def self_paste(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """The objects pasted where they are, before the image's own background as it is painted for others: what pasting costs."""
    foreground = context.foreground(sample)
    return before(sample, foreground, context.painted(sample.image, foreground))


@probe("same_class_paste", family="control", needs=("objects", "donors"), degrees=False, reference="scored_objects")
def same_class_paste(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "", by: str = "truth"
) -> Sample:
    """The objects pasted before another background of their class: what pasting and another image cost without a strange background."""
    return mixed(sample, generator, context, donors, by, [operator.eq])


def mixed(sample: Sample, generator: np.random.Generator, context: Context, donors: str, by: str, wanted: Sequence[Wanted]) -> Sample:
    """The objects of ``sample`` before the background of an image whose class is the first of ``wanted`` that there is."""
    foreground = context.foreground(sample)
    pool, index = context.donor(sample, generator, donors, by, wanted)
    height, width = foreground.shape
    found = before(sample, foreground, cover(pool.background(index), height, width))
    return replace(found, tags={**sample.tags, "donor": pool.context.dataset.ids[index]})


def before(sample: Sample, foreground: Tensor, background: Tensor) -> Sample:
    """The objects of ``sample`` before ``background``, which has no label in the semantic map."""
    return replace(_only(sample, foreground), image=paste(sample.image, foreground, background))


def _only(sample: Sample, part: Tensor) -> Sample:
    """``sample`` with a label in the semantic map in ``part`` (H, W) bool alone."""
    if sample.semantic is None:
        return sample
    return replace(sample, semantic=torch.where(part, sample.semantic, torch.full_like(sample.semantic, IGNORE)))


def _without_rows(sample: Sample) -> Sample:
    return sample if sample.boxes is None else kept(sample, torch.zeros(len(sample.boxes), dtype=torch.bool))


def _following(sample: Sample, context: Context) -> list[Wanted]:
    """The classes of objects after that of ``sample``, round to the one before it."""
    data = context.dataset
    names = [name for name in (data.classes or data.semantic_classes) if not data.things or name in data.things]
    subject = context.subject(sample)
    place = names.index(subject) if subject in names else -1
    return [partial(_is, context.key(name)) for name in (*names[place + 1 :], *names[: max(place, 0)])]


def _is(wanted: Hashable, own: Hashable, other: Hashable) -> bool:
    return wanted is not None and other == wanted != own


def _emptied(sample: Sample, context: Context, image: Tensor, gone: Tensor) -> Sample:
    """``image`` in place of that of ``sample``, with a truth without objects."""
    found = _without_rows(replace(sample, image=image, semantic=context.uncovered(sample, gone)))
    alarms = context.alarms(image.clamp(0, 1))
    return found if alarms is None else replace(found, tags={**sample.tags, MEASURED: {"false_alarms": alarms}})


def _smooth(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian blur; a wide one on a smaller image, from which it cannot be told."""
    height, width = values.shape[:2]
    step = max(1, int(sigma // 3))
    small = values if step == 1 else cv2.resize(values, (-(-width // step), -(-height // step)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(np.ascontiguousarray(small), (0, 0), sigma / step, borderType=cv2.BORDER_REFLECT)
    return small if step == 1 else cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def paste(image: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
    """The pixels of ``foreground`` as they are; a ring of one pixel around it is half and half."""
    near = cv2.dilate(foreground.numpy().astype(np.uint8), np.ones((3, 3), np.uint8))
    share = torch.from_numpy(near).float() / 2
    share[foreground] = 1
    return torch.lerp(background, image, share)
