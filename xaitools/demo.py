"""The main job in one go, offline, on what ships with the package."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .attribution.explanation import explain_image
from .audit import probe_models
from .data import load_dataset
from .errors import PlanError
from .report.html import write_report
from .report.store import save_explanations
from .zoo import load_model

METHODS = ("occlusion", "saliency", "lrp")
HONEST, CHEAT = "unet-scenes", "unet-scenes-background"
NAMES = ("segmentation", "detection", "probe")


def run(
    out: Path, *, seed: int = 0, scenes: int = 48, say: Callable[[str], None] = print, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Explains one scene with both shipped scene models, probes an honest model and its cheating twin, writes ``out``.

    An earlier demo in ``out`` is replaced; a folder that holds anything else is refused with PlanError.
    """
    out = Path(out).expanduser()
    if out.exists() and (not out.is_dir() or any(path.name not in NAMES for path in out.iterdir())):
        raise PlanError(f"--out {str(out)!r} holds something that is no demo; give a new folder")
    for name in NAMES:
        shutil.rmtree(out / name, ignore_errors=True)
    data = load_dataset(f"scenes:test?n={scenes}")
    scene = data[3]
    say(f"one scene, two models, {len(METHODS)} methods")
    pictures = []
    for model, folder in ((HONEST, "segmentation"), ("faster-rcnn-scenes", "detection")):
        explanation = explain_image(load_model(model), scene, ["top"], METHODS, seed=seed)
        pictures += save_explanations([explanation], out / folder, ["png", "pdf"])[1]
    say(f"{scenes} scenes, an honest model and its twin that was trained where the background gives the class away")
    results = probe_models(
        [load_model(HONEST), load_model(CHEAT)], data, ["background", "texture", "domain"], out=out / "probe", seed=seed,
        batch_size=16, progress=progress,
    )  # fmt: skip
    files = pictures + write_report(results, out / "probe")
    drops = {name: result.report["probes"]["gap"]["primary"]["drop"] for name, result in results.items()}
    told = [f"{name} loses {100 * drop:.0f} points of mIoU when the background changes class" for name, drop in drops.items()]
    told += ["look at:", f"  {out / 'segmentation' / 'figure.png'}", f"  {out / 'detection' / 'figure.png'}",
             f"  {out / 'probe' / 'comparison.html'}"]  # fmt: skip
    return {"drops": drops, "files": [str(file) for file in files], "told": "\n".join(told)}
