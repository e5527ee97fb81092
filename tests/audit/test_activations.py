"""What feature maps answer to: a planted pattern is found where it is, and a plain loop over the images agrees."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import xaitools as xt
from tests.nets import CLASSES, detector, picture, segmenter
from xaitools.adapters import ClassificationModel
from xaitools.audit import activations
from xaitools.audit.activations import strongest_activations
from xaitools.cli import main
from xaitools.errors import DataError, MethodError, PlanError, XaiError
from xaitools.report.activations import activations_document, activations_figure, save_activations
from xaitools.report.page import figure_bytes
from xaitools.types import Sample

PLUS = torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]])


class Pictures:
    """Images (3, H, W); an exception stands for an item that is broken."""

    name, task = "pictures", "detection"
    classes: tuple[str, ...] = CLASSES
    semantic_classes: tuple[str, ...] = ()
    things: frozenset[str] = frozenset()

    def __init__(self, *images) -> None:
        self.images, self.ids = images, [f"picture-{index}" for index in range(len(images))]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        if isinstance(self.images[index], Exception):
            raise self.images[index]
        return Sample(self.ids[index], self.images[index])


class Planted(nn.Module):
    """Map 0 answers to a red plus, map 1 to a blue one, map 2 to nothing; then a rectifier, pooling and a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.rectified, self.pooled = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2)
        self.last = nn.Linear(3, len(CLASSES))
        self.maps.weight.data.zero_()
        self.maps.weight.data[0, 0] = self.maps.weight.data[1, 2] = PLUS
        self.maps.bias.data = torch.tensor([-1.0, -1.0, -1.0])

    def forward(self, x):
        return self.last(self.pooled(self.rectified(self.maps(x))).mean((2, 3)))


def planted(*places, size=(20, 30), channel=0):
    """A black image with a plus of some brightness around each (row, column, brightness)."""
    image = torch.zeros(3, *size)
    for row, column, bright in places:
        for down in range(3):
            for right in range(3):
                y, x = row + down - 1, column + right - 1
                if 0 <= y < size[0] and 0 <= x < size[1]:
                    image[channel, y, x] = PLUS[down, right] * bright
    return image


def classifier():
    return ClassificationModel(Planted(), CLASSES, name="planted")


DATA = Pictures(
    planted((5, 7, 0.5)), planted((10, 20, 0.9), (3, 3, 0.6)), planted((0, 9, 1.0)), planted((8, 8, 0.7), size=(16, 40)),
    planted((6, 6, 0.8), channel=2), torch.zeros(3, 20, 30),
)  # fmt: skip


def test_the_planted_pattern_is_found_where_it_is():
    found = strongest_activations(classifier(), DATA, "rectified", [0, 1, 2], top=3)
    assert (found.n, found.channels, found.layer, found.skipped, found.model) == (6, 3, "rectified", (), "planted")
    red, blue, nothing = found.maps
    assert [(peak.id, peak.cell) for peak in red.peaks] == [("picture-1", (10, 20)), ("picture-2", (0, 9)), ("picture-3", (8, 8))]
    assert [peak.value for peak in red.peaks] == pytest.approx([5 * 0.9 - 1, 4 * 1.0 - 1, 5 * 0.7 - 1])
    assert (red.active, blue.active, nothing.active) == (4, 1, 0) and nothing.peaks == ()
    assert [(peak.id, peak.cell) for peak in blue.peaks] == [("picture-4", (6, 6))]
    assert [peak.box.tolist() for peak in red.peaks] == [[19, 9, 22, 12], [8, 0, 11, 2], [7, 7, 10, 10]]
    for peak, shape in zip(red.peaks, (PLUS, PLUS[1:], PLUS), strict=True):
        left, top, right, bottom = peak.box.tolist()
        assert torch.equal(peak.patch, DATA[DATA.ids.index(peak.id)].image[:, top:bottom, left:right])
        assert torch.allclose(peak.projection[0], peak.value * shape) and not peak.projection[1:].any() and not peak.whole
    assert torch.allclose(blue.peaks[0].projection[2], blue.peaks[0].value * PLUS)


def test_the_cell_alone_is_led_back():
    """Everywhere inside a red image the map answers alike: the first cell counts, and its neighbours add nothing to it."""
    for layer, cell, box in (("rectified", (1, 1), [0, 0, 3, 3]), ("pooled", (0, 0), [0, 0, 3, 3])):
        (peak,) = strongest_activations(classifier(), Pictures(torch.ones(3, 20, 30)), layer, [0]).maps[0].peaks
        assert peak.cell == cell and peak.box.tolist() == box and torch.allclose(peak.projection[0], peak.value * PLUS)


