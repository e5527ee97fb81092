from __future__ import annotations

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xaitools.errors import DataError, ModelError
from xaitools.metrics import METRIC, Table, image_statistics
from xaitools.metrics.accuracy import IOUS, coco_match, voc_match
from xaitools.types import IGNORE, TASKS, Prediction, Sample

CLASSES = ("cat", "dog", "eel")
TRUTH = [(0, 0, 0, 10, 10), (0, 20, 0, 30, 10), (0, 40, 0, 50, 10), (0, 60, 0, 70, 10)]


def table(*pairs, task="detection"):
    return Table(task, CLASSES, [image_statistics(*pair) for pair in pairs])


def test_every_task_has_a_metric():
    assert tuple(METRIC) == TASKS


# ---- average precision -----------------------------------------------------------------------------------------


def test_average_precision_by_hand(make_boxed):
    # ranks: right, wrong, right, wrong, right, of four truths; precision 1, 1/2, 2/3, 1/2, 3/5
    found = [
        (0, 0.9, 0, 0, 10, 10), (0, 0.8, 0, 40, 10, 50), (0, 0.7, 20, 0, 30, 10),
        (0, 0.6, 20, 40, 30, 50), (0, 0.5, 40, 0, 50, 10),
    ]  # fmt: skip
    result = table(make_boxed(TRUTH, found))
    assert result.metric() == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    assert result.extra()["AP50_voc07"] == pytest.approx((3 * 1 + 3 * 2 / 3 + 2 * 3 / 5) / 11)
    assert result.extra()["mAP"] == pytest.approx((26 * 1 + 25 * 2 / 3 + 25 * 3 / 5) / 101)


def test_voc07_reads_precision_at_a_recall_that_is_exactly_reached(make_boxed):
    truth = [(0, 8 * i, 0, 8 * i + 6, 6) for i in range(10)]
    found = [(0, 0.9 - i / 100, 8 * i, 0, 8 * i + 6, 6) for i in range(3)]
    assert table(make_boxed(truth, found)).extra()["AP50_voc07"] == pytest.approx(4 / 11)  # recalls 0, .1, .2 and .3


def test_detections_need_not_come_sorted(make_boxed):
    found = [(0, 0.1, 0, 40, 10, 50), (0, 0.9, 0, 0, 10, 10), (0, 0.5, 0, 20, 10, 30)]
    statistics = image_statistics(*make_boxed(TRUTH, found))
    assert statistics["score"].tolist() == pytest.approx([0.9, 0.5, 0.1])
    assert statistics["matched"].tolist() == [2**10 - 1, 0, 0]


def test_a_second_detection_of_one_truth_is_wrong(make_boxed):
    found = [(0, 0.9, 0, 0, 10, 10), (0, 0.8, 0, 0, 10, 9), (0, 0.7, 20, 0, 30, 10)]
    assert image_statistics(*make_boxed(TRUTH, found))["matched"].tolist() == [1023, 0, 1023]
    assert table(make_boxed(TRUTH, found)).metric() == pytest.approx((1 + 2 / 3) / 4)


def test_difficult_truth_counts_neither_way(make_boxed):
    found = [(0, 0.9, 0, 0, 10, 10), (0, 0.8, 0, 0, 10, 9), (0, 0.7, 20, 0, 30, 10)]
    statistics = image_statistics(*make_boxed(TRUTH, found, ignore=[True, False, False, False]))
    assert statistics["matched"].tolist() == [0, 0, 1023]
    assert statistics["void"].tolist() == [1023, 2**9 - 1, 0]  # IoU 0.9 reaches nine of the ten levels
    assert statistics["positives"].tolist() == [3, 0, 0]
    assert Table("detection", CLASSES, [statistics]).metric() == pytest.approx(1 / 3)


def test_voc_and_coco_differ_where_the_best_truth_is_taken():
    iou, nothing = np.array([[0.9, 0.7], [0.8, 0.6]]), np.zeros(2, bool)
    assert voc_match(iou, nothing)[0][:, 0].tolist() == [True, False]
    assert coco_match(iou, iou, nothing)[0][:, 0].tolist() == [True, True]


def test_boxes_of_another_class_do_not_match(make_boxed):
    result = table(make_boxed([(0, 0, 0, 10, 10)], [(1, 0.9, 0, 0, 10, 10)]))
    assert result.per_class() == {"cat": 0.0, "dog": None, "eel": None}
    assert result.metric() == 0


