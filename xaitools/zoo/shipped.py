"""The models that ship with xaitools.  A trained model is a folder of a card and safetensors; it holds no code.

The hash on the card is checked before the weights are read.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..adapters import Adapter
from ..architectures import ARCHITECTURES
from ..errors import ModelError, first_line, unknown
from ..locations import part
from .weights import load_state, read_weights
from .wrapping import wrap

MAX_WEIGHTS = 8 * 2**20
MAX_CARD = 2**18
MAX_SIDE, MAX_SIZES = 1024, 256


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
    if path.stat().st_size > MAX_CARD:
        raise ModelError(f"{path}: {path.stat().st_size / 1024:.0f} kB; a card or recipe has at most {MAX_CARD // 1024}")
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
        module = _built(facts, name)
        state = read_weights(part("models") / name / "weights.safetensors", expected=facts["weights"]["sha256"], limit=MAX_WEIGHTS)
        load_state(module, state, name)
        return adapt(module, facts, name=name, **settings)
    except (KeyError, TypeError) as error:
        raise ModelError(f"{name}: the card lacks or misstates {error}; get the folder again") from None


def _built(facts: Mapping[str, Any], name: str) -> nn.Module:
    """The network of a card; its size is known before any memory is taken, since the weights of a larger one could not be read."""
    sizes = list(_leaves(facts.get("network", {})))
    if any(isinstance(each, int) and abs(each) > MAX_SIDE for each in sizes) or len(sizes) > MAX_SIZES:
        raise ModelError(f"{name}: its card has more than {MAX_SIZES} sizes of the network or one above {MAX_SIDE}; get the folder again")
    try:
        with torch.device("meta"):
            parameters = sum(each.numel() for each in build(facts).parameters())
    except (KeyError, TypeError, ModelError):
        raise
    except Exception as error:  # what a network makes of sizes that are none
        raise ModelError(f"{name}: no network can be made of what its card says ({first_line(error)}); get the folder again") from None
    if 2 * parameters > MAX_WEIGHTS:
        raise ModelError(f"{name}: the card describes {parameters:,} parameters; {MAX_WEIGHTS // 2:,} are the most; get the folder again")
    return build(facts)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _leaves(each)
    else:
        yield value


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
