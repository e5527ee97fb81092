"""What a small thing beside the objects does, on models whose answer is known by hand and on the twins."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import xaitools as xt
from tests.audit.test_shift import Corner, Tagged, corner
from tests.probes.toys import CLASSES, reader
from xaitools.adapters import SegmentationModel
from xaitools.audit.plan import CLEAN, make_plan
from xaitools.audit.records import Folder, Memory, Row
from xaitools.audit.shift import Explainer
from xaitools.audit.spots import FEWEST_THERE, SPOT, WORKS, Spots, fixed, measure_spots, overlaps, spots_of, summary
from xaitools.audit.work import Worker

CROSS = "gradient-x-input"


def explainer(model, data) -> Explainer:
    plan, context = make_plan(model, data, ["fog"])
    found = Explainer(Worker(plan, context), plan)
    found.settle(CROSS, list(data.ids)[:4])
    return found


def test_the_spot_is_the_best_of_all_windows_tried_one_by_one():
    dice = torch.Generator().manual_seed(3)
    values, objects = torch.randn(30, 40, generator=dice), torch.zeros(30, 40, dtype=torch.bool)
    objects[8:20, 10:25] = True
    spot, *others = spots_of(values, objects, (0.2, 0.2))
    best = max(
        ((float(values[y : y + 6, x : x + 6].clamp(min=0).sum()), y, x) for y in range(25) for x in range(35)
         if not bool(objects[y : y + 6, x : x + 6].any())),
    )  # fmt: skip
    assert spot.box == (best[1], best[2], best[1] + 6, best[2] + 6)
    assert spot.mass == pytest.approx(best[0] / float(values.clamp(min=0)[~objects].sum())) and spot.area == 36 / int((~objects).sum())
    masses = [each.mass for each in (spot, *others)]
    assert len(others) == 11 and masses == sorted(masses, reverse=True)
    centres = [(each.box[0] + 3, each.box[1] + 3) for each in (spot, *others)]
    assert all(max(abs(y - v), abs(x - u)) > 3 for k, (y, x) in enumerate(centres) for v, u in centres[:k])
    assert not any(bool(objects[top:bottom, left:right].any()) for top, left, bottom, right in (each.box for each in others))
    assert spots_of(values, objects, (0.2, 0.2), 3) == [spot, *others[:2]]
    assert not spots_of(-values.abs(), objects, (0.2, 0.2)) and not spots_of(values, torch.ones_like(objects), (0.2, 0.2))


def test_a_tag_that_a_model_reads_makes_its_class_wherever_it_is_moved():
    found, _ = measure_spots(explainer(corner(), Tagged(24)), range(24), Memory())
    disc = found[CLASSES[1]]
    assert disc["place"]["xyxy"] == [26 / 32, 26 / 32, 1, 1] and disc["place"]["share"] == 1
    assert disc["mass"] > 0.99 and disc["n"] == disc["judged"] == 12 and disc["moved"]["n"] > 48
    assert disc["removed"]["value"] == disc["moved"]["value"] == 1.0 and disc["moved"]["ci"] == [1.0, 1.0]


class Decoy(Corner):
    """Reads the corner too; but another place has most relevance, since its slope is steep, and little effect, since it is short."""

    def forward(self, x):
        logits = super().forward(x)
        short = 200 * (x[:, :, :6, :6].mean((1, 2, 3)) - 0.99).clamp(min=0).view(-1, 1, 1)
        return logits + torch.stack([torch.zeros_like(logits[:, 0]), short.expand_as(logits[:, 1]), torch.zeros_like(logits[:, 2])], 1)


class Decoyed(Tagged):
    def __getitem__(self, index):
        sample = super().__getitem__(index)
        image = sample.image.clone()
        image[:, :6, :6] = 1
        return replace(sample, image=image)


def test_a_tag_is_found_that_relevance_does_not_show():
    model = SegmentationModel(Decoy(0.0), CLASSES, background=0, name="decoy")
    data = Decoyed(24)
    values, _ = explainer(model, data).explained(explainer(model, data).view(0, CLEAN))
    assert float(values[:6, :6].sum()) > 2 * float(values[26:, 26:].sum()) > 0
    found, _ = measure_spots(explainer(model, data), range(24), Memory())
    disc = found[CLASSES[1]]
    assert disc["place"]["xyxy"] == [26 / 32, 26 / 32, 1, 1] and fixed(disc)
    assert disc["moved"]["value"] == disc["removed"]["value"] == 1.0


def test_what_a_model_does_not_read_changes_nothing():
    data = Tagged(24)
    found, rows = measure_spots(explainer(reader("object"), data), range(24), Memory())
    assert all(each["moved"]["value"] == each["removed"]["value"] == 0.0 for each in found.values())
    assert found or all("no place beside" in row.reason for row in rows)


def row(number: int, label: int, box: tuple[float, ...], removed: tuple[float, float], moved: list[float], brought: float = 0.0) -> Row:
    statistics = {"label": [label], "box": box, "mass": [0.5], "area": [0.1], "removed": removed, "moved": moved, "brought": [brought]}
    return Row(f"{number}", SPOT, 0, None, {name: np.array(values, float) for name, values in statistics.items()})


@pytest.mark.parametrize("working", [FEWEST_THERE - 1, FEWEST_THERE])
def test_a_cue_of_few_images_does_not_drown_and_what_it_does_is_not_what_it_was_chosen_by(working):
    rows = [row(k, 1, (0.8, 0.8, 1, 1), (0.6, 0.1), [0.75, 0.25] * 3, 0.9) for k in range(working)]
    rows += [row(9 + k, 1, (0, 0, 0.2, 0.2), (0.1, 0.1), [0.25, 0.25], WORKS - 0.01) for k in range(20)]
    rows += [row(40 + k, 0, (0, 0, 0.2, 0.2), (0.1, 0.1), [0.25, 0.25]) for k in range(10)]
    disc = summary(rows, ("a", "b"), 0)["b"]
    enough = working == FEWEST_THERE
    assert (disc["n"], disc["judged"]) == (working + 20, working if enough else working + 20) and fixed(disc)
    effect = 0.5 if enough else 0.5 * working / (working + 20)  # a mean over spots, however often each was moved
    assert disc["moved"]["value"] == pytest.approx(effect) and disc["removed"]["value"] == pytest.approx(effect)
    assert disc["place"]["share"] == (1 if enough else 20 / 24) and disc["place"]["moved"]["value"] == (0.5 if enough else 0.0)


def test_the_summary_is_that_counted_by_hand_and_needs_some_images():
    corner_, elsewhere = (0.8, 0.8, 1.0, 1.0), (0.0, 0.0, 0.2, 0.2)
    rows = [row(k, 1, corner_ if k < 9 else elsewhere, (0.6, 0.1), [0.5, 0.25, 0.75, 0.0] if k % 2 else []) for k in range(12)]
    rows += [row(12 + k, 2, corner_ if k < 3 else elsewhere, (0, 0), []) for k in range(10)] + [row(30, 0, corner_, (0, 0), [])]
    found = summary([*rows, Row("x", SPOT, 0, "broken")], ("a", "b", "c"), 0)
    assert set(found) == {"b", "c"} and found["c"]["moved"] is None
    place = found["b"]["place"]
    assert (place["xyxy"], place["share"], place["others"]) == (list(corner_), 9 / 12, 4 / 11)
    assert place["moved"]["images"] == 4 and found["b"]["elsewhere"]["moved"]["images"] == 2
    assert found["b"]["removed"]["value"] == pytest.approx(0.5) and found["b"]["moved"]["value"] == pytest.approx(0.5)
    assert found["b"]["moved"]["n"] == 12 and found["b"]["chance"] == pytest.approx(0.1)
    assert overlaps(np.array([corner_]), np.array([corner_, elsewhere])).tolist() == [[1.0, 0.0]]


def test_frames_of_one_drive_count_as_one():
    rows = [row(k, 1, (0.8, 0.8, 1, 1), (0.1 * (k // 2), 0.0), [0.1 * (k // 2), 0.0]) for k in range(20)]
    alone, pairs = (summary(rows, ("a", "b"), 0, clusters=each)["b"]["moved"] for each in (None, {f"{k}": f"{k // 2}" for k in range(20)}))
    assert (alone["value"], pairs["value"]) == pytest.approx((0.45, 0.45))
    widths = [each["ci"][1] - each["ci"][0] for each in (alone, pairs)]
    assert 1.3 < widths[1] / widths[0] < 1.8  # about the root of 2: each is there twice
    few = summary(rows, ("a", "b"), 0, clusters={f"{k}": f"{k // 4}" for k in range(20)})["b"]
    assert few["moved"]["ci"] is None and fixed(few)  # where it is, is known; what it does has no interval


@pytest.mark.parametrize(
    ("share", "here", "away", "expected"),
    [
        (0.5, (0.0, 0.1, 10), None, True),
        (0.5, (0.0, 0.1, 4), None, False),  # half of very few
        (0.5, None, None, False),
        (0.3, (0.4, 0.8, 7), (-0.1, 0.1), True),  # a tag in some images of the class
        (0.3, (0.4, 0.8, 4), (-0.1, 0.1), False),  # too few to tell
        (0.3, (0.4, 0.8, 7), (0.3, 0.7), False),  # company: it acts wherever it is
        (0.3, (0.4, 0.8, 7), None, False),
        (0.3, (-0.1, 0.1, 7), (-0.1, 0.1), False),
    ],
)
def test_what_belongs_to_one_place(share, here, away, expected):
    moved = None if here is None else {"ci": here[:2], "images": here[2]}
    found = {"place": {"share": share, "moved": moved}, "elsewhere": {"moved": None if away is None else {"ci": away, "images": 20}}}
    assert fixed(found) is expected


def test_what_is_done_is_not_done_again_and_one_class_alone_is_no_error(tmp_path, monkeypatch):
    class Discs(Tagged):
        """All images have discs, so there is no image of another class."""

        def __getitem__(self, index):
            return replace(super().__getitem__(index - index % self.kinds), id=self.ids[index])

    data = Discs(24)
    store = Folder(tmp_path, "plan")
    first, rows = measure_spots(explainer(corner(), data), range(24), store)
    assert first[CLASSES[1]]["moved"] is None and first[CLASSES[1]]["removed"]["value"] == 1.0
    monkeypatch.setattr(Spots, "row", None)
    again, same = measure_spots(explainer(corner(), data), range(24), store)
    assert again == first and [row.item for row in same] == [row.item for row in rows]


@pytest.mark.long
@pytest.mark.parametrize(("name", "honest", "factor", "low"), [
    ("unet-scenes-tag", "unet-scenes", "shortcut=tag&prevalence=1&others=0", 0.3),
    ("faster-rcnn-scenes-tag", "faster-rcnn-scenes", "shortcut=tag&prevalence=1&others=0", 0.2),
])  # fmt: skip
def test_the_twins(name, honest, factor, low):
    data = xt.load_dataset(f"scenes:test?n=100&{factor}")
    tied = data.classes[0]
    for model, reads in ((name, True), (honest, False)):
        plan, context = make_plan(xt.load_model(model), data, ["fog"])
        found = Explainer(Worker(plan, context), plan)
        assert found.settle("auto", list(data.ids)[:4])[0]
        result, _ = measure_spots(found, range(len(data)), Memory())
        moved = result[tied]["moved"]
        assert (moved["ci"][0] > low) is reads, (model, result)
        assert (result[tied]["place"]["share"] > 0.5) is reads
        assert reads or moved["ci"][0] < 0.05
