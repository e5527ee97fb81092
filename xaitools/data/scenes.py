"""Drawn scenes whose true cue is known: ``scenes:SPLIT?n=&seed=&size=&shortcut=&rho=&prevalence=&crop=``.

Five classes told apart by shape alone.  Six factors, each of which can be tied to the class: background and
light (five values each, of the whole scene), texture and pose (five values each, of every object), tag and
cooccurrence (there or not).  Every factor has a random stream of its own, so the scenes of two datasets that
differ only in ``shortcut`` or ``rho`` differ only in that factor.  ``others`` (1) scales how often there are objects
of other classes than the subject's: with 0 a tied cue tells the class of everything in the scene.

``crop`` makes it a set for classifiers: of each scene only the square around its subject, at so many pixels a side.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import DataError, unknown
from ..types import Sample
from ._drawing import SHAPES, Camera, Colour, Companion, Picture, Scene, Thing, render, tag_box
from .base import LAYOUTS, Dataset

SPLITS = ("train", "val", "test")
SHORTCUTS = ("none", "background", "texture", "pose", "light", "tag", "cooccurrence")
FACTORS = SHORTCUTS[1:]
VALUES = len(SHAPES)
"""Values of background, texture, pose and light; value k belongs to class k."""
TIED = 0
"""The class that tag and cooccurrence follow."""

_STREAMS = ("layout", "paint", "camera", *FACTORS)
_SLOTS = 4  # two places for the subject, two for other objects


class Scenes:
    """``n`` scenes drawn on demand; the scene at an index does not depend on ``n`` or ``size``.

    ``Sample.label`` is the subject's class.  ``tags`` hold the factors: background, light (0..4), tag,
    cooccurrence (bool), texture, pose (one of 0..4 per object), and visible, the share of each object's pixels
    that no other object hides; of a whole scene with a tag also artifact_xyxy, its place in pixels.  Images have 8 bits per
    channel, so a PNG of a scene reads back as the same scene.

    With ``crop`` the image is cut around the subject's object, of two the one in front, and resized.  The square holds
    it at any pose with a tenth to spare and is moved into the scene where it would leave it, so no factor moves it and
    each stays as far as it is in view: backgrounds and lights are, the tag in its corner mostly not.  The sample then
    has its label, the map of what is in view and the tags of the whole scene, but no boxes and masks.

    >>> scenes = Scenes("test", n=1)
    >>> scenes.name
    'scenes:test?n=1&seed=0&size=96&shortcut=none&rho=0&prevalence=0.3'
    >>> scenes.redraw(0, background=2).tags["background"]
    2
    """

    task: str = "detection"
    classes: tuple[str, ...] = SHAPES
    semantic_classes: tuple[str, ...] = ("background", *SHAPES)
    things: frozenset[str] = frozenset(SHAPES)

    def __init__(
        self,
        split: str,
        n: int = 200,
        seed: int = 0,
        size: int = 96,
        shortcut: str = "none",
        rho: float | None = None,
        prevalence: float = 0.3,
        others: float = 1.0,
        crop: int | None = None,
    ) -> None:
        if split not in SPLITS:
            raise DataError(f"scenes: {unknown('split', split, SPLITS)}; write e.g. scenes:test?n=50")
        if shortcut not in SHORTCUTS:
            raise DataError(f"scenes: {unknown('shortcut', shortcut, SHORTCUTS)}")
        rho = float(shortcut != "none") if rho is None else rho
        _within("n", n, 1, 1_000_000)
        _within("seed", seed, 0, 2**32 - 1)
        _within("size", size, 32, 512)
        _within("rho", rho, 0, 1)
        _within("prevalence", prevalence, 0, 1)
        _within("others", others, 0, 1)
        _within("crop", 32 if crop is None else crop, 16, 512)
        if shortcut == "none" and rho:
            raise DataError(f"scenes: rho={rho:g} has nothing to tie; name a shortcut, e.g. shortcut=background")
        self.split, self.seed, self.size = split, seed, size
        self.shortcut, self.rho, self.prevalence, self.others = shortcut, rho, prevalence, others
        self.name = f"scenes:{split}?n={n}&seed={seed}&size={size}&shortcut={shortcut}&rho={_short(rho)}&prevalence={_short(prevalence)}"
        self.name += "" if others == 1 else f"&others={_short(others)}"
        self.name += "" if crop is None else f"&crop={crop}"
        self.crop = crop
        self.task = "detection" if crop is None else "classification"
        self.ids: Sequence[str] = [f"{split}-{index:05d}" for index in range(n)]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return self._sample(index, self.describe(index))

    def describe(self, index: int) -> Scene:
        """What is drawn at ``index``."""
        index = range(len(self))[index]
        return describe(
            self.seed, self.split, index, shortcut=self.shortcut, rho=self.rho, prevalence=self.prevalence, others=self.others
        )  # fmt: skip

    def redraw(self, index: int, **factors: Any) -> Sample:
        """The scene at ``index`` with the named factors set and all else as it was.

        background, light: 0..4; tag, cooccurrence: bool; texture, pose: 0..4 for all objects, or one per object.
        """
        return self._sample(index, change(self.describe(index), **factors))

    def _sample(self, index: int, scene: Scene) -> Sample:
        picture = render(scene, self.size)
        tags = _tags(scene, picture)
        labels = torch.tensor([thing.kind for thing in scene.things])
        masks = torch.from_numpy(picture.masks)
        image = torch.from_numpy(picture.image).permute(2, 0, 1).contiguous().to(torch.float32) / 255
        semantic = (masks * (labels + 1)[:, None, None]).sum(0)  # masks are disjoint
        if self.crop is not None:
            image, semantic = _cut(image, semantic, _square(scene, self.size), self.crop)
            return Sample(id=self.ids[index], image=image, label=scene.subject, semantic=semantic, tags=tags)
        return Sample(
            id=self.ids[index],
            image=image,
            label=scene.subject,
            semantic=semantic,
            boxes=torch.tensor([_box(mask) for mask in picture.masks], dtype=torch.float32),
            labels=labels,
            masks=masks,
            ignore=torch.zeros(len(labels), dtype=torch.bool),
            tags={**tags, "artifact_xyxy": tag_box(self.size)} if scene.tag else tags,
        )


def describe(
    seed: int, split: str, index: int, shortcut: str = "none", rho: float = 0.0, prevalence: float = 0.3, others: float = 1.0
) -> Scene:
    """What is drawn, without drawing it.  Only the named factor is tied, with probability ``rho``.

    ``others`` scales how often there are objects of other classes than the subject's.
    """

    def stream(name: str) -> np.random.Generator:
        entropy = (seed, SPLITS.index(split), index, _STREAMS.index(name))
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))

    def value(name: str, classes: Sequence[int]) -> tuple[list[int], np.random.Generator]:
        """The class's own value with probability rho, else any; always the same number of draws."""
        dice = stream(name)
        tied = dice.random(len(classes)) < (rho if name == shortcut else 0.0)
        free = dice.integers(VALUES, size=len(classes))
        return np.where(tied, classes, free).tolist(), dice

    def present(name: str) -> tuple[bool, np.random.Generator]:
        dice = stream(name)
        share = prevalence if name != shortcut or subject == TIED else (1 - rho) * prevalence
        return bool(dice.random() < share), dice

    subject, kinds, circles = _layout(stream("layout"), others)
    (background,), background_dice = value("background", [subject])
    (light,), _ = value("light", [subject])
    textures, _ = value("texture", kinds)
    poses, pose_dice = value("pose", kinds)
    leans = pose_dice.uniform(-18, 18, _SLOTS)
    tag, _ = present("tag")
    cooccurrence, companion_dice = present("cooccurrence")
    paints = _paints(stream("paint"))
    things = tuple(
        Thing(kinds[slot], *circle, textures[slot], poses[slot], float(leans[slot]), *paints[slot]) for slot, circle in circles.items()
    )
    return Scene(
        subject=subject,
        things=things,
        background=background,
        background_seed=int(background_dice.integers(2**32)),
        light=light,
        tag=tag,
        cooccurrence=cooccurrence,
        companion=_companion(companion_dice, list(circles.values())),
        camera=_camera(stream("camera")),
    )


