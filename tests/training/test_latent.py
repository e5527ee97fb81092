"""Latent SVM: each step against a plain version or by hand, and a tiny part model from a recipe."""

import pytest
import torch
from torchvision.ops import box_iou

from tests.nets import picture, settled
from xaitools import evaluate, load_dataset, load_model, zoo
from xaitools.architectures import ARCHITECTURES
from xaitools.architectures.dpm import Places
from xaitools.errors import ModelError
from xaitools.training import run_recipe
from xaitools.training.detection import pairs_of
from xaitools.training.latent import (
    OTHER,
    SAME,
    Teacher,
    _scene,
    clusters,
    described,
    extent,
    hits,
    logistic,
    rewrite,
    strongest,
    svm,
    vector,
    warped,
)  # fmt: skip

RECIPE = """
name = "tiny"
architecture = "dpm"
task = "detection"
network = { components = 3, side = 6, parts = 2, part = 3, reach = 2, octave = 2, finest = 1.0 }
[data]
train = "scenes:train?n=40&size=64"
val = "scenes:val?n=4&size=64"
test = "scenes:train?n=8&size=64"
licence = "none"
redistribution = "free"
[input]
background = "none"
[training]
weight = 1.0
root_rounds = 1
rounds = 1
passes = 2
mined = 24
"""
SETTINGS = {"weight": 0.1, "root_rounds": 1, "rounds": 1, "passes": 1, "mined": 20}
OPTIONS = {"components": 2, "side": 6, "parts": 2, "part": 3, "reach": 2, "octave": 2, "finest": 1.0}


@pytest.fixture(autouse=True)
def plain():
    """One thread, since nets this small only wait for a second, and no gradients, as in training."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


def net():
    """Random filters; two roots of different shapes."""
    network = settled(ARCHITECTURES["dpm"](1, **OPTIONS))
    network.deformation[..., 2:].abs_().add_(0.02)
    network.extent = torch.tensor([[4, 6], [5, 3]])
    network.anchor = torch.tensor([[[0, 1], [4, 2]], [[0, 1], [4, 2]]])
    for component, (rows, columns) in enumerate(network.extent.tolist()):
        network.root[component, :, rows:] = network.root[component, :, :, columns:] = 0
    return network


# ---- a score as a product


def test_a_score_is_the_product_of_two_vectors():
    network = net()
    level = network.pyramid(picture(40, 48))[0]
    answers = network.answers(level)
    scores = network.scores(level, answers)
    places = Places(*(each[::7] for each in torch.where(scores > -torch.inf)))
    displacements = network.displacements(places, answers)
    assert int(displacements.abs().sum()) > 0
    vectors = described(network, level, places, displacements)
    for component, (rows, columns) in enumerate(network.extent.tolist()):
        mine = places.component == component
        roots = vectors[mine, 1 : 1 + network.root[0].numel()].view(-1, *network.root.shape[1:])
        assert float(roots[:, :, rows:].abs().sum() + roots[:, :, :, columns:].abs().sum()) == 0  # nothing to learn there
        product = vectors[mine] @ vector(network, component)
        torch.testing.assert_close(product, scores[places][mine], atol=1e-4, rtol=1e-4)


def test_a_vector_is_written_back_where_it_was_read():
    network, other = net(), net()
    rewrite(other, 1, 2 * vector(network, 1))
    assert torch.equal(other.root[1], 2 * network.root[1]) and torch.equal(other.deformation[1], 2 * network.deformation[1])
    assert torch.equal(other.root[0], network.root[0])
    rewrite(other, 1, -vector(network, 1))
    assert float(other.deformation[1, :, 2:].max()) == pytest.approx(0.01)


# ---- the steps


def test_the_svm_is_at_the_minimum_of_its_loss():
    generator = torch.Generator().manual_seed(0)
    positives, negatives = torch.randn(12, 6, generator=generator), torch.randn(30, 6, generator=generator)
    positives[:, 0] = negatives[:, 0] = 1
    positives[:, 1] += 1
    weights = torch.cat([torch.full((12,), 0.6), torch.full((30,), 0.3)])
    prior, spread = torch.tensor([0, 0, 0, 0, 0, 0.5]), torch.tensor([10, 1, 1, 1, 1, 0.1])
    solution = svm(positives, negatives, weights, prior, spread).double()
    with torch.enable_grad():
        point = solution.clone().requires_grad_()
        hinges = torch.cat([1 - positives.double() @ point, 1 + negatives.double() @ point]).clamp(min=0)
        loss = ((point - prior) / spread).square().sum() / 2 + (weights * hinges.square()).sum()
        (gradient,) = torch.autograd.grad(loss, point)
    assert float(gradient.abs().max()) < 0.02 and float(solution[1]) > 0.2 and 0 < int((hinges == 0).sum()) < 42


def test_the_svm_leaves_what_it_was_given():
    positives, negatives = torch.ones(2, 3), torch.zeros(2, 3)
    svm(positives, negatives, torch.ones(4), torch.zeros(3), torch.full((3,), 2.0))
    assert float(positives.sum()) == 6 and float(negatives.sum()) == 0


def test_clusters_are_the_heaps_of_points():
    generator = torch.Generator().manual_seed(3)
    heaps = torch.tensor([[0.0, 0], [9, 0], [0, 9]]).repeat_interleave(20, 0)
    found = clusters(heaps + torch.rand(60, 2, generator=generator), 3, generator)
    assert len({tuple(each) for each in found.view(3, 20).tolist()}) == 3
    assert all(len(set(each)) == 1 for each in found.view(3, 20).tolist())


def test_a_root_has_the_aspect_of_its_objects():
    boxes = torch.tensor([[0, 0, 40, 10], [5, 5, 45, 15], [0, 0, 8, 8.0]])
    assert extent(boxes, 36, 20).tolist() == [3, 12] and extent(boxes, 36, 8).tolist() == [3, 8]


def test_what_is_warped_fills_the_root():
    """A bar at the left edge of the box gives an upright edge in the first column, whatever the box's size."""
    for width in (16, 40):
        image = torch.full((3, 80, 80), 60, dtype=torch.uint8)
        image[:, :, 30 : 30 + width] = 200
        found = warped(image, torch.tensor([30.0, 20, 30 + width, 60]), 5, 4, 4)
        assert found.shape == (13, 5, 4)
        assert float(found[0, :, [0, 3]].min()) > 0.2 > 0.01 > float(found[0, :, 1:3].max()) or width == 16


