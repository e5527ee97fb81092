"""Model strings of other people's networks: what they give, what they refuse, and what they never do."""

import sys
import textwrap

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import xaitools as xt
from tests.nets import picture
from xaitools.errors import ModelError
from xaitools.zoo import SOURCES
from xaitools.zoo.base import Spec

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, outputs=2):
        super().__init__()
        self.conv = nn.Conv2d(3, outputs, 3, 2, 1)

    def forward(self, x):
        return self.conv(x)

def net():
    torch.manual_seed(0)
    return Net()

def breaks():
    return 1 / 0

class Own:
    task, classes = "segmentation", ["a", "b"]
    def predict(self, images):
        return []

number = 3
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mine.py"


def test_a_file_of_the_users_own(file):
    model = xt.load_model("python:mine.py:net?task=segmentation&classes=sky,road&mean=0.5,0.5,0.5&std=0.2,0.2,0.2&order=bgr&size=16,24")
    image = picture(20, 30)
    assert model.name.startswith("python:mine.py:net") and model.predict(image[None])[0].semantic.shape == (20, 30)
    x = nn.functional.interpolate((image.flip(0)[None] - 0.5) / 0.2, (16, 24), mode="bilinear", antialias=True)
    expected = nn.functional.interpolate(model.module(x), (20, 30), mode="bilinear")
    torch.testing.assert_close(model.logits_from(model.normalise(image[None])), expected)
    assert xt.load_model("python:mine.py:net?task=segmentation&classes=sky,road", dtype="float64").dtype == torch.float64
    (file.parent / "names.txt").write_text("sky\nroad\n")
    assert xt.load_model("python:mine.py:net?task=segmentation&classes=names.txt&background=first").classes == ("background", "sky", "road")


def test_a_module_on_the_path(file, monkeypatch):
    monkeypatch.syspath_prepend(str(file.parent))
    assert xt.load_model("python:mine:net?task=segmentation&classes=sky,road").classes == ("sky", "road")
    assert xt.load_model("python:mine:Own").task == "segmentation"
    sys.modules.pop("mine")


@pytest.mark.parametrize(("text", "error"), [
    ("python:mine.py:nett", "no callable 'nett'; it has Net, net, breaks, Own"), ("python:mine.py:number", "no callable"),
    ("python:mine.py", "expected python:package"), ("python:other.py:net", "no such file"),
    ("python:no.such.module:net", "ModuleNotFoundError"),
    ("python:mine.py:breaks", "ZeroDivisionError in mine.py, line 18"), ("python:mine.py:net", r"add \?task=segmentation&classes="),
    ("python:mine.py:Own?task=segmentation", "drop task and classes"), ("python:mine.py:net?task=x&classes=a,b", "task 'x'"),
    ("python:mine.py:net?task=segmentation&classes=a,b&sise=3,3", "unknown option 'sise'; did you mean size"),
    ("python:mine.py:net?task=segmentation&classes=a,b&size=3", "expected 2 whole numbers"),
    ("python:mine.py:net?task=segmentation&classes=a,b&mean=a,b,c", "expected 3 numbers"),
    ("python:mine.py:net?task=segmentation&classes=a,b&std=0,1,1", "std"), ("python:mine.py:net?task", "name=value"),
    ("python:mine.py:net?task=segmentation&classes=a,b&weights=w.bin", "w.bin"),
    ("torchvision:resnet19?weights=none", "did you mean resnet1"), ("torchvision:keypointrcnn_resnet50_fpn?weights=none", "unknown"),
    ("torchvision:resnet18?classes=a,b", "published weights have their own 1000 classes"),
    ("torchvision:resnet18?weights=w.safetensors", "weights=w.safetensors need classes; add classes=NAME"),
    ("torchvision:resnet18?weights=none&min_size=3", "unknown option 'min_size'"),
    ("torchvision:ssd300_vgg16?weights=none&classes=a,b&background=none", "output 0 of torchvision's SSD is background"),
    ("smp:Unett?classes=a&weights=none", "did you mean Unet"), ("smp:Unet?classes=a", "give classes"),
    ("smp:Unet?weights=none", "give classes"),
    ("smp:Unet?classes=a&weights=none&encoder=resnet17", "no such network"), ("ultralytics:yolo", "unknown model 'ultralytics:yolo'"),
])  # fmt: skip
def test_a_wrong_string_is_one_line_that_names_the_way_out(file, text, error):
    with pytest.raises(ModelError, match=error) as caught:
        xt.load_model(text).predict(picture()[None])
    assert "\n" not in str(caught.value)


