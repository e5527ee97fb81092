"""What probes know about an image beyond its pixels: its objects, what is behind them, and other images."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..adapters import Model
from ..data import Dataset, load_dataset, readable
from ..data.fill import fill
from ..data.objects import areas
from ..data.present import BACKGROUND, Objects, objects, rectangles
from ..data.relabel import Relabel
from ..errors import DataError, XaiError
from ..types import IGNORE, Sample

TRIES = 200
"""Donors looked at before one of the wanted class counts as not to be had."""

FEW = 50
"""Images looked at for an object of another class."""

SMALLEST = 0.003
"""Objects of less than this share of their image are too small to be taken."""

DECIDED = 0.5
"""Score from which a box counts as a decision of the model."""

REMEMBERED = 64
"""Images of which the model's decisions are kept."""

TEXTURE_CLASS = "texture_class"
"""Key of ``Sample.tags`` under which a stimulus says of which class its texture is; ``label`` is that of its shape."""

KEPT = 64 * 2**20
"""Bytes of painted backgrounds that are kept."""


Wanted = Callable[[Hashable, Hashable], bool]
"""Whether a donor will do: (class of the image, class of the donor) -> bool."""


class Context:
    """The dataset, the model and what follows from both.

    Raises DataError when the dataset has no truth for the model.
    """

    def __init__(self, dataset: Dataset, model: Model | None = None, classes_map: Mapping[str, str] | None = None) -> None:
        self.dataset, self.model, self.classes_map = dataset, model, classes_map
        self.relabel = None if model is None else Relabel(dataset, model.task, model.classes, classes_map)
        self._things = [index for index, name in enumerate(dataset.semantic_classes) if name in dataset.things]
        self._donors: dict[str, Donors] = {}
        self._decisions: OrderedDict[str, dict[str, float]] = OrderedDict()
        self._painted: OrderedDict[bytes, Tensor] = OrderedDict()
        self.kept: dict[Hashable, object] = {}  # what a probe learnt once, for all images

    @property
    def warnings(self) -> tuple[str, ...]:
        """What of the classes is not judged."""
        return tuple(self.relabel.warnings) if self.relabel else ()

    def stand_ins(self) -> str | None:
        """What to say where objects are known by their boxes alone, judged by the first item that can be read."""
        first = next((item for _, item in readable(self.dataset) if isinstance(item, Sample)), None)
        if first is None or first.masks is not None or (first.semantic is not None and self._things):
            return None
        return "the data has no masks: boxes stand for objects, so what is inside a box counts as object"

    def truth(self, sample: Sample) -> Sample:
        """``sample`` in the model's indices."""
        return sample if self.relabel is None else self.relabel(sample)

    def key(self, name: str) -> Hashable:
        """The same for the names that data and model have for one class; None for a class the model does not know."""
        return name if self.relabel is None else self.relabel.model_index(name)

    def lacks(self, needs: frozenset[str]) -> str | None:
        """Why a probe with these needs cannot run, in words; None if it can."""
        data, task = self.dataset, getattr(self.model, "task", "nothing")
        if {"objects", "outlines"} & needs and not self._things and data.task not in ("detection", "instances"):
            return f"{data.name} has neither masks nor boxes nor classes that are objects"
        if "outlines" in needs and self.stand_ins():
            return f"{data.name} has no masks, and boxes do not show the outline of an object"
        if "gradients" in needs and not self._has_loss():
            return "the model gives no gradients (it has no differentiable loss)"
        if "stimuli" in needs and not self._has_stimuli():
            return f"{data.name} holds no pictures of shape against texture; read cue-conflict:DIR with a classifier"
        if "pixels" in needs and not (task == "segmentation" and callable(getattr(self.model, "logits_from", None))):
            return f"it attacks the logits of every pixel, which this {task} model does not give"
        if {"donors", "others", "training"} & needs and len(data) < 2:
            return f"{data.name} has no second image to take parts from, or to train on"
        return None

    def _has_stimuli(self) -> bool:
        first = next((item for _, item in readable(self.dataset) if isinstance(item, Sample)), None)
        return first is not None and first.label is not None and TEXTURE_CLASS in first.tags

    def held_out(self, count: int) -> list[int]:
        """So many items that a probe may learn from and that are then not scored: those whose ids hash lowest, at most half."""
        order = sorted(range(len(self.dataset)), key=lambda index: hashlib.sha256(self.dataset.ids[index].encode()).digest())
        return order[: min(count, len(order) // 2)]

    def readable(self, index: int) -> Sample | None:
        """An item of the dataset; None where it cannot be read."""
        try:
            return self.dataset[index]
        except DataError:
            return None

    def _has_loss(self) -> bool:
        if getattr(self.model, "black_box", False) is None:  # shows at its first answer
            first = next((item for _, item in readable(self.dataset) if isinstance(item, Sample)), None)
            if first is not None and self.model is not None:
                with suppress(Exception):  # what it raises is told of this image when it is scored
                    self.model.predict(first.image[None])
        return callable(getattr(self.model, "loss", None)) and not getattr(self.model, "black_box", False)

    def objects(self, sample: Sample) -> Tensor:
        """(M, H, W) bool, one mask an object: masks, else connected pieces of object classes, else boxes."""
        return objects(sample, self._things).masks

    def pieces(self, sample: Sample) -> Objects:
        """The objects of ``sample``, one for each row of its boxes and masks where it has these; else pieces of object classes."""
        if sample.masks is None and sample.boxes is not None:
            labels = torch.full((len(sample.boxes),), -1) if sample.labels is None else sample.labels
            return Objects(rectangles(sample.boxes, sample.image.shape[-2:]), labels)
        return objects(sample, self._things)

    def kinds(self, pieces: Objects) -> list[str]:
        """The name of each object's class, "" where nobody says."""
        names = self.dataset.semantic_classes if pieces.semantic else self.dataset.classes
        return ["" if label < 0 else names[label] for label in pieces.labels.tolist()]

    def uncovered(self, sample: Sample, gone: Tensor) -> Tensor | None:
        """The semantic map where the objects ``gone`` (H, W) were taken away: the class "background" where the data has
        it, else IGNORE, for nobody knows what was behind."""
        if sample.semantic is None:
            return None
        names = [name.casefold() for name in self.dataset.semantic_classes]
        behind = names.index(BACKGROUND) if BACKGROUND in names else IGNORE
        return torch.where(gone, torch.full_like(sample.semantic, behind), sample.semantic)

    def foreground(self, sample: Sample) -> Tensor:
        """(H, W) bool: all objects.  Raises DataError where there is none."""
        objects = self.objects(sample)
        foreground = objects.any(0) if len(objects) else torch.zeros(sample.image.shape[-2:], dtype=torch.bool)
        if not bool(foreground.any()):
            raise DataError("no object in this image")
        return foreground

    def painted(self, image: Tensor, gone: Tensor) -> Tensor:
        """``image`` (3, H, W) with ``gone`` (H, W) painted over (see ``fill``); the last are kept, since many probes ask for the same."""
        key = hashlib.sha256(image.numpy().tobytes() + gone.numpy().tobytes()).digest()
        if key not in self._painted:
            self._painted[key] = fill(image, gone)
            while len(self._painted) > 1 and sum(each.nbytes for each in self._painted.values()) > KEPT:
                self._painted.popitem(last=False)
        return self._painted[key].clone()

    def decisions(self, image: Tensor) -> dict[str, float]:
        """How much of its decision about ``image`` the model gives to each class; empty without a model.

        Classification: 1 for the most probable class; segmentation: shares of the pixels; detection: how many boxes
        score ``DECIDED`` or more.  Kept for the last images, so that probes of one image ask once.
        """
        model = self.model
        if model is None:
            return {}
        key = hashlib.sha256(image.numpy().tobytes()).hexdigest()
        if key not in self._decisions:
            prediction = model.predict(image[None])[0]
            amounts = torch.zeros(len(model.classes))
            if prediction.semantic is not None:
                amounts = torch.bincount(prediction.semantic.flatten(), minlength=len(amounts)) / prediction.semantic.numel()
            elif prediction.boxes is not None:
                found = prediction.labels[prediction.scores >= DECIDED]
                amounts = torch.bincount(found, minlength=len(amounts)).float()
            else:
                amounts[prediction.labels[0]] = 1
            self._decisions[key] = dict(zip(model.classes, amounts.tolist(), strict=True))
            while len(self._decisions) > REMEMBERED:
                self._decisions.popitem(last=False)
        return self._decisions[key]

    def alarms(self, image: Tensor) -> float | None:
        """What of ``decisions`` the model gives to classes of objects; None without a model, or where it names the whole image."""
        if self.model is None or self.model.task == "classification":
            return None
        data = self.dataset
        names = data.things if self.model.task == "segmentation" else data.classes
        known = {self.key(name) for name in names}
        return sum(amount for index, amount in enumerate(self.decisions(image).values()) if index in known)

    def donors(self, name: str = "") -> Donors:
        """Images of the dataset ``name`` to take parts from; of this dataset by default."""
        if name not in self._donors:
            data = load_dataset(name) if name else self.dataset
            self._donors[name] = Donors(self if data is self.dataset else Context(data, self.model), same=not name)
        return self._donors[name]

    def donor(self, sample: Sample, generator: np.random.Generator, donors: str, by: str, wanted: Sequence[Wanted]) -> tuple[Donors, int]:
        """Another image, of the dataset ``donors``, whose class is the first of ``wanted`` that there is; see ``Donors.draw``.

        Raises DataError where there is none.
        """
        if by not in ("model", "truth"):
            raise XaiError(f"by={by!r}: expected model (what the model sees in the donor) or truth (the donor's label)")
        subject = self.subject(sample)
        if subject is None or (own := self.key(subject)) is None:
            raise DataError("no class to choose another image by")
        pool = self.donors(donors)
        return pool, pool.draw(sample, generator, by, [partial(each, own) for each in wanted])

    def subject(self, sample: Sample) -> str | None:
        """Name of the class the image is about: its label, else the class with the largest object area."""
        data = self.dataset
        if sample.label is not None:
            return data.classes[sample.label]
        if sample.labels is not None and len(sample.labels):
            sizes = torch.zeros(len(data.classes)).index_add_(0, sample.labels, areas(self.objects(sample)).float())
            return data.classes[int(sizes.argmax())]
        if sample.semantic is not None and self._things:
            sizes = torch.stack([(sample.semantic == index).sum() for index in self._things])
            return data.semantic_classes[self._things[int(sizes.argmax())]] if bool(sizes.any()) else None
        return None


class Donors:
    """Other images, by the class they show; what was learnt about an image is kept, the image is not."""

    def __init__(self, context: Context, same: bool) -> None:
        self.context, self.same = context, same
        self._classes: dict[tuple[int, str], Hashable] = {}

    def draw(self, sample: Sample, generator: np.random.Generator, by: str, wanted: Sequence[Callable[[Hashable], bool]]) -> int:
        """Index of a random other image whose class (a ``Context.key``) the first of ``wanted`` takes that takes any.

        ``by`` is truth, or model: the class the model sees in the image.  Raises DataError if there is none.
        """
        order = generator.permutation(len(self.context.dataset))[:TRIES].tolist()
        for takes in wanted:
            for index in order:
                if self.same and self.context.dataset.ids[index] == sample.id:
                    continue
                found = self._class(index, by)
                if found is not None and takes(found):
                    return int(index)
        raise DataError(f"no fitting donor among {len(order)} images")

    def samples(self, sample: Sample, generator: np.random.Generator, tries: int = TRIES) -> Iterator[Sample]:
        """Other images than ``sample``, in random order, at most ``tries``; those that cannot be read are left out."""
        for index in generator.permutation(len(self.context.dataset))[:tries].tolist():
            if self.same and self.context.dataset.ids[index] == sample.id:
                continue
            try:
                yield self.context.dataset[index]
            except DataError:
                continue

    def piece(
        self, sample: Sample, generator: np.random.Generator, takes: Callable[[Hashable], bool], what: str = "another class"
    ) -> tuple[Sample, Tensor, str]:
        """Another image, one of its objects (H, W) whose class (a ``Context.key``) ``takes`` takes, and that class's name.

        Raises DataError if there is none among ``FEW`` images.
        """
        context = self.context
        for other in self.samples(sample, generator, FEW):
            pieces = context.pieces(other)
            sizes, room = areas(pieces.masks).tolist(), SMALLEST * other.image[0].numel()
            ignored = [False] * len(sizes) if other.ignore is None or pieces.semantic else other.ignore.tolist()
            fitting = [
                (row, kind)
                for row, kind in enumerate(context.kinds(pieces))
                if kind and takes(context.key(kind)) and sizes[row] >= room and not ignored[row]
            ]
            if fitting:
                row, kind = fitting[int(generator.integers(len(fitting)))]
                return other, pieces.masks[row], kind
        raise DataError(f"no object of {what} among {min(FEW, len(context.dataset))} images")

    def background(self, index: int) -> Tensor:
        """(3, H, W): the image with its objects painted over."""
        sample = self.context.dataset[index]
        return self.context.painted(sample.image, self.context.foreground(sample))

    def _class(self, index: int, by: str) -> Hashable:
        if (index, by) not in self._classes:
            try:
                sample = self.context.dataset[index]
                self.context.foreground(sample)
                found = self.context.subject(sample) if by == "truth" else seen(self.context, sample)
            except Exception as error:  # that image will not do, whatever a model raises about it
                if type(error) is XaiError:
                    raise
                found = None
            self._classes[index, by] = None if found is None else self.context.key(found)
        return self._classes[index, by]


def seen(context: Context, sample: Sample) -> str | None:
    """The object class that the model sees most of: by area, or by the scores of its boxes."""
    model = context.model
    if model is None:
        raise XaiError("donors by what the model sees need a model; use by=truth")
    prediction = model.predict(sample.image[None])[0]
    weights = torch.zeros(len(model.classes))
    if prediction.semantic is not None:
        weights = torch.bincount(prediction.semantic.flatten(), minlength=len(model.classes)).float()
    else:
        weights.index_add_(0, prediction.labels, prediction.scores.float())
    data = context.dataset
    objects = {context.key(name) for name in (data.things if prediction.semantic is not None else data.classes)}
    for index, name in enumerate(model.classes):
        if index == prediction.background or context.key(name) not in objects:
            weights[index] = 0
    return model.classes[int(weights.argmax())] if bool((weights > 0).any()) else None


def cover(image: Tensor, height: int, width: int) -> Tensor:
    """The middle of ``image`` at the given size, enlarged or reduced so that it just covers it."""
    if image.shape[-2:] == (height, width):
        return image
    scale = max(height / image.shape[-2], width / image.shape[-1])
    size = (max(height, round(image.shape[-2] * scale)), max(width, round(image.shape[-1] * scale)))
    scaled = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return scaled[:, top : top + height, left : left + width].clamp(0, 1)
