"""Every family of networks from elsewhere, occluded in parts and by whole passes: float64, odd sizes, windows at and beyond the borders."""

import pytest
import torch
from torch import nn

import xaitools as xt
from tests.families import FAMILIES
from tests.nets import picture, settled
from xaitools.adapters import as_found
from xaitools.attribution.incremental import Incremental, batches, choice, in_parts
from xaitools.attribution.incremental.graph import record
from xaitools.attribution.incremental.plan import make_plan
from xaitools.attribution.occlusion import reading
from xaitools.attribution.sweep import windows
from xaitools.targets import bind

HEIGHT, WIDTH = 71, 93
QUICK = (":resnet18?", ":mobilenet_v3_small", "lraspp")
"""One classifier of residual blocks and one with gates; a bilinear head."""


def marked(quick=QUICK):
    """All families, those that are not ``quick`` for the long tests."""
    return [
        pytest.param(text, marks=[] if any(name in text for name in quick) else pytest.mark.long, id=text.partition("?")[0])
        for text in FAMILIES
    ]


def sane(model, height, width):
    """Weights and statistics drawn, then those of two pictures, as after training, so that nothing dies out or explodes on the way."""
    settled(model.module)
    norms = [part for part in model.module.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    images = torch.stack([picture(height, width, seed) for seed in (5, 6)])
    with torch.no_grad():  # not ``predict``, which puts them back in eval mode
        model.score_pairs(model.normalise(images), [(0, given(model, height, width))])
    model.module.eval()
    return model


def given(model, height, width):
    """Some decision that needs no prediction."""
    box = torch.tensor([1.0, 2, width - 3, height - 4], dtype=torch.float64)
    return xt.types.Decision("class:cat", 0, region=torch.ones(height, width, dtype=torch.bool), box=box, proposal=box, anchor=0)


def loaded(text, height=HEIGHT, width=WIDTH):
    return sane(xt.load_model(text, dtype="float64", score_threshold=0.0), height, width)


def places(height, width):
    """Slivers of one pixel, corners that windows are clipped to, one window larger than the image, strides larger and smaller than it."""
    slivers = [(0, 0, 1, width), (0, width - 1, height, width), (height - 1, width - 1, height, width), (35, 7, 36, 8)]
    clipped = [(0, 0, 5, 9), (height - 5, width - 3, height, width), (0, width - 4, 11, width)]
    return [*slivers, *clipped, *windows(height, width, 200, 3), *windows(height, width, 17, 47), *windows(height, width, 12, 7)[::17]]


def decisions(model, image):
    prediction = model.predict(image)[0]
    height, width = prediction.image_size
    match model.task:
        case "classification":
            targets = ["class:cat", "class:dog:vs:owl", "class:owl:vs:"]
        case "segmentation":
            # the predicted region, all of the image, and pixels in its corners and inside
            targets = ["top", "class:cat:vs:owl", "pixel:0,0:cat", f"pixel:{width - 1},{height - 1}:dog:vs:", "pixel:40,33:owl"]
        case _:
            missed = ["box:3,5,22.5,31:dog", f"box:{width - 30},{height - 40},{width},{height}:owl:vs:"]
            rival = next(name for name in model.classes if name != prediction.classes[prediction.labels[1]])
            edges = [f"box:0:{edge}" for edge in ("left", "top", "right", "bottom")]
            targets = ["box:0", "box:0:vs:", f"box:1:vs:{rival}", *edges, *missed]
    if model.task == "instances":
        targets.append("mask:0")
    bound = [bind(target, prediction) for target in targets]
    return [*bound, reading(bound[0], "probability")]


def both(model, image, filling, chosen):
    """Falls (K, N) of all targets, in parts and by whole passes, and the plan."""
    wanted = decisions(model, image)

    def scores(images):
        with torch.no_grad():
            return model.score_table(images, wanted)

    with as_found(model):
        graph = record(lambda x: scores(x)[:, 0], image)
        engine = Incremental(graph, make_plan(graph, chosen))
        mine = torch.zeros(len(wanted), len(chosen), dtype=image.dtype)
        for numbers in batches(engine.plan, 5):
            mine[:, numbers] = engine.clean[:, None] - engine.scores(numbers, lambda index: filling)
        clean, whole = scores(image), []
        for top, left, bottom, right in chosen:
            hidden = image.clone()
            hidden[..., top:bottom, left:right] = filling[..., top:bottom, left:right]
            whole.append(clean - scores(hidden))
    return mine, torch.cat(whole, 1), engine.plan


def agree(mine, whole, far=1e-9):
    """To a billionth of each target's largest fall; a probability that hardly moves is rounded like one that does."""
    largest = whole.abs().amax(1)
    assert float(largest.min()) > 1e-12
    assert float(((mine - whole).abs().amax(1) / largest.clamp(min=1e-6)).max()) < far


@pytest.mark.parametrize("text", marked())
def test_parts_are_whole_passes(text):
    step = 4 if "ssd300" in text else 1  # its network looks at 300 x 300 pixels, whatever it is given
    model, image = loaded(text), picture(HEIGHT, WIDTH)[None].double()
    mine, whole, _ = both(model, image, picture(HEIGHT, WIDTH, 9)[None].double(), places(HEIGHT, WIDTH)[::step])
    agree(mine, whole)


@pytest.mark.parametrize("text", marked((":resnet18?",)))
def test_the_map_says_that_it_was_made_in_parts_and_is_the_same(text, monkeypatch):
    """As users have it, in float32: no family of them falls back to whole passes, or it would say so here."""
    monkeypatch.setattr(choice, "SMALL", 0)
    monkeypatch.setattr(choice, "WORTH", 0)
    model, image = sane(xt.load_model(text, score_threshold=0.0), HEIGHT, WIDTH), picture(HEIGHT, WIDTH)
    targets = {"classification": ["class:cat", "class:dog:vs:"], "segmentation": ["top", "pixel:3,60:owl"]}
    options = {"window": 31, "stride": 36, "batch_size": 4, "prediction": model.predict(image[None])[0]}
    asked = targets.get(model.task, ["box:0", "box:1:left", "box:5,5,40.5,52:dog"])
    parts, whole = (xt.explain_many(model, image, asked, "occlusion", incremental=way, **options) for way in (True, False))
    for mine, other in zip(parts, whole, strict=True):
        assert mine.params["computed"].startswith("in parts, ") and other.params["computed"] == "whole passes"
        far = float((mine.values - other.values).abs().max())
        largest = float(other.values.abs().max())  # where it is 20, float32 itself is off by 1e-2 from float64, both ways alike
        assert far < 1e-4 * max(1.0, largest) and far < 1e-3 * largest and mine.score == pytest.approx(other.score, rel=1e-5, abs=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("name", ["Unet", "Linknet"])
def test_what_a_family_cannot_see_has_no_effect(name, monkeypatch):
    """Nothing of a picture this wide reaches from one end to the other; the whole passes say so too."""
    monkeypatch.setattr(choice, "SMALL", 0)
    monkeypatch.setattr(choice, "WORTH", 0)
    height, width = 33, 901
    model = loaded(f"smp:{name}?encoder=resnet18&weights=none&classes=cat,dog,owl", height, width)
    image, filling = (picture(height, width, seed)[None].double() for seed in (0, 9))
    prediction = model.predict(image)[0]
    wanted = [bind(target, prediction) for target in ("pixel:0,0:cat", "pixel:30,20:dog:vs:")]
    chosen = windows(height, width, 21, 53)

    def scores(images):
        with torch.no_grad():
            return model.score_table(images, wanted)

    with as_found(model):
        made = in_parts(scores, image, lambda index: filling, chosen, 4)
        engine = made.engine
        assert engine is not None, made.words
        clean = scores(image)
        for index, (top, left, bottom, right) in enumerate(chosen):
            hidden = image.clone()
            hidden[..., top:bottom, left:right] = filling[..., top:bottom, left:right]
            fall = clean - scores(hidden)
            if engine.plan.reaches[index]:
                mine = engine.clean[:, None] - engine.scores(torch.tensor([index]).numpy(), lambda number: filling)
                assert float((mine - fall).abs().max()) < 1e-9 * max(1e-3, float(fall.abs().max()))
            else:
                assert float(fall.abs().max()) < 1e-12
    assert 0.2 < engine.plan.reaches.mean() < 0.9
