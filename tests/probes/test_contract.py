"""What is registered is held to this: severity 0 is the identity, range, only the named cue, seeds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.nets import detector
from tests.probes.toys import Boxes, Shapes, reader
from xaitools.errors import XaiError
from xaitools.probes import FAMILIES, PROBES, Context, change, select
from xaitools.types import IGNORE, Sample

UNCHANGED = ("identity", "cue_conflict", "dataset")
"""Their images stay: cue_conflict changes the label, and dataset asks for other images."""
NAMES = sorted(name for name in PROBES if not PROBES[name].members)  # what stands for several changes nothing itself
CHANGING = [name for name in NAMES if name not in UNCHANGED and not name.startswith("scored_")]
MOVING = [name for name in NAMES if PROBES[name].family == "pose"]
SHORT = {"steps": 2}
PARAMS = {"artifact.remove": {"region": "20,24,32,32"}, "pgd_l2": SHORT, "segpgd": SHORT, "cospgd": SHORT, "ensemble": SHORT,
          "patch": SHORT | {"train": 2}, "shuffled_patch": SHORT | {"train": 2}, "pgd": SHORT}  # fmt: skip
STEADY = {"reencode", "resize", "hflip", "vflip", "scale", "cooccurrence.remove", "artifact.paste", "artifact.remove", "watermark",
          "only_fg", "no_fg", "only_bg", "blur", "self_paste", "diffusion", "silhouette", "edges", "dusk", "grey", "sketch",
          "defocus_blur", "gaussian_blur", "zoom_blur", "brightness", "contrast", "saturate", "pixelate", "jpeg_compression",
          "fgsm", "patch", "shuffled_patch", "pose_same", "pose_other", "pose.gap"}  # fmt: skip
"""Without random numbers, or of a plain patch, as the reader's is, or of outlines that are alike: another seed gives the same image."""
TASKS = ("segmentation", "detection")


CROWDED = {"cooccurrence.remove", "scored_subject"}
"""Needs objects of several classes in an image."""
EMPTYING = {"cooccurrence.remove", "cooccurrence.paste", "no_fg", "only_bg"}
"""Objects come or go."""


SERVED = [(name, task) for name in NAMES for task in TASKS if task == "segmentation" or "pixels" not in PROBES[name].needs]


def context(task: str, name: str = "", **options: object) -> Context:
    options |= {"company": True} if name in CROWDED else {}
    model = reader("object") if task == "segmentation" else detector()
    return Context(Shapes(**options), model)  # type: ignore[arg-type]


def apply(name: str, where: Context, indices: list[int], severity: int | None = None, **options: object) -> list[Sample]:
    samples = [where.dataset[index] for index in indices]
    severity = PROBES[name].severity(3) if severity is None else severity
    params = {"by": "truth"} if "by" in PROBES[name].defaults else PARAMS.get(name)
    found = change(name, samples, severity, where, params=params, **options)  # type: ignore[arg-type]
    assert all(isinstance(sample, Sample) for sample in found), found
    return found  # type: ignore[return-value]


def same_truth(one: Sample, other: Sample) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("boxes", "labels", "masks")]
    return one.id == other.id and one.label == other.label and all(torch.equal(first, second) for first, second in pairs)


@pytest.mark.parametrize(("name", "task"), SERVED)
def test_severity_0_is_the_identity(name, task):
    where = context(task, name)
    for before, after in zip([where.dataset[0], where.dataset[1]], apply(name, where, [0, 1], severity=0), strict=True):
        assert torch.equal(before.image, after.image) and torch.equal(before.semantic, after.semantic)
        assert same_truth(before, after)


@pytest.mark.parametrize(("name", "task"), [pair for pair in SERVED if pair[0] in CHANGING])
def test_an_image_changes_within_its_range_and_keeps_its_boxes_unless_it_moves(name, task):
    where = context(task, name)
    for severity in range(1, 6) if PROBES[name].degrees else [1]:
        before, (after,) = where.dataset[1], apply(name, where, [1], severity)
        assert after.image.shape == before.image.shape and after.image.dtype == torch.float32
        assert float(after.image.min()) >= 0 and float(after.image.max()) <= 1
        assert not torch.equal(after.image, before.image)
        assert name in {*MOVING, *EMPTYING} or same_truth(before, after)


@pytest.mark.parametrize("name", CHANGING)
def test_same_seed_same_image_in_any_order_and_batch(name):
    where = context("segmentation", name)
    one = apply(name, where, [0, 1, 2, 3])
    other = apply(name, context("segmentation", name), [3, 1])
    close = 1e-6 if PROBES[name].batched else 0.0
    for first, second in ((one[3], other[0]), (one[1], other[1])):
        assert float((first.image - second.image).abs().max()) <= close
    others = (apply(name, where, [0, 1], seed=seed) for seed in (1, 2, 3))  # two seeds may draw the same donor
    same = (torch.equal(first.image, other.image) for found in others for first, other in zip(one, found, strict=False))
    assert all(same) is (name in STEADY)


