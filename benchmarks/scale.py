"""What large audits cost, side by side in one run on a quiet machine: python benchmarks/scale.py [PART ...] [--quick]

  workers   two worker processes against one, one thread each, on a model of at least SLOW ms an image
  ray       two actors of a local Ray against two worker processes
  pieces    what a piece costs beside its work: written whole, read again, handed out
  evaluate  against a bare loop over images and forward passes, on that model and on the smallest of the zoo
  both      two zoo models x all families x severities 1, 3, 5 on 100 scenes with both engines: rates, and the same bytes
  cost      measured rates, and from them a million images on 64 GPUs (--gpu MS IMAGES: milliseconds a batch of so many takes there)

The two sides of a ratio take turns; it is the median over ROUNDS.  Rates of engines are between the first piece and the last, so that
the start of the processes, which stands beside it, is no part of them.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import xaitools as xt
from xaitools.audit.engine import Task
from xaitools.audit.plan import make_plan
from xaitools.audit.records import Folder
from xaitools.audit.reporting import make_report
from xaitools.audit.run import Changed, folder_names, probe_models
from xaitools.audit.tally import Tally
from xaitools.audit.work import Worker
from xaitools.cli.arguments import Named
from xaitools.report.html import write_report

SLOW = 50.0
ROUNDS = 5
HEAVY, HEAVY_DATA = "deeplabv3plus-scenes", "scenes:test?n={n}&size=256"
SMALL = "fcn-full-scenes"
BOTH = ("unet-scenes", "faster-rcnn-scenes")
MILLION, GPUS, CORES = 1_000_000, 64, 16
"""A cluster on paper: nodes of 8 GPUs with CORES cores for each of them."""


@dataclass
class Size:
    """How much is measured; ``quick`` only shows that the script runs."""

    rounds: int
    images: int
    model: str
    data: str
    both: int


def sized(quick: bool) -> Size:
    return Size(1, 8, SMALL, "scenes:test?n={n}&size=32", 6) if quick else Size(ROUNDS, 96, HEAVY, HEAVY_DATA, 100)


def forward_ms(model: Any, dataset: Any, count: int = 4) -> float:
    images = [dataset[index].image[None] for index in range(count)]
    model.predict(images[0])
    start = time.perf_counter()
    for image in images:
        model.predict(image)
    return 1000 * (time.perf_counter() - start) / count


def timed(size: Size, engine: str, workers: int) -> tuple[float, float]:
    """(pieces a second between the first and the last, seconds until the first)."""
    data = size.data.format(n=size.images)
    model, dataset = xt.load_model(size.model), xt.load_dataset(data)
    ticks: list[float] = []
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        xt.probe(
            model, dataset, ["fog"], out=f"{out}/run", relevance=0, threads=1, engine=engine, workers=workers,
            origin=Named(size.model, data, "cpu", {}), progress=lambda *_: ticks.append(time.perf_counter()),
        )  # fmt: skip
    return (len(ticks) - workers) / (ticks[-1] - ticks[workers - 1]), ticks[0] - start


def sides(size: Size, one: tuple[str, int], other: tuple[str, int]) -> tuple[float, list[float], list[float]]:
    """The median of other / one over rounds in which they take turns, and both sides' (rate, start) medians."""
    rates: dict[tuple[str, int], list[tuple[float, float]]] = {one: [], other: []}
    for number in range(size.rounds):
        for side in (one, other) if number % 2 == 0 else (other, one):
            rates[side].append(timed(size, *side))
    ratio = statistics.median(b[0] / a[0] for a, b in zip(rates[one], rates[other], strict=True))
    return ratio, *([statistics.median(column) for column in zip(*rates[side], strict=True)] for side in (one, other))  # type: ignore[return-value]


def compared(size: Size, what: str, one: tuple[str, int], other: tuple[str, int], aim: str) -> str:
    ratio, first, second = sides(size, one, other)
    rates, starts = ([f"{side[place]:.2f}" for side in (first, second)] for place in (0, 1))
    return f"| {what} | {ratio:.2f} | {aim} | {' and '.join(rates)} pieces a second; the first after {' and '.join(starts)} s |"


