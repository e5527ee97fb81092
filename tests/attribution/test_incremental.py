"""Occlusion in parts against whole passes, window by window, in float64: what is not computed again must not have changed."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.nets import CLASSES, picture, segmenter
from xaitools import explain, explain_many, load_dataset, load_model, zoo
from xaitools.adapters import ClassificationModel, SegmentationModel, as_found
from xaitools.attribution.incremental import Incremental, batches, choice
from xaitools.attribution.incremental.branches import split
from xaitools.attribution.incremental.graph import record
from xaitools.attribution.incremental.plan import make_plan
from xaitools.attribution.incremental.run import empty
from xaitools.attribution.sweep import windows
from xaitools.errors import MethodError
from xaitools.targets import bind, expand

HEIGHT, WIDTH = 37, 46


class Made(nn.Module):
    """A network given as a function of (modules, x)."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def conv(before, after, kernel=3, **options):
    return nn.Conv2d(before, after, kernel, **{"padding": kernel // 2, **options})


def resized(mode, corners=None, size=(53, 41)):
    return nn.Sequential(conv(3, 4, stride=2), nn.Upsample(size, mode=mode, align_corners=corners), conv(4, 2))


def unpooled(m, x):
    x, places = F.max_pool2d(torch.relu(m.a(x)), 2, 2, return_indices=True)
    y, deeper = F.max_pool2d(m.b(x), 3, 2, 1, return_indices=True)
    y = F.max_unpool2d(m.c(y), deeper, 3, 2, 1, output_size=x.shape[-2:])
    return m.d(F.max_unpool2d(y, places, 2, 2, output_size=(HEIGHT, WIDTH)))


NETS = {
    "strides, groups, dilation": lambda: nn.Sequential(
        conv(3, 6, 5, stride=2), nn.BatchNorm2d(6), nn.ReLU(True), conv(6, 6, dilation=2, groups=3, padding=1), nn.Conv2d(6, 2, (1, 3))),
    "far dilation": lambda: nn.Sequential(
        conv(3, 4, stride=2), nn.Conv2d(4, 5, 3, padding=12, dilation=12), nn.BatchNorm2d(5), nn.Conv2d(5, 4, 3, padding=36, dilation=36),
        nn.Conv2d(4, 2, 3, stride=2, padding=9, dilation=(8, 13))),
    "transposed": lambda: nn.Sequential(
        conv(3, 4, stride=2), nn.ConvTranspose2d(4, 4, 3, 2, 1, 1), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 2, 3, 3, 0, dilation=2)),
    "pools": lambda: nn.Sequential(conv(3, 4), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(3, 2, 1), conv(4, 2)),
    "a pool that is not ours": lambda: nn.Sequential(
        conv(3, 4), nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), conv(4, 2)),
    "adaptive pool": lambda: nn.Sequential(conv(3, 4), nn.AdaptiveAvgPool2d((5, 7)), conv(4, 2)),
    "bilinear": lambda: resized("bilinear", False), "bilinear, corners": lambda: resized("bilinear", True),
    "nearest": lambda: resized("nearest"), "bicubic": lambda: resized("bicubic", False),
    "antialiased": lambda: Made(lambda m, x: m.a(F.interpolate(x, (24, 30), mode="bilinear", antialias=True)), a=conv(3, 2)),
    "residual and concatenation": lambda: Made(
        lambda m, x: m.c(torch.cat([m.a(x) + F.pad(m.b(x), (1, 1, 1, 1)), x], 1)), a=conv(3, 4), b=nn.Conv2d(3, 4, 3), c=conv(7, 2)),
    "squeeze and excitation": lambda: Made(
        lambda m, x: m.c((y := torch.relu(m.a(x))) * m.b(y.mean((2, 3), keepdim=True)).sigmoid()),
        a=conv(3, 4), b=conv(4, 4, 1), c=conv(4, 2)),
    "softmax over channels": lambda: Made(lambda m, x: m.b(m.a(x).softmax(1)), a=conv(3, 4), b=conv(4, 2)),
    "group norm": lambda: nn.Sequential(conv(3, 4), nn.GroupNorm(2, 4), conv(4, 2)),
    "reflected edges": lambda: nn.Sequential(nn.ReflectionPad2d(2), nn.Conv2d(3, 2, 5)),
    "pixel shuffle": lambda: nn.Sequential(conv(3, 8), nn.PixelShuffle(2), conv(2, 2)),
    "channel shuffle": lambda: Made(
        lambda m, x: m.b(m.a(x).view(1, 2, 2, HEIGHT, WIDTH).transpose(1, 2).reshape(1, 4, HEIGHT, WIDTH)), a=conv(3, 4), b=conv(4, 2)),
    "split": lambda: Made(lambda m, x: m.b(torch.cat([*m.a(x).chunk(2, 1)][::-1], 1)), a=conv(3, 4), b=conv(4, 2)),
    "a crop": lambda: Made(lambda m, x: m.b(m.a(x)[:, :, 5:30, 2:-3]), a=conv(3, 4), b=conv(4, 2)),
    "unpooling": lambda: Made(unpooled, a=conv(3, 4), b=conv(4, 4), c=conv(4, 4), d=conv(4, 2)),
    "a frame of zeros": lambda: Made(lambda m, x: m.a(framed(x)), a=conv(3, 2)),
    "linear head": lambda: nn.Sequential(
        conv(3, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 10 * 12, 2), nn.Unflatten(1, (2, 1, 1))),
}  # fmt: skip


