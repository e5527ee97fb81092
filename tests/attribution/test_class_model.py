"""Class-model images: bounded, reproducible, saved and drawn, and recognised by other networks."""

import pytest
import torch
from PIL import Image

import xaitools as xt
from tests.nets import CLASSES, Linear, detector, picture, segmenter
from xaitools.adapters import SegmentationModel
from xaitools.attribution import explain, explain_many
from xaitools.attribution.class_model import blurred, shifted, total_variation
from xaitools.errors import MethodError
from xaitools.report.store import explanations_of, load_explanation, save_explanation

CLASSIFIERS = ("alexnet-scenes", "vgg-scenes", "resnet-scenes", "googlenet-scenes")


def test_the_image_of_a_linear_model_goes_to_the_bounds_its_weights_say():
    model = SegmentationModel(Linear(12, 16), CLASSES[:2])
    found = explain(
        model, picture(12, 16).double(), "class:disc", "class-model", variation=0.0, blur=0.0, jitter=0.0, noise=0.0, rate=0.1, steps=20
    )
    expected = (model.module.weight.detach() > 0).double()
    torch.testing.assert_close(found.image, expected)
    torch.testing.assert_close(found.values, torch.full((12, 16), 0.5).double())


@pytest.mark.parametrize(("build", "target"), [(segmenter, "class:disc"), (segmenter, "region:square"), (detector, "box:0")])
def test_the_image_scores_higher_than_grey_and_stays_in_bounds(build, target):
    model = build()
    found = explain(model, picture(), target, "class-model", steps=15, variation=0.0, noise=0.0)
    assert found.image.shape == (3, 40, 52) and float(found.image.min()) >= 0 and float(found.image.max()) <= 1
    torch.testing.assert_close(found.values, (found.image - 0.5).abs().mean(0))
    told = found.notes[0].split()
    assert float(told[4].strip(",")) > float(told[-1])


def test_the_seed_moves_the_image_and_the_given_image_lends_only_its_size():
    model = segmenter()

    def made(image, seed):
        return explain(model, image, "class:disc", "class-model", steps=3, jitter=0.2, seed=seed).image

    assert torch.equal(made(picture(), 1), made(picture(seed=9), 1))
    assert not torch.equal(made(picture(), 1), made(picture(), 2))


@pytest.mark.parametrize("target", ["box:0:left"])
def test_what_is_no_class_is_refused(target):
    with pytest.raises(MethodError, match="class-model draws what scores high for a class"):
        explain(detector(), picture(), target, "class-model")


def test_brush_and_shifts():
    image = picture(9, 11)[None]
    assert blurred(image, 0.0) is image
    torch.testing.assert_close(blurred(torch.full((1, 3, 9, 11), 0.3), 2.0), torch.full((1, 3, 9, 11), 0.3))
    spot = torch.zeros(1, 3, 31, 31)
    spot[..., 15, 15] = 1
    expected = torch.exp(-torch.tensor(2.0)) * blurred(spot, 1.0)[..., 15, 15]  # two pixels from the middle
    torch.testing.assert_close(blurred(spot, 1.0)[..., 15, 17], expected)
    moved = shifted(image, 2, -3)
    assert torch.equal(moved[..., 2:, :-3], image[..., :-2, 3:]) and torch.equal(moved[..., 0, :-3], image[..., 0, 3:])
    assert float(total_variation(torch.full((1, 3, 4, 4), 0.7))) == 0
    assert float(total_variation(torch.tensor([[0.0, 1.0], [0.0, 1.0]])[None, None])) == 1


def test_the_image_is_saved_and_drawn_in_the_place_of_the_overlay(tmp_path):
    model, image = segmenter(), picture()
    made = explain_many(model, image, ["class:disc", "class:square"], "class-model", steps=3)
    [explanation] = explanations_of(made, image)
    for _ in range(2):  # an earlier one in the folder is replaced
        files = {path.name for path in save_explanation(explanation, tmp_path / "out")}
    assert {"class-model-class_disc.png", "class-model-class_square.png", "figure.png", "attributions.safetensors"} <= files
    saved = torch.tensor(list(Image.open(tmp_path / "out" / "class-model-class_disc.png").tobytes())).view(40, 52, 3)
    assert torch.equal(saved, (made[0].image * 255).round().permute(1, 2, 0).long())
    back = load_explanation(tmp_path / "out")
    torch.testing.assert_close(back.attributions[0].values, made[0].values)
    assert back.attributions[0].image is None
    ax = xt.figure(made[0], image=image).axes[2]
    assert ax.images[0].get_array().shape == (40, 52, 3)
    torch.testing.assert_close(torch.tensor(ax.images[0].get_array()).permute(2, 0, 1), made[0].image)


def recognised(source: str, seeds: int, judges: tuple[str, ...], classes: list[str], steps: int = 100) -> dict[str, list[int]]:
    """For how many seeds each judge gives the intended class, class by class."""
    model, nets = xt.load_model(source), {name: xt.load_model(name) for name in judges}
    counts = {name: [0] * len(classes) for name in judges}
    for seed in range(seeds):
        made = explain_many(model, torch.zeros(3, 64, 64), [f"class:{name}" for name in classes], "class-model", seed=seed, steps=steps)
        for name, net in nets.items():
            found = net.predict(torch.stack([each.image for each in made]))
            for number, prediction in enumerate(found):
                counts[name][number] += prediction.classes[int(prediction.labels[0])] == classes[number]
    return counts


def test_another_network_recognises_what_one_draws():
    assert recognised("resnet-scenes", 1, ("alexnet-scenes", "vgg-scenes"), ["heart", "moon"], 60) == {
        "alexnet-scenes": [1, 1],
        "vgg-scenes": [1, 1],
    }


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("source", CLASSIFIERS)
def test_other_networks_give_the_intended_class_to_four_of_five_seeds(source):
    """One of the three others of four of five classes, a second of three; the last may see something else, as vgg-scenes does
    where googlenet-scenes draws (2 of 5)."""
    classes = list(xt.load_model(source).classes)
    counts = recognised(source, 5, tuple(name for name in CLASSIFIERS if name != source), classes)
    _, second, first = sorted(sum(count >= 4 for count in each) for each in counts.values())
    assert first >= 0.8 * len(classes) and second >= 0.6 * len(classes), (source, counts)
