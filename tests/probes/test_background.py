from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import pytest
import torch

from tests.probes.toys import OBJECTS, SIDE, Boxes, Shapes, reader
from xaitools import audit
from xaitools.data.fill import fill
from xaitools.data.scenes import Scenes
from xaitools.errors import DataError
from xaitools.probes import PROBES, Context, change, objects
from xaitools.probes.background import BLURS, RECOLOURS
from xaitools.types import IGNORE, Sample

probe = partial(audit.probe, relevance=0)  # what it says of explanations has tests of its own


def apply(name: str, sample: Sample, where: Context, severity: int = 1, **params: object) -> Sample:
    (found,) = change(name, [sample], severity, where, params=params)
    assert isinstance(found, Sample), found
    return found


@pytest.mark.parametrize("name", ["no_fg", "only_bg"])
def test_without_objects_nothing_is_true_but_the_background(name):
    where = Context(Shapes(), reader("object"))
    before = where.dataset[1]
    after = apply(name, before, where)
    assert len(after.boxes) == len(after.labels) == len(after.masks) == 0 and after.boxes.shape == (0, 4)
    assert not bool(after.semantic.any()) and after.label == before.label
    assert float(after.image[1][before.masks[0]].max()) < 0.5 and after.tags["measured"] == {"false_alarms": 0.0}
    # without a class "background" nobody knows what was behind
    where.dataset.semantic_classes = ("road", "disc", "square")
    after = apply(name, before, where)
    assert bool((after.semantic[before.masks[0]] == IGNORE).all()) and not bool((after.semantic == 2).any())


def test_only_bg_covers_the_whole_box():
    where = Context(Shapes(), reader("object"))
    before = where.dataset[0]
    x1, y1, x2, y2 = before.boxes[0].int().tolist()
    box = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    box[y1:y2, x1:x2] = True
    after = apply("only_bg", before, where)
    assert torch.equal(after.image[:, ~box], before.image[:, ~box])
    assert torch.allclose(after.image[:, box], before.image.mean((1, 2))[:, None])


def test_false_alarms_are_those_of_the_model():
    data = Shapes(masks=False)
    green = data[0].image.clone()
    green[:, :6, :6] = OBJECTS[0]  # an object that the annotation does not know
    where = Context(data, Boxes())
    sample = Sample("x", green, boxes=data[0].boxes, labels=data[0].labels)
    assert apply("no_fg", sample, where).tags["measured"] == {"false_alarms": 1.0}
    segmenting = Context(Shapes(), reader("object"))
    whole = segmenting.dataset[0]
    share = float((segmenting.model.predict(whole.image[None])[0].semantic > 0).float().mean())
    assert segmenting.alarms(whole.image) == pytest.approx(share) and share > 0.05
    assert Context(Shapes()).alarms(whole.image) is None


def test_references_are_the_unchanged_image_on_the_same_truth():
    where = Context(Shapes(), reader("object"))
    before = where.dataset[0]
    objects, background = (apply(name, before, where, 3) for name in ("scored_objects", "scored_background"))
    for reference, labelled, rows in ((objects, before.masks[0], 1), (background, ~before.masks[0], 0)):
        assert torch.equal(reference.image, before.image) and len(reference.boxes) == rows
        assert torch.equal(reference.semantic != IGNORE, labelled)
    report = probe(reader("object"), Shapes(), ["blur", "mixed_rand"], severities=(1, 3)).report
    assert all(row["reference"]["name"] == "scored_objects" for row in report["probes"].values())
    assert report["probes"]["blur"]["primary"]["drop"] == pytest.approx(0, abs=0.01)  # the reader looks at objects alone


def test_a_run_scores_what_is_left_of_the_background():
    report = probe(reader("object"), Shapes(), ["no_fg", "only_bg", "only_fg"]).report
    assert report["probes"]["no_fg"]["primary"]["value"] == 1.0  # all of it is seen as background
    assert report["probes"]["no_fg"]["measured"] == {"false_alarms": 0.0}
    report = probe(Boxes(), Shapes(), ["no_fg"]).report
    assert report["probes"]["no_fg"]["primary"]["drop"] is None and report["probes"]["no_fg"]["measured"] == {"false_alarms": 0.0}