def change(scene: Scene, **factors: Any) -> Scene:
    """``scene`` with the named factors set; see ``Scenes.redraw``."""
    for name, value in factors.items():
        if name not in FACTORS:
            raise DataError(f"scenes: {unknown('factor', name, FACTORS)}")
        if name in ("texture", "pose"):
            scene = replace(scene, things=_each(scene.things, name, value))
        else:
            new: Any = bool(value) if name in ("tag", "cooccurrence") else _value(name, value)
            scene = replace(scene, **{name: new})
    return scene


def _each(things: tuple[Thing, ...], name: str, value: Any) -> tuple[Thing, ...]:
    """``things`` with ``name`` set: to one value, or to one value for each of them."""
    values = list(value) if isinstance(value, tuple | list) else [value] * len(things)
    if len(values) != len(things):
        raise DataError(f"scenes: {name} has {len(values)} values, the scene {len(things)} objects; give one number for all")
    new: list[dict[str, Any]] = [{name: _value(name, each)} for each in values]
    return tuple(replace(thing, **fields) for thing, fields in zip(things, new, strict=True))


Circle = tuple[float, float, float]


def _layout(dice: np.random.Generator, others: float) -> tuple[int, list[int], dict[int, Circle]]:
    """The subject, the class of each slot, and the circles (x, y, radius) of the filled slots from back to front.

    Circles know nothing of pose or shape, so neither can change who is placed where.
    """
    subject = int(dice.integers(VALUES))
    strangers = (subject + 1 + dice.integers(VALUES - 1, size=2)) % VALUES
    twins, extra = dice.random() < 0.4, int(np.searchsorted((1 - 0.6 * others, 1 - 0.22 * others), dice.random()))
    sizes, depth, tries = dice.random(_SLOTS), dice.random(_SLOTS), dice.random((_SLOTS, 40, 2))
    tries[1:] += 0.3 * (tries[:1, :1] - tries[1:])  # things lie together, so that they overlap
    large = 0.18 + 0.06 * sizes[:2] if twins else 0.23 + 0.1 * sizes[:2]
    radii = [*large, *(0.1 + 0.055 * sizes[2:])]
    wanted = [True, twins, extra > 0, extra > 1]
    circles: dict[int, Circle] = {}
    for slot in np.flatnonzero(wanted).tolist():
        margin = 0.8 * radii[slot]
        for x, y in margin + (1 - 2 * margin) * tries[slot]:
            circle = (float(x), float(y), float(radii[slot]))
            if all(_apart(circle, other, depth[slot] > depth[k]) for k, other in circles.items()):
                circles[slot] = circle
                break
    return subject, [subject, subject, *strangers.tolist()], {slot: circles[slot] for slot in sorted(circles, key=lambda k: depth[k])}