def inside(where: Context, sample: Sample) -> Tensor:
    return where.foreground(sample).expand_as(sample.image)


@pytest.mark.parametrize(
    "name", ["mixed_same", "mixed_rand", "gap", "mixed_next", "only_fg", "blur", "recolour", "self_paste", "same_class_paste"]
)
def test_background_probes_leave_objects_as_they_are(name):
    where = context("segmentation")
    for index in (0, 1, 4):
        before, (after,) = where.dataset[index], apply(name, where, [index])
        objects = inside(where, before)
        assert torch.equal(before.image[objects], after.image[objects])
        assert not torch.equal(before.image[~objects], after.image[~objects])
        assert torch.equal(after.semantic != IGNORE, where.foreground(before))
        assert torch.equal(after.semantic[objects[0]], before.semantic[objects[0]])


def test_mixed_takes_backgrounds_of_the_right_class():
    where = context("segmentation")
    for index in range(6):
        names = ("mixed_same", "mixed_rand", "mixed_next", "same_class_paste")
        donors = {name: apply(name, where, [index])[0].tags["donor"] for name in names}
        kinds = {name: int(donor[-3:]) % 2 for name, donor in donors.items()}
        assert kinds == dict(zip(names, (index % 2, 1 - index % 2, 1 - index % 2, index % 2), strict=True))
        assert where.dataset.ids[index] not in donors.values()


def test_donors_by_what_the_model_sees_follow_the_model_not_the_label():
    where = Context(Shapes(tied=False), reader("background"))
    for index in range(6):
        sample = where.dataset[index]
        for name, same in (("mixed_same", True), ("mixed_rand", False)):
            (after,) = change(name, [sample], 1, where)
            ground = where.dataset[where.dataset.ids.index(after.tags["donor"])].tags["ground"]
            assert (ground == index % 2) is same


def test_the_donors_object_is_painted_over():
    where = context("segmentation")
    for index in range(4):
        sample = where.dataset[index]
        painted = where.donors().background(index)
        assert float(sample.image[1][where.foreground(sample)].min()) > 0.9
        assert float(painted[1].max()) < 0.5


def test_boxes_stand_for_masks_with_a_warning():
    where = Context(Shapes(masks=False), Boxes())
    before, (after,) = where.dataset[0], apply("mixed_rand", where, [0])
    x1, y1, x2, y2 = before.boxes[0].int().tolist()
    assert torch.equal(before.image[:, y1:y2, x1:x2], after.image[:, y1:y2, x1:x2])
    assert "boxes stand for objects" in where.stand_ins() and context("segmentation").stand_ins() is None


@pytest.mark.parametrize("severity", range(1, 6))
def test_patch_shuffle_moves_every_patch_within_the_outline(severity):
    where = context("segmentation")
    for index in (0, 1):
        before, (after,) = where.dataset[index], apply("patch_shuffle", where, [index], severity)
        objects = inside(where, before)
        assert torch.equal(before.image[~objects], after.image[~objects])
        assert float((before.image != after.image)[objects].float().mean()) > 0.9
        # only pixels of the object are used, so no background colour enters
        assert set(after.image[2][objects[0]].tolist()) <= set(before.image[2][objects[0]].tolist())


def test_fog_thickens_and_night_darkens():
    where = context("segmentation")
    clean = where.dataset[0].image
    nights = [float(apply("night", where, [0], severity)[0].image.mean()) for severity in range(1, 6)]
    assert nights == sorted(nights, reverse=True) and nights[0] < float(clean.mean())
    # what fog leaves of a difference between two images
    sample = where.dataset[0]
    darker = sample.image.clone()
    darker[:, :16] *= 0.5
    left = []
    for severity in (1, 3, 5):
        one, two = change("fog", [sample, replace(sample, image=darker)], severity, where)
        left.append(float((one.image - two.image)[:, :16].abs().mean()))
    assert left == sorted(left, reverse=True) and left[2] < 0.7 * left[0]


def test_select_knows_families_members_and_their_order():
    assert [each.name for each in select(["adversarial", "background", "domain", "mixed_same", "texture"])] == [
        "fog", "night", "patch_shuffle", "swap", "gap", "mixed_same", "pgd",
    ]  # fmt: skip
    assert [each.name for each in select(["background.mixed_rand"])] == ["mixed_rand"]
    assert {each.family for each in select(None)} <= set(FAMILIES)
    for name, hint in (("textur", "did you mean texture"), ("identity", "unknown"), ("fogg", "did you mean fog")):
        with pytest.raises(XaiError, match=hint):
            select([name])


def test_wrong_parameters_and_severities_are_named():
    where = context("segmentation")
    for params, hint in (({"step": 3}, "did you mean steps"), ({"steps": "many"}, "pgd.steps"), ({"eps": 8.0}, "fraction")):
        with pytest.raises(XaiError, match=hint):
            change("pgd", [where.dataset[0]], 3, where, params=params)
    for name, severity in (("fog", 6), ("mixed_same", 2), ("fog", -1)):
        with pytest.raises(XaiError, match="severity"):
            change(name, [where.dataset[0]], severity, where)
