"""How a detector came to its boxes: what it thought of, how sure it was, and what suppression removed.

For each final box the map shows its support, as in box voting (Gidaris and Komodakis 2015, section 3.2): the
candidates that were merged into it.  The candidates themselves travel along as a ``Trace``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..adapters import Adapter
from ..errors import MethodError
from ..registry import About
from ..targets import Target
from ..types import Decision, Trace
from .base import Maps, method


@method(
    "detection-trace",
    needs="candidates",
    about=About(
        means=(
            "How did the detector come to this box? It lists the anchors, proposals and boxes that were thought of, and which of them "
            "suppression merged into the final one. The map shows where the merged candidates lie, weighted by their scores."
        ),
        paper="Support as in the box voting of Gidaris and Komodakis 2015, section 3.2",
        doubt="It says where the candidates lay, not what in the image made them.",
    ),
)
def detection_trace(model: Adapter, image: Tensor, decisions: Sequence[Decision], generator: torch.Generator) -> Maps:
    """Support of a box: share of the score of all candidates merged into it whose boxes cover a pixel; in [0, 1].

    Merged are the candidate that became the box and those of its class that it suppressed; see ``cluster`` for a given
    box.  Zero everywhere where no candidate is near.  The score is the box's raw class logit.  A map says where the
    candidates lay, not what in the image made them: all have been judged by the same network.
    """
    for decision in decisions:
        if decision.box is None or decision.edge is not None or decision.cells is not None or decision.versus is not None:
            raise MethodError(f"target {decision.target}: detection-trace shows how a whole box came about; give the box alone, e.g. box:0")
    trace = model.trace(image[0])
    with torch.no_grad():
        scores = model.score_table(image, decisions)[:, 0]
    return Maps(torch.stack([support(trace, cluster(trace, decision.target)) for decision in decisions]), scores, trace=trace)


def cluster(trace: Trace, target: str | Target) -> Tensor:
    """Rows of the candidates behind a box target, the strongest first.

    Of a final box it and those that it suppressed.  Of a given box, which no candidate need have become: those of its
    class that overlap it by more than the threshold of the suppression, whatever became of them.
    """
    target = Target.parse(target) if isinstance(target, str) else target
    if target.kind == "given":
        rows = torch.where(trace.labels == trace.classes.index(target.name or ""))[0]
        near = box_iou(trace.boxes.new_tensor([target.place]), trace.boxes[rows])[0] > trace.nms
        return rows[near][trace.scores[rows[near]].argsort(descending=True, stable=True)]
    if target.kind == "box":
        return trace.merged(target.index)
    finals = trace.finals[(trace.labels == trace.classes.index(target.name or "")) & (trace.finals >= 0)]
    return trace.merged(int(finals.min()))


def support(trace: Trace, rows: Tensor) -> Tensor:
    """(H, W) in [0, 1]: the summed scores of the boxes of ``rows`` that cover the middle of a pixel, of all their scores."""
    height, width = trace.image_size
    boxes, scores = trace.boxes[rows].double(), trace.scores[rows].double()
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    across = ((x >= boxes[:, :1]) & (x < boxes[:, 2:3])).double()
    down = ((y >= boxes[:, 1:2]) & (y < boxes[:, 3:])).double()
    covered = torch.einsum("k,kh,kw->hw", scores, down, across)
    return (covered / scores.sum().clamp(min=torch.finfo(torch.float64).tiny)).clamp(max=1).float()
