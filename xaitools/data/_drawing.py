"""How a scene becomes a picture: signed distances, soft textures, one light, a camera and a source tag.

A ``Scene`` says what is drawn, in fractions of the image side, so the same scene can be drawn at any size.
Each part draws its noise from a seed of its own, so that changing one factor leaves all other parts as they are.
Distances are negative inside a shape and in units of the shape's radius; they give coverage, bevel and shadow at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Colour = tuple[float, float, float]
Span = tuple[slice, slice]

SHAPES = ("arrow", "drop", "fish", "heart", "moon")
TEXTURES = ("stripes", "dots", "checks", "rings", "marble")
BACKGROUNDS = ("brick", "meadow", "water", "cloth", "sand")
LIGHTS = ("noon", "sunset", "moonlight", "canopy", "neon")

LIGHT_COLOURS: tuple[Colour, ...] = ((1.12, 1.09, 1.04), (1.28, 0.92, 0.6), (0.66, 0.84, 1.24), (0.82, 1.16, 0.68), (1.2, 0.76, 1.14))
LIGHT_DIRECTIONS: tuple[Colour, ...] = ((-0.5, -0.7, 1.0), (-1.0, 0.15, 0.8), (0.7, -0.6, 1.0), (0.1, -1.0, 1.0), (0.9, 0.5, 0.9))
"""Towards the light: x to the right, y down, z to the viewer."""


@dataclass(frozen=True)
class Thing:
    """One object.  ``x``, ``y`` (centre) and ``radius`` (of the enclosing circle) are fractions of the image side.

    kind     index into SHAPES, which is the class
    texture  index into TEXTURES
    pose     0..4, the fifth of a turn in which the object points
    lean     degrees clockwise, added to ``72 * pose``
    """

    kind: int
    x: float
    y: float
    radius: float
    texture: int
    pose: int
    lean: float
    colours: tuple[Colour, Colour]
    gloss: float
    seed: int

    @property
    def angle(self) -> float:
        """Radians clockwise; 0 points up."""
        return float(np.deg2rad(72.0 * self.pose + self.lean))


@dataclass(frozen=True)
class Companion:
    """Where the ladybird sits, if it is there; fractions of the image side, radians clockwise."""

    x: float
    y: float
    radius: float
    angle: float


@dataclass(frozen=True)
class Camera:
    """exposure: a factor; blur: 0..0.25, the weight of each direct neighbour; noise: standard deviation in [0, 1]."""

    exposure: float
    blur: float
    noise: float
    seed: int


@dataclass(frozen=True)
class Scene:
    """What is drawn.  ``things`` stand from back to front; ``companion`` is described also where it is absent."""

    subject: int
    things: tuple[Thing, ...]
    background: int
    background_seed: int
    light: int
    tag: bool
    cooccurrence: bool
    companion: Companion
    camera: Camera


@dataclass(frozen=True, eq=False)
class Picture:
    """image (H, W, 3) uint8; masks (N, H, W) bool, visible pixels; whole (N,) pixels in the image if nothing were in front."""

    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    whole: NDArray[np.int64]


def render(scene: Scene, size: int) -> Picture:
    """``scene`` as a square picture of ``size`` pixels; the same scene gives the same bytes."""
    sun = _unit(LIGHT_DIRECTIONS[scene.light])
    canvas = _backdrop(scene.background, scene.background_seed, size)
    if scene.cooccurrence:
        _draw_ladybird(canvas, scene.companion, sun)
    owner = np.full((size, size), -1)
    whole = np.zeros(len(scene.things), np.int64)
    for number, thing in enumerate(scene.things):
        span, inside = _draw_thing(canvas, thing, sun)
        owner[span][inside] = number
        whole[number] = inside.sum()
    image = _photograph(_cast(canvas, scene.light, sun), scene.camera)
    if scene.tag:
        stamp(image, tag_box(size))
    masks = owner == np.arange(len(scene.things))[:, None, None]
    return Picture((image * 255 + 0.5).astype(np.uint8), masks, whole)


# Shapes.  Each takes (u, v) with v up, is enclosed by the unit circle and points to +v, so its pose can be seen.


def _arrow(u: Array, v: Array) -> Array:
    u = np.abs(u)
    head = np.maximum(0.8 * u + 0.6 * (v - 0.9), 0.02 - v)
    shaft = np.maximum(u - 0.24, np.abs(v + 0.35) - 0.5)
    return _join(head, shaft, 0.06) - 0.04


def _drop(u: Array, v: Array) -> Array:
    """A large circle below and a small one above, with their common tangents."""
    u, v, large, small, apart = np.abs(u), v + 0.38, 0.56, 0.06, 1.28
    sine = (large - small) / apart
    cosine = np.sqrt(1 - sine * sine)
    along = cosine * v - sine * u
    side = cosine * u + sine * v - large
    return np.where(along < 0, np.hypot(u, v) - large, np.where(along > cosine * apart, np.hypot(u, v - apart) - small, side))


def _fish(u: Array, v: Array) -> Array:
    u = np.abs(u)
    body = np.hypot(u + 0.42, v - 0.25) - 0.83
    tail = np.maximum(np.maximum(0.8 * u - 0.6 * (-0.2 - v), -0.83 - v + 0.35 * u), v + 0.2)
    return _join(body, tail, 0.14) - 0.03


def _heart(u: Array, v: Array) -> Array:
    u, v = np.abs(u) / 1.42, v / 1.42 + 0.58
    lobe = np.hypot(u - 0.25, v - 0.75) - np.sqrt(2) / 4
    diagonal = 0.5 * np.maximum(u + v, 0)
    edge = np.minimum(np.hypot(u, v - 1), np.hypot(u - diagonal, v - diagonal)) * np.sign(u - v)
    return 1.42 * np.where(u + v > 1, lobe, edge) - 0.03


def _moon(u: Array, v: Array) -> Array:
    """A disc with a bite; the horns point up."""
    u, v = np.abs(u), v + 0.1
    outer, inner, shift = 0.84, 0.66, 0.5
    horn_v = (outer**2 - inner**2 + shift**2) / (2 * shift)
    horn_u = np.sqrt(outer**2 - horn_v**2)
    body = np.maximum(np.hypot(u, v) - outer, inner - np.hypot(u, v - shift))
    beyond = v * horn_u - u * horn_v > shift * np.maximum(horn_u - u, 0)
    return np.where(beyond, np.hypot(u - horn_u, v - horn_v), body) - 0.05


_DISTANCES: tuple[Callable[[Array, Array], Array], ...] = (_arrow, _drop, _fish, _heart, _moon)


def _join(a: Array, b: Array, softness: float) -> Array:
    """The union of two shapes with a fillet of about ``softness``."""
    near = np.maximum(softness - np.abs(a - b), 0) / softness
    return np.minimum(a, b) - near * near * (softness / 4)


# Textures.  Each takes (u, v), two phases in [0, 2 pi) and the width of a pixel, and gives the share of the second colour.


def _stripes(u: Array, v: Array, phase: Array, pixel: float) -> Array:
    return _square_wave(np.sin(11.5 * u + phase[0]), 11.5 * pixel)


def _dots(u: Array, v: Array, phase: Array, pixel: float) -> Array:
    cell = 0.5
    x, y = ((w / cell + p) % 1 - 0.5 for w, p in zip((u, v), phase / 6.2832, strict=True))
    return np.clip(0.5 + (0.31 - np.hypot(x, y)) * cell / (1.2 * pixel), 0, 1)


def _checks(u: Array, v: Array, phase: Array, pixel: float) -> Array:
    return _square_wave(np.sin(8.2 * u + phase[0]) * np.sin(8.2 * v + phase[1]), 8.2 * pixel)


def _rings(u: Array, v: Array, phase: Array, pixel: float) -> Array:
    """The rings of a sawn log, with its heart off the centre."""
    x, y = u - 0.3 * np.cos(phase[0]), v - 0.3 * np.sin(phase[0])
    wobble = 0.05 * np.sin(5 * x + phase[1]) + 0.05 * np.sin(6 * y + phase[0])
    turn = (np.hypot(x, y) + wobble) * 4.2 + phase[1]
    return (0.5 - 0.5 * np.cos(6.2832 * turn)) ** 1.5


def _marble(u: Array, v: Array, phase: Array, pixel: float) -> Array:
    bend = 1.1 * np.sin(2.3 * v + phase[0]) + 0.7 * np.sin(4.7 * u - 3.1 * v + phase[1]) + 0.4 * np.sin(9.1 * v + 5 * u)
    vein = 1 - np.abs(np.sin(4.1 * u + 2.6 * v + bend))
    cloud = 0.5 + 0.5 * np.sin(2.1 * u - 1.3 * v + 0.6 * bend + phase[0])
    return np.clip(1.1 * vein**3 + 0.35 * cloud, 0, 1)


_PATTERNS: tuple[Callable[[Array, Array, Array, float], Array], ...] = (_stripes, _dots, _checks, _rings, _marble)


def _square_wave(wave: Array, softness: float) -> Array:
    return 0.5 + 0.5 * np.clip(wave / max(0.3, softness), -1, 1)


# Objects.


def _draw_thing(canvas: Array, thing: Thing, sun: Array) -> tuple[Span, NDArray[np.bool_]]:
    span, u, v = _local(len(canvas), thing.x, thing.y, thing.radius, thing.angle)
    pixel = 1 / (thing.radius * len(canvas))
    dice = np.random.Generator(np.random.PCG64(thing.seed))
    phase, scale = (6.2832 * dice.random(2)).astype(np.float32), float(0.85 + 0.4 * dice.random())
    share = _PATTERNS[thing.texture](u * scale, v * scale, phase, pixel * scale)[..., None]
    first, second = (np.asarray(colour, np.float32) for colour in thing.colours)
    distance = _DISTANCES[thing.kind]
    _lay(canvas[span], distance(u, v), first + (second - first) * share, pixel, sun, thing.gloss)
    return span, distance(u, v) <= 0


def _draw_ladybird(canvas: Array, companion: Companion, sun: Array) -> None:
    span, u, v = _local(len(canvas), companion.x, companion.y, companion.radius, companion.angle)
    pixel = 1 / (companion.radius * len(canvas))
    body = np.hypot(u, 0.92 * (v + 0.1)) - 0.78
    head = np.hypot(u, v - 0.62) - 0.34
    u = np.abs(u)
    spots = np.minimum(np.hypot(u - 0.36, v - 0.1) - 0.17, np.hypot(u - 0.32, v + 0.46) - 0.15)
    black = np.minimum(np.minimum(spots, u - 0.05), 0.42 - v)
    share = np.clip(0.5 - black / pixel, 0, 1)[..., None]
    red, dark = np.array((0.86, 0.1, 0.06), np.float32), np.array((0.07, 0.06, 0.07), np.float32)
    _lay(canvas[span], np.minimum(body, head), red + (dark - red) * share, pixel, sun, 0.4, bevel=0.8)


def _local(size: int, x: float, y: float, radius: float, angle: float) -> tuple[Span, Array, Array]:
    """The part of the canvas that an object and its shadow can touch, and the object's own coordinates there."""
    reach = 1.6 * radius
    rows, columns = (slice(max(int((c - reach) * size), 0), min(int((c + reach) * size) + 2, size)) for c in (y, x))
    right = ((np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5) / size - x)[None] / radius
    up = -((np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5) / size - y)[:, None] / radius
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return (rows, columns), right * cosine - up * sine, right * sine + up * cosine


