"""LRP against zennit, side by side in one run: python benchmarks/lrp_speed.py [ROUNDS]

VGG-16 and ResNet-50 of torchvision with random weights, one image of 224 x 224, epsilon-plus-flat.  zennit's hooks and
canonizers are put on once, outside the clock; ours are put on inside it, since they are part of every call.  The two
take turns; a ratio is the median over rounds of zennit's time by ours.  Memory is the highest resident size during one
explanation less that before it, each in a process of its own.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision import models

from xaitools.attribution.lrp import composite, relevance

NETWORKS: dict[str, Callable[[], nn.Module]] = {"VGG-16": models.vgg16, "ResNet-50": models.resnet50}
TARGETS = 10


def network(name: str, dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    """Random weights; statistics of batch normalisation as after training: those of a batch of noise."""
    torch.manual_seed(0)
    net = NETWORKS[name](weights=None)
    norms = [part for part in net.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    if norms:
        with torch.no_grad():
            net.train()(torch.randn(4, 3, 64, 64))
    return net.to(dtype).eval(), torch.randn(1, 3, 224, 224).to(dtype)


@contextmanager
def zennit(net: nn.Module):  # type: ignore[no-untyped-def]
    """A function (image, class) -> relevance, with the hooks in place."""
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.composites import EpsilonPlusFlat
    from zennit.torchvision import ResNetCanonizer

    residual = isinstance(net, models.ResNet)
    rules = EpsilonPlusFlat(canonizers=[ResNetCanonizer() if residual else SequentialMergeBatchNorm()])
    with rules.context(net) as hooked:

        def explain(x: Tensor, target: int) -> Tensor:
            leaf = x.detach().clone().requires_grad_()
            logits = hooked(leaf)
            chosen = torch.zeros_like(logits).index_fill_(1, torch.tensor(target), 1.0)
            (values,) = torch.autograd.grad(logits, leaf, chosen * logits.detach())
            return values

        yield explain


def ours(net: nn.Module) -> Callable[..., list[Tensor]]:
    rules = composite("lrp-epsilon-plus-flat")

    def explain(x: Tensor, *targets: int) -> list[Tensor]:
        return [each.values for each in relevance(lambda image: net(image)[0, list(targets)], x, rules)]

    return explain


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ratios(name: str, rounds: int) -> tuple[list[float], list[float]]:
    net, x = network(name, torch.float32)
    mine = ours(net)
    with zennit(copy.deepcopy(net)) as theirs:
        theirs(x, 0), mine(x, 0)
        one = [seconds(lambda: theirs(x, 1)) / seconds(lambda: mine(x, 1)) for _ in range(rounds)]
        many = [
            seconds(lambda: [theirs(x, k) for k in range(TARGETS)]) / seconds(lambda: mine(x, *range(TARGETS)))
            for _ in range(max(2, rounds // 3))
        ]
    return one, many


def difference(name: str) -> float:
    """Of the maps in float64, by the largest value; zennit merges a normalisation but leaves its eps behind, which is set to 0 here."""
    net, x = network(name, torch.float64)
    (mine,) = ours(net)(x, 1)
    with zennit(other := copy.deepcopy(net)) as theirs:
        for part in other.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eps = 0.0
        expected = theirs(x, 1)
    return float((mine - expected).abs().max() / expected.abs().max())


def peak(name: str, which: str) -> float:
    """MiB that one explanation takes beyond what the process had."""
    net, x = network(name, torch.float32)
    pages, done, highest = Path("/proc/self/statm"), threading.Event(), [0]

    def resident() -> int:
        return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def watch() -> None:
        while not done.wait(0.002):
            highest[0] = max(highest[0], resident())

    with zennit(copy.deepcopy(net)) as theirs:
        before = resident()
        thread = threading.Thread(target=watch)
        thread.start()
        theirs(x, 1) if which == "zennit" else ours(net)(x, 1)
        done.set()
        thread.join()
    return (highest[0] - before) / 2**20


def report(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}] (n {len(values)})"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; ratios: zennit's time by ours, median [lowest, highest]")
    print("| network | maps differ by (float64) | one target | ten targets | memory, ours by zennit's |")
    print("|---|---|---|---|---|")
    for name in NETWORKS:
        one, many = ratios(name, rounds)
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            memory = [pool.apply(peak, (name, which)) for which in ("ours", "zennit")]
        sizes = f"{memory[0] / memory[1]:.2f} ({memory[0]:.0f} and {memory[1]:.0f} MiB)"
        print(f"| {name} | {difference(name):.1e} | {report(one)} | {report(many)} | {sizes} |", flush=True)


if __name__ == "__main__":
    main()