def test_parts_lie_where_the_root_is_strong_and_apart():
    root = torch.zeros(13, 6, 6)
    root[0, 0, 0], root[3, 5, 4], root[2, 3, 0] = 1.0, 2.0, -9.0
    parts, anchors = strongest(root, 2, 3)
    assert parts.shape == (2, 13, 3, 3)
    (y, x), (v, u) = anchors.tolist()
    assert y >= 8 and 6 <= x <= 9 and (v, u) == (0, 0)
    assert float(parts[0, 3].max()) > 1 and float(parts[1, 0].max()) > 0.5


def test_a_hit_is_the_best_box_on_a_truth():
    truths = torch.tensor([[0, 0, 10, 10], [20, 20, 30, 30.0]])
    boxes = torch.tensor([[0, 0, 10, 11], [0, 0, 10, 10], [22, 20, 32, 30], [50, 50, 60, 60.0]])
    assert hits(boxes, truths).tolist() == [True, False, True, False]
    assert hits(boxes, truths[:0]).tolist() == [False] * 4


def test_the_logistic_function_tells_the_share_of_right_answers():
    margins = torch.tensor([-1.0] * 100 + [1.0] * 100)
    right = torch.arange(200) % 100 < torch.tensor([10] * 100 + [70] * 100)
    slope, shift = logistic(margins, right).tolist()
    assert torch.sigmoid(torch.tensor(-slope + shift)) == pytest.approx(0.1, abs=0.02)
    assert torch.sigmoid(torch.tensor(slope + shift)) == pytest.approx(0.7, abs=0.02)
    assert float(logistic(margins, ~right)[0]) >= 0  # a higher margin never means less
    assert logistic(margins[:0], right[:0]).tolist() == [1, 0]


# ---- the procedure


@pytest.fixture(scope="module")
def scenes():
    with torch.no_grad():
        return [_scene(net(), image, target) for image, target in pairs_of(load_dataset("scenes:train?n=12&size=64"))]


