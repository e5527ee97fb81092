"""Our corruptions beside imagecorruptions-imaug: python benchmarks/distortion.py [agree|speed] [DATASET ...]

agree  50 images of mixed sizes with the same random fields on both sides: the mean absolute difference by corruption and severity
speed  one image of 500 x 375, one thread each, taking turns: processor time, median of 9 rounds

Images come from DATASET strings in turn, drawn scenes where none is given.  The other package lives in an environment of
its own, made on the first call.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict

import cv2
import numpy as np

from tests.compare_imagecorruptions.side_by_side import DRAWN, MOMENTS, NAMES, SEVERITIES, environment, pairs, seconds
from xaitools.data import load_dataset

IMAGES, ROUNDS = 50, 9
SIZES = ((64, 64), (96, 128), (150, 113), (81, 200), (224, 224), (120, 90), (113, 150), (240, 320), (64, 96), (375, 500))
"""Height and width; each image is resized to one of them in turn, the large one for a tenth."""

TEST = NAMES[:15]


def image(sources: list, index: int, height: int, width: int) -> np.ndarray:
    data = sources[index % len(sources)]
    sample = data[index // len(sources) * 7 % len(data)]
    picture = (sample.image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def table(first: str, *heads: object) -> None:
    print(f"\n| {first} | {' | '.join(map(str, heads))} |\n|{'---|' * (1 + len(heads))}")


def agree(sources: list) -> None:
    images = [image(sources, index, *SIZES[index % len(SIZES)]) for index in range(IMAGES)]
    differences, moments = defaultdict(list), defaultdict(list)
    for _, name, severity, ours, theirs in pairs(environment(), images):
        differences[name, severity].append(float(np.abs(ours * 255 - theirs).mean()))
        moments[name, severity].append((float(ours.mean() * 255 - theirs.mean()), float(ours.std() * 255 - theirs.std())))
    table(f"mean difference in 1/255, {len(images)} images", *SEVERITIES, "largest of one image")
    for name in (name for name in NAMES if name not in (*MOMENTS, *DRAWN)):
        cells = [differences[name, severity] for severity in SEVERITIES]
        print(f"| {name} | {' | '.join(f'{statistics.mean(cell):.2f}' for cell in cells)} | {max(map(max, cells)):.2f} |")
    table("ours less theirs in 1/255: mean, deviation", *SEVERITIES)
    for name in (*MOMENTS, *DRAWN):
        cells = [np.mean(moments[name, severity], axis=0) for severity in SEVERITIES]
        print(f"| {name} | {' | '.join(f'{mean:+.1f}, {deviation:+.1f}' for mean, deviation in cells)} |")


def speed(sources: list) -> None:
    found = seconds(environment(), image(sources, 0, 375, 500), rounds=ROUNDS)
    table(f"ms at 500 x 375, median of {ROUNDS} rounds, mean over severities", "ours", "theirs", "ratio", "least ratio of a severity")
    total = np.zeros(2)
    for name in NAMES:
        times = 1000 * np.array([[np.median(side) for side in found[name, severity]] for severity in SEVERITIES])
        ours, theirs = times.mean(0)
        print(f"| {name} | {ours:.1f} | {theirs:.1f} | {theirs / ours:.1f} | {(times[:, 1] / times[:, 0]).min():.2f} |")
        total += times.mean(0) if name in TEST else 0
    print(f"| **sum of the 15** | {total[0]:.0f} | {total[1]:.0f} | {total[1] / total[0]:.1f} | |")


if __name__ == "__main__":
    words = sys.argv[1:]
    asked = [word for word in words if word in ("agree", "speed")] or ["agree", "speed"]
    strings = [word for word in words if word not in ("agree", "speed")] or ["scenes:test?n=100&size=384"]
    for part in asked:
        {"agree": agree, "speed": speed}[part]([load_dataset(each) for each in strings])
