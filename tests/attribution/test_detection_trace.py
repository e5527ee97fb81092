"""The support of a box: the candidates merged into it, weighed by their scores."""

from __future__ import annotations

import pytest
import torch

import xaitools as xt
from tests.adapters.test_trace import Fixed
from tests.nets import detector, picture
from xaitools.adapters import PlainDetector
from xaitools.attribution.detection_trace import cluster
from xaitools.errors import MethodError
from xaitools.types import Trace

BOXES = [[0.0, 0.0, 10.0, 10.0], [2.0, 0.0, 12.0, 10.0], [2.4, 1.0, 12.4, 11.0], [0.0, 0.0, 10.0, 10.0], [20.0, 4.0, 28.0, 14.0]]
LOGITS = [[4.0, -9.0], [3.0, -9.0], [-4.0, -9.0], [-9.0, 3.5], [2.0, -9.0]]


@pytest.fixture
def model() -> PlainDetector:
    return PlainDetector(Fixed(BOXES, LOGITS), ("disc", "square"), background="none", nms=0.5)


def slow_support(trace: Trace, rows: list[int]) -> torch.Tensor:
    values = torch.zeros(trace.image_size)
    total = sum(float(trace.scores[row]) for row in rows)
    for y in range(trace.image_size[0]):
        for x in range(trace.image_size[1]):
            for row in rows:
                x1, y1, x2, y2 = trace.boxes[row].tolist()
                if x1 <= x + 0.5 < x2 and y1 <= y + 0.5 < y2:
                    values[y, x] += float(trace.scores[row]) / total
    return values


@pytest.mark.parametrize(("target", "rows"), [("box:0", [0, 1]), ("class:disc", [0, 1]), ("box:1", [3]), ("box:2", [4]), ("top", [0, 1])])
def test_support_by_hand(model, target, rows):
    attribution = xt.explain(model, picture(20, 30), target, "detection-trace")
    assert cluster(attribution.trace, attribution.target).tolist() == rows
    torch.testing.assert_close(attribution.values, slow_support(attribution.trace, rows))
    assert float(attribution.values.max()) == 1.0 and float(attribution.values.min()) == 0.0
    assert attribution.score == float(attribution.trace.logits[rows[0]])


def test_a_missed_box_has_the_candidates_near_it(model):
    near = xt.explain(model, picture(20, 30), "box:2,1,12,11:disc", "detection-trace")
    assert cluster(near.trace, near.target).tolist() == [0, 1, 2], "also what was kept, suppressed or below the threshold"
    torch.testing.assert_close(near.values, slow_support(near.trace, [0, 1, 2]))
    far = xt.explain(model, picture(20, 30), "box:14,12,20,19:disc", "detection-trace")
    assert not len(cluster(far.trace, far.target)) and float(far.values.abs().sum()) == 0


def test_the_score_is_the_raw_logit_as_for_other_methods():
    model, image = detector(torch.float64), picture()
    ours, theirs = xt.explain(model, image, "box:1", "detection-trace"), xt.explain(model, image, "box:1", "saliency")
    assert ours.score == pytest.approx(theirs.score, abs=1e-10) and theirs.trace is None
    assert ours.score == pytest.approx(float(ours.trace.logits[ours.trace.merged(1)[0]]), abs=1e-10)


def test_all_targets_share_one_trace():
    several = xt.explain_many(detector(), picture(), ["box:0", "box:1"], "detection-trace")
    assert several[0].trace is several[1].trace and not torch.equal(several[0].values, several[1].values)


@pytest.mark.parametrize("target", ["box:0:left", "box:0:vs:", "class:disc:vs:square"])
def test_what_is_no_whole_box_is_refused(target):
    with pytest.raises(MethodError, match=f"target {target}: .* give the box alone"):
        xt.explain(detector(), picture(), target, "detection-trace")
