"""What an operation on maps is: the parts of its inputs that each position needs, and how a box is made from them.

Along each axis the positions first[o]..last[o] of an input make position o of the output; both never fall as o grows, and may
lie outside the input, where it is padded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from .graph import Node

Axis = tuple[np.ndarray, np.ndarray]
"""(first, last) of each output position."""


@dataclass(frozen=True, eq=False)
class View:
    """What an operation sees of one input: the node, its axes (vertical, horizontal), and what lies outside of it."""

    node: int
    axes: tuple[Axis, Axis]
    outside: float = 0.0


@dataclass(frozen=True, eq=False)
class Place:
    """A box of the output of B windows: ``starts`` (B, 2) int, ``size`` (h, w), and ``begins`` (B, 2) of each input's part."""

    starts: np.ndarray
    size: tuple[int, int]
    begins: list[np.ndarray]


Run = Callable[[list[Tensor], Place], Tensor]


@dataclass(frozen=True, eq=False)
class Operation:
    """``run`` makes the box (B, ..., h, w) from the parts (B, ..., ih, iw) of the inputs that its positions need.

    cost   multiplications for one output position
    alone  whether each output position depends on the same position of one input only
    """

    views: tuple[View, ...]
    run: Run
    cost: float
    alone: bool = False


def size_of(node: Node) -> tuple[int, int]:
    return int(node.value.shape[-2]), int(node.value.shape[-1])


def arguments(node: Node, *defaults: Any) -> tuple[Any, ...]:
    """The arguments by position, the rest as ``defaults`` say."""
    return (*node.args, *defaults[len(node.args) :])


def pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1])


def same(length: int) -> Axis:
    here = np.arange(length)
    return here, here


def shifted(length: int, by: int) -> Axis:
    here = np.arange(length) + by
    return here, here


def sliding(length: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> Axis:
    first = np.arange(length) * stride - padding
    return first, first + dilation * (kernel - 1)


def spreading(length: int, kernel: int, stride: int, padding: int, dilation: int) -> Axis:
    """A transposed convolution: input i reaches the outputs i * stride - padding + dilation * j."""
    here = np.arange(length) + padding
    return -((dilation * (kernel - 1) - here) // stride), here // stride


def broadcast(length: int, available: int) -> Axis:
    return same(length) if available == length else (np.zeros(length, int), np.zeros(length, int))
