"""The trace of a detector: its final boxes are those of ``predict``, and every fate is what a plain second reading says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import xaitools as xt
from tests.detectors import CLASSES, DETECTORS, TWO_STAGE, model_of
from tests.nets import detector, picture, segmenter, settled
from xaitools.adapters import PlainDetector
from xaitools.adapters.tracing import resuppressed
from xaitools.architectures import ARCHITECTURES
from xaitools.errors import MethodError, ModelError
from xaitools.types import BELOW, BEYOND, EMPTY, FATES, KEPT, SUPPRESSED, UNRANKED, Decision, Trace


class Fixed(nn.Module):
    """Says the same of every image: boxes (A, 4) and logits (A, C), and where the boxes started."""

    kind = "cell"

    def __init__(self, boxes: list[list[float]], logits: list[list[float]]) -> None:
        super().__init__()
        self.boxes, self.logits = torch.tensor(boxes), nn.Parameter(torch.tensor(logits))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"boxes": self.boxes.expand(len(x), -1, -1), "logits": self.logits.expand(len(x), -1, -1)}

    def priors(self, size: tuple[int, int]) -> Tensor:
        return torch.arange(len(self.boxes))[:, None] + torch.tensor([0.0, 0.0, 1.0, 1.0])


class Queries(Fixed):
    priors = None


def grid(name: str, **options: object) -> PlainDetector:
    net = settled(ARCHITECTURES[name](3, widths=((4,), (6,), (8,)), **options))
    return PlainDetector(net, CLASSES, background="none", score_threshold=0.2, nms=0.3)


def small(name: str) -> Any:
    """One of each family, with a suppression so eager that something is suppressed."""
    model = model_of(DETECTORS[name](), score_threshold=0.2 if name == "fcos" else 0.05)
    if name == "fcos":
        model.module.nms_thresh = 0.1
    return model


MODELS: dict[str, Callable[[], Any]] = {
    **{name: partial(small, name) for name in DETECTORS}, "ours": lambda: detector(torch.float64),
    "yolo": lambda: grid("yolo", anchors=((8, 8), (16, 12))), "yolo-v1": lambda: grid("yolo-v1"),
}  # fmt: skip


def greedy(rows: list[int], boxes: list[list[float]], scores: list[float], nms: float) -> dict[int, tuple[int, float] | None]:
    """Suppression as it is told in a lecture: the best box left stays, and takes away those that overlap it too much."""
    left, result = sorted(rows, key=lambda row: -scores[row]), {}
    while left:
        best = left.pop(0)
        result[best] = None
        for row in list(left):
            width = min(boxes[best][2], boxes[row][2]) - max(boxes[best][0], boxes[row][0])
            height = min(boxes[best][3], boxes[row][3]) - max(boxes[best][1], boxes[row][1])
            inside = max(width, 0) * max(height, 0)
            areas = [(boxes[each][2] - boxes[each][0]) * (boxes[each][3] - boxes[each][1]) for each in (best, row)]
            if inside / (sum(areas) - inside) > nms:
                left.remove(row)
                result[row] = (best, inside / (sum(areas) - inside))
    return result


def assert_suppressed_as_told(trace: Trace, groups: Tensor, scores: Tensor) -> None:
    """All rows that suppression was given end as the plain version says; ``groups`` do not suppress each other."""
    boxes, found = trace.boxes.tolist(), 0
    given = torch.isin(trace.fates, torch.tensor([KEPT, SUPPRESSED, BEYOND]))
    for group in groups.unique():
        rows = torch.where(given & (groups == group))[0]
        rows = rows[(trace.fates[rows] == SUPPRESSED).int().argsort(stable=True)]  # of equals any may win
        for row, lost in greedy(rows.tolist(), boxes, scores.tolist(), trace.nms).items():
            assert (trace.fates[row] == SUPPRESSED) == (lost is not None), FATES[int(trace.fates[row])]
            if lost is not None:
                assert int(trace.winners[row]) == lost[0]
                assert float(trace.overlaps[row]) == pytest.approx(lost[1], abs=1e-4)
                found += 1
    assert bool((trace.winners[trace.fates != SUPPRESSED] == -1).all()) and bool(trace.overlaps[trace.fates != SUPPRESSED].isnan().all())
    assert found == int((trace.fates == SUPPRESSED).sum()) > 0


def assert_is_prediction(trace: Trace, prediction: xt.Prediction) -> Tensor:
    """The rows of the final boxes, once these are found to be the prediction's."""
    rows = torch.where(trace.finals >= 0)[0]
    rows = rows[trace.finals[rows].argsort()]
    assert torch.equal(torch.where(trace.fates == KEPT)[0], torch.where(trace.finals >= 0)[0])
    assert trace.finals[rows].tolist() == list(range(len(prediction.labels)))
    for ours, theirs in ((trace.boxes, prediction.boxes), (trace.scores, prediction.scores), (trace.labels, prediction.labels)):
        assert torch.equal(ours[rows], theirs)
    return rows


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(48, 64), (41, 53)])
def test_final_boxes_are_the_predicted_ones_and_suppression_is_greedy(name, size):
    if "yolo" in name:
        size = (48, 64)
    model, image = MODELS[name](), picture(*size, seed=1)
    prediction, trace = model.predict(image[None])[0], model.trace(image)
    rows = assert_is_prediction(trace, prediction)
    assert len(rows) >= 2 and trace.image_size == size and trace.classes == model.classes
    if prediction.origins is not None:
        torch.testing.assert_close(trace.priors[rows], prediction.origins, atol=0, rtol=0, check_dtype=False)
    else:
        assert torch.equal(trace.candidates[rows], prediction.anchors)
    assert_suppressed_as_told(trace, trace.labels, trace.scores)


