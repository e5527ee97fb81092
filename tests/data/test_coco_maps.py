"""COCO's class maps: panoptic and stuff, alone and beside instances."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.made import HEIGHT, WIDTH, check, extents, paint, rectangles, refused, write
from tests.data.made_coco import mini_coco, write_coco
from xaitools.data import load_dataset, readable
from xaitools.data.relabel import Relabel
from xaitools.types import IGNORE, Sample

DOG, SKY = 300, 70_000
"""Segment numbers that need two and three colour channels."""
THINGS_AND_STUFF = [
    {"id": 99, "name": "sky", "isthing": 0},
    {"id": 18, "name": "dog", "isthing": 1},
    {"id": 3, "name": "car", "isthing": 1},
]


def panoptic() -> dict[str, list[dict]]:
    segments = [
        {"id": DOG, "category_id": 18, "iscrowd": 0},
        {"id": 7, "category_id": 3, "iscrowd": 1},
        {"id": SKY, "category_id": 99, "iscrowd": 0},
    ]
    return {
        "categories": THINGS_AND_STUFF,
        "images": mini_coco()["images"],
        "annotations": [{"image_id": 7, "file_name": "a.png", "segments_info": segments}],
    }


def numbers() -> np.ndarray:
    """A dog of 8 x 8, a crowd of cars of 4 x 24, sky in the upper right corner."""
    return np.array([0, DOG, 7, SKY])[rectangles((2, 4, 10, 12), (0, 0, 2, 24), (20, 0, 32, 6))]


def write_panoptic(root: Path, content: object, segments: np.ndarray | None = None, folder: str = "annotations/panoptic_val2017") -> str:
    write(root / "annotations/panoptic_val2017.json", json.dumps(content))
    values = numbers() if segments is None else segments
    paint(root / folder / "a.png", np.stack([values % 256, values // 256 % 256, values // 65536], axis=2).astype(np.uint8))
    for name in ("a", "b"):
        paint(root / f"val2017/{name}.jpg")
    return f"coco:{root}#val2017"


@pytest.mark.parametrize("folder", ["panoptic_val2017", "annotations/panoptic_val2017"])
def test_panoptic_maps_hold_things_and_stuff_beside_the_boxes(folder: str, tmp_path: Path) -> None:
    write_coco(tmp_path, mini_coco())
    dataset = load_dataset(write_panoptic(tmp_path, panoptic(), folder=folder))
    assert dataset.classes == ("car", "dog") and dataset.semantic_classes == ("car", "dog", "sky") and dataset.things == {"car", "dog"}
    sample = dataset[0]
    check(dataset, sample)
    expected = np.array([IGNORE, 1, 0, 2])[rectangles((2, 4, 10, 12), (0, 0, 2, 24), (20, 0, 32, 6))]
    assert np.array_equal(sample.semantic, expected)
    assert sample.boxes.tolist() == [[2, 4, 10, 12], [0, 0, 4, 24]]
    check(dataset, dataset[1])
    assert dataset[1].semantic is None and dataset[1].boxes.shape == (0, 4)


def test_panoptic_segments_are_objects_where_there_are_no_instances(tmp_path: Path) -> None:
    dataset = load_dataset(write_panoptic(tmp_path, panoptic()))
    sample = dataset[0]
    check(dataset, sample)
    assert (dataset.task, dataset.classes) == ("instances", ("car", "dog"))
    assert sample.boxes.tolist() == [[2, 4, 10, 12], [0, 0, 2, 24]] and torch.equal(extents(sample.masks), sample.boxes)
    assert sample.labels.tolist() == [1, 0] and sample.ignore.tolist() == [False, True]
    assert dataset[1].boxes is None and dataset[1].semantic is None


def test_a_segmentation_model_and_a_detector_are_both_served(tmp_path: Path) -> None:
    write_coco(tmp_path, mini_coco())
    dataset = load_dataset(write_panoptic(tmp_path, panoptic()))
    for task in ("segmentation", "detection", "instances"):
        Relabel(dataset, task, ["dog", "sky", "car"])(dataset[0])


def test_stuff_alone_serves_segmentation(tmp_path: Path) -> None:
    content = panoptic() | {"annotations": [], "categories": [{"id": 99, "name": "sky"}, {"id": 183, "name": "other"}]}
    write(tmp_path / "annotations/stuff_val2017.json", json.dumps(content))
    paint(tmp_path / "stuff_val2017_pixelmaps/a.png", np.array([183, 99, 0, 0], np.uint8)[rectangles((2, 4, 10, 12))])
    for name in ("a", "b"):
        paint(tmp_path / f"val2017/{name}.jpg")
    dataset = load_dataset(f"coco:{tmp_path}")
    assert (dataset.task, dataset.semantic_classes, dataset.things) == ("segmentation", ("sky",), frozenset())
    assert dataset[0].semantic[5, 3] == 0 and (dataset[0].semantic == IGNORE).sum() == HEIGHT * WIDTH - 64
    assert dataset[1].semantic is None


def test_stuff_maps_take_their_things_from_the_masks(tmp_path: Path) -> None:
    write_coco(tmp_path, mini_coco())
    content = panoptic() | {"annotations": [], "categories": [{"id": 99, "name": "sky"}, {"id": 183, "name": "other"}]}
    write(tmp_path / "annotations/stuff_val2017.json", json.dumps(content))
    paint(
        tmp_path / "annotations/stuff_val2017_pixelmaps/a.png",
        np.array([183, 99, 0], np.uint8)[rectangles((0, 0, 32, 6), (31, 23, 32, 24))],
    )
    dataset = load_dataset(f"coco:{tmp_path}#val2017")
    check(dataset, dataset[0])
    semantic = dataset[0].semantic
    assert dataset.semantic_classes == ("car", "dog", "sky") and dataset.things == {"car", "dog"}
    assert semantic[5, 5] == 2 and semantic[8, 8] == 1 and semantic[8, 1] == 0, "sky hides the dog's head, the dog lies on the crowd"
    assert semantic[8, 3] == 1 and semantic[20, 20] == IGNORE


SEGMENT = {"id": DOG, "category_id": 18}


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        ([SEGMENT], ("segment 7", "segments_info")),
        ([SEGMENT, SEGMENT], ("number of its own",)),
        ([3], ("number of its own",)),
        ([{"id": 10**30, "category_id": 18}], ("number of its own",)),
        ([{"id": 0, "category_id": 18}], ("number of its own",)),
        ([{"id": DOG, "category_id": 5}], ("category 5",)),
        ([{"id": DOG, "category_id": [1]}], ("category [1]",)),
        ([SEGMENT] * 10_001, ("10000 segments",)),
    ],
)
def test_broken_segments_cost_only_their_item(segments: list, words: tuple[str, ...], tmp_path: Path) -> None:
    content = panoptic()
    content["annotations"][0]["segments_info"] = segments
    dataset = load_dataset(write_panoptic(tmp_path, content))
    refused(lambda: dataset[0], "a.png", *words)
    assert [isinstance(item, Sample) for _, item in readable(dataset)] == [False, True]


def test_broken_panoptic_pictures_cost_only_their_item(tmp_path: Path) -> None:
    text = write_panoptic(tmp_path, panoptic())
    file = tmp_path / "annotations/panoptic_val2017/a.png"
    Image.new("L", (WIDTH, HEIGHT)).save(file)
    refused(lambda: load_dataset(text)[0], "a.png", "must be RGB", "is L")
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(file)
    refused(lambda: load_dataset(text)[0], "a.png", "32 x 25", "32 x 24")
    file.unlink()
    refused(lambda: load_dataset(text)[0], "a.png", "no such file")
    content = panoptic()
    content["annotations"][0]["file_name"] = "../../../a.png"
    refused(lambda: load_dataset(write_panoptic(tmp_path / "set", content))[0], "outside the dataset's folder")


@pytest.mark.parametrize(
    ("part", "rows", "word"),
    [
        ("categories", [{"id": 1}], "'name'"),
        ("categories", [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "twice"),
        ("categories", [{"id": number, "name": str(number)} for number in range(1, 300)], "299 categories"),
        ("annotations", [{"image_id": 7, "file_name": "a.png"}], "'segments_info'"),
        ("images", [{"id": 7}], "'file_name'"),
    ],
)
def test_a_panoptic_file_of_another_structure_is_refused(part: str, rows: list, word: str, tmp_path: Path) -> None:
    text = write_panoptic(tmp_path, panoptic() | {part: rows})
    refused(lambda: load_dataset(text), "panoptic_val2017.json", word)


def test_maps_without_their_folder(tmp_path: Path) -> None:
    write(tmp_path / "annotations/panoptic_val2017.json", json.dumps(panoptic()))
    refused(lambda: load_dataset(f"coco:{tmp_path}"), "without the folder panoptic_val2017", "unpack")
    assert load_dataset(write_coco(tmp_path, mini_coco())).semantic_classes == ()


def test_stuff_values_without_a_category(tmp_path: Path) -> None:
    content = panoptic() | {"annotations": [], "categories": [{"id": 99, "name": "sky"}]}
    write(tmp_path / "annotations/stuff_val2017.json", json.dumps(content))
    paint(tmp_path / "stuff_val2017_pixelmaps/a.png", rectangles((0, 0, 4, 4)))
    paint(tmp_path / "val2017/a.jpg")
    refused(lambda: load_dataset(f"coco:{tmp_path}")[0], "pixelmaps/a.png", "no category")
    write(tmp_path / "annotations/stuff_val2017.json", json.dumps(content | {"categories": [{"id": 256, "name": "sky"}]}))
    refused(lambda: load_dataset(f"coco:{tmp_path}"), "below 255")


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_coco_mini_maps_are_the_class_pictures_beside_them(split: str, data_root: Path) -> None:
    """A second road: the set also has each map as category ids, made by others."""
    root = data_root / "coco-mini"
    dataset = load_dataset(f"coco:{root}#{split}")
    assert (len(dataset.semantic_classes), len(dataset.things), len(dataset.classes)) == (133, 80, 80)
    categories = json.loads((root / f"annotations/panoptic_{split}.json").read_text())["categories"]
    table = np.full(256, IGNORE)
    for category in categories:
        table[category["id"]] = dataset.semantic_classes.index(category["name"])
    for index in range(0, len(dataset), 5):
        sample = dataset[index]
        picture = np.asarray(Image.open(root / f"semantic_{split}/{sample.id}.png"))
        assert np.array_equal(table[picture], sample.semantic)
