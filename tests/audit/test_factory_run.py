"""benchmarks/factory.py: its recipes, and that a run which was killed goes on."""

import shutil
from collections import Counter

import pytest
import torch

from benchmarks import factory, factory_table
from benchmarks.factory import APART, NETWORKS, Kept, Recipe, do, known, recipes
from xaitools.data.scenes import FACTORS, Scenes
from xaitools.files import read_json
from xaitools.probes import CUES

RECIPE = Recipe("yolo", "planted", "tag", 1.0, 0.5)


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    sizes = {"TRAINED": 16, "VALIDATED": 4, "REDRAWN": 6, "AUDITED": 8}
    for name, value in {"FOLDER": tmp_path, "KEPT": tmp_path / "kept.jsonl", **sizes}.items():
        monkeypatch.setattr(factory, name, value)
    tiny = NETWORKS["yolo"] | {"training": NETWORKS["yolo"]["training"] | {"epochs": 1, "batch_size": 8}}
    monkeypatch.setitem(factory.NETWORKS, "yolo", tiny)
    return tmp_path


def test_there_are_enough_of_each_kind_and_any_beginning_has_both():
    every = recipes()
    kinds = Counter(recipe.kind for recipe in every)
    assert len({recipe.name for recipe in every}) == len(every)
    assert kinds["planted"] >= 40 and sum(kinds.values()) - kinds["planted"] >= 60
    assert {"none", "uncorrelated", "away", "legitimate", "untrained"} < set(kinds)
    planted = Counter(recipe.plant for recipe in every if recipe.kind == "planted")
    assert set(planted) == set(FACTORS) and min(planted.values()) >= 10
    assert abs(sum(recipe.kind == "planted" for recipe in every[:40]) - 20) <= 2
    assert len({recipe.architecture for recipe in every[:8]}) == len(NETWORKS)
    assert all(recipe.seed != APART for recipe in every)


def test_what_is_kept_is_what_was_drawn_but_for_how():
    scenes = Scenes("test", n=5, size=64, shortcut="background", rho=1, others=1)
    for once in range(2):  # drawn, then read back
        kept = Kept(scenes)
        for index, sample in enumerate(map(kept.__getitem__, range(5))):
            drawn = scenes[index]
            assert sample.tags == {} and drawn.tags and (sample.id, sample.label) == (drawn.id, drawn.label), once
            for name in ("image", "semantic", "boxes", "labels", "masks", "ignore"):
                assert torch.equal(getattr(sample, name), getattr(drawn, name)), name


def test_training_away_a_plant_changes_the_training_set_alone():
    planted, away = Recipe("yolo", "planted", "light", 1.0), Recipe("yolo", "away", "light", 1.0)
    assert planted.audited.name == away.audited.name
    assert (planted.training.rho, away.training.rho) == (1, 0)


def counted(monkeypatch):
    """Steps that do nothing but say that they were asked; "two" fails once."""
    asked = []

    def two(recipe, model):
        asked.append("two")
        if asked.count("two") == 1:
            raise KeyboardInterrupt
        return {"found": 2}

    def one(recipe, model):
        asked.append("one")
        return {"found": 1}

    real = factory.trained
    monkeypatch.setattr(factory, "trained", lambda *args: asked.append("train") or real(*args))
    monkeypatch.setattr(factory, "STEPS", {"one": (one, 1), "two": (two, 1)})
    return asked


def test_a_killed_run_goes_on_where_it_was_and_only_what_has_changed_is_done_again(small, monkeypatch):
    asked = counted(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        do(RECIPE)
    weights = (small / RECIPE.name / "weights.safetensors").read_bytes()
    assert do(RECIPE)
    assert asked == ["train", "one", "two", "two"]
    assert not do(RECIPE)
    monkeypatch.setitem(factory.STEPS, "one", (factory.STEPS["one"][0], 2))
    assert do(RECIPE)
    assert asked[4:] == ["one"]
    assert (small / RECIPE.name / "weights.safetensors").read_bytes() == weights
    steps = read_json(small / RECIPE.name / "model.json")["steps"]
    assert {name: (row["version"], row.get("found")) for name, row in steps.items()} == {"train": (1, None), "one": (2, 1), "two": (1, 2)}
    monkeypatch.setattr(factory, "TRAINED", 24)  # other scenes, other weights
    assert do(RECIPE)
    assert asked[5:] == ["train", "one", "two"]
    assert (small / RECIPE.name / "weights.safetensors").read_bytes() != weights


@pytest.mark.long
def test_a_model_is_trained_measured_and_seen_by_an_audit_and_what_the_table_needs_is_kept(small, monkeypatch):
    assert do(RECIPE)
    steps = read_json(small / RECIPE.name / "model.json")["steps"]
    assert list(steps["truth"]["reliance"]) == list(FACTORS)
    assert {row["family"] for row in steps["audited"]["costs"].values()} >= set(CUES)
    assert tuple(row["shortcut"] for row in steps["audited"]["findings"]) == CUES
    monkeypatch.setattr(factory, "recipes", lambda: [RECIPE])
    (row,) = known().values()
    assert [len(each["evidence"]) for each in row["steps"]["audited"]["findings"]] == [2] * len(CUES)
    cases = factory_table.cases(row)
    assert [each.family for each in cases] == list(factory_table.FAMILY.values()) and "# How often" in factory_table.report([row], cases)
    shutil.rmtree(small / RECIPE.name)
    assert known() == {RECIPE.name: row}  # the line outlives the folder
    monkeypatch.setitem(factory.STEPS, "truth", (factory.truth, factory.STEPS["truth"][1] + 1))
    assert known() == {}