def _apart(one: Circle, other: Circle, one_in_front: bool) -> bool:
    """Far enough that of the one behind 40 % or more stay visible, at any pose of both (13,000 objects drawn: 39 % at the least)."""
    front, behind = (one, other) if one_in_front else (other, one)
    return math.hypot(one[0] - other[0], one[1] - other[1]) > 0.8 * front[2] + 0.45 * behind[2]


def _paints(dice: np.random.Generator) -> list[tuple[tuple[Colour, Colour], float, int]]:
    """Per slot two colours of any hue, near or far from each other, the gloss and the texture's seed."""
    draws, seeds = dice.random((_SLOTS, 7)), dice.integers(2**32, size=_SLOTS).tolist()
    paints = []
    for (hue, grey, bright, contrast, turn, side, gloss), seed in zip(draws.tolist(), seeds, strict=True):
        saturation, value = 0.15 + 0.6 * grey, 0.5 + 0.42 * bright
        darker = value * (0.72 - 0.3 * contrast)
        first = colorsys.hsv_to_rgb(hue, saturation, value)
        second = colorsys.hsv_to_rgb((hue + 0.3 * (turn - 0.5)) % 1, min(1.0, saturation + 0.15), darker)
        paints.append(((first, second) if side < 0.5 else (second, first), 0.08 + 0.34 * gloss**2, seed))
    return paints


