"""Runs in the other environment: imagecorruptions on images from standard input, arrays to standard output.

    python theirs.py agree COUNT NAME ... < images  for each image, name and severity 1 to 5: (H, W, 3) uint8
    python theirs.py time ROUNDS NAME ... < image   for each name, severity and round, once something is sent: its seconds

Images and arrays go through ``put`` and ``get``.  In ``agree`` their random numbers come from ``seed_of``, so that ours can
be the same: their Poisson numbers by inversion of uniform ones, their glass by the Python function behind the compiled one.
"""

from __future__ import annotations

import io
import os
import sys
import time
import zlib
from typing import IO

import cv2
import numpy as np

SEVERITIES = range(1, 6)


def seed_of(index: int, name: str, severity: int) -> int:
    return zlib.crc32(f"{index} {name} {severity}".encode())


def inverted_poisson(mean: np.ndarray) -> np.ndarray:
    """Poisson numbers of ``mean`` by inversion of float32 uniform numbers, level by level."""
    from scipy.stats import poisson

    uniform = np.random.random_sample(mean.shape).astype(np.float32)
    found = np.zeros(mean.shape)
    levels, which = np.unique(mean, return_inverse=True)
    for number, level in enumerate(levels):
        chosen = which.reshape(mean.shape) == number
        found[chosen] = poisson.ppf(np.maximum(uniform[chosen], 1e-12), level)
    return found


def put(stream: IO[bytes], array: np.ndarray) -> None:
    """One array into a pipe: its length in 8 bytes, then npy."""
    held = io.BytesIO()
    np.save(held, array)
    stream.write(held.tell().to_bytes(8, "big") + held.getvalue())
    stream.flush()


def get(stream: IO[bytes]) -> np.ndarray:
    """What ``put`` wrote.  Raises EOFError where the other side has ended."""
    head = stream.read(8)
    if not head:
        raise EOFError("the other side has ended")
    return np.load(io.BytesIO(stream.read(int.from_bytes(head, "big"))))


def main() -> None:
    import imagecorruptions
    from imagecorruptions import corruptions

    cv2.setNumThreads(1)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what they print is no array
    if sys.argv[1] == "time":
        rounds, names = int(sys.argv[2]), sys.argv[3:]
        image = get(sys.stdin.buffer)
        for name in names:
            for severity in SEVERITIES:
                for _ in range(rounds):
                    get(sys.stdin.buffer)
                    start = time.process_time()
                    imagecorruptions.corrupt(image, severity, name)
                    put(answers, np.array(time.process_time() - start))
        return
    np.random.poisson = inverted_poisson
    corruptions._shuffle_pixels_njit_glass_blur = corruptions._shuffle_pixels_njit_glass_blur.py_func
    count, names = int(sys.argv[2]), sys.argv[3:]
    for index in range(count):
        image = get(sys.stdin.buffer)
        for name in names:
            for severity in SEVERITIES:
                seed = seed_of(index, name, severity)
                np.random.seed(seed)
                more = {"seed": seed} if name in ("glass_blur", "impulse_noise") else {}
                put(answers, imagecorruptions.corrupt(image, severity, name, **more))


if __name__ == "__main__":
    main()
