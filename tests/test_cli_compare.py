"""``xaitools compare`` and ``models`` as others script against them."""

import json
import re

import pytest

from xaitools.cli import main

FIELDS = {"model", "task", "dataset", "metric", "value", "gflops", "parameters", "memory_mb", "latency_ms", "train_petaflop"}


@pytest.fixture
def run(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in arguments])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return call


def one_line(result, word):
    status, out, err = result
    assert (status, out) == (2, "") and len(err.strip().splitlines()) == 1, result
    assert "Traceback" not in err and re.search(word, err), err


def test_compare_writes_what_the_interface_says(run, tmp_path):
    out = tmp_path / "side by side"
    arguments = (
        "compare",
        "--model",
        "unet-scenes",
        "--model",
        "faster-rcnn-scenes",
        "--data",
        "scenes:test?n=4",
        "--out",
        out,
        "--rounds",
        3,
    )
    status, printed, err = run(*arguments, "--format", "png,pdf,svg", "--json")
    document = json.loads((out / "compare.json").read_text())
    assert status == 0 and json.loads(printed) == document
    assert [set(row) >= FIELDS for row in document["rows"]] == [True, True]
    assert all(
        row["gflops"] > 0 and row["memory_mb"] > 0 and row["latency_ms"] > 0 and row["dataset"].startswith("scenes:test")
        for row in document["rows"]
    )
    for name in ("figure", "efficiency"):
        for form, start in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
            assert (out / f"{name}.{form}").read_bytes().startswith(start)
    assert err.count("wrote ") == 9
    status, printed, _ = run(*arguments, "--quiet")
    assert status == 0 and "faster-rcnn-scenes" in printed and "GFLOP" in printed


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--model", "unet-scene"], "did you mean unet-scenes"),
        ([], "--model"),
        (["--model", "unet-scenes", "--model", "unet-scenes"], "given twice"),
        (["--model", "unet-scenes", "--format", "gif"], "expected png, pdf, svg"),
        (["--model", "unet-scenes", "--data", "scenes:tset"], "did you mean test"),
        (["--model", "unet-camvid", "--data", "scenes:test?n=2"], "fewer than half"),
    ],
)
def test_a_wrong_argument_is_one_line(run, tmp_path, arguments, word):
    one_line(run("compare", *arguments, "--out", tmp_path / "out"), word)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_is_left_alone_before_anything_is_measured(run, tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    one_line(run("compare", "--model", "unet-scenes", "--out", tmp_path), "thesis.tex")


def test_models_say_what_they_are_fed(run):
    status, out, _ = run("models", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert status == 0 and rows["unet-camvid"]["input_size"] == [192, 256] and rows["unet-scenes"]["input_size"] is None
    status, out, _ = run("models")
    assert (
        status == 0
        and re.search(r"unet-camvid +segmentation +11 +192 x 256", out)
        and re.search(r"faster-rcnn-scenes +detection +5 +side 96", out)
    )
