"""Where relevance lies before and after a change, on models whose answer is known by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import xaitools as xt
from tests.probes.toys import CLASSES, SIDE, Boxes, Shapes
from xaitools.adapters import SegmentationModel
from xaitools.audit import make_plan, probe
from xaitools.audit.plan import CLEAN, RELEVANCE, Condition
from xaitools.audit.records import SHIFT, from_table
from xaitools.audit.shift import Explainer, Pair
from xaitools.audit.work import Worker
from xaitools.cli.commands.probe import command
from xaitools.data import Dataset
from xaitools.errors import MethodError, XaiError
from xaitools.probes import PROBES, Context, change
from xaitools.types import Sample

CORNER = (26, 26, 32, 32)
CROSS = "gradient-x-input"


class Tagged(Shapes):
    """Discs have a white tag in the lower right corner, which covers what is there."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        if index % self.kinds:
            return sample
        image = sample.image.clone()
        image[:, 26:, 26:] = 1
        return replace(sample, image=image, tags={**sample.tags, "artifact_xyxy": CORNER})


class Corner(nn.Module):
    """Objects are green; they are discs where the lower right corner is brighter than 0.8, and else squares: no map of
    the class can be anywhere but in the corner (``inside``=0), or a share of it lies on the pixel itself."""

    def __init__(self, inside: float) -> None:
        super().__init__()
        self.inside = nn.Parameter(torch.tensor(inside))

    def forward(self, x: Tensor) -> Tensor:
        tag = 20 * (x[:, :, 26:, 26:].mean((1, 2, 3)) - 0.8)
        disc = tag.view(-1, 1, 1) + self.inside * x[:, 1]
        return torch.stack([40 * (0.7 - x[:, 1]), disc, -disc], 1)


def corner(inside: float = 0.0) -> SegmentationModel:
    return SegmentationModel(Corner(inside), CLASSES, background=0, name="corner")


def by_hand(model: SegmentationModel, image: Tensor, place: Tensor, label: int, tag: Tensor) -> list[float]:
    """Shares of object, context and artefact by gradient x input, pixel by pixel."""
    x = image.clone().requires_grad_()
    logits = model.module(x[None])[0][:, place]
    others = [index for index in range(len(CLASSES)) if index != label]
    margin = (logits[label] - logits[others].exp().sum(0).log()).mean()
    margin.backward()
    values = (x * x.grad).sum(0).detach()
    values = -values if margin < 0 and values.sum() < 0 else values
    sums = {"object": 0.0, "context": 0.0, "artefact": 0.0}
    for row in range(SIDE):
        for column in range(SIDE):
            part = "object" if place[row, column] else "artefact" if tag[row, column] else "context"
            sums[part] += max(0.0, float(values[row, column]))
    return [each / sum(sums.values()) for each in sums.values()]


def shift(result, name: str) -> dict:
    rows = result.report["probes"] if name in result.report["probes"] else result.report["controls"]
    return rows[name]["relevance"]


def test_shares_are_those_counted_pixel_by_pixel():
    data, model = Tagged(8), corner(3.0)
    result = probe(model, data, ["artifact.remove"], relevance_method=CROSS, relevance=3)
    found = shift(result, "artifact.remove")
    rows = [row for row in from_table(result.records) if row.condition == SHIFT + "artifact.remove"]
    assert len(rows) == found["n"] == 3 and found["undefined"] == 0
    context, tag = Context(data, model), torch.zeros(SIDE, SIDE, dtype=torch.bool)
    tag[26:, 26:] = True
    expected = []
    for row in rows:
        sample = data[data.ids.index(row.item)]
        (after,) = change("artifact.remove", [sample], 1, context)
        expected.append([by_hand(model, each.image, sample.masks[0], 1, tag) for each in (sample, after)])
    before, after = np.mean(expected, 0)
    assert list(found["before"].values()) == pytest.approx(before.tolist(), abs=1e-5)
    assert list(found["after"].values()) == pytest.approx(after.tolist(), abs=1e-5)
    assert found["change"]["object"]["value"] == pytest.approx(after[0] - before[0], abs=1e-5)
    assert found["chance"]["before"]["artefact"] == 36 / SIDE**2
    assert sum(found["chance"]["after"].values()) == pytest.approx(1)
    assert found["before"]["artefact"] - found["after"]["artefact"] > 0.1


