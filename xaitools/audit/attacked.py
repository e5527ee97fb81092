"""One image under attack: the two images, and what of the attack a file of 8 bits keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..adapters import Model, adapted, as_found
from ..data import Dataset
from ..errors import DataError, XaiError
from ..probes import PROBES, Context, change, resolve, select
from ..types import Sample


@dataclass(frozen=True, eq=False)
class Attacked:
    """probe, severity, params  which attack, all its parameters
    clean, adversarial       the samples, in the dataset's indices
    loss                     clean, adversarial, and adversarial_8bit: of the image rounded to 8 bits, as in a PNG
    largest, rms             of the change: the largest of all values, and the root of their mean square
    """

    probe: str
    severity: int
    params: Mapping[str, Any]
    clean: Sample
    adversarial: Sample
    loss: Mapping[str, float]
    largest: float
    rms: float


def attack_one(
    model: Model, dataset: Dataset, item: str = "", probe: str = "pgd", *, severity: int = 5, seed: int = 0,
    params: Mapping[str, Any] | None = None, classes_map: Mapping[str, str] | None = None,
) -> Attacked:  # fmt: skip
    """``item`` (an id of the dataset; "" is its first) under an adversarial probe.

    Raises XaiError for an unknown item, for a probe that is no attack, and where the model cannot be attacked.
    """
    [entry, *more] = select([probe])
    if more or entry.family != "adversarial" or not entry.control:
        attacks = ", ".join(each.name for each in PROBES.values() if each.family == "adversarial" and each.control)
        raise XaiError(f"probe {probe!r}: expected one attack, of {attacks}")
    if item and item not in dataset.ids:
        raise XaiError(f"item {item!r}: not in {dataset.name}; its first is {dataset.ids[0]!r}")
    model = adapted(model)
    context = Context(dataset, model, classes_map)
    if why := context.lacks(entry.needs):
        raise XaiError(f"{entry.name}: {why}")
    clean = dataset[dataset.ids.index(item) if item else 0]
    [adversarial] = change(entry, [clean], severity, context, seed=seed, params=params)
    if isinstance(adversarial, XaiError):
        raise DataError(f"{clean.id}: {adversarial}")
    truth = context.truth(adversarial)
    images = {"clean": clean.image, "adversarial": adversarial.image, "adversarial_8bit": (adversarial.image * 255).round() / 255}
    with torch.no_grad(), as_found(model):
        loss = {name: float(model.loss(image[None], [truth])[0]) for name, image in images.items()}  # type: ignore[attr-defined]
    off = adversarial.image - clean.image
    rms = float(off.square().mean().sqrt())
    return Attacked(entry.name, severity, resolve(entry, params), clean, adversarial, loss, float(off.abs().max()), rms)
