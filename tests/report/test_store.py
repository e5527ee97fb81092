"""Results on disk: whole, exact, and read back without trust."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from xaitools.errors import DataError, PlanError
from xaitools.files import read_json, write_json
from xaitools.report import save
from xaitools.report.store import document, load_explanation, save_explanation, save_explanations
from xaitools.types import Attribution, Explanation, Prediction, Refusal

SIZE = (20, 30)


def attribution(target: str, method: str, seed: int) -> Attribution:
    values = torch.randn(SIZE, generator=torch.Generator().manual_seed(seed)) * 1e-3
    ledger = (("stem", 0.5), ("head", 2.5 - float(values.double().sum()))) if method == "lrp" else None
    return Attribution(values, target, method, {"epsilon": 1e-6, "window": (4, 4)}, 3, 3.0, ledger, 0.25)


@pytest.fixture
def explanation() -> Explanation:
    prediction = Prediction(
        "detection",
        ("background", "car", "Fußgänger"),
        SIZE,
        torch.tensor([2, 1]),
        torch.tensor([0.875, 0.5]),
        boxes=torch.tensor([[1.0, 2.0, 11.5, 12.0], [4.0, 4.0, 20.0, 18.0]]),
        background=0,
    )
    rows = (
        attribution("box:0", "lrp", 0),
        Refusal("box:0", "gradcam", "this model\nhas no such layer"),
        attribution("box:1", "lrp", 1),
        attribution("box:1", "gradcam", 2),
    )
    return Explanation("faster-rcnn", "street.png", torch.rand(3, *SIZE), prediction, ("box:0", "box:1"), ("lrp", "gradcam"), rows)


def test_document_has_the_layout_that_others_script_against(explanation):
    content = document(explanation)
    assert set(content) == {"xaitools", "model", "image", "image_size", "task", "predictions", "explanations"}
    assert content["image_size"] == [20, 30] and content["task"] == "detection" and content["image"] == "street.png"
    assert content["predictions"][0] == {"label": "Fußgänger", "score": 0.875, "box_xyxy": [1.0, 2.0, 11.5, 12.0]}
    first, refused, third, fourth = content["explanations"]
    assert set(first) == {"target", "method", "params", "seed", "score", "relevance_sum", "ledger", "seconds", "tensor"}
    assert first["params"] == {"epsilon": 1e-6, "window": [4, 4]} and set(first["ledger"][0]) == {"layer", "absorbed"}
    assert first["score"] == pytest.approx(first["relevance_sum"] + sum(row["absorbed"] for row in first["ledger"]), abs=1e-12)
    assert refused == {"target": "box:0", "method": "gradcam", "error": "this model has no such layer"}
    assert "ledger" not in fourth
    # a refused pair has no row, so that the first row of gradcam is that of the second target
    assert [each["tensor"] for each in (first, third, fourth)] == [["lrp", 0], ["lrp", 1], ["gradcam", 0]]


def test_area_is_counted_in_pixels():
    semantic = torch.zeros(SIZE, dtype=torch.int64)
    semantic[:5] = 1
    prediction = Prediction("segmentation", ("road", "sky"), SIZE, torch.tensor([0, 1]), torch.tensor([0.9, 0.8]), semantic=semantic)
    rows = document(Explanation("unet", "a", None, prediction, (), (), ()))["predictions"]
    assert [row["area"] for row in rows] == [15 * 30, 5 * 30] and "box_xyxy" not in rows[0]


def test_tensors_round_trip_exactly(explanation, tmp_path):
    save_explanation(explanation, tmp_path / "run")
    stored = load_file(tmp_path / "run" / "attributions.safetensors")
    assert {name: tuple(each.shape) for name, each in stored.items()} == {"lrp": (2, 20, 30), "gradcam": (1, 20, 30)}
    again = load_explanation(tmp_path / "run", explanation.image)
    assert again.targets == explanation.targets and again.methods == explanation.methods and again.name == "street.png"
    for old, new in zip(explanation.pairs(), again.pairs(), strict=True):
        if isinstance(old, Refusal):
            assert isinstance(new, Refusal) and new.error == "this model has no such layer"
        else:
            assert torch.equal(old.values, new.values) and new.values.dtype == torch.float32
            assert (old.target, old.method, old.seed, old.score, old.ledger) == (new.target, new.method, new.seed, new.score, new.ledger)
    assert document(again) == json.loads((tmp_path / "run" / "explanation.json").read_text("utf-8"))


def test_all_refused_still_makes_a_readable_folder(explanation, tmp_path):
    refused = Explanation("m", "a", explanation.image, None, ("box:0",), ("lrp",), (Refusal("box:0", "lrp", "no"),))
    save_explanation(refused, tmp_path / "run")
    assert isinstance(load_explanation(tmp_path / "run").pair("box:0", "lrp"), Refusal)


def test_an_earlier_explanation_is_replaced_whole(explanation, tmp_path):
    save_explanation(explanation, tmp_path, ("png", "svg"))
    paths = save_explanation(explanation, tmp_path, ("pdf",))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attributions.safetensors", "explanation.json", "figure.pdf", "ledger.pdf"]
    assert sorted(paths) == sorted(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["notes.txt", "figure.png", "report.json"])
def test_a_folder_with_anything_else_is_left_alone(explanation, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(PlanError, match=f"{name}.*new or empty folder"):
        save_explanation(explanation, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def test_out_that_is_a_file_is_refused(explanation, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(PlanError, match="a file stands there"):
        save_explanation(explanation, tmp_path / "out")


def test_a_figure_that_fails_leaves_the_earlier_explanation(explanation, tmp_path):
    save_explanation(explanation, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="gif"):
        save_explanation(explanation, tmp_path, ("gif",))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_write_that_fails_leaves_no_document_to_trust(explanation, tmp_path, monkeypatch):
    save_explanation(explanation, tmp_path)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_explanation(explanation, tmp_path)
    monkeypatch.undo()
    names = {path.name for path in tmp_path.iterdir()}
    assert "explanation.json" not in names and not any(name.startswith(".") for name in names)
    save_explanation(explanation, tmp_path)
    load_explanation(tmp_path)


def test_a_killed_run_has_no_explanation_json_and_is_replaced(explanation, tmp_path, monkeypatch):
    monkeypatch.setattr("xaitools.report.store.write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_explanation(explanation, tmp_path)
    monkeypatch.undo()
    assert not (tmp_path / "explanation.json").exists()
    save_explanation(explanation, tmp_path)
    load_explanation(tmp_path)


def test_several_images_get_one_folder_each(explanation, tmp_path):
    several = [explanation, replace(explanation, name="../a/b.jpg"), replace(explanation, name="street.jpg")]
    documents, files = save_explanations(several, tmp_path)
    assert [each["image"] for each in documents] == ["street.png", "../a/b.jpg", "street.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_b", "street", "street-2"]
    assert all(path.is_file() and tmp_path in path.parents for path in files) and len(files) == 12
    assert save_explanations(several, tmp_path)[1] == files, "the same images replace their earlier explanations"


def test_a_sheet_is_one_figure_above_the_folders(explanation, tmp_path):
    several = [explanation, replace(explanation, name="other.png")]
    save_explanations(several, tmp_path, ("svg",), layout="sheet", scale="each")
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*") if path.is_file())
    assert found == [
        "figure.svg", "other/attributions.safetensors", "other/explanation.json", "street/attributions.safetensors",
        "street/explanation.json",
    ]  # fmt: skip


def test_several_images_leave_anything_else_alone(explanation, tmp_path):
    several = [explanation, replace(explanation, name="other.png")]
    (tmp_path / "street").mkdir()
    (tmp_path / "street" / "thesis.tex").write_text("mine")
    with pytest.raises(PlanError, match=r"thesis\.tex"):
        save_explanations(several, tmp_path)
    (tmp_path / "street" / "thesis.tex").rename(tmp_path / "thesis.tex")
    with pytest.raises(PlanError, match=r"thesis\.tex"):
        save_explanations(several, tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_without_a_folder_nothing_is_written(explanation):
    assert save_explanations([explanation], None) == ([document(explanation)], [])


def test_save_takes_attributions_and_explanations(explanation, tmp_path):
    pairs = [each for each in explanation.pairs() if isinstance(each, Attribution)]
    files = ["explanation.json", "attributions.safetensors", "figure.png", "ledger.png"]
    assert [path.name for path in save(pairs[0], tmp_path / "one")] == files
    assert len(read_json(save(pairs, tmp_path / "list")[0])["explanations"]) == 3
    assert read_json(save(explanation, tmp_path / "whole")[0]) == document(explanation)


def _edit(folder, change):
    content = read_json(folder / "explanation.json")
    change(content)
    write_json(folder / "explanation.json", content)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("explanations"),
        lambda content: content.update(image_size=[10**9, 10**9]),
        lambda content: content.update(image_size="large"),
        lambda content: content.update(task="cooking"),
        lambda content: content["explanations"].append(7),
        lambda content: content["explanations"][0].update(tensor=["lrp", 2]),
        lambda content: content["explanations"][0].update(tensor=["lrp", -1]),
        lambda content: content["explanations"][0].update(tensor=["lrp", 1]),
        lambda content: content["explanations"][0].update(tensor=["../lrp", 0]),
        lambda content: content["explanations"][0].update(tensor=[["lrp"], 0]),
        lambda content: content["explanations"][0].update(params=3),
        lambda content: content["predictions"][0].update(box_xyxy=[1, 2, 3]),
    ],
)
def test_a_forged_document_is_one_line(explanation, tmp_path, change):
    save_explanation(explanation, tmp_path)
    _edit(tmp_path, change)
    with pytest.raises(DataError) as error:
        load_explanation(tmp_path)
    assert "\n" not in str(error.value)


def test_forged_tensors_are_one_line(explanation, tmp_path):
    save_explanation(explanation, tmp_path)
    path = tmp_path / "attributions.safetensors"
    whole = path.read_bytes()
    for data in (b"", whole[:-8], (2**62).to_bytes(8, "little") + whole[8:], b"\x80\x04N."):
        path.write_bytes(data)
        with pytest.raises(DataError, match="not an explanation"):
            load_explanation(tmp_path)
    save_file({"lrp": torch.zeros(2, *SIZE, dtype=torch.float64), "gradcam": torch.zeros(1, *SIZE)}, path)
    with pytest.raises(DataError, match="float32"):
        load_explanation(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        load_explanation(tmp_path)


def test_another_image_is_refused(explanation, tmp_path):
    save_explanation(explanation, tmp_path)
    with pytest.raises(DataError, match="give the same image"):
        load_explanation(tmp_path, torch.zeros(3, 5, 5))


def test_a_pair_stands_once_and_among_the_names(explanation):
    one = explanation.attributions[0]
    with pytest.raises(ValueError, match="twice"):
        Explanation("m", "a", None, None, ("box:0",), ("lrp",), (one, one))
    with pytest.raises(ValueError, match="none of"):
        Explanation("m", "a", None, None, ("box:1",), ("lrp",), (one,))
