"""Several models side by side: how right each is, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import zoo
from ..adapters.base import Model
from ..data import load_dataset
from ..data.base import Dataset, readable
from ..errors import PlanError, XaiError
from ..locations import data_root, part
from ..types import Sample
from .cost import forward_flops, latencies, parameters, peak_memory, train_petaflop
from .evaluate import evaluate

Facts = dict[str, Any]
Progress = Callable[[int, int], None]

FALLBACK = "scenes:test?n=1"
TRIES = 20
"""So many items are tried for one that can be read."""


def compare(
    models: Sequence[Model],
    dataset: Dataset | None = None,
    *,
    rounds: int = 15,
    limit: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> Facts:
    """The document of compare.json: one row a model, with its metric and what one prediction costs.

    With a ``dataset`` every model is evaluated on it and measured on its first image; else the score is that of the
    card's test split, and the image the first of that split, or a drawn scene where the data is not at hand.  Undefined
    numbers are None, and "warnings" says why.  Raises PlanError where two models have one name, and the first model's
    error where none can be judged on ``dataset``.
    """
    names = [str(getattr(model, "name", type(model).__name__)) for model in models]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise PlanError(f"--model {twice} is given twice; expected different models")
    rows, images, warnings = [], {}, list[str]()
    errors: list[XaiError] = []
    for name, model in zip(names, models, strict=True):
        card = zoo.card(name) if name in zoo.names() else None
        row: Facts = {"model": name, "task": model.task}
        try:
            row |= _card_score(card) if dataset is None else _measured(model, dataset, limit, batch_size, seed, progress)
        except XaiError as error:
            errors.append(error)
            row |= {"dataset": dataset.name if dataset else None, "metric": None, "value": None, "ci": None, "n": None}
            warnings.append(f"{name}: not judged on this data: {error}")
        if card is None and dataset is None:
            warnings.append(f"{name}: no card with a score; give --data to measure it")
        image, shown = _image(card, dataset)
        images[name] = (model, image)
        row |= {"image": shown, "image_size": list(image.shape[-2:])} | _costs(model, image, card)
        undefined = [each for each in ("gflops", "memory_mb", "train_petaflop") if row[each] is None]
        if undefined:
            warnings.append(f"{name}: unknown are {', '.join(undefined)}{_why(model, row)}")
        rows.append(row)
    if errors and len(errors) == len(models):
        raise errors[0]
    for row, found in zip(rows, latencies(images, rounds=rounds).values(), strict=True):
        row |= found
    return {
        "rows": rows,
        "measured": {
            "device": sorted({str(getattr(model, "device", "cpu")) for model in models}),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "rounds": rounds,
            "flops_per_multiply_add": 2,
            "memory": "weights, buffers, image and activations alive at one time; no workspace of single operations",
        },
        **({"warnings": warnings} if warnings else {}),
    }


def _measured(model: Model, dataset: Dataset, limit: int | None, batch_size: int, seed: int, progress: Progress | None) -> Facts:
    result = evaluate(model, dataset, limit=limit, batch_size=batch_size, seed=seed, progress=progress)
    return {key: result[key] for key in ("dataset", "metric", "value", "ci", "n")}


def _card_score(card: Facts | None) -> Facts:
    if card is None:
        return dict.fromkeys(("dataset", "metric", "value", "ci", "n"))
    score = card["scores"]["test"]
    return {"dataset": card["data"]["test"].replace("{data}/", ""), **{key: score[key] for key in ("metric", "value", "ci", "n")}}


def _costs(model: Model, image: Tensor, card: Facts | None) -> Facts:
    flops = forward_flops(model, image)
    recipe, samples = _training(card) if card else (None, None)
    return {
        "gflops": None if flops is None else flops / 1e9,
        "parameters": parameters(model),
        "memory_mb": peak_memory(model, image),
        "train_petaflop": train_petaflop(flops, recipe, samples),
    }


def _training(card: Facts) -> tuple[Facts | None, int | None]:
    """The recipe of a zoo model and the number of its training images, None where they are not at hand."""
    path = part("models") / card["name"] / "recipe.toml"
    if not path.is_file():
        return None, None
    try:
        return zoo.read_toml(path), len(load_dataset(card["data"]["train"].replace("{data}", str(data_root()))))
    except XaiError:
        return None, None


def _image(card: Facts | None, dataset: Dataset | None) -> tuple[Tensor, str]:
    """What a model is measured on, and what it is called."""
    for text in [None] if dataset is not None else [card and card["data"]["test"], FALLBACK]:
        try:
            data = dataset if dataset is not None else load_dataset(str(text).replace("{data}", str(data_root()))) if text else None
        except XaiError:
            continue
        if data is None:
            continue
        shown = data.name if dataset is not None or card is None or text == FALLBACK else str(text).replace("{data}/", "")
        for index, item in readable(data, range(min(TRIES, len(data)))):
            if isinstance(item, Sample):
                return item.image, f"{shown} {data.ids[index]}"
    raise PlanError("the first items of the dataset cannot be read; give other data")


def _why(model: Model, row: Facts) -> str:
    if row["parameters"] is None:
        return " (a black box: its network cannot be seen)"
    if row["gflops"] is None:
        return " (torch's counter saw no operation that it knows)"
    return " (no recipe, or its training data is not at hand)"
