"""Domain: the same scene in another weather, light or manner of picture.  Objects, outlines and labels stay where they are.

``dataset`` is another domain outright: the images of a dataset that you name, with their own truth.  ``colour_stats`` and
``fourier`` take their numbers from other images: with ``donors=LAYOUT:PATH#SPLIT`` from those of a dataset that you name, else from
other images of the same one, which asks about less.  Lengths follow the image's shorter side.
"""

from __future__ import annotations

import operator
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor

from ..data.objects import areas
from ..errors import DataError
from ..types import Sample
from .base import contrast, probe
from .objects import Context, cover

FOG = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))
"""Thickness and decay by severity, the constants of ImageNet-C."""

NIGHT = (0.16, 0.1, 0.065, 0.04, 0.025)
"""Mean light by severity, in linear values; white is 1."""


DUSK = ((0.2, 0.4), (0.14, 0.55), (0.1, 0.7), (0.07, 0.85), (0.05, 1.0))
"""Mean light by severity, in linear values, and how strong the tint is."""

RAIN = ((0.015, 0.25, 0.04), (0.025, 0.35, 0.08), (0.04, 0.45, 0.12), (0.06, 0.55, 0.17), (0.09, 0.65, 0.22))
"""Streaks begun at, as a share of the pixels of a grid; how much of a pixel a streak hides; how much of the view the mist hides."""

SNOW = ((0.004, 0.06), (0.008, 0.12), (0.014, 0.18), (0.022, 0.25), (0.032, 0.33))
"""Flakes, as a share of the pixels of a grid; how much of the view the whiteness hides."""

GLARE = ((0.3, 0.04), (0.55, 0.08), (0.9, 0.13), (1.4, 0.19), (2.2, 0.26))
"""Light around the source, in units of white, and the veil that it lays over everything."""

SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Of the other image's colour statistics, by severity."""

DARKEST = 0.02
"""Values below are taken for this before their logarithm."""

BANDS = (0.005, 0.01, 0.015, 0.025, 0.05)
"""Half the side of the square of low frequencies whose amplitudes change, as a share of the shorter side (beta of Yang and
Soatto, who use 0.01 to 0.09)."""

GRID = 480
"""Pixels on the shorter side of the grid on which rain and snow are drawn; smaller images have their own."""


