"""A ledger in words: what of a score reaches the image, and which layers absorb the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence

MOST_ROWS = 20  # more layers are summed by the beginnings of their names
NAMED = 3  # layers in the sentence

Rows = Sequence[tuple[str, float]]


def is_lrp(method: str) -> bool:
    """Do the rows of its ledger stand for layers?"""
    return method == "lrp" or method.startswith("lrp-")


def grouped(ledger: Rows, most: int = MOST_ROWS) -> list[tuple[str, float]]:
    """The rows, or if they are more than ``most`` their sums over layers whose names begin alike.

    >>> grouped([("body.0.conv1", 1.0), ("body.0.conv2", 2.0), ("head", 4.0)], most=2)
    [('body.0', 3.0), ('head', 4.0)]
    """
    rows = list(ledger)
    for depth in reversed(range(1, max((name.count(".") + 1 for name, _ in rows), default=1))):
        if len(rows) <= most:
            break
        sums: dict[str, float] = {}
        for name, absorbed in ledger:
            key = ".".join(name.split(".")[:depth])
            sums[key] = sums.get(key, 0.0) + absorbed
        rows = list(sums.items())
    if len(rows) > most:
        rest = rows[most - 1 :]
        rows = [*rows[: most - 1], (f"{len(rest)} more", math.fsum(each for _, each in rest))]
    return rows


def ledger_words(score: float, arrives: float, ledger: Rows) -> str:
    """A sentence: the part of ``score`` that reaches the image, and the layers that absorb (or, with the other sign, add) most.

    Empty without a ledger, or where the score is 0 and shares mean nothing.

    >>> ledger_words(4.0, 1.0, [("stem", 2.0), ("head", 1.5), ("body", -0.5)])
    '25 % of the score reaches the image; stem absorbs 50 %, head absorbs 37.5 %, body adds 12.5 %'
    """
    if not ledger or not score:
        return ""
    rows = sorted(((name, each / score) for name, each in grouped(ledger) if each), key=lambda row: -abs(row[1]))[:NAMED]
    told = [f"{name} {'absorbs' if each > 0 else 'adds'} {100 * abs(each):.3g} %" for name, each in rows]
    against = "" if arrives * score >= 0 else " with the other sign"
    return "; ".join([f"{100 * abs(arrives / score):.3g} % of the score reaches the image{against}", *([", ".join(told)] if told else [])])