def test_no_detections_is_zero_and_no_truth_is_undefined(make_boxed):
    assert table(make_boxed(TRUTH, [])).metric() == 0
    for pairs in ([make_boxed([], [(0, 0.9, 0, 0, 10, 10)])], [make_boxed([], [])], []):
        result = table(*pairs)
        assert np.isnan(result.metric())
        assert set(result.per_class().values()) == {None}
        assert set(result.extra().values()) <= {None}
        assert np.isnan(result.metric(np.ones((3, len(pairs)), int))).all()


def test_false_alarms_on_an_image_without_truth_count(make_boxed):
    good, empty = make_boxed(TRUTH[:1], [(0, 0.5, 0, 0, 10, 10)]), make_boxed([], [(0, 0.9, 0, 0, 10, 10)], id="b")
    assert table(good).metric() == 1
    assert table(good, empty).metric() == pytest.approx(0.5)


def test_perfect_random_and_inverted_detections_stand_in_order(make_boxed):
    generator = np.random.default_rng(0)
    truth = [(label, *box[1:]) for label, box in zip([0, 1, 2, 0], TRUTH, strict=True)]
    wrong = [(0, 0.9 - i / 10, 0, 30, 9, 39) for i in range(4)]
    hits = [(row[0], 0.4 - i / 10, *row[1:]) for i, row in enumerate(truth)]
    shuffled = [(row[0], score, *row[2:]) for row, score in zip(hits + wrong, generator.permutation(8) / 8, strict=True)]
    perfect = [(row[0], row[1] + 0.55, *row[2:]) for row in hits] + [(row[0], row[1] / 10, *row[2:]) for row in wrong]
    scores = [table(make_boxed(truth, found)).metric() for found in (perfect, shuffled, hits + wrong, wrong)]
    assert scores[0] == 1 and scores[3] == 0
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 4


def plain_ap(pairs, label, recalls=None):
    """The devkit's loop over all detections of a class; every recall, or the mean over ``recalls``."""
    rows = [(float(p.scores[i]), k, i) for k, (_, p) in enumerate(pairs) for i in range(len(p.labels)) if p.labels[i] == label]
    taken, right, wrong, curve, positives = set(), 0, 0, [], 0
    for sample, _ in pairs:
        ignore = torch.zeros(len(sample.labels), dtype=torch.bool) if sample.ignore is None else sample.ignore
        positives += int(((sample.labels == label) & ~ignore).sum())
    for _, k, i in sorted(rows, reverse=True):
        sample, prediction = pairs[k]
        best, where = 0.0, None
        for j in range(len(sample.labels)):
            if sample.labels[j] == label and (overlap := plain_iou(prediction.boxes[i], sample.boxes[j])) > best:
                best, where = overlap, j
        if best >= 0.5 and sample.ignore is not None and sample.ignore[where]:
            continue
        if best >= 0.5 and (k, where) not in taken:
            taken.add((k, where))
            right += 1
        else:
            wrong += 1
        curve.append((right, right / (right + wrong)))
    if not positives:
        return None
    levels = [n / positives for n in range(1, positives + 1)] if recalls is None else recalls
    return sum(max((p for r, p in curve if r / positives >= level), default=0.0) for level in levels) / len(levels)


def plain_iou(a, b):
    a, b = a.tolist(), b.tolist()
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_equals_the_plain_loop(make_random_boxes, seed):
    generator = np.random.default_rng(seed)
    pairs = [make_random_boxes(generator, str(i)) for i in range(6)]
    result = table(*pairs)
    expected = {name: plain_ap(pairs, label) for label, name in enumerate(CLASSES)}
    assert result.per_class() == pytest.approx(expected)
    known = [plain_ap(pairs, label, [n / 10 for n in range(11)]) for label in range(3) if expected[CLASSES[label]] is not None]
    assert result.extra()["AP50_voc07"] == pytest.approx(np.mean(known))


