"""Makes a model again from its recipe: trains, measures the file as shipped, writes the folder that the zoo reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from .. import zoo
from ..architectures.alexnet import AlexNet
from ..architectures.dpm import DPM
from ..architectures.rcnn import RegionHeads
from ..data import Dataset, load_dataset
from ..data.repaired import Repaired, read_repair
from ..errors import ModelError, unknown
from ..files import write_bytes, write_text
from ..locations import data_root
from ..metrics.evaluate import evaluate
from ..types import TASKS
from . import classification, detection, latent, one_shot, segmentation
from .loop import State

KEYS = ("name", "architecture", "task", "data", "input", "training")


def run_recipe(
    recipe: Path, out: Path, *, data: str | None = None, resume: bool = False, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Trains what ``recipe`` describes into the folder ``out`` and returns the card.

    ``data`` names another root of data sets than $XAITOOLS_DATA; ``repair`` among the recipe's data a list beside it by which the train
    split is repaired (``data.repaired``).  An ``out`` that holds a model or a started run is
    only touched with ``resume``.  The card's scores are measured on the float16 file that is written.
    """
    facts = read_recipe(recipe)
    if not resume and out.is_dir() and any(out.iterdir()):
        raise ModelError(f"--out {str(out)!r} is not empty; give a new folder, or --resume to go on with the same recipe")
    splits = {key: load_dataset(facts["data"][key].replace("{data}", data or str(data_root()))) for key in ("train", "val", "test")}
    listed = list(splits["train"].ids)
    if "hold_out" in facts["data"]:
        splits |= detection.held_out(splits["train"], int(facts["data"]["hold_out"]))
    repairs = _repairs(recipe, facts["data"].get("repair"))
    if repairs is not None:
        seed = int(facts["training"].get("seed", 0))
        splits["train"] = Repaired(splits["train"], read_repair(repairs, listed), seed=seed)
    facts["classes"] = list(splits["train"].semantic_classes if facts["task"] == "segmentation" else splits["train"].classes)
    out.mkdir(parents=True, exist_ok=True)
    for file in (recipe, *([repairs] if repairs else [])):
        started = out / ("recipe.toml" if file is recipe else file.name)
        if started.is_file() and started.read_bytes() != file.read_bytes():
            raise ModelError(f"--out {str(out)!r} was started from another {started.name}; give a new folder")
        write_bytes(started, file.read_bytes())
    torch.manual_seed(int(facts["training"].get("seed", 0)))
    network = zoo.build(facts)
    if "pretrained" in facts["training"]:
        _inherit(network, facts["training"]["pretrained"], recipe.name)
    state = train(network, facts, splits, out, resume, say)
    write_bytes(out / "weights.safetensors", save({key: _half(value) for key, value in state.items()}))
    say("measuring the file on val and test")
    card = measure(out, facts, splits)
    (out / "checkpoint.safetensors").unlink(missing_ok=True)
    return card


def read_recipe(path: Path) -> dict[str, Any]:
    facts = zoo.read_toml(path)
    missing = [key for key in KEYS if key not in facts]
    missing += [f"data.{key}" for key in ("train", "val", "test") if key not in facts.get("data", {})]
    if missing:
        raise ModelError(f"{path.name}: the recipe lacks {', '.join(missing)}; see models/unet-scenes/recipe.toml")
    if facts["task"] not in TASKS:
        raise ModelError(f"{path.name}: {unknown('task', facts['task'], TASKS)}")
    return facts


def _repairs(recipe: Path, name: object) -> Path | None:
    """The list of repairs that lies beside the recipe (see ``data.repaired``); None where there is none."""
    if name is None:
        return None
    if not isinstance(name, str) or not name.endswith(".csv") or Path(name).name != name:
        raise ModelError(f"{recipe.name}: data.repair = {name!r}; expected the name of a .csv file that lies beside the recipe")
    return recipe.parent / name


def _inherit(network: nn.Module, name: str, recipe: str) -> None:
    """Gives an R-CNN the layers of the zoo's classifier ``name``."""
    heads, classifier = getattr(network, "roi_heads", None), zoo.load_model(name).module
    if not isinstance(heads, RegionHeads) or not isinstance(classifier, AlexNet):
        raise ModelError(f"{recipe}: pretrained = {name!r}; expected an rcnn and a classifier with architecture alexnet")
    try:
        heads.inherit(classifier)
    except RuntimeError:
        raise ModelError(f"{recipe}: pretrained = {name!r} has other widths; give the rcnn the same divide and grid") from None


def _half(value: torch.Tensor) -> torch.Tensor:
    return (value.half() if value.is_floating_point() else value).contiguous()


def train(
    network: nn.Module, facts: Mapping[str, Any], splits: Mapping[str, Dataset], out: Path, resume: bool, say: Callable[[str], None]
) -> State:
    plain = {"classification": classification.train, "segmentation": segmentation.train}.get(facts["task"])
    if plain is not None:
        return plain(network, splits["train"], splits["val"], facts, out, resume=resume, say=say)

    def score(module: nn.Module, dataset: Dataset) -> float:
        model = zoo.adapt(module, facts, name=facts["name"])
        value = evaluate(model, dataset, replicates=0)["value"]
        module.requires_grad_(True)
        return 0.0 if value is None else float(value)

    if isinstance(network, DPM):
        return latent.train(network, splits["train"], facts, out, resume=resume, say=say)
    own_loss = one_shot if hasattr(network, "loss") else detection
    return own_loss.train(network, splits["train"], splits["val"], facts, out, resume=resume, say=say, score=score)


def measure(out: Path, facts: Mapping[str, Any], splits: Mapping[str, Dataset]) -> dict[str, Any]:
    """Scores ``out / weights.safetensors`` on val and test and writes the card beside it."""
    weights = out / "weights.safetensors"
    network = zoo.build(facts)
    network.load_state_dict(zoo.read_weights(weights))
    model = zoo.adapt(network, facts, name=facts["name"])
    card = {key: facts[key] for key in ("name", "architecture", "task", "classes")}
    card |= {key: facts[key] for key in ("network", "input", "data") if facts.get(key)}
    card["weights"] = {
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "bytes": weights.stat().st_size,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
    card["scores"] = {split: _scores(evaluate(model, splits[split])) for split in ("val", "test")}
    write_text(out / "card.toml", "# Written by: xaitools train recipe.toml\n" + _toml(card))
    return card


def _scores(result: Mapping[str, Any]) -> dict[str, Any]:
    row = {"metric": result["metric"], "value": round(result["value"], 4), "ci": [round(end, 4) for end in result["ci"]], "n": result["n"]}
    return row | {key: round(value, 4) for key, value in result["metrics"].items() if isinstance(value, float)}


def _toml(card: Mapping[str, Any], name: str = "") -> str:
    """Plain values first, then tables; the standard library reads TOML but does not write it."""
    lines = [f"{key} = {_value(value)}" for key, value in card.items() if not isinstance(value, Mapping) and value is not None]
    head = f"\n[{name}]\n" if name and lines else ""
    tables = [_toml(value, f"{name}.{key}" if name else key) for key, value in card.items() if isinstance(value, Mapping)]
    return head + "".join(f"{line}\n" for line in lines) + "".join(tables)


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    return json.dumps(value)
