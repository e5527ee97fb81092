"""Occlusion in parts against whole passes, side by side in one run: python benchmarks/occlusion.py [small|whole|growth] [CASE...]

Random weights, one image of noise.  Ours is the whole map: tracing, plan, self-check and skipped windows included.  The
dense side is at least 64 windows drawn at random over the map, half of them before ours and half after it, in batches of
the size that is fastest here (captum's default is one by one); its time is the median over batches times the number of
windows.  Kernels lie with their channels last on both sides; the dense side is also tried as the network comes, and has the
quicker of the two.  ``whole`` shows for one network that captum's whole map takes as long as that.  Memory is the highest resident
size during our call less that before it, when dense passes had run; each case has a process of its own.

Cases are named by how they begin. Without a name all of them are run, the whole map (``whole``) and the small models (``small``);
``growth`` draws occlusion.png.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import detection, segmentation

import xaitools as xt
from xaitools.adapters import Adapter, ClassificationModel, SegmentationModel, TwoStageModel
from xaitools.architectures import ARCHITECTURES
from xaitools.attribution import speed
from xaitools.attribution.incremental import in_parts
from xaitools.attribution.occlusion import occlusion
from xaitools.attribution.sweep import Sweep, hidden, make_sweep
from xaitools.types import REST, Decision

SAMPLED = 64
TEN = tuple(map(str, range(10)))


def settled(net: nn.Module) -> nn.Module:
    """Statistics of batch normalisation as after training: those of a batch of noise."""
    norms = [part for part in net.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    if norms:
        with torch.no_grad():
            net.train()(torch.randn(2, 3, 96, 96))
    return net.eval()


def classifier(build: Callable[..., nn.Module]) -> Callable[[int], tuple[Adapter, Decision]]:
    return lambda size: (ClassificationModel(settled(build(weights=None, num_classes=10)), TEN), Decision("class:3", 3))


def segmenter(build: Callable[[], nn.Module], side: int = 0) -> Callable[[int], tuple[Adapter, Decision]]:
    """The mean logit of a square of ``side`` pixels in the middle, or of the whole output."""

    def made(size: int) -> tuple[Adapter, Decision]:
        region = None
        if side:
            region, start = torch.zeros(size, size, dtype=torch.bool), (size - side) // 2
            region[start : start + side, start : start + side] = True
        return SegmentationModel(settled(build()), TEN, background=0), Decision("region:3", 3, region=region)

    return made


def detector(size: int) -> tuple[Adapter, Decision]:
    net = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=11, min_size=size, max_size=size)
    start = (size - 64) / 2
    box = torch.tensor([start, start, start + 64, start + 64])
    return TwoStageModel(net.eval(), TEN), Decision("box:0", 3, versus=REST, box=box, proposal=box)


def unet() -> nn.Module:
    return ARCHITECTURES["unet"](10, base=32, depth=4)


def fcn() -> nn.Module:
    return segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=10)


def deeplab() -> nn.Module:
    return segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=10)


@dataclass(frozen=True)
class Case:
    """``least`` and ``aim`` are what was asked for; ``batches`` the sizes that the dense side may take."""

    name: str
    build: Callable[[int], tuple[Adapter, Decision]]
    size: int
    least: str
    aim: str
    batches: tuple[int, ...] = (1, 4, 8, 16)
    window: int = 16
    stride: int = 8


CASES = [
    Case("VGG-16, 224", classifier(models.vgg16), 224, "5", "9"),
    Case("VGG-16, 512", classifier(models.vgg16), 512, "25", "38", (1, 4)),
    Case("ResNet-18, 224", classifier(models.resnet18), 224, "2.2", "3.5", (1,)),
    Case("ResNet-50, 224", classifier(models.resnet50), 224, "2.2", "3.5", (1,)),
    Case("U-Net, 512, region", segmenter(unet, 64), 512, "60", "200", (1, 4)),
    Case("U-Net, 256, whole", segmenter(unet), 256, "2", "3.5", (1, 4, 8)),
    Case("U-Net, 512, whole", segmenter(unet), 512, "8", "11", (1, 4)),
    Case("FCN ResNet-50, 256, region", segmenter(fcn, 64), 256, "2", "3.3", (1, 4, 8)),
    Case("DeepLabv3 ResNet-50, 256, region", segmenter(deeplab, 64), 256, "-", "-", (1, 4, 8)),
    Case("Faster R-CNN ResNet-50-FPN, 800, box", detector, 800, "20", "80", (1, 2), 32, 16),
]

SMALL = ("alexnet-scenes", "unet-scenes", "deeplabv3plus-scenes", "yolo-scenes", "faster-rcnn-scenes", "mask-rcnn-scenes")


def prepared(case: Case) -> tuple[Adapter, Decision, Tensor]:
    torch.manual_seed(0)
    model, decision = case.build(case.size)
    model.module.requires_grad_(False)
    return model, decision, torch.rand(1, 3, case.size, case.size)


def ours(case: Case, model: Adapter, decision: Decision, image: Tensor) -> tuple[float, str]:
    start = time.perf_counter()
    maps = occlusion(
        model, image, [decision], torch.Generator().manual_seed(0), window=case.window, stride=case.stride, fill="0.5", channels_last=True
    )
    return time.perf_counter() - start, str(maps.used["computed"])


def sweep_of(case: Case, image: Tensor, size: int) -> Sweep:
    return make_sweep(image, torch.Generator(), case.window, case.stride, "0.5", size)


Dense = tuple[int, bool]
"""Images in a batch, and whether kernels lie with their channels last."""


def sampled(case: Case, model: Adapter, decision: Decision, image: Tensor, chosen: list[int], dense: Dense) -> tuple[list[float], Tensor]:
    """Seconds for each window in batches of whole passes, and their scores."""
    size, last = dense
    times, scores = [], []
    with speed.channels_last(model.module, last), torch.no_grad():
        for numbers, batch in hidden(sweep_of(case, image, size), chosen):
            start = time.perf_counter()
            table = model.score_table(batch, [decision])
            times.append((time.perf_counter() - start) / size)
            scores.append(table[0, : len(numbers)])
    return times, torch.cat(scores)


def fastest(case: Case, model: Adapter, decision: Decision, image: Tensor) -> Dense:
    chosen = list(range(max((2, *case.batches))))
    tried = {
        (size, last): min(sampled(case, model, decision, image, chosen, (size, last))[0])
        for size in case.batches for last in (False, True)
    }  # fmt: skip
    return min(tried, key=lambda dense: tried[dense])


def difference(case: Case, model: Adapter, decision: Decision, image: Tensor, chosen: list[int], dense: Tensor) -> tuple[float, float]:
    """Largest distance of the windows' falls from those of whole passes, absolute and by the largest fall among them."""
    sweep = sweep_of(case, image, 16)

    def scores(images: Tensor) -> Tensor:
        with torch.no_grad():
            return model.score_table(images, [decision])

    with speed.channels_last(model.module, True), torch.no_grad():
        engine = in_parts(scores, image, sweep.filling, sweep.places, sweep.size).engine
        if engine is None:
            return 0.0, 0.0
        mine = engine.clean.repeat(len(chosen))
        for row, number in enumerate(chosen):
            if engine.plan.reaches[number]:
                mine[row] = engine.scores(torch.tensor([number]).numpy(), sweep.filling)[0, 0]
    far = float((mine - dense).abs().max())
    return far, far / max(float((dense - engine.clean).abs().max()), 1e-30)


