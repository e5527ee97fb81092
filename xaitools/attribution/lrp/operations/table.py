"""The table itself: what the network calls -> how relevance passes through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tape import Tape, Trail, mapped, refuse

Handler = TypeVar("Handler", bound=Callable[..., Any])

OPERATIONS: dict[Callable[..., Any], Callable[..., Any]] = {}


def operation(*functions: Callable[..., Any], named: str = "") -> Callable[[Handler], Handler]:
    """Registers a handler for functions, and for every function called ``named`` in torch, Tensor and F.

    A handler takes the tape, the function that the network called and its arguments, and returns the output,
    followed on the tape.
    """
    found = [getattr(home, name, None) for name in named.split() for home in (torch, Tensor, F)]

    def register(handler: Handler) -> Handler:
        for function in (*functions, *found):
            if callable(function):
                OPERATIONS[function] = handler
        return handler

    return register


def in_place(table: dict[Callable[..., Any], Callable[..., Any]]) -> dict[Callable[..., Any], Callable[..., Any]]:
    """``x.add_`` -> ``x.add`` and so on for every operation of the table."""
    pairs: dict[Callable[..., Any], Callable[..., Any]] = {}
    for home in (torch, Tensor, F):
        for name in dir(home):
            if name.endswith("_") and not name.endswith("__") and getattr(home, name[:-1], None) in table:
                pairs[getattr(home, name)] = getattr(home, name[:-1])
    return pairs


def is_constant(tape: Tape, x: Any) -> bool:
    return isinstance(x, (int, float)) or (isinstance(x, Tensor) and tape.trail(x) is None)


def trail_of(tape: Tape, x: Tensor) -> Trail:
    trail = tape.trail(x)
    if trail is None:
        raise refuse("an operation whose input is constant and whose parameters depend on the image", "use another method")
    return trail


def plainly(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[], Any]:
    """The call without gradients, for later."""
    plain_args, plain_kwargs = mapped((args, kwargs), lambda x: x.detach() if isinstance(x, Tensor) else x)
    return lambda: func(*plain_args, **plain_kwargs)