def test_objects_are_placed_where_they_are_and_negatives_elsewhere(scenes):
    network = net()
    teacher = Teacher(network, 0, [scene._replace(labels=scene.labels - 2) for scene in scenes], SETTINGS)
    teacher.network = network
    teacher.negatives = teacher.none()
    placed, boxes = teacher.placed(), torch.cat(teacher.own)
    overlaps = box_iou(boxes, placed.roots).diagonal()
    owners = [scene for scene, own in zip(scenes, teacher.own, strict=True) for _ in own]
    assert len(boxes) == len(placed.component) > 3 and 0 < int((overlaps >= SAME).sum()) < len(boxes)
    for index, (scene, box) in enumerate(zip(owners, boxes, strict=True)):
        hypotheses, _ = teacher.hypotheses(scene)
        possible = box_iou(box[None], hypotheses.roots)[0]
        score = float(placed.vectors[index] @ vector(network, int(placed.component[index])))
        if float(possible.max()) >= SAME:
            assert score == pytest.approx(float(hypotheses.scores[possible >= SAME].max()), abs=1e-4) and float(overlaps[index]) >= SAME
        else:
            assert float(overlaps[index]) == float(possible.max())

    seen = []
    take = teacher.take
    teacher.take = lambda scene, hypotheses, answers, chosen: (
        seen.append((scene, hypotheses, chosen)) or take(scene, hypotheses, answers, chosen)
    )
    network.bias += 2  # hard negatives everywhere
    teacher.mine()
    assert len(seen) == 12
    for scene, hypotheses, chosen in seen:
        own = scene.boxes[scene.labels == 0]
        assert 0 < len(chosen) <= 20 and float(hypotheses.scores[chosen].min()) > -1
        if len(own):
            assert float(box_iou(own, hypotheses.roots[chosen]).max()) < OTHER
    assert sum(map(len, teacher.negatives)) == sum(len(chosen) for *_, chosen in seen)
    network.bias -= 1000  # none of them is hard any more, nor is anything else
    teacher.mine()
    assert sum(map(len, teacher.negatives)) == 0


@pytest.fixture
def run(tmp_path):
    def call(name: str = "tiny", text: str = RECIPE, **options):
        (tmp_path / "recipe.toml").write_text(text)
        said: list[str] = []
        with torch.enable_grad():
            return run_recipe(tmp_path / "recipe.toml", tmp_path / "models" / name, say=options.pop("say", said.append), **options), said

    return call


def test_a_recipe_teaches_it_to_find_objects_and_the_file_gives_the_score_of_its_card(run, tmp_path, monkeypatch):
    card, said = run()
    assert sum("objects of each component" in line for line in said) == 10 and "40 training images" in said
    assert card["scores"]["test"]["metric"] == "mAP50" and card["scores"]["test"]["value"] > 0.2  # random filters: 0
    monkeypatch.setattr(zoo.shipped, "part", lambda name: tmp_path / name)
    model = load_model("tiny")
    found = evaluate(model, load_dataset(card["data"]["test"]), replicates=0)
    assert found["value"] == pytest.approx(card["scores"]["test"]["value"], abs=1e-4) and model.black_box
    assert bool((model.module.anchor < 2 * model.module.extent[:, None]).all()) and float(model.module.frame.abs().sum()) > 0


def test_the_same_recipe_gives_the_same_bytes_also_when_it_is_cut_short(run, tmp_path):
    class Cut(Exception): ...

    def stop(line: str) -> None:
        if line.startswith("class 3/"):
            raise Cut

    text = (
        RECIPE.replace("n=40", "n=24")
        .replace("mined = 24", "mined = 6")
        .replace("passes = 2", "passes = 1")
        .replace("components = 3", "components = 1")
    )
    run("whole", text)
    with pytest.raises(Cut):
        run("parts", text, say=stop)
    _, said = run("parts", text, resume=True)
    assert "goes on after class 2/5" in said and not any(line.startswith("class 2/") for line in said)
    one, other = ((tmp_path / "models" / each / "weights.safetensors").read_bytes() for each in ("whole", "parts"))
    same = one == other  # compared by pytest, long bytes would be shown as a difference for minutes
    assert same


def test_too_few_objects_are_one_line(run):
    with pytest.raises(ModelError, match=r"scenes:train.* objects of class '\w+' to learn from; expected 6, give more images"):
        run(text=RECIPE.replace("n=40", "n=3"))