def _lay(ground: Array, distance: Array, albedo: Array, pixel: float, sun: Array, gloss: float, bevel: float = 0.36) -> None:
    """Put one bevelled body and its soft shadow on ``ground``, in place."""
    ground *= 1 - 0.5 * _shadow(distance, pixel, sun)[..., None]
    depth = np.clip(-distance / bevel, 0, 1)
    height = _rounded(0.62 * bevel * (1 - (1 - depth) ** 2.5), int(round(0.07 / pixel)))
    down, right = np.gradient(height, pixel)
    length = np.sqrt(1 + down * down + right * right)
    facing = (sun[2] - sun[0] * right - sun[1] * down) / length
    half = _unit((float(sun[0]), float(sun[1]), float(sun[2]) + 1))
    shine = np.maximum((half[2] - half[0] * right - half[1] * down) / length, 0) ** 30
    shade = 0.4 + 0.6 * np.clip(facing / sun[2], 0, 1.45)
    lit = albedo * shade[..., None] + (gloss * shine)[..., None]
    cover = np.clip(0.5 - distance / pixel, 0, 1)[..., None]
    ground += (lit - ground) * cover


def _rounded(height: Array, reach: int) -> Array:
    """``height`` averaged over windows of ``2 * reach + 1`` pixels: takes the crease out of the middle of a body."""
    window = 2 * reach + 1
    for _ in range(2):
        total = np.cumsum(np.pad(height, ((reach + 1, reach), (0, 0))), axis=0)
        height = ((total[window:] - total[:-window]) / window).T
    return height


