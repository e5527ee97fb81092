"""The table of every class against every other: planted dependence comes out, intervals hold it, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import xaitools as xt
from tests.company import BRIGHT, GROUND, KINDS, SIDES, Company, classifier, detector, lean, segmenter
from xaitools.audit import counterfactual as table
from xaitools.audit.counterfactual import counterfactual_table, elsewhere
from xaitools.cli import main
from xaitools.errors import DataError, MethodError, PlanError
from xaitools.report import counterfactual as report
from xaitools.report.counterfactual import counterfactual_figure, save_counterfactual, table_text

N = 18


def cells(document: dict) -> dict[tuple[str, str], dict]:
    return {(row["explained"], row["removed"]): row for row in document["rows"]}


@pytest.fixture(scope="module")
def document():
    return counterfactual_table(segmenter(), Company(N), replicates=500)


@pytest.mark.parametrize(("model", "annotation"), [(segmenter(), "masks"), (detector(), "masks"), (detector(), "boxes")])
def test_planted_dependence_comes_out_and_nothing_else_does(model, annotation):
    data = Company(N, annotation=annotation)
    document = counterfactual_table(model, data, replicates=200)
    found = cells(document)
    areas = [int(data.masks(index)["green"].sum()) for index in range(N) if index % 3 == 0]
    planted = found["red", "green"]
    assert planted["fall"] == pytest.approx(np.mean([lean(each) for each in areas]), rel=1e-3)
    assert planted["beyond"] == pytest.approx(planted["fall"], rel=1e-3) and planted["share"] == 1
    assert (planted["images"], planted["objects"], planted["control_objects"]) == (N // 3, N // 3, N // 3)
    for pair in (("red", "blue"), ("green", "red"), ("blue", "red")):
        assert found[pair]["fall"] == 0 and found[pair]["ci"] == [0, 0] and found[pair]["found"] == pytest.approx(0, abs=1e-6)
    for name in KINDS:
        for other in ("background", "control"):
            assert found[name, other]["fall"] == pytest.approx(0, abs=1e-5) and found[name, other]["images"] > 0
        assert found[name, name]["fall"] is None
    for pair in (("green", "blue"), ("blue", "green")):
        assert found[pair] | {"explained": "", "removed": ""} == found["green", "green"] | {"explained": "", "removed": ""}
        assert found[pair]["fall"] is found[pair]["ci"] is found[pair]["found"] is None and found[pair]["images"] == 0
    assert document["score"] == ("logit" if model.task == "segmentation" else "margin")
    assert document["n"] == N and document["objects"] == N + 2 * (N // 3)


def test_the_interval_holds_the_truth_about_once_in_twenty_not(document):
    expected = lean(float(np.mean(SIDES)) ** 2)
    low, high = cells(document)["red", "green"]["ci"]
    assert low < expected < high and high - low < expected
    held = 0
    for start in range(20):  # ten images each
        areas = [int(Company(3000).masks(30 * start + 3 * index)["green"].sum()) for index in range(10)]
        weights = table.image_weights([str(each) for each in range(10)], seed=start, replicates=300)
        held += (ci := table.pooled_mean([[lean(area)] for area in areas], weights)["ci"])[0] <= expected <= ci[1]
    assert held >= 16


def test_a_black_box_and_a_classifier(document):
    found = cells(counterfactual_table(detector(final=True), Company(9), replicates=50))["red", "green"]
    areas = [int(Company().masks(index)["green"].sum()) for index in (0, 3, 6)]
    fall = np.mean([float(torch.tensor(1 + lean(each)).sigmoid() - torch.tensor(1.0).sigmoid()) for each in areas])
    assert found["fall"] == pytest.approx(fall, rel=1e-3) and found["found"] == pytest.approx(found["fall"])
    whole = counterfactual_table(classifier(), Company(9), replicates=50)
    assert whole["explained"] == ["red"] and cells(whole)["red", "green"]["fall"] == pytest.approx(
        np.mean([lean(a) for a in areas]), rel=1e-3
    )


def test_no_pixel_of_what_is_explained_is_touched():
    """A box of green that lies half in that of red: what is red's stays, and the table says how much went."""
    data = Company(3, annotation="boxes")
    sample = data[0]
    red = sample.boxes[0]
    green = red + torch.tensor([4.0, 0, 4, 0])
    overlapping = replace(sample, boxes=torch.stack([red, green]))
    data.ids = data.ids[:1]
    data.__class__ = type("One", (Company,), {"__getitem__": lambda self, index: overlapping})
    model, seen = detector(), []
    predict = model.predict
    model.predict = lambda images: [seen.append(image) for image in images] and predict(images)
    row = cells(counterfactual_table(model, data, replicates=10))["red", "green"]
    left, top, right, bottom = map(int, red.tolist())
    assert row["share"] == pytest.approx(4 / float(red[2] - red[0]))
    assert len(seen) > 3 and all(torch.equal(each[:, top:bottom, left:right], sample.image[:, top:bottom, left:right]) for each in seen)
    assert any(not torch.equal(each, sample.image) for each in seen)


