"""Cue-conflict stimuli: a hand-made folder, hostile ones, and the real set."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.data.made import check, paint, rectangles, refused, write
from xaitools.data import load_dataset, readable
from xaitools.data.relabel import Relabel
from xaitools.types import Sample

HEAD = "file,shape_class,texture_class,shape_image,texture_image,conflict,shape_silhouette\n"
STIMULI, SILHOUETTES = "style-transfer-preprocessed-512", "filled-silhouettes"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rows = []
    for shape, texture in (("cat1", "dog2"), ("dog3", "dog2")):
        kind = shape[:3]
        paint(tmp_path / f"{STIMULI}/{kind}/{shape}-{texture}.png")
        black_on_white = np.repeat(255 - 255 * rectangles((2, 4, 10, 12))[..., None], 3, axis=2)
        paint(tmp_path / f"{SILHOUETTES}/{kind}/{shape}.png", black_on_white)
        file, silhouette = f"{STIMULI}/{kind}/{shape}-{texture}.png", f"{SILHOUETTES}/{kind}/{shape}.png"
        rows.append(f"{file},{kind},{texture[:3]},{shape},{texture},{int(kind != texture[:3])},{silhouette}\n")
    write(tmp_path / "stimuli.csv", HEAD + "".join(rows))
    return tmp_path


@pytest.mark.parametrize("listed", [True, False])
def test_shape_is_the_class_and_the_silhouette_its_mask(listed: bool, root: Path) -> None:
    if not listed:
        (root / "stimuli.csv").unlink()
    dataset = load_dataset(f"cue-conflict:{root}")
    assert (dataset.task, dataset.classes, list(dataset.ids)) == ("classification", ("cat", "dog"), ["cat1-dog2", "dog3-dog2"])
    sample = dataset[0]
    check(dataset, sample)
    assert sample.label == 0 and sample.boxes.tolist() == [[2, 4, 10, 12]] and sample.labels.tolist() == [0]
    assert np.array_equal(sample.masks[0], rectangles((2, 4, 10, 12)) == 1)
    wanted = {"texture_class": "dog", "shape_image": "cat1", "texture_image": "dog2", "conflict": True}
    assert {key: sample.tags[key] for key in wanted} == wanted
    assert dataset[1].tags["conflict"] is False
    assert Relabel(dataset, "classification", ["dog", "cat"])(sample).label == 1


def test_without_silhouettes_there_are_labels_alone(root: Path) -> None:
    shutil.rmtree(root / SILHOUETTES)
    (root / "stimuli.csv").unlink()
    sample = load_dataset(f"cue-conflict:{root}")[0]
    assert sample.label == 0 and sample.masks is None and sample.boxes is None


def test_a_silhouette_without_an_object_leaves_none(root: Path) -> None:
    paint(root / f"{SILHOUETTES}/cat/cat1.png", np.full((24, 32, 3), 255, np.uint8))
    dataset = load_dataset(f"cue-conflict:{root}")
    check(dataset, dataset[0])
    assert len(dataset[0].boxes) == 0 and "no area" in dataset[0].tags["dropped"][0]


def test_what_is_broken_costs_only_its_item(root: Path) -> None:
    paint(root / f"{SILHOUETTES}/cat/cat1.png", np.zeros((9, 9, 3), np.uint8))
    dataset = load_dataset(f"cue-conflict:{root}")
    refused(lambda: dataset[0], "cat1.png", "9 x 9", "32 x 24")
    (root / f"{SILHOUETTES}/dog/dog3.png").unlink()
    refused(lambda: dataset[1], "dog3.png", "no such file")
    write(root / "stimuli.csv", HEAD + f"../a.png,cat,dog,,,1,\n{STIMULI}/cat/cat1-dog2.png,cat,dog,,,1,\n")
    results = [item for _, item in readable(load_dataset(f"cue-conflict:{root}"))]
    assert "outside the dataset's folder" in str(results[0]) and isinstance(results[1], Sample)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no picture"),
        (HEAD, "no picture"),
        ("file,shape_class\na.png,cat\n", "texture_class"),
        (HEAD + "a.png,cat,,,,1,\n", "line 2"),
        (HEAD + "a.png,cat,dog\nb/a.png,cat,dog\n", "twice"),
        (HEAD + 'a.png,"cat,dog\n', "line 2"),
        (HEAD + f"a.png,{'x' * 200_000},dog\n", "line 2"),
    ],
)
def test_a_broken_list_is_refused(text: str, word: str, root: Path) -> None:
    write(root / "stimuli.csv", text)
    refused(lambda: load_dataset(f"cue-conflict:{root}"), word)


def test_there_are_no_splits(root: Path) -> None:
    refused(lambda: load_dataset(f"cue-conflict:{root}#val"), "no splits", "#val")


def test_the_real_set_holds_what_its_readme_says(data_root: Path) -> None:
    dataset = load_dataset(f"cue-conflict:{data_root}/cue-conflict")
    pairs, conflicts, shares = set(), 0, []
    for sample in (dataset[index] for index in range(len(dataset))):
        pairs.add((dataset.classes[sample.label], sample.tags["texture_class"]))
        conflicts += sample.tags["conflict"]
        shares.append(float(sample.masks.numpy().mean()))
        assert len(sample.masks) == 1 and sample.label == int(sample.labels[0])
    assert (len(dataset.classes), len(pairs), conflicts) == (16, 256, 240)
    assert min(shares) > 0.01 and max(shares) < 0.95
