"""Distortion: what a camera, the weather and files do to images; the 15 corruptions of ImageNet-C and its 4 held-out ones.

noise       of the sensor or the wire
blur        of the lens, glass, motion, zoom
weather     snow, frost, fog, spatter; frost draws its own crystals
digital     contrast, colour, pixels, compression
elastic     moves pixels
corruption  what they have in common
"""

from ..base import aggregate
from . import blur, digital, elastic, noise, weather
from .corruption import FAMILY

TEST = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "distortion.snow",
    "frost", "distortion.fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
"""The test corruptions of ImageNet-C; the other four are held out for validation and belong to no benchmark."""

aggregate(
    "benchmark",
    of=TEST,
    family=FAMILY,
    about="The mean metric under 15 corruptions, mPC of Michaelis et al. (2019): mPC-15, frost drawn.",
    default=True,
)

__all__ = ["TEST", "blur", "digital", "elastic", "noise", "weather"]