@probe("fog", family="domain", default=True)
def fog(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """Drifting fog in the manner of ImageNet-C (Hendrycks and Dietterich 2019): a plasma fractal is added.

    The same severity hides more of a small image than of a large one: the fractal follows the image's size.
    """
    thickness, decay = FOG[severity - 1]
    height, width = sample.image.shape[-2:]
    cloud = torch.from_numpy(plasma(max(height, width), decay, generator)[:height, :width]).float()
    brightest = sample.image.max()
    image = (sample.image + thickness * cloud) * brightest / (brightest + thickness)
    return replace(sample, image=image)


@probe("night", family="domain", default=True)
def night(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """Less light, bluish and paler as rods see it, falling off to the corners, with the noise of a short exposure.

    The exposure goes down to a given mean, and to 0.7 of what it was at least, so that a dusky image does not
    become black where a bright one stays readable.  Noise is photon noise plus read-out noise, in linear values.
    """
    light = _linear(sample.image)
    share = float((NIGHT[severity - 1] / light.mean().clamp(min=1e-6)).clamp(max=0.7))
    light = light * share
    grey = light.mean(0, keepdim=True)
    tint = torch.tensor([0.75, 0.9, 1.25]).view(3, 1, 1)
    light = torch.lerp(light, grey, 0.5 * (1 - share)) * torch.lerp(torch.ones_like(tint), tint, 1 - share)
    light = light * _vignette(light.shape[-2], light.shape[-1], 0.5)
    noise = torch.from_numpy(generator.standard_normal(light.shape, dtype=np.float32))
    light = light + noise * (light.clamp(min=0) / 2500 + 0.0025**2).sqrt()
    return replace(sample, image=_encoded(light.clamp(0, 1)))


@probe("rain", family="domain")
def rain(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """Streaks of rain, aslant and in two distances, in a mist that takes contrast and light away."""
    begun, hides, mist = RAIN[severity - 1]
    height, width = sample.image.shape[-2:]
    image = sample.image * (1 - 0.5 * mist)
    grey = image.mean().clamp(min=0.25)
    image = torch.lerp(image, grey, mist)
    lean = generator.uniform(-25, 25)
    for near in (0.5, 1.0):
        drops = _scattered(height, width, begun / near, generator)
        side = min(drops.shape)
        streaks = _streaked(cv2.GaussianBlur(drops, (0, 0), 0.35 + 0.0012 * near * side), 0.05 * (1 + near) * side, lean)
        share = torch.from_numpy(_enlarged(streaks / max(1e-6, float(np.quantile(streaks, 0.995))), height, width)).clamp(0, 1)
        image = torch.lerp(image, (image + grey).clamp(max=0.95), hides * share)
    return replace(sample, image=image)


@probe("domain.snow", family="domain")
def snow(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """Flakes in three distances, the nearer the larger and more out of focus, and a whiteness in the air.

    Not the snow of ImageNet-C, which blurs noise into strokes; that is ``distortion.snow``.
    """
    begun, white = SNOW[severity - 1]
    height, width = sample.image.shape[-2:]
    image = torch.lerp(sample.image, torch.full((), 0.82), white)
    for size, many, dense in ((0.0016, 1.0, 0.75), (0.0035, 0.3, 0.8), (0.009, 0.03, 0.65)):
        flakes = _scattered(height, width, begun * many, generator)
        sigma = max(0.45, size * min(flakes.shape))
        spots = cv2.GaussianBlur(flakes, (0, 0), sigma) * (2 * np.pi * sigma**2)
        spots = _streaked(spots, 1.5 * sigma, generator.uniform(-35, 35))
        share = torch.from_numpy(_enlarged(np.clip(1.6 * spots, 0, 1), height, width))
        image = torch.lerp(image, torch.full((), 0.97), dense * share)
    return replace(sample, image=image)


@probe("dusk", family="domain")
def dusk(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """Little light from a low sun: what is bright turns orange, what is dark blue, and the corners fall off.

    The light goes down to a given mean, and to 0.85 of what it was at least.
    """
    mean, tint = DUSK[severity - 1]
    light = _linear(sample.image)
    left = float((mean / light.mean().clamp(min=1e-6)).clamp(max=0.85))
    level = light.mean(0, keepdim=True)
    bright = (level / (2 * level.mean()).clamp(min=1e-6)).clamp(0, 1)
    warm, cold = (torch.tensor(colour).view(3, 1, 1) for colour in ((1.3, 0.85, 0.5), (0.65, 0.85, 1.45)))
    light = torch.lerp(light, light * torch.lerp(cold, warm, bright), tint) * left
    return replace(sample, image=_encoded((light * _vignette(level.shape[-2], level.shape[-1], 0.3)).clamp(0, 1)))


@probe("glare", family="domain")
def glare(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """A low sun in the upper half of the picture: a burst of light with rays, and a veil over everything."""
    strength, veil = GLARE[severity - 1]
    height, width = sample.image.shape[-2:]
    x, y = generator.uniform(0.15, 0.85) * width, generator.uniform(0.05, 0.45) * height
    rows, columns = torch.arange(height)[:, None] + 0.5 - y, torch.arange(width)[None] + 0.5 - x
    distance, angle = torch.hypot(rows, columns) / min(height, width), torch.atan2(rows, columns)
    start, rays = generator.uniform(0, np.pi), int(generator.integers(5, 9))
    burst = 1 + 0.6 * torch.cos(rays * angle + start).abs() ** 8
    light = strength * (torch.exp(-((distance / 0.07) ** 2)) * 2 + 0.6 * burst * torch.exp(-distance / 0.18)) + veil
    sun = torch.tensor([1.0, 0.96, 0.86]).view(3, 1, 1)
    return replace(sample, image=_encoded((_linear(sample.image) + light * sun).clamp(0, 1)))


@probe("colour_stats", family="domain", needs=("others",))
def colour_stats(sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "") -> Sample:
    """Mean and spread of the colours become those of another image, in the decorrelated space of Ruderman (Reinhard et al. 2001).

    Severity is the share of the way.  ``donors`` names the dataset that the other image comes from.
    """
    return _coloured(sample, _other(sample, generator, context, donors), severity)


@probe("colour_same", family="domain", needs=("objects", "donors"))
def colour_same(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "", by: str = "model"
) -> Sample:
    """As ``colour_stats``, of an image that shows the same class (``by``: to the model, or by truth, see ``mixed_same``)."""
    pool, index = context.donor(sample, generator, donors, by, [operator.eq])
    return _coloured(sample, pool.context.dataset[index], severity)


@probe("colour_other", family="domain", needs=("objects", "donors"))
def colour_other(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "", by: str = "model"
) -> Sample:
    """As ``colour_stats``, of an image that shows another class (``by``: to the model, or by truth, see ``mixed_rand``)."""
    pool, index = context.donor(sample, generator, donors, by, [operator.ne])
    return _coloured(sample, pool.context.dataset[index], severity)


contrast(
    "domain.gap",
    of="colour_other",
    against="colour_same",
    about="The colours of an image of another class, against those of an image of the same class.",
)


def _coloured(sample: Sample, other: Sample, severity: int) -> Sample:
    own, aim = _opponent(sample.image), _opponent(other.image)
    (mean, spread), (goal, wide) = ((each.mean((1, 2), keepdim=True), each.std((1, 2), keepdim=True)) for each in (own, aim))
    new = _from_opponent((own - mean) * (wide / spread.clamp(min=1e-4)) + goal).clamp(0, 1)
    tags = {**sample.tags, "donor": other.id}
    return replace(sample, image=torch.lerp(sample.image, new, SHARES[severity - 1]), tags=tags)


@probe("light_same", family="domain", needs=("objects", "donors"), degrees=False)
def light_same(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "", by: str = "truth"
) -> Sample:
    """Lit as another image of the same class: its colour, its brightness and from which side, on each object and behind them.

    By region, each object and all behind them, a plane is fitted to the logarithm of each channel; that of the other image takes its place.
    """
    pool, index = context.donor(sample, generator, donors, by, [operator.eq])
    return _relit(sample, context, pool.context.dataset[index], pool.context)


@probe("light_other", family="domain", needs=("objects", "donors"), degrees=False)
def light_other(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "", by: str = "truth"
) -> Sample:
    """As ``light_same``, lit as an image of another class."""
    pool, index = context.donor(sample, generator, donors, by, [operator.ne])
    return _relit(sample, context, pool.context.dataset[index], pool.context)


contrast(
    "light.gap",
    of="light_other",
    against="light_same",
    about="Lit as an image of another class, against lit as an image of the same class.",
)


@probe("light_agreed_same", family="domain", needs=("objects", "donors"), degrees=False)
def light_agreed_same(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "", by: str = "truth"
) -> Sample:
    """As ``light_same``, but objects change only as far as what is behind them changes too, and the other way round.

    Light lies on both alike.  The colours of another kind of background do not, and are none.
    """
    pool, index = context.donor(sample, generator, donors, by, [operator.eq])
    return _relit(sample, context, pool.context.dataset[index], pool.context, agreed=True)


@probe("light_agreed_other", family="domain", needs=("objects", "donors"), degrees=False)
def light_agreed_other(
    sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "", by: str = "truth"
) -> Sample:
    """As ``light_agreed_same``, of an image of another class."""
    pool, index = context.donor(sample, generator, donors, by, [operator.ne])
    return _relit(sample, context, pool.context.dataset[index], pool.context, agreed=True)


contrast(
    "light_agreed.gap",
    of="light_agreed_other",
    against="light_agreed_same",
    about="As light.gap, in so far as objects and what is behind them agree on the change.",
)


def _relit(sample: Sample, context: Context, other: Sample, where: Context, agreed: bool = False) -> Sample:
    """The largest object of ``other`` lends its light to all objects; if ``agreed``, as far as the background bears it out."""
    masks, lenders = context.objects(sample), where.objects(other)
    if not len(masks) or not len(lenders):
        raise DataError("no object in this image, or in the one whose light it should have")
    behind, lit = ~masks.any(0), ~lenders.any(0)
    if agreed and not (bool(behind.any()) and bool(lit.any())):
        raise DataError("nothing is seen behind the objects in this image, or in the one whose light it should have")
    lender, largest = (each[int(areas(each).argmax())] for each in (lenders, masks))
    own, aim = (each.clamp(min=DARKEST).log() for each in (sample.image, other.image))
    image = own.clone()
    for mask, source, witness in [(behind, lit, (largest, lender)), *((mask, lender, (behind, lit)) for mask in masks)]:
        if bool(mask.any()) and bool(source.any()):
            change = _plane(aim, source) - _plane(own, mask)
            if agreed:
                change = _common(change, _plane(aim, witness[1]) - _plane(own, witness[0]))
            image[:, mask] = own[:, mask] + (_around_the_middle(mask) @ change).T.to(image)
    return replace(sample, image=image.exp().clamp(0, 1), tags={**sample.tags, "donor": other.id})


def _common(one: Tensor, other: Tensor) -> Tensor:
    """Of two numbers of one sign the smaller, else 0."""
    return torch.where(one * other > 0, torch.where(one.abs() < other.abs(), one, other), 0.0)


def _plane(values: Tensor, mask: Tensor) -> Tensor:
    """(3, 3): of each channel in ``mask`` the level, and the slopes across and down, by least squares."""
    return torch.linalg.lstsq(_around_the_middle(mask), values[:, mask].T.double(), driver="gelsd").solution


def _around_the_middle(mask: Tensor) -> Tensor:
    """(N, 3) of the pixels in ``mask`` (H, W): 1, and where they lie, in their own spread from their middle."""
    rows, columns = mask.nonzero().double().T
    spread = max(float(rows.std(correction=0)), float(columns.std(correction=0)), 1.0)
    return torch.stack([torch.ones_like(rows), (columns - columns.mean()) / spread, (rows - rows.mean()) / spread], 1)


@probe("fourier", family="domain", needs=("others",))
def fourier(sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "") -> Sample:
    """The amplitudes of the lowest frequencies become those of another image, phases stay (FDA, Yang and Soatto 2020).

    ``donors`` names the dataset that the other image comes from; it is scaled and cut to the image's size.
    """
    other = _other(sample, generator, context, donors)
    image = low_amplitudes(sample.image, cover(other.image, *sample.image.shape[-2:]), BANDS[severity - 1])
    return replace(sample, image=image.clamp(0, 1), tags={**sample.tags, "donor": other.id})


@probe("grey", family="domain", degrees=False)
def grey(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """Without colour: the luma of each pixel (BT.601) in all three channels."""
    return replace(sample, image=_luma(sample.image).expand(3, -1, -1).contiguous())


@probe("sketch", family="domain", degrees=False)
def sketch(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """A pencil drawing: each pixel's luma over that of its surroundings, so that only what is darker than these is drawn."""
    luma = _luma(sample.image)[0].numpy()
    around = cv2.GaussianBlur(luma, (0, 0), max(1.0, 0.012 * min(luma.shape)), borderType=cv2.BORDER_REFLECT)
    drawn = np.clip((luma + 0.02) / (around + 0.02), 0, 1) ** 2
    return replace(sample, image=torch.from_numpy(drawn).expand(3, -1, -1).contiguous())


@probe("dataset", family="domain", degrees=False, elsewhere=True)
def dataset(sample: Sample, severity: int, generator: np.random.Generator, context: Context, *, donors: str = "") -> Sample:
    """The images and truths of the dataset ``donors`` in place of those of this one: another domain outright.

    The samples are not paired, so the interval is that of two independent ones; only classes with truth on both sides count.  The two
    may differ in more than their look: in how hard their scenes are, how large their objects, how they were annotated.
    """
    return sample


def low_amplitudes(image: Tensor, other: Tensor, beta: float) -> Tensor:
    """``image`` (3, H, W) with the amplitudes of ``other`` (3, H, W) at frequencies of at most ``floor(beta * min(H, W))`` waves
    each way, and its own phases; values may leave [0, 1]."""
    height, width = image.shape[-2:]
    reach = int(beta * min(height, width))
    own, aim = torch.fft.rfft2(image), torch.fft.rfft2(other)
    rows, columns = torch.fft.fftfreq(height, 1 / height).abs() <= reach, torch.fft.rfftfreq(width, 1 / width) <= reach
    mixed = torch.where(rows[:, None] & columns[None], torch.polar(aim.abs(), own.angle()), own)
    return torch.fft.irfft2(mixed, s=(height, width))


def plasma(side: int, decay: float, generator: np.random.Generator) -> np.ndarray:
    """Diamond-square fractal (side, side) in [0, 1], periodic at the next power of two.

    The midpoints of each octave move by ``decay ** -2`` of the one before: ImageNet-C multiplies by its
    shrinking amplitude twice, and its constants count on that.
    """
    size = 1 << max(3, (side - 1).bit_length())
    grid = np.zeros((size, size))
    step, amplitude = size, 1.0
    while step > 1:
        half = step // 2
        corners = grid[::step, ::step]
        across, down = corners + np.roll(corners, -1, 1), corners + np.roll(corners, -1, 0)
        centres = (across + np.roll(across, -1, 0)) / 4 + generator.uniform(-amplitude, amplitude, corners.shape)
        grid[half::step, half::step] = centres
        moves = generator.uniform(-amplitude, amplitude, (2, *corners.shape))
        grid[::step, half::step] = (across + centres + np.roll(centres, 1, 0)) / 4 + moves[0]
        grid[half::step, ::step] = (down + centres + np.roll(centres, 1, 1)) / 4 + moves[1]
        step, amplitude = half, amplitude / decay**2
    grid -= grid.min()
    return grid[:side, :side] / grid.max()


def _vignette(height: int, width: int, loss: float) -> Tensor:
    """(H, W): 1 in the middle, ``1 - loss`` in the corners."""
    rows, columns = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)[None]
    return 1 - loss * (rows**2 + columns**2) / 2


def _linear(image: Tensor) -> Tensor:
    return torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def _encoded(light: Tensor) -> Tensor:
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp(min=1e-9) ** (1 / 2.4) - 0.055)


def _other(sample: Sample, generator: np.random.Generator, context: Context, donors: str) -> Sample:
    for other in context.donors(donors).samples(sample, generator):
        return other
    raise DataError("no other image to take numbers from")


def _luma(image: Tensor) -> Tensor:
    return (image * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0, keepdim=True)


_LMS = torch.tensor([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
_AXES = torch.diag(torch.tensor([3.0, 6.0, 2.0]).rsqrt()) @ torch.tensor([[1.0, 1, 1], [1, 1, -2], [1, -1, 0]])


def _opponent(image: Tensor) -> Tensor:
    """RGB -> l alpha beta (3, H, W), equations 4 to 6 of Reinhard et al. (2001); black counts as 1 of 255."""
    return torch.tensordot(_AXES, torch.tensordot(_LMS, image.clamp(min=1 / 255), 1).log10(), 1)


def _from_opponent(values: Tensor) -> Tensor:
    return torch.tensordot(torch.linalg.inv(_LMS), 10 ** torch.tensordot(torch.linalg.inv(_AXES), values, 1), 1)


def _scattered(height: int, width: int, share: float, generator: np.random.Generator) -> np.ndarray:
    """(h, w) of the grid for an image of that size: 0.5 to 1 at a random ``share`` of its pixels, else 0.

    On a grid smaller than ``GRID`` the share is larger, for lengths follow the grid, while nothing is thinner than a pixel.
    """
    scale = min(1.0, GRID / min(height, width))
    share = min(0.5, share * GRID / min(GRID, height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    drawn = generator.random(size, dtype=np.float32)
    return np.where(drawn < share, 0.5 + 0.5 * drawn / share, 0).astype(np.float32)


def _streaked(values: np.ndarray, length: float, degrees: float) -> np.ndarray:
    """``values`` drawn out over ``length`` pixels, ``degrees`` from upright."""
    reach = max(1, round(length / 2))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    sideways = np.tan(np.deg2rad(degrees)) * reach
    cv2.line(kernel, (round(reach - sideways), 0), (round(reach + sideways), 2 * reach), 1.0)
    return cv2.filter2D(values, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)


def _enlarged(values: np.ndarray, height: int, width: int) -> np.ndarray:
    return values if values.shape == (height, width) else cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
