"""A zoo of two random models, small enough for tests of the application; ``python tiny_zoo.py ...`` runs streamlit on it."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from xaitools import zoo
from xaitools.data.scenes import SHAPES
from xaitools.metrics import METRIC

CARDS: dict[str, dict[str, Any]] = {
    "tiny-segmenter": {
        "task": "segmentation", "architecture": "unet", "classes": ["background", *SHAPES], "network": {"base": 4, "depth": 2},
    },
    "tiny-detector": {
        "task": "detection", "architecture": "faster-rcnn", "classes": list(SHAPES),
        "network": {"widths": [4, 8, 8, 8, 8], "hidden": 16, "out_channels": 8, "detections": 8, "proposals": 40},
    },
    "tiny-classifier": {"task": "classification", "architecture": "resnet", "classes": list(SHAPES), "network": {"divide": 16}},
}  # fmt: skip


def write(folder: Path) -> Path:
    """The models as the folder ``models``; random weights, but not so small that every class is as likely."""
    for name, facts in CARDS.items():
        torch.manual_seed(3)
        module = zoo.build(facts)
        with torch.no_grad():
            if facts["task"] != "classification":
                last = module.classifier if name == "tiny-segmenter" else module.roi_heads.box_predictor.cls_score
                last.weight.mul_(4 if name == "tiny-segmenter" else 30)
        data = save(dict(module.state_dict()))
        home = folder / "models" / name
        home.mkdir(parents=True)
        (home / "weights.safetensors").write_bytes(data)
        lines = [f"{key} = {value!r}" for key, value in facts.items() if key != "network"]
        lines += [f"name = {name!r}", "[network]", *(f"{key} = {value!r}" for key, value in facts["network"].items())]
        score = {"metric": METRIC[facts["task"]], "value": 0.25, "ci": [0.2, 0.3], "n": 40}
        lines += ["[scores.test]", *(f"{key} = {value!r}" for key, value in score.items())]
        lines += ["[data]", "train = 'scenes:train'", "test = 'scenes:test'", "[weights]", f"sha256 = '{hashlib.sha256(data).hexdigest()}'"]
        (home / "card.toml").write_text("\n".join(lines) + "\n")
    return folder


if __name__ == "__main__":
    from streamlit.web.cli import main

    with tempfile.TemporaryDirectory() as name:
        home = write(Path(name))
        original = zoo.shipped.part
        zoo.shipped.part = lambda part: home / part if part == "models" else original(part)
        sys.argv = ["streamlit", "run", *sys.argv[1:]]
        main()