def test_a_model_that_looks_at_a_corner_is_caught_and_nothing_moves_where_nothing_changed():
    result = probe(corner(), Tagged(24), ["artifact.remove", "fog"])
    assert result.report["relevance"] == {"method": "lrp", "images": RELEVANCE, "notes": []}
    found = shift(result, "artifact.remove")
    assert found["n"] == 12 and found["before"]["artefact"] == pytest.approx(1, abs=0.01)
    assert found["margin"]["before"]["above_0"] == 12 and found["margin"]["after"]["above_0"] == 0
    same = shift(result, "identity")
    assert same["n"] == RELEVANCE
    assert all(each["value"] == 0.0 and each["ci"] in ([0.0, 0.0], None) for each in same["change"].values())
    assert shift(result, "fog")["change"]["object"]["n"] == RELEVANCE


def test_intervals_rest_on_the_draws_of_the_drop():
    from xaitools.metrics import image_weights
    from xaitools.metrics.statistics import pooled_mean

    result = probe(corner(5.0), Tagged(32), ["fog"], relevance_method=CROSS, relevance=24)
    rows = [row for row in from_table(result.records) if row.condition == SHIFT + "fog"]
    differences = {row.item: row.statistics["after"][1] - row.statistics["before"][1] for row in rows}
    known = {item: each for item, each in differences.items() if not np.isnan(each)}
    mean = pooled_mean([[each] for each in known.values()], image_weights(list(known), seed=0, replicates=2000))
    row = shift(result, "fog")
    assert row["n"] == row["change"]["object"]["n"] == len(known) == 24 - row["undefined"] and row["undefined"] > 0
    found = row["change"]["object"]
    assert found["value"] == pytest.approx(np.mean(list(known.values()))) and found["ci"][0] < found["value"] < found["ci"][1]
    assert found["ci"] == pytest.approx(mean["ci"])


@pytest.mark.parametrize(("name", "severity"), [("hflip", 1), ("rotate", 5)])
def test_the_named_place_and_the_object_move_with_the_pixels(name, severity):
    data, model = Tagged(2), corner()
    plan, context = make_plan(model, data, [name], severities=[severity])
    explainer = Explainer(Worker(plan, context), plan)
    clean = data[0]
    view = explainer.view(0, Condition(name, severity))
    pair = Pair(name, PROBES[name], CLEAN, Condition(name, severity))
    before, after = explainer._artefacts(clean, pair, clean, view.sample)
    assert before[26:, 26:].all() and before.sum() == 36 and view.target == "region:gt:disc:vs:"
    white = view.sample.image.min(0).values > 0.9
    assert float((after & white).sum() / (after | white).sum()) > 0.7
    green = view.sample.image[1] - view.sample.image[0] > 0.6
    assert float((view.place & green).sum() / (view.place | green).sum()) > 0.7


def test_what_a_probe_adds_or_takes_is_its_artefact():
    data = Shapes(2, company=True)
    plan, context = make_plan(corner(), data, ["cooccurrence.remove", "artifact.paste", "cast"])
    explainer = Explainer(Worker(plan, context), plan)
    clean = data[0]

    def place(name: str, before: Condition, after: Condition) -> Tensor | None:
        samples = [explainer.view(0, each).sample for each in (before, after)]
        return explainer._artefacts(clean, Pair(name, PROBES[name], before, after), *samples)[1]

    gone = place("cooccurrence.remove", Condition("scored_subject", 1), Condition("cooccurrence.remove", 1))
    assert bool(gone[clean.masks[1]].all()) and not bool((gone & clean.masks[0]).any()) and int(gone.sum()) < 64
    pasted = place("artifact.paste", CLEAN, Condition("artifact.paste", 1))
    assert 0 < int(pasted.sum()) < SIDE**2 / 4 and not bool((pasted & clean.masks[0]).any())
    assert place("cast", CLEAN, Condition("cast", 3)) is None


