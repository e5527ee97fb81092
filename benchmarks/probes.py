"""Cue families on twins that cheat and on honest models: python benchmarks/probes.py [N] [PAIR ...] [PROBE ...]

Every pair is probed on the draw on which the twin was trained, its factor tied, and each honest model on a draw in which every factor is
independent too.  Severity 3, N images (200), the probes by which an audit asks unless others are named, of which each asks about one cue
and not how robust a model is: fog and turns to angles that were never shown cost an honest model too.  Claims that are checked: the
matching probe costs the twin more than any other cue family does, and 10 points more than the honest model; on the honest model
the families whose factor was drawn independently stay within MARGIN.  ``tier`` in place of a pair times the default tier, and ``angles``
turns the honest model's images and objects by ANGLES: scenes draw objects within 18 degrees of multiples of 72, so that 72 and 144 are
angles that the model knows, and 36 and 180 lie between them.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import xaitools as xt
from xaitools.audit.verdict import QUESTIONS
from xaitools.files import read_json

PAIRS = {
    "background": ("unet-scenes-background", "unet-scenes", "shortcut=background&rho=1", "gap"),
    "tag": ("unet-scenes-tag", "unet-scenes", "shortcut=tag&prevalence=1&others=0&rho=1", "artifact.paste"),
    "tag-boxes": ("faster-rcnn-scenes-tag", "faster-rcnn-scenes", "shortcut=tag&prevalence=1&others=0&rho=1", "artifact.paste"),
    "light-boxes": ("yolo-scenes-light", "yolo-scenes", "shortcut=light&rho=1", "light.gap"),
    "honest": ("unet-scenes", "", "", ""),
    "honest-boxes": ("faster-rcnn-scenes", "", "", ""),
}
TIER = ("unet-scenes", "faster-rcnn-scenes")
ANGLES = (0, 20, 36, 60, 72, 90, 144, 180)
MARGIN = 0.03
MORE = 0.1


def measured(name: str, data: str, n: int, probes: tuple[str, ...]) -> dict[str, Any]:
    dataset = xt.load_dataset(f"scenes:test?n={n}{'&' if data else ''}{data}")
    return xt.probe(xt.load_model(name), dataset, probes or tuple(QUESTIONS.values()), batch_size=16, relevance=0).report


def cell(row: Mapping[str, Any]) -> str:
    number = row.get("primary", row)
    if number["drop"] is None:
        return "undefined"
    low, high = number["ci"] or (float("nan"),) * 2
    return f"{100 * number['drop']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def table(pair: str, n: int, probes: tuple[str, ...]) -> None:
    twin, honest, data, matching = PAIRS[pair]
    reports = [measured(name, data, n, probes) for name in (twin, honest) if name]
    lines = [
        [f"scenes:test?n={n}{'&' if data else ''}{data}", *(f"`{report['model']}`" for report in reports)],
        ["---"] * (1 + len(reports)),
    ]
    lines.append([f"clean {reports[0]['metric']}", *(f"{report['clean']['value']:.3f}" for report in reports)])
    for name, row in reports[0]["probes"].items():
        shown = name if name.startswith(row["family"]) else f"{row['family']}: {name}"
        lines.append([shown, *(cell(report["probes"][name]) for report in reports)])
    lines += [[f"control {name}", *(cell(report["controls"][name]) for report in reports)] for name in reports[0]["controls"]]
    print("\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines), flush=True)
    claims(reports, matching)


def angles(n: int) -> None:
    model, dataset = xt.load_model("unet-scenes"), xt.load_dataset(f"scenes:test?n={n}")
    print(f"\n| degrees, {dataset.name} | rotate | object_rotate |\n|---|---|---|")
    for degrees in ANGLES:
        params = {name: {"degrees": degrees} for name in ("rotate", "object_rotate")}
        report = xt.probe(model, dataset, tuple(params), batch_size=16, relevance=0, params=params).report
        print(f"| {degrees} | {' | '.join(cell(report['probes'][name]) for name in params)} |", flush=True)


def tier(n: int) -> None:
    """The command as a user gives it, from its start to its last file."""
    print(f"\n| default tier, scenes:test?n={n} | seconds | processes | images a second | the model's share |\n|---|---|---|---|---|")
    for name in TIER:
        with TemporaryDirectory() as folder:
            start = time.perf_counter()
            words = ["probe", f"scenes:test?n={n}", "--model", name, "--batch-size", "16", "--out", folder, "--resume", "--quiet"]
            subprocess.run([sys.executable, "-m", "xaitools", *words], check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - start
            run = read_json(Path(folder) / "run.json")
        times = run["times"]
        cells = [name, f"{seconds:.0f}", run["host"]["workers"], f"{times['images_per_second']:.1f}", f"{100 * times['model_share']:.0f} %"]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def claims(reports: list[dict[str, Any]], matching: str) -> None:
    drops = [{name: row["primary"]["drop"] for name, row in report["probes"].items()} for report in reports]
    if matching and drops[0].get(matching) is not None:
        family = reports[0]["probes"][matching]["family"]
        others = {name: drop for name, drop in drops[0].items() if drop is not None and reports[0]["probes"][name]["family"] != family}
        strongest = max(others, key=lambda name: others[name])
        more = drops[0][matching] - drops[1][matching]
        largest = drops[0][matching] > others[strongest]
        print(f"\n{matching} is {'' if largest else 'NOT '}the largest of the cue families on the twin (next: {strongest}); "
              f"{100 * more:.1f} points more than on the honest model: {'' if more >= MORE else 'NOT '}enough")  # fmt: skip
    beyond = [name for name, drop in drops[-1].items() if drop is not None and drop > MARGIN]
    print(f"\nbeyond {MARGIN} on the honest model: {', '.join(beyond) or 'none'}", flush=True)


if __name__ == "__main__":
    words = sys.argv[1:]
    count = next((int(word) for word in words if word.isdigit()), 200)
    others = {"angles": angles, "tier": tier}
    asked = [word for word in words if word in (*PAIRS, *others)] or [*PAIRS, *others]
    named = tuple(word for word in words if not word.isdigit() and word not in (*PAIRS, *others))
    for each in asked:
        others[each](count) if each in others else table(each, count, named)