def framed(x):
    frame = x.new_zeros((1, 3, 48, 64))
    frame[0, :, :HEIGHT, :WIDTH].copy_(x[0])
    return frame


@pytest.fixture
def made(request):
    torch.manual_seed(len(request.param))
    net = NETS[request.param]().double().eval().requires_grad_(False)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-1, 1)
            part.running_var.uniform_(0.5, 2)
    return net


def scores_of(net, region):
    """Two numbers: a mean over a region, and one over everything, with a bend in between."""

    def scores(images):
        out = net(images)
        part = out[..., region[0] : region[2], region[1] : region[3]] if region else out
        mask = torch.zeros(out.shape[-2:], dtype=torch.bool)
        mask[slice(*region[::2]) if region else slice(None), slice(*region[1::2]) if region else slice(None)] = True
        return torch.stack([out[:, 0][:, mask].tanh().mean(1), part[:, 1].square().mean((1, 2))])

    return scores


def compared(scores, image, places, filling, size=5):
    """Largest difference between parts and whole passes, and the largest effect."""
    graph = record(lambda x: scores(x)[:, 0], image)
    plan = make_plan(graph, places)
    engine = Incremental(graph, plan)
    mine = engine.clean[:, None].repeat(1, len(places))
    for chosen in batches(plan, size):
        mine[:, chosen] = engine.scores(chosen, lambda index: filling)
    dense = []
    for top, left, bottom, right in places:
        hidden = image.clone()
        hidden[..., top:bottom, left:right] = filling[..., top:bottom, left:right]
        dense.append(scores(hidden)[:, 0])
    whole = torch.stack(dense, 1)
    return float((mine - whole).abs().max()), float((whole - engine.clean[:, None]).abs().max()), plan, whole - engine.clean[:, None]


@pytest.mark.parametrize("made", NETS, indirect=True)
@pytest.mark.parametrize(("window", "stride"), [(1, 9), (7, 5), (4, 11), (40, 3)])
def test_parts_are_whole_passes(made, window, stride):
    image = torch.rand(1, 3, HEIGHT, WIDTH, dtype=torch.float64)
    filling = torch.rand_like(image)
    out = made(image)
    regions = [None] if out.shape[-1] < 4 else [None, (1, 2, min(6, out.shape[-2]), min(9, out.shape[-1]))]
    for region in regions:
        far, effect, _, _ = compared(scores_of(made, region), image, windows(HEIGHT, WIDTH, window, stride), filling)
        assert far < 1e-12 and effect > 1e-6


def joined(norm):
    def forward(m, x):
        y = m.c(torch.cat([m.a(x), F.interpolate(m.b(F.max_pool2d(x, 4)), x.shape[-2:])], 1))
        return m.d(torch.relu(m.norm(y) if norm else y))

    return Made(forward, a=conv(3, 6), b=conv(3, 4, 5), c=conv(10, 5), d=conv(5, 2), norm=nn.BatchNorm2d(5))


@pytest.mark.parametrize("norm", [False, True])
def test_a_convolution_of_joined_maps_is_split_where_little_of_one_changes(norm):
    torch.manual_seed(4)
    net = joined(norm).double().eval().requires_grad_(False)
    net.norm.running_mean.uniform_(-1, 1), net.norm.running_var.uniform_(0.5, 2)
    image, places = torch.rand(1, 3, HEIGHT, WIDTH, dtype=torch.float64), windows(HEIGHT, WIDTH, 5, 4)
    filling, scores = torch.rand_like(image), scores_of(net, None)
    graph = record(lambda x: scores(x)[:, 0], image)
    plan = make_plan(graph, places)
    other = split(graph, plan)
    assert other is not None and torch.equal(other.nodes[0].value, image)
    better = make_plan(other, places)
    assert better.cost.sum() < 0.8 * plan.cost.sum()
    one, two = Incremental(graph, plan), Incremental(other, better)
    torch.testing.assert_close(one.clean, two.clean, rtol=1e-12, atol=1e-12)
    for chosen in batches(better, 7):
        torch.testing.assert_close(
            two.scores(chosen, lambda index: filling), one.scores(chosen, lambda index: filling), rtol=1e-12, atol=1e-12
        )
    image_wide = make_plan(graph, [(0, 0, HEIGHT, WIDTH)])
    assert split(graph, image_wide) is None  # all of both maps changes


