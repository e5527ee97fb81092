"""A dataset as a list of repairs says, and lists that cannot be trusted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.probes.toys import Shapes
from xaitools.data import Dataset
from xaitools.data.repaired import Entry, Repaired, drawn, read_repair
from xaitools.errors import DataError, XaiError
from xaitools.training import recipe as recipes
from xaitools.training import run_recipe

HEAD = "id,action,weight,left,top,right,bottom"
RECIPE = """
name = "x"
architecture = "unet"
task = "segmentation"
network = { base = 4, depth = 1 }
[data]
train = "scenes:train?n=9&size=32"
val = "scenes:val?n=2&size=32"
test = "scenes:test?n=2&size=32"
%s
[input]
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
[training]
seed = 3
"""


def listed(path: Path, *lines: str) -> Path:
    path.write_text("\n".join([HEAD, *lines]) + "\n")
    return path


def test_what_the_list_says_is_done_and_all_else_stays(tmp_path):
    data = Shapes(6)
    assert isinstance(Repaired(data, {}), Dataset)
    path = listed(tmp_path / "a.csv", "shape-001,mask,1,0,0,8,4", "shape-001,mask,1.0,24,0,32,4", "shape-003,drop,1,0,0,1,1",
                  "shape-004,keep,1,0,0,8,8", "shape-005,mask,1,0,8,32,22")  # fmt: skip
    entries = read_repair(path, data.ids)
    assert entries["shape-001"].boxes == ((0, 0, 8, 4), (24, 0, 32, 4)) and entries["shape-004"] == Entry()
    found = Repaired(data, entries)
    assert list(found.ids) == [id for id in data.ids if id != "shape-003"] == [sample.id for sample in found] and len(found) == 5
    for index, whole in enumerate([0, 1, 2, 4, 5]):
        before, after = data[whole], found[index]
        assert torch.equal(before.image, after.image) is (whole not in (1, 5)) and torch.equal(before.boxes, after.boxes)
    differs = (data[1].image != found[1].image).any(0)
    assert bool(differs[:4, :8].any()) and bool(differs[:4, 24:].any()) and not bool((differs & data[1].masks[0]).any())
    across = (data[5].image != found[4].image).any(0)
    assert bool(data[5].masks[0, 8:22].any()) and not bool((across & data[5].masks[0]).any()) and bool(across[8:22].all(1).any())
    assert not bool(differs[7:].any()) and not bool(differs[:, 11:21].any())


def test_items_are_drawn_as_often_as_their_weights_say():
    weights = np.random.default_rng(0).uniform(0, 4, 50)
    for seed in range(3):
        counts = Counter(drawn(weights, seed).tolist())
        shares = weights / weights.sum() * 50
        assert counts.total() == 50 and all(abs(counts[place] - share) < 1 for place, share in enumerate(shares))
    assert drawn(weights, 1).tolist() == drawn(weights, 1).tolist() != drawn(weights, 2).tolist()
    data = Shapes(4)
    found = Repaired(data, {"shape-000": Entry(weight=3.0), "shape-001": Entry(weight=0.0), "shape-002": Entry(dropped=True)})
    assert list(found.ids) in (["shape-000", "shape-000 x2", "shape-003"], ["shape-000", "shape-000 x2", "shape-000 x3"])
    assert torch.equal(found[1].image, data[0].image) and found[1].id == "shape-000 x2"
    assert list(Repaired(data, {id: Entry(weight=0.5) for id in data.ids}).ids) == data.ids


@pytest.mark.parametrize(("text", "words"), [
    ("", "empty"),
    ("id,action\nshape-000,keep", "lacks weight, left"),
    (f"{HEAD}\ncat,keep,1,0,0,1,1", "line 2: 'cat' is no item of the data; ids look like 'shape-000'"),
    (f"{HEAD}\nshape-000,burn,1,0,0,1,1", "line 2: action 'burn'"),
    (f"{HEAD}\nshape-000,keep,1", "3 columns, expected 7"),
    (f"{HEAD}\nshape-000,keep,much,0,0,1,1", "weight 'much'; expected a number from 0"),
    (f"{HEAD}\nshape-000,keep,nan,0,0,1,1", "weight 'nan'"),
    (f"{HEAD}\nshape-000,keep,-1,0,0,1,1", "weight '-1'"),
    (f"{HEAD}\nshape-000,keep,1e9,0,0,1,1", "weight '1e9'"),
    (f"{HEAD}\nshape-000,keep,1,0,0,1,1\nshape-000,keep,2,0,0,1,1", "line 3: 'shape-000' has weight 2 here and 1 above"),
    (f"{HEAD}\nshape-000,mask,1,0,0,1.5,1", "expected whole pixels"),
    (f"{HEAD}\nshape-000,mask,1,4,0,4,1", "expected whole pixels"),
    (f"{HEAD}\nshape-000,mask,1,0,0,1e12,1", "right '1e12'; expected a number"),
    (f"{HEAD}\nshape-000,mask,1,,0,4,1", "left ''; expected a number"),
])  # fmt: skip
def test_a_list_that_is_wrong_is_one_line(text, words, tmp_path):
    path = tmp_path / "repair.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read_repair(path, Shapes(3).ids)
    assert "\n" not in str(caught.value)


def test_what_fits_no_image_or_leaves_none_is_one_line(tmp_path):
    outside = Repaired(Shapes(2), read_repair(listed(tmp_path / "a.csv", "shape-000,mask,1,0,0,33,4"), Shapes(2).ids))
    with pytest.raises(DataError, match=r"shape-000: the repair's box \(0, 0, 33, 4\) leaves its image of 32 x 32 pixels"):
        outside[0]
    with pytest.raises(DataError, match="leaves no item"):
        Repaired(Shapes(2), {id: Entry(dropped=True) for id in Shapes(2).ids})
    with pytest.raises(DataError, match="cannot be read"):
        read_repair(tmp_path / "none.csv", ["a"])
    quoted = listed(tmp_path / "b.csv", "'=a,drop,1,0,0,1,1")
    assert read_repair(quoted, ["=a", "b"]) == {"=a": Entry(dropped=True)}


def test_a_recipe_trains_on_what_is_repaired_and_takes_the_list_along(tmp_path, monkeypatch):
    trained: list[Dataset] = []

    def stopped(network, facts, splits, *others):
        trained.append(splits["train"])
        raise XaiError("far enough")

    monkeypatch.setattr(recipes, "train", stopped)
    listed(tmp_path / "repair.csv", "train-00001,mask,1,0,0,8,8", "train-00002,drop,1,0,0,1,1", "train-00000,drop,1,0,0,1,1")

    def run(words: str, **options: object) -> None:
        (tmp_path / "recipe.toml").write_text(RECIPE % words)
        run_recipe(tmp_path / "recipe.toml", tmp_path / "out", say=lambda _: None, **options)

    with pytest.raises(XaiError, match="far enough"):
        run('repair = "repair.csv"\nhold_out = 4')
    assert [sample.id for sample in trained[0]] == [f"train-0000{index}" for index in (1, 3, 5, 6, 7)]  # 0, 4 and 8 are val
    assert (tmp_path / "out" / "repair.csv").read_bytes() == (tmp_path / "repair.csv").read_bytes()
    listed(tmp_path / "repair.csv", "train-00002,drop,1,0,0,1,1")
    with pytest.raises(XaiError, match="started from another repair.csv"):
        run('repair = "repair.csv"\nhold_out = 4', resume=True)
    for name in ('"../repair.csv"', "3", '"weights.safetensors"'):
        with pytest.raises(XaiError, match="name of a .csv file that lies beside the recipe"):
            run(f"repair = {name}", resume=True)
