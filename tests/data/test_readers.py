"""What holds for every layout, and for every real set."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from tests.data.made import check, extents, paint, rectangles, refused, write
from xaitools.data import LAYOUTS, load_dataset
from xaitools.data.base import Dataset
from xaitools.types import IGNORE

# ---- any layout


@pytest.mark.parametrize("layout", sorted({*LAYOUTS} - {"scenes"}))
def test_a_folder_that_is_missing_or_another_one(layout: str, tmp_path: Path) -> None:
    refused(lambda: load_dataset(f"{layout}:{tmp_path}/none"), "no folder", "none")
    refused(lambda: load_dataset(f"{layout}:"), "no folder")
    refused(lambda: load_dataset(f"{layout}:{tmp_path}"), layout)
    refused(lambda: load_dataset(f"{layout}:{tmp_path}?n=3"), "unknown option 'n'")
    refused(lambda: load_dataset(f"{layout}:{'x' * 300}"), "no folder")
    for text in (f"{layout}:~\0", f"{layout}:{tmp_path}?classes=%00"):
        refused(lambda text=text: load_dataset(text), "NUL")


def test_camvid_void_is_ignored_and_splits_are_named(tmp_path: Path) -> None:
    paint(tmp_path / "train/a.png")
    paint(tmp_path / "trainannot/a.png", rectangles((0, 0, 4, 4)) * 11)
    write(tmp_path / "train.txt", "train/a.png trainannot/a.png\n../b.png trainannot/a.png\n")
    dataset = load_dataset(f"camvid:{tmp_path}")
    check(dataset, dataset[0])
    assert dataset[0].semantic[0, 0] == IGNORE and dataset[0].semantic[9, 9] == 0
    refused(lambda: dataset[1], "../b.png", "outside")
    refused(lambda: load_dataset(f"camvid:{tmp_path}#test"), "one of: train")


def test_splits_one_after_another(tmp_path: Path) -> None:
    for split, items in (("val", "ab"), ("test", "c"), ("train", "a")):
        write(tmp_path / f"{split}.txt", "".join(f"all/{item}.png allannot/{item}.png\n" for item in items))
    for value, item in enumerate("abc"):
        paint(tmp_path / f"all/{item}.png")
        paint(tmp_path / f"allannot/{item}.png", rectangles((0, 0, 4, 4)) * value)
    both = load_dataset(f"camvid:{tmp_path}#val+test")
    assert isinstance(both, Dataset) and both.name == f"camvid:{tmp_path}#val+test" and len(both) == 3
    parts = [load_dataset(f"camvid:{tmp_path}#{split}") for split in ("val", "test")]
    assert list(both.ids) == [id for part in parts for id in part.ids] == [sample.id for sample in (both[0], both[1], both[2])]
    assert torch.equal(both[2].semantic, parts[1][0].semantic) and not torch.equal(both[2].semantic, both[1].semantic)
    check(both, both[2])
    refused(lambda: load_dataset(f"camvid:{tmp_path}#val+train"), "stands there twice")
    refused(lambda: load_dataset(f"camvid:{tmp_path}#val+"), "no split ''")
    refused(lambda: load_dataset(f"camvid:{tmp_path}#val+none"), "one of: test, train, val")


def test_splits_of_other_classes_are_not_joined(tmp_path: Path) -> None:
    for split in ("a", "b"):
        paint(tmp_path / split / f"cat{split}" / "0.png")
    refused(lambda: load_dataset(f"folder:{tmp_path}#a+b"), "differ in their classes")


def write_camvid(root: Path, classes: str = "") -> None:
    paint(root / "train/a.png")
    paint(root / "trainannot/a.png", rectangles((0, 0, 4, 4), (8, 8, 12, 12)))
    write(root / "train.txt", "train/a.png trainannot/a.png\n")
    if classes:
        write(root / "classes.txt", classes)


@pytest.mark.parametrize("head", ["# id name R G B\n", ""])
def test_camvid_honours_a_list_of_other_classes(head: str, tmp_path: Path) -> None:
    write_camvid(tmp_path, f"{head}1 traffic light 1 2 3 thing\n0 Car 9 9 9\n2 Void 0 0 0\n")
    dataset = load_dataset(f"camvid:{tmp_path}")
    check(dataset, dataset[0])
    assert dataset.semantic_classes == dataset.classes == ("Car", "traffic light") and dataset.things == {"Car", "traffic light"}
    assert dataset[0].semantic[9, 9] == IGNORE and dataset[0].semantic[0, 0] == 1


@pytest.mark.parametrize("classes", ["Sky\n", "0 Sky\n2 Car\n", "0 Sky\n0 Car\n", "0 Sky\n1 Sky\n", "0 void\n", "# nothing\n"])
def test_camvid_class_lists_with_gaps_are_refused(classes: str, tmp_path: Path) -> None:
    write_camvid(tmp_path, classes)
    refused(lambda: load_dataset(f"camvid:{tmp_path}"), "classes.txt")


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
    "cue-conflict:cue-conflict": 256,
    "folder:cue-conflict/style-transfer-preprocessed-512": 256,
    "folder:cue-conflict#filled-silhouettes": 127,
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


def test_frames_of_a_camvid_drive_are_clustered_in_blocks_of_ten(tmp_path):
    (tmp_path / "test.txt").write_text(
        "".join(f"t/{drive}_{frame:05d}.png a/x.png\n" for drive in ("0001TP", "0016E5") for frame in range(25))
    )
    (tmp_path / "val.txt").write_text("".join(f"t/img_{frame:05d}.png a/x.png\n" for frame in range(25)))
    data = load_dataset(f"camvid:{tmp_path}#test")
    assert Counter(data.clusters.values()) == {
        f"{drive}.{block}": (10, 10, 5)[block] for drive in ("0001TP", "0016E5") for block in range(3)
    }
    assert data.clusters["0001TP_00009"] == "0001TP.0" != data.clusters["0001TP_00010"]
    assert data.scope(data.ids) == "these two drives only" and data.scope(data.ids[:3]) == "this drive only"
    assert load_dataset(f"camvid:{tmp_path}#val").clusters == {}