def test_the_control_is_the_same_shape_where_nothing_is():
    data = Company()
    masks = data.masks(0)
    moved = elsewhere(masks["green"], masks["green"] | masks["red"], masks["green"], masks["red"])
    assert int(moved.sum()) == int(masks["green"].sum()) and not bool((moved & (masks["green"] | masks["red"])).any())

    def distance(mask):
        return np.hypot(*np.subtract(*(np.mean(np.nonzero(each.numpy()), 1) for each in (mask, masks["red"]))))

    assert distance(moved) == pytest.approx(distance(masks["green"]), abs=1)
    full = torch.ones(48, 56, dtype=torch.bool)
    assert elsewhere(masks["green"], full, masks["green"], masks["red"]) is None
    assert elsewhere(masks["green"] & False, masks["red"], masks["green"], masks["red"]) is None


def test_a_killed_run_goes_on_and_gives_the_same_bytes(tmp_path):
    def run(out: Path, **given: object) -> dict:
        return counterfactual_table(segmenter(), Company(9), replicates=50, journal=out / "journal.jsonl", **given)

    save_counterfactual(run(tmp_path / "a"), tmp_path / "a")
    lines = (tmp_path / "a" / "journal.jsonl").read_text().splitlines()
    cut = tmp_path / "b" / "journal.jsonl"
    cut.parent.mkdir()
    cut.write_text("\n".join(lines[:4]) + "\n" + lines[4][: len(lines[4]) // 2])  # killed while it wrote
    seen: list[int] = []
    save_counterfactual(run(tmp_path / "b", resume=True, progress=lambda done, total: seen.append(done)), tmp_path / "b")
    assert seen == list(range(4, 10))
    for name in ("counterfactual.json", "counterfactual.md", "counterfactual.csv", "figure.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert run(tmp_path / "b", resume=True, progress=seen.append) and seen == list(range(4, 10)), "all is done"
    with pytest.raises(PlanError, match="--resume"):
        run(tmp_path / "a")
    with pytest.raises(PlanError, match="other params"):
        run(tmp_path / "a", resume=True, score="probability")


@pytest.mark.parametrize(("model", "data", "given", "error", "words"), [
    (segmenter, Company, {"score": "loud"}, MethodError, "expected logit"),
    (segmenter, Company, {"params": {"background": "purple"}}, MethodError, "expected mean"),
    (segmenter, Company, {"params": {"most": "3"}}, MethodError, "no parameter of the table"),
    (segmenter, Company, {"params": {"batch_size": "0"}}, MethodError, "at least 1"),
    (lambda: detector(final=True), Company, {"score": "margin"}, MethodError, "black box"),
    (classifier, lambda: Company(annotation="label"), {}, DataError, "no object to take out"),
])  # fmt: skip
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(model, data, given, error, words, tmp_path):
    with pytest.raises(error, match=words) as caught:
        counterfactual_table(model(), data(), journal=tmp_path / "o" / "journal.jsonl", **given)
    assert "\n" not in str(caught.value) and not (tmp_path / "o").exists()


def test_nothing_right_is_nothing_to_explain():
    class Dark(torch.nn.Module):
        def forward(self, x):
            return torch.stack([x[:, 0] + 1, x[:, 0], x[:, 1], x[:, 2]], 1)

    dark = xt.wrap(Dark(), task="segmentation", classes=["background", *KINDS], background="first", name="dark")
    with pytest.raises(DataError, match="dark is right nowhere in 6 images"):
        counterfactual_table(dark, Company())


def test_few_images_are_said_to_be_weak():
    document = counterfactual_table(segmenter(), Company(6), replicates=50)
    assert any("weak" in each for each in document["warnings"])
    assert " *" in table_text(document)
    one = cells(counterfactual_table(segmenter(), Company(1), replicates=50))["red", "green"]
    assert one["fall"] > 0 and one["ci"] is None and one["images"] == 1


def test_the_files_are_whole_or_not_there(document, tmp_path, monkeypatch):
    files = save_counterfactual(document, tmp_path / "o", ("png", "svg"))
    assert {file.name for file in files} == {path.name for path in (tmp_path / "o").iterdir()}
    assert json.loads((tmp_path / "o" / "counterfactual.json").read_text()) == json.loads(json.dumps(document))
    sheet = (tmp_path / "o" / "counterfactual.csv").read_text().splitlines()
    assert len(sheet) == 1 + len(document["rows"]) and sheet[0].startswith("explained,removed,fall,ci_low,ci_high,found")
    drawn = (tmp_path / "o" / "figure.svg").read_text()
    assert all(f">{name}<" in drawn for name in (*KINDS, "background", "control")) and f"n {N // 3}<" in drawn
    fall = cells(document)["red", "green"]["fall"]
    assert f">{fall:.2f}<" in drawn

    def broken(*_: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(report, "figure_bytes", broken)
    with pytest.raises(ZeroDivisionError):
        save_counterfactual(document, tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_a_name_that_would_be_markup_is_text(document):
    strange = json.loads(json.dumps(document).replace('"green"', '"<b>$x_1$"'))
    drawing = counterfactual_figure(strange)
    assert "&lt;b&gt;$x_1$" in report.figure_bytes(drawing, "svg").decode()


def test_the_command_writes_document_tables_and_figure(tmp_path, capsys):
    arguments = ["counterfactual", "scenes:val?n=3", "--model", "unet-scenes", "--out", str(tmp_path / "o"), "--json"]
    with pytest.raises(SystemExit) as status:
        main([*arguments, "--score", "margin", "--set", "counterfactual.background=0.5"])
    assert status.value.code == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((tmp_path / "o" / "counterfactual.json").read_text())
    assert document["score"] == "margin" and document["params"]["background"] == "0.5"
    assert {path.name for path in (tmp_path / "o").iterdir()} == {
        "counterfactual.json", "counterfactual.md", "counterfactual.csv", "figure.png", "journal.jsonl",
    }  # fmt: skip


@pytest.mark.parametrize(("more", "words"), [
    (["--score", "loud"], "expected logit"), (["--set", "lrp.epsilon=1"], "not part of this run"), (["--format", "gif"], "expected png"),
])  # fmt: skip
def test_bad_arguments_are_one_line(more, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as status:
        main(["counterfactual", "scenes:val?n=2", "--model", "unet-scenes", "--out", str(tmp_path / "o"), *more])
    out, err = capsys.readouterr()
    assert status.value.code == 2 and out == "" and len(err.strip().splitlines()) == 1 and words in err
    assert not (tmp_path / "o").exists()


def test_data_without_objects_is_one_line(tmp_path, capsys):
    for name in KINDS:
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.fromarray(np.full((24, 24, 3), 255 * (BRIGHT - GROUND), np.uint8)).save(tmp_path / "data" / name / "a.png")
    (tmp_path / "map.csv").write_text("arrow,red\ndrop,green\nfish,blue\n")
    arguments = ["counterfactual", f"folder:{tmp_path}/data", "--model", "resnet-scenes", "--classes-map", str(tmp_path / "map.csv")]
    with pytest.raises(SystemExit) as status:
        main([*arguments, "--out", str(tmp_path / "o")])
    _, err = capsys.readouterr()
    assert (
        status.value.code == 2 and len(err.strip().splitlines()) == 1 and "no object to take out" in err and not (tmp_path / "o").exists()
    )
