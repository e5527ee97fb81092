"""One adversarial image: made, saved exactly, explained before and after."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.probes.toys import Boxes, Shapes, reader
from xaitools.attribution.explanation import explain_image
from xaitools.audit.attacked import attack_one
from xaitools.data import read_image
from xaitools.errors import PlanError, XaiError
from xaitools.report.attacked import save_attacked


def test_one_attacked_image_is_saved_exactly_and_explained(tmp_path):
    model, data = reader("object"), Shapes()
    found = attack_one(model, data, "shape-003", params={"steps": 2, "eps": 0.1})
    assert found.clean.id == "shape-003" and found.params["steps"] == 2 and found.params["restarts"] == 1
    assert found.loss["clean"] < found.loss["adversarial"] == pytest.approx(found.loss["adversarial_8bit"], rel=0.05)
    assert found.rms <= found.largest <= 0.1 + 1e-6
    explanations = [explain_image(model, sample, ["class:disc"], ["gradient-x-input"], name=name, data=data)
                    for name, sample in (("clean", found.clean), ("adversarial", found.adversarial))]  # fmt: skip
    document, files = save_attacked(found, explanations, tmp_path / "out")
    assert all(file.is_file() for file in files) and {"figure.png", "difference.png"} <= {file.name for file in files}
    exact = load_file(tmp_path / "out" / "images.safetensors")
    assert torch.equal(exact["adversarial"], found.adversarial.image) and torch.equal(exact["clean"], found.clean.image)
    assert float((read_image(tmp_path / "out" / "adversarial.png") - found.adversarial.image).abs().max()) <= 0.5 / 255 + 1e-6
    assert json.loads((tmp_path / "out" / "attack.json").read_text()) == document
    assert [each["image"] for each in document["explanations"]] == ["clean", "adversarial"]
    maps = [load_file(tmp_path / "out" / name / "attributions.safetensors")["gradient-x-input"] for name in ("clean", "adversarial")]
    assert not torch.equal(*maps)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(PlanError):
        save_attacked(found, explanations, tmp_path / "other")
    assert [file.name for file in (tmp_path / "other").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("item", "probe", "words"),
    [("nobody", "pgd", "not in shapes-12"), ("", "fog", "expected one attack"), ("", "random_direction", "expected one attack")],
)
def test_what_is_no_attack_is_refused(item, probe, words):
    with pytest.raises(XaiError, match=words):
        attack_one(reader("object"), Shapes(), item, probe)


def test_a_black_box_is_refused():
    with pytest.raises(XaiError, match="gives no gradients"):
        attack_one(Boxes(), Shapes())
