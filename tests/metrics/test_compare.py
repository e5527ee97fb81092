from __future__ import annotations

import json

import pytest
import torch

import xaitools as xt
from tests.metrics.test_cost import BlackBox
from xaitools import zoo
from xaitools.errors import DataError, PlanError
from xaitools.metrics.compare import compare

DATA = "scenes:test?n=3&size=64"


def test_cards_give_the_scores_without_data():
    models = [xt.load_model(name) for name in ("unet-scenes", "faster-rcnn-scenes")]
    document = compare(models, rounds=3)
    rows = document["rows"]
    fields = {"model", "task", "dataset", "metric", "value", "gflops", "parameters", "memory_mb", "latency_ms", "train_petaflop"}
    assert all(set(row) >= fields for row in rows)
    assert [(row["model"], row["metric"], row["n"]) for row in rows] == [("unet-scenes", "mIoU", 400), ("faster-rcnn-scenes", "mAP50", 400)]
    assert rows[0]["value"] == zoo.card("unet-scenes")["scores"]["test"]["value"]
    assert rows[0]["parameters"] == 844006 and rows[0]["image_size"] == [96, 96]
    assert rows[0]["train_petaflop"] == pytest.approx(3 * rows[0]["gflops"] * 4000 * 26 / 1e6)
    assert rows[0]["latency_ratio"] == 1 and all(row["latency_n"] == 3 for row in rows)
    assert document["measured"]["flops_per_multiply_add"] == 2
    json.dumps(document, allow_nan=False)


def test_data_is_measured_and_a_model_that_does_not_fit_is_said():
    data = xt.load_dataset(DATA)
    models = [xt.load_model("unet-scenes"), xt.load_model("unet-camvid")]
    document = compare(models, data, rounds=3)
    good, other = document["rows"]
    assert good["value"] == xt.evaluate(models[0], data)["value"] and good["dataset"] == data.name and good["image_size"] == [64, 64]
    assert (other["value"], other["metric"], other["dataset"]) == (None, None, data.name) and other["gflops"] > 1
    assert any(each.startswith("unet-camvid: not judged") for each in document["warnings"])
    with pytest.raises(DataError, match="fewer than half"):
        compare(models[1:], data, rounds=3)


def test_a_black_box_keeps_its_nulls():
    box = BlackBox()
    box.predict = lambda images: [BlackBox.predict(box, images)[0]]
    document = compare([box], rounds=3)
    row = document["rows"][0]
    assert [row[name] for name in ("value", "gflops", "parameters", "memory_mb", "train_petaflop")] == [None] * 5
    assert row["latency_ms"] > 0 and row["image"].startswith("scenes:test?n=1")
    assert any("black box" in each for each in document["warnings"]) and any("--data" in each for each in document["warnings"])


def test_one_name_twice_is_refused():
    with pytest.raises(PlanError, match="given twice"):
        compare([BlackBox(), BlackBox()])


def test_threads_are_stated():
    assert compare([BlackBox()], rounds=3)["measured"]["threads"] == torch.get_num_threads()
