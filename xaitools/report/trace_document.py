"""How a detector came to its boxes, as trace.json."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..files import plain
from ..types import BELOW, EMPTY, FATES, UNRANKED, Attribution, Explanation, Trace

MOST_IDLE = 2000
"""Rows that took no part in the suppression, of which a large network has hundreds of thousands; the strongest are written."""

COLUMNS = ("candidate", "class", "score", "logit", "box_xyxy", "prior_xyxy", "fate", "final", "by", "iou")


def trace_of(explanation: Explanation) -> Trace | None:
    """How the detector came to its boxes in this image, where a method looked at that."""
    return next((each.trace for each in explanation.attributions if isinstance(each, Attribution) and each.trace is not None), None)


def trace_document(explanation: Explanation, trace: Trace) -> dict[str, Any]:
    """What stands in trace.json.  ``stages`` has one entry, or two where the proposals come from the network itself.

    A stage is ``{"kind", "classes", "score_threshold", "nms", "most", "counts": {fate: rows}, "left_out", "columns", "rows"}``,
    with the meanings of ``Trace``.  A row is one candidate with one class: its number, the class, score in [0, 1], raw
    logit, box and where it started (null where the network has no such thing) in pixels of the image, rounded to
    hundredths, its fate, its number among the final boxes or null, and, where it was suppressed, ``by`` which candidate
    of that class at which ``iou``.  The final boxes of a first stage are the candidates of the second.  Of the rows that
    took no part in the suppression (below, empty, unranked) the strongest 2000 are there; ``left_out`` counts the rest.
    """
    stages = [each for each in (trace.first, trace) if each is not None]
    return {
        "xaitools": __version__, "model": explanation.model, "image": explanation.name, "image_size": list(trace.image_size),
        "stages": [_stage(each) for each in stages],
    }  # fmt: skip


def trace_text(document: dict[str, Any]) -> str:
    """``document`` as JSON with a row on each line."""
    stages = []
    for stage in document["stages"]:
        rows = ",\n".join(_json(row) for row in stage["rows"])
        stages.append(f"{_json(stage | {'rows': []})[:-2]}\n{rows}\n]}}")
    return f"{_json(document | {'stages': []})[:-2]}\n" + ",\n".join(stages) + "\n]}\n"


def _json(value: Any) -> str:
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _stage(trace: Trace) -> dict[str, Any]:
    idle = torch.isin(trace.fates, torch.tensor([BELOW, EMPTY, UNRANKED]))
    strongest = torch.where(idle)[0][trace.scores[idle].argsort(descending=True, stable=True)[:MOST_IDLE]]
    rows = torch.cat([torch.where(~idle)[0], strongest]).sort().values
    counts = trace.fates.bincount(minlength=len(FATES)).tolist()
    return {
        "kind": trace.kind, "classes": trace.classes, "score_threshold": trace.score_threshold, "nms": trace.nms, "most": trace.most,
        "counts": dict(zip(FATES, counts, strict=True)), "left_out": len(idle) - len(rows), "columns": COLUMNS,
        "rows": [_row(trace, row) for row in rows.tolist()],
    }  # fmt: skip


def _row(trace: Trace, row: int) -> list[Any]:
    winner, final = int(trace.winners[row]), int(trace.finals[row])
    return [
        int(trace.candidates[row]), trace.classes[int(trace.labels[row])], _rounded(trace.scores[row]), _rounded(trace.logits[row]),
        _pixels(trace.boxes[row]), None if trace.priors is None else _pixels(trace.priors[row]), FATES[int(trace.fates[row])],
        None if final < 0 else final, None if winner < 0 else int(trace.candidates[winner]),
        None if winner < 0 else _rounded(trace.overlaps[row]),
    ]  # fmt: skip


def _rounded(value: Tensor) -> float:
    """Five digits: a small score keeps as many as a large one."""
    return float(f"{float(value):.5g}")


def _pixels(box: Tensor) -> list[float]:
    return [round(each, 2) for each in box.tolist()]