def _shadow(distance: Array, pixel: float, sun: Array) -> Array:
    """0..1: the silhouette, moved away from the light and softened."""
    shift = [int(round(float(-0.2 * s / sun[2] / pixel))) for s in (sun[1], sun[0])]
    rows, columns = (np.clip(np.arange(n) - s, 0, n - 1) for n, s in zip(distance.shape, shift, strict=True))
    moved = distance[rows][:, columns]
    soft = np.clip(0.6 - moved / 0.3, 0, 1)
    return soft * soft * (3 - 2 * soft)


# Backgrounds.  Each gives (size, size, 3) from its own generator.


def _backdrop(kind: int, seed: int, size: int) -> Array:
    dice = np.random.Generator(np.random.PCG64(seed))
    tone = 0.88 + 0.24 * dice.random() + 0.06 * (dice.random(3) - 0.5)
    return (_SURFACES[kind](dice, size) * tone).astype(np.float32)


def _brick(dice: np.random.Generator, size: int) -> Array:
    rows, columns = 9, 4
    x, y = _grid(size)
    y = y * rows + dice.random(dtype=np.float32)
    row = np.floor(y).astype(int)
    x = x * columns + 0.5 * (row % 2) + dice.random(dtype=np.float32)
    column = np.floor(x).astype(int)
    tone = 1 + 0.14 * dice.standard_normal((rows + 2, columns + 2), dtype=np.float32)[row, column]
    joint = np.minimum(np.minimum(x - column, column + 1 - x) * rows / columns, np.minimum(y - row, row + 1 - y))
    mortar = np.clip(0.5 - (joint - 0.09) * size / rows / 1.5, 0, 1)
    bump = 1 - 0.16 * (y - row - 0.5)  # lit from above
    rough = 1 + 0.08 * _noise(dice, size, 40, 40) + 0.06 * _noise(dice, size, 5, 5)
    return _mix((0.6, 0.28, 0.2), (0.72, 0.66, 0.58), mortar, rough * np.where(mortar > 0.5, 1, tone * bump))


