from __future__ import annotations

import json

import pytest
import torch

from xaitools.errors import DataError, ModelError
from xaitools.metrics import evaluate, predictions
from xaitools.types import IGNORE, Prediction, Sample


class Photographs:
    """Grey images whose left half is sky (dark) and whose right half is road (bright); "broken" cannot be read."""

    name, task, things = "made-up", "segmentation", frozenset()
    classes = semantic_classes = ("Sky", "road")

    def __init__(self, ids=("a", "b", "broken", "c", "wide", "d"), broken=("broken",)):
        self.ids, self.broken = list(ids), broken

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        name = self.ids[index]
        if name in self.broken:
            raise DataError(f"{name}: the picture is damaged")
        semantic = torch.zeros(8, 20 if name == "wide" else 10, dtype=torch.int64)
        semantic[:, semantic.shape[1] // 2 :] = 1
        image = semantic.float().expand(3, -1, -1)
        semantic = torch.where(torch.arange(8)[:, None] == 0, IGNORE, semantic)
        return Sample(name, image, semantic=semantic)


class Threshold:
    """Road where the image is bright; counts the batches it is given and can refuse some images."""

    name, task, classes = "threshold", "segmentation", ("road", "sky", "moon")

    def __init__(self, refused=lambda images: False, upside_down=False):
        self.batches, self.refused, self.upside_down = [], refused, upside_down

    def predict(self, images):
        self.batches.append(tuple(images.shape))
        if self.refused(images):
            raise ModelError("too large for this model")
        semantic = ((images[:, 0] > 0.5) == self.upside_down).long()
        size = tuple(images.shape[-2:])
        return [Prediction(self.task, self.classes, size, torch.zeros(0), torch.zeros(0), semantic=each) for each in semantic]


def test_evaluate_gives_the_document():
    result = evaluate(Threshold(), Photographs(), replicates=50)
    table = result.pop("confusion")
    names = ["road", "sky", "moon"]
    assert table["table"] == {"rows": names, "columns": names, "counts": [[210, 0, 0], [0, 210, 0], [0, 0, 0]]}
    assert table["per_class"]["moon"] == {"precision": None, "recall": None, "truths": 0, "predicted": 0}
    assert result == {
        "model": "threshold",
        "dataset": "made-up",
        "task": "segmentation",
        "n": 5,
        "skipped": [{"id": "broken", "reason": "broken: the picture is damaged"}],
        "metric": "mIoU",
        "value": 1.0,
        "ci": [1.0, 1.0],
        "intervals": {"method": "studentised", "level": 0.95, "unit": "image", "units": 5, "coverage": (0.887, 0.941)},
        "metrics": {"mIoU": 1.0, "pixel_accuracy": 1.0, "per_class": {"road": 1.0, "sky": 1.0, "moon": None}},
        "warnings": ["not judged, because the data has no such class: moon"],
    }
    json.dumps(result, allow_nan=False)


def test_a_wrong_model_scores_nothing():
    assert evaluate(Threshold(upside_down=True), Photographs(), replicates=50)["value"] == 0


def test_neighbours_of_one_size_go_together():
    model = Threshold()
    evaluate(model, Photographs(), batch_size=2, replicates=1)
    assert [shape[0] for shape in model.batches] == [2, 1, 1, 1]
    assert [shape[3] for shape in model.batches] == [10, 10, 20, 10]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_outcomes_keep_their_order(batch_size):
    data = Photographs()
    found = list(predictions(Threshold(), data, range(6), relabel=lambda sample: sample, batch_size=batch_size))
    assert [index for index, _ in found] == list(range(6))
    assert isinstance(found[2][1], DataError)
    for index, outcome in found:
        if index != 2:
            sample, prediction = outcome
            assert sample.id == data.ids[index] and prediction.image_size == tuple(sample.image.shape[1:])


def test_an_image_that_the_model_refuses_does_not_take_its_batch_along():
    bright = torch.ones(3, 8, 10)
    data = Photographs(["a", "b", "c"], [])
    data.__class__ = type("Odd", (Photographs,), {"__getitem__": lambda self, i: Sample(
        self.ids[i], bright * (i == 1), semantic=torch.full((8, 10), int(i == 1)))})  # fmt: skip
    result = evaluate(Threshold(refused=lambda images: bool((images == 1).any())), data, replicates=10)
    assert result["n"] == 2 and result["value"] == 1
    assert result["skipped"] == [{"id": "b", "reason": "too large for this model"}]


def test_limit_and_progress():
    seen = []
    result = evaluate(Threshold(), Photographs(), limit=4, replicates=10, progress=lambda *step: seen.append(step))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert result["n"] == 3 and len(result["skipped"]) == 1


def test_twice_is_identical():
    noisy = Threshold()
    noisy.predict = lambda images: [
        Prediction("segmentation", noisy.classes, (8, images.shape[3]), torch.zeros(0), torch.zeros(0),
                   semantic=torch.randint(0, 3, (8, images.shape[3]), generator=torch.Generator().manual_seed(images.shape[3])))
        for _ in images
    ]  # fmt: skip
    first, second = (evaluate(noisy, Photographs(), replicates=50, batch_size=size) for size in (1, 8))
    assert first == second and first["ci"][0] < first["ci"][1]
    assert evaluate(noisy, Photographs(), replicates=50, seed=1)["ci"] != first["ci"]


def test_no_usable_item_is_one_line():
    with pytest.raises(DataError, match=r"none of 2 items .*; the first: x: the picture is damaged"):
        evaluate(Threshold(), Photographs(["x", "y"], ["x", "y"]))
    with pytest.raises(DataError, match="leaves none"):
        evaluate(Threshold(), Photographs(), limit=0)


def test_undefined_is_none_with_a_warning():
    data = Photographs(["a"], [])
    data.__class__ = type("Blank", (Photographs,), {"__getitem__": lambda self, index: Sample(
        "a", torch.zeros(3, 8, 8), semantic=torch.full((8, 8), IGNORE))})  # fmt: skip
    result = evaluate(Threshold(), data, replicates=10)
    assert result["value"] is None and result["ci"] is None
    assert "mIoU is undefined: no truth to measure it on" in result["warnings"]
