"""Datasets in object stores: the same samples, only what was asked for, once, bounded, and never outside the cache."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from tests.store_server import served
from xaitools.cli import main
from xaitools.data import load_dataset
from xaitools.data.fetched import WANTED
from xaitools.data.writing import write_dataset
from xaitools.errors import DataError, StoreError
from xaitools.locations import cache_root
from xaitools.stores import Store

URI = "s3://bucket/data"
SMALL = {"train": "scenes:train?n=3&size=32&crop=32", "test": "scenes:test?n=3&size=32&crop=32"}


class Counting(Store):
    """A store in a folder, which counts what is read and fails after ``left`` reads."""

    def __init__(self, root: Path) -> None:
        super().__init__(SubTreeFileSystem(str(root), LocalFileSystem()), "", URI)
        self.reads, self.left = Counter[str](), -1

    def read(self, name: str, limit: int) -> bytes:
        if self.left == 0:
            raise StoreError(f"{self.uri}/{name}: cannot be read")
        self.left -= 1
        self.reads[name] += 1
        return super().read(name, limit)


@pytest.fixture
def far(tmp_path, monkeypatch) -> Counting:
    """What ``URI`` names: the folder ``far``; the cache is ``cache``."""
    (tmp_path / "far").mkdir()
    store = Counting(tmp_path / "far")
    monkeypatch.setattr("xaitools.data.fetched.opened", lambda uri: {URI: store}[uri])
    monkeypatch.setenv("XAITOOLS_CACHE", str(tmp_path / "cache"))
    return store


def test_drawn_scenes_are_in_no_store(far) -> None:
    with pytest.raises(DataError, match="unknown split 's3://bucket/data'"):
        load_dataset(f"scenes:{URI}")
    assert not far.reads and not cache_root().exists()


def written(layout: str, root: Path) -> None:
    cut = "" if layout == "folder" else "&crop=32"
    write_dataset({split: load_dataset(text.replace(cut, "") if cut else text) for split, text in SMALL.items()}, layout, root)


def same(one, other) -> bool:
    pairs = [(one[index], other[index]) for index in range(len(other))]
    return list(one.ids) == list(other.ids) and all(
        a is None or torch.equal(a, b)
        for left, right in pairs
        for a, b in ((getattr(left, key), getattr(right, key)) for key in ("image", "semantic", "boxes", "labels", "masks"))
    )


@pytest.mark.parametrize("layout", sorted(WANTED))
def test_a_split_is_the_same_and_fetched_alone_once_and_again_where_it_changed(layout, far, tmp_path):
    root = tmp_path / "far"
    written(layout, root)
    text = f"{layout}:{URI}#test"
    data = load_dataset(text)
    assert data.name == text and same(data, load_dataset(f"{layout}:{root}#test"))
    pictures = {path.relative_to(root).as_posix() for path in root.rglob("*.png")}
    fetched = set(far.reads)
    assert pictures & fetched and len(pictures & fetched) < len(pictures) and set(far.reads.values()) == {1}
    far.reads.clear()
    assert load_dataset(text).ids == data.ids and not far.reads
    victim = sorted(pictures & fetched)[0]
    (root / victim).write_bytes((root / victim).read_bytes() + b"0")
    assert load_dataset(text).ids == data.ids and set(far.reads) == {victim}
    (copy,) = [path for path in cache_root().iterdir() if path.is_dir()]
    assert (copy / victim).read_bytes().endswith(b"0")
    (root / victim).unlink()
    assert len(load_dataset(text)) and not (copy / victim).exists()
    both = load_dataset(f"{layout}:{URI}#train+test")
    assert len(both) > 2 and pictures - {victim} <= set(far.reads) | fetched


def test_what_was_fetched_before_something_failed_stays(far, tmp_path):
    written("camvid", tmp_path / "far")
    far.left = 4
    with pytest.raises(StoreError, match="cannot be read"):
        load_dataset(f"camvid:{URI}#test")
    before, far.left, told = set(far.reads), -1, []
    far.reads.clear()
    assert len(load_dataset(f"camvid:{URI}#test", lambda done, total: told.append((done, total)))) == 3
    assert before and not before & set(far.reads) and told[-1][0] == told[-1][1] > 0


def test_the_cache_has_a_bound(far, tmp_path, monkeypatch):
    written("camvid", tmp_path / "far")
    monkeypatch.setenv("XAITOOLS_CACHE_GB", "1e-6")
    with pytest.raises(StoreError, match=r"GB are to be fetched, and the cache .* holds .* of 1e-06 GB; delete .*or set XAITOOLS_CACHE_GB"):
        load_dataset(f"camvid:{URI}#test")
    assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("*/**/*") if path.is_file()) <= 1000
    monkeypatch.setenv("XAITOOLS_CACHE_GB", "much")
    with pytest.raises(StoreError, match="XAITOOLS_CACHE_GB='much': expected a number of gigabytes"):
        load_dataset(f"camvid:{URI}#test")


def test_nothing_is_written_outside_the_cache(far, tmp_path):
    written("camvid", tmp_path / "far")
    (tmp_path / "far" / "test.txt").write_text("../../escaped.png /etc/passwd\n")
    load_dataset(f"camvid:{URI}#test")  # no such names are in the store
    (tmp_path / "outside").mkdir()
    (copy,) = [path for path in cache_root().iterdir() if path.is_dir()]
    (copy / "trainannot").symlink_to(tmp_path / "outside")  # planted by somebody else
    with pytest.raises(DataError, match="trainannot/.*: leads outside the dataset's folder"):
        load_dataset(f"camvid:{URI}#train")
    assert not list((tmp_path / "outside").iterdir())


def test_an_empty_store_is_no_dataset(far):
    with pytest.raises(StoreError, match=f"{URI}: holds no file; expected the root of a dataset"):
        load_dataset(f"camvid:{URI}")


@pytest.mark.long
def test_data_and_report_in_a_real_store(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XAITOOLS_CACHE", str(tmp_path / "cache"))
    write_dataset({"test": load_dataset("scenes:test?n=6")}, "camvid", tmp_path / "data")
    with served() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        store = server.bucket("both", "s3://both/data")
        for path in (tmp_path / "data").rglob("*"):
            if path.is_file():
                store.write(path.relative_to(tmp_path / "data").as_posix(), path.read_bytes())
        command = ["probe", "--model", "unet-scenes", "--probes", "fog", "--relevance", "0"]
        for data, out in (("camvid:s3://both/data#test", "s3://both/run"), (f"camvid:{tmp_path / 'data'}#test", str(tmp_path / "run"))):
            with pytest.raises(SystemExit) as ended:
                main([*command, data, "--out", out])
            assert ended.value.code == 0, capsys.readouterr().err
        found = json.loads(Store(store.files, "both/run", "s3://both/run").read("report.json", 2**20))
    other = json.loads((tmp_path / "run" / "report.json").read_text())
    assert found.pop("plan") != other.pop("plan")  # it holds the dataset's name
    assert found.pop("dataset") == "camvid:s3://both/data#test" and other.pop("dataset")
    assert found == other
