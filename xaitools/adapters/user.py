"""Anybody's object with ``task``, ``classes`` and ``predict`` as a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MethodError, ModelError
from ..types import TASKS, Decision, Prediction
from .base import Adapter, check_images


class UserModel(Adapter):
    """``own`` behind the adapter's interface; it does its own resizing and normalising.

    With ``scores(images, decisions) -> (N,)`` it can be explained, by gradients too if they reach the images;
    without, it is a black box.  The n-th decision belongs to the n-th image.
    """

    loss: Any = None  # that of ``own``, if it has one

    def __init__(self, own: Any, *, name: str | None = None) -> None:
        task, classes = getattr(own, "task", None), getattr(own, "classes", None)
        if task not in TASKS or not isinstance(classes, list | tuple) or not classes or not callable(getattr(own, "predict", None)):
            came = f"{type(own).__name__} with task {task!r}, classes {type(classes).__name__}"
            raise ModelError(f"{came}; expected a task of {', '.join(TASKS)}, a list of classes, and predict(images); see xt.wrap")
        module = getattr(own, "module", None)
        super().__init__(
            module if isinstance(module, nn.Module) else nn.Identity(), classes, name=name or str(getattr(own, "name", type(own).__name__)),
            background=getattr(own, "background", None),
        )  # fmt: skip
        self.own, self.task, self.black_box = own, task, not callable(getattr(own, "scores", None))
        self.loss = getattr(own, "loss", None)

    def predict(self, images: Tensor) -> list[Prediction]:
        check_images(images)
        with torch.no_grad():
            found = self.own.predict(images)
        if not isinstance(found, list | tuple) or len(found) != len(images) or not all(isinstance(each, Prediction) for each in found):
            raise ModelError(f"{self.name}: predict returned {type(found).__name__}; expected a list of {len(images)} xt.Prediction")
        return list(found)

    def score_pairs(self, x: Tensor, pairs: Sequence[tuple[int, Decision]]) -> Tensor:
        if self.black_box:
            raise MethodError(f"{self.name} is a black box without scores(images, decisions); use occlusion-drise")
        out = self.own.scores(x[[row for row, _ in pairs]], [decision for _, decision in pairs])
        if not isinstance(out, Tensor) or out.shape != (len(pairs),):
            came = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ModelError(f"{self.name}: scores returned {came}; expected one number per image, ({len(pairs)},)")
        if x.requires_grad and not out.requires_grad:
            raise MethodError(f"{self.name}: no gradient of its scores reaches the image; use occlusion")
        return out


def adapted(model: Any) -> Adapter:
    """``model`` itself if it has all that methods use, else behind ``UserModel``."""
    return model if isinstance(model, Adapter) else UserModel(model)
