"""Readers of data sets on disk: hand-made folders with known truth, hostile ones, and every real set."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xaitools.data import coco, load_dataset, objects, readable, voc
from xaitools.data.base import Dataset
from xaitools.errors import DataError
from xaitools.types import IGNORE, Sample

HEIGHT, WIDTH = 24, 32


def paint(file: Path, values: np.ndarray | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 200, np.uint8) if values is None else values).save(file)


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def rectangles(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """(24, 32) uint8, value n within the n-th (x1, y1, x2, y2)."""
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes, start=1):
        values[y1:y2, x1:x2] = number
    return values


def refused(action: Callable[[], object], *words: str) -> None:
    with pytest.raises(DataError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    for word in words:
        assert word in message


def check(dataset: Dataset, sample: Sample) -> None:
    """What every sample of every data set keeps to."""
    assert sample.image.dtype == torch.float32 and sample.image.min() >= 0 and sample.image.max() <= 1
    height, width = sample.image.shape[1:]
    if sample.semantic is not None:
        assert sample.semantic.shape == (height, width) and sample.semantic.dtype == torch.int64
        assert set(np.unique(sample.semantic).tolist()) <= {*range(len(dataset.semantic_classes)), IGNORE}
    if sample.boxes is not None:
        count = len(sample.boxes)
        assert sample.boxes.shape == (count, 4) and sample.boxes.dtype == torch.float32
        assert sample.labels.shape == sample.ignore.shape == (count,)
        assert sample.labels.dtype == torch.int64 and sample.ignore.dtype == torch.bool
        assert ((sample.labels >= 0) & (sample.labels < len(dataset.classes))).all()
        assert (sample.boxes >= 0).all() and (sample.boxes[:, 2:] > sample.boxes[:, :2]).all()
        assert (sample.boxes[:, 2:] <= torch.tensor([width, height])).all()
    if sample.masks is not None:
        assert sample.masks.shape == (len(sample.boxes), height, width) and sample.masks.dtype == torch.bool


def extents(masks: torch.Tensor) -> torch.Tensor:
    """(N, 4) xyxy, the pixel edges of each mask (N, H, W)."""
    places = [torch.where(mask) for mask in masks]
    return torch.tensor([[x.min(), y.min(), x.max() + 1, y.max() + 1] for y, x in places], dtype=torch.float32)


# ---- VOC


def entry(name: str, *corners: float, difficult: int = 0) -> str:
    box = "".join(f"<{edge}>{value}</{edge}>" for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{box}</bndbox></object>"


def annotation(*entries: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> str:
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>../../elsewhere.jpg</filename>{sides}{''.join(entries)}</annotation>"


@pytest.fixture
def voc_root(tmp_path: Path) -> Path:
    """Three images: two objects with masks and a class map; one image with stray boxes; one without any object."""
    root = tmp_path / "mini-voc"
    write(root / "Annotations/a.xml", annotation(entry("dog", 3, 5, 10, 12), entry("cat", 21, 1, 32, 24, difficult=1)))
    write(root / "Annotations/b.xml", annotation(entry("cat", 9, 9, 9, 9), entry("dog", 0, 20, 40, 30), entry("dog", 40, 1, 50, 9)))
    write(root / "Annotations/c.xml", annotation())
    paint(root / "JPEGImages/a.jpg")
    paint(root / "JPEGImages/b.png")
    paint(root / "JPEGImages/c.jpeg")
    both = rectangles((2, 4, 10, 12), (20, 0, 32, 24))
    paint(root / "SegmentationObject/a.png", both)
    paint(root / "SegmentationClass/a.png", np.array([0, 2, 1, 255], np.uint8)[np.where(both[:, ::-1] == 1, 3, both)])
    write(root / "ImageSets/Main/train.txt", "a\nb\n\n")
    write(root / "ImageSets/Main/val.txt", "c\n")
    write(root / "ImageSets/Main/dog_train.txt", "a 1\nb 1\n")
    write(root / "classes.txt", "# id name\n0 background\n1 cat\n2 dog\n")
    return root


def test_voc_boxes_count_from_one_and_include_the_last_pixel(voc_root: Path) -> None:
    dataset = load_dataset(f"voc:{voc_root}#train")
    sample = dataset[0]
    check(dataset, sample)
    assert (dataset.task, dataset.classes, list(dataset.ids)) == ("detection", ("cat", "dog"), ["a", "b"])
    assert sample.boxes.tolist() == [[2, 4, 10, 12], [20, 0, 32, 24]]
    assert sample.labels.tolist() == [1, 0] and sample.ignore.tolist() == [False, True]
    assert torch.equal(extents(sample.masks), sample.boxes)
    assert sample.tags == {"file": "JPEGImages/a.jpg", "dropped": ()}


def test_voc_class_maps_have_background_first_and_void_ignored(voc_root: Path) -> None:
    dataset = load_dataset(f"voc:{voc_root}#train")
    assert dataset.semantic_classes == ("background", "cat", "dog") and dataset.things == {"cat", "dog"}
    semantic = dataset[0].semantic
    assert semantic[5, 3] == 2 and semantic[0, 31] == 1 and semantic[0, 0] == 0 and semantic[5, 28] == IGNORE
    assert dataset[1].semantic is None and dataset[1].masks is None


def test_voc_boxes_without_area_are_left_out_and_named(voc_root: Path) -> None:
    dataset = load_dataset(f"voc:{voc_root}#train")
    sample = dataset[1]
    check(dataset, sample)
    assert sample.boxes.tolist() == [[0, 19, 32, 24]]
    assert [reason[:15] for reason in sample.tags["dropped"]] == ["object 1 (cat):", "object 3 (dog):"]


def test_voc_an_image_without_objects(voc_root: Path) -> None:
    dataset = load_dataset(f"voc:{voc_root}#val")
    check(dataset, dataset[0])
    assert dataset[0].boxes.shape == (0, 4)


def test_voc_masks_need_one_value_for_each_object(voc_root: Path) -> None:
    paint(voc_root / "SegmentationObject/a.png", rectangles((2, 4, 10, 12), (20, 0, 32, 24), (0, 0, 2, 2)))
    assert load_dataset(f"voc:{voc_root}#train")[0].masks is None


def test_voc_splits(voc_root: Path) -> None:
    assert load_dataset(f"voc:{voc_root}").name.endswith("#val")
    refused(lambda: load_dataset(f"voc:{voc_root}#tset"), "'tset'", "one of: train, val")
    refused(lambda: load_dataset(f"voc:{voc_root}#../Main/val"), "one of: train, val")
    shutil.rmtree(voc_root / "ImageSets")
    assert list(load_dataset(f"voc:{voc_root}").ids) == ["a", "b", "c"]
    refused(lambda: load_dataset(f"voc:{voc_root}#val"), "no split 'val'", "none")


def test_voc_segmentation_lists_serve_where_main_is_missing(voc_root: Path) -> None:
    (voc_root / "ImageSets/Main").rename(voc_root / "ImageSets/Segmentation")
    assert list(load_dataset(f"voc:{voc_root}#train").ids) == ["a", "b"]


def test_voc_classes_without_a_list(voc_root: Path) -> None:
    (voc_root / "classes.txt").unlink()
    dataset = load_dataset(f"voc:{voc_root}#train")
    assert dataset.classes == voc.VOC_CLASSES and dataset.semantic_classes == ("background", *voc.VOC_CLASSES)
    write(voc_root / "Annotations/c.xml", annotation(entry("tv/monitor", 1, 1, 9, 9)))
    dataset = load_dataset(f"voc:{voc_root}#train")
    assert dataset.classes == ("cat", "dog", "tv/monitor")
    assert dataset.semantic_classes == () and dataset[0].semantic is None


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("RBC\nWBC\n", ("RBC", "WBC")),
        ("2 b\n1 a\n0 background\n", ("a", "b")),
        ("__ignore__\n_background_\npotted plant\n", ("potted plant",)),
    ],
)
def test_voc_forms_of_a_class_list(text: str, classes: tuple[str, ...], voc_root: Path) -> None:
    write(voc_root / "classes.txt", text)
    assert load_dataset(f"voc:{voc_root}").classes == classes


@pytest.mark.parametrize("text", ["", "1 a\n3 b\n", "1 a\n1 b\n", "a\na\n"])
def test_voc_class_lists_with_gaps_are_refused(text: str, voc_root: Path) -> None:
    write(voc_root / "classes.txt", text)
    refused(lambda: load_dataset(f"voc:{voc_root}"), "classes.txt")


BOMB = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(9))
BROKEN = {
    "cut short": (annotation(entry("dog", 1, 1, 9, 9))[:90], "well-formed"),
    "empty": ("", "well-formed"),
    "another tag": ("<html></html>", "<annotation>"),
    "no box": ("<annotation><object><name>dog</name></object></annotation>", "<bndbox>"),
    "no name": ("<annotation><object><name> </name></object></annotation>", "<name>"),
    "no number": (annotation(entry("dog", 1, 1, float("nan"), 9)), "<xmax>"),
    "unknown class": (annotation(entry("unicorn", 1, 1, 9, 9)), "'unicorn'"),
    "another size": (annotation(size=(HEIGHT, WIDTH)), "24 x 32"),
    "a bomb": (f'<!DOCTYPE a [<!ENTITY e0 "ha">{BOMB}]><annotation>&e9;</annotation>', "DOCTYPE"),
    "a reference": ('<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]><annotation>&e;</annotation>', "DOCTYPE"),
    "another encoding": ('<?xml version="1.0" encoding="no-such"?><annotation/>', "well-formed"),
    "a deep nest": ("<annotation>" + "<a>" * 100_000, "nested"),
    "too many objects": (annotation("<object/>" * 10_001), "objects"),
    "too long": (annotation(" " * voc.MAX_XML_BYTES), "4 MB"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_voc_a_broken_annotation_costs_only_its_item(fault: str, voc_root: Path) -> None:
    text, word = BROKEN[fault]
    write(voc_root / "Annotations/a.xml", text)
    dataset = load_dataset(f"voc:{voc_root}#train")
    refused(lambda: dataset[0], "Annotations/a.xml", word)
    assert [isinstance(item, Sample) for _, item in readable(dataset)] == [False, True]


def test_voc_a_doctype_is_refused_in_any_encoding() -> None:
    text = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY e "x">]><annotation>&e;</annotation>'
    refused(lambda: voc.parse_xml(text.encode("utf-16"), "a.xml"), "DOCTYPE")


def test_voc_missing_and_damaged_files_cost_only_their_item(voc_root: Path) -> None:
    (voc_root / "JPEGImages/a.jpg").unlink()
    (voc_root / "Annotations/b.xml").unlink()
    dataset = load_dataset(f"voc:{voc_root}#train")
    refused(lambda: dataset[0], "JPEGImages/a", ".jpeg")
    refused(lambda: dataset[1], "Annotations/b.xml", "no such file")
    paint(voc_root / "SegmentationClass/c.png", np.full((HEIGHT, WIDTH), 3, np.uint8))
    refused(lambda: load_dataset(f"voc:{voc_root}#val")[0], "SegmentationClass/c.png", "value 3")


@pytest.mark.parametrize("id", ["../outside", "/etc/hostname", "a\0b", "x" * 300])
def test_voc_an_id_cannot_leave_the_folder(id: str, voc_root: Path) -> None:
    write(voc_root.parent / "outside.xml", annotation())
    write(voc_root / "ImageSets/Main/train.txt", f"{id}\n../../outside\nb\n")
    results = [item for _, item in readable(load_dataset(f"voc:{voc_root}#train"))]
    assert [type(item) for item in results] == [DataError, DataError, Sample]
    assert "outside the dataset's folder" in str(results[1])


@pytest.mark.parametrize("file", ["JPEGImages/a.jpg", "Annotations/a.xml", "SegmentationObject/a.png"])
def test_voc_a_link_cannot_leave_the_folder(file: str, voc_root: Path) -> None:
    outside = voc_root.parent / Path(file).name
    (voc_root / file).rename(outside)
    (voc_root / file).symlink_to(outside)
    dataset = load_dataset(f"voc:{voc_root}#train")
    refused(lambda: dataset[0], file, "outside the dataset's folder")
    link = voc_root.parent / "link"
    link.symlink_to(voc_root)
    assert isinstance(load_dataset(f"voc:{link}#train")[1], Sample)


# ---- COCO


def mini_coco() -> dict[str, list[dict]]:
    column = np.repeat(np.arange(WIDTH) < 4, HEIGHT)
    return {
        "categories": [
            {"id": 18, "name": "dog", "isthing": 1},
            {"id": 3, "name": "car"},
            {"id": 99, "name": "sky", "isthing": 0},
        ],
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT, "license": 2},
            {"id": 5, "file_name": "b.jpg", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [2, 4, 8, 8], "segmentation": [[2, 4, 10, 4, 10, 12, 2, 12]], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [5, 5, 0, 3], "segmentation": [[5, 5, 6, 5, 6, 8]], "iscrowd": 0},
            {
                "id": 3, "image_id": 7, "category_id": 3, "bbox": [0, 0, 4, 99], "iscrowd": 1,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, int(column.sum()), int((~column).sum())]},
            },
        ],
    }  # fmt: skip


def write_coco(root: Path, content: object, split: str = "val2017") -> str:
    write(root / f"annotations/instances_{split}.json", content if isinstance(content, str) else json.dumps(content))
    for name in ("a", "b"):
        paint(root / split / f"{name}.jpg")
    return f"coco:{root}#{split}"


def test_coco_boxes_masks_and_crowds(tmp_path: Path) -> None:
    dataset = load_dataset(write_coco(tmp_path, mini_coco()))
    sample = dataset[0]
    check(dataset, sample)
    assert (dataset.task, dataset.classes, list(dataset.ids)) == ("detection", ("car", "dog"), ["a", "b"])
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


# ---- Penn-Fudan

PENN_HEAD = '# Compatible with PASCAL Annotation Version 1.00\nObjects with ground truth : {} {{ "PASpersonWalking" }}\n'
PENN_BOX = 'Bounding box for object {} "PASpersonWalking" (Xmin, Ymin) - (Xmax, Ymax) : ({}, {}) - ({}, {})\n'


@pytest.fixture
def penn_root(tmp_path: Path) -> Path:
    root = tmp_path / "penn"
    for number in range(9):
        write(
            root / f"Annotation/P{number}.txt", PENN_HEAD.format(2) + PENN_BOX.format(1, 3, 5, 10, 12) + PENN_BOX.format(2, 21, 1, 32, 24)
        )
        paint(root / f"PNGImages/P{number}.{'png' if number % 2 else 'jpg'}")
        paint(root / f"PedMasks/P{number}_mask.png", rectangles((2, 4, 10, 12), (20, 0, 32, 24)))
    return root


def test_penn_fudan_every_fourth_is_test(penn_root: Path) -> None:
    assert list(load_dataset(f"penn-fudan:{penn_root}#test").ids) == ["P3", "P7"]
    assert list(load_dataset(f"penn-fudan:{penn_root}#train").ids) == ["P0", "P1", "P2", "P4", "P5", "P6", "P8"]
    assert load_dataset(f"penn-fudan:{penn_root}").name.endswith("#test")
    refused(lambda: load_dataset(f"penn-fudan:{penn_root}#val"), "no split 'val'", "test, train")


def test_penn_fudan_boxes_are_the_extents_of_their_masks(penn_root: Path) -> None:
    dataset = load_dataset(f"penn-fudan:{penn_root}#test")
    sample = dataset[0]
    check(dataset, sample)
    assert (dataset.task, dataset.classes) == ("detection", ("person",))
    assert sample.boxes.tolist() == [[2, 4, 10, 12], [20, 0, 32, 24]]
    assert torch.equal(extents(sample.masks), sample.boxes)


def test_penn_fudan_broken_items(penn_root: Path) -> None:
    write(penn_root / "Annotation/P0.txt", PENN_HEAD.format(2) + PENN_BOX.format(1, 3, 5, 10, 12))
    write(penn_root / "Annotation/P1.txt", "nothing")
    (penn_root / "PNGImages/P2.jpg").unlink()
    (penn_root / "PedMasks/P4_mask.png").unlink()
    dataset = load_dataset(f"penn-fudan:{penn_root}#train")
    for index, words in enumerate(
        [("P0.txt", "states 2 objects", "1 boxes"), ("P1.txt", "no number"), ("PNGImages/P2",), ("P4_mask.png",)]
    ):
        refused(lambda index=index: dataset[index], *words)
    assert sum(isinstance(item, Sample) for _, item in readable(dataset)) == 3


# ---- any layout


@pytest.mark.parametrize("layout", ["camvid", "coco", "penn-fudan", "voc"])
def test_a_folder_that_is_missing_or_another_one(layout: str, tmp_path: Path) -> None:
    refused(lambda: load_dataset(f"{layout}:{tmp_path}/none"), "no folder", "none")
    refused(lambda: load_dataset(f"{layout}:"), "no folder")
    refused(lambda: load_dataset(f"{layout}:{tmp_path}"), layout)
    refused(lambda: load_dataset(f"{layout}:{tmp_path}?n=3"), "unknown option 'n'")
    refused(lambda: load_dataset(f"{layout}:{'x' * 300}"), "no folder")


def test_camvid_void_is_ignored_and_splits_are_named(tmp_path: Path) -> None:
    paint(tmp_path / "train/a.png")
    paint(tmp_path / "trainannot/a.png", rectangles((0, 0, 4, 4)) * 11)
    write(tmp_path / "train.txt", "train/a.png trainannot/a.png\n../b.png trainannot/a.png\n")
    dataset = load_dataset(f"camvid:{tmp_path}")
    check(dataset, dataset[0])
    assert dataset[0].semantic[0, 0] == IGNORE and dataset[0].semantic[9, 9] == 0
    refused(lambda: dataset[1], "../b.png", "outside")
    refused(lambda: load_dataset(f"camvid:{tmp_path}#test"), "one of: train")


# ---- the real sets

REAL = {
    "voc:bccd#train": 205,
    "voc:bccd#val": 87,
    "voc:bccd#test": 32,
    "voc:voc-mini#train": 25,
    "voc:voc-mini#val": 13,
    "voc:voc2011-labelme": 3,
    "voc:indoor-det#trainval": 60,
    "coco:coco-mini#train2017": 26,
    "coco:coco-mini#val2017": 54,
    "penn-fudan:penn-fudan#train": 98,
    "penn-fudan:penn-fudan#test": 32,
    "camvid:camvid#train": 367,
    "camvid:camvid#val": 101,
    "camvid:camvid#test": 233,
}


def real(data_root: Path, text: str) -> Dataset:
    layout, _, rest = text.partition(":")
    return load_dataset(f"{layout}:{data_root}/{rest}")


@pytest.mark.parametrize("text", REAL)
def test_a_real_set_keeps_the_contract(text: str, data_root: Path) -> None:
    dataset = real(data_root, text)
    assert isinstance(dataset, Dataset)
    assert len(dataset) == len(dataset.ids) == len(set(dataset.ids)) == REAL[text]
    assert len(set(dataset.classes)) == len(dataset.classes) and dataset.things <= set(dataset.semantic_classes)
    for index in range(0, len(dataset), max(1, len(dataset) // 8)):
        sample = dataset[index]
        assert sample.id == dataset.ids[index]
        check(dataset, sample)


def tally(dataset: Dataset) -> tuple[Counter[str], list[str]]:
    """How many objects of each class, and the ids of images with boxes that were left out."""
    counts: Counter[str] = Counter()
    dropped = []
    for sample in (dataset[index] for index in range(len(dataset))):
        counts.update(dataset.classes[label] for label in sample.labels)
        dropped += [sample.id] * len(sample.tags["dropped"])
    return counts, dropped


def test_bccd_holds_what_its_readme_says_less_the_two_stray_clicks(data_root: Path) -> None:
    tallies = [tally(real(data_root, f"voc:bccd#{split}")) for split in ("train", "val", "test")]
    assert sum((counts for counts, _ in tallies), Counter()) == {"RBC": 3725 - 2, "WBC": 334, "Platelets": 321}
    assert sorted(id for _, dropped in tallies for id in dropped) == ["BloodImage_00338", "BloodImage_00343"]


@pytest.mark.parametrize(
    ("text", "objects", "kinds"),
    [("coco:coco-mini#train2017", 220, 39), ("coco:coco-mini#val2017", 376, 60), ("penn-fudan:penn-fudan#test", 81, 1)],
)
def test_small_sets_hold_what_their_readme_says(text: str, objects: int, kinds: int, data_root: Path) -> None:
    counts, dropped = tally(real(data_root, text))
    assert (sum(counts.values()), len(counts), dropped) == (objects, kinds, [])


def test_voc_mini_holds_what_its_readme_says(data_root: Path) -> None:
    counts, dropped = tally(real(data_root, "voc:voc-mini#trainval"))
    assert (sum(counts.values()), len(counts), counts["person"], dropped) == (184, 17, 82, [])


@pytest.mark.parametrize("text", ["voc:voc-mini#val", "penn-fudan:penn-fudan#test"])
def test_real_boxes_are_the_extents_of_their_masks(text: str, data_root: Path) -> None:
    dataset = real(data_root, text)
    samples = [dataset[index] for index in range(0, len(dataset), 3)]
    gaps = torch.cat([sample.boxes - extents(sample.masks) for sample in samples])
    assert (gaps.median(dim=0).values == 0).all() and (gaps.abs() <= 1).float().mean() > 0.95
