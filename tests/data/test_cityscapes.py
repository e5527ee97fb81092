"""Cityscapes: a hand-made folder with known truth, and hostile ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.made import HEIGHT, WIDTH, check, extents, paint, rectangles, refused, write
from xaitools.data import cityscapes, load_dataset, readable
from xaitools.data.relabel import Relabel
from xaitools.types import IGNORE, Sample

ROAD, SKY, PERSON, CAR, CARAVAN, EGO = 7, 23, 24, 26, 29, 1
PLACES = rectangles((0, 0, 32, 6), (2, 8, 10, 16), (12, 8, 20, 16), (22, 8, 30, 12), (0, 20, 32, 24), (24, 14, 30, 18))
"""Sky, a car, a person, a group of cars, the bonnet, a caravan; the rest is road."""
LABELS = np.array([ROAD, SKY, CAR, PERSON, CAR, EGO, CARAVAN], np.uint8)[PLACES]
INSTANCES = np.array([ROAD, SKY, 1000 * CAR + 1, 1000 * PERSON, CAR, EGO, 1000 * CARAVAN], np.uint16)[PLACES]


def write_item(
    root: Path, split: str, id: str, kind: str = "gtFine", labels: np.ndarray = LABELS, instances: np.ndarray = INSTANCES
) -> None:
    city = id.partition("_")[0]
    paint(root / f"leftImg8bit/{split}/{city}/{id}_leftImg8bit.png")
    paint(root / f"{kind}/{split}/{city}/{id}_{kind}_labelIds.png", labels)
    paint(root / f"{kind}/{split}/{city}/{id}_{kind}_instanceIds.png", instances)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_item(tmp_path, "val", "ulm_0_19")
    write_item(tmp_path, "val", "bonn_0_19")
    blank = np.full((HEIGHT, WIDTH), EGO, np.uint8)
    write_item(tmp_path, "test", "berlin_0_19", labels=blank, instances=blank)
    write_item(tmp_path, "train_extra", "wien_0_19", "gtCoarse")
    return tmp_path


def test_train_labels_are_the_nineteen(root: Path) -> None:
    dataset = load_dataset(f"cityscapes:{root}#val")
    sample = dataset[0]
    check(dataset, sample)
    assert (dataset.task, list(dataset.ids)) == ("instances", ["bonn_0_19", "ulm_0_19"])
    assert len(dataset.semantic_classes) == 19 and dataset.semantic_classes[0] == "road" and dataset.semantic_classes[18] == "bicycle"
    assert dataset.things == set(dataset.classes) and dataset.classes == (
        "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    )  # fmt: skip
    assert np.array_equal(sample.semantic, np.array([0, 10, 13, 11, 13, IGNORE, IGNORE])[PLACES])


def test_all_labels_are_the_thirty(root: Path) -> None:
    dataset = load_dataset(f"cityscapes:{root}#val?labels=all")
    assert load_dataset(dataset.name).semantic_classes == dataset.semantic_classes
    assert len(dataset.semantic_classes) == 30 and dataset.things - set(dataset.classes) == {"caravan", "trailer"}
    names = np.array([*dataset.semantic_classes, "ignored"])[np.where(dataset[0].semantic == IGNORE, -1, dataset[0].semantic)]
    expected = np.array(["road", "sky", "car", "person", "car", "ignored", "caravan"])[PLACES]
    assert np.array_equal(names, expected)


def test_instances_and_groups(root: Path) -> None:
    dataset = load_dataset(f"cityscapes:{root}#val")
    sample = dataset[1]
    assert [dataset.classes[label] for label in sample.labels] == ["person", "car", "car"]
    assert sample.boxes.tolist() == [[12, 8, 20, 16], [2, 8, 10, 16], [22, 8, 30, 12]]
    assert sample.ignore.tolist() == [False, False, True] and torch.equal(extents(sample.masks), sample.boxes)


@pytest.mark.parametrize("task", ["segmentation", "detection", "instances"])
def test_every_dense_task_is_served(task: str, root: Path) -> None:
    dataset = load_dataset(f"cityscapes:{root}#val")
    names = dataset.semantic_classes if task == "segmentation" else dataset.classes
    relabel = Relabel(dataset, task, names)
    assert relabel.warnings == [] and [names[label] for label in relabel(dataset[0]).labels] == ["person", "car", "car"]


def test_splits_and_annotations(root: Path) -> None:
    assert load_dataset(f"cityscapes:{root}").name.endswith("#val")
    refused(lambda: load_dataset(f"cityscapes:{root}#train"), "no split 'train'", "test, train_extra, val")
    refused(lambda: load_dataset(f"cityscapes:{root}#train_extra"), "gtFine/train_extra", "?annotation=coarse")
    coarse = load_dataset(f"cityscapes:{root}#train_extra?annotation=coarse")
    check(coarse, coarse[0])
    assert len(coarse[0].boxes) == 3 and load_dataset(coarse.name).name == coarse.name
    refused(lambda: load_dataset(f"cityscapes:{root}#val?labels=trian"), "unknown value of labels 'trian'", "train")
    refused(lambda: load_dataset(f"cityscapes:{root}#val?annotation=coarse"), "gtCoarse/val", "unpack")


def test_the_dummies_of_the_test_split_are_no_truth(root: Path) -> None:
    dataset = load_dataset(f"cityscapes:{root}#test")
    check(dataset, dataset[0])
    for task in ("segmentation", "detection"):
        refused(lambda task=task: Relabel(dataset, task, cityscapes.NAMES)(dataset[0]), "berlin_0_19: no", "test split", "measure on val")


@pytest.mark.parametrize(
    ("kind", "served", "unserved"), [("labelIds", "detection", "segmentation"), ("instanceIds", "segmentation", "detection")]
)
def test_a_missing_picture_of_truth_is_named(kind: str, served: str, unserved: str, root: Path) -> None:
    (root / f"gtFine/val/ulm/ulm_0_19_gtFine_{kind}.png").unlink()
    dataset = load_dataset(f"cityscapes:{root}#val")
    check(dataset, dataset[1])
    Relabel(dataset, served, cityscapes.NAMES)(dataset[1])
    refused(
        lambda: Relabel(dataset, unserved, cityscapes.NAMES)(dataset[1]),
        "ulm_0_19: no",
        f"no file gtFine/val/ulm/ulm_0_19_gtFine_{kind}.png",
    )


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("labelIds", np.full((HEIGHT, WIDTH), 34, np.uint8), ("label id 34",)),
        ("labelIds", np.full((HEIGHT, WIDTH), 7000, np.uint16), ("label id 7000",)),
        ("labelIds", np.full((HEIGHT, WIDTH, 3), 7, np.uint8), ("RGB",)),
        ("labelIds", np.full((HEIGHT, WIDTH + 1), 7, np.uint8), ("33 x 24", "32 x 24")),
        ("instanceIds", np.full((HEIGHT, WIDTH), 34_001, np.uint16), ("34001", "label id 34")),
        ("instanceIds", np.full((HEIGHT, WIDTH), 900, np.uint16), ("value 900",)),
        ("instanceIds", np.full((HEIGHT, WIDTH), 3_000, np.uint16) + np.arange(WIDTH, dtype=np.uint16) * 1000, ("label id 34",)),
    ],
)
def test_broken_truth_costs_only_its_item(kind: str, values: np.ndarray, words: tuple[str, ...], root: Path) -> None:
    file = f"gtFine/val/bonn/bonn_0_19_gtFine_{kind}.png"
    paint(root / file, values)
    dataset = load_dataset(f"cityscapes:{root}#val")
    refused(lambda: dataset[0], file, *words)
    assert [isinstance(item, Sample) for _, item in readable(dataset)] == [False, True]


def test_a_link_cannot_leave_the_folder(root: Path) -> None:
    file = root / "gtFine/val/bonn/bonn_0_19_gtFine_labelIds.png"
    outside = file.rename(root.parent / "outside.png")
    file.symlink_to(outside)
    refused(lambda: load_dataset(f"cityscapes:{root}#val")[0], "outside the dataset's folder")


def test_an_empty_split_and_one_id_in_two_cities(root: Path) -> None:
    (root / "leftImg8bit/train/ulm").mkdir(parents=True)
    (root / "gtFine/train").mkdir()
    refused(lambda: load_dataset(f"cityscapes:{root}#train"), "no picture", "leftImg8bit/train")
    paint(root / "leftImg8bit/val/ulm/bonn_0_19_leftImg8bit.png")
    refused(lambda: load_dataset(f"cityscapes:{root}#val"), "'bonn_0_19'", "twice")


TABLE = "id,name,semantic,instances,thing\n7,ground,1,,0\n23,above,0,,0\n24,man,3,0,1\n26,cart,2,1,1\n1,bonnet,,,0\n29,hut,,,0\n"


def test_a_table_of_other_labels_is_honoured(root: Path) -> None:
    write(root / "labels.csv", TABLE)
    dataset = load_dataset(f"cityscapes:{root}#val")
    check(dataset, dataset[0])
    assert dataset.semantic_classes == ("above", "ground", "cart", "man") and dataset.classes == ("man", "cart")
    assert dataset.things == {"man", "cart"} and [dataset.classes[label] for label in dataset[0].labels] == ["man", "cart", "cart"]
    assert np.array_equal(dataset[0].semantic, np.array([1, 0, 2, 3, 2, IGNORE, IGNORE])[PLACES])
    refused(lambda: load_dataset(f"cityscapes:{root}#val?labels=all"), "labels.csv")


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("id,name", "name,id", "columns"),
        ("7,ground", "seven,ground", "columns"),
        ("7,ground", "7" * 5000 + ",ground", "columns"),
        ("7,ground,1,,0", "7,ground,1", "columns"),
        ("7,ground,1,,0", "7,ground,1,,yes", "columns"),
        ("7,ground", "26,ground", "twice"),
        ("7,ground", "255,ground", "254"),
        ("7,ground,1", "7,ground,9", "indices"),
        ("ground", "man", "twice"),
        ("ground", "\0", "columns"),
    ],
)
def test_a_broken_table_is_refused(old: str, new: str, word: str, root: Path) -> None:
    write(root / "labels.csv", TABLE.replace(old, new, 1))
    refused(lambda: load_dataset(f"cityscapes:{root}#val"), "labels.csv", word)


def test_the_table_is_the_public_one() -> None:
    """Some of the pairs of id, train id and name that other tools rely on."""
    labels = {label.name: label for label in cityscapes.official_labels("train")}
    assert len(labels) == 34
    for id, train_id, name in [
        (7, 0, "road"), (8, 1, "sidewalk"), (11, 2, "building"), (17, 5, "pole"), (19, 6, "traffic light"), (21, 8, "vegetation"),
        (23, 10, "sky"), (24, 11, "person"), (26, 13, "car"), (31, 16, "train"), (32, 17, "motorcycle"), (33, 18, "bicycle"),
        (9, None, "parking"), (18, None, "polegroup"), (29, None, "caravan"), (3, None, "out of roi"),
    ]:  # fmt: skip
        assert (labels[name].id, labels[name].semantic) == (id, train_id)