def _companion(dice: np.random.Generator, circles: Sequence[Circle]) -> Companion:
    """The freest of some random places outside the tag's corner."""
    places = 0.09 + 0.82 * dice.random((40, 2))
    places[places[:, 1] > 0.76, 0] *= 0.6
    x, y, radius = np.array(circles).T[..., None]
    clearance = (np.hypot(places[:, 0] - x, places[:, 1] - y) - radius).min(0)
    best = places[int(np.argmax(np.minimum(clearance, 0.09)))]  # beyond that any place will do, else it would keep to the corners
    return Companion(float(best[0]), float(best[1]), float(dice.uniform(0.06, 0.075)), float(dice.uniform(0, 2 * np.pi)))


def _camera(dice: np.random.Generator) -> Camera:
    exposure, blur, noise = dice.random(3).tolist()
    return Camera(0.78 + 0.34 * exposure, 0.25 * blur, 0.01 + 0.03 * noise**2, int(dice.integers(2**32)))


def _tags(scene: Scene, picture: Picture) -> dict[str, Any]:
    return {
        "background": scene.background,
        "light": scene.light,
        "tag": scene.tag,
        "cooccurrence": scene.cooccurrence,
        "texture": tuple(thing.texture for thing in scene.things),
        "pose": tuple(thing.pose for thing in scene.things),
        "visible": tuple((picture.masks.sum((1, 2)) / picture.whole).tolist()),
    }


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _square(scene: Scene, size: int) -> tuple[int, int, int]:
    """(left, top, side) in pixels of the square with the subject's object: its circle, which knows nothing of pose."""
    thing = [thing for thing in scene.things if thing.kind == scene.subject][-1]  # the one in front
    side = min(size, round(2.2 * thing.radius * size))
    left, top = (min(max(0, round(centre * size - side / 2)), size - side) for centre in (thing.x, thing.y))
    return left, top, side


def _cut(image: Tensor, semantic: Tensor, square: tuple[int, int, int], pixels: int) -> tuple[Tensor, Tensor]:
    """The ``square`` of both at ``pixels`` x ``pixels``; the image keeps 8 bits per channel."""
    left, top, side = square
    image, semantic = (each[..., top : top + side, left : left + side] for each in (image, semantic))
    image = F.interpolate(image[None], (pixels, pixels), mode="bilinear", antialias=True)[0]
    semantic = F.interpolate(semantic[None, None].float(), (pixels, pixels), mode="nearest-exact")[0, 0].long()
    return (image * 255).round().clamp(0, 255) / 255, semantic


def _value(name: str, value: Any) -> int:
    if value not in range(VALUES):
        raise DataError(f"scenes: {name}={value!r} is not one of 0..{VALUES - 1}")
    return int(value)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise DataError(f"scenes: {name}={value:.12g} is out of range; give {low}..{high}")


def _short(value: float) -> str:
    """The shortest text that reads back as ``value``."""
    return repr(float(value)).removesuffix(".0")


_OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "n": int, "seed": int, "size": int, "shortcut": str, "rho": float, "prevalence": float, "others": float,
    "crop": int,
}  # fmt: skip


@LAYOUTS.register("scenes")
def open_scenes(path: str, split: str | None, options: Mapping[str, str]) -> Dataset:
    if split is not None:
        raise DataError(f"scenes: nothing may follow '#', got {split!r}; write scenes:test?n=50")
    values: dict[str, Any] = {}
    for name, text in options.items():
        if name not in _OPTIONS:
            raise DataError(f"scenes: {unknown('option', name, _OPTIONS)}")
        try:
            values[name] = _OPTIONS[name](text)
        except ValueError:
            kind = "a whole number" if _OPTIONS[name] is int else "a number"
            raise DataError(f"scenes: {name}={text!r} is not {kind}") from None
    return Scenes(path, **values)
