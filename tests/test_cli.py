"""The command line as others script against it: files, exit status, one line for a user's mistake."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from xaitools.cli import cli, main
from xaitools.cli.arguments import LocalPath

SCENES = "scenes:test?n=3"
SEGMENTER, DETECTOR = "unet-scenes", "faster-rcnn-scenes"


@pytest.fixture
def run(capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return call


@pytest.fixture(scope="module")
def scene_png(tmp_path_factory) -> Path:
    from xaitools import load_dataset

    path = tmp_path_factory.mktemp("image") / "scene one.png"
    image = load_dataset("scenes:test?n=4")[3].image
    Image.fromarray((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)).save(path)
    return path


def one_line(result: tuple[int, str, str], word: str) -> None:
    status, out, err = result
    assert (status, out) == (2, "") and len(err.strip().splitlines()) == 1, result
    assert err.startswith("xaitools: ") and "Traceback" not in err and re.search(word, err), err


def test_only_runs_go_to_an_object_store():
    """An address in place of a path would become a folder called s3: without a word."""
    kinds = {(name, each.name): each.type for name, one in cli.commands.items() for each in one.params if each.name in ("out", "runs")}
    runs = [key for key, kind in kinds.items() if not isinstance(kind, LocalPath)]
    assert runs == [("audit", "out"), ("probe", "out")] and len(kinds) > 10


def test_an_address_in_place_of_a_path(run):
    one_line(run("demo", "--out", "s3://bucket/demo"), "s3://bucket/demo.*expected a path on this machine")
    assert not Path("s3:").exists()


@pytest.mark.parametrize(("model", "target"), [(SEGMENTER, "top"), (DETECTOR, "box:0")])
def test_explain_writes_what_the_interface_says(run, scene_png, tmp_path, model, target):
    out = tmp_path / "why"
    status, printed, _ = run(
        "explain", scene_png, "--model", model, "--target", target, "--method", "occlusion,saliency,lrp", "--out", out,
        "--format", "png,pdf,svg", "--json", "--set", "occlusion.window=24", "--set", "occlusion.stride=24",
    )  # fmt: skip
    assert status == 0
    document = json.loads((out / "explanation.json").read_text())
    assert json.loads(printed) == document
    assert {"xaitools", "model", "image", "image_size", "task", "predictions", "explanations"} <= set(document)
    assert (document["model"], document["image"], document["image_size"]) == (model, scene_png.name, [96, 96])
    maps = load_file(out / "attributions.safetensors")
    for row in document["explanations"]:
        assert {"target", "method", "params", "seed", "score", "relevance_sum", "seconds", "tensor"} <= set(row)
        name, index = row["tensor"]
        assert name == row["method"] and maps[name].dtype == torch.float32 and maps[name].shape[1:] == (96, 96)
        assert float(maps[name][index].double().sum()) == pytest.approx(row["relevance_sum"], rel=1e-5, abs=1e-6)
    lrp = next(row for row in document["explanations"] if row["method"] == "lrp")
    assert lrp["score"] == pytest.approx(lrp["relevance_sum"] + sum(each["absorbed"] for each in lrp["ledger"]), rel=1e-4, abs=1e-4)
    occlusion = next(row for row in document["explanations"] if row["method"] == "occlusion")
    assert occlusion["params"]["window"] == 24 and occlusion["params"]["score"] == ("margin" if model == DETECTOR else "logit")
    for form, start in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        assert (out / f"figure.{form}").read_bytes().startswith(start)


def test_same_input_same_bytes(run, scene_png, tmp_path):
    for name in ("a", "b"):
        arguments = ("--method", "lrp", "--out", tmp_path / name, "--format", "png,pdf,svg")
        assert run("explain", scene_png, "--model", SEGMENTER, *arguments)[0] == 0
    for form in ("figure.png", "figure.pdf", "figure.svg", "attributions.safetensors"):
        assert (tmp_path / "a" / form).read_bytes() == (tmp_path / "b" / form).read_bytes(), form


def test_several_images_give_a_folder_each_and_a_sheet_one_figure(run, tmp_path):
    assert run("explain", SCENES, "--model", SEGMENTER, "--method", "saliency", "--out", tmp_path / "each")[0] == 0
    assert sorted(path.name for path in (tmp_path / "each").iterdir()) == ["test-00000", "test-00001", "test-00002"]
    arguments = ("--method", "saliency,gradient-x-input", "--layout", "sheet", "--scale", "shared")
    assert run("explain", SCENES, "--model", SEGMENTER, *arguments, "--out", tmp_path / "sheet")[0] == 0
    assert (tmp_path / "sheet" / "figure.png").is_file()


def test_one_bad_image_among_several_is_listed_and_the_rest_goes_on(run, scene_png, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(scene_png.read_bytes()[:500])
    status, out, err = run("explain", scene_png, bad, "--model", SEGMENTER, "--method", "saliency", "--json")
    assert status == 0 and "skipped bad.png" in err
    assert [row["id"] for row in json.loads(out)["skipped"]] == ["bad.png"]


def test_explaining_with_nothing_but_an_image_works(run, scene_png):
    status, out, _ = run("explain", scene_png, "--model", SEGMENTER, "--quiet")
    assert status == 0 and "lrp" in out


@pytest.mark.parametrize("model", [SEGMENTER, DETECTOR])
def test_evaluate(run, model):
    status, out, _ = run("evaluate", SCENES, "--model", model, "--json", "--quiet")
    result = json.loads(out)
    assert status == 0 and result["n"] == 3 and result["skipped"] == []
    assert result["metric"] == ("mIoU" if model == SEGMENTER else "mAP50") and result["value"] == result["metrics"][result["metric"]]
    assert result["ci"][0] <= result["value"] + 0.05 and set(result["metrics"]["per_class"]) >= {"arrow", "fish"}
    assert "95 % interval over 3 images; such intervals of drops held the truth in" in run("evaluate", SCENES, "--model", model)[1]


def test_probe_refuses_to_overwrite_and_resumes(run, tmp_path):
    groups = tmp_path / "groups.csv"
    groups.write_text(
        "id,group,video\n" + "\n".join(f"test-{place:05},{'first' if place < 4 else 'last'},{place // 2}" for place in range(6))
    )
    arguments = ("probe", "scenes:test?n=6", "--model", SEGMENTER, "--probes", "fog", "--out", tmp_path / "run", "--quiet",
                 "--groups", groups, "--cluster", "video", "--margin", 0.05, "--relevance", 0,
                 "--progress", tmp_path / "far.json")  # fmt: skip
    assert run(*arguments)[0] == 0
    report = (tmp_path / "run" / "report.json").read_bytes()
    far = json.loads((tmp_path / "far.json").read_text())
    assert far["done"] == far["total"] > 4 and far["rate"] > 0
    one_line(run(*arguments), "--resume")
    one_line(run(*arguments, "--resume", "--seed", 1), "seed")
    assert run(*arguments, "--resume")[0] == 0
    assert (tmp_path / "run" / "report.json").read_bytes() == report
    result = json.loads(report)
    assert result["controls"]["identity"] == {"drop": 0, "ci": [0, 0]} or result["controls"]["identity"]["drop"] == 0
    assert {"model", "dataset", "task", "n", "skipped", "metric", "clean", "controls", "probes", "warnings"} <= set(result)
    assert (result["intervals"]["units"], result["intervals"]["margin"]) == (3, 0.05) and result["probes"]["fog"]["primary"]["range"]
    assert {name: row["n"] for name, row in result["probes"]["fog"]["groups"].items()} == {"first": 4, "last": 2}


def test_models_lists_the_zoo_with_measured_scores(run):
    status, out, _ = run("models", "--json")
    rows = json.loads(out)
    assert status == 0 and {SEGMENTER, DETECTOR} <= {row["name"] for row in rows}
    fields = {"name", "architecture", "task", "classes", "data", "metric", "score", "parameters", "bytes", "redistribution"}
    assert all(set(row) >= fields and 0 < row["score"] <= 1 for row in rows)


PICTURES = {
    "missing.png": (None, "no such file"),
    "empty.png": (b"", "empty"),
    "text.png": (b"<html><script>alert(1)</script></html>", "not a picture"),
    "dot.png": ((1, 1), "at least 8"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_bad_image_is_one_line(run, tmp_path, name):
    content, word = PICTURES[name]
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        Image.new("RGB", content).save(path)
    one_line(run("explain", path, "--model", SEGMENTER), word)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--model", "unet-scene"], "did you mean unet-scenes"),
        (["--model", SEGMENTER, "--method", "lpr"], "did you mean lrp"),
        (["--model", SEGMENTER, "--target", "region:cat"], "unknown class 'cat'"),
        (["--model", SEGMENTER, "--target", "somewhere"], "expected one of top"),
        (["--model", SEGMENTER, "--target", "pixel:96,0"], "outside the image"),
        (["--model", DETECTOR, "--target", "box:0,0,500,10:fish"], "not a box inside the image"),
        (["--model", DETECTOR, "--target", "box:77"], "boxes were found"),
        (["--model", DETECTOR, "--target", "pixel:1,1"], "no such target"),
        (["--model", SEGMENTER, "--format", "jpg"], "expected png, pdf, svg"),
        (["--model", SEGMENTER, "--set", "lrp.epsilom=1"], "no parameter 'epsilom'"),
        (["--model", SEGMENTER, "--set", "lrp.epsilon=x"], "expected a number"),
        (["--model", SEGMENTER, "--set", "occlusion.window=8"], "not part of this run"),
        (["--model", SEGMENTER, "--set", "window"], "NAME.KEY=VALUE"),
        (["--model", DETECTOR, "--target", "box:0:left", "--method", "occlusion", "--set", "occlusion.score=margin"], "regression output"),
        (["--model", SEGMENTER, "--device", "cuda:7"], "cpu|device"),
        (["--model", SEGMENTER, "--scale", "wide", "--out", "OUT"], "shared"),
        ([], "--model"),
        (["--model", SEGMENTER, "--nonsense"], "No such option"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_one_line(run, scene_png, tmp_path, arguments, word):
    arguments = [str(tmp_path / "out") if argument == "OUT" else argument for argument in arguments]
    one_line(run("explain", scene_png, *arguments), word)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["evaluate", "nope", "--model", SEGMENTER], "LAYOUT:PATH"),
        (["evaluate", "vok:DIR", "--model", SEGMENTER], "did you mean voc"),
        (["evaluate", "voc:nowhere#test", "--model", SEGMENTER], "no folder"),
        (["evaluate", "scenes:tset", "--model", SEGMENTER], "did you mean test"),
        (["evaluate", "scenes:test?n=many", "--model", SEGMENTER], "n=|whole number"),
        (["probe", SCENES, "--model", SEGMENTER, "--probes", "textur", "--out", "OUT"], "did you mean texture"),
        (["probe", SCENES, "--model", SEGMENTER, "--severities", "7", "--out", "OUT"], "from 1 to 5"),
        (["train", "nothing.toml", "--out", "OUT"], "no such file"),
        (["explode"], "No such command"),
    ],
)
def test_a_wrong_command_or_dataset_is_one_line(run, tmp_path, arguments, word):
    one_line(run(*[str(tmp_path / "out") if argument == "OUT" else argument for argument in arguments]), word)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_is_left_alone(run, scene_png, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    one_line(run("explain", scene_png, "--model", SEGMENTER, "--method", "saliency", "--out", tmp_path), "thesis.tex")
    one_line(run("probe", SCENES, "--model", SEGMENTER, "--probes", "fog", "--out", tmp_path), "--out|holds")
    one_line(run("demo", "--out", tmp_path), "no demo")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_ctrl_c_ends_with_130(run, monkeypatch, scene_png):
    from xaitools.attribution import explanation

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(explanation, "explain_image", interrupted)
    status, _, err = run("explain", scene_png, "--model", SEGMENTER)
    assert status == 130 and "interrupted" in err


def test_ctrl_c_keeps_the_methods_and_images_that_were_done(run, monkeypatch, scene_png, tmp_path):
    from xaitools.attribution import explanation

    plain, calls = explanation.explain_many, []

    def sometimes(model, image, targets, method, **options):
        calls.append(method)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plain(model, image, targets, method, **options)

    monkeypatch.setattr(explanation, "explain_many", sometimes)
    methods = ["--method", "saliency,gradient-x-input", "--out", tmp_path / "out"]
    status, _, err = run("explain", "scenes:test?n=3", "--model", SEGMENTER, *methods)
    assert status == 130 and "interrupted" in err
    documents = [json.loads(path.read_text()) for path in sorted((tmp_path / "out").glob("*/explanation.json"))]
    assert [[row["method"] for row in each["explanations"]] for each in documents] == [["saliency", "gradient-x-input"], ["saliency"]]
    assert calls[-1] == "gradient-x-input" and not list((tmp_path / "out").rglob("*.part*"))


def test_ctrl_c_in_the_first_method_keeps_the_targets_that_were_done_one_by_one(run, monkeypatch, scene_png, tmp_path):
    from xaitools.attribution import explanation

    plain, calls = explanation.explain_many, []

    def sometimes(model, image, targets, method, **options):
        calls.append([*targets])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(model, image, targets, method, **options)

    monkeypatch.setattr(explanation, "explain_many", sometimes)
    targets = ["--target", "box:0", "--target", "box:0:left", "--set", "occlusion-drise.window=48"]
    status, _, _ = run("explain", scene_png, "--model", DETECTOR, *targets, "--method", "occlusion-drise", "--out", tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "explanation.json").read_text())["explanations"]
    assert status == 130 and calls == [["box:0", "box:0:left"], ["box:0"], ["box:0:left"]]
    assert [(row["target"], row["tensor"]) for row in rows] == [("box:0", ["occlusion-drise", 0])]


def test_ctrl_c_in_a_sweep_keeps_its_windows_and_the_same_command_goes_on(run, monkeypatch, tmp_path):
    from xaitools.attribution import kept

    monkeypatch.setattr(kept, "PAUSE", 0.0)
    monkeypatch.setattr(kept, "SHARE", 0)  # else a slow disk skips a writing
    write, written = kept.write_bytes, []

    def sometimes(path, data):
        write(path, data)
        written.append(path)
        if len(written) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(kept, "write_bytes", sometimes)
    coarse = ("--set", "occlusion-drise.window=24", "--set", "occlusion-drise.stride=12", "--out", tmp_path / "out")
    command = ("explain", "scenes:test?n=2", "--model", SEGMENTER, "--method", "saliency,occlusion-drise", *coarse)
    status, _, err = run(*command)
    assert status == 130 and "goes on from there" in err
    first = tmp_path / "out" / "test-00000"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"test-00000"}
    assert json.loads((first / "explanation.json").read_text())["explanations"][0]["method"] == "saliency"
    assert list(first.glob("unfinished-*.safetensors"))
    assert run(*command)[0] == 0
    assert not list((tmp_path / "out").rglob("unfinished-*")) and len(list((tmp_path / "out").glob("*/explanation.json"))) == 2


def test_help_does_not_wait_for_torch():
    code = "import sys, xaitools.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