def test_the_next_class_is_the_next_that_has_an_image():
    scenes = Scenes("test", n=40)
    where = Context(scenes)
    labels = {id: scenes.describe(index).subject for index, id in enumerate(scenes.ids)}
    for index in range(6):
        after = apply("mixed_next", scenes[index], where, by="truth")
        assert labels[after.tags["donor"]] == (labels[after.id] + 1) % 5
    few = Scenes("test", n=4)  # some classes are missing, so the next one there is
    present = {few.describe(index).subject for index in range(4)}
    for index in range(4):
        own = few.describe(index).subject
        after = change("mixed_next", [few[index]], 1, Context(few), params={"by": "truth"})[0]
        following = [kind for kind in ((own + step) % 5 for step in range(1, 5)) if kind in present]
        if following:
            assert few.describe(few.ids.index(after.tags["donor"])).subject == following[0]
        else:
            assert isinstance(after, DataError)


def test_only_fg_is_flat_behind_the_objects():
    where = Context(Shapes(), reader("object"))
    before = where.dataset[0]
    after = apply("only_fg", before, where)
    ring = torch.nn.functional.max_pool2d(before.masks.float()[None], 3, 1, 1)[0, 0] > 0
    assert torch.allclose(after.image[:, ~ring], before.image.mean((1, 2))[:, None], atol=1e-6)


def test_blur_takes_nothing_of_the_objects_and_is_a_gaussian_far_from_them():
    where = Context(Shapes(), reader("object"))
    before = where.dataset[0]
    for severity in (1, 3, 5):
        after = apply("blur", before, where, severity)
        assert float(after.image[1][after.semantic == IGNORE].max()) < 0.63  # 0.24, and 0.99 of the object on the ring of one pixel
    # one large picture without its object: the same as a blur of all of it, also where it is made on a smaller image
    image = torch.rand(3, 200, 240, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 200, 240, dtype=torch.bool)
    mask[:, :2, :2] = True
    sample = Sample("noise", image, masks=mask, boxes=torch.tensor([[0.0, 0, 2, 2]]), labels=torch.tensor([0]))
    for severity in (1, 5):
        plain = cv2.GaussianBlur(image.permute(1, 2, 0).numpy(), (0, 0), 200 * BLURS[severity - 1], borderType=cv2.BORDER_REFLECT)
        difference = np.abs(apply("blur", sample, where, severity).image.permute(1, 2, 0).numpy() - plain)[60:, 60:]
        assert difference.max() < 0.01 and plain[60:, 60:].std() > 0.005


def test_recolour_keeps_lightness_and_turns_hues():
    where = Context(Shapes(), reader("object"))
    before = where.dataset[0]
    outside = ~before.masks[0]
    outside &= torch.nn.functional.max_pool2d(before.masks.float()[None], 3, 1, 1)[0, 0] == 0
    labs = []
    for image in (before.image, apply("recolour", before, where, 1).image):
        lab = torch.from_numpy(cv2.cvtColor(image.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2LAB)).permute(2, 0, 1)
        labs.append(lab[:, outside])
    assert float((labs[0][0] - labs[1][0]).abs().mean()) < 1.5
    moved = float((labs[0][1:] - labs[1][1:]).norm(dim=0).mean())
    radius = float(labs[0][1:].norm(dim=0).mean())
    turn, tint = RECOLOURS[0]
    assert 2 * radius * np.sin(np.deg2rad(turn / 2)) - tint - 2 < moved < 2 * radius * np.sin(np.deg2rad(turn / 2)) + tint + 2


def test_a_background_is_painted_once_for_all_that_ask_and_nobody_spoils_it(monkeypatch):
    made = []
    monkeypatch.setattr(objects, "fill", lambda image, hole: made.append(hole) or fill(image, hole))
    where = Context(Shapes(6), reader("object"))
    sample = where.dataset[0]
    gone = where.foreground(sample)
    first = where.painted(sample.image, gone)
    assert torch.equal(first, fill(sample.image, gone))
    first.zero_()
    assert torch.equal(where.painted(sample.image, gone), fill(sample.image, gone)) and len(made) == 1
    for name in ("self_paste", "no_fg", "object_rotate", "pose_same"):
        change(name, [sample], PROBES[name].severity(3), where)
    assert len(made) == 1
    where.painted(sample.image, ~gone)
    monkeypatch.setattr(objects, "KEPT", 1)
    where.painted(sample.image.flip(1), gone)
    where.painted(sample.image, gone)
    assert len(made) == 4  # the bound leaves only the last