@pytest.mark.parametrize("name", MODELS)
def test_a_row_for_all_above_the_threshold_and_each_candidates_best(name):
    model, image = MODELS[name](), picture(48, 64, seed=1)
    trace = model.trace(image)
    count = int(trace.candidates.max()) + 1
    assert trace.candidates.unique().tolist() == list(range(count))
    pairs = trace.candidates * len(trace.classes) + trace.labels
    assert bool((pairs.diff() > 0).all())
    above = trace.scores > trace.score_threshold
    assert bool((trace.fates[~above] == BELOW).all()) and not bool((trace.fates[above] == BELOW).any())
    lone = ~above & (trace.candidates.bincount()[trace.candidates] > 1)
    assert not bool(lone.any()), "below the threshold only the best class of a candidate is there"

    def every(score_threshold: float) -> Trace:
        model.score_threshold = score_threshold
        return model.trace(image)

    everything = every(-1.0)
    assert len(everything.labels) == count * len(trace.classes)
    assert int((everything.scores > trace.score_threshold).sum()) == int(above.sum())
    best = everything.scores.view(count, -1).max(1).values
    torch.testing.assert_close(torch.zeros(count).scatter_reduce(0, trace.candidates, trace.scores, "amax"), best)


@pytest.mark.parametrize("name", MODELS)
def test_every_row_leads_back_to_its_logit(name):
    model, image = MODELS[name](), picture(*((48, 64) if "yolo" in name else (41, 53)), seed=1)
    trace = model.trace(image)
    rows = torch.cat([torch.where(trace.fates == fate)[0][:4] for fate in range(len(FATES))]).tolist()
    two = trace.kind == "proposal"
    places = [{"proposal": trace.priors[row]} if two else {"anchor": int(trace.candidates[row])} for row in rows]
    decisions = [Decision("a row", int(trace.labels[row]), **place) for row, place in zip(rows, places, strict=True)]
    with torch.no_grad():
        torch.testing.assert_close(model.scores(image[None], decisions).double(), trace.logits[rows].double(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", TWO_STAGE)
def test_the_first_stage_ends_in_the_proposals(name):
    model, image = MODELS[name](), picture(48, 64, seed=1)
    trace, rpn = model.trace(image), model.module.rpn
    if not hasattr(rpn, "head"):
        assert trace.first is None and trace.priors is not None
        return
    first = trace.first
    with torch.no_grad():
        batch, features = model._features(model.normalise(image[None]))
        anchors = rpn.anchor_generator(batch, list(features.values()))[0]
        counts = [level.numel() for level in rpn.head(list(features.values()))[0]]
    assert first.kind == "anchor" and first.classes == ("object",) and first.first is None
    assert first.candidates.tolist() == list(range(len(anchors))) and len(first.labels) == sum(counts)
    torch.testing.assert_close(first.scores, first.logits.sigmoid().float())
    kept = torch.where(first.finals >= 0)[0]
    kept = kept[first.finals[kept].argsort()]
    assert len(kept) == int(trace.candidates.max()) + 1
    assert torch.equal(first.boxes[kept][trace.candidates], trace.priors)
    assert_suppressed_as_told(first, torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)), first.logits)

    rpn._pre_nms_top_n["testing"] = 7
    fewer = model.trace(image).first
    for fates, logits in zip(fewer.fates.split(counts), fewer.logits.split(counts), strict=True):
        best = torch.zeros(len(logits), dtype=torch.bool)
        best[logits.topk(7).indices] = True
        assert torch.equal(fates == UNRANKED, ~best & (fates != EMPTY)) and bool((fates == UNRANKED).any())


