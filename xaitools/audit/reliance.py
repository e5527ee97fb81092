"""Context reliance: of what a class's decisions rest on, how much lies on the object and how much elsewhere, beside chance.

Shares of positive relevance (``decisions.PARTS``) of the decisions the model made, as means over decisions; what chance would
give is the part's share of the image.  The unit of the intervals is the image, since the decisions of one image are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..metrics.statistics import image_weights, pooled_mean
from .decisions import PARTS, Decided, Decisions

FEWEST = 10
"""Images below which a bootstrap says nothing, and no interval stands."""

Facts = dict[str, Any]


def reliance(decisions: Decisions, *, seed: int = 0, replicates: int = 2000) -> Facts:
    """{class: {"n", "images", "parts": {part: facts}}} for every class that the model decided for.

    Of each part, over the ``n`` decisions whose image has it (None where none has; images without a declared region say
    nothing of what such a region draws):

    value, ci     mean share of positive relevance, in [0, 1]
    chance        mean share of the image
    beyond        value less chance, {"value", "ci"}
    """
    found: Facts = {}
    for label, name in enumerate(decisions.classes):
        mine = decisions.of(label)
        if mine:
            parts = {part: _part(mine, place, seed, replicates) for place, part in enumerate(PARTS)}
            found[name] = {"n": len(mine), "images": len({each.item for each in mine}), "parts": parts}
    return found


def _part(mine: Sequence[Decided], place: int, seed: int, replicates: int) -> Facts:
    having = [each for each in mine if each.areas[place] > 0]
    items = list(dict.fromkeys(each.item for each in having))
    if not items:
        return {"n": 0, "value": None, "ci": None, "chance": None, "beyond": {"value": None, "ci": None}}
    weights = image_weights(items, seed=seed, replicates=replicates)

    def pooled(values: Sequence[float]) -> Facts:
        groups: dict[str, list[float]] = {item: [] for item in items}
        for each, value in zip(having, values, strict=True):
            groups[each.item].append(value)
        facts = pooled_mean(list(groups.values()), weights)
        return facts if len(items) >= FEWEST else {**facts, "ci": None}

    shares, areas = [float(each.shares[place]) for each in having], [float(each.areas[place]) for each in having]
    return {
        "n": len(having), **pooled(shares), "chance": pooled(areas)["value"],
        "beyond": pooled([share - area for share, area in zip(shares, areas, strict=True)]),
    }  # fmt: skip
