"""What is explained, as a value that reads and writes itself as a string (see the README for the list).

A ``Target`` knows no model.  ``bind`` joins it with one prediction to a ``Decision``: a number that stays the
same number while the image is occluded or differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote

import torch

from .errors import TargetError, unknown
from .types import REST, Decision, Prediction, Sample

EDGES = ("left", "top", "right", "bottom")
FORMS = "top, all, class:NAME, pixel:X,Y[:NAME], region:NAME, region:gt:NAME, box:I, box:I:EDGE, box:X1,Y1,X2,Y2:NAME, mask:I"


@dataclass(frozen=True)
class Target:
    """kind is top, all, class, pixel, region, box, given or mask; the other fields belong to some kinds only.

    >>> str(Target.parse("box:2:left"))
    'box:2:left'
    >>> Target.parse("pixel:10,20:traffic%20light").name
    'traffic light'
    """

    kind: str
    name: str | None = None
    truth: bool = False
    place: tuple[float, ...] = ()
    index: int = 0
    edge: str | None = None
    versus: str | None = None

    @classmethod
    def parse(cls, text: str) -> Target:
        """Raises TargetError with the known forms when ``text`` is none of them."""
        if any("\ud800" <= each <= "\udfff" for each in text):  # bytes that were no text
            raise TargetError(f"target {text!r}: is no text in UTF-8; percent-encode what is odd in a name")
        body, found, other = text.partition(":vs:")
        versus = unquote(other) if found else None
        kind, *rest = body.split(":")
        target = cls._parse(kind, rest)
        if target is None:
            raise TargetError(f"target {text!r} cannot be read; expected one of {FORMS}, with :vs:NAME for a contrast")
        if versus is not None and (target.edge or kind in ("all", "mask")):
            raise TargetError(f"target {text!r}: a contrast needs a class logit; drop ':vs:'")
        return replace(target, versus=versus)

    @classmethod
    def _parse(cls, kind: str, rest: list[str]) -> Target | None:
        names = [unquote(part) for part in rest]
        match kind, rest:
            case (("top" | "all"), []):
                return cls(kind)
            case "class", [name] if name:
                return cls("class", names[0])
            case "region", ["gt", name] if name:
                return cls("region", names[1], truth=True)
            case "region", [name] if name:
                return cls("region", names[0])
            case "pixel", [place, *name] if len(name) < 2 and all(name) and (numbers := _numbers(place, 2)):
                return cls("pixel", names[1] if name else None, place=numbers)
            case (("box" | "mask"), [index]) if index.isascii() and index.isdigit() and len(index) < 9:
                return cls(kind, index=int(index))
            case "box", [index, edge] if index.isascii() and index.isdigit() and len(index) < 9 and edge in EDGES:
                return cls("box", index=int(index), edge=edge)
            case "box", [place, name] if name and (numbers := _numbers(place, 4)):
                return cls("given", names[1], place=numbers)
        return None

    def __str__(self) -> str:
        name = quote(self.name or "", safe=" ")
        place = ",".join(map(_written, self.place))
        body = {
            "class": f"class:{name}",
            "region": f"region:gt:{name}" if self.truth else f"region:{name}",
            "pixel": f"pixel:{place}" + (f":{name}" if self.name else ""),
            "box": f"box:{self.index}" + (f":{self.edge}" if self.edge else ""),
            "given": f"box:{place}:{name}",
            "mask": f"mask:{self.index}",
        }.get(self.kind, self.kind)
        return body if self.versus is None else f"{body}:vs:{quote(self.versus, safe=' ')}"


def _numbers(text: str, count: int) -> tuple[float, ...]:
    try:
        values = tuple(float(_written(float(part))) for part in text.split(","))  # no digit that would be lost in writing it again
    except ValueError:
        return ()
    return values if len(values) == count and all(map(math.isfinite, values)) else ()


def _written(value: float) -> str:
    return f"{value:.10g}"


def expand(target: Target | str, prediction: Prediction) -> list[Target]:
    """``target`` itself; the best single one for ``top``; one for everything found for ``all``."""
    target = Target.parse(target) if isinstance(target, str) else target
    if target.kind not in ("top", "all"):
        return [target]
    found = [_found(index, prediction) for index in range(len(prediction.labels))
             if prediction.task in ("detection", "instances") or int(prediction.labels[index]) != prediction.background]  # fmt: skip
    if not found and prediction.task == "segmentation" and len(prediction.labels):
        found = [_found(0, prediction)]
    if not found:
        raise TargetError(f"target {target}: the model found nothing in this image; lower score_threshold or give box:X1,Y1,X2,Y2:NAME")
    return [replace(each, versus=target.versus) for each in (found[:1] if target.kind == "top" else found)]


def _found(index: int, prediction: Prediction) -> Target:
    name = prediction.classes[int(prediction.labels[index])]
    if prediction.task == "segmentation":
        return Target("region", name)
    return Target("class", name) if prediction.task == "classification" else Target("box", index=index)


def bind(target: Target | str, prediction: Prediction, sample: Sample | None = None, truth_classes: Sequence[str] = ()) -> Decision:
    """``target`` joined with what the model found.

    ``sample`` and ``truth_classes`` (the names behind ``sample.semantic``) serve ``region:gt:``.
    Raises TargetError when the class is unknown, the place lies outside the image, the box is not among the
    predictions, or the task has no such target.
    """
    target = Target.parse(target) if isinstance(target, str) else target
    if target.kind in ("top", "all"):
        target = expand(target, prediction)[0]
    segmentation, boxes = prediction.task == "segmentation", prediction.task in ("detection", "instances")
    versus = None if target.versus is None else REST if target.versus == "" else _class(target.versus, prediction, target)
    decision = Decision(str(target), 0, versus)
    match target.kind:
        case "class" if boxes:
            wanted = _class(target.name, prediction, target)
            rows = torch.where(prediction.labels == wanted)[0]
            if not len(rows):
                raise TargetError(f"target {target}: no such box was found; found {_summary(prediction)}; give box:X1,Y1,X2,Y2:NAME")
            return replace(decision, class_index=wanted, **_origin(int(rows[0]), prediction))
        case "class":
            region = torch.ones(prediction.image_size, dtype=torch.bool) if segmentation else None
            return replace(decision, class_index=_class(target.name, prediction, target), region=region)
        case "pixel" if segmentation and prediction.semantic is not None:
            row, column = _inside(target, prediction)
            wanted = _class(target.name, prediction, target) if target.name else int(prediction.semantic[row, column])
            region = torch.zeros(prediction.image_size, dtype=torch.bool)
            region[row, column] = True
            return replace(decision, class_index=wanted, region=region)
        case "region" if segmentation and prediction.semantic is not None:
            wanted = _class(target.name, prediction, target)
            region = _truth_region(target, sample, truth_classes) if target.truth else prediction.semantic == wanted
            if not bool(region.any()):
                whose = "annotated" if target.truth else "predicted"
                raise TargetError(f"target {target}: no pixel is {whose} {target.name}; predicted are {_summary(prediction)}")
            return replace(decision, class_index=wanted, region=region)
        case "box" if boxes:
            label = int(prediction.labels[_known(target, prediction)])
            return replace(decision, class_index=label, edge=target.edge, **_origin(target.index, prediction))
        case "given" if boxes:
            box = torch.tensor(_given(target, prediction), dtype=torch.float64)
            place = {"proposal": box} if prediction.candidates is None else {"anchor": _nearest(box, prediction.candidates)}
            return replace(decision, class_index=_class(target.name, prediction, target), box=box, **place)
        case "mask" if prediction.cells is not None and prediction.boxes is not None:
            label, cells = int(prediction.labels[_known(target, prediction)]), prediction.cells[target.index]
            if not bool(cells.any()):
                raise TargetError(f"target {target}: the mask of this box is empty; take box:{target.index}")
            return replace(decision, class_index=label, box=prediction.boxes[target.index], cells=cells)
        case "mask" if prediction.masks is not None:
            raise TargetError(f"target {target}: this model gives masks, but not the logits behind them; take box:{target.index}")
    raise TargetError(f"target {target}: a {prediction.task} model has no such target; expected one of {_forms(prediction.task)}")


def _class(name: str | None, prediction: Prediction, target: Target) -> int:
    if name not in prediction.classes:
        raise TargetError(f"target {target}: {unknown('class', name or '', prediction.classes)}")
    return prediction.classes.index(name)


def _known(target: Target, prediction: Prediction) -> int:
    if target.index >= len(prediction.labels):
        raise TargetError(f"target {target}: {len(prediction.labels)} boxes were found (numbered from 0); {_summary(prediction)}")
    return target.index


def _origin(index: int, prediction: Prediction) -> dict[str, Any]:
    """A final box and what it came from; a black box does not say."""
    found: dict[str, Any] = {"box": None if prediction.boxes is None else prediction.boxes[index]}
    if prediction.origins is not None:
        found["proposal"] = prediction.origins[index]
    if prediction.anchors is not None:
        found["anchor"] = int(prediction.anchors[index])
    return found


def _nearest(box: torch.Tensor, candidates: torch.Tensor) -> int:
    """The anchor whose box overlaps ``box`` most."""
    from torchvision.ops import box_iou

    return int(box_iou(box[None].to(candidates), candidates)[0].argmax())


def _inside(target: Target, prediction: Prediction) -> tuple[int, int]:
    height, width = prediction.image_size
    x, y = target.place
    if not (0 <= x < width and 0 <= y < height):
        raise TargetError(f"target {target}: outside the image; x is 0 to {width - 1}, y is 0 to {height - 1}")
    return int(y), int(x)


def _given(target: Target, prediction: Prediction) -> tuple[float, ...]:
    height, width = prediction.image_size
    x1, y1, x2, y2 = target.place
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise TargetError(f"target {target}: not a box inside the image; expected 0 <= X1 < X2 <= {width} and 0 <= Y1 < Y2 <= {height}")
    return target.place


def _truth_region(target: Target, sample: Sample | None, truth_classes: Sequence[str]) -> torch.Tensor:
    if sample is None or sample.semantic is None:
        raise TargetError(f"target {target}: needs an annotated image; give a dataset, or region:{target.name} for the predicted pixels")
    if target.name is None or target.name not in truth_classes:
        raise TargetError(f"target {target}: {unknown('annotated class', target.name or '', truth_classes)}")
    return sample.semantic.eq(list(truth_classes).index(target.name))


def _summary(prediction: Prediction) -> str:
    names = [prediction.classes[int(label)] for label in prediction.labels[:8]]
    return ", ".join(names) + (", ..." if len(prediction.labels) > 8 else "") if names else "nothing"


def _forms(task: str) -> str:
    if task == "segmentation":
        return "top, all, class:NAME, pixel:X,Y[:NAME], region:NAME, region:gt:NAME"
    if task == "classification":
        return "top, all, class:NAME"
    if task == "instances":
        return "top, all, class:NAME, box:I, box:I:left|top|right|bottom, box:X1,Y1,X2,Y2:NAME, mask:I"
    return "top, all, class:NAME, box:I, box:I:left|top|right|bottom, box:X1,Y1,X2,Y2:NAME"