def workers(size: Size) -> list[str]:
    ms = forward_ms(xt.load_model(size.model), xt.load_dataset(size.data.format(n=4)))
    named = f"two worker processes against one ({size.model}, {ms:.0f} ms an image)"
    return [compared(size, named, ("local", 1), ("local", 2), "at least 1.7")]


def ray(size: Size) -> list[str]:
    return [compared(size, "two Ray actors against two processes", ("local", 2), ("ray", 2), "at least 0.85")]


def costs(model_name: str, data: str, images: int) -> dict[str, float]:
    """Seconds that a piece takes to be done, written and read, at the default size; and the report, by item and condition."""
    plan, context = make_plan(xt.load_model(model_name), xt.load_dataset(data.format(n=images)), ["fog"], threads=1, relevance=0)
    worker, spent = Worker(plan, context), dict.fromkeys(("do", "write", "read"), 0.0)
    with tempfile.TemporaryDirectory() as out:
        store, rows = Folder(Path(out), plan.identity), []
        names = plan.facts["items"]
        tasks = [Task(piece, tuple(names[index] for index in piece.items), Changed(piece)) for piece in plan.pieces()]
        for task in tasks:
            found = clocked(spent, "do", lambda task=task: task.work(worker))  # type: ignore[misc]
            clocked(spent, "write", lambda task=task, found=found: store.write(task.piece, found))  # type: ignore[misc]
        for task in tasks:
            rows += clocked(spent, "read", lambda task=task: store.read(task.piece, task.items))  # type: ignore[misc]
        size = sum(path.stat().st_size for path in store.root.iterdir())
    clocked(spent, "report", lambda: make_report(Tally(plan, rows), context))
    seconds = worker.clock.seconds
    return {
        "pieces": len(tasks), "items": len(rows), "images": images, "do": spent["do"] / len(tasks), "write": spent["write"] / len(tasks),
        "read": spent["read"] / len(tasks), "report": spent["report"] / len(rows), "bytes": size / len(rows),
        "predict": sum(row["predict"] for row in seconds.values()) / len(rows),
        "change": sum(row["change"] for row in seconds.values()) / len(rows),
    }  # fmt: skip