def test_equal_activations_stand_in_the_order_of_the_data():
    same = Pictures(*(planted((5 + at, 7, 0.5)) for at in (3, 1, 0, 2)), planted((5, 5, 0.6)))
    peaks = strongest_activations(classifier(), same, "rectified", [0], top=3).maps[0].peaks
    assert [peak.id for peak in peaks] == ["picture-4", "picture-0", "picture-1"]


def test_the_maps_with_the_largest_peaks_are_chosen(monkeypatch):
    assert [each.feature for each in strongest_activations(classifier(), DATA, "rectified").maps] == [0, 1]
    monkeypatch.setattr(activations, "CHOSEN", 1)
    brighter = Pictures(planted((5, 7, 0.5)), planted((6, 6, 0.8), channel=2))
    assert [each.feature for each in strongest_activations(classifier(), brighter, "rectified").maps] == [1]
    assert [each.feature for each in strongest_activations(classifier(), brighter, "rectified", [2, 0, 2]).maps] == [2, 0]


def case(task):
    if task == "classification":
        return classifier(), "rectified"
    return (segmenter(), "down.1") if task == "segmentation" else (detector(), "backbone.smooth")


@pytest.mark.parametrize("task", ["classification", "segmentation", "detection"])
def test_a_plain_loop_over_the_images_agrees(task):
    """Values and cells by hooking the whole prediction, projections by the method for one image with its target everywhere."""
    model, layer = case(task)
    data = Pictures(*(picture(*size, seed=seed) for seed, size in enumerate([(40, 52), (48, 44), (40, 52), (44, 44), (40, 52)])))
    found = strongest_activations(model, data, layer, top=3)
    held, seen = [], {}
    hook = model.module.get_submodule(layer).register_forward_hook(lambda module, inputs, out: held.append(out))
    for id, image in zip(data.ids, data.images, strict=True):
        held.clear()
        model.predict(image[None])
        seen[id] = held[0][0].detach().clone()
    hook.remove()
    for each in found.maps:
        loop = sorted(((float(seen[id][each.feature].max()), -place) for place, id in enumerate(data.ids)), reverse=True)[:3]
        assert [peak.id for peak in each.peaks] == [data.ids[-place] for value, place in loop if value > 0]
        assert [peak.value for peak in each.peaks] == pytest.approx([value for value, _ in loop if value > 0])
        for peak in each.peaks:
            assert float(seen[peak.id][each.feature][peak.cell]) == peak.value
    peaks = [max(float(maps[feature].max()) for maps in seen.values()) for feature in range(found.channels)]
    assert [each.feature for each in found.maps] == [at for at in sorted(range(len(peaks)), key=lambda at: -peaks[at]) if peaks[at] > 0][:6]
    target = "box:0,0,40,40:disc" if task == "detection" else "class:disc"
    for each in found.maps[:2]:
        peak = each.peaks[0]
        image = data.images[data.ids.index(peak.id)]
        if task == "detection":
            target = f"box:0,0,{image.shape[2]},{image.shape[1]}:disc"
        whole = xt.explain(model, image, target, "feature-projection", layer=layer, feature=each.feature, part="peak").values
        left, top, right, bottom = peak.box.tolist()
        torch.testing.assert_close(peak.projection.abs().amax(0), whole[top:bottom, left:right])
        assert float(whole.sum()) == pytest.approx(float(whole[top:bottom, left:right].sum())) and float(whole.sum()) > 0


def test_a_projection_without_switches_is_said_to_have_the_shape_of_the_weights():
    assert any("no max pooling" in note for note in strongest_activations(classifier(), DATA, "rectified").notes)
    assert not strongest_activations(classifier(), DATA, "pooled").notes
    before, after = (strongest_activations(classifier(), Pictures(each), "rectified", [0]).maps[0].peaks[0].projection
                     for each in (planted((5, 7, 0.5)), picture(20, 30)))  # fmt: skip
    assert torch.allclose(before / before.sum(), after / after.sum())


def test_bgr_networks_are_led_back_in_rgb():
    found = strongest_activations(ClassificationModel(Planted(), CLASSES, order="bgr"), DATA, "rectified", [0], top=1)
    (peak,) = found.maps[0].peaks
    assert peak.id == "picture-4" and torch.allclose(peak.projection[2], peak.value * PLUS) and not peak.projection[:2].any()


