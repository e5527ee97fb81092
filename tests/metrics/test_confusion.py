from __future__ import annotations

import numpy as np
import pytest

from xaitools.metrics import Table, image_statistics, image_weights
from xaitools.metrics.confusion import FATES, KINDS, Confusion, kinds
from xaitools.metrics.statistics import unit_weights

CLASSES = ("cat", "dog", "eel")
ONCE = np.ones((4, 1))


def told(pair, **options):
    one = kinds(*pair, **options)
    return [KINDS[each] for each in one.kind], [FATES[each] for each in one.fate]


def test_each_kind_by_hand(make_boxed):
    truth = [(0, 0, 0, 10, 10), (1, 20, 0, 30, 10), (2, 40, 0, 50, 10), (0, 60, 0, 70, 10)]
    found = [
        (0, 0.99, 0, 0, 10, 10),  # right
        (0, 0.98, 0, 0, 10, 9),  # duplicate
        (1, 0.97, 24, 0, 34, 10),  # IoU 3/7 with the dog: wrong place
        (0, 0.96, 40, 0, 50, 10),  # on the eel: wrong class
        (1, 0.95, 45, 0, 55, 10),  # IoU 1/3 with the eel: both wrong
        (2, 0.94, 0, 40, 10, 50),  # background
        (2, 0.93, 9, 0, 20, 10),  # shares 10 of 200 pixels with the cat: background too
    ]
    kind, fate = told(make_boxed(truth, found))
    assert kind == ["right", "duplicate", "wrong_place", "wrong_class", "both_wrong", "background", "background"]
    assert fate == ["found", "wrong_place", "wrong_class", "unseen"]


def test_the_bounds_belong_to_the_better_kind(make_boxed):
    pair = make_boxed([(0, 0, 0, 10, 10)], [(0, 0.9, 0, 0, 10, 5)])  # IoU exactly 0.5
    assert told(pair, iou=0.5) == (["right"], ["found"]) and told(pair, iou=0.51) == (["wrong_place"], ["wrong_place"])
    pair = make_boxed([(0, 0, 0, 10, 10)], [(0, 0.9, 0, 0, 10, 1)])  # exactly 0.1
    assert told(pair) == (["wrong_place"], ["wrong_place"])


@pytest.mark.parametrize("score", [0.7, 0.3, 0.5, 0.1])
def test_a_score_that_is_just_reached_counts(make_boxed, score):
    assert told(make_boxed([(0, 0, 0, 10, 10)], [(0, score, 0, 0, 10, 10)]), score=score)[0] == ["right"]
    assert told(make_boxed([(0, 0, 0, 10, 10)], [(0, score - 0.01, 0, 0, 10, 10)]), score=score) == ([], ["unseen"])


def test_a_difficult_truth_is_ignored_on_both_sides(make_boxed):
    pair = make_boxed([(0, 0, 0, 10, 10), (0, 20, 0, 30, 10)], [(0, 0.9, 0, 0, 10, 10)] * 2, ignore=[True, False])
    assert told(pair) == (["ignored", "ignored"], ["unseen"])
    confusion = Confusion(CLASSES)
    confusion.add(*pair)
    found = confusion.document(ONCE)
    assert (found["precision"], found["recall"], found["truths"], found["detections"]) == (None, 0.0, 1, 2)


def plain_kinds(pair, iou, score):
    """The same by loops and sentences."""
    sample, prediction = pair
    order = sorted(range(len(prediction.scores)), key=lambda i: -float(prediction.scores[i]))
    taken, names = set(), []
    for i in order:
        if prediction.scores[i] < score:
            continue
        own, other = [], []
        for j in range(len(sample.labels)):
            a, b = prediction.boxes[i].tolist(), sample.boxes[j].tolist()
            shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
            whole = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
            (own if sample.labels[j] == prediction.labels[i] else other).append((shared / whole, -j))
        best, place = max(own, default=(0, 0))
        if best >= iou:
            if sample.ignore is not None and sample.ignore[-place]:
                names.append("ignored")
            else:
                names.append("duplicate" if place in taken else "right")
                taken.add(place)
        elif best >= 0.1:
            names.append("wrong_place")
        elif max(other, default=(0, 0))[0] >= iou:
            names.append("wrong_class")
        else:
            names.append("both_wrong" if max(other, default=(0, 0))[0] >= 0.1 else "background")
    return names


