"""What an audit's clusters are made of, and what comes of pasting their place into another image: live, once for each question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import changing
import numpy as np
import sources
from cached import Loaded
from changing import Still, still

from xaitools.audit.decisions import Decided, Decisions, Limits, chosen_of
from xaitools.audit.reopen import stored_decisions
from xaitools.audit.spray import Box, Member, members_of, shared_box
from xaitools.audit.transplant import with_patch
from xaitools.report.colours import limit_of, map_rgb
from xaitools.report.spray import SHARED

OWN, RIM = "#ffffff", 150
"""Of the object of a decision, and around a map."""


@dataclass(frozen=True)
class Moved:
    """What came of one image: the donor, the host before and after, and whether the model then decides for the class."""

    donor: Still
    before: Still
    after: Still
    was: bool
    appears: bool


@lru_cache(maxsize=4)
def decisions(loaded: Loaded, dataset: str, folder: Path, changed: float, seed: int, method: str | None, note: str) -> Decisions:
    """Those of the audit in ``folder``, which ended at ``changed``."""
    report = {"seed": seed, "decisions": {"method": method, "note": note}}
    return stored_decisions(folder, changing.context(loaded, dataset), report)


def members(
    loaded: Loaded, dataset: str, some: Decisions, keys: Sequence[tuple[str, str]], cluster: Mapping[str, Any], most: int
) -> list[tuple[Member, Still]]:
    """The surest of these decisions, each with its image: its object in white, the place that a suspicious cluster shares in orange."""
    facts = {**cluster, "members": [item for item, _ in keys], "targets": [target for _, target in keys]}
    found = []
    for member in members_of(sources.dataset(dataset), some, facts, most):
        boxes = {OWN: member.box} | ({SHARED: member.shared} if member.shared is not None and cluster["suspicious"] else {})
        found.append((member, still(member.image, None, f"{member.item}, its object in white", boxes)))
    return found


def mean_map(values: Sequence[Sequence[float]], side: int = 256) -> np.ndarray:
    """(side, side, 3) uint8 of a square map, cell by cell; red is relevance, white none, with a rim that shows on white."""
    cells = np.array(values, dtype=float)
    step = max(1, side // len(cells))
    found = map_rgb(cells, limit_of(cells)).repeat(step, 0).repeat(step, 1)
    found[[0, -1]] = found[:, [0, -1]] = RIM
    return found


def place(decided: Decided, view: str, xyxy: Sequence[float], size: Sequence[int]) -> Box | None:
    """The place ``xyxy`` in shares of a view, in pixels of an image (H, W)."""
    return shared_box(view, np.array(xyxy, float), decided.box, size)


@lru_cache(maxsize=16)
def moved(loaded: Loaded, dataset: str, name: str, donor: int, host: int, cut: Box, paste: Box) -> Moved:
    """``cut`` of image ``donor`` at ``paste`` of image ``host``: does a decision for the class ``name`` appear?"""
    data = sources.dataset(dataset)
    given, image = data[donor].image, data[host].image
    left, top, right, bottom = cut
    after = with_patch(image, paste, given[:, top:bottom, left:right])
    with loaded.lock:
        one, two = (loaded.model.predict(each[None])[0] for each in (image, after))
    label = loaded.model.classes.index(name)
    was, appears = (any(int(each.labels[number]) == label for number in chosen_of(each, Limits())) for each in (one, two))
    return Moved(
        still(given, None, f"{data.ids[donor]}, what is cut out in orange", {SHARED: cut}), still(image, one, boxes={SHARED: paste}),
        still(after, two, boxes={SHARED: paste}), was, appears,
    )  # fmt: skip


def without_class(some: Decisions, name: str) -> list[Decided]:
    """The first decision of each image in which the model decided nothing for the class."""
    own = {each.item for each in some.made if some.classes[each.label] == name}
    return list({each.item: each for each in reversed(some.made) if each.item not in own}.values())[::-1]