def _meadow(dice: np.random.Generator, size: int) -> Array:
    blades = sum(np.exp(-((2.0 * _noise(dice, size, rows, columns)) ** 2)) for rows, columns in ((7, 22), (9, 30), (13, 44)))
    patches = np.clip(0.5 + 0.45 * _noise(dice, size, 4, 5), 0, 1)
    return _mix((0.2, 0.42, 0.12), (0.42, 0.52, 0.17), patches, 0.62 + 0.32 * blades)


def _water(dice: np.random.Generator, size: int) -> Array:
    swell = _noise(dice, size, 9, 5) + 0.55 * _noise(dice, size, 19, 10)
    crest = np.exp(-((2.6 * swell) ** 2))
    deep = np.clip(0.5 + 0.3 * _noise(dice, size, 3, 3) + 0.12 * swell, 0, 1)
    return _mix((0.07, 0.32, 0.52), (0.16, 0.52, 0.66), deep) + 0.24 * crest[..., None]


def _cloth(dice: np.random.Generator, size: int) -> Array:
    x, y = _grid(size)
    sway = 0.012 * _noise(dice, size, 4, 4)
    warp, weft = np.sin(6.2832 * 22 * (x + sway)), np.sin(6.2832 * 22 * (y - sway))
    folds = _noise(dice, size, 2, 4) + 0.4 * _noise(dice, size, 3, 8)
    return _mix((0.5, 0.4, 0.62), (0.66, 0.58, 0.74), 0.5 + 0.5 * warp * weft, 1 + 0.13 * folds + 0.03 * _noise(dice, size, 50, 50))


