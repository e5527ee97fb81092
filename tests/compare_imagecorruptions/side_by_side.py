"""Our corruptions beside those of imagecorruptions-imaug, which lives in an environment of its own: its pins are not ours."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import torch

from tests.compare_imagecorruptions.theirs import SEVERITIES, get, put, seed_of
from tests.environments import interpreter
from xaitools.probes import PROBES
from xaitools.types import Sample

THEIRS = Path(__file__).with_name("theirs.py")

NAMES = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow", "frost", "fog",
    "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
    "speckle_noise", "gaussian_blur", "spatter", "saturate",
)  # fmt: skip
"""In the order of ImageNet-C; the last four are held out."""


MOMENTS = ("impulse_noise",)
"""Drawn in another way than theirs: compared by mean and deviation."""

DRAWN = ("frost",)
"""Theirs lays photographs over the image, which are not ours to ship."""


def ours(name: str) -> Any:
    return PROBES[f"distortion.{name}" if name in ("fog", "snow") else name]


def environment() -> Path:
    """The interpreter that has theirs, see ``interpreter``."""
    return interpreter("imagecorruptions", "imagecorruptions-imaug==1.1.5")


class Replay:
    """A generator that gives the numbers which numpy's old global generator gives them after the same seed.

    Fields over (3, H, W) come in their order, (H, W, 3).
    """

    def __init__(self, seed: int) -> None:
        self.state = np.random.RandomState(seed)

    def _field(self, draw: Any, size: Any) -> np.ndarray:
        if len(size) == 3 and size[0] == 3:
            return np.ascontiguousarray(draw((*size[1:], 3)).transpose(2, 0, 1))
        return draw(size)

    def standard_normal(self, size: Any, dtype: Any = np.float64) -> np.ndarray:
        return self._field(lambda shape: self.state.normal(size=shape), size).astype(dtype)

    def random(self, size: Any, dtype: Any = np.float64) -> np.ndarray:
        return self._field(lambda shape: self.state.random_sample(shape), size).astype(dtype)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.state, name)

    def integers(self, low: int, high: int, size: Any, dtype: Any = np.int64) -> np.ndarray:
        return self.state.randint(low, high, size=size).astype(dtype)


def corrupted(image: np.ndarray, name: str, severity: int, generator: Any) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1] for an image (H, W, 3) uint8."""
    sample = Sample("", torch.from_numpy(image).permute(2, 0, 1).contiguous().float() / 255)
    return ours(name).change(sample, severity, generator, None).image.permute(1, 2, 0).numpy()


@contextmanager
def _running(python: Path, *words: str) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    process = subprocess.Popen([python, THEIRS, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process.stdin, process.stdout
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


def pairs(
    python: Path, images: Sequence[np.ndarray], names: Sequence[str] = NAMES
) -> Iterator[tuple[int, str, int, np.ndarray, np.ndarray]]:
    """(number of the image, name, severity, ours float32 in [0, 1], theirs uint8) with the same random fields on both sides."""
    with _running(python, "agree", str(len(images)), *names) as (to, answers):
        for index, image in enumerate(images):
            put(to, image)
            for name in names:
                for severity in SEVERITIES:
                    theirs = get(answers)
                    yield index, name, severity, corrupted(image, name, severity, Replay(seed_of(index, name, severity))), theirs


def seconds(
    python: Path, image: np.ndarray, names: Sequence[str] = NAMES, rounds: int = 7
) -> dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]:
    """{(name, severity): (ours, theirs)}, (rounds,) seconds each of processor time on one thread; the two take turns.

    Ours takes and gives float32 (3, H, W), theirs uint8 (H, W, 3): each what its users hold.  A first round is not counted.
    """
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    sample = Sample("", torch.from_numpy(image).permute(2, 0, 1).contiguous().float() / 255)
    found = {}
    with _running(python, "time", str(rounds + 1), *names) as (to, answers):
        put(to, image)
        for name in names:
            for severity in SEVERITIES:
                taken = np.zeros((2, rounds + 1))
                for number in range(rounds + 1):
                    generator = np.random.Generator(np.random.PCG64(number))
                    start = time.process_time()
                    ours(name).change(sample, severity, generator, None)
                    taken[0, number] = time.process_time() - start
                    put(to, np.array(number))
                    taken[1, number] = get(answers)
                found[name, severity] = taken[0, 1:], taken[1, 1:]
    return found
