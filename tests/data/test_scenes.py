"""Scenes: what is drawn is exact, repeatable, and each factor can be moved alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from xaitools.data.base import Dataset, load_dataset
from xaitools.data.scenes import FACTORS, SPLITS, TIED, VALUES, Scenes, change, describe
from xaitools.errors import DataError
from xaitools.types import Sample

N = 24
BUSY = next(i for i in range(100) if len(Scenes("test").describe(i).things) == 4)


def same_truth(a: Sample, b: Sample) -> bool:
    return a.label == b.label and all(torch.equal(getattr(a, f), getattr(b, f)) for f in ("semantic", "boxes", "labels", "masks"))


def changed(a: Sample, b: Sample) -> torch.Tensor:
    """(H, W) bool: pixels that differ."""
    return (a.image != b.image).any(0)


def grown(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    return torch.nn.functional.max_pool2d(mask[None].float(), 2 * pixels + 1, 1, pixels)[0] > 0


def another(value: Any) -> Any:
    """A value of the same kind that differs everywhere."""
    if isinstance(value, tuple):
        return tuple(another(each) for each in value)
    return not value if isinstance(value, bool) else (value + 1) % VALUES


def test_samples_are_well_formed() -> None:
    scenes = Scenes("train", n=N)
    assert isinstance(scenes, Dataset)
    for index in range(N):
        sample = scenes[index]
        assert sample.id == scenes.ids[index]
        assert sample.image.shape == (3, 96, 96) and sample.image.dtype == torch.float32
        assert sample.image.min() >= 0 and sample.image.max() <= 1
        assert sample.semantic is not None and sample.boxes is not None and sample.labels is not None and sample.masks is not None
        assert sample.semantic.dtype == torch.int64 and sample.labels.dtype == torch.int64 and sample.boxes.dtype == torch.float32
        assert sample.label in sample.labels.tolist()
        assert sample.masks.sum(0).max() <= 1
        painted = torch.zeros_like(sample.semantic)
        for mask, label, box in zip(sample.masks, sample.labels, sample.boxes, strict=True):
            painted[mask] = label + 1
            rows, columns = torch.nonzero(mask, as_tuple=True)
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == [float(edge) for edge in tight]
        assert torch.equal(painted, sample.semantic)


def test_masks_cover_the_objects_pixels() -> None:
    """A second road: moving an object's texture changes pixels in its mask, and none far from it."""
    scenes = Scenes("test", size=128)
    sample = scenes[BUSY]
    assert sample.masks is not None
    textures = list(sample.tags["texture"])
    for number, mask in enumerate(sample.masks):
        other = [*textures]
        other[number] = (textures[number] + 1) % VALUES
        moved = changed(sample, scenes.redraw(BUSY, texture=other))
        assert not (moved & ~grown(mask, 2)).any()
        assert (moved & mask).sum() > 0.2 * mask.sum()


def test_same_seed_same_scene() -> None:
    one, two = Scenes("val", n=3, seed=5)[2], Scenes("val", n=9, seed=5)[2]
    assert torch.equal(one.image, two.image) and same_truth(one, two) and one.tags == two.tags


def test_splits_seeds_and_indices_differ_and_ids_are_unique() -> None:
    images = [Scenes(split, seed=seed)[index].image for split in SPLITS for seed in (0, 1) for index in (0, 1)]
    assert all(not torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])
    ids = [name for split in SPLITS for name in Scenes(split).ids]
    assert len(set(ids)) == len(ids) == 600 and "test-00012" in ids


def test_size_changes_the_sampling_only() -> None:
    small, large = Scenes("test", size=64)[BUSY], Scenes("test", size=256)[BUSY]
    assert small.boxes is not None and large.boxes is not None
    assert torch.allclose(small.boxes * 4, large.boxes, atol=4)
    coarse = torch.nn.functional.avg_pool2d(large.image, 16) - torch.nn.functional.avg_pool2d(small.image, 4)
    assert coarse.abs().mean() < 0.03


