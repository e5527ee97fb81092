"""COCO's boxes and masks: a hand-made folder with known truth, and hostile ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.made import HEIGHT, WIDTH, check, extents, paint, refused
from tests.data.made_coco import mini_coco, write_coco
from xaitools.data import coco, load_dataset, objects, readable
from xaitools.types import Sample


def test_coco_boxes_masks_and_crowds(tmp_path: Path) -> None:
    dataset = load_dataset(write_coco(tmp_path, mini_coco()))
    sample = dataset[0]
    check(dataset, sample)
    assert (dataset.task, dataset.classes, list(dataset.ids)) == ("instances", ("car", "dog"), ["a", "b"])
    assert sample.boxes.tolist() == [[2, 4, 10, 12], [0, 0, 4, 24]]
    assert sample.labels.tolist() == [1, 0] and sample.ignore.tolist() == [False, True]
    assert torch.equal(extents(sample.masks), sample.boxes) and sample.masks.sum((1, 2)).tolist() == [64, 96]
    assert len(sample.tags["dropped"]) == 1 and sample.tags["dropped"][0].startswith("object 2 (car)")
    assert (sample.tags["license"], sample.tags["image_id"]) == (2, 7)
    check(dataset, dataset[1])
    assert dataset[1].boxes.shape == (0, 4) and dataset[1].masks.shape == (0, HEIGHT, WIDTH)


def test_coco_an_object_without_a_segmentation_leaves_the_boxes(tmp_path: Path) -> None:
    content = mini_coco()
    content["annotations"][0]["segmentation"] = []
    assert load_dataset(write_coco(tmp_path, content))[0].masks is None


def test_coco_run_lengths_agree_with_pycocotools() -> None:
    from pycocotools import mask as coco_mask

    generator = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 1.0):
        for size in ((1, 1), (7, 300), (200, 150)):
            mask = generator.random(size) < share
            counts = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
            assert np.array_equal(coco.mask_of({"size": list(size), "counts": counts}, size), mask)


def test_coco_two_pictures_of_one_name_are_told_apart(tmp_path: Path) -> None:
    content = mini_coco()
    content["images"][1]["file_name"] = "sub/a.jpg"
    assert list(load_dataset(write_coco(tmp_path, content)).ids) == ["7", "5"]


def test_coco_splits(tmp_path: Path) -> None:
    write_coco(tmp_path, mini_coco(), "train2017")
    assert load_dataset(f"coco:{tmp_path}").name.endswith("#train2017")
    write_coco(tmp_path, mini_coco(), "val2017")
    refused(lambda: load_dataset(f"coco:{tmp_path}"), "name a split", "one of: train2017, val2017")
    refused(lambda: load_dataset(f"coco:{tmp_path}#val"), "no split 'val'", "train2017, val2017")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "list"),
        ({"images": [], "categories": []}, "annotations"),
        (mini_coco() | {"images": [3]}, "images[0]"),
        (mini_coco() | {"images": [{"id": 1, "file_name": 4}]}, "'file_name'"),
        (mini_coco() | {"images": [mini_coco()["images"][0]] * 2}, "twice"),
        (mini_coco() | {"annotations": [{"id": 1, "image_id": [1]}]}, "'image_id'"),
        (mini_coco() | {"categories": [{"id": 1}]}, "'name'"),
    ],
)
def test_coco_a_file_of_another_structure_is_refused(content: object, word: str, tmp_path: Path) -> None:
    text = write_coco(tmp_path, content)
    refused(lambda: load_dataset(text), "instances_val2017.json", word)


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("category_id", 99, "category 99"),
        ("category_id", [1], "category [1]"),
        ("bbox", [1, 2, 3], "bbox"),
        ("bbox", [1, 2, 3, float("inf")], "bbox"),
        ("bbox", [1, 2, 3, 10**400], "bbox"),
        ("bbox", None, "bbox"),
        ("segmentation", [[1, 2, 3, 4]], "polygons"),
        ("segmentation", [[1, 2, 3, 4, 5, float("nan")]], "polygons"),
        ("segmentation", "text", "polygons"),
        ("segmentation", {"counts": [10**12]}, "run lengths"),
        ("segmentation", {"counts": [1, HEIGHT * WIDTH]}, "run lengths"),
        ("segmentation", {"counts": [-1, HEIGHT * WIDTH + 1]}, "run lengths"),
        ("segmentation", {"counts": "o" * 500}, "run lengths"),
        ("segmentation", {"counts": "\n"}, "run lengths"),
        ("segmentation", {"counts": None}, "run lengths"),
    ],
)
def test_coco_a_broken_annotation_costs_only_its_item(field: str, value: object, word: str, tmp_path: Path) -> None:
    content = mini_coco()
    content["annotations"][0][field] = value
    dataset = load_dataset(write_coco(tmp_path, content))
    refused(lambda: dataset[0], "val2017/a.jpg", word)
    assert [isinstance(item, Sample) for _, item in readable(dataset)] == [False, True]


def test_coco_far_polygon_points_are_moved_to_the_edge() -> None:
    mask = coco.mask_of([[-1e8, -1e8, 1e8, -1e8, 1e8, 1e8, -1e8, 1e8]], (HEIGHT, WIDTH))
    assert mask.all()


def test_coco_a_file_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    content = mini_coco()
    content["images"][0]["file_name"] = "../../a.jpg"
    paint(tmp_path / "a.jpg")
    dataset = load_dataset(write_coco(tmp_path / "set", content))
    refused(lambda: dataset[0], "outside the dataset's folder")


def test_coco_another_size_or_no_picture(tmp_path: Path) -> None:
    content = mini_coco()
    content["images"][0]["width"] = 33
    dataset = load_dataset(write_coco(tmp_path, content))
    refused(lambda: dataset[0], "33 x 24", "32 x 24")
    (tmp_path / "val2017/b.jpg").unlink()
    refused(lambda: dataset[1], "val2017/b.jpg", "no such file")


def test_masks_that_would_fill_the_memory_are_refused() -> None:
    refused(lambda: objects.check_room(10_000, (5000, 5000), "a.jpg"), "a.jpg", "10000 masks of 5000 x 5000")
