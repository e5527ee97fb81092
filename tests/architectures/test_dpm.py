"""DPM: features, scores and boxes against slow loops and by hand, and what can be asked of a black box."""

import math

import pytest
import torch

import xaitools as xt
from tests.nets import picture, settled
from xaitools import zoo
from xaitools.architectures import ARCHITECTURES
from xaitools.architectures.dpm import DPM, NOISE, TRUNCATION, Places, best_nearby, hog
from xaitools.errors import MethodError

CLASSES = ["disc", "square", "star"]
TINY = {"components": 2, "side": 5, "parts": 2, "part": 3, "reach": 2, "octave": 2}


def net() -> DPM:
    """Random filters; roots of different shapes; parts that prefer not to stay, but have to pay."""
    network = settled(ARCHITECTURES["dpm"](len(CLASSES), **TINY))
    generator = torch.Generator().manual_seed(1)
    network.deformation[..., 2:].abs_().add_(0.01)
    network.frame *= 0.2
    network.platt[:] = torch.tensor([3.0, -1.0])
    network.extent = torch.randint(3, 6, network.extent.shape, generator=generator)
    network.anchor = torch.randint(0, 5, network.anchor.shape, generator=generator)
    for component, (rows, columns) in enumerate(network.extent.tolist()):
        network.root[component, :, rows:] = network.root[component, :, :, columns:] = 0
    return network


@pytest.fixture(scope="module")
def network():
    with torch.no_grad():
        yield net().requires_grad_(False)


def test_features_are_those_of_a_plain_loop():
    image, cell = picture(13, 18).double(), 4
    rows, columns = 13 // cell, 18 // cell
    plain = torch.zeros(9, rows, columns).double()
    for y in range(13):
        for x in range(18):
            down = image[:, min(y + 1, 12), x] - image[:, max(y - 1, 0), x]
            right = image[:, y, min(x + 1, 17)] - image[:, y, max(x - 1, 0)]
            c = int((down**2 + right**2).argmax())
            angle = math.degrees(math.atan2(down[c], right[c])) % 180
            for i in range(rows):
                for j in range(columns):
                    near = max(0, 1 - abs(y + 0.5 - cell * (i + 0.5)) / cell) * max(0, 1 - abs(x + 0.5 - cell * (j + 0.5)) / cell)
                    plain[round(angle / 20) % 9, i, j] += near * math.hypot(down[c], right[c])
    found = hog(image, cell)
    assert found.shape == (13, rows, columns)
    for i in range(rows):
        for j in range(columns):
            each = []
            for dy, dx in ((-1, -1), (-1, 0), (0, -1), (0, 0)):
                inside = [(min(max(i + dy + a, 0), rows - 1), min(max(j + dx + b, 0), columns - 1)) for a in (0, 1) for b in (0, 1)]
                energy = sum(float((plain[:, y, x] ** 2).sum()) for y, x in inside)
                each.append((plain[:, i, j] / math.sqrt(energy + NOISE)).clamp(max=TRUNCATION))
            torch.testing.assert_close(found[:9, i, j], sum(each) / 2)
            torch.testing.assert_close(found[9:, i, j], torch.stack(each).sum(1) / 3)


