"""A model string of somebody who is not trusted runs nothing, fetches nothing and reads nothing outside the folders."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from xaitools import zoo
from xaitools.errors import ModelError
from xaitools.zoo.bounded import bounded


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with weights and class names, a file that is none of ours, and links that lead there."""
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    for path in (data / "deep" / "mine.safetensors", tmp_path / "secret.safetensors"):
        save_file({"a": torch.zeros(1)}, path)
    (data / "names.txt").write_text("sky\nroad\n")
    (tmp_path / "secret.txt").write_text("password\n")
    (data / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    (data / "folder").symlink_to(tmp_path)
    (data / "loop.safetensors").symlink_to(data / "loop.safetensors")
    monkeypatch.chdir(tmp_path)
    return data


@pytest.mark.parametrize("text", ["torchvision:resnet18?weights=none&classes=a,b", "smp:Unet?encoder=resnet18&classes=3&weights=none"])
def test_random_networks_keep_their_string(home: Path, text: str) -> None:
    assert bounded(text, [home]) == text


def test_files_of_the_folder_are_opened_as_the_command_line_takes_them(home: Path) -> None:
    for name in ("deep/mine.safetensors", str(home / "deep" / "mine.safetensors"), "deep/../deep/mine.safetensors"):
        assert bounded(f"smp:Unet?classes=names.txt&weights={name}", [home]) == (
            "smp:Unet?classes=data/names.txt&weights=data/deep/mine.safetensors"
        )
    with pytest.raises(ModelError, match="the weights lack"):  # it was read
        zoo.load_model(bounded("torchvision:resnet18?classes=a,b&weights=deep/mine.safetensors", [home]))


SECRETS = ["../secret.safetensors", "link.safetensors", "folder/secret.safetensors", "loop.safetensors", "deep", "names.txt", "a\0b", "",
           "~", "secret.safetensors", "deep/../../secret.safetensors", "/etc/passwd", "x" * 5000]  # fmt: skip


@pytest.mark.parametrize("name", SECRETS, ids=lambda name: repr(name[:24]))
def test_no_other_file_is_read(home: Path, name: str) -> None:
    for path in (name, str(home.parent / "secret.safetensors")):
        with pytest.raises(ModelError) as error:
            bounded(f"smp:Unet?classes=2&weights={path}", [home])
        assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("name", ["../secret.txt", "secret.txt", "folder/secret.txt", "deep/mine.safetensors"])
def test_class_names_come_from_no_other_file(home: Path, name: str) -> None:
    with pytest.raises(ModelError, match="no file"):
        bounded(f"smp:Unet?classes={name}&weights=none", [home])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("python:os:getcwd", "--allow-python"),
        ("python:mine.py:network?task=segmentation", "--allow-python"),
        ("torchvision:resnet18", "nothing is downloaded"),
        ("torchvision:resnet18?weights=published", "nothing is downloaded"),
        ("smp:Unet?encoder=tu-hf-hub:someone/model&classes=2&weights=none", "encoder"),
        ("smp:Unet?encoder=tu-local-dir:..&classes=2&weights=none", "encoder"),
        ("torchvision:../x?weights=none", "name"),
        ("torchvision:fasterrcnn_resnet50_fpn?weights=none&min_size=100000", "at most 2048 pixels"),
        ("smp:Unet?classes=100000&weights=none", "at most 1000"),
        ("http://x/y.safetensors", "torchvision: or smp:"),
        ("nonsense", "not in the zoo"),
        ("<script>alert(1)</script>", "not in the zoo"),
    ],
)
def test_everything_else_is_refused_in_one_line(home: Path, text: str, why: str) -> None:
    with pytest.raises(ModelError, match=why) as error:
        bounded(text, [home])
    assert "\n" not in str(error.value)