def test_cells_in_the_padding_are_left_out_and_said():
    """The image ends at column 30 of 32: with a bias above 0 the cells beyond answer to nothing, and as much as any."""
    model = ClassificationModel(Planted(), CLASSES, fit=xt.load_model("unet-scenes").fit.__class__(multiple=32))
    model.module.maps.bias.data[2] = 1.0
    model.module.maps.weight.data[2] = -1.0
    found = strongest_activations(model, Pictures(torch.ones(3, 20, 25)), "rectified", [2])
    assert found.maps[0].peaks == () and found.maps[0].active == 1 and any("only padding" in note for note in found.notes)


def test_broken_items_are_skipped_and_listed():
    data = Pictures(DataError("torn"), DATA.images[0], torch.full((3, 20, 30), float("nan")), DATA.images[1], torch.full((3, 20, 30), 7.0))
    found = strongest_activations(classifier(), data, "rectified", [0])
    assert found.n == 2 and [peak.id for peak in found.maps[0].peaks] == ["picture-3", "picture-1"]
    assert [id for id, _ in found.skipped] == ["picture-0", "picture-2", "picture-4"] and found.skipped[0][1] == "torn"
    with pytest.raises(DataError, match="none of 1 items can be used; the first: torn"):
        strongest_activations(classifier(), data, limit=1)


def test_images_are_not_kept():
    alive: list[weakref.ref] = []

    class Counting(Pictures):
        def __getitem__(self, index: int) -> Sample:
            assert sum(each() is not None for each in alive) <= 2
            image = super().__getitem__(index).image.clone()
            alive.append(weakref.ref(image))
            return Sample(self.ids[index], image)

    found = strongest_activations(classifier(), Counting(*DATA.images * 3), "rectified", [0], top=9)
    assert len(alive) == 18 + 9 and len(found.maps[0].peaks) == 9


def test_big_patches_are_averaged_down(monkeypatch):
    monkeypatch.setattr(activations, "SIDE", 10)
    model, image = classifier(), picture(20, 30)
    model.module.maps = nn.Conv2d(3, 3, 19, padding=9)
    (peak, *_) = strongest_activations(model, Pictures(image), "rectified").maps[0].peaks
    left, top, right, bottom = peak.box.tolist()
    assert max(peak.patch.shape) == 10 and peak.patch.shape == peak.projection.shape and max(right - left, bottom - top) > 10
    assert float(peak.patch.mean()) == pytest.approx(float(image[:, top:bottom, left:right].mean()), abs=0.02)


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_on_the_model(fails, monkeypatch):
    model = classifier().__class__(Planted().train(), CLASSES)
    if fails:
        monkeypatch.setattr(activations, "project", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            strongest_activations(model, DATA, "rectified")
    else:
        strongest_activations(model, DATA, "rectified")
    for part in model.module.modules():
        assert part.training and not part._forward_hooks and not part._forward_pre_hooks and not part._backward_hooks
    assert all(each.grad is None and each.requires_grad for each in model.module.parameters())


def black_box():
    class Final(nn.Module):
        def forward(self, x):
            return [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "scores": torch.zeros(0)} for _ in x]

    return xt.wrap(Final(), task="detection", classes=["a"], name="final")


@pytest.mark.parametrize(("make", "given", "words"), [
    (classifier, {"layer": "rectifeid"}, "unknown layer 'rectifeid'; did you mean rectified"),
    (classifier, {"layer": "last"}, "gave 0 maps"),
    (classifier, {"features": [3]}, "has 3 maps; give some of 0 to 2"),
    (classifier, {"features": []}, "has 3 maps"),
    (classifier, {"top": 0}, "expected 1 to 100"),
    (black_box, {}, "final is a black box"),
])  # fmt: skip
def test_what_cannot_be_done_is_one_line(make, given, words):
    with pytest.raises(MethodError, match=words) as caught:
        strongest_activations(make(), DATA, **given)
    assert "\n" not in str(caught.value)


def test_a_layer_that_never_answers_is_one_line():
    with pytest.raises(MethodError, match="rectified gives nothing above 0 in 1 images"):
        strongest_activations(classifier(), Pictures(torch.zeros(3, 20, 30)), "rectified")


# -- figure and files


