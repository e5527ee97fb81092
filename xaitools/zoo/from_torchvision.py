"""``torchvision:NAME``: a network of torchvision with its published weights, with random ones, or with yours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torchvision import models as tv

from ..adapters import Adapter
from ..errors import ModelError, unknown
from .base import SOURCES, WRAPPING, Spec
from .weights import load_state, read_checkpoint
from .wrapping import BOXES, default_background, outputs, wrap

TASKS = {tv: "classification", tv.segmentation: "segmentation", tv.detection: "detection"}
KNOWN = {name: task for module, task in TASKS.items() for name in tv.list_models(module=module) if not name.startswith("keypointrcnn")}


@SOURCES.register("torchvision")
def open_torchvision(spec: Spec) -> Adapter:
    """``?weights=`` is published (the default: fetched once, its hash checked, nothing but tensors unpickled), none
    (random, from ``seed``) or a file; ``classes=`` for other classes than the published ones.
    """
    if spec.what not in KNOWN:
        raise ModelError(unknown("torchvision model", spec.what, KNOWN))
    task, published = KNOWN[spec.what], tv.get_model_weights(spec.what).DEFAULT
    if task == "detection" and spec.what.startswith("maskrcnn"):
        task = spec.take("task", "instances") or "instances"
    source, classes, seed = spec.take("weights", "published") or "", spec.classes(), spec.number("seed", spec.take("seed") or "0")
    asked = spec.wrapping()
    own_way = {"size", "shorter", "crop"} & asked.keys()
    options = {key: value for key, value in _input(task, published).items() if not (own_way and key in ("shorter", "crop"))} | asked
    sides = _sides(spec) if task in BOXES else {}
    spec.done(["weights", "classes", "seed", *(("min_size", "max_size") if task in BOXES else ()), *WRAPPING])
    if source == "published":
        if classes is not None:
            raise ModelError(
                f"model {spec.text!r}: the published weights have their own {len(published.meta['categories'])} classes; for yours give "
                "weights=FILE.safetensors&classes=NAME,NAME,... or weights=none"
            )
        with _verified():
            module = tv.get_model(spec.what, weights=published, progress=False, **sides)
        return wrap(module, task=task, classes=_names(published, task), **options)
    names = _names(published, task) if classes is None else classes
    count = outputs(names, task, options.get("background") or default_background(task))
    extra = {} if task == "classification" else {"weights_backbone": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = tv.get_model(spec.what, weights=None, num_classes=count, **extra, **sides, **_quiet(spec.what))
    if source != "none":
        if classes is None:
            raise ModelError(f"model {spec.text!r}: weights={source} need classes; add classes=NAME,NAME,... in the order of training")
        load_state(module, read_checkpoint(Path(source)), spec.text)
    return wrap(module, task=task, classes=names, **options)


def _sides(spec: Spec) -> dict[str, int]:
    """Pixels to which a torchvision detector resizes the shorter side, and which the longer side may not pass."""
    found = {name: spec.number(name, text) for name in ("min_size", "max_size") if (text := spec.take(name)) is not None}
    if any(value < 1 for value in found.values()):
        raise ModelError(f"model {spec.text!r}: min_size and max_size are pixels, at least 1")
    return found


def _quiet(name: str) -> dict[str, Any]:
    """GoogLeNet's and Inception's auxiliary heads are for training only, and slow to draw."""
    return {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}


def _names(published: Any, task: str) -> list[str]:
    """Published classes without the background; numbers make those unique that torchvision calls N/A."""
    names = list(published.meta["categories"])
    if task in BOXES and names[0] == "__background__":
        names = names[1:]
    return [f"{name} {index}" if names.count(name) > 1 else name for index, name in enumerate(names, 1)]


def _input(task: str, published: Any) -> dict[str, Any]:
    """Mean, std and size of torchvision's own evaluation; its detectors bring theirs along."""
    if task in BOXES:
        return {}
    preset = published.transforms()
    found: dict[str, Any] = {"mean": preset.mean, "std": preset.std, "shorter": preset.resize_size[0]}
    return found | ({"crop": (preset.crop_size[0],) * 2} if task == "classification" else {"background": "first"})


@contextmanager
def _verified() -> Iterator[None]:
    """torchvision's builders read weights without ``weights_only`` and trust what they once stored; here neither is so."""

    def fetch(weights: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        name = weights.url.rpartition("/")[2]
        stored = Path(torch.hub.get_dir()) / "checkpoints" / name
        try:
            if stored.is_file() and not _has_hash(stored):
                raise ModelError(f"{name}: what is stored in {stored.parent} has another hash than its name says; delete it")
            return torch.hub.load_state_dict_from_url(weights.url, map_location="cpu", progress=False, check_hash=True, weights_only=True)
        except ModelError:
            raise
        except Exception as error:  # no network, a full disk, a damaged archive
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(f"{name}: the published weights could not be fetched ({why}); weights=none gives random ones") from None

    with mock.patch.object(tv.WeightsEnum, "get_state_dict", fetch):
        yield


def _has_hash(path: Path) -> bool:
    from torch.hub import HASH_REGEX

    wanted = re.search(HASH_REGEX, path.name)
    if wanted is None:
        return False
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(wanted[1])
