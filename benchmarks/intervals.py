"""How often does a 95 % interval of a drop hold the truth?  python benchmarks/intervals.py [REPETITIONS] [PART OF THE NAMES]

Populations of images with known truth, drawn anew in every repetition:

balanced   8 classes, each in half of the images
rare       10 classes, each in 7.5 % of the images, as in VOC; of pixels also a background that is everywhere
clustered  the balanced one in scenes of 5 images that hold the same classes and are about equally hard
sparse     the balanced one, but only 5 % of the images are changed at all, as by a control (mIoU alone)

An image is hard or easy in both conditions alike.  The truth is the drop on TRUTH images.  Counts are made, not predicted: of
pixels for mIoU, of matched and unmatched boxes for mAP50, of right answers for top1.  A part of 100 repetitions is a line in
scratch/intervals and not done again, so that a run can be killed and gone on with; 0 repetitions print what is there.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xaitools.files import write_text
from xaitools.metrics import METHOD, METHODS, Table, draw

SIZES, TASKS, POPULATIONS = (50, 200, 500), ("segmentation", "classification", "detection"), ("balanced", "rare", "clustered", "sparse")
REPLICATES, PART, TRUTH, SCENE = 499, 100, 100_000, 5
POPULATED = [each for each in product(TASKS, POPULATIONS) if each[1] != "sparse" or each[0] == "segmentation"]
FOLDER = Path(__file__).resolve().parents[1] / "scratch" / "intervals"

Floats = NDArray[np.float64]


class Images:
    """What the two conditions share: which classes an image holds, (n, K), and how hard it is."""

    def __init__(self, n: int, population: str, everywhere: bool, generator: np.random.Generator) -> None:
        self.n, self.generator, self.population = n, generator, population
        scene = np.arange(n) // SCENE if population == "clustered" else np.arange(n)
        prevalence = np.r_[np.ones(int(everywhere)), np.full(10, 0.075)] if population == "rare" else np.full(8, 0.5)
        self.classes = len(prevalence)
        self.holds = (generator.random((scene[-1] + 1, self.classes)) < prevalence)[scene]
        hard, own = generator.normal(size=scene[-1] + 1)[scene], generator.normal(size=n)
        self.hard = 0.9 * hard + 0.45 * own if population == "clustered" else hard
        self.touched = generator.random(n) < 0.05 if population == "sparse" else np.ones(n, bool)
        self.clusters = [f"{each:07d}" for each in scene] if population == "clustered" else None

    def chances(self, cost: float) -> tuple[Floats, Floats]:
        """(n, K) how likely an object of a class is found, clean and changed."""
        noise = self.generator.normal(size=(2, self.n, self.classes)) * 0.7
        ease = np.linspace(2.8, 0.8, self.classes)
        before = ease - self.hard[:, None] + noise[0]
        after = before - cost * (1 + 0.5 * self.generator.normal(size=self.n))[:, None] + 0.5 * noise[1]
        return _sigmoid(before), _sigmoid(np.where(self.touched[:, None], after, before))


def _sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def segmentation(images: Images) -> list[list[dict[str, NDArray]]]:
    """Pixels: of a class the chance is right, and the rest is taken for the first class or for any of the others."""
    n, size, generator = images.n, images.classes, images.generator
    area = images.holds * generator.lognormal(0, 1, (n, size)) * np.r_[8 if images.population == "rare" else 1, np.ones(size - 1)]
    area /= np.maximum(area.sum(1, keepdims=True), 1e-9)
    wrong = generator.dirichlet(np.r_[3, np.full(size - 1, 0.2)], n)
    tables = []
    for chance in images.chances(0.8):
        confusion = (area * (1 - chance))[:, :, None] * wrong[:, None, :]
        confusion[:, range(size), range(size)] += area * chance
        tables.append([{"confusion": each} for each in np.rint(10_000 * confusion).astype(np.int64).reshape(n, -1)])
    return tables


def classification(images: Images) -> list[list[dict[str, NDArray]]]:
    """One class an image, all classes equally often: rare ones say nothing new here."""
    n, generator = images.n, images.generator
    label = generator.integers(0, images.classes, n)
    luck = generator.random(n)
    tables = []
    for chance in images.chances(0.8):
        right = luck < chance[np.arange(n), label]
        guess = np.where(right, label, (label + 1) % images.classes)
        tables.append([{"label": label[[place]], "guess": guess[[place]]} for place in range(n)])
    return tables


def detection(images: Images) -> list[list[dict[str, NDArray]]]:
    """Objects of the classes held, one to three each; one is found by chance, with a score that says so a little; and false ones."""
    n, size, generator = images.n, images.classes, images.generator
    count = images.holds * (1 + generator.binomial(2, 0.3, (n, size)))
    image, label = (np.repeat(each.ravel(), count.ravel()) for each in np.indices((n, size)))
    false = generator.poisson(0.25 * _sigmoid(images.hard)[:, None] * np.ones(size))
    far, what = (np.repeat(each.ravel(), false.ravel()) for each in np.indices((n, size)))
    luck, level, loud = generator.random(len(image)), generator.normal(size=len(image)), generator.normal(size=len(far))
    where, kind = np.r_[image, far], np.r_[label, what]
    tables = []
    for chance, quiet in zip(images.chances(0.8), (0, 0.4 * images.touched), strict=True):
        found = luck < chance[image, label]
        score = _sigmoid(np.r_[1 + level - (quiet * np.ones(n))[image], loud - 0.3]).astype(np.float32)
        keep = np.r_[found, np.ones(len(far), bool)]
        order = np.lexsort((-score, where))
        order = order[keep[order]]
        right = np.r_[found, np.zeros(len(far), bool)].astype(np.int16)
        ends = np.searchsorted(where[order], np.arange(n + 1))
        rows = []
        for place in range(n):
            mine = order[ends[place] : ends[place + 1]]
            rows.append({"score": score[mine], "label": kind[mine].astype(np.int16), "positives": count[place].astype(np.int32),
                         "matched": right[mine], "void": np.zeros(len(mine), np.int16)})  # fmt: skip
        tables.append(rows)
    return tables


MADE = {"segmentation": segmentation, "classification": classification, "detection": detection}


def pair(task: str, population: str, n: int, generator: np.random.Generator) -> tuple[dict[str, Table], Images]:
    images = Images(n, population, task == "segmentation", generator)
    names = [str(each) for each in range(images.classes)]
    return {name: Table(task, names, rows) for name, rows in zip(("clean", "changed"), MADE[task](images), strict=True)}, images


def truth(task: str, population: str) -> tuple[float, float]:
    """Clean value and drop on TRUTH images."""
    file = FOLDER / f"{task}-{population}-truth.json"
    if file.is_file():
        return tuple(json.loads(file.read_text()))
    tables, _ = pair(task, population, TRUTH, np.random.default_rng(_key("truth", task, population)))
    clean, changed = (tables[name].metric() for name in ("clean", "changed"))
    file.write_text(json.dumps([clean, clean - changed]))
    return clean, clean - changed


def _key(*words: Any) -> int:
    return zlib.crc32("/".join(map(str, words)).encode())


def drawn(n: int, size: int, generator: np.random.Generator) -> NDArray:
    """(REPLICATES, n) how often each image is drawn, ``size`` neighbours at a time; quicker than ``image_weights``."""
    chosen = generator.integers(0, n // size, (REPLICATES, n // size)) + n // size * np.arange(REPLICATES)[:, None]
    return np.bincount(chosen.ravel(), minlength=REPLICATES * (n // size)).reshape(REPLICATES, -1).repeat(size, axis=1)


def one_part(task: str, population: str, n: int, part: int, by_image: bool) -> dict[str, list[list[float]]]:
    """The ends of the intervals of PART repetitions by method."""
    found: dict[str, list[list[float]]] = {name: [] for name in METHODS}
    for repetition in range(part * PART, (part + 1) * PART):
        tables, images = pair(task, population, n, np.random.default_rng(_key(task, population, n, repetition)))
        clusters = None if by_image else images.clusters
        weights = drawn(n, SCENE if clusters else 1, np.random.default_rng(repetition))
        number = draw(tables, lambda duals: {"drop": duals["clean"] - duals["changed"]}, weights, clusters)["drop"]
        for method in METHODS:
            found[method].append(number.interval(method=method) or [np.nan, np.nan])
    return found


def parts(repetitions: int, wanted: str) -> Mapping[str, dict[str, list[list[float]]]]:
    """All intervals by cell, from the folder or new."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    cells: dict[str, dict[str, list[list[float]]]] = {}
    names = [(*each, n, False) for each, n in product(POPULATED, SIZES)]
    names += [(task, "clustered", n, True) for task, n in product(TASKS, SIZES)]
    for part, (task, population, n, by_image) in product(range(-(-repetitions // PART) or 1000), names):
        name = f"{task} {population} {n}{' by image' * by_image}"
        if wanted not in name:
            continue
        file = FOLDER / f"{name.replace(' ', '-')}-{part:03d}.json"
        if not file.is_file() and repetitions == 0:
            continue
        if not file.is_file():
            ends = one_part(task, population, n, part, by_image)
            done = json.dumps({method: np.round(each, 6).tolist() for method, each in ends.items()})
            write_text(file, done)  # whole or not at all
        for method, ends in json.loads(file.read_text()).items():
            cells.setdefault(name, {}).setdefault(method, []).extend(ends)
    return cells


def main(repetitions: int, wanted: str) -> None:
    cells = parts(repetitions, wanted)
    for task, population in POPULATED:
        if any(name.startswith(f"{task} {population} ") for name in cells):
            clean, drop = truth(task, population)
            print(f"\n{task}, {population}: clean {clean:.3f}, drop {100 * drop:.2f} points\n")
            print("| n | repetitions | " + " | ".join(METHODS) + " |\n|" + "---|" * (len(METHODS) + 2))
            for name in (name for name in cells if name.startswith(f"{task} {population} ")):
                shown = " | ".join(_cell(cells[name][method], drop) for method in METHODS)
                print(f"| {name.split(' ', 2)[2]} | {len(cells[name]['bca'])} | {shown} |")
    print("\nMEASURED =", measured(cells))


def _cell(ends: list[list[float]], drop: float) -> str:
    """Coverage, misses on either side and median width in points."""
    low, high = np.array(ends, float).T
    missed = f"{100 * (low > drop).mean():.1f}, {100 * (high < drop).mean():.1f}"
    return f"{100 * _inside(ends, drop):.1f} ({missed}), {100 * np.nanmedian(high - low):.1f}"


def _inside(ends: list[list[float]], drop: float) -> float:
    low, high = np.array(ends, float).T
    return float(((low <= drop) & (drop <= high)).mean())


def measured(cells: Mapping[str, dict[str, list[list[float]]]]) -> dict[str, dict[int, tuple[float, float]]]:
    """MEASURED of xaitools/metrics/coverage.py: the least and the largest coverage of the default method."""
    found: dict[str, dict[int, list[float]]] = {}
    for name, ends in cells.items():
        task, population, n, *by_image = name.split()
        if population == "sparse" or by_image:
            continue
        key, size = ("clustered", int(n) // SCENE) if population == "clustered" else (task, int(n))
        found.setdefault(key, {}).setdefault(size, []).append(_inside(ends[METHOD], truth(task, population)[1]))
    return {key: {size: (round(min(each), 3), round(max(each), 3)) for size, each in sizes.items()} for key, sizes in found.items()}


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000, sys.argv[2] if len(sys.argv) > 2 else "")