def test_the_figure_shows_each_patch_at_its_place():
    found = strongest_activations(classifier(), DATA, "rectified", [0, 2], top=4)
    drawing = activations_figure(found)
    projections, patches, *empty = drawing.axes
    assert len(projections.images) == len(patches.images) == 4 and not any(ax.images for ax in empty)
    lefts, tops = zip(*((image.get_extent()[0], image.get_extent()[3]) for image in patches.images), strict=True)
    assert lefts[0] == lefts[2] < lefts[1] == lefts[3] and tops[0] < tops[2]
    full, cut = patches.images[0].get_extent(), patches.images[1].get_extent()
    assert full[1] - full[0] == pytest.approx(cut[1] - cut[0]) and cut[2] - cut[3] == pytest.approx((full[2] - full[3]) * 2 / 3)
    shown = patches.images[0].get_array()
    assert torch.allclose(torch.tensor(shown).permute(2, 0, 1).float(), found.maps[0].peaks[0].patch)
    words = " ".join(text.get_text() for text in drawing.texts)
    assert all(
        each in words for each in ("map 0, above 0 in 4 of 6 images", "3.5, 3, 2.5, 1.5", "rectified of planted", "6 images looked at")
    )
    assert figure_bytes(drawing, "svg") == figure_bytes(activations_figure(found), "svg")
    many = replace(found, maps=found.maps * 7)
    assert len(activations_figure(many, titles=False).axes) == 24
    with pytest.raises(XaiError, match="expected what strongest_activations gives"):
        activations_figure("found")


def test_the_document_says_what_was_found(tmp_path):
    found = strongest_activations(classifier(), DATA, "rectified", [0], top=2)
    files = save_activations(found, tmp_path / "o", ("png", "svg"))
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"activations.json", "figure.png", "figure.svg"} == {f.name for f in files}
    document = json.loads((tmp_path / "o" / "activations.json").read_text())
    assert document == activations_document(found)
    (row,) = document["maps"]
    assert row["feature"] == 0 and row["active"] == 4 and document["n"] == 6 and document["skipped"] == []
    assert row["peaks"][1] == {
        "id": "picture-2", "value": 3.0, "cell": [0, 9], "box_xyxy": [8, 0, 11, 2], "whole": False, "image_size": [20, 30],
    }  # fmt: skip
    assert [path.name for path in xt.save(found, tmp_path / "o")] == ["activations.json", "figure.png"]
    assert not (tmp_path / "o" / "figure.svg").exists(), "an earlier one is replaced"
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "mine.txt").write_text("mine")
    with pytest.raises(PlanError, match="holds 'mine.txt'"):
        save_activations(found, tmp_path / "p")


def test_the_command_writes_document_and_figure(tmp_path, capsys):
    arguments = ["activations", "scenes:val?n=3", "--model", "unet-scenes", "--layer", "down.0", "--top", "2", "--out", str(tmp_path / "o")]
    with pytest.raises(SystemExit) as status:
        main([*arguments, "--feature", "3", "--feature", "1", "--json"])
    assert status.value.code == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((tmp_path / "o" / "activations.json").read_text())
    assert [each["feature"] for each in document["maps"]] == [3, 1] and document["layer"] == "down.0" and document["top"] == 2
    assert (tmp_path / "o" / "figure.png").stat().st_size > 10_000
    before = (tmp_path / "o" / "figure.png").read_bytes()
    with pytest.raises(SystemExit) as status:
        main([*arguments, "--feature", "3", "--feature", "1"])
    assert status.value.code == 0 and before == (tmp_path / "o" / "figure.png").read_bytes()
    assert "images above 0" in capsys.readouterr().out


@pytest.mark.parametrize(("more", "words"), [
    (["--layer", "dwon.1"], "did you mean down.1"), (["--feature", "99"], "give some of 0 to"), (["--format", "gif"], "expected png"),
    (["--set", "lrp.epsilon=1"], "not part of this run"),
])  # fmt: skip
def test_bad_arguments_are_one_line(more, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as status:
        main(["activations", "scenes:val?n=2", "--model", "unet-scenes", "--out", str(tmp_path / "o"), "--layer", "down.1", *more])
    out, err = capsys.readouterr()
    assert status.value.code == 2 and out == "" and len(err.strip().splitlines()) == 1 and words in err
    assert not (tmp_path / "o").exists()


@torch.no_grad()
def test_the_pattern_is_what_a_sliding_window_says():
    """Map 0 by hand, at every place of one image: the second way to the numbers of the first test."""
    image = DATA[1].image
    wide = F.pad(image[0], (1, 1, 1, 1))
    sums = torch.tensor([[float((wide[y : y + 3, x : x + 3] * PLUS).sum()) - 1 for x in range(30)] for y in range(20)])
    (peak,) = strongest_activations(classifier(), Pictures(image), "rectified", [0]).maps[0].peaks
    assert peak.value == pytest.approx(float(sums.max())) and peak.cell == divmod(int(sums.argmax()), 30)
