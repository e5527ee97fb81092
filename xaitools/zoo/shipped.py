"""The models that ship with xaitools.  A trained model is a folder of a card and safetensors; it holds no code.

The hash on the card is checked before the weights are read.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..adapters import Adapter
from ..architectures import ARCHITECTURES
from ..errors import ModelError, unknown
from ..locations import part
from .weights import load_state, read_weights
from .wrapping import wrap

MAX_WEIGHTS = 8 * 2**20


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


def load(name: str, **settings: Any) -> Adapter:
    """The model of the zoo called ``name``; ``settings`` are device, dtype and score_threshold.

    Raises ModelError when the name is unknown, the weights are missing, damaged, a pickle or not those of the card.
    """
    facts = card(name)
    try:
        module = build(facts)
        state = read_weights(part("models") / name / "weights.safetensors", expected=facts["weights"]["sha256"], limit=MAX_WEIGHTS)
        load_state(module, state, name)
    except (KeyError, TypeError) as error:
        raise ModelError(f"{name}: the card lacks or misstates {error}; get the folder again") from None
    return adapt(module, facts, name=name, **settings)


def build(facts: Mapping[str, Any]) -> nn.Module:
    """The network of a card or recipe, with random weights."""
    return ARCHITECTURES[facts["architecture"]](len(facts["classes"]), **facts.get("network", {}))


def adapt(
    module: nn.Module, facts: Mapping[str, Any], *, name: str, device: str = "cpu", dtype: str = "float32", score_threshold: float = 0.05
) -> Adapter:
    """``module`` behind the adapter of its task, with the input of the card."""
    module.eval().requires_grad_(False)
    options: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.get("input", {}).items()}
    if facts["task"] == "segmentation" and "background" in facts["classes"]:
        options["background"] = "first"
    return wrap(
        module, task=facts["task"], classes=facts["classes"], name=name, device=device, dtype=dtype, score_threshold=score_threshold,
        weights_hash=facts.get("weights", {}).get("sha256", ""), **options,
    )  # fmt: skip
