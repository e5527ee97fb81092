"""The exceptions of xaitools.

Each message is one line: what came, what was expected, what to do.  The command line prints it and
ends with status 2; a traceback is kept for our own mistakes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class XaiError(ValueError):
    """The input or an argument is at fault.  ``str(error)`` is one line that names the remedy."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class DataError(XaiError):
    """An image, an annotation or a dataset folder cannot be used."""


class ModelError(XaiError):
    """A model string, a card or a weights file cannot be used."""


class TargetError(XaiError):
    """A target cannot be read, or is not in the prediction."""


class MethodError(XaiError):
    """A method is unknown, or refuses the model or the target."""


class PlanError(XaiError):
    """A run folder holds another plan, or a run has no usable item."""


class StoreError(PlanError):
    """An object store cannot be reached, or does not hold what was asked for; no run goes on without it."""


def first_line(error: Exception) -> str:
    """What somebody else's error says, in one line.

    >>> first_line(IndexError())
    'IndexError'
    """
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that is not known, with the nearest names first.

    >>> unknown("method", "lpr", ["lrp", "saliency"])
    "unknown method 'lpr'; did you mean lrp? known: lrp, saliency"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    shown = ", ".join(names[:40]) + (f", ... ({len(names)} in all)" if len(names) > 40 else "")
    return f"unknown {kind} {name!r}; {hint}known: {shown or 'none'}"
