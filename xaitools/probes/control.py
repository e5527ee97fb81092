"""Controls: changes that a sound measurement must not answer to.  They run with every probe run; those of pasting are with it."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from ..types import Sample
from .base import probe
from .objects import Context

QUALITY = 95

ENLARGED = 1.5
"""Factor of the round trip of ``resize``."""


@probe("identity", family="control", degrees=False)
def identity(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """Nothing changes, by the same path as every change: the drop must be exactly 0."""
    return sample


@probe("reencode", family="control", degrees=False)
def reencode(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """Written as JPEG of quality 95 without chroma subsampling, and read again."""
    pixels = (sample.image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, data = cv2.imencode(".jpg", pixels[..., ::-1], options)
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1].astype(np.float32) / 255
    return replace(sample, image=torch.from_numpy(np.ascontiguousarray(decoded)).permute(2, 0, 1).contiguous())


@probe("resize", family="control", degrees=False)
def resize(sample: Sample, severity: int, generator: np.random.Generator, context: Context) -> Sample:
    """Enlarged by half and reduced again, as pictures are on their way through other programs: it softens a little."""
    size = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
    larger = (round(size[0] * ENLARGED), round(size[1] * ENLARGED))
    there = F.interpolate(sample.image[None], larger, mode="bilinear")
    return replace(sample, image=F.interpolate(there, size, mode="bilinear", antialias=True)[0])