@pytest.mark.parametrize("factor", FACTORS)
def test_one_factor_alone(factor: str) -> None:
    scenes = Scenes("test")
    for index in range(8):
        before = scenes[index]
        new = another(before.tags[factor])
        after = scenes.redraw(index, **{factor: new})
        assert after.tags[factor] == new
        keep = [name for name in FACTORS if name != factor] + ([] if factor == "pose" else ["visible"])
        assert [before.tags[name] for name in keep] == [after.tags[name] for name in keep]
        assert changed(before, after).any()
        if factor == "pose":
            assert torch.equal(before.labels, after.labels) and not torch.equal(before.masks, after.masks)  # type: ignore[arg-type]
        else:
            assert same_truth(before, after)


def test_tag_changes_only_its_corner() -> None:
    scenes = Scenes("test")
    for index in range(5):
        rows, columns = torch.nonzero(changed(scenes.redraw(index, tag=False), scenes.redraw(index, tag=True)), as_tuple=True)
        assert rows.min() >= 0.85 * 96 and columns.min() >= 0.6 * 96
        assert len(rows) > 150  # a plate, not a speck


def test_background_and_companion_leave_the_inside_of_objects() -> None:
    scenes = Scenes("test")
    for index in range(5):
        before = scenes.redraw(index, background=0, cooccurrence=False)
        assert before.semantic is not None
        inside = ~grown(before.semantic == 0, 2)
        assert inside.sum() > 100
        for after in (scenes.redraw(index, background=1, cooccurrence=False), scenes.redraw(index, background=0, cooccurrence=True)):
            moved = changed(before, after)
            assert moved.sum() > 60 and not (moved & inside).any()


def test_backgrounds_and_lights_are_told_apart_by_mean_colour() -> None:
    """A lazy net must find the cue easy: nearest mean colour is right for most scenes."""
    scenes = Scenes("train", n=30, size=32)
    for fixed, factor in (({"light": 0}, "background"), ({"background": 4}, "light")):
        means = torch.stack([
            torch.stack([scenes.redraw(i, **fixed, tag=False, **{factor: value}).image.mean((1, 2)) for i in range(30)])
            for value in range(VALUES)
        ])  # fmt: skip
        nearest = torch.cdist(means[:, 15:].reshape(-1, 3), means[:, :15].mean(1)).argmin(1).reshape(VALUES, -1)
        assert (nearest == torch.arange(VALUES)[:, None]).float().mean() > 0.75


def test_objects_stay_visible_at_every_pose() -> None:
    scenes = Scenes("train", n=150, size=48)
    visible = np.array([share for i in range(150) for pose in (0, 2) for share in scenes.redraw(i, pose=pose).tags["visible"]])
    assert visible.min() > 0.35
    assert 0.03 < (visible < 0.95).mean() < 0.4  # there is overlap


def agreement(factor: str, rho: float, n: int) -> float:
    """Share of scenes (or objects) whose factor has the value of its class."""
    hits = []
    for index in range(n):
        scene = describe(0, "train", index, shortcut=factor, rho=rho)
        if factor in ("texture", "pose"):
            hits += [getattr(thing, factor) == thing.kind for thing in scene.things]
        else:
            hits.append(getattr(scene, factor) == scene.subject)
    return float(np.mean(hits))


@pytest.mark.parametrize("factor", ["background", "texture", "pose", "light"])
def test_rho_ties_a_factor(factor: str) -> None:
    """Binomial deviation at n=1000 is at most 0.0155; the tolerance is four of them."""
    assert agreement(factor, 0.0, 1000) == pytest.approx(0.2, abs=0.062)
    assert agreement(factor, 0.5, 1000) == pytest.approx(0.6, abs=0.062)
    assert agreement(factor, 1.0, 200) == 1.0


