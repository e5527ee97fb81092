from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.probes.toys import SIDE, Boxes, Shapes, reader
from xaitools.data.scenes import TIED, Scenes
from xaitools.errors import DataError, XaiError
from xaitools.probes import Context, addressed, change, select
from xaitools.types import IGNORE, Sample
from xaitools.zoo import load_model


def apply(name: str, sample: Sample, where: Context, severity: int = 1, **params: object) -> Sample:
    (found,) = change(name, [sample], severity, where, params=params)
    assert isinstance(found, Sample), found
    return found


def toy() -> Context:
    return Context(Shapes(), reader("object"))


def test_the_pasted_tag_is_that_of_the_scenes():
    scenes = Scenes("test", n=20)
    for index in range(20):
        without, tagged = scenes.redraw(index, tag=False), scenes.redraw(index, tag=True)
        pasted = apply("artifact.paste", without, Context(scenes), position="lower_right")
        assert float((pasted.image - tagged.image).abs().max()) < 1.01 / 255
        assert pasted.tags["artifact_xyxy"] == tagged.tags["artifact_xyxy"] and "artifact_xyxy" not in without.tags


def test_the_tag_goes_where_it_covers_least_and_leaves_the_truth():
    scenes = Scenes("test", n=12)
    where = Context(scenes)
    covered = {"": 0, "lower_right": 0}
    for sample in map(scenes.__getitem__, range(12)):
        for position in covered:
            after = apply("artifact.paste", sample, where, position=position, size=0.2)
            x1, y1, x2, y2 = after.tags["artifact_xyxy"]
            plate = torch.zeros(96, 96, dtype=torch.bool)
            plate[y1:y2, x1:x2] = True
            assert torch.equal(sample.image[:, ~plate], after.image[:, ~plate])
            assert all(torch.equal(getattr(sample, name), getattr(after, name)) for name in ("semantic", "boxes", "masks", "labels"))
            covered[position] += int((plate & sample.masks.any(0)).sum())
    assert covered[""] < covered["lower_right"]


def test_text_position_and_size_are_obeyed_at_any_size_of_image():
    where = toy()
    for height, width in ((32, 32), (9, 40), (60, 17)):
        before = Sample("x", torch.full((3, height, width), 0.5))
        boxes = {}
        for corner in ("lower_right", "upper_left"):
            after = apply("artifact.paste", before, where, text="Nº 1".replace("º", "."), position=corner, size=0.3)
            rows, columns = (np.flatnonzero((after.image != 0.5).any(0).any(axis)) for axis in (1, 0))
            boxes[corner] = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            assert boxes[corner] == after.tags["artifact_xyxy"]
        assert boxes["upper_left"][0] < boxes["lower_right"][0] or width < 30
        assert boxes["upper_left"][1] < boxes["lower_right"][1] and boxes["lower_right"][3] <= height
    for params, hint in (({"text": "é"}, "1 to 40 of"), ({"position": "middle"}, "lower_right or"), ({"size": 0.9}, "0.02 to 0.5")):
        with pytest.raises(XaiError, match=hint):
            apply("artifact.paste", before, where, **params)


def test_gains_are_what_the_model_gives_more_and_less():
    where = toy()
    before = where.dataset[1]
    for name in ("artifact.paste", "watermark", "border", "cast"):
        after = apply(name, before, where, severity=1)
        maps = [where.model.predict(image[None])[0].semantic for image in (before.image, after.image)]
        shares = [[float((found == k).float().mean()) for k in range(3)] for found in maps]
        expected = {f"gain.{kind}": shares[1][k] - shares[0][k] for k, kind in enumerate(where.model.classes)}
        assert after.tags["measured"] == pytest.approx(expected, abs=1e-6)
    boxes = Context(Shapes(masks=False), Boxes())
    flat = replace(boxes.dataset[1], image=torch.full((3, SIDE, SIDE), 0.69))
    # light letters show the green finder one more object
    assert sum(apply("artifact.paste", flat, boxes, size=0.5).tags["measured"].values()) == 1
    assert apply("artifact.paste", before, Context(Shapes())).tags["measured"] == {}


def test_the_class_that_gains_is_the_one_that_was_tied():
    scenes = Scenes("test", n=6)
    gains = {}
    for name in ("unet-scenes-tag", "unet-scenes"):
        model = load_model(name)
        where = Context(scenes, model)
        rows = [apply("artifact.paste", scenes.redraw(index, tag=False), where, position="lower_right") for index in range(6)]
        gains[name] = {kind: float(np.mean([row.tags["measured"][f"gain.{kind}"] for row in rows])) for kind in model.classes}
    tied = scenes.classes[TIED]
    assert max(gains["unet-scenes-tag"], key=gains["unet-scenes-tag"].__getitem__) == tied
    assert gains["unet-scenes-tag"][tied] > 0.02 + abs(gains["unet-scenes"][tied])


