"""A model of any origin behind one protocol.

Resizing and normalising live in adapters and nowhere else: the rest of xaitools gives images in [0, 1] at
their own size and gets answers at that size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..errors import MethodError, ModelError
from ..types import REST, Decision, Prediction, Sample, Trace
from .fit import Fit


@runtime_checkable
class Model(Protocol):
    """What xaitools needs of a model.  ``scores`` is needed only by methods that use logits or gradients."""

    task: str
    classes: tuple[str, ...]

    def predict(self, images: Tensor) -> list[Prediction]: ...

    def scores(self, images: Tensor, decisions: Sequence[Decision]) -> Tensor: ...


class Adapter(ABC):
    """A torch network as a ``Model``; each family overrides ``predict``, ``score_pairs`` and ``loss``, a detector ``trace``.

    name        the model string
    module      the network; it is used in eval mode and left as found
    classes     the classes that count, in the order of the outputs
    background  index of the class that means "nothing", or None
    mean, std   per channel, in RGB order: the network sees (image - mean) / std
    order       rgb or bgr: the order in which the network wants the channels
    black_box   whether it gives only its final answer, without logits; None until it has answered once
    fit         how the image is fitted to the network
    trunk       name of the part whose maps lie on the image as a whole, not on single boxes; "" is all of the network
    """

    task: str
    black_box: bool | None = False
    fit = Fit()
    trunk = ""

    def __init__(
        self,
        module: nn.Module,
        classes: Sequence[str],
        *,
        name: str = "model",
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        order: str = "rgb",
        background: int | None = None,
        weights_hash: str = "",
    ) -> None:
        if order not in ("rgb", "bgr"):
            raise ModelError(f"order {order!r}; expected rgb or bgr")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ModelError(f"mean {tuple(mean)}, std {tuple(std)}; expected three numbers each, std above 0, of images in [0, 1]")
        parameter = next(module.parameters(), torch.empty(0))
        self.module, self.classes, self.name = module, tuple(classes), name
        self.background, self.weights_hash, self.order = background, weights_hash, order
        self.device, self.dtype = parameter.device, parameter.dtype
        self.mean = torch.tensor(mean, device=self.device, dtype=self.dtype).view(1, 3, 1, 1)
        self.std = torch.tensor(std, device=self.device, dtype=self.dtype).view(1, 3, 1, 1)

    @abstractmethod
    def predict(self, images: Tensor) -> list[Prediction]:
        """Predictions for (N, 3, H, W) images in [0, 1]."""

    def scores(self, images: Tensor, decisions: Sequence[Decision]) -> Tensor:
        """The explained numbers (K,) for images (N, 3, H, W); N and K are equal, or one of them is 1."""
        return self.scores_from(self.normalise(images), decisions)

    def scores_from(self, x: Tensor, decisions: Sequence[Decision]) -> Tensor:
        """``scores`` of images that are normalised but still at their own size; differentiable."""
        return self.score_pairs(x, list(paired(len(x), decisions)))

    def score_table(self, images: Tensor, decisions: Sequence[Decision]) -> Tensor:
        """Every decision on every image, (K, N), from one forward pass."""
        pairs = [(row, decision) for decision in decisions for row in range(len(images))]
        return self.score_pairs(self.normalise(images), pairs).view(len(decisions), len(images))

    @abstractmethod
    def score_pairs(self, x: Tensor, pairs: Sequence[tuple[int, Decision]]) -> Tensor:
        """The explained number of each (row of the normalised batch, decision); one forward pass."""

    @abstractmethod
    def loss(self, images: Tensor, samples: Sequence[Sample]) -> Tensor:
        """Differentiable loss (N,) of each image against its truth, in eval mode: what an attack raises.

        Indices of ``samples`` must already be the model's.
        """

    def trace(self, image: Tensor) -> Trace:
        """How the detector came to its boxes in ``image`` (3, H, W); its final boxes are those of ``predict``.

        Raises MethodError where there is nothing to trace: no detector, or a black box.
        """
        raise MethodError(f"{self.name}: a {self.task} model that shows no candidates; expected a detector that gives boxes and logits")

    def normalise(self, images: Tensor) -> Tensor:
        x = (images.to(self.device, self.dtype) - self.mean) / self.std
        return x.flip(1) if self.order == "bgr" else x

    def onto_image(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps (N, C, h, w) that tile the network's input as maps (N, C, H, W) over the image; 0 where the network did not look."""
        return self.fit.onto_image(maps, size)

    def layers(self) -> Mapping[str, nn.Module]:
        """Every module that has no children, by its name in the network."""
        return {name: module for name, module in self.module.named_modules() if not any(module.children())}

    def parameter_names(self) -> Mapping[int, str]:
        """The layer to which each parameter and buffer belongs, by the identity of the tensor."""
        owners = [*self.module.named_parameters(), *self.module.named_buffers()]
        return {id(tensor): name.rpartition(".")[0] for name, tensor in owners}


@contextmanager
def as_found(model: Model) -> Iterator[None]:
    """Eval mode and frozen parameters inside; modes and flags as they were outside, also after an error."""
    module = getattr(model, "module", None)
    if not isinstance(module, nn.Module):
        yield
        return
    modes = [(part, part.training) for part in module.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        module.eval().requires_grad_(False)
        yield
    finally:
        for part, training in modes:
            part.training = training
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def read(logits: Tensor, decision: Decision, *, first: int = 0, sigmoid: bool = False) -> Tensor:
    """The number a decision asks for, from the logits (C, ...) of all outputs: (...).

    ``first`` is the output of class 0: 1 where output 0 is background.  With ``sigmoid`` each logit is judged by
    itself, against "not this class"; where it has no other beside it, that is what a contrast to the rest means.
    """
    index = decision.class_index + first
    if decision.reading == "probability":
        return logits[index].sigmoid() if sigmoid else logits.softmax(0)[index]
    if decision.versus is None or (decision.versus == REST and len(logits) == 1):
        return logits[index]
    if decision.versus == REST:
        return logits[index] - torch.cat([logits[:index], logits[index + 1 :]]).logsumexp(0)
    return logits[index] - logits[decision.versus + first]


def paired(count: int, decisions: Sequence[Decision]) -> Iterator[tuple[int, Decision]]:
    """(row of the batch, decision) for N rows and K decisions, where one of the two may be 1."""
    if count not in (1, len(decisions)) and len(decisions) != 1:
        raise ValueError(f"{count} images and {len(decisions)} decisions; one of them must be 1, or both the same")
    for position in range(max(count, len(decisions))):
        yield (position if count > 1 else 0), decisions[position if len(decisions) > 1 else 0]


def check_images(images: Tensor) -> Tensor:
    """``images`` itself, or one line that says why it is no batch of RGB images in [0, 1]."""
    if not isinstance(images, Tensor) or images.dim() != 4 or images.shape[1] != 3 or not images.dtype.is_floating_point:
        came = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise ModelError(f"got {came}; expected a float tensor (N, 3, H, W), RGB in [0, 1]; see xt.read_image")
    if images.numel() and not bool(torch.isfinite(images).all()):
        raise ModelError("the image holds NaN or infinite values; expected RGB in [0, 1]")
    if images.numel() and (float(images.min()) < -0.01 or float(images.max()) > 1.01):
        raise ModelError(f"values from {float(images.min()):.3g} to {float(images.max()):.3g}; expected RGB in [0, 1] (divide by 255?)")
    return images
