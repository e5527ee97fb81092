"""Pictures in class folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.data.made import HEIGHT, WIDTH, check, paint, refused
from xaitools.data import load_dataset, readable
from xaitools.types import Sample


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for file in ("cat/b.png", "cat/a.jpg", "dog/c.jpeg"):
        paint(tmp_path / file)
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "dog/d.JPEG")
    (tmp_path / "ant").mkdir()
    (tmp_path / "dog/notes.txt").write_text("no picture")
    (tmp_path / "dog/.hidden.png").write_text("no picture")
    (tmp_path / ".git").mkdir()
    (tmp_path / "readme.md").write_text("no class")
    return tmp_path


def test_classes_are_the_folders(root: Path) -> None:
    dataset = load_dataset(f"folder:{root}")
    assert (dataset.task, dataset.classes, list(dataset.ids)) == ("classification", ("ant", "cat", "dog"), ["a", "b", "c", "d"])
    assert [dataset[index].label for index in range(4)] == [1, 1, 2, 2]
    check(dataset, dataset[0])
    assert dataset[0].tags == {"file": "cat/a.jpg"}


def test_two_pictures_of_one_name_are_told_apart(root: Path) -> None:
    paint(root / "dog/a.png")
    assert list(load_dataset(f"folder:{root}").ids) == ["cat/a.jpg", "cat/b.png", "dog/a.png", "dog/c.jpeg", "dog/d.JPEG"]


def test_splits(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert load_dataset(f"folder:{root.parent}#{root.name}").classes == ("ant", "cat", "dog")
    refused(lambda: load_dataset(f"folder:{root}#dgo"), "no split 'dgo'", "ant, cat, dog")
    refused(lambda: load_dataset(f"folder:{root}#.."), "no split '..'")
    above = tmp_path_factory.mktemp("splits")
    for split in ("train", "val"):
        paint(above / split / "cat/a.png")
    assert load_dataset(f"folder:{above}").name.endswith("#val")
    assert load_dataset(f"folder:{above}#train").classes == ("cat",)


def test_a_broken_picture_costs_only_its_item(root: Path) -> None:
    (root / "cat/a.jpg").write_bytes(b"not a picture")
    outside = (root / "cat/b.png").rename(root.parent / "b.png")
    (root / "cat/b.png").symlink_to(outside)
    dataset = load_dataset(f"folder:{root}")
    refused(lambda: dataset[0], "cat/a.jpg", "not a picture")
    refused(lambda: dataset[1], "cat/b.png", "outside the dataset's folder")
    assert sum(isinstance(item, Sample) for _, item in readable(dataset)) == 2


def test_a_folder_without_pictures_is_refused(root: Path) -> None:
    refused(lambda: load_dataset(f"folder:{root / 'cat'}"), "no picture", "sub-folders")