class Peak:
    """The highest resident size inside, in MiB beyond what the process had."""

    def __enter__(self) -> Peak:
        self.before = self.highest = self._resident()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.thread.join()
        self.value = (self.highest - self.before) / 2**20

    def _watch(self) -> None:
        while not self.done.wait(0.02):
            self.highest = max(self.highest, self._resident())

    @staticmethod
    def _resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measured(number: int) -> dict[str, object]:
    case = CASES[number]
    model, decision, image = prepared(case)
    places = sweep_of(case, image, 1).places
    dense = fastest(case, model, decision, image)
    draw = torch.randperm(len(places), generator=torch.Generator().manual_seed(1)).tolist()[:SAMPLED]
    half = len(draw) // 2
    first, scores = sampled(case, model, decision, image, draw[:half], dense)
    with Peak() as parts:
        took, how = ours(case, model, decision, image)
    second, more = sampled(case, model, decision, image, draw[half:], dense)
    every = statistics.median(first + second) * len(places)
    far, share = difference(case, model, decision, image, draw, torch.cat([scores, more]))
    return {
        "windows": len(places), "ours": took, "dense": every, "ratio": every / took, "batch": dense, "how": how, "far": far,
        "share": share, "memory": f"{parts.value:.0f} MiB",
    }  # fmt: skip