def clocked(spent: dict[str, float], what: str, call: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    found = call()
    spent[what] = spent.get(what, 0.0) + time.perf_counter() - start
    return found


def pieces(size: Size) -> list[str]:
    found = [costs(size.model, size.data, size.images) for _ in range(size.rounds)]
    share = statistics.median((each["write"] + each["read"]) / each["do"] for each in found)
    ms = {name: 1000 * statistics.median(each[name] for each in found) for name in ("do", "write", "read")}
    return [
        f"| a piece beside its work | {share:.3f} | under 0.05 | {ms['do']:.0f} ms done, {ms['write']:.1f} ms written, "
        f"{ms['read']:.1f} ms read; {found[0]['bytes']:.0f} bytes an item and condition on disk |"
    ]


def evaluate(size: Size) -> list[str]:
    lines = []
    for name, data, aim in ((size.model, size.data, "at most 1.1"), (SMALL, "scenes:test?n={n}", "at most 1.5")):
        model, dataset = xt.load_model(name), xt.load_dataset(data.format(n=size.images))
        ratios, bare = [], []
        for _ in range(size.rounds):
            spent: dict[str, float] = {}
            clocked(spent, "bare", lambda: loop(model, dataset))  # noqa: B023
            clocked(spent, "evaluate", lambda: xt.evaluate(model, dataset))  # noqa: B023
            ratios.append(spent["evaluate"] / spent["bare"])
            bare.append(1000 * spent["bare"] / len(dataset))
        told = f"{statistics.median(bare):.1f} ms an image, read and predicted"
        lines.append(f"| evaluate against a bare loop, {name} | {statistics.median(ratios):.2f} | {aim} | {told} |")
    return lines


def loop(model: Any, dataset: Any, batch: int = 8) -> None:
    for start in range(0, len(dataset), batch):
        model.predict(torch.stack([dataset[index].image for index in range(start, min(start + batch, len(dataset)))]))


def both(size: Size) -> list[str]:
    """The acceptance run; every line has the images that were predicted a second, and the last whether the bytes agree."""
    data, lines, texts = f"scenes:test?n={size.both}", [], list[list[bytes]]()
    for engine, count in (("local", 2), ("ray", 2)):
        models, dataset = [xt.load_model(name) for name in BOTH], xt.load_dataset(data)
        with tempfile.TemporaryDirectory() as out:
            results = probe_models(
                models, dataset, severities=(1, 3, 5), out=f"{out}/run", threads=1, engine=engine, workers=count,
                origins=[Named(name, data, "cpu", {}) for name in BOTH],
            )  # fmt: skip
            write_report(results, Path(out) / "run")
            texts.append([(Path(out) / "run" / name / "report.json").read_bytes() for name in folder_names(models)])
        for name, result in results.items():
            times = result.run["times"]
            what = f"{name}, all families, severities 1, 3, 5, {size.both} scenes, {engine} x {count}"
            lines.append(
                f"| {what} | {times['images_per_second']:.1f} images a second | | {times['seconds']:.0f} s, {times['images']} images |"
            )
    lines.append(f"| report.json of both engines | {'the same bytes' if texts[0] == texts[1] else 'DIFFERENT'} | the same | |")
    return lines


def cost(size: Size, gpu: tuple[float, int] | None) -> list[str]:
    """Measured here, and laid out for a million images; see scale.md for what is assumed."""
    found = costs(size.model, size.data, size.images)
    data = xt.load_dataset(size.data.format(n=8))
    start = time.perf_counter()
    for index in range(8):
        data[index]
    read = (time.perf_counter() - start) / 8
    chunk = found["items"] / found["pieces"]
    conditions = 1 + 3 + 8 * 3  # clean, the controls, and eight probes at three severities
    beside = found["do"] / chunk - found["predict"] - read * found["images"] / found["items"]
    forward = found["predict"] if gpu is None else gpu[0] / 1000 / gpu[1]
    gpu_hours = MILLION * conditions * forward / 3600
    core_hours = MILLION * (read + conditions * beside) / 3600
    driver = MILLION * conditions / chunk * (found["write"] + found["read"]) / 3600
    report = MILLION * conditions * found["report"] / 3600
    disk = MILLION * conditions * found["bytes"] / 2**30
    rows = [
        ("forward passes", f"{1000 * forward:.2f} ms an image", gpu_hours, gpu_hours / GPUS),
        ("reading, changing, counting", f"{1000 * (read / conditions + beside):.2f} ms an image", core_hours, core_hours / (GPUS * CORES)),
        ("pieces written and read by one driver", f"{1000 * (found['write'] + found['read']):.1f} ms a piece", driver, driver),
        ("report", f"{1e6 * found['report']:.0f} us an item and condition", report, report),
    ]
    lines = [
        f"| {MILLION:,} images x {conditions} conditions | rate | hours of one | hours on {GPUS} GPUs with {CORES} cores each |",
        "|---|---|---:|---:|",
    ]
    lines += [f"| {name} | {rate} | {alone:,.0f} | {shared:,.1f} |" for name, rate, alone, shared in rows]
    return ["", *lines, f"\n{disk:,.0f} GB of records; the bottleneck is {max(rows, key=lambda row: row[3])[0]}."]


def main(arguments: Sequence[str]) -> None:
    torch.set_num_threads(1)
    size = sized("--quick" in arguments)
    known: dict[str, Callable[[Size], list[str]]] = {"workers": workers, "ray": ray, "pieces": pieces, "evaluate": evaluate, "both": both}
    gpu = None
    if "--gpu" in arguments:
        place = arguments.index("--gpu")
        gpu = float(arguments[place + 1]), int(arguments[place + 2])
    known["cost"] = lambda size: cost(size, gpu)
    chosen = [each for each in arguments if each in known] or list(known)
    print("| what | measured | aim | |\n|---|---|---|---|")
    for name in chosen:
        for line in known[name](size):
            print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
