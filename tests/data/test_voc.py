"""PASCAL VOC: a hand-made folder with known truth, and hostile ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.made import HEIGHT, WIDTH, check, extents, paint, rectangles, refused, write
from xaitools.data import load_dataset, readable, voc
from xaitools.errors import DataError
from xaitools.types import IGNORE, Sample


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


def test_voc_segmentation_lists_beside_main_are_splits_of_their_own(voc_root: Path) -> None:
    write(voc_root / "ImageSets/Segmentation/train.txt", "a\n")
    assert list(load_dataset(f"voc:{voc_root}#train").ids) == ["a", "b"]
    dataset = load_dataset(f"voc:{voc_root}#Segmentation/train")
    assert list(dataset.ids) == ["a"] and load_dataset(dataset.name).name == dataset.name
    assert load_dataset(f"voc:{voc_root}").name.endswith("#val")
    refused(lambda: load_dataset(f"voc:{voc_root}#Segmentation/val"), "no split", "Segmentation/train, train, val")


def test_voc_class_maps_read_with_and_without_a_palette(voc_root: Path) -> None:
    file = voc_root / "SegmentationClass/a.png"
    grey = load_dataset(f"voc:{voc_root}#train")[0].semantic
    values = Image.open(file)
    coloured = Image.fromarray(np.asarray(values))
    coloured.putpalette([7 * value % 256 for value in range(768)])
    coloured.save(file)
    assert coloured.mode == "P" and torch.equal(load_dataset(f"voc:{voc_root}#train")[0].semantic, grey)
    coloured.convert("RGB").save(file)
    refused(lambda: load_dataset(f"voc:{voc_root}#train")[0], "SegmentationClass/a.png", "one value a pixel", "RGB")


def test_voc_more_classes_than_a_map_can_hold_leave_the_boxes(voc_root: Path) -> None:
    write(voc_root / "classes.txt", "cat\ndog\n" + "".join(f"class {number}\n" for number in range(300)))
    dataset = load_dataset(f"voc:{voc_root}#train")
    assert len(dataset.classes) == 302 and dataset.semantic_classes == () and dataset[0].labels.tolist() == [1, 0]


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
