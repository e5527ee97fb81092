"""Short versions of benchmarks/fuzz.py: no reader crashes, and what is sound is read."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from fuzz import Count, by_hypothesis, by_mutations, mutated, offline
from fuzz_readers import Reader, readers

import xaitools as xt
from xaitools.data.writing import write_dataset
from xaitools.errors import DataError, TargetError, XaiError
from xaitools.targets import Target

SECRET = Path(__file__).parents[1] / "examples" / "figures" / "bccd.png"


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    with offline():
        yield readers(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_no_reader_crashes(known):
    for name, reader in known.items():
        for make in (by_mutations, by_hypothesis):
            count = make(reader, 1.5, start=2)
            assert not count.crashes, (name, make.__name__, count.examples)
            assert count.inputs > 0
        sound = Count()
        for data in reader.seeds:
            sound.add(reader.read, data)
        assert sound.read, f"{name} reads none of its seeds"


def test_a_crash_a_long_refusal_and_a_clear_line_are_told_apart():
    def read(data: bytes) -> None:
        if data == b"crash":
            raise KeyError("id")
        if data == b"long":
            error = XaiError()
            error.__class__ = type("Long", (XaiError,), {"__str__": lambda self: "one\ntwo"})
            raise error
        if data != b"sound":
            raise DataError("what came, what was expected, what to do")

    count = Count()
    for data in (b"crash", b"crash", b"long", b"sound", b"else"):
        count.add(read, data)
    assert (count.inputs, count.read, count.crashes.total()) == (5, 1, 3)
    assert count.crashes["KeyError"] == 2 and count.crashes["a refusal of several lines"] == 1 and count.examples["KeyError"] == b"crash"


def test_mutations_are_the_same_for_one_seed_and_leave_little_untouched():
    reader = Reader(len, [b"a valid file", b"another one"], [b"WORD"])
    one, other = ([mutated(reader, random.Random(seed)) for seed in range(200)] for _ in range(2))
    assert one == other and len(set(one)) > 150 and any(b"WORD" in each for each in one)


def test_a_target_that_is_no_text_or_has_an_empty_name_is_refused():
    for text in ("class:\udcff", "pixel:1,2:", "pixel:1,2::vs:car"):
        with pytest.raises(TargetError):
            Target.parse(text)
    assert str(Target.parse("class:\u0645\u06cc\u200c")) == "class:%D9%85%DB%8C%E2%80%8C"


@pytest.mark.parametrize("way", ["..", "link"])
@pytest.mark.parametrize("layout", ["voc", "coco", "camvid"])
def test_names_in_lists_and_links_stay_inside_the_folder(tmp_path, layout, way):
    root = tmp_path / layout
    write_dataset({"test": xt.load_dataset("scenes:test?n=1&size=32")}, layout, root)
    (picture,) = [path for path in root.rglob("*.png") if path.parent.name in ("JPEGImages", "test")]
    shutil.copy(SECRET, tmp_path / "secret.png")
    if way == "link":
        picture.unlink()
        picture.symlink_to(tmp_path / "secret.png")
    elif layout == "coco":
        (file,) = root.rglob("instances_test.json")
        content = json.loads(file.read_text())
        content["images"][0]["file_name"] = "../../secret.png"
        file.write_text(json.dumps(content))
    else:
        lists = {"voc": ("ImageSets/Main/test.txt", "../../secret\n"), "camvid": ("test.txt", "../secret.png ../secret.png\n")}
        (root / lists[layout][0]).write_text(lists[layout][1])
    with pytest.raises(DataError, match="leads outside the dataset's folder"):
        xt.load_dataset(f"{layout}:{root}#test")[0]