@pytest.mark.parametrize("name", [*DETECTORS, "yolo"])
def test_beyond_the_largest_number_of_boxes(name):
    model, image = MODELS[name](), picture(48, 64, seed=1)
    before = model.trace(image)
    most = 20 if "retinanet" in name else 3
    if name == "yolo":
        model.most = most
    else:
        getattr(model.module, "roi_heads", model.module).detections_per_img = most
    trace = model.trace(image)
    count = int((trace.fates == KEPT).sum())  # the unused output of a RetinaNet takes places too
    assert trace.most == most >= count > 0 and int((before.fates == KEPT).sum()) > count
    assert torch.equal(trace.fates == KEPT, (before.finals >= 0) & (before.finals < count))
    assert torch.equal(trace.fates == BEYOND, (before.fates == BEYOND) | (before.finals >= count))
    assert torch.equal(trace.winners, before.winners), "what is beyond the number still suppresses"


@pytest.mark.parametrize("name", ["retinanet", "fcos", "ssd"])
def test_not_among_the_best_of_one_stage(name):
    model, image = MODELS[name](), picture(48, 64, seed=1)
    model.module.topk_candidates = 3
    trace = model.trace(image)
    assert int((trace.fates == UNRANKED).sum()) > 0
    assert_is_prediction(trace, model.predict(image[None])[0])
    ranked = torch.isin(trace.fates, torch.tensor([KEPT, SUPPRESSED, BEYOND]))
    assert int(ranked.sum()) <= 3 * max(2, len(CLASSES))


def test_every_fate_by_hand():
    """One class unless said; suppression at IoU 0.5 in an image of 20 x 30."""
    boxes = [
        [0.0, 0.0, 10.0, 10.0],  # 0  the best, kept
        [2.0, 0.0, 12.0, 10.0],  # 1  IoU 80 / 120 with it, suppressed
        [4.0, 0.0, 14.0, 10.0],  # 2  IoU 60 / 140 with the best, 2/3 with number 1, which is gone: kept
        [5.0, 0.0, 15.0, 10.0],  # 3  IoU 90 / 110 with number 2: suppressed by it, not by the best (50 / 150)
        [0.0, 0.0, 10.0, 10.0],  # 4  at the best, of the other class: kept
        [20.0, 5.0, 25.0, 9.0],  # 5  below the threshold
        [31.0, 0.0, 40.0, 10.0],  # 6  outside the image
        [20.0, 10.0, 28.0, 18.0],  # 7  the fourth best: beyond
    ]
    logits = [[4.0, -9], [3, -9], [2, -9], [1, -9], [-9, 3.5], [-5, -9], [3, -9], [0.5, -9]]
    model = PlainDetector(Fixed(boxes, logits), ("disc", "square"), background="none", nms=0.5, most=3)
    trace = model.trace(picture(20, 30))
    assert [FATES[fate] for fate in trace.fates.tolist()] == [
        "kept", "suppressed", "kept", "suppressed", "kept", "below", "empty", "beyond",
    ]  # fmt: skip
    assert trace.winners.tolist() == [-1, 0, -1, 2, -1, -1, -1, -1] and trace.finals.tolist() == [0, -1, 2, -1, 1, -1, -1, -1]
    torch.testing.assert_close(trace.overlaps[[1, 3]], torch.tensor([80 / 120, 90 / 110]))
    assert trace.labels.tolist() == [0, 0, 0, 0, 1, 0, 0, 0]
    assert trace.merged(0).tolist() == [0, 1] and trace.merged(2).tolist() == [2, 3] and trace.merged(1).tolist() == [4]
    assert trace.kind == "cell" and trace.priors[3].tolist() == [3, 3, 4, 4]
    assert trace.boxes[6].tolist() == [30, 0, 30, 10], "clipped"
    assert_is_prediction(trace, model.predict(picture(20, 30)[None])[0])


def test_queries_have_no_start():
    trace = PlainDetector(Queries([[0.0, 0, 9, 9]], [[2.0]]), ("disc",), background="none").trace(picture(20, 30))
    assert trace.kind == "candidate" and trace.priors is None and trace.first is None


@pytest.mark.parametrize(("name", "options"), [("yolo", {"anchors": ((8, 8), (16, 12))}), ("yolo-v1", {})])
def test_where_the_boxes_of_a_grid_start(name, options):
    net = settled(ARCHITECTURES[name](3, widths=((4,), (6,), (8,)), **options))
    priors = net.priors((48, 64))
    with torch.no_grad():
        boxes = net(torch.rand(1, 3, 48, 64))["boxes"][0]
    assert priors.shape == boxes.shape
    centres, starts = (boxes[:, :2] + boxes[:, 2:]) / 2, (priors[:, :2] + priors[:, 2:]) / 2
    assert bool(((centres - starts).abs() <= 4 + 1e-4).all()), "a box's middle stays in its cell of 8 pixels"
    net.head.weight.data.zero_()
    net.head.bias.data.zero_()
    with torch.no_grad():
        still = net(torch.zeros(1, 3, 48, 64))["boxes"][0]
    torch.testing.assert_close((still[:, :2] + still[:, 2:]) / 2, starts)
    if name == "yolo":
        torch.testing.assert_close(still, priors)
    else:
        assert priors[:2].tolist() == [[0, 0, 8, 8]] * 2 and priors[-1].tolist() == [56, 40, 64, 48]