def test_where_no_object_is_left_its_place_still_counts():
    data = Shapes(2)
    plan, context = make_plan(corner(), data, ["no_fg"])
    explainer = Explainer(Worker(plan, context), plan)
    assert torch.equal(explainer.view(0, Condition("no_fg", 1)).place, data[0].masks[0])


def test_a_black_box_says_so_and_a_method_that_is_named_is_refused():
    report = probe(Boxes(), Shapes(6), ["texture"]).report
    assert report["relevance"]["method"] is None and "black box" in report["relevance"]["notes"][0]
    assert not any("relevance" in row for row in (*report["probes"].values(), *report["controls"].values()))
    with pytest.raises(MethodError, match="relevance by saliency: boxes is a black box"):
        probe(Boxes(), Shapes(6), ["texture"], relevance_method="saliency")
    with pytest.raises(XaiError, match="did you mean"):
        probe(corner(), Shapes(6), ["texture"], relevance_method="salience")
    with pytest.raises(XaiError, match="expected the number of images"):
        probe(corner(), Shapes(6), ["texture"], relevance=-1)


def test_where_lrp_is_refused_the_next_method_is_taken_and_said(monkeypatch):
    explained = Explainer.explained

    def refusing(self, view):
        if self.method == "lrp":
            raise MethodError("no rule for sort")
        return explained(self, view)

    monkeypatch.setattr(Explainer, "explained", refusing)
    found = probe(corner(), Tagged(3), ["fog"]).report["relevance"]
    assert found["method"] == CROSS and found["notes"] == [f"{CROSS}, because lrp was refused: no rule for sort"]


def test_none_is_asked_for_and_none_is_made(monkeypatch):
    monkeypatch.setattr(Explainer, "explained", None)
    result = probe(corner(), Shapes(6), ["fog"], relevance=0)
    assert "not measured" in result.report["relevance"]["notes"][0]
    assert not any(row.condition.startswith(SHIFT) for row in from_table(result.records))
    assert next(each for each in command.params if each.name == "relevance").default == RELEVANCE


def test_images_that_are_done_are_not_explained_again(tmp_path, monkeypatch):
    first = probe(corner(), Tagged(6), ["fog"], out=tmp_path / "run")
    left = sorted((tmp_path / "run" / "records").glob(f"*{SHIFT}*.parquet"))
    assert len(left) == 6 and max(path.stat().st_size for path in left) < 6 * 2**10
    left[2].unlink()
    asked: list[Sequence[Pair]] = []
    rows = Explainer.rows
    monkeypatch.setattr(Explainer, "rows", lambda self, index, pairs: asked.append(index) or rows(self, index, pairs))
    assert probe(corner(), Tagged(6), ["fog"], out=tmp_path / "run", resume=True).report == first.report
    assert asked == [2]


class Chosen:
    """Some items of a dataset."""

    def __init__(self, data: Dataset, indices: Sequence[int]) -> None:
        self.data, self.indices, self.ids = data, indices, [data.ids[index] for index in indices]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.data[self.indices[index]]


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["unet-scenes", "faster-rcnn-scenes"])
def test_relevance_lies_on_the_tag_and_leaves_it_for_the_cheating_twin_alone(name):
    """On scenes with the tag: the twin's lies on it beyond chance and leaves with it, the honest model's never does."""
    scenes = xt.load_dataset("scenes:test?n=60&shortcut=tag&rho=1&others=0&prevalence=1")
    data = Chosen(scenes, [index for index in range(len(scenes)) if scenes.describe(index).tag])
    over, change = {}, {}
    for model in (name, f"{name}-tag"):
        row = probe(xt.load_model(model), data, ["artifact.remove"]).report["probes"]["artifact.remove"]["relevance"]
        assert row["n"] == len(data) == 12
        over[model], change[model] = row["before"]["artefact"] - row["chance"]["before"]["artefact"], row["change"]["artefact"]["ci"]
    assert over[f"{name}-tag"] > 0.005 and change[f"{name}-tag"][1] < 0
    assert over[name] < 0 and change[name][0] > -0.02
