"""The scripts in examples/own_model are short, run as they stand, and find what they should."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

import xaitools as xt

FOLDER = Path(__file__).parents[1] / "examples" / "own_model"
SCRIPTS = sorted(FOLDER.glob("*.py"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


def onnx_file():
    """A convolution and nothing else, written by the library."""
    onnx = pytest.importorskip("onnx", reason="no onnx here; install it with: pip install onnx onnxruntime")
    pytest.importorskip("onnxruntime", reason="no onnxruntime here; install it with: pip install onnxruntime")
    weight = torch.randn(3, 3, 5, 5).numpy()
    shape = ["n", 3, "h", "w"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w"], ["y"], pads=[2, 2, 2, 2])], "net",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)], [onnx.numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, "segmenter.onnx")
    return ["segmenter.onnx", "sky,road,car"]


def test_the_six_are_there():
    assert {path.stem for path in SCRIPTS} == {
        "yolo_head", "detr_queries", "transformers_segmenter", "mmdet_black_box", "onnx_runtime", "torchvision_backbone",
    }  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short_and_draws_its_figure(script, monkeypatch):
    assert len(script.read_text().splitlines()) <= 30
    monkeypatch.setattr(sys, "argv", [script.name, *(onnx_file() if script.stem == "onnx_runtime" else [])])
    maps = []
    original = xt.figure
    monkeypatch.setattr(xt, "figure", lambda attribution: maps.append(attribution) or original(attribution), raising=False)
    runpy.run_path(str(script), run_name="__main__")
    assert list(Path().glob(f"{script.stem}*.png")) and maps
    for each in maps:
        assert each.values.shape == (96, 96) and bool(torch.isfinite(each.values).all()) and float(each.values.abs().max()) > 0


def test_the_yolo_head_works_from_the_command_line(capsys):
    from xaitools.cli import main

    with pytest.raises(SystemExit) as caught:
        main(["explain", "scenes:test?n=1", "--model", f"python:{FOLDER / 'yolo_head.py'}:model", "--method", "saliency", "--json"])
    assert caught.value.code == 0 and '"task": "detection"' in capsys.readouterr().out