def test_wrong_starts_are_one_line():
    model = PlainDetector(Fixed([[0.0, 0, 9, 9]], [[2.0]]), ("disc",), background="none", name="mine")
    model.module.priors = lambda size: torch.zeros(3, 4)
    with pytest.raises(ModelError, match=r"mine: priors are \(3, 4\); expected \(1, 4\)"):
        model.trace(picture(20, 30))


@pytest.mark.parametrize("name", ["faster-rcnn", "mask-rcnn", "ssd", "fcos", "yolo"])
def test_nothing_is_left_on_the_model(name):
    model, image = MODELS[name](), picture(48, 64)
    model.module.train()
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    part = getattr(model.module, "roi_heads", model.module)
    threshold = getattr(part, "score_thresh", None)
    model.trace(image)
    assert all(part.training for part in model.module.modules()) and getattr(part, "score_thresh", None) == threshold
    assert all(torch.equal(value, before[key]) for key, value in model.module.state_dict().items())
    assert not any(part._forward_hooks for part in model.module.modules())


def test_another_first_stage_is_refused():
    model = MODELS["faster-rcnn"]()
    plain = model.module.rpn.filter_proposals

    def other(*given):
        boxes, scores = plain(*given)
        return [each[1:] for each in boxes], scores

    model.module.rpn.filter_proposals = other
    with pytest.raises(ModelError, match="black box"):
        model.trace(picture(48, 64))


def test_what_has_no_candidates_refuses_in_one_line():
    class Boxes(nn.Module):
        def forward(self, x):
            return [{"boxes": torch.tensor([[1.0, 1, 9, 9]]), "labels": torch.tensor([1]), "scores": torch.tensor([0.9])} for _ in x]

    black = xt.wrap(Boxes(), task="detection", classes=["disc"], name="boxes")
    with pytest.raises(MethodError, match="boxes is a black box that returns only final boxes"):
        black.trace(picture(20, 30))
    with pytest.raises(MethodError, match="a segmentation model that shows no candidates"):
        segmenter().trace(picture(20, 30))
    with pytest.raises(MethodError, match="needs candidates; .* is a segmentation model that gives none"):
        xt.explain(segmenter(), picture(), "top", "detection-trace")
    with pytest.raises(MethodError, match="boxes is a black box"):
        xt.explain(black, picture(20, 30), "box:0", "detection-trace")


@pytest.mark.parametrize("name", ["faster-rcnn-scenes", "yolo-scenes"])
def test_trained_models_on_scenes(name):
    model, scenes = xt.load_model(name), xt.load_dataset("scenes:test?n=6")
    for index in range(2, 6):
        image = scenes[index].image
        trace = model.trace(image)
        assert_is_prediction(trace, model.predict(image[None])[0])
        assert_suppressed_as_told(trace, trace.labels, trace.scores)


def test_a_trained_model_on_a_photograph(data_root):
    model, image = xt.load_model("faster-rcnn-bccd"), xt.load_dataset(f"voc:{data_root}/bccd#test")[0].image
    trace = model.trace(image)
    assert_is_prediction(trace, model.predict(image[None])[0])
    assert_suppressed_as_told(trace, trace.labels, trace.scores)
    assert_suppressed_as_told(trace.first, trace.first.labels, trace.first.logits)  # one level


@pytest.mark.parametrize("name", ["ours", "yolo", "ssd"])
@pytest.mark.parametrize(("score", "nms"), [(0.3, 0.1), (0.25, 0.7)])
def test_other_thresholds_give_what_the_network_would_with_them(name, score, nms):
    model, image = MODELS[name](), picture(48, 64)
    before = model.trace(image)
    same = resuppressed(before, before.score_threshold, before.nms)
    for field in ("fates", "finals", "winners"):
        assert torch.equal(getattr(same, field), getattr(before, field))
    model.score_threshold = score
    if isinstance(model, PlainDetector):
        model.nms = nms
    else:
        getattr(model.module, "roi_heads", model.module).nms_thresh = nms
    asked, again = model.trace(image), resuppressed(before, score, nms)

    def told(trace):
        rows = zip(trace.candidates.tolist(), trace.labels.tolist(), trace.fates.tolist(), trace.finals.tolist(), strict=True)
        return {(candidate, label): (FATES[fate], final) for candidate, label, fate, final in rows if fate != BELOW}

    assert told(again) == told(asked) != told(before) and asked.score_threshold == again.score_threshold == score
    with pytest.raises(ModelError, match="with which the model was asked"):
        resuppressed(before, before.score_threshold - 0.01, nms)