@pytest.mark.parametrize("seed", range(25))
def test_kinds_equal_the_plain_loop_and_every_one_is_counted_once(make_random_boxes, seed):
    generator = np.random.default_rng(seed)
    pairs = [make_random_boxes(generator, str(place)) for place in range(6)]
    for iou, score in ((0.5, 0.0), (0.7, 0.4)):
        confusion = Confusion(CLASSES, iou=iou, score=score)
        names = []
        for pair in pairs:
            assert told(pair, iou=iou, score=score)[0] == plain_kinds(pair, iou, score)
            names += plain_kinds(pair, iou, score)
            confusion.add(*pair)
        found = confusion.document(np.ones((1, len(pairs))))
        assert found["kinds"] == {kind: names.count(kind) for kind in KINDS}
        table = np.array(found["table"]["counts"])
        rows = found["per_class"].values()
        assert table[:, :-1].sum(0).tolist() == [row["detections"] for row in rows]
        assert (table.diagonal()[:-1] + table[:-1, -1]).tolist() == [row["truths"] for row in rows]
        assert found["missed"]["all"] + found["kinds"]["right"] == found["truths"]
        assert table[-1, -1] == 0


def test_right_is_what_average_precision_counts(make_random_boxes):
    generator = np.random.default_rng(1)
    for place in range(20):
        pair = make_random_boxes(generator, str(place))
        one, rows = kinds(*pair, score=0.0), image_statistics(*pair)
        assert (one.kind == 0).tolist() == (rows["matched"] & 1).astype(bool).tolist()
        assert (one.kind == 1).tolist() == (rows["void"] & 1).astype(bool).tolist()


def test_precision_and_recall_with_intervals(make_boxed):
    confusion = Confusion(CLASSES)
    confusion.add(*make_boxed([(0, 0, 0, 10, 10), (1, 20, 0, 30, 10)], [(0, 0.9, 0, 0, 10, 10)]))
    confusion.add(*make_boxed([(1, 0, 0, 10, 10)], [(1, 0.9, 0, 0, 10, 10), (0, 0.8, 30, 30, 40, 40)]))
    found = confusion.document(np.array([[2, 0], [0, 2], [1, 1]] * 50))
    assert (found["precision"], found["recall"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert found["per_class"]["cat"]["precision"] == 0.5 and found["per_class"]["cat"]["recall"] == 1
    assert found["per_class"]["dog"]["recall"] == 0.5 and found["per_class"]["eel"]["recall"] is None


def test_the_interval_of_precision_is_that_of_a_share(make_boxed):
    confusion, right = Confusion(CLASSES), np.arange(150) % 5 > 0
    for one in right:
        confusion.add(*make_boxed([(0, 0, 0, 10, 10)], [(0, 0.9, 0, 0, 10, 10) if one else (0, 0.9, 20, 20, 30, 30)]))
    ids = [str(place) for place in range(150)]
    found = confusion.document(image_weights(ids, seed=0, replicates=2000))
    half = 1.96 * np.sqrt(0.8 * 0.2 / 150)
    assert found["precision_ci"] == pytest.approx([0.8 - half, 0.8 + half], abs=0.015) and found["recall_ci"] == found["precision_ci"]
    fives = [str(place // 5) for place in range(150)]
    drawn = image_weights(ids, seed=0, replicates=200, clusters=fives)
    assert confusion.document(drawn, fives)["precision_ci"] == pytest.approx([0.8, 0.8])  # every cluster has one wrong of five
    few = [str(place // 50) for place in range(150)]
    assert confusion.document(unit_weights(ids, few, seed=0, replicates=9), few)["precision_ci"] is None


def test_top_five_needs_more_than_five_classes():
    rows = [{"label": np.array([k]), "guess": np.array([0]), "in_top5": np.array([k < 5])} for k in range(7)]
    assert Table("classification", [str(k) for k in range(7)], rows).extra() == {"top5": pytest.approx(5 / 7)}
    assert Table("classification", ["a", "b"], [{"label": np.array([0]), "guess": np.array([0])}]).extra() == {}
