"""An adversarial image on disk: exactly, as pictures, and why the model decides as it does before and after."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from .. import __version__
from ..audit.attacked import Attacked
from ..files import plain, write_bytes, write_json
from ..types import Explanation
from .store import save_explanations


def save_attacked(
    result: Attacked, explanations: Sequence[Explanation], out: str | Path, formats: Sequence[str] = ("png",), *, seed: int = 0
) -> tuple[dict[str, Any], list[Path]]:
    """The document attack.json, and the files written into ``out``.

    images.safetensors   clean and adversarial, float32 (3, H, W): exact, unlike any picture of 8 bits
    clean.png, adversarial.png  rounded to 8 bits; the document says what loss is left after that
    difference.png       grey is no change, the largest change is 0 or 255
    figure.FORMAT        the model's answer and the maps, before and after; a folder for each with explanation.json

    Raises PlanError, before anything is written, when ``out`` holds anything else.
    """
    documents, files = save_explanations(explanations, out, formats, layout="sheet")
    off = result.adversarial.image - result.clean.image
    pictures = {
        "clean.png": result.clean.image, "adversarial.png": result.adversarial.image,
        "difference.png": 0.5 + off / max(2 * result.largest, 1e-9),
    }  # fmt: skip
    root = Path(out).expanduser()
    data = {name: _png(image) for name, image in pictures.items()}
    exact = {"clean": result.clean.image.contiguous(), "adversarial": result.adversarial.image.contiguous()}
    data["images.safetensors"] = save(exact)
    for name, content in data.items():
        write_bytes(root / name, content)
    document = plain({
        "xaitools": __version__, "item": result.clean.id, "probe": result.probe, "severity": result.severity, "params": dict(result.params),
        "seed": seed, "loss": dict(result.loss), "largest_change": result.largest, "rms_change": result.rms, "explanations": documents,
    })  # fmt: skip
    write_json(root / "attack.json", document)
    return document, [*files, *(root / name for name in data), root / "attack.json"]


def _png(image: Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((image.clamp(0, 1) * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
