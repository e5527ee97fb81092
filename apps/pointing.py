"""A place on the picture becomes a target: plain functions, no page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xaitools.errors import TargetError
from xaitools.targets import Target, expand
from xaitools.types import Prediction

UNITS = ("pixel", "segment", "class")
"""What a click on a segmentation means: this pixel, all pixels predicted as its class, the class all over the image."""
OF_A_BOX = ("box", "mask")
"""Kinds of targets that speak of a found box by its number."""


def box_at(prediction: Prediction, x: float, y: float, shown: int) -> int | None:
    """The smallest of the first ``shown`` boxes that holds the middle of pixel (x, y)."""
    if prediction.boxes is None:
        return None
    x, y = x + 0.5, y + 0.5
    under = [(float((x2 - x1) * (y2 - y1)), index) for index, (x1, y1, x2, y2) in enumerate(prediction.boxes[:shown].tolist())
             if x1 <= x <= x2 and y1 <= y <= y2]  # fmt: skip
    return min(under)[1] if under else None


def picked(prediction: Prediction, pick: Mapping[str, Any], *, unit: str, name: str, shown: int) -> Target | None:
    """The target of a pick (see ``components.picture``); ``name`` is the class of a drawn box.  None: nothing there."""
    if "target" in pick:
        return Target.parse(pick["target"])
    if "box" in pick:
        return Target("given", name, place=tuple(map(float, pick["box"])))
    x, y = int(pick["x"]), int(pick["y"])
    if prediction.semantic is None:
        index = box_at(prediction, x, y, shown)
        return None if index is None else Target("box", index=index)
    if unit == "pixel":
        return Target("pixel", place=(x, y))
    return Target({"segment": "region", "class": "class"}[unit], prediction.classes[int(prediction.semantic[y, x])])


def resolve(text: str, prediction: Prediction) -> Target:
    """The one target that ``text`` stands for in this prediction."""
    targets = expand(text, prediction)
    if len(targets) > 1:
        raise TargetError(f"target {text} stands for {len(targets)} explanations here; the page shows one, e.g. {targets[0]}")
    return targets[0]


def class_of(target: Target, prediction: Prediction) -> str | None:
    """The class whose score is explained; None where the target does not fit the prediction."""
    if target.kind in OF_A_BOX and target.index < len(prediction.labels):
        return prediction.classes[int(prediction.labels[target.index])]
    if target.kind == "pixel" and target.name is None and prediction.semantic is not None:
        height, width = prediction.image_size
        x, y = (int(value) for value in target.place)
        return prediction.classes[int(prediction.semantic[y, x])] if 0 <= x < width and 0 <= y < height else None
    return target.name


def titled(target: Target, prediction: Prediction) -> str:
    """The target in few words, for a list."""
    if target.kind != "box":
        return spoken(target, prediction)
    return f"{target.index} {class_of(target, prediction)} {float(prediction.scores[target.index]):.2f}"


def spoken(target: Target, prediction: Prediction) -> str:
    """The target in words."""
    name = class_of(target, prediction)
    match target.kind:
        case "box":
            words = f"{f'the {target.edge} edge of ' if target.edge else ''}box {target.index}, {name}"
        case "mask":
            words = f"the mask of box {target.index}, {name}"
        case "given":
            words = f"{name} in the drawn box"
        case "pixel":
            words = f"{name} at pixel {target.place[0]:g}, {target.place[1]:g}"
        case "region":
            words = f"the pixels {'annotated' if target.truth else 'predicted'} {name}"
        case _:
            words = f"the class {name}"
    return words + {None: "", "": " against all other classes"}.get(target.versus, f" against {target.versus}")