def by_pycocotools(pairs):
    """(AP at IoU 0.5, mean AP over the ten levels) with all detections and all sizes."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def xywh(box):
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    truths, found = [], []
    for image, (sample, prediction) in enumerate(pairs):
        for label, box, crowd in zip(sample.labels.tolist(), sample.boxes.tolist(), sample.ignore.tolist(), strict=True):
            entry = {"id": len(truths) + 1, "image_id": image, "category_id": label, "bbox": xywh(box), "iscrowd": int(crowd)}
            truths.append(entry | {"area": entry["bbox"][2] * entry["bbox"][3]})
        for label, score, box in zip(prediction.labels.tolist(), prediction.scores.tolist(), prediction.boxes.tolist(), strict=True):
            found.append({"image_id": image, "category_id": label, "score": score, "bbox": xywh(box)})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        images, names = [{"id": i} for i in range(len(pairs))], [{"id": i} for i in range(3)]
        coco.dataset = {"images": images, "categories": names, "annotations": truths}
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats[1], run.stats[0]


@pytest.mark.parametrize("seed", range(20))
def test_map_equals_pycocotools(make_random_boxes, seed):
    generator = np.random.default_rng(100 + seed)
    pairs = [make_random_boxes(generator, str(i)) for i in range(8)]
    ap50, ap = by_pycocotools(pairs)
    result = table(*pairs)
    assert result.extra()["mAP"] == pytest.approx(ap, abs=1e-9)
    only_50 = [{**row, "coco_matched": (row["coco_matched"] & 1) * 1023, "coco_void": (row["coco_void"] & 1) * 1023}
               for row in map(lambda pair: image_statistics(*pair), pairs)]  # fmt: skip
    assert Table("detection", CLASSES, only_50).extra()["mAP"] == pytest.approx(ap50, abs=1e-9)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_matchings_use_each_truth_once(seed):
    generator = np.random.default_rng(seed)
    iou = generator.random((generator.integers(0, 9), generator.integers(0, 5)))
    ignore = generator.random(iou.shape[1]) < 0.3
    for matched, void in (voc_match(iou, ignore), coco_match(iou, iou, ignore)):
        assert matched.shape == void.shape == (len(iou), len(IOUS))
        assert not (matched & void).any()
        assert (matched.sum(0) <= (~ignore).sum()).all()
        assert not (matched | void)[iou.max(1, initial=0) < 0.5].any()


# ---- instances -------------------------------------------------------------------------------------------------


def test_masks_are_matched_by_their_own_overlap(make_boxed):
    sample, prediction = make_boxed(TRUTH[:2], [(0, 0.9, 0, 0, 10, 10), (0, 0.8, 20, 0, 30, 10)])
    masks = torch.zeros(2, 60, 80, dtype=torch.bool)
    masks[0, :10, :10], masks[1, :10, 20:30] = True, True
    thin = masks.clone()
    thin[1, :, 23:] = False  # IoU 0.3 inside a perfect box
    prediction = replace(prediction, task="instances", masks=thin)
    result = table((replace(sample, masks=masks), prediction), task="instances")
    assert result.metric() == 1
    assert result.extra()["mask_mAP50"] == pytest.approx(0.5)
    assert table((sample, prediction), task="instances").extra()["mask_mAP50"] is None


# ---- segmentation ----------------------------------------------------------------------------------------------


def mapped(truth, guess, classes=CLASSES):
    truth, guess = torch.as_tensor(truth), torch.as_tensor(guess)
    size = (truth.shape[0], truth.shape[1])
    prediction = Prediction("segmentation", classes, size, torch.zeros(0), torch.zeros(0), semantic=guess)
    return Sample("a", torch.zeros(3, *size), semantic=truth), prediction


def plain_miou(truths, guesses):
    values = []
    for label in range(len(CLASSES)):
        shared = either = truth_pixels = 0
        for t, g in zip(truths.ravel().tolist(), guesses.ravel().tolist(), strict=True):
            if t != IGNORE:
                truth_pixels += t == label
                shared += t == label and g == label
                either += t == label or g == label
        if truth_pixels:
            values.append(shared / either)
    return sum(values) / len(values)


def test_miou_equals_the_plain_loop():
    generator = np.random.default_rng(0)
    for absent in (3, 2):  # with three classes in the truth, and with two
        truths = generator.choice([*range(absent), IGNORE], (5, 6, 7))
        guesses = np.where(generator.random(truths.shape) < 0.6, truths % IGNORE, generator.integers(0, 3, truths.shape))
        result = table(*(mapped(t, g) for t, g in zip(truths, guesses, strict=True)), task="segmentation")
        assert result.metric() == pytest.approx(plain_miou(truths, guesses))
        right = (truths == guesses)[truths != IGNORE].mean()
        assert result.extra() == {"pixel_accuracy": pytest.approx(right)}
        assert [value is None for value in result.per_class().values()] == [False, False, absent == 2]


def test_confusion_has_truth_in_rows():
    pair = mapped([[0, 0, 1, IGNORE]], [[0, 2, 1, 1]])
    assert image_statistics(*pair)["confusion"].reshape(3, 3).tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_perfect_random_and_inverted_maps_stand_in_order():
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, (20, 20))
    guesses = (truth, generator.integers(0, 3, truth.shape), (truth + 1) % 3)
    perfect, random, inverted = (table(mapped(truth, each), task="segmentation").metric() for each in guesses)
    assert perfect == 1 and inverted == 0 and 0.1 < random < 0.3


def test_a_map_of_nothing_but_ignored_pixels_is_undefined():
    result = table(mapped([[IGNORE]], [[0]]), task="segmentation")
    assert np.isnan(result.metric()) and result.extra() == {"pixel_accuracy": None}


def test_a_map_of_another_size_is_the_models_fault():
    with pytest.raises(ModelError, match="image's size"):
        image_statistics(*mapped([[0, 1]], [[0], [1]]))


# ---- classification --------------------------------------------------------------------------------------------


def guessed(label, guess):
    prediction = Prediction("classification", CLASSES, (8, 8), torch.tensor([guess, 0]), torch.tensor([0.9, 0.1]))
    return Sample("a", torch.zeros(3, 8, 8), label=label), prediction


def test_top1_leaves_out_what_the_model_cannot_know():
    result = table(guessed(0, 0), guessed(0, 1), guessed(1, 1), guessed(None, 2), task="classification")
    assert result.metric() == pytest.approx(2 / 3)
    assert result.per_class() == {"cat": 0.5, "dog": 1.0, "eel": None}
    assert result.extra() == {}


# ---- weights ---------------------------------------------------------------------------------------------------


def tables(make_random_boxes, generator, n=9):
    pairs = [make_random_boxes(generator, str(i)) for i in range(n)]
    yield "detection", [image_statistics(*pair) for pair in pairs]
    maps = generator.integers(0, 3, (n, 2, 4, 4))
    maps[:, 0][generator.random((n, 4, 4)) < 0.2] = IGNORE
    maps[: n // 2, 0][maps[: n // 2, 0] == 2] = 0  # a class that only some images have
    yield "segmentation", [image_statistics(*mapped(*each)) for each in maps]
    labels = generator.integers(0, 3, (n, 2))
    yield "classification", [image_statistics(*guessed(int(a), int(b))) for a, b in labels]


@pytest.mark.parametrize("seed", range(4))
def test_weights_equal_images_literally_repeated(make_random_boxes, seed):
    generator = np.random.default_rng(seed)
    for task, rows in tables(make_random_boxes, generator):
        weights = generator.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=150)  # more than one chunk
        fast = Table(task, CLASSES, rows).metric(weights)
        slow = [Table(task, CLASSES, [row for row, k in zip(rows, line, strict=True) for _ in range(k)]).metric() for line in weights]
        np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_only_the_proportions_of_weights_matter(make_random_boxes, seed, factor):
    generator = np.random.default_rng(seed)
    for task, rows in tables(make_random_boxes, generator):
        result, weights = Table(task, CLASSES, rows), generator.integers(0, 3, (4, len(rows)))
        values = result.metric(weights)
        np.testing.assert_allclose(result.metric(factor * weights), values, atol=1e-12)
        assert np.isnan(values).all() or (np.nanmin(values) >= 0 and np.nanmax(values) <= 1 + 1e-12)


def test_weights_of_another_set_are_refused():
    with pytest.raises(ValueError, match="one column an image"):
        Table("classification", CLASSES, []).metric(np.ones((2, 3)))


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_missing_truth_is_one_line(task):
    prediction = Prediction(task, CLASSES, (8, 8), torch.zeros(0), torch.zeros(0))
    with pytest.raises(DataError, match=r"^photo: no "):
        image_statistics(Sample("photo", torch.zeros(3, 8, 8)), prediction)
