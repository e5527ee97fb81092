"""Random masks: held to a closed form, to a plain second way that keeps all masks, and to scenes whose cause is known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import xaitools as xt
from tests.nets import detector, picture, segmenter
from xaitools.attribution import explain, explain_many
from xaitools.attribution.drise import CHECK, agreement, random_masks, top_tenth
from xaitools.errors import MethodError
from xaitools.types import Prediction

HEIGHT, WIDTH = 24, 36
WHITE = torch.ones(3, HEIGHT, WIDTH, dtype=torch.float64)
BRIGHT = (slice(4, 10), slice(8, 20))


class Judge:
    """A black box that says "yes" with a probability made from the image by hand; on white hidden by 0 it sees the bare masks."""

    task, classes = "classification", ("yes", "no")

    def __init__(self, probability):
        self.probability, self.seen = probability, []

    def predict(self, images):
        found = []
        for image in images:
            self.seen.append(image[0].clone())
            yes = torch.as_tensor(float(self.probability(image[0])), dtype=torch.float64)
            scores = torch.stack([yes, 1 - yes])
            labels = scores.argsort(descending=True, stable=True)
            found.append(Prediction("classification", self.classes, tuple(image.shape[1:]), labels, scores[labels]))
        return found


def patch(image):
    return image[BRIGHT].mean()


def crooked(image):
    """No straight line: one corner counts only where another shows, and what lies below speaks against."""
    return 0.4 + 0.5 * image[:8, :8].mean() * image[:8, 20:].mean() - 0.3 * image[16:].mean() ** 2


def why(probability, target="class:yes", image=WHITE, **params):
    return explain(Judge(probability), image, target, "drise", **{"fill": "0", "stability": 1.0, **params})


def spline(distance):
    """What two points of a line of tents have in common, by their distance in cells: the cubic B-spline."""
    d = np.abs(distance)
    return np.where(d < 1, 2 / 3 - d**2 + d**3 / 2, np.where(d < 2, (2 - d) ** 3 / 6, 0.0))


def expected(cell):
    """For a score that is the mean of M over BRIGHT: cov(M', M) / var(M) is a product of splines, averaged over the patch."""
    rows, columns = (spline((np.arange(n)[:, None] - np.arange(n)) / cell) / spline(0) for n in (HEIGHT, WIDTH))
    return torch.from_numpy(np.outer(rows[:, BRIGHT[0]].mean(1), columns[:, BRIGHT[1]].mean(1)))


@pytest.mark.parametrize(("grid", "keep"), [(8, 0.5), (5, 0.3)])
def test_the_mean_of_a_patch_has_its_closed_form(grid, keep):
    cell = HEIGHT / grid
    found, truth = why(patch, grid=grid, keep=keep, masks=3000).values.double(), expected(cell)
    torch.testing.assert_close(found, truth, atol=0.05, rtol=0)
    reach = math.ceil(2 * cell)
    far = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    far[: BRIGHT[0].stop + reach, : BRIGHT[1].stop + reach] = False
    assert float(truth.max()) > 0.25 and float(truth[far].max()) == 0 and float(found[far].abs().mean()) < 0.02
    against = why(patch, "class:no", grid=grid, keep=keep, masks=3000)
    torch.testing.assert_close(against.values.double(), -found, atol=1e-6, rtol=0)


def test_masks_have_one_mean_and_one_variance_at_every_pixel():
    generator, keep = torch.Generator().manual_seed(0), 0.3
    masks = random_masks(8000, 13, 21, 4.3, keep, generator)
    assert float(masks.min()) >= 0 and float(masks.max()) <= 1
    torch.testing.assert_close(masks.mean(0), torch.full((13, 21), keep).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(masks.var(0), torch.full((13, 21), keep * (1 - keep) * 4 / 9).double(), atol=0.01, rtol=0)


@pytest.mark.parametrize(("masks", "batch_size"), [(3, 2), (330, 16)])
def test_a_plain_second_way_agrees(masks, batch_size):
    """Keeps every mask and fits a straight line to the scores at each pixel by itself."""
    model = Judge(crooked)
    params = {"fill": "0", "stability": 1.0, "masks": masks, "grid": 6, "batch_size": batch_size}
    found = explain(model, WHITE, "class:yes", "drise", prediction=Judge(crooked).predict(WHITE[None])[0], **params)
    shown = [image for image in model.seen if not torch.equal(image, WHITE[0])]
    assert len(shown) == masks and found.score == pytest.approx(float(crooked(WHITE[0])), abs=1e-12)

    def lines(rows):
        m = np.stack([mask.numpy() for mask in rows]).reshape(len(rows), -1)
        f = np.array([float(crooked(mask)) for mask in rows])
        fits = [np.linalg.lstsq(np.stack([np.ones(len(m)), column], 1), f, rcond=None)[0][1] for column in m.T]
        return torch.tensor(fits).view(HEIGHT, WIDTH)

    torch.testing.assert_close(found.values.double(), lines(shown), atol=1e-6, rtol=1e-6)
    if masks > 4:  # with fewer, a half has a single mask and no line
        assert float(found.values.min()) < -0.05 and float(found.values.max()) > 0.05
        assert found.params["stability_reached"] == agreement(lines(shown[::2]), lines(shown[1::2]))


def test_exact_about_its_seed():
    first, again, other = (why(crooked, masks=120, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.values, again.values) and first.params == again.params and first.notes == again.notes
    assert not torch.allclose(first.values, other.values)
    noisy, same = (explain(segmenter(), picture(), "top", "drise", seed=2, masks=20, fill="noise").values for _ in range(2))
    assert torch.equal(noisy, same)
    torch.manual_seed(1)
    assert torch.equal(why(crooked, masks=120, seed=5).values, first.values)


@pytest.mark.parametrize("batch_size", [1, 7, 5000])
def test_it_does_not_depend_on_the_batch_size(batch_size):
    model, image = segmenter(torch.float64), picture(20, 24).double()
    given, found = (explain(model, image, "class:disc", "drise", masks=230, batch_size=size) for size in (16, batch_size))
    torch.testing.assert_close(found.values, given.values, rtol=1e-6, atol=1e-6 * float(given.values.abs().max()))
    assert float(given.values.abs().max()) > 1e-3 and found.params == {**given.params, "batch_size": min(batch_size, CHECK)}


def test_it_stops_when_the_halves_agree():
    done = []
    found = why(patch, stability=0.8, masks=5000, batch_size=32, progress=lambda *row: done.append(row))
    drawn = found.params["masks_drawn"]
    assert 0 < drawn < 3000 and drawn % CHECK == 0
    assert found.params["masks"] == 5000 and found.params["stability"] == 0.8 <= found.params["stability_reached"] <= 1
    assert len(found.notes) == 1 and found.notes[0].startswith(f"two halves of {drawn} masks agree by 0.")
    assert done[-1] == (drawn, 5000) and [row[0] for row in done] == sorted({row[0] for row in done})
    exactly = why(patch, stability=0.8, masks=drawn)
    assert torch.equal(exactly.values, found.values), "all masks that were drawn are in the map"
    before = why(patch, stability=0.8, masks=drawn - CHECK)
    assert before.params["stability_reached"] < 0.8 and before.params["masks_drawn"] == drawn - CHECK
    assert f"not stable: two halves of {drawn - CHECK} masks" in before.notes[0] and before.notes[0].endswith("raise drise.masks")


def test_a_map_does_not_depend_on_what_else_was_asked():
    """What speaks for "yes" is soon settled; for "no" nothing does, and its top tenth stays chance."""
    params = {"masks": 1200, "stability": 0.8, "fill": "0"}
    targets = ["class:no", "class:yes"]
    together = explain_many(Judge(patch), WHITE, targets, "drise", **params)
    assert together[0].params["masks_drawn"] == 1200 > together[1].params["masks_drawn"]
    for each, target in zip(together, targets, strict=True):
        alone = explain(Judge(patch), WHITE, target, "drise", **params)
        assert torch.equal(each.values, alone.values) and each.params == alone.params and each.notes == alone.notes


def test_a_score_that_never_moves_has_no_map_and_is_never_stable():
    found = why(lambda image: 0.7, masks=450, stability=0.01)
    assert torch.equal(found.values, torch.zeros(HEIGHT, WIDTH)) and found.score == pytest.approx(0.7)
    assert found.params["masks_drawn"] == 450 and found.params["stability_reached"] is None
    assert "the score was the same under all 450 masks" in found.notes[0]
    pair = why(patch, masks=2, stability=0.01)  # one mask in each half
    assert pair.params["stability_reached"] is None and bool(pair.values.any()) and "no top tenth" in pair.notes[0]
    same = explain(segmenter(), torch.full((3, 30, 34), 0.5), "top", "drise", fill="0.5", masks=40)
    assert torch.equal(same.values, torch.zeros(30, 34)) and same.params["stability_reached"] is None


def test_a_score_of_pure_chance_is_not_stable():
    dice = np.random.default_rng(0)
    found = why(lambda image: dice.random(), masks=2000, stability=0.8)
    assert found.params["masks_drawn"] == 2000 and found.params["stability_reached"] < 0.5 and found.notes[0].startswith("not stable")
    assert float(found.values.abs().max()) < 0.15


def test_the_top_tenth_ends_before_equal_values():
    ramp = torch.arange(40.0).view(5, 8)
    assert top_tenth(ramp).flatten().nonzero().flatten().tolist() == [36, 37, 38, 39]
    assert int(top_tenth(torch.zeros(5, 8)).sum()) == 0
    few = torch.zeros(5, 8)
    few[2, 3:5] = 1
    assert torch.equal(top_tenth(few), few.bool())
    assert agreement(ramp, ramp) == 1 and agreement(ramp, -ramp) == 0 and agreement(ramp, torch.zeros(5, 8)) == 0
    assert math.isnan(agreement(torch.zeros(5, 8), torch.ones(5, 8)))


class Lamp(nn.Module):
    """One box, whose score is the brightness inside; it moves away when what lies below it is dark."""

    def forward(self, x):
        return [
            {
                "boxes": torch.tensor([[8.0, 4, 20, 10]]) + (0 if image[0, 14:20, 8:20].mean() > 0.3 else 6),
                "labels": torch.ones(1, dtype=torch.int64),
                "scores": image[0, 4:10, 8:20].mean()[None],
            }
            for image in x
        ]


def test_boxes_of_a_black_box():
    model = xt.wrap(Lamp(), task="detection", classes=["lamp"], score_threshold=0.0)
    found = explain(model, WHITE.float(), "box:0", "drise", fill="0", masks=1000)
    assert found.score == pytest.approx(1.0) and found.params["score"] == "still found"
    box, below, far = found.values[5:9, 9:19].mean(), found.values[15:19, 9:19].mean(), found.values[:, 28:].abs().mean()
    assert float(box) > 0.15 and float(below) > 0.08 and float(far) < 0.03


def test_networks_of_each_task():
    for model, targets in ((detector(), ["box:0", "box:2,2,20,18:disc"]), (segmenter(), ["top", "class:disc"])):
        for each in explain_many(model, picture(), targets, "drise", masks=40):
            assert each.values.shape == (40, 52) and bool(torch.isfinite(each.values).all())
            assert float(each.values.abs().max()) > 1e-4 and each.params["masks_drawn"] == 40
    pixel = explain(segmenter(), picture(), "pixel:5,7", "drise", masks=40)
    assert pixel.score == 1 and bool(torch.isfinite(pixel.values).all())


def test_the_peak_lies_in_the_object_that_was_found():
    model, scene = xt.load_model("yolo-scenes"), xt.load_dataset("scenes:test?n=1")[0]
    found = explain(model, scene.image, "box:0", "drise", masks=400)
    box = model.predict(scene.image[None])[0].boxes[0]
    row, column = divmod(int(found.values.argmax()), found.values.shape[1])
    assert box[0] <= column + 0.5 <= box[2] and box[1] <= row + 0.5 <= box[3]


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"masks": 1}, "masks=1.*at least 2"), ({"batch_size": -1}, "batch_size=-1"), ({"masks": "many"}, "whole number"),
        ({"grid": 0}, "grid=0; expected 1 to 24"), ({"grid": 25}, "grid=25; expected 1 to 24"),
        ({"stability": 0.0}, "stability=0.0"), ({"stability": 1.1}, "stability=1.1"), ({"stability": math.nan}, "stability=nan"),
        ({"keep": 0.0}, "keep=0.0"), ({"keep": 1.0}, "keep=1.0"), ({"keep": math.nan}, "keep=nan"),
        ({"fill": "purple"}, "drise.fill='purple'"), ({"window": 3}, "no parameter 'window'"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_one_line(params, error):
    with pytest.raises(MethodError, match=error) as caught:
        explain(Judge(patch), WHITE, "class:yes", "drise", **params)
    assert "\n" not in str(caught.value)


def test_what_is_no_class_region_or_box_is_refused_in_one_line():
    for target in ("box:0:left", "box:0:vs:"):
        with pytest.raises(MethodError, match=f"target {target}: drise asks whether .* is found; drop the rest") as caught:
            explain(detector(), picture(), target, "drise")
        assert "\n" not in str(caught.value)
