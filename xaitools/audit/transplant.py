"""Does what a cluster of decisions shares make the decision?  It is cut out, put where it was not, and taken from where it was.

``spray`` says where the members of a suspicious cluster look beside the object.  Relevance alone cannot tell a cue from something
that is merely looked at, so each member's own pixels there are

  pasted   at the same place of an image without that class: does a decision of the class appear, and is the image's own surest
           decision lost?  Control: the same place of an image of the class that is no member (where all are members, of an image of
           another class) pasted into the same image.
  removed  from the member, painted over (``data.fill``): is the decision lost?  Control: as large a part of the same image elsewhere.

Each image takes part once, and with its control; so the pairs are compared by the exact test of McNemar (1947).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from ..adapters import adapted
from ..data.fill import fill
from ..errors import DataError, XaiError
from ..metrics import holm
from ..metrics.batches import flaw, tried
from ..metrics.error_rates import share
from ..probes import Context
from ..probes.base import draws
from ..types import Prediction, Sample
from .decisions import HALF, Decided, Decisions, Limits, chosen_of
from .spray import Box, shared_box

BEYOND, LEVEL = 0.2, 0.05
"""What is shared flips decisions where it changes so many more of them than its control does, at this level."""

WORDS = (
    f"What is shared flips decisions if pasting it makes decisions of the class appear, or removing it loses them, in at least "
    f"{100 * BEYOND:g} % more of the images than the control does (p at most {LEVEL:g}, exact test of McNemar, Holm over both)."
)

MOST = 40
"""Images pasted into, and members that are emptied, at most."""

COVERED, SHARED = 0.25, 0.1
"""An image is not pasted into where so much of an object would vanish, and a patch not cut where so much of it is object."""

TRIES = 200
"""Random places looked at for the control of a removal."""

Facts = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Case:
    """One image before and after, and after the control; ``kind`` is pasted or removed.

    item      the image, and ``donor`` whose pixels are pasted, ``other`` those of the control
    xyxy      where in the image, and of a removal ``elsewhere``, that of the control
    changed   whether a decision of the class appeared (pasted) or was lost (removed), with ``control``
    """

    kind: str
    item: str
    donor: str
    other: str
    xyxy: Box
    elsewhere: Box
    changed: bool
    control: bool
    images: tuple[Tensor, Tensor, Tensor]
    predictions: tuple[Prediction, Prediction, Prediction]


def transplant(
    context: Context, decisions: Decisions, name: str, cluster: Mapping[str, Any], *, seed: int = 0, limits: Limits | None = None,
    most: int = MOST, keep: int = 0, progress: Callable[[int, int], None] | None = None,
) -> tuple[Facts, list[Case]]:  # fmt: skip
    """What came of pasting and removing what ``cluster`` (of ``spray``) of class ``name`` shares, and ``keep`` cases of each to look at.

    appears, lost, removed  {"n", "count", "value", "ci", "control": {"count", "value", "ci"}, "difference", "p"}: shares of images with
                            Clopper-Pearson intervals; p one-sided.  ``lost`` is the image's own surest decision.
    rise                    mean growth of how much of the class is seen in what is pasted into, {"value", "control"}, see ``seen``
    flips                   see ``WORDS``; None where no image could be used
    """
    lab = _Lab(context, decisions, decisions.classes.index(name), cluster, seed, limits or Limits())
    counts: dict[str, list[tuple[bool, bool]]] = {"appears": [], "lost": [], "removed": []}
    rises: list[tuple[float, float]] = []
    kept: list[Case] = []
    done = 0
    for kind, cases in (("pasted", lab.pasted(most)), ("removed", lab.removed(most))):
        for case, lost, rise in cases:
            counts["appears" if kind == "pasted" else "removed"].append((case.changed, case.control))
            if kind == "pasted":
                counts["lost"].append(lost)
                rises.append(rise)
            kept.append(case)
            done += 1
            if progress is not None:
                progress(done, 2 * most)
        kept = _chosen(kept, keep)
    found: Facts = {key: paired(pairs) for key, pairs in counts.items()}
    deciding = [found["appears"], found["removed"]]
    ps = holm([each["p"] for each in deciding])
    for each, p in zip(deciding, ps, strict=True):
        each["p_holm"] = p
    known = [each for each in deciding if each["n"]]
    flips = any(each["difference"] >= BEYOND and each["p_holm"] is not None and each["p_holm"] <= LEVEL for each in known)
    found["rise"] = {"value": float(np.mean([a for a, _ in rises])) if rises else None,
                     "control": float(np.mean([b for _, b in rises])) if rises else None}  # fmt: skip
    return {**found, "flips": flips if known else None, "criterion": WORDS}, kept


def _chosen(cases: Sequence[Case], keep: int) -> list[Case]:
    """Of each kind the first ``keep``, those that changed before those that did not."""
    found: list[Case] = []
    for kind in ("pasted", "removed"):
        mine = [each for each in cases if each.kind == kind]
        found += sorted(mine, key=lambda each: (not each.changed, each.control))[:keep]
    return found


def paired(pairs: Sequence[tuple[bool, bool]]) -> Facts:
    """Shares of (changed, changed by the control) over images.

    >>> found = paired([(True, False)] * 6 + [(False, False)] * 2)
    >>> found["value"], found["control"]["value"], found["p"]
    (0.75, 0.0, 0.015625)
    """
    from scipy.stats import binomtest

    changed, control = sum(one for one, _ in pairs), sum(other for _, other in pairs)
    gained, missed = sum(one and not other for one, other in pairs), sum(other and not one for one, other in pairs)
    p = None if not pairs else 1.0 if gained + missed == 0 else float(binomtest(gained, gained + missed, alternative="greater").pvalue)
    difference = (changed - control) / len(pairs) if pairs else None
    return {**share(changed, len(pairs)), "control": share(control, len(pairs)), "difference": difference, "p": p}


class _Lab:
    def __init__(self, context: Context, decisions: Decisions, label: int, cluster: Mapping[str, Any], seed: int, limits: Limits) -> None:
        assert context.model is not None
        self.context, self.model, self.label, self.limits, self.seed = context, adapted(context.model), label, limits, seed
        self.view, self.xyxy = cluster["gathers"]["view"], np.array(cluster["gathers"]["xyxy"], float)
        self.index = {item: place for place, item in enumerate(context.dataset.ids)}
        keys = set(zip(cluster["members"], cluster["targets"], strict=True))
        own = decisions.of(label)
        self.members = _shuffled(_once([each for each in own if each.key in keys]), seed, "members")
        inside = {each.item for each in self.members}
        self.strangers = _shuffled(_once([each for each in own if each.item not in inside]), seed, "strangers")
        ours = {each.item for each in own}
        self.hosts = _shuffled(_once([each for each in decisions.made if each.item not in ours]), seed, "hosts")
        self.strangers = self.strangers or self.hosts

    def pasted(self, most: int) -> Iterator[tuple[Case, tuple[bool, bool], tuple[float, float]]]:
        """Each image of other classes once, with the members in turn."""
        donors, others = self._patches(self.members), self._patches(self.strangers)
        if not donors or not others:
            return
        count = 0
        for host in self.hosts:
            if count == most:
                return
            sample = self._sample(host)
            if sample is None:
                continue
            box = self._box(host, sample)
            objects = self._objects(sample)
            if box is None or self._shows_class(sample) or any(
                int(mask[box[1] : box[3], box[0] : box[2]].sum()) > COVERED * int(mask.sum()) for mask in objects
            ):  # fmt: skip
                continue
            (donor, patch), (other, plain) = donors[count % len(donors)], next(
                (each for each in others[count % len(others) :] + others if each[0] != host.item), others[0]
            )  # fmt: skip
            images = (sample.image, with_patch(sample.image, box, patch), with_patch(sample.image, box, plain))
            predicted = self._predicted(images)
            if predicted is None or self._has(predicted[0]):
                continue
            before, after, control = predicted
            count += 1
            case = Case("pasted", host.item, donor, other, box, box, self._has(after), self._has(control), images, (before, after, control))
            surest = chosen_of(before, self.limits)
            lost = tuple(bool(surest) and not self._still(each, before, surest[0]) for each in (after, control))
            seen = [self._seen(each, before) for each in (before, after, control)]
            yield case, (lost[0], lost[1]), (seen[1] - seen[0], seen[2] - seen[0])

    def removed(self, most: int) -> Iterator[tuple[Case, tuple[bool, bool], tuple[float, float]]]:
        """Each image with a member once."""
        for member in self.members[:most]:
            sample = self._sample(member)
            asked = None if sample is None else self._predicted([sample.image])
            if sample is None or asked is None:
                continue
            box, before = self._box(member, sample), asked[0]
            number = next((each for each in chosen_of(before, self.limits) if self._is(member, before, each)), None)
            if box is None or number is None:
                continue
            objects = self._objects(sample)
            keep = objects.any(0) if len(objects) else torch.zeros(sample.image.shape[-2:], dtype=torch.bool)
            elsewhere = self._elsewhere(box, keep, member.item)
            if elsewhere is None:
                continue
            holes = [_mask(each, keep) & ~keep for each in (box, elsewhere)]
            if not all(bool(hole.any()) for hole in holes):
                continue
            after, control = (fill(sample.image, hole, keep) for hole in holes)
            predicted = self._predicted([after, control])
            if predicted is None:
                continue
            changed = [not self._still(each, before, number) for each in predicted]
            yield Case(
                "removed", member.item, "", "", box, elsewhere, changed[0], changed[1], (sample.image, after, control),
                (before, predicted[0], predicted[1]),
            ), (False, False), (0.0, 0.0)  # fmt: skip

    # -- images

    def _sample(self, decided: Decided) -> Sample | None:
        """None where it cannot be read any more."""
        return self.context.readable(self.index[decided.item])

    def _predicted(self, images: Sequence[Tensor]) -> list[Prediction] | None:
        """None where the model fails on one of them, whatever it raises."""
        found = tried(lambda batch: list(self.model.predict(torch.stack(list(batch)))), images)
        return None if any(isinstance(each, XaiError) or flaw(each) for each in found) else found

    def _objects(self, sample: Sample) -> Tensor:
        try:
            return self.context.objects(sample)
        except DataError:
            return torch.zeros((0, *sample.image.shape[-2:]), dtype=torch.bool)

    def _shows_class(self, sample: Sample) -> bool:
        """Whether the truth has the cluster's class, so that finding it is no mistake."""
        try:
            return any(kind and self.context.key(kind) == self.label for kind in self.context.kinds(self.context.pieces(sample)))
        except DataError:
            subject = self.context.subject(sample)
            return subject is not None and self.context.key(subject) == self.label

    def _box(self, decided: Decided, sample: Sample) -> Box | None:
        return shared_box(self.view, self.xyxy, decided.box, sample.image.shape[-2:])

    def _patches(self, some: Sequence[Decided]) -> list[tuple[str, Tensor]]:
        """(item, pixels) of what lies at the place, where that is not an object."""
        found: list[tuple[str, Tensor]] = []
        for each in some[:MOST]:
            sample = self._sample(each)
            box = None if sample is None else self._box(each, sample)
            if sample is None or box is None:
                continue
            left, top, right, bottom = box
            objects = self._objects(sample)[:, top:bottom, left:right]
            if not len(objects) or float(objects.any(0).double().mean()) <= SHARED:
                found.append((each.item, sample.image[:, top:bottom, left:right]))
        return found

    def _elsewhere(self, box: Box, keep: Tensor, item: str) -> Box | None:
        """A random box of that size, apart from it, with no more objects in it than ``SHARED``; None where there is no room."""
        height, width = keep.shape
        across, down = box[2] - box[0], box[3] - box[1]
        dice = draws(self.seed, "transplant", 0, item)
        for _ in range(TRIES):
            left, top = int(dice.integers(width - across + 1)), int(dice.integers(height - down + 1))
            apart = left >= box[2] or left + across <= box[0] or top >= box[3] or top + down <= box[1]
            if apart and float(keep[top : top + down, left : left + across].double().mean()) <= SHARED:
                return left, top, left + across, top + down
        return None

    # -- what the model says

    def _has(self, prediction: Prediction) -> bool:
        return any(int(prediction.labels[number]) == self.label for number in chosen_of(prediction, self.limits))

    def _is(self, decided: Decided, prediction: Prediction, number: int) -> bool:
        """Whether entry ``number`` is the decision that was explained."""
        if int(prediction.labels[number]) != decided.label:
            return False
        return prediction.boxes is None or decided.target.startswith(f"box:{number}:")

    def _still(self, after: Prediction, before: Prediction, number: int) -> bool:
        """Whether a decision is still made: such a box (IoU 0.5), half of the region, the same most probable class."""
        label = int(before.labels[number])
        if before.semantic is not None and after.semantic is not None:
            return bool((after.semantic[before.semantic == label] == label).double().mean() >= HALF)
        kept = [each for each in chosen_of(after, self.limits) if int(after.labels[each]) == label]
        if before.boxes is None or after.boxes is None:
            return bool(kept)
        return bool(kept) and float(box_iou(before.boxes[number : number + 1], after.boxes[kept]).max()) >= 0.5

    def _seen(self, prediction: Prediction, before: Prediction) -> float:
        """How much of the class is seen, in [0, 1]: its probability; its best box; its share of the pixels of what was seen before."""
        if prediction.semantic is not None and before.semantic is not None:
            own = before.semantic != (-1 if before.background is None else before.background)
            return float((prediction.semantic[own] == self.label).double().mean()) if bool(own.any()) else 0.0
        scores = prediction.scores[prediction.labels == self.label]
        return float(scores.max()) if len(scores) else 0.0


def _once(some: Sequence[Decided]) -> list[Decided]:
    """The first decision of each image."""
    return list({each.item: each for each in reversed(some)}.values())[::-1]


def _shuffled(some: Sequence[Decided], seed: int, name: str) -> list[Decided]:
    ordered = sorted(some, key=lambda each: each.key)
    return [ordered[place] for place in draws(seed, f"transplant.{name}", 0, "").permutation(len(ordered)).tolist()]


def _mask(box: Box, like: Tensor) -> Tensor:
    mask = torch.zeros_like(like)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def with_patch(image: Tensor, box: Box, patch: Tensor) -> Tensor:
    """``image`` (3, H, W) with ``patch`` brought to the size of ``box`` and put there."""
    left, top, right, bottom = box
    size = (bottom - top, right - left)
    if patch.shape[-2:] != size:
        patch = F.interpolate(patch[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    found = image.clone()
    found[:, top:bottom, left:right] = patch
    return found