def _sand(dice: np.random.Generator, size: int) -> Array:
    x, y = _grid(size)
    slope = dice.random(dtype=np.float32) - 0.5
    crest = 6.2832 * (8 * (y + slope * x) + 0.55 * _noise(dice, size, 4, 3) + dice.random(dtype=np.float32))
    ripple = np.sin(crest + 0.6 * np.sin(crest))
    grain = _noise(dice, size, 80, 80)
    return _mix((0.8, 0.66, 0.44), (0.88, 0.78, 0.58), 0.5 + 0.4 * _noise(dice, size, 4, 4), 1 + 0.09 * ripple + 0.05 * grain)


_SURFACES: tuple[Callable[[np.random.Generator, int], Array], ...] = (_brick, _meadow, _water, _cloth, _sand)


def _mix(first: Colour, second: Colour, share: Array, gain: Array | float = 1.0) -> Array:
    a, b = np.asarray(first, np.float32), np.asarray(second, np.float32)
    return (a + (b - a) * share[..., None]) * np.asarray(gain, np.float32)[..., None]


def _noise(dice: np.random.Generator, size: int, rows: int, columns: int) -> Array:
    """Smooth noise (size, size) with mean 0 and deviation near 1, from a lattice of rows x columns cells."""
    lattice = dice.standard_normal((rows + 3, columns + 3), dtype=np.float32)
    return 2 * _spline(size, rows) @ lattice @ _spline(size, columns).T


@lru_cache(maxsize=128)
def _spline(size: int, cells: int) -> Array:
    """(size, cells + 3): the weights of a uniform cubic B-spline at the pixel centres."""
    place = (np.arange(size) + 0.5) / size * cells
    cell = np.floor(place).astype(int)
    t = place - cell
    weights = np.zeros((size, cells + 3), np.float32)
    for k, w in enumerate(((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)):
        weights[np.arange(size), cell + k] = w / 6
    return weights


def _grid(size: int) -> tuple[Array, Array]:
    side = (np.arange(size, dtype=np.float32) + 0.5) / size
    return side[None], side[:, None]


# Light, camera and tag.


def _cast(canvas: Array, light: int, sun: Array) -> Array:
    """The colour of the light over everything, stronger towards its source, and a gentle vignette."""
    x, y = (w - 0.5 for w in _grid(len(canvas)))
    falloff = 1 + 0.28 * (sun[0] * x + sun[1] * y) - 0.32 * (x * x + y * y)
    return canvas * falloff[..., None] * np.asarray(LIGHT_COLOURS[light], np.float32)


def _photograph(scene: Array, camera: Camera) -> Array:
    """What the camera keeps: (H, W, 3) in [0, 1]."""
    dice = np.random.Generator(np.random.PCG64(camera.seed))
    image = _soften(_soften(scene, camera.blur).swapaxes(0, 1), camera.blur).swapaxes(0, 1)
    grain = dice.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image * camera.exposure + grain * camera.noise, 0, 1)


