"""What tracing the final boxes of torchvision's detectors back to their logits needs, whatever the family."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError

EDGES = {"left": (0, -0.5), "top": (1, -0.5), "right": (0, 0.5), "bottom": (1, 0.5)}


def only_resizing(transform: nn.Module) -> Any:
    """The transform without its normalisation: the explained input is the normalised image at its own size."""
    copied: Any = copy.deepcopy(transform).eval()
    copied.image_mean, copied.image_std = [0.0] * 3, [1.0] * 3
    return copied


def scale_of(shape: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Factors (4,) from boxes of the image to boxes of the network's input."""
    down, right = shape[0] / size[0], shape[1] / size[1]
    return torch.tensor([right, down, right, down], dtype=torch.float64)


def at_least_float32(boxes: Tensor) -> Tensor:
    return boxes.to("cpu", torch.promote_types(boxes.dtype, torch.float32))


def edge_move(deltas: Tensor, weights: Sequence[float], edge: str) -> Tensor:
    """How far the outputs (4,) of a ``BoxCoder`` move an edge to larger coordinates, in sides of the box they start from.

    To first order: the offset of the centre plus or minus half the log of the side.
    """
    axis, half = EDGES[edge]
    return deltas[axis] / weights[axis] + half * deltas[axis + 2] / weights[axis + 2]


def check_trace(name: str, own: Mapping[str, Tensor], **traced: Tensor) -> None:
    """Refuses a network whose post-processing is not the one that was traced."""
    for part, found in traced.items():
        if len(own[part]) != len(found):
            raise ModelError(f"{name}: the trace found {len(found)} {part}, the network {len(own[part])}; give this build as a black box")
        if not torch.equal(own[part], found):
            raise ModelError(f"{name}: traced {part} differ from the network's own; give this build as a black box")


@contextmanager
def lowered(part: Any, threshold: float) -> Iterator[None]:
    """The network's own ``score_thresh`` is at most ``threshold`` inside."""
    before = part.score_thresh
    part.score_thresh = min(before, threshold)
    try:
        yield
    finally:
        part.score_thresh = before


@contextmanager
def outputs_of(*parts: nn.Module | None) -> Iterator[list[list[Any]]]:
    """What each module gives inside, call after call."""
    outputs: list[list[Any]] = [[] for _ in parts]
    hooks = [
        part.register_forward_hook(lambda module, inputs, output, into=into: into.append(output))
        for part, into in zip(parts, outputs, strict=True)
        if part is not None
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
