"""The class that a change draws decisions to, in words and as a table."""

from __future__ import annotations

from collections.abc import Sequence

from ..audit.gains import GAIN
from .parts import Facts, e, interval, points, points_interval, table

__all__ = ["GAIN", "gains_words"]

UNITS = {"classification": "points of the images", "segmentation": "points of the pixels"}
"""Of what is given to a class; detectors give boxes, which are counted."""


def gains_words(gains: Sequence[Facts], task: str) -> str:
    """Empty where nothing was measured.  A class gains where the interval of its mean gain lies above 0."""
    if not gains:
        return ""

    def amount(row: Facts) -> list[str]:
        if task in UNITS:
            return [f"{'+' if row['value'] > 0 else ''}{points(row['value'])}", points_interval(row["ci"])]
        return [f"{row['value']:+.2f}".replace("-", "\N{MINUS SIGN}"), interval(row["ci"]).replace("-", "\N{MINUS SIGN}")]

    unit = UNITS.get(task, "boxes an image")
    sure = [row for row in gains if row["ci"] is not None and row["ci"][0] > 0]
    if sure:
        number, between = amount(sure[0])
        words = f"The change draws decisions to <b>{e(sure[0]['class'])}</b>: {number} {unit} {between}."
    else:
        words = "The change draws decisions to no class: no mean gain is above 0 with its whole interval."
    lines = table(["class", f"gain, {unit}", ""], [[e(row["class"]), *amount(row)] for row in gains], right={1, 2})
    return f"<p>{words}</p><details><summary>What each class gains</summary>{lines}</details>"
