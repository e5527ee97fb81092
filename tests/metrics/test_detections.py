"""COCO's numbers against pycocotools, other IoU levels, sizes and curves."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from xaitools.errors import XaiError
from xaitools.metrics import Table, image_statistics
from xaitools.metrics.average_precision import Boxes
from xaitools.metrics.detections import Detections, parsed_levels

CLASSES = ("cat", "dog", "eel")


def enlarged(pair, factor=4):
    sample, prediction = pair
    return replace(sample, boxes=sample.boxes * factor), replace(prediction, boxes=prediction.boxes * factor)


def with_masks(pair, generator):
    """Each box filled but for some columns, on both sides."""
    sample, prediction = pair

    def drawn(boxes):
        masks = torch.zeros(len(boxes), 70, 70, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().clamp(0, 70).tolist(), strict=True):
            mask[y1:y2, x1 : max(x1 + 1, x2 - int(generator.integers(0, 4)))] = True
        return masks

    return replace(sample, masks=drawn(sample.boxes)), replace(prediction, task="instances", masks=drawn(prediction.boxes))


def by_pycocotools(pairs, kind="bbox"):
    """COCO's twelve numbers."""
    from pycocotools import mask as rle
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truths, found = [], []
    for image, (sample, prediction) in enumerate(pairs):
        for side, rows in ((sample, truths), (prediction, found)):
            for place, (label, box) in enumerate(zip(side.labels.tolist(), side.boxes.tolist(), strict=True)):
                x, y, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
                entry = {"image_id": image, "category_id": label, "bbox": [x, y, width, height]}
                if kind == "segm":
                    entry["segmentation"] = rle.encode(np.asfortranarray(side.masks[place].numpy().astype(np.uint8)))
                if rows is truths:
                    area = width * height if side.masks is None else int(side.masks[place].sum())
                    entry |= {"id": len(truths) + 1, "iscrowd": int(sample.ignore[place]), "area": area}
                else:
                    entry["score"] = float(prediction.scores[place])
                rows.append(entry)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        images = [{"id": place, "height": 70, "width": 70} for place in range(len(pairs))]
        coco.dataset = {"images": images, "categories": [{"id": place} for place in range(3)], "annotations": truths}
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(found), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats


def close(value, reference):
    assert (-1 if value is None else value) == pytest.approx(reference, abs=1e-9)


@pytest.mark.parametrize("seed", range(15))
def test_boxes_equal_pycocotools_at_all_sizes(make_random_boxes, seed):
    generator = np.random.default_rng(200 + seed)
    pairs = [enlarged(make_random_boxes(generator, str(place))) for place in range(10)]
    stats = by_pycocotools(pairs)
    extra = Table("detection", CLASSES, [image_statistics(*pair) for pair in pairs]).extra()
    measured = Detections(CLASSES)
    for pair in pairs:
        measured.add(*pair)
    sizes = measured.sizes()
    assert sum(value is not None for value in sizes.values()) >= 2
    for value, reference in zip([extra["mAP"], extra["AP50_coco"], extra["AP75_coco"], *sizes.values()], stats[:6], strict=True):
        close(value, reference)


@pytest.mark.parametrize("seed", range(8))
def test_masks_equal_pycocotools(make_random_boxes, seed):
    generator = np.random.default_rng(300 + seed)
    pairs = [with_masks(make_random_boxes(generator, str(place)), generator) for place in range(8)]
    stats = by_pycocotools(pairs, "segm")
    extra = Table("instances", CLASSES, [image_statistics(*pair) for pair in pairs]).extra()
    for name, reference in zip(("mask_mAP", "mask_AP50_coco", "mask_AP75_coco"), stats, strict=False):
        close(extra[name], reference)


# ---- levels ----------------------------------------------------------------------------------------------------


