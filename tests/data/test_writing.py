"""What is written in a layout reads back as the same samples; an interrupted run leaves whole files and can go on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.made import check, refused
from xaitools.data import load_dataset
from xaitools.data.base import WRITERS, file_name
from xaitools.data.coco import mask_of
from xaitools.data.coco_writer import runs
from xaitools.data.scenes import Scenes
from xaitools.data.writing import write_dataset
from xaitools.errors import PlanError
from xaitools.types import IGNORE, Sample

SHAPES = {"image", "semantic", "boxes", "labels", "masks", "ignore"}
KEPT = {"voc": SHAPES, "coco": SHAPES, "cityscapes": SHAPES, "camvid": {"image", "semantic"}, "folder": {"image", "label"}}
"""What each layout has a place for."""


class Made:
    """A dataset of given samples."""

    def __init__(self, *samples: Sample, task: str = "instances", classes: tuple[str, ...] = ("car", "dog"), **facts: Any) -> None:
        self.name, self.task, self.classes, self.samples = "made", task, classes, samples
        self.semantic_classes: tuple[str, ...] = facts.get("semantic_classes", ("background", *classes))
        self.things = facts.get("things", frozenset(classes))
        self.ids = [sample.id for sample in samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def picture(**fields: Any) -> Sample:
    """Two objects side by side, a strip without label; an image of 8 bits."""
    masks = torch.zeros(2, 16, 24, dtype=torch.bool)
    masks[0, 2:9, 3:11], masks[1, 4:16, 12:24] = True, True
    semantic = (masks * torch.tensor([2, 1])[:, None, None]).sum(0)
    semantic[:, 0] = IGNORE
    facts: dict[str, Any] = {
        "image": torch.from_numpy(np.random.default_rng(0).integers(256, size=(3, 16, 24))).float() / 255, "semantic": semantic,
        "boxes": torch.tensor([[3.0, 2, 11, 9], [12, 4, 24, 16]]), "labels": torch.tensor([1, 0]), "masks": masks,
        "ignore": torch.tensor([False, False]), "label": 1,
    }  # fmt: skip
    return Sample(**{"id": "one", **facts, **fields})


def same(one: Sample, two: Sample, fields: set[str]) -> None:
    for field in sorted(fields):
        first, second = getattr(one, field), getattr(two, field)
        assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second, field


def test_every_writer_is_held_to_the_round_trip() -> None:
    assert set(KEPT) == set(WRITERS)


@pytest.mark.parametrize("layout", KEPT)
def test_scenes_read_back_as_they_were(layout: str, tmp_path: Path) -> None:
    scenes = {split: Scenes(split, n=6, size=64, shortcut="tag") for split in ("train", "val", "test")}
    result = write_dataset(scenes, layout, tmp_path / "set")
    for split, source in scenes.items():
        assert result["splits"][split]["n"] == 6 and result["splits"][split]["skipped"] == []
        again = load_dataset(result["splits"][split]["dataset"])
        assert again.name == result["splits"][split]["dataset"]
        if layout != "camvid":
            assert again.classes == source.classes
        if "semantic" in KEPT[layout]:
            assert again.semantic_classes == source.semantic_classes and again.things == source.things
        order = {id: index for index, id in enumerate(again.ids)}
        assert set(order) == set(source.ids) and (layout == "folder" or list(again.ids) == source.ids)
        for index, id in enumerate(source.ids):
            check(again, again[order[id]])
            same(source[index], again[order[id]], KEPT[layout])


@pytest.mark.parametrize("layout", KEPT)
def test_a_sample_with_void_reads_back(layout: str, tmp_path: Path) -> None:
    write_dataset({"val": Made(picture())}, layout, tmp_path)
    again = load_dataset(f"{layout}:{tmp_path}#val")
    check(again, again[0])
    same(picture(), again[0], KEPT[layout])


@pytest.mark.parametrize("layout", ["voc", "coco", "cityscapes"])
def test_objects_to_be_ignored_and_images_without_objects(layout: str, tmp_path: Path) -> None:
    crowd = picture(ignore=torch.tensor([False, True]))
    none = torch.zeros(0)
    empty = picture(id="two", boxes=none.reshape(0, 4), labels=none.long(), masks=crowd.masks[:0], ignore=none.bool())
    write_dataset({"val": Made(crowd, empty)}, layout, tmp_path)
    again = load_dataset(f"{layout}:{tmp_path}#val")
    same(crowd, again[0], SHAPES)
    same(empty, again[1], SHAPES)


def test_coco_keeps_boxes_that_are_no_extents_and_masks_that_overlap(tmp_path: Path) -> None:
    given = picture(boxes=torch.tensor([[0.1, 1.7, 11.3, 9.25], [12, 4, 23.9, 15.5]]), masks=torch.ones(2, 16, 24, dtype=torch.bool))
    write_dataset({"val": Made(given)}, "coco", tmp_path)
    same(given, load_dataset(f"coco:{tmp_path}#val")[0], SHAPES)


@pytest.mark.parametrize(("layout", "words"), [("voc", "masks that overlap"), ("cityscapes", "masks that overlap")])
def test_what_a_layout_has_no_place_for_is_said(layout: str, words: str, tmp_path: Path) -> None:
    row = write_dataset({"val": Made(picture(masks=torch.ones(2, 16, 24, dtype=torch.bool)))}, layout, tmp_path)["splits"]["val"]
    assert row["n"] == 1 and len(row["left_out"]) == 1 and row["left_out"][0].startswith(words)
    assert load_dataset(row["dataset"])[0].masks is None


def test_class_maps_of_other_classes_than_the_boxes(tmp_path: Path) -> None:
    road = Made(picture(), semantic_classes=("road", "dog", "car"), things=frozenset({"car", "dog"}))
    left_out = {layout: write_dataset({"val": road}, layout, tmp_path / layout)["splits"]["val"]["left_out"] for layout in KEPT}
    assert left_out["voc"] and left_out["coco"] and not left_out["cityscapes"]
    again = load_dataset(f"cityscapes:{tmp_path}/cityscapes#val")
    assert (again.classes, again.semantic_classes, again.things) == (road.classes, road.semantic_classes, road.things)
    same(road[0], again[0], SHAPES)


def test_names_that_cityscapes_knows_keep_its_ids(tmp_path: Path) -> None:
    known = Made(picture(), classes=("car", "person"), semantic_classes=("road", "car", "person"))
    write_dataset({"val": known}, "cityscapes", tmp_path)
    assert (tmp_path / "labels.csv").read_text().splitlines()[1:] == ["26,car,1,0,1", "24,person,2,1,1", "7,road,0,,0"]
    same(known[0], load_dataset(f"cityscapes:{tmp_path}#val")[0], SHAPES)


def test_coco_maps_without_boxes(tmp_path: Path) -> None:
    given = Made(picture(boxes=None, labels=None, masks=None, ignore=None), task="segmentation")
    write_dataset({"val": given}, "coco", tmp_path)
    again = load_dataset(f"coco:{tmp_path}#val")
    assert again[0].ignore.all() and len(again[0].boxes) == 2, "nobody knows how many there are"
    same(given[0], again[0], {"image", "semantic"})


@pytest.mark.parametrize(
    ("layout", "facts"),
    [
        ("voc", {"task": "segmentation"}),
        ("camvid", {"semantic_classes": ()}),
        ("cityscapes", {"semantic_classes": (), "task": "classification"}),
        ("cityscapes", {"classes": tuple(f"class {number}" for number in range(63))}),
        ("camvid", {"semantic_classes": ("a", "void")}),
        ("camvid", {"semantic_classes": ("a", "b 1 2 3")}),
        ("cityscapes", {"semantic_classes": ("a", "b\n")}),
        ("voc", {"classes": ("a", "b\x01")}),
        ("voc", {"classes": ("a", "background")}),
        ("folder", {"classes": ("a", "../b")}),
    ],
)
def test_datasets_that_do_not_fit_are_refused(layout: str, facts: dict[str, Any], tmp_path: Path) -> None:
    refused(lambda: write_dataset({"val": Made(picture(), **facts)}, layout, tmp_path / "set"))
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("layout", "fields", "words"),
    [
        ("voc", {"boxes": torch.tensor([[3.0, 2, 4, 9], [12, 4, 24, 16]])}, "stray click"),
        ("voc", {"boxes": None}, "no boxes"),
        ("camvid", {"semantic": None}, "no class map"),
        ("folder", {"label": None}, "no class"),
        *((layout, {"id": id}, "cannot name a file") for layout in KEPT for id in ("../out", "a b", ".hidden", "")),
    ],
)
def test_an_item_that_does_not_fit_is_skipped_and_named(layout: str, fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    bad = picture(**({"id": "bad"} | fields))
    row = write_dataset({"val": Made(bad, picture())}, layout, tmp_path / "set")["splits"]["val"]
    assert row["n"] == 1 and [item["id"] for item in row["skipped"]] == [bad.id] and words in row["skipped"][0]["reason"]
    assert list(load_dataset(row["dataset"]).ids) == ["one"]
    refused(lambda: write_dataset({"val": Made(bad)}, layout, tmp_path / "other"), "none of 1 items", words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "set"]


def test_splits_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    refused(
        lambda: write_dataset({"train": Made(picture()), "val": Made(picture(), classes=("a", "b"))}, "coco", tmp_path), "different classes"
    )
    refused(lambda: write_dataset({"train": Made(picture()), "val": Made(picture())}, "voc", tmp_path), "two items", "one.png")
    refused(lambda: write_dataset({"val": Made(picture())}, "vco", tmp_path), "unknown layout to write 'vco'", "voc")
    refused(lambda: write_dataset({"../val": Made(picture())}, "coco", tmp_path), "cannot name a file")


@pytest.mark.parametrize("layout", KEPT)
def test_an_interrupted_run_leaves_whole_files_and_goes_on(layout: str, tmp_path: Path) -> None:
    scenes = {"val": Scenes("val", n=5, size=48), "test": Scenes("test", n=5, size=48)}
    write_dataset(scenes, layout, tmp_path / "whole")

    def stop(done: int, total: int) -> None:
        assert total == 10
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(scenes, layout, tmp_path / "cut", progress=stop)
    left = contents(tmp_path / "cut")
    assert left.items() < contents(tmp_path / "whole").items()
    draft = tmp_path / "cut" / next(iter(left)).parent / ".half.png.1.draft"
    draft.write_bytes(b"what a kill leaves")
    with pytest.raises(PlanError, match="--resume"):
        write_dataset(scenes, layout, tmp_path / "cut")
    with pytest.raises(PlanError, match="something else"):
        write_dataset({"val": Scenes("val", n=5, size=48, seed=1)}, layout, tmp_path / "cut", resume=True)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cut/**/*00000*")}
    write_dataset(scenes, layout, tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert times == {path: path.stat().st_mtime_ns for path in times}


def contents(root: Path) -> dict[Path, bytes]:
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_folder_with_anything_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    for resume in (False, True):
        with pytest.raises(PlanError, match="empty folder"):
            write_dataset({"val": Made(picture())}, "coco", tmp_path, resume=resume)
    with pytest.raises(PlanError, match="is a file"):
        write_dataset({"val": Made(picture())}, "coco", tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_run_lengths_agree_with_pycocotools() -> None:
    from pycocotools import mask as coco_mask

    for share in (0.0, 0.3, 1.0):
        mask = np.random.default_rng(1).random((7, 30)) < share
        counts = runs(torch.from_numpy(mask))
        assert np.array_equal(mask_of({"counts": counts}, (7, 30)), mask)
        assert np.array_equal(coco_mask.decode(coco_mask.frPyObjects({"size": [7, 30], "counts": counts}, 7, 30)), mask)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_reads_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    scenes = Scenes("val", n=3, size=48)
    write_dataset({"val": scenes}, "coco", tmp_path)
    tool = COCO(str(tmp_path / "annotations/instances_val.json"))
    for index, image_id in enumerate(tool.getImgIds()):
        rows = tool.loadAnns(tool.getAnnIds(image_id))
        assert np.array_equal(np.stack([tool.annToMask(row) for row in rows]), scenes[index].masks)
        assert [tool.cats[row["category_id"]]["name"] for row in rows] == [scenes.classes[label] for label in scenes[index].labels]


def test_items_of_a_broken_source_are_skipped(tmp_path: Path) -> None:
    write_dataset({"val": Made(picture(), replace(picture(), id="two"))}, "camvid", tmp_path / "source")
    (tmp_path / "source/val/one.png").write_bytes(b"damaged")
    source = load_dataset(f"camvid:{tmp_path}/source#val")
    row = write_dataset({"val": source}, "cityscapes", tmp_path / "copy")["splits"]["val"]
    assert (row["n"], row["skipped"][0]["id"]) == (1, "one") and "val/one.png" in row["skipped"][0]["reason"]
    again = load_dataset(row["dataset"])
    assert again.task == "segmentation" and again.semantic_classes == source.semantic_classes and again.things == source.things
    same(source[1], again[0], {"image", "semantic"})


@pytest.mark.parametrize("name", ["a", "0", "aachen_000000_000019", "a.b-c(1)+=@x", "é"])
def test_good_names(name: str) -> None:
    assert file_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "_a", "-a", "a/b", "a\\b", "a b", "a\n", "a\0", "x" * 201])
def test_bad_names(name: str) -> None:
    refused(lambda: file_name(name), "cannot name a file")


@pytest.mark.parametrize("layout", ["voc", "coco", "cityscapes"])
def test_a_real_set_in_another_layout(layout: str, data_root: Path, tmp_path: Path) -> None:
    source = load_dataset(f"voc:{data_root}/voc-mini#val")
    few = Made(*(source[index] for index in range(4)), classes=source.classes, semantic_classes=source.semantic_classes)
    write_dataset({"val": few}, layout, tmp_path)
    again = load_dataset(f"{layout}:{tmp_path}#val")
    assert again.classes == source.classes and again.semantic_classes == source.semantic_classes
    for index in range(4):
        same(few[index], again[index], SHAPES - ({"boxes", "ignore", "masks", "labels"} if layout == "cityscapes" else set()))


def test_the_plan_says_what_was_written(tmp_path: Path) -> None:
    write_dataset({"val": Scenes("val", n=2)}, "folder", tmp_path)
    plan = json.loads((tmp_path / "written.json").read_text())
    assert plan == {"layout": "folder", "splits": {"val": {"source": Scenes("val", n=2).name, "n": 2}}}


def test_panoptic_segments_are_the_instances(tmp_path: Path) -> None:
    scenes = Scenes("val", n=4, size=64)
    write_dataset({"val": scenes}, "coco", tmp_path)
    (tmp_path / "annotations/instances_val.json").unlink()
    again = load_dataset(f"coco:{tmp_path}#val")
    assert again.classes == scenes.classes
    for index in range(4):
        same(scenes[index], again[index], SHAPES)