@pytest.mark.parametrize("made", ["strides, groups, dilation", "transposed", "pools", "bilinear", "unpooling"], indirect=True)
def test_what_is_out_of_reach_changes_nothing(made):
    image = torch.rand(1, 3, HEIGHT, WIDTH, dtype=torch.float64)
    _, _, plan, changes = compared(scores_of(made, (4, 5, 7, 8)), image, windows(HEIGHT, WIDTH, 2, 2), torch.rand_like(image))
    assert bool((changes[:, ~plan.reaches] == 0).all()) and 0 < plan.reaches.mean() < 0.9


TRACED = [name for name in zoo.names() if "patch" not in name and "dpm" not in name]


@pytest.mark.parametrize("name", [name if "-scenes" in name else pytest.param(name, marks=pytest.mark.long) for name in TRACED])
def test_zoo_models_in_parts(name):
    """Every window of a coarse grid, two targets at once, in the float32 of the model; a scene will do for all of them."""
    model = load_model(name)
    crop = "&crop=64" if model.task == "classification" else ""
    sample = load_dataset(f"scenes:val?n=4{crop}")[1]
    image, prediction = sample.image[None], model.predict(sample.image[None])[0]
    targets = expand("all", prediction)[:2] or [f"box:{corner},20,{corner + 40},70:{model.classes[0]}" for corner in (8, 40)]
    decisions = [bind(target, prediction) for target in targets]
    places = windows(*image.shape[-2:], 17, 20)
    with as_found(model), torch.no_grad():
        far, effect, plan, _ = compared(lambda x: model.score_table(x, decisions), image, places, torch.full_like(image, 0.5), 16)
    assert far < 1e-4 and far < 1e-3 * effect and plan.ratio > 1


def test_occlusion_takes_the_parts_and_says_so(monkeypatch):
    monkeypatch.setattr(choice, "SMALL", 0)
    monkeypatch.setattr(choice, "WORTH", 0)
    model, image = load_model("unet-scenes"), load_dataset("scenes:val?n=4")[1].image
    options = {"window": 12, "stride": 10}
    parts = explain(model, image, "pixel:3,3:heart", "occlusion", **options)
    whole = explain(model, image, "pixel:3,3:heart", "occlusion", incremental=False, **options)
    assert parts.params["computed"].startswith("in parts") and whole.params["computed"] == "whole passes"
    torch.testing.assert_close(parts.values, whole.values, atol=1e-5, rtol=1e-3)
    assert parts.score == pytest.approx(whole.score, abs=1e-5)


def test_parts_that_disagree_are_not_used(monkeypatch):
    monkeypatch.setattr(choice, "SMALL", 0)
    monkeypatch.setattr(choice, "WORTH", 0)
    real = Incremental.scores
    monkeypatch.setattr(Incremental, "scores", lambda self, chosen, filling: real(self, chosen, filling) + 0.01)
    model, image = segmenter(), picture()
    found = explain(model, image, "top", "occlusion", window=8, stride=8)
    assert "disagreed with them by 0.01" in found.params["computed"]
    assert torch.equal(found.values, explain(model, image, "top", "occlusion", window=8, stride=8, incremental=False).values)


def test_what_cannot_be_traced_is_swept_whole(monkeypatch):
    monkeypatch.setattr(choice, "SMALL", 0)
    model, image = segmenter(), picture()
    inner = model.module

    class Fickle(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x) * (2 if float(x.sum()) > 0 else 1)

    model.module = Fickle()
    found = explain(model, image, "top", "occlusion", window=8, stride=8)
    assert "cannot be traced" in found.params["computed"]


def test_a_layout_with_channels_last_is_right_and_leaves_the_kernels_as_they_were(monkeypatch):
    monkeypatch.setattr(choice, "SMALL", 0)
    monkeypatch.setattr(choice, "WORTH", 0)
    for name in ("unet-scenes", "deeplabv3plus-scenes"):
        model, image = load_model(name), load_dataset("scenes:val?n=4")[1].image
        before = [(each.data_ptr(), each.stride()) for each in model.module.parameters()]
        plain = explain(model, image, "top", "occlusion", window=24, stride=24, incremental=False)
        for incremental in (True, False):
            other = explain(model, image, "top", "occlusion", window=24, stride=24, channels_last=True, incremental=incremental)
            assert other.params["computed"].startswith("in parts" if incremental else "whole")
            torch.testing.assert_close(other.values, plain.values, atol=1e-4, rtol=1e-3)
        assert [(each.data_ptr(), each.stride()) for each in model.module.parameters()] == before