def test_features_do_not_tell_light_on_dark_from_dark_on_light():
    image = picture(24, 32)
    torch.testing.assert_close(hog(1 - image, 4), hog(image, 4), atol=1e-5, rtol=1e-4)
    assert float(hog(torch.full((3, 24, 32), 0.4), 4).abs().max()) == 0
    bars = (torch.arange(32) // 4 % 2).float().expand(3, 24, 32)  # their edges stand upright: the gradient points to the right
    assert set(hog(bars, 4)[:9].argmax(0).flatten().tolist()) == {0}
    assert set(hog(bars.transpose(1, 2).contiguous(), 4)[:9].argmax(0).flatten().tolist()) <= {4, 5}


def test_the_best_place_nearby_is_that_of_a_plain_loop():
    generator = torch.Generator().manual_seed(0)
    reach, answers = 2, torch.randn(3, 2 * 4 - 1 + 4, 2 * 3 - 1 + 4, generator=generator)
    answers[:, :reach] = -torch.inf  # the edge of the image
    deformation = torch.rand(3, 4, generator=generator)
    found = best_nearby(answers, deformation, reach)
    assert found.shape == (3, 4, 3)
    for f, (down, right, down2, right2) in enumerate(deformation.tolist()):
        for y in range(4):
            for x in range(3):
                best = max(
                    float(answers[f, 2 * y + reach + dy, 2 * x + reach + dx]) - (down * dy + right * dx + down2 * dy**2 + right2 * dx**2)
                    for dy in range(-reach, reach + 1)
                    for dx in range(-reach, reach + 1)
                )
                assert float(found[f, y, x]) == pytest.approx(best, abs=1e-5)


def test_a_score_is_equation_2_with_the_parts_where_they_are_best(network):
    level = network.pyramid(picture(40, 44))[1]
    answers = network.answers(level)
    scores = network.scores(level, answers)
    height, width = level.part.shape[1:]
    part = torch.nn.functional.pad(level.part, (0, 2, 0, 2))
    moved = 0
    for component in range(6):
        for row, column in ((0, 0), (3, 5), (scores.shape[1] - 1, scores.shape[2] - 1)):
            total = float((level.root[:, row : row + 5, column : column + 5] * network.root[component]).sum() + network.bias[component])
            places = Places(*(torch.tensor([value]) for value in (component, row, column)))
            for p, found in enumerate(network.displacements(places, answers)[0].tolist()):
                y, x = (2 * torch.tensor([row, column]) + network.anchor[component, p]).tolist()
                down, right, down2, right2 = network.deformation[component, p].tolist()
                tried = {}
                for dy in range(-2, 3):
                    for dx in range(-2, 3):
                        if 0 <= y + dy < height and 0 <= x + dx < width:
                            patch = part[:, y + dy : y + dy + 3, x + dx : x + dx + 3]
                            price = down * dy + right * dx + down2 * dy**2 + right2 * dx**2
                            tried[dy, dx] = float((patch * network.parts[component, p]).sum()) - price
                total += max(tried.values())
                assert tried[tuple(found)] == pytest.approx(max(tried.values()), abs=1e-5)
                moved += found != [0, 0]
            assert float(scores[component, row, column]) == pytest.approx(total, abs=1e-4)
    assert moved > 3


def test_a_box_lies_where_its_root_does_and_moves_with_its_parts(network):
    level = network.pyramid(picture(40, 44))[0]
    places = Places(torch.tensor([1]), torch.tensor([4]), torch.tensor([6]))
    rows, columns = network.extent[1].tolist()
    down, right = level.stride
    roots = network.roots(level, places)
    # two cells of the frame around the image are not part of it
    torch.testing.assert_close(roots[0], torch.tensor([4 * right, 2 * down, (4 + columns) * right, (2 + rows) * down]))
    assert down == pytest.approx(4 / 1.6, rel=0.01)
    displacements = torch.tensor([[[1, -2], [0, 2]]])
    share = torch.tensor([1.0, -2, 0, 2, 1]) @ network.frame[1]
    moved = roots[0] + share * torch.tensor([columns * right, rows * down] * 2)
    torch.testing.assert_close(network.boxes(roots, places, displacements)[0], moved)


def test_what_a_filter_was_made_of_is_found_again_at_another_place_and_size():
    """A root cut out of the features of a ring finds the ring, also where it is twice as large."""
    network = net().requires_grad_(False)
    network.finest = 2.0  # the third level is the image itself, the fifth half of it
    for tensor in (network.root, network.bias, network.parts, network.frame):
        tensor.zero_()
    network.deformation[:] = network.deformation.new_tensor([0, 0, 1, 1])

    def ring(y, x, radius):
        rows, columns = torch.meshgrid(torch.arange(80.0), torch.arange(96.0), indexing="ij")
        distance = ((rows - y) ** 2 + (columns - x) ** 2).sqrt()
        return (0.2 + 0.6 * torch.sigmoid(8 - (distance - radius).abs() * 24 / radius)).expand(3, 80, 96)

    network.extent[2] = 5
    network.root[2] = hog(ring(42, 42, 6), 4)[:, 8:13, 8:13] - 0.15  # 20 pixels around its middle
    network.bias[2] = -0.8 * float(network.root[2].square().sum())
    for y, x, radius in ((30, 60, 6), (45, 40, 12)):
        found = network(ring(y, x, radius)[None])[0]
        assert found["labels"][0] == 1  # components 2 and 3 are those of class 1
        left, top, right, bottom = found["boxes"][0].tolist()
        assert max(abs((left + right) / 2 - x), abs((top + bottom) / 2 - y)) <= radius / 2
        assert (right - left) / (20 * radius / 6) == pytest.approx(1, abs=0.3)


@pytest.fixture(scope="module")
def model(network):
    facts = {"architecture": "dpm", "task": "detection", "classes": CLASSES, "network": TINY, "input": {"background": "none"}}
    return zoo.adapt(network, facts, name="parts")


@pytest.mark.parametrize("size", [(45, 61), (9, 12), (61, 33)])
def test_images_of_any_size_are_answered(model, size):
    prediction = model.predict(picture(*size)[None])[0]
    assert prediction.image_size == size and len(prediction.boxes) > 0
    assert float(prediction.scores.min()) > 0.05 and float(prediction.scores.max()) <= 1 and len(prediction.labels.unique()) > 1
    boxes = prediction.boxes
    assert float(boxes.min()) >= 0 and float(boxes[:, 2].max()) <= size[1] and float(boxes[:, 3].max()) <= size[0]


def test_a_batch_of_two_equals_two_singles(model):
    images = torch.stack([picture(45, 61, seed) for seed in (0, 1)])
    for both, image in zip(model.predict(images), images, strict=True):
        single = model.predict(image[None])[0]
        assert torch.equal(both.boxes, single.boxes) and torch.equal(both.scores, single.scores)


def test_it_is_a_black_box_to_gradients_and_can_be_occluded(model):
    assert xt.check_model(model) == ["note: a black box; methods that need logits or gradients refuse it, occlusion-drise works"]
    image = picture(45, 61)
    for method in ("saliency", "lrp", "occlusion"):
        with pytest.raises(MethodError, match="parts is a black box.*occlusion-drise") as caught:
            xt.explain(model, image, "box:0", method)
        assert "\n" not in str(caught.value)
    values = xt.explain(model, image, "box:0", "occlusion-drise", window=15, stride=15).values
    assert values.shape == (45, 61) and bool(values.isfinite().all()) and float(values.abs().sum()) > 0


def test_one_class_alone_scores_as_among_the_others_and_shares_its_numbers():
    network = net().requires_grad_(False)
    one, level = network.only(1), network.pyramid(picture(40, 44))[0]
    assert one.classes == 1 and network.classes == 3
    torch.testing.assert_close(one.scores(level, one.answers(level)), network.scores(level, network.answers(level))[2:4])
    bare = network.only(1, parts=False)
    gain = one.scores(level, one.answers(level)) - bare.scores(level, bare.answers(level))
    assert float(gain.abs().max()) > 0.1  # what the parts add
    places = Places(*(each[:5] for each in torch.where(gain > -torch.inf)))
    assert bare.displacements(places, bare.answers(level)).shape == (5, 0, 2)
    assert bare.boxes(bare.roots(level, places), places, torch.zeros(5, 0, 2)).shape == (5, 4)
    one.root.zero_()
    assert float(network.root[2:4].abs().sum()) == 0 < float(network.root[4:].abs().sum())


def test_a_file_of_half_floats_is_small():
    assert sum(2 * value.numel() for value in ARCHITECTURES["dpm"](6).state_dict().values()) < 2 * 2**20