def test_weights_of_the_users_own(file):
    text = "python:mine.py:net?task=segmentation&classes=sky,road"
    state = {key: torch.full_like(value, 0.25) for key, value in xt.load_model(text).module.state_dict().items()}
    save_file(state, "w.safetensors")
    torch.save(state, "w.pth")
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, "wrapped.pt")
    for name in ("w.safetensors", "w.pth", "wrapped.pt"):
        assert float(xt.load_model(f"{text}&weights={name}").module.conv.bias.detach()[0]) == 0.25
    with pytest.raises(ModelError, match="conv.weight is.*expected.*does the number of classes agree"):
        save_file({"conv.weight": torch.zeros(3, 3, 3, 3), "conv.bias": torch.zeros(3)}, "other.safetensors")
        xt.load_model(f"{text}&weights=other.safetensors")
    with pytest.raises(ModelError, match="lack .*conv.bias"):
        save_file({"conv.weight": state["conv.weight"]}, "part.safetensors")
        xt.load_model(f"{text}&weights=part.safetensors")


class Trap:
    def __reduce__(self):
        return (open, ("sprung", "w"))


@pytest.mark.parametrize("name", ["trap.pth", "trap.safetensors", "model.pt"])
def test_nothing_is_unpickled(file, name):
    torch.save({"conv.weight": Trap()} if name != "model.pt" else nn.Linear(2, 2), name)
    with pytest.raises(ModelError, match="convert it: safetensors.torch.save_file"):
        xt.load_model(f"python:mine.py:net?task=segmentation&classes=sky,road&weights={name}")
    assert not (file.parent / "sprung").exists()


def test_published_weights_are_fetched_with_their_hash_and_as_tensors_only(tmp_path, monkeypatch):
    from torchvision.models import resnet18

    asked = []

    def fetch(url, **options):
        asked.append((url, options))
        return resnet18().state_dict()

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    model = xt.load_model("torchvision:resnet18")
    ((url, options),) = asked
    assert url.endswith(".pth") and options["weights_only"] is True and options["check_hash"] is True
    assert (
        len(model.classes) == 1000
        and model.fit.crop == (224, 224)
        and model.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    )
    stored = tmp_path / "checkpoints" / url.rpartition("/")[2]
    stored.parent.mkdir()
    stored.write_bytes(b"something else")
    with pytest.raises(ModelError, match="another hash than its name says; delete it"):
        xt.load_model("torchvision:resnet18")


def test_without_a_network_the_line_names_random_weights(tmp_path, monkeypatch):
    def fetch(url, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ModelError, match=r"could not be fetched \(no route to host\); weights=none"):
        xt.load_model("torchvision:fasterrcnn_resnet50_fpn")


def test_random_weights_download_nothing_and_follow_the_seed(monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *args, **options: pytest.fail("a download"))
    text = "torchvision:lraspp_mobilenet_v3_large?weights=none"
    torch.manual_seed(5)
    one, other, third = xt.load_model(text), xt.load_model(text), xt.load_model(text + "&seed=1")
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1)), "the caller's random state is left alone"
    first, second, last = (next(iter(model.module.state_dict().values())) for model in (one, other, third))
    assert torch.equal(first, second) and not torch.equal(first, last)
    assert len(one.classes) == 21 and one.background == 0


def test_every_source_is_in_the_words_of_the_interface():
    assert set(SOURCES) == {"torchvision", "smp", "python"}
    spec = Spec.parse("smp:Unet?classes=a%2Cb,c&weights=none", {})
    assert spec.what == "Unet" and spec.classes() == ["a", "b", "c"]


def test_a_classifier_sees_the_middle_as_in_imagenets_evaluation():
    model = xt.load_model("torchvision:resnet18?weights=none&classes=a,b&shorter=32&crop=16,16")
    values = xt.explain(model, picture(32, 64), "top", "saliency").values
    assert float(values[:8].abs().sum()) == 0 == float(values[:, :24].abs().sum()) and float(values[8:24, 24:40].abs().min()) > 0


def test_the_command_line_takes_the_same_strings(file, capsys):
    from xaitools.cli import main

    with pytest.raises(SystemExit) as caught:
        main(
            [
                "explain",
                "scenes:test?n=1",
                "--model",
                "python:mine.py:net?task=segmentation&classes=sky,road",
                "--method",
                "saliency",
                "--json",
            ]
        )
    assert caught.value.code == 0 and '"task": "segmentation"' in capsys.readouterr().out
    (file.parent / "bad.py").write_text(textwrap.dedent("import nothing_of_that_name\n"))
    with pytest.raises(SystemExit) as caught:
        main(["explain", "scenes:test?n=1", "--model", "python:bad.py:net"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == 2 and len(lines) == 1 and "bad.py, line 1" in lines[0]
