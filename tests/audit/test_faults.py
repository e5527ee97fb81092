"""What happens to long runs: full disks, images that vanish or rot, models that fail on one image, memory that does not suffice."""

from __future__ import annotations

import errno
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.audit.test_engine import QUICK, toys
from tests.audit.test_resume import run, same_reports
from tests.audit.test_shift import Tagged, corner
from tests.probes.toys import Shapes, reader
from xaitools.audit import probe
from xaitools.audit.examine import audit
from xaitools.cli import main
from xaitools.data.writing import write_dataset
from xaitools.errors import DataError, PlanError
from xaitools.metrics import evaluate
from xaitools.metrics.batches import tried
from xaitools.report.html import save_probe
from xaitools.types import Prediction, Sample


class Rotting(Tagged):
    """Item 3 can be read so many times, and then no more."""

    def __init__(self, n: int, reads: int) -> None:
        super().__init__(n)
        self.left = reads

    def __getitem__(self, index: int) -> Sample:
        if index == 3:
            self.left -= 1
            if self.left < 0:
                raise DataError(f"{self.ids[3]}: the picture is cut short")
        return super().__getitem__(index)


class Tight:
    """A model that takes so many images at once; ``raises`` is what comes of more, and of images as ``bad`` always."""

    task, background = "segmentation", 0

    def __init__(self, most: int, raises: Exception, bad: Tensor | None = None, nan: bool = False) -> None:
        self.inner, self.most, self.raises, self.bad, self.nan = corner(), most, raises, bad, nan
        self.classes, self.name = self.inner.classes, self.inner.name
        self.asked = Counter[int]()

    def __getattr__(self, name: str):
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def predict(self, images: Tensor) -> list[Prediction]:
        self.asked[len(images)] += 1
        hit = [self.bad is not None and torch.equal(image, self.bad) for image in images]
        if len(images) > self.most or (any(hit) and not self.nan):
            raise self.raises
        found = self.inner.predict(images)
        for prediction, bad in zip(found, hit, strict=True):
            if bad:
                prediction.scores.fill_(float("nan"))
        return found


def full_disk() -> tuple[object, Shapes]:
    """As ``toys``; in the process that makes them the fourth file finds no room."""
    written = Counter[str]()

    def sync(descriptor: int) -> None:
        written["files"] += 1
        if written["files"] > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    os.fsync = sync
    return toys()


@pytest.mark.long
def test_a_disk_that_is_full_in_a_worker_is_one_line_and_the_run_goes_on_when_there_is_room(tmp_path):
    with pytest.raises(PlanError, match=r"parquet: cannot be written \(No space left on device\); make room and go on with --resume"):
        run(tmp_path / "run", workers=2, origin=full_disk)
    left = {path.name for path in (tmp_path / "run" / "records").glob("*.parquet")}
    assert 3 <= len(left) < 40
    save_probe(run(tmp_path / "run", resume=True), tmp_path / "run")
    save_probe(run(None), tmp_path / "whole")
    assert same_reports(tmp_path / "run", tmp_path / "whole")
    assert not list((tmp_path / "run").rglob("*.draft"))


@pytest.mark.long
def test_a_disk_that_is_really_full_is_one_line(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("a small disk needs the right to mount one")
    try:
        with pytest.raises(PlanError, match="No space left on device"):
            run(small / "run")
        with pytest.raises(PlanError, match="No space left on device"):
            run(small / "run", resume=True)
        assert not list(small.rglob("*.draft"))
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.long
def test_a_folder_that_is_read_only_is_one_line(tmp_path, capsys):
    shut = tmp_path / "shut"
    shut.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(shut)], capture_output=True).returncode:
        pytest.skip("a read-only disk needs the right to mount one")
    try:
        for out in (shut, shut / "run"):
            with pytest.raises(SystemExit) as ended:
                main(["probe", "scenes:test?n=4", "--model", "unet-scenes", "--probes", "fog", "--out", str(out)])
            said = capsys.readouterr().err.strip()
            assert ended.value.code == 2 and "Read-only file system" in said and len(said.splitlines()) == 1
    finally:
        subprocess.run(["umount", str(shut)], check=True)


def test_an_image_that_vanishes_after_it_was_scored_costs_its_picture_and_its_relevance():
    for reads in (0, 1, 2, 5):
        report = probe(corner(), Rotting(8, reads), ["fog"], relevance=4, relevance_method="gradient-x-input").report
        assert report["n"] == (7 if reads == 0 else 8)
        assert report["probes"]["fog"]["relevance"]["n"] >= 3


