"""Every model of the zoo against its card, and weights that are not what they claim."""

import hashlib
import json
import shutil
import struct
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from xaitools import load_dataset, load_model, zoo
from xaitools.errors import ModelError
from xaitools.locations import part
from xaitools.metrics.evaluate import evaluate

NAMES = zoo.names()
QUICK = {"unet-scenes", "faster-rcnn-scenes", "mask-rcnn-scenes", "yolo-scenes", "resnet-scenes"}
"""One of each task and kind of detector; the whole test draw of every model is a long test."""


def test_the_models_of_the_first_release_are_there():
    assert set(NAMES) >= {
        "unet-camvid", "faster-rcnn-bccd", "unet-scenes", "faster-rcnn-scenes", "unet-scenes-tag", "unet-scenes-background",
        "faster-rcnn-scenes-tag",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_card_and_files_agree(name):
    card, folder = zoo.card(name), part("models") / name
    weights = (folder / "weights.safetensors").read_bytes()
    assert card["name"] == name and card["weights"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert card["weights"]["bytes"] == len(weights) <= zoo.MAX_WEIGHTS
    assert card["data"]["licence"] and card["data"]["redistribution"]
    for split in ("val", "test"):
        row = card["scores"][split]
        assert row["ci"][0] <= row["value"] <= row["ci"][1] and row["n"] > 0
    recipe = zoo.read_toml(folder / "recipe.toml")
    assert (recipe["name"], recipe["architecture"], recipe.get("network", {})) == (name, card["architecture"], card.get("network", {}))
    model = load_model(name)
    assert sum(parameter.numel() for parameter in model.module.parameters()) == card["weights"]["parameters"]
    assert not model.module.training


def test_the_wheel_carries_what_may_be_passed_on_and_nothing_else():
    project = Path(__file__).parents[1] / "pyproject.toml"
    listed = tomllib.loads(project.read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    free = {name for name in NAMES if zoo.card(name)["data"]["redistribution"] != "research only"}
    assert {Path(key).name for key in listed if key.startswith("models/")} == free


@pytest.mark.parametrize("name", sorted(QUICK))
def test_a_part_of_the_test_draw_gives_about_the_card_score(name):
    card = zoo.card(name)
    value = evaluate(load_model(name), load_dataset(card["data"]["test"]), limit=60, replicates=0, batch_size=20)["value"]
    assert value == pytest.approx(card["scores"]["test"]["value"], abs=0.08)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
def test_the_test_split_gives_the_card_score(name, data_root):
    card = zoo.card(name)
    data = load_dataset(card["data"]["test"].replace("{data}", str(data_root)))
    assert evaluate(load_model(name), data, replicates=0)["value"] == pytest.approx(card["scores"]["test"]["value"], abs=0.01)


@pytest.mark.parametrize(("cheat", "honest", "factor"), [
    pytest.param("unet-scenes-background", "unet-scenes", "background", marks=pytest.mark.long),
    ("unet-scenes-tag", "unet-scenes", "tag"),
    ("yolo-scenes-light", "yolo-scenes", "light"),
    pytest.param("faster-rcnn-scenes-tag", "faster-rcnn-scenes", "tag", marks=pytest.mark.long),
])  # fmt: skip
def test_a_twin_loses_what_the_honest_one_keeps_when_its_factor_alone_is_drawn_anew(cheat, honest, factor):
    """The same scenes twice, bitwise the same but for the factor: tied to the class, and drawn independently."""
    tied = load_dataset(zoo.card(cheat)["data"]["test"])
    anew = load_dataset(tied.name.replace("rho=1", "rho=0"))
    assert torch.equal(tied[0].semantic, anew[0].semantic) and factor in tied.name
    drop = {}
    for name in (cheat, honest):
        model = load_model(name)
        before, after = (evaluate(model, data, limit=60, replicates=0, batch_size=20)["value"] for data in (tied, anew))
        drop[name] = before - after
    assert drop[cheat] > 0.2 and drop[cheat] > drop[honest] + 0.1


@pytest.fixture
def spoilt(tmp_path, monkeypatch):
    """A zoo of one model in a temporary folder, and the path of its weights."""
    shutil.copytree(part("models") / "unet-scenes", tmp_path / "unet-scenes")
    monkeypatch.setattr(zoo.shipped, "part", lambda name: tmp_path)
    return tmp_path / "unet-scenes" / "weights.safetensors"


def rehash(weights) -> None:
    card = weights.with_name("card.toml")
    old = zoo.read_toml(card)["weights"]["sha256"]
    card.write_text(card.read_text().replace(old, hashlib.sha256(weights.read_bytes()).hexdigest()))


def test_weights_that_were_changed_cut_short_or_lost_are_refused(spoilt):
    data = spoilt.read_bytes()
    spoilt.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ModelError, match="sha256"):
        load_model("unet-scenes")
    spoilt.write_bytes(data[: len(data) // 2])
    rehash(spoilt)
    with pytest.raises(ModelError, match="not a readable safetensors"):
        load_model("unet-scenes")
    spoilt.unlink()
    with pytest.raises(ModelError, match="missing"):
        load_model("unet-scenes")


def test_a_pickle_is_refused_and_not_executed(spoilt, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"weight": Trap()}, spoilt)
    rehash(spoilt)
    with pytest.raises(ModelError, match="pickle"):
        load_model("unet-scenes")
    assert not (tmp_path / "executed").exists()


def test_weights_of_another_network_are_refused(spoilt):
    save_file({"weight": torch.zeros(3)}, spoilt)
    rehash(spoilt)
    with pytest.raises(ModelError, match="lack"):
        load_model("unet-scenes")


def test_a_header_that_promises_too_much_is_refused(spoilt):
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    spoilt.write_bytes(struct.pack("<Q", len(header)) + header)
    rehash(spoilt)
    with pytest.raises(ModelError, match="not a readable safetensors"):
        load_model("unet-scenes")


def test_a_broken_card_is_one_line(spoilt):
    card = spoilt.with_name("card.toml")
    card.write_text(card.read_text().replace('architecture = "unet"', 'architecture = "unot"'))
    with pytest.raises(ModelError, match="did you mean unet"):
        load_model("unet-scenes")
    card.write_text("classes = [")
    with pytest.raises(ModelError, match="not valid TOML"):
        load_model("unet-scenes")


@pytest.mark.parametrize(
    ("options", "word"), [({"dtype": "int8"}, "dtype"), ({"score_threshold": 2}, "0 to 1"), ({"device": "warp"}, "device")]
)
def test_wrong_options_are_one_line(options, word):
    with pytest.raises(ModelError, match=word):
        load_model(NAMES[0], **options)


@pytest.mark.parametrize(("old", "new", "told"), [
    ("base = 16", "base = 1000000", "one above"),
    ("depth = 4", "depth = 96", "parameters; 4,194,304 are the most"), ("depth = 4", f"depth = {[4] * 1000}", "more than 256 sizes"),
    ("depth = 4", "depth = -1", "no network can be made"), ("base = 16", "base = 1.5", "no network can be made"),
    ("widest = 96", "widest = -4", "no network can be made"), ("widest = 96", "wider = 96", "misstates"), ("std =", "sta =", "misstates"),
    ("[network]", "#" * 2**18 + "\n[network]", "a card or recipe has at most"),
])  # fmt: skip
def test_a_card_of_a_network_that_cannot_be_or_would_fill_the_memory_is_one_line(spoilt, old, new, told):
    card = spoilt.with_name("card.toml")
    assert old in card.read_text()
    card.write_text(card.read_text().replace(old, new, 1))
    with pytest.raises(ModelError, match=told) as refused:
        load_model("unet-scenes")
    assert "\n" not in str(refused.value)