def described(dense: Dense) -> str:
    return f"{dense[0]}{', channels last' * dense[1]}"


def table(wanted: list[str]) -> None:
    print("| case, patch 16, stride 8 | windows | ours | dense | ratio | at least | aim | largest difference | memory |")
    print("|---|---|---|---|---|---|---|---|---|")
    for number, case in enumerate(CASES):
        if wanted and not any(case.name.startswith(each) for each in wanted):
            continue
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            row = pool.apply(measured, (number,))
        print(
            f"| {case.name}{', patch 32, stride 16' * (case.window == 32)} | {row['windows']} | {row['ours']:.1f} s"
            f" | {row['dense']:.0f} s in batches of {described(row['batch'])} | {row['ratio']:.1f} | {case.least} | {case.aim}"
            f" | {row['far']:.0e}, {row['share']:.0e} of the largest fall | {row['memory']} |\n<!-- {row['how']} -->",
            flush=True,
        )


def small(rounds: int = 5) -> None:
    print("| model of the zoo, one scene | ratio to the plain loop | how |\n|---|---|---|")
    for name in SMALL:
        model = xt.load_model(name)
        image = xt.load_dataset(f"scenes:test?n=1{'&crop=64' * (model.task == 'classification')}")[0].image
        prediction, ratios = model.predict(image[None])[0], []
        for _ in range(rounds):
            took = []
            for incremental in (False, True):
                start = time.perf_counter()
                (made,) = xt.explain_many(model, image, ["top"], "occlusion", prediction=prediction, incremental=incremental)
                took.append(time.perf_counter() - start)
            ratios.append(took[0] / took[1])
        spread = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] (n {rounds})"
        print(f"| {name} | {spread} | {made.params['computed']} |", flush=True)


def whole() -> None:
    """captum's whole map beside what 64 of its windows say."""
    from captum.attr import Occlusion

    case = next(each for each in CASES if each.name == "ResNet-18, 224")
    model, decision, image = prepared(case)
    places = sweep_of(case, image, 1).places
    chosen = torch.randperm(len(places), generator=torch.Generator().manual_seed(1)).tolist()[:SAMPLED]
    times, _ = sampled(case, model, decision, image, chosen, (1, False))
    shape, steps = (3, case.window, case.window), (3, case.stride, case.stride)
    start = time.perf_counter()
    with torch.no_grad():
        Occlusion(lambda x: model.score_table(x, [decision])[0]).attribute(image, shape, steps, 0.5)
    took = time.perf_counter() - start
    print(f"ResNet-18, 224: captum's whole map {took:.1f} s, 64 windows say {statistics.median(times) * len(places):.1f} s")


def growth() -> None:
    """U-Net, one 64-px region: what ours and whole passes take as the image grows, drawn into occlusion.png."""
    from matplotlib import pyplot as plt

    sizes, rows = (224, 320, 448, 640, 1024), []
    for size in sizes:
        case = Case(f"U-Net, {size}, region", segmenter(unet, 64), size, "", "", (1,))
        model, decision, image = prepared(case)
        count = len(sweep_of(case, image, 1).places)
        times, _ = sampled(case, model, decision, image, list(range(0, count, max(1, count // 12)))[:12], (1, True))
        took, how = ours(case, model, decision, image)
        rows.append((count, took, statistics.median(times) * count))
        print(
            f"{size} px: {count} windows, ours {took:.1f} s, dense {rows[-1][2]:.0f} s, ratio {rows[-1][2] / took:.1f} ({how})", flush=True
        )
    figure, ax = plt.subplots(figsize=(4.2, 3))
    ax.loglog(sizes, [row[2] for row in rows], "o-", color="0.5", label="whole passes")
    ax.loglog(sizes, [row[1] for row in rows], "o-", color="#0072b2", label="in parts")
    ax.set(xlabel="side of the image in pixels", ylabel="seconds for a map")
    ax.set_xticks(sizes, [str(each) for each in sizes])
    ax.minorticks_off()
    ax.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=150, metadata={"Software": None})


def main() -> None:
    wanted = sys.argv[1:]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    if wanted in (["growth"], ["whole"]):
        growth() if wanted == ["growth"] else whole()
        return
    if wanted != ["small"]:
        table(wanted)
    if not wanted:
        whole()
    if not wanted or wanted == ["small"]:
        small()


if __name__ == "__main__":
    main()