@pytest.mark.long
@pytest.mark.parametrize("reads", [*range(12), 15, 20, 25, 30, 40, 60])
def test_an_image_that_vanishes_at_any_time_stops_no_audit(reads):
    report = audit(corner(), Rotting(24, reads), **{**QUICK, "explained": 24}).report
    found = {row["shortcut"]: row["verdict"] for row in report["findings"]}
    assert found["artifact"] != "no evidence" and len(found) == 6


@pytest.mark.long
def test_an_image_whose_file_rots_is_listed_and_left_out_on_both_sides(tmp_path):
    import xaitools as xt

    write_dataset({"test": Shapes(8)}, "voc", tmp_path / "voc")
    data = xt.load_dataset(f"voc:{tmp_path / 'voc'}#test")
    victim = sorted((tmp_path / "voc").rglob("JPEGImages/*"))[5]

    def rot(done: int, total: int) -> None:
        if done == 1:
            victim.write_bytes(victim.read_bytes()[:200])

    report = probe(reader("object"), data, ["fog"], batch_size=2, relevance=0, progress=rot).report
    assert report["n"] == 8 and report["probes"]["fog"]["n"] == 8 - len(report["skipped"])


@pytest.mark.long
@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("kind", ["raises", "nan"])
def test_a_model_that_fails_on_one_image_is_judged_by_the_others(kind, place):
    data = Tagged(24)
    model = Tight(100, IndexError("list index out of range"), data[place].image, nan=kind == "nan")
    report = audit(model, data, **{**QUICK, "explained": 24}).report
    words = "the model returned NaN" if kind == "nan" else "the model failed: IndexError: list index out of range"
    assert [each["id"] for each in report["skipped"] if "condition" not in each] == [data.ids[place]]
    assert words in report["skipped"][0]["reason"] and report["n"] == 23
    assert report["decisions"]["method"] == "gradient-x-input" and report["spots"]["n"] > 10
    assert {row["shortcut"]: row["verdict"] for row in report["findings"]}["artifact"] == "relies"


def test_evaluate_leaves_out_what_the_model_fails_on():
    data = Shapes(8)
    model = Tight(100, AssertionError(), data[2].image)
    document = evaluate(model, data, replicates=50)
    assert document["n"] == 7 and document["skipped"] == [{"id": "shape-002", "reason": "the model failed: AssertionError"}]
    assert evaluate(Tight(100, AssertionError(), data[2].image, nan=True), data, replicates=50)["n"] == 7


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError()])
def test_a_batch_for_which_memory_does_not_suffice_is_halved_and_the_report_says_so(error):
    small, whole = Tight(3, error), Tight(100, error)
    report, other = (probe(each, Tagged(16), ["fog"], batch_size=8, relevance=0).report for each in (small, whole))
    assert small.asked[8] and small.asked[4] and small.asked[2] == 40
    (said,) = [each for each in report["warnings"] if "memory" in each]
    assert said.startswith("memory did not suffice for batches of 8: 80 predictions were made in batches of down to 2")
    assert report["skipped"] == [] and report["probes"]["fog"] == other["probes"]["fog"]


def test_tried_leaves_no_stone_unturned():
    calls, sizes = list[list[int]](), list[int]()

    def work(items):
        calls.append(list(items))
        if len(items) > 2:
            raise MemoryError
        if 5 in items:
            raise KeyError(5)
        return [10 * each for each in items]

    found = tried(work, range(7), sizes.append)
    assert found[:5] == [0, 10, 20, 30, 40] and found[6] == 60 and str(found[5]) == "the model failed: KeyError: 5"
    assert sizes == [4, 2, 2] and calls == [list(range(7)), [0, 1, 2, 3], [0, 1], [2, 3], [4, 5, 6], [4, 5], [4], [5], [6]]


def test_a_run_whose_records_are_taken_away_is_one_line(tmp_path):
    def take(done: int, total: int) -> None:
        for path in Path(tmp_path / "run" / "records").glob("000000-clean-0.parquet"):
            path.unlink()

    with pytest.raises(PlanError, match="piece 000000-clean-0 was done and is gone"):
        run(tmp_path / "run", progress=take)