def _soften(image: Array, weight: float) -> Array:
    padded = np.concatenate((image[:1], image, image[-1:]))
    return (1 - 2 * weight) * image + weight * (padded[:-2] + padded[2:])


TAG_CORNER = (0.64, 0.87, 0.98, 0.97)
"""xyxy in fractions of the image side: the tag changes no pixel outside."""

TAG_TEXT = "FOTOTA"

_LETTERS = {
    "A": "010 101 111 101 101", "B": "110 101 110 101 110", "C": "011 100 100 100 011", "D": "110 101 101 101 110",
    "E": "111 100 110 100 111", "F": "111 100 110 100 100", "G": "011 100 101 101 011", "H": "101 101 111 101 101",
    "I": "111 010 010 010 111", "J": "001 001 001 101 010", "K": "101 101 110 101 101", "L": "100 100 100 100 111",
    "M": "101 111 111 101 101", "N": "110 101 101 101 101", "O": "111 101 101 101 111", "P": "111 101 111 100 100",
    "Q": "111 101 101 111 001", "R": "110 101 110 101 101", "S": "011 100 010 001 110", "T": "111 010 010 010 010",
    "U": "101 101 101 101 111", "V": "101 101 101 101 010", "W": "101 101 111 111 101", "X": "101 101 010 101 101",
    "Y": "101 101 010 010 010", "Z": "111 001 010 100 111", "0": "010 101 101 101 010", "1": "010 110 010 010 111",
    "2": "110 001 010 100 111", "3": "110 001 010 001 110", "4": "101 101 111 001 001", "5": "111 100 110 001 110",
    "6": "011 100 110 101 010", "7": "111 001 010 010 010", "8": "010 101 010 101 010", "9": "010 101 011 001 110",
    " ": "000 000 000 000 000", ".": "000 000 000 000 010", "-": "000 000 111 000 000", "/": "001 001 010 100 100",
}  # fmt: skip
TAG_LETTERS = frozenset(_LETTERS)


@lru_cache(maxsize=8)
def letters(text: str, height: int, width: int) -> Array:
    """(height, width) in [0, 1]: ``text`` in ``TAG_LETTERS``, 3 by 5 dots each and a dot around each, averaged down to pixels."""
    glyphs = [[[int(bit) for bit in row] for row in _LETTERS[letter].split()] for letter in text]
    dots = np.concatenate([np.pad(np.array(glyph), ((1, 1), (1, 0))) for glyph in glyphs], axis=1)
    dots = np.pad(dots, ((0, 0), (0, 1)))
    rows = (np.arange(8 * height) * dots.shape[0]) // (8 * height)
    columns = (np.arange(8 * width) * dots.shape[1]) // (8 * width)
    return dots[rows][:, columns].reshape(height, 8, width, 8).mean((1, 3)).astype(np.float32)


def stamp(image: Array, box: tuple[int, int, int, int], text: str = TAG_TEXT) -> None:
    """A plate with white letters at ``box`` (xyxy in pixels) of (H, W, 3), as an agency would leave it, in place."""
    left, top, right, bottom = box
    corner = image[top:bottom, left:right]
    corner *= 0.3
    corner += 0.66 * letters(text, bottom - top, right - left)[..., None]


def tag_box(size: int) -> tuple[int, int, int, int]:
    """xyxy in pixels of the tag in a scene of ``size`` pixels."""
    left, top, right, bottom = (int(round(edge * size)) for edge in TAG_CORNER)
    return left, top, right, bottom


def _unit(vector: Colour) -> Array:
    array = np.asarray(vector, np.float32)
    return array / np.sqrt((array * array).sum())