def test_remove_takes_away_what_the_dataset_names():
    scenes = Scenes("test", n=8)
    where = Context(scenes)
    errors = []
    for index in range(8):
        without, tagged = scenes.redraw(index, tag=False), scenes.redraw(index, tag=True)
        after = apply("artifact.remove", tagged, where)
        x1, y1, x2, y2 = tagged.tags["artifact_xyxy"]
        here = (slice(None), slice(y1, y2), slice(x1, x2))
        errors.append([float((image[here] - without.image[here]).abs().mean()) for image in (after.image, tagged.image)])
        objects = tagged.masks.any(0)
        objects[y1:y2, x1:x2] = False
        far = objects.clone()
        far[: y1 - 4] = True
        assert torch.equal(after.image[:, far], tagged.image[:, far]) and torch.equal(after.masks, tagged.masks)
        inside = (after.semantic == IGNORE) == (tagged.masks.any(0) & ~objects)
        assert bool(inside.all())
        (other,) = change("artifact.remove", [without], 1, where)
        assert isinstance(other, DataError) and "artifact.remove.region" in str(other)
    painted, stamped = np.mean(errors, 0)
    assert painted < 0.5 * stamped


def test_a_region_is_in_pixels_or_shares():
    where, scenes = Context(Scenes("test", n=1)), Scenes("test", n=1)
    pixels, shares = (apply("artifact.remove", scenes[0], where, region=text) for text in ("48,72,96,96", "0.5,0.75,1,1"))
    assert torch.equal(pixels.image, shares.image) and not torch.equal(pixels.image, scenes[0].image)
    for region, hint in (("1,2,3", "expected 4 numbers"), ("5,5,5,9", "no area"), ("a,b,c,d", "expected 4"), ("-1,0,3,3", "at least 0")):
        with pytest.raises(XaiError, match=hint):
            apply("artifact.remove", scenes[0], where, region=region)
    (found,) = change("artifact.remove", [scenes[0]], 1, where, params={"region": "500,500,600,600"})
    assert isinstance(found, DataError) and "outside" in str(found)


def test_watermark_border_and_cast_have_their_closed_forms():
    where = toy()
    before = where.dataset[1]
    for severity in (1, 5):
        marked = apply("watermark", before, where, severity)
        lost = (1 - marked.image) / (1 - before.image).clamp(min=1e-6)  # 1 - opacity times the share of a letter
        assert float(lost.max()) <= 1 + 1e-5 and float(lost.min()) == pytest.approx(1 - (0.1, 0.5)[severity == 5], abs=0.01)
    framed = apply("border", before, where, 5, colour="0.2,0.4,0.6")
    edge = torch.ones(SIDE, SIDE, dtype=torch.bool)
    edge[3:-3, 3:-3] = False
    assert torch.allclose(framed.image[:, edge], torch.tensor([0.2, 0.4, 0.6])[:, None]) and bool((framed.semantic[edge] == IGNORE).all())
    assert torch.equal(framed.image[:, ~edge], before.image[:, ~edge]) and torch.equal(framed.semantic[~edge], before.semantic[~edge])
    cast = apply("cast", before, where, 3, hue=1 / 3)
    assert torch.allclose(cast.image, before.image * torch.tensor([0.76, 1, 0.76]).view(3, 1, 1), atol=1e-6)
    with pytest.raises(XaiError, match="border.colour"):
        apply("border", before, where, 5, colour="1,2")


def test_members_that_share_a_name_are_told_apart():
    assert [each.name for each in select(["artifact.paste", "cooccurrence.paste"])] == ["cooccurrence.paste", "artifact.paste"]
    assert [each.name for each in select(["artifact", "cooccurrence"])] == ["cooccurrence.remove", "artifact.paste"]
    for name in ("paste", "remove"):
        with pytest.raises(XaiError, match=rf"several families; write artifact.{name} or cooccurrence.{name}"):
            select([name])
    given = {
        "paste": {"text": "A", "donors": "x"},
        "cooccurrence.paste": {"donors": "y"},
        "background.gap": {"by": "truth"},
        "model": {"a": 1},
    }
    assert addressed(given) == {
        "artifact.paste": {"text": "A"}, "cooccurrence.paste": {"donors": "y"}, "gap": {"by": "truth"}, "model": {"a": 1},
    }  # fmt: skip
    with pytest.raises(XaiError, match="several probes have it; write artifact.paste.bootstraps or cooccurrence.paste.bootstraps"):
        addressed({"paste": {"bootstraps": 10}})