def test_levels_by_hand(make_boxed):
    pair = make_boxed([(0, 0, 0, 10, 10), (0, 20, 0, 30, 10)], [(0, 0.9, 0, 0, 10, 8), (0, 0.8, 20, 0, 30, 6)])  # IoU 0.8 and 0.6
    measured = Detections(CLASSES, (0.3, 0.6, 0.62, 0.8, 0.81))
    measured.add(*pair)
    found = measured.document("detection", np.ones((3, 1)))
    assert found["iou"] == {"0.30": 1.0, "0.60": 1.0, "0.62": 0.5, "0.80": 0.5, "0.81": 0.0}
    assert found["detections"]["iou"] == 0.5 and found["detections"]["kinds"]["right"] == 2


def test_a_level_of_the_ten_is_the_same_number(make_random_boxes):
    generator = np.random.default_rng(3)
    pairs = [make_random_boxes(generator, str(place)) for place in range(12)]
    rows = [image_statistics(*pair) for pair in pairs]
    measured = Detections(CLASSES, parsed_levels("0.5:0.95:0.05"))
    for pair in pairs:
        measured.add(*pair)
    found = measured.document("detection", np.ones((1, len(pairs))))["iou"]
    assert len(found) == 10 and len(set(found.values())) > 3
    for level, value in enumerate(found.values()):
        assert value == pytest.approx(Table("detection", CLASSES, rows, level).metric())


def test_more_levels_than_bits_of_a_short(make_boxed):
    pair = make_boxed([(0, 0, 0, 10, 10)], [(0, 0.9, 0, 0, 10, 7)])
    measured = Detections(CLASSES, parsed_levels("0.05:0.95:0.05"))
    measured.add(*pair)
    found = measured.document("detection", np.ones((1, 1)))["iou"]
    assert [value for name, value in found.items() if float(name) <= 0.7] == [1.0] * 14
    assert [value for name, value in found.items() if float(name) > 0.7] == [0.0] * 5


@pytest.mark.parametrize(
    "text", ["", "x", "0", "1.1", "0.5:0.9", "0.9:0.5:0.1", "0.5:0.9:0", "0.1:0.9:0.001", "nan", "0.5:inf:0.1", "-0.5"]
)
def test_levels_that_are_none_are_one_line(text):
    with pytest.raises(XaiError, match="expected levels above 0 and up to 1"):
        parsed_levels(text)


# ---- the curve -------------------------------------------------------------------------------------------------


def test_precision_recall_by_hand(make_boxed):
    truth = [(0, 20 * place, 0, 20 * place + 10, 10) for place in range(4)]
    found = [
        (0, 0.9, 0, 0, 10, 10), (0, 0.8, 0, 40, 10, 50), (0, 0.7, 20, 0, 30, 10),
        (0, 0.6, 20, 40, 30, 50), (0, 0.5, 40, 0, 50, 10),
    ]  # fmt: skip
    boxes = Boxes([image_statistics(*make_boxed(truth, found))], 3)
    curve = boxes.precision_recall(0)
    by_recall = dict(zip(range(101), zip(curve["precision"], curve["score"], strict=True), strict=True))
    assert by_recall[0] == by_recall[25] == (1.0, 0.9)
    assert by_recall[26] == by_recall[50] == (round(2 / 3, 6), 0.7)
    assert by_recall[75] == (0.6, 0.5)
    assert by_recall[76] == by_recall[100] == (0.0, None)
    assert boxes.precision_recall() == curve
    assert boxes.precision_recall(1) == {"precision": None, "score": None}


def test_the_curve_of_one_image_without_boxes_is_empty(make_boxed):
    curve = Boxes([image_statistics(*make_boxed([(0, 0, 0, 10, 10)]))], 3).precision_recall(0)
    assert set(curve["precision"]) == {0.0} and set(curve["score"]) == {None}


def test_a_difficult_truth_is_on_no_curve(make_boxed):
    found = [(0, 0.9, 0, 0, 10, 10), (0, 0.7, 20, 0, 30, 10)]
    rows = [image_statistics(*make_boxed([(0, 0, 0, 10, 10), (0, 20, 0, 30, 10)], found, ignore=[True, False]))]
    assert set(Boxes(rows, 3).precision_recall(0)["precision"]) == {1.0}
