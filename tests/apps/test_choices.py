"""What may be chosen: models by a string, pictures that are sent; and what is refused in one line."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cached
import pytest
import sources
import streamlit as st
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.apps.pages import checked, field, opened, pictures, words
from xaitools import zoo
from xaitools.errors import ModelError
from xaitools.serve import PYTHON

SEGMENTER = "tiny-segmenter"
RANDOM = "torchvision:lraspp_mobilenet_v3_large?weights=none&classes=sky,road&shorter=64"


def test_a_model_string_is_explained_and_stands_in_the_command() -> None:
    app = opened("inspect", model=RANDOM, method=["saliency"], target="pixel:5,5")
    assert not app.warning and list(pictures(app)) == ["picture", "map saliency"]
    assert "segmentation · classes background, sky, road" in words(app)
    assert f"--model '{RANDOM}'" in words(app)
    field(app, "model").set_value(SEGMENTER).run()
    assert SEGMENTER in checked(app).query_params["model"] and not app.warning


@pytest.mark.parametrize(("page", "text"), [("inspect", "<script>alert(1)</script>"), ("data", "python:os:getcwd")])
def test_other_strings_get_one_line(page: str, text: str) -> None:
    app = opened(page, model=text)
    assert len(app.warning) == 1 and "\n" not in app.warning[0].value and "<script" not in app.warning[0].value.replace("\\<", "")
    assert not pictures(app)


def test_code_runs_only_where_the_dashboard_was_started_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("from torch import nn\ndef network():\n    return nn.Conv2d(3, 2, 1)\n")
    text = f"python:{tmp_path}/mine.py:network?task=segmentation&classes=a,b"
    with pytest.raises(ModelError, match="allow-python"):
        cached.load(text)
    monkeypatch.setenv(PYTHON, "1")
    assert cached.load(text).model.classes == ("a", "b")


@pytest.mark.long
def test_other_weights_in_a_file_are_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XAITOOLS_DATA", str(tmp_path))
    state = zoo.load_model(RANDOM).module.state_dict()
    save_file(state, tmp_path / "w.safetensors")
    text = RANDOM.replace("none", "w.safetensors")
    first = cached.load(text)
    assert cached.load(text) is first
    save_file({**state, "note": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="add"):
        cached.load(text)


@pytest.mark.long
def test_what_fails_inside_a_network_of_somebody_else_is_one_line() -> None:
    app = opened("inspect", model="torchvision:inception_v3?weights=none&classes=a,b&size=20,20")
    assert len(app.warning) == 1 and "the network fails" in app.warning[0].value


def test_a_picture_that_was_sent_is_shared_by_its_address() -> None:
    buffer = io.BytesIO()
    Image.effect_noise((70, 50), 60).convert("RGB").save(buffer, "png")
    app = opened("inspect", model=SEGMENTER, data="upload", method=["saliency"])
    app.file_uploader[0].upload("<script>.png", buffer.getvalue()).run()
    digest = checked(app).query_params["picture"]
    digest = digest if isinstance(digest, str) else digest[0]
    other = opened("inspect", model=SEGMENTER, data="upload", method=["saliency"], picture=digest)
    assert pictures(other)["picture"] == pictures(app)["picture"] and "<script>.png" in words(other)
    lost = opened("inspect", model=SEGMENTER, data="upload", method=["saliency"], picture="../../etc/passwd")
    assert "send it again" in lost.warning[0].value and not pictures(lost)


def huge(side: int) -> bytes:
    """A picture whose header says that it has so many pixels a side."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def test_thirty_thousand_pixels_get_one_line() -> None:
    app = opened("inspect", model=SEGMENTER, data="upload")
    app.file_uploader[0].upload("huge.png", huge(30_000), "image/png").run()
    assert len(checked(app).warning) == 1 and "million" in app.warning[0].value and not pictures(app)


def test_the_camera_sends_a_picture_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shot(io.BytesIO):
        name = "camera.jpg"

    def camera(*args: Any, **kwargs: Any) -> Shot:
        buffer = Shot()
        Image.new("RGB", (64, 48), "green").save(buffer, "jpeg")
        return buffer

    monkeypatch.setattr(st, "camera_input", camera)
    app = opened("inspect", model=SEGMENTER, data=sources.CAMERA, method=["saliency"])
    assert (pictures(app)["picture"]["width"], pictures(app)["picture"]["height"]) == (64, 48)
    assert "xaitools explain camera.jpg" in words(app)
