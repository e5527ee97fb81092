"""Model strings to models.  A trained model is a folder of a card and safetensors; it holds no code.

The hash on the card is checked before the weights are read, pickles are refused, nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .adapters import Adapter, SegmentationModel, TwoStageModel
from .architectures import ARCHITECTURES
from .errors import ModelError, unknown
from .locations import part

MAX_WEIGHTS = 8 * 2**20
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def names() -> list[str]:
    """Zoo names: the folders of ``models`` that hold a card."""
    return sorted(path.parent.name for path in part("models").glob("*/card.toml"))


def card(name: str) -> dict[str, Any]:
    """The card of a zoo model: classes, input, data, licence, scores, hash."""
    if name not in names():
        raise ModelError(unknown("model", name, names()))
    return read_toml(part("models") / name / "card.toml")


def read_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"{path}: no such file; expected a TOML file")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not valid TOML ({error}); mend the file") from None


def load_model(text: str, *, device: str = "cpu", dtype: str = "float32", score_threshold: float = 0.05) -> Adapter:
    """The model that ``text`` names, ready to predict.

    ``score_threshold`` hides detections below it.  Raises ModelError when the name is unknown, the weights are
    missing, damaged, a pickle or not those of the card.
    """
    if text not in names():
        raise ModelError(unknown("model", text, names()))
    folder = part("models") / text
    facts = card(text)
    try:
        module = build(facts)
        weights = folder / "weights.safetensors"
        state = read_weights(weights, expected=facts["weights"]["sha256"])
        missing = module.load_state_dict(state, strict=False)
    except (KeyError, TypeError) as error:
        raise ModelError(f"{text}: the card lacks or misstates {error}; get the folder again") from None
    except RuntimeError as error:
        raise ModelError(f"{text}: the weights do not fit the network of the card ({str(error).splitlines()[0]})") from None
    if missing.missing_keys or missing.unexpected_keys:
        raise ModelError(f"{text}: the weights lack {missing.missing_keys[:3]} or add {missing.unexpected_keys[:3]}; get the folder again")
    return adapt(module, facts, name=text, device=device, dtype=dtype, score_threshold=score_threshold)


def build(facts: Mapping[str, Any]) -> nn.Module:
    """The network of a card or recipe, with random weights."""
    return ARCHITECTURES[facts["architecture"]](len(facts["classes"]), **facts.get("network", {}))


def adapt(
    module: nn.Module, facts: Mapping[str, Any], *, name: str, device: str = "cpu", dtype: str = "float32", score_threshold: float = 0.05
) -> Adapter:
    """``module`` behind the adapter of its task, with the input of the card."""
    if dtype not in DTYPES:
        raise ModelError(f"dtype {dtype!r}; expected {' or '.join(DTYPES)}")
    if not 0 <= score_threshold <= 1:
        raise ModelError(f"score_threshold {score_threshold}; expected 0 to 1")
    try:
        module = module.to(torch.device(device), DTYPES[dtype])
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {device!r} cannot be used ({str(error).splitlines()[0]}); use cpu") from None
    module.eval().requires_grad_(False)
    entry = facts.get("input", {})
    options: dict[str, Any] = {key: entry[key] for key in ("mean", "std") if key in entry}
    options |= {"name": name, "weights_hash": facts.get("weights", {}).get("sha256", "")}
    classes = facts["classes"]
    if facts["task"] == "segmentation":
        size = tuple(entry["size"]) if "size" in entry else None
        background = classes.index("background") if "background" in classes else None
        return SegmentationModel(module, classes, size=size, background=background, **options)
    if facts["task"] == "detection":
        return TwoStageModel(module, classes, score_threshold=score_threshold, **options)
    raise ModelError(f"{name}: task {facts['task']!r}; expected segmentation or detection")


def read_weights(path: Path, expected: str | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file as float32; refused when too large, damaged, or not of hash ``expected``."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not path.is_file():
        raise ModelError(f"{path.name}: the weights are missing; get the model's folder again or train it from its recipe")
    if path.stat().st_size > MAX_WEIGHTS:
        raise ModelError(f"{path.name}: {path.stat().st_size} bytes; weights of a zoo model have at most {MAX_WEIGHTS}")
    data = path.read_bytes()
    # a safetensors file starts with eight bytes of length and a brace; its first bytes alone may look like a pickle's
    if data[8:9] != b"{" and (data[:2] == b"PK" or data[:1] == b"\x80"):
        way = "safetensors.torch.save_file(state_dict, 'weights.safetensors')"
        raise ModelError(f"{path.name}: this is a pickle, which could run code; convert it with {way}")
    if expected is not None and (found := hashlib.sha256(data).hexdigest()) != expected:
        differs = f"sha256 {found[:12]}... is not the card's {expected[:12]}..."
        raise ModelError(f"{path.name}: {differs}; the file was changed or cut short, get it again")
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path.name}: not a readable safetensors file ({error}); get it again") from None
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def wrap(
    module: nn.Module,
    *,
    task: str,
    classes: Sequence[str],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: tuple[int, int] | None = None,
    background: str = "none",
    score_threshold: float = 0.05,
    name: str = "wrapped",
) -> Adapter:
    """Your own network as a model: a segmenter returning (N, C, h, w) logits, or a torchvision Faster R-CNN.

    The module is used in eval mode and left as it was found.  ``background`` is none, first or last: which of a
    segmenter's ``classes`` is never chosen as ``top``.
    """
    options: dict[str, Any] = {"name": name} | ({"mean": mean} if mean else {}) | ({"std": std} if std else {})
    if task == "segmentation":
        if background not in ("none", "first", "last"):
            raise ModelError(f"background={background!r}; expected none, first or last")
        index = {"none": None, "first": 0, "last": len(classes) - 1}[background]
        return SegmentationModel(module, classes, size=size, background=index, **options)
    if task == "detection":
        return TwoStageModel(module, classes, score_threshold=score_threshold, **options)
    raise ModelError(f"task {task!r}; expected segmentation or detection")
