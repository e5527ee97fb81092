"""``xaitools scenes``: drawn scenes on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from xaitools.cli import main
from xaitools.data import load_dataset
from xaitools.data.scenes import Scenes


@pytest.fixture
def run(capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["scenes", *map(str, arguments)])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return call


def test_what_is_printed_opens_what_was_written(run, tmp_path: Path) -> None:
    options = ("--n", 3, "--size", 48, "--shortcut", "background", "--rho", 0.8, "--prevalence", 0.2, "--others", 0, "--seed", 7)
    status, out, err = run("--out", tmp_path / "set", "--layout", "voc", *options, "--json")
    document = json.loads(out)
    assert status == 0 and list(document["splits"]) == ["train", "val", "test"] and err == ""
    drawn = Scenes("val", 3, 7, 48, "background", 0.8, 0.2, 0)
    row = document["splits"]["val"]
    assert row["source"] == drawn.name and row["n"] == 3
    assert torch.equal(load_dataset(row["dataset"])[2].image, drawn[2].image)


def test_one_split_and_what_it_says(run, tmp_path: Path) -> None:
    status, out, err = run("--out", tmp_path, "--layout", "folder", "--n", 2, "--split", "train", "--split", "train")
    assert status == 0 and out == f"2 scenes: folder:{tmp_path}#train\n" and "not in this layout: boxes" in err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--layout", "vco"), "did you mean voc"),
        (("--layout", "voc", "--split", "tset"), "did you mean test"),
        (("--layout", "voc", "--n", 0), "n=0"),
        (("--layout", "voc", "--size", 4), "size=4"),
        (("--layout", "voc", "--shortcut", "tga"), "did you mean tag"),
        (("--layout", "voc", "--rho", 0.5), "rho=0.5"),
        (("--layout", "voc", "--shortcut", "tag", "--rho", "nan"), "rho=nan"),
        ((), "--layout"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(run, options, word: str, tmp_path: Path) -> None:
    status, out, err = run("--out", tmp_path / "set", *options)
    assert (status, out, len(err.splitlines())) == (2, "", 1) and word in err
    assert not (tmp_path / "set").exists()


def test_nothing_is_overwritten_and_an_interrupted_run_goes_on(run, tmp_path: Path) -> None:
    arguments = ("--out", tmp_path, "--layout", "coco", "--n", 2, "--size", 32, "--split", "val")
    assert run(*arguments)[0] == 0
    (tmp_path / "val/val-00001.png").unlink()
    status, _, err = run(*arguments)
    assert status == 2 and "--resume" in err and not (tmp_path / "val/val-00001.png").exists()
    assert run(*arguments, "--resume")[0] == 0
    assert torch.equal(load_dataset(f"coco:{tmp_path}")[1].image, Scenes("val", 2, size=32)[1].image)
    status, _, err = run(*arguments, "--resume", "--seed", 1)
    assert status == 2 and "something else" in err
