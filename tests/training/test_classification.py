"""A classifier from a recipe: it learns, its file gives the card's score, and a run goes on where it stopped."""

import re

import pytest
import torch

from xaitools import evaluate, load_dataset, load_model, zoo
from xaitools.errors import DataError, ModelError
from xaitools.training import run_recipe
from xaitools.training.loop import layout

RECIPE = """
name = "tiny"
architecture = "resnet"
task = "classification"
network = { divide = 16 }
[data]
train = "scenes:train?n=64&crop=32"
val = "scenes:val?n=20&crop=32"
test = "scenes:test?n=20&crop=32"
licence = "none"
redistribution = "free"
[input]
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
[training]
epochs = 12
batch_size = 16
lr = 1e-2
average = 0.9
crop = 1.0
colour = 0.0
mirror = false
"""


@pytest.fixture
def run(tmp_path):
    def call(text: str = RECIPE, name: str = "tiny", **options):
        (tmp_path / "recipe.toml").write_text(text)
        said: list[str] = []
        return run_recipe(tmp_path / "recipe.toml", tmp_path / "models" / name, say=said.append, **options), said

    return call


def losses(said: list[str]) -> list[float]:
    return [float(found[1]) for line in said if (found := re.search(r"loss ([\d.]+)", line))]


def test_the_loss_falls_and_the_file_gives_the_score_of_its_card(run, tmp_path, monkeypatch):
    card, said = run()
    monkeypatch.setattr(zoo.shipped, "part", lambda name: tmp_path / name)
    assert losses(said)[-1] < 0.6 * losses(said)[0]
    assert card["scores"]["test"]["metric"] == "top1" and card["classes"] == ["arrow", "drop", "fish", "heart", "moon"]
    model, data = load_model("tiny"), load_dataset(card["data"]["test"])
    assert model.task == "classification"
    assert evaluate(model, data, replicates=0)["value"] == pytest.approx(card["scores"]["test"]["value"], abs=1e-4)


def test_the_same_recipe_gives_the_same_bytes_also_when_it_is_cut_short(run, tmp_path):
    run(name="whole")

    class Cut(Exception): ...

    def stop(line: str) -> None:
        if line.startswith("epoch 6/"):
            raise Cut

    with pytest.raises(Cut):
        run_recipe(tmp_path / "recipe.toml", tmp_path / "models" / "parts", say=stop)
    _, said = run(name="parts", resume=True)
    assert "goes on after epoch" in " ".join(said)
    one, other = ((tmp_path / "models" / name / "weights.safetensors").read_bytes() for name in ("whole", "parts"))
    same = one == other  # compared by pytest, long bytes would be shown as a difference for minutes
    assert same


def test_images_are_brought_to_the_size_of_the_card(run):
    card, _ = run(RECIPE.replace("[input]\n", "[input]\nsize = [40, 24]\n").replace("epochs = 12", "epochs = 1"))
    assert card["input"]["size"] == [40, 24]


def test_images_of_different_sizes_need_a_size(run, tmp_path):
    from torchvision.io import write_png

    for number, side in enumerate((32, 40)):
        folder = tmp_path / "pictures" / "arrow"
        folder.mkdir(parents=True, exist_ok=True)
        write_png(torch.zeros(3, side, side, dtype=torch.uint8), str(folder / f"{number}.png"))
    text = RECIPE.replace("scenes:train?n=64&crop=32", f"folder:{tmp_path}/pictures")
    with pytest.raises(DataError, match=r"give the recipe an \[input\] size"):
        run(text)


def test_a_task_that_nothing_trains_is_one_line(run):
    with pytest.raises(ModelError, match="did you mean classification"):
        run(RECIPE.replace('task = "classification"', 'task = "clasification"'))


@pytest.mark.parametrize(("channels", "stride", "safe"), [(4, 2, False), (8, 2, True), (4, 1, True)])
def test_kernels_with_channels_last_are_only_used_where_their_gradient_is_right(channels, stride, safe):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, channels, 3), torch.nn.Conv2d(channels, 8, 1, stride))
    assert (layout(network) == torch.channels_last) is safe