def test_boxes_lie_in_memory_as_their_map_does():
    image, net = torch.rand(1, 3, HEIGHT, WIDTH), conv(3, 8).to(memory_format=torch.channels_last).requires_grad_(False)
    graph = record(lambda x: net(x).square().mean((1, 2, 3)), image)
    assert graph.nodes[1].value.is_contiguous(memory_format=torch.channels_last)
    assert empty(graph.nodes[1].value, 4, (5, 6))[:, 0].is_contiguous(memory_format=torch.channels_last)
    assert empty(graph.nodes[1].value.contiguous(), 4, (5, 6)).is_contiguous()


def test_half_precision_is_near_and_says_how_near(monkeypatch):
    monkeypatch.setattr(choice, "SMALL", 0)
    monkeypatch.setattr(choice, "WORTH", 0)
    model, image = load_model("vgg-scenes"), load_dataset("scenes:val?n=4&crop=64")[1].image
    plain = explain(model, image, "top", "occlusion", window=16, stride=16)
    for incremental in (True, False):
        half = explain(model, image, "top", "occlusion", window=16, stride=16, bf16=True, incremental=incremental)
        assert half.params["computed"].startswith("in parts" if incremental else "whole")
        assert "half precision moves the scores by up to" in half.notes[0]
        assert not torch.equal(half.values, plain.values)
        assert float((half.values - plain.values).abs().max()) < 0.05 * float(plain.values.abs().max()) + 0.05


def test_coarse_to_fine_looks_at_few_windows_and_finds_what_counts():
    """The score is one pixel's value: one coarse window hides it, and the falls around are those of the full sweep."""
    model = Scored(lambda x: x[:, 0, 17, 29])
    image = torch.full((3, 64, 96), 0.9)
    full = occlude(model, image)
    coarse = occlude(model, image, coarse_to_fine=3)
    computed, every = map(int, str(coarse.params["windows"]).split(" of "))
    assert computed < every / 3 and every == 15 * 23
    torch.testing.assert_close(coarse.values, full.values)
    nothing = occlude(Scored(lambda x: x[:, 0, 0, 0] * 0), image, coarse_to_fine=3)
    assert float(nothing.values.abs().max()) == 0
    ramp = Scored(lambda x: (x[:, 0] * torch.linspace(0, 1, 96)).sum((1, 2)))  # linear in place: interpolation is exact
    torch.testing.assert_close(occlude(ramp, image, coarse_to_fine=4).values, occlude(ramp, image).values, atol=1e-4, rtol=1e-4)
    for wrong in (1, -2):
        with pytest.raises(MethodError, match="coarse_to_fine"):
            occlude(model, image, coarse_to_fine=wrong)


class Scored(ClassificationModel):
    """A classifier whose one logit is a function of the image."""

    def __init__(self, function):
        super().__init__(Made(lambda m, x: torch.stack([function(x), 0 * function(x)], 1)), ("spot", "rest"))


def occlude(model, image, **options):
    return explain(model, image, "class:spot", "occlusion", window=8, stride=4, fill="0", **options)


def test_targets_far_apart_are_swept_one_by_one(monkeypatch):
    monkeypatch.setattr(choice, "SMALL", 0)
    torch.manual_seed(3)
    net = nn.Sequential(conv(3, 16, 5), nn.ReLU(), conv(16, 16, 5), nn.ReLU(), conv(16, 3))
    model, image, options = SegmentationModel(net, CLASSES), torch.rand(3, 96, 240), {"window": 8, "stride": 16, "fill": "noise"}
    targets = ["pixel:5,5:disc", "pixel:235,91:disc"]
    found = explain_many(model, image, targets, "occlusion", **options)
    whole = explain_many(model, image, targets, "occlusion", incremental=False, **options)
    for mine, other in zip(found, whole, strict=True):
        assert "96% of the windows cannot reach" in mine.params["computed"]
        torch.testing.assert_close(mine.values, other.values, atol=1e-5, rtol=1e-3)
    near = explain_many(model, image, ["pixel:5,5:disc", "pixel:6,5:disc"], "occlusion", **options)
    assert near[0].params["computed"] == near[1].params["computed"]


def test_a_small_model_is_not_traced():
    assert "small" in explain(segmenter(), picture(), "top", "occlusion", window=8, stride=8).params["computed"]