@pytest.mark.parametrize("factor", ["tag", "cooccurrence"])
@pytest.mark.parametrize(("rho", "others"), [(0.0, 0.3), (0.5, 0.15), (1.0, 0.0)])
def test_prevalence(factor: str, rho: float, others: float) -> None:
    """About 200 scenes of the tied class (deviation 0.032) and 800 of the others (0.016); four of them."""
    scenes = [describe(0, "train", index, shortcut=factor, rho=rho) for index in range(1000)]
    tied = [getattr(scene, factor) for scene in scenes if scene.subject == TIED]
    rest = [getattr(scene, factor) for scene in scenes if scene.subject != TIED]
    assert np.mean(tied) == pytest.approx(0.3, abs=0.13)
    assert np.mean(rest) == pytest.approx(others, abs=0.065 if others else 0)


@pytest.mark.parametrize("factor", FACTORS)
def test_only_the_named_factor_is_tied(factor: str) -> None:
    """The two descriptions become equal when the factor is set to one value in both."""
    honest, lazy = Scenes("train"), Scenes("train", shortcut=factor)
    for index in range(50):
        same: Any = {factor: 0}
        assert change(honest.describe(index), **same) == change(lazy.describe(index), **same)
    assert any(honest.describe(i) != lazy.describe(i) for i in range(50))


def test_factors_are_independent_of_each_other() -> None:
    """1000 scenes: the correlation of any two factors, or of one with the subject, has deviation 0.032; four of them."""
    scenes = [describe(1, "train", index) for index in range(1000)]
    rows = [(s.subject, s.background, s.light, s.tag, s.cooccurrence, s.things[0].texture, s.things[0].pose) for s in scenes]
    correlations = np.corrcoef(np.array(rows, float).T)
    assert np.abs(correlations - np.eye(len(correlations))).max() < 0.13


def test_subjects_are_balanced() -> None:
    """1000 draws of five: deviation 0.0126; four of them."""
    counts = np.bincount([describe(3, "val", i).subject for i in range(1000)], minlength=VALUES) / 1000
    assert np.allclose(counts, 0.2, atol=0.051)


@pytest.mark.parametrize(
    "text",
    [
        "scenes:test",
        "scenes:train?n=7&seed=3&size=64",
        "scenes:val?n=5&shortcut=tag&rho=0.123456789&prevalence=0.5",
        "scenes:test?shortcut=pose",
    ],
)
def test_reopening_by_name(text: str) -> None:
    first = load_dataset(text)
    again = load_dataset(first.name)
    assert vars(again) == vars(first)
    assert torch.equal(first[3].image, again[3].image) and first[3].tags == again[3].tags


def test_defaults() -> None:
    assert load_dataset("scenes:test").name == "scenes:test?n=200&seed=0&size=96&shortcut=none&rho=0&prevalence=0.3"
    assert "&rho=1&" in load_dataset("scenes:test?shortcut=tag").name


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("scenes:tset", "did you mean test"),
        ("scenes:", "unknown split"),
        ("scenes:test#val", "'#'"),
        ("scenes:test?count=3", "unknown option 'count'"),
        ("scenes:test?n=many", "whole number"),
        ("scenes:test?n=0", "1..1000000"),
        ("scenes:test?n=1000001", "out of range"),
        ("scenes:test?n=2.5", "whole number"),
        ("scenes:test?size=16", "32..512"),
        ("scenes:test?size=1024", "32..512"),
        ("scenes:test?seed=-1", "out of range"),
        ("scenes:test?shortcut=backgroud", "did you mean background"),
        ("scenes:test?shortcut=tag&rho=1.5", "0..1"),
        ("scenes:test?shortcut=tag&rho=nan", "0..1"),
        ("scenes:test?rho=0.5", "name a shortcut"),
        ("scenes:test?prevalence=-0.1", "0..1"),
        ("scenes:test?prevalence=", "a number"),
    ],
)
def test_bad_strings(text: str, part: str) -> None:
    with pytest.raises(DataError) as error:
        load_dataset(text)
    assert part in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("factors", [{"colour": 1}, {"background": 5}, {"light": -1}, {"pose": "up"}, {"texture": [0] * 9}, {"light": 0.5}])
def test_bad_factors(factors: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        Scenes("test").redraw(0, **factors)


def test_index_outside() -> None:
    scenes = Scenes("test", n=2)
    assert scenes[-1].id == "test-00001"
    with pytest.raises(IndexError):
        scenes[2]
