"""Pictures come from the data folder, are drawn, or are uploaded; from nowhere else, and never too large."""

import io
from pathlib import Path

import pytest
import sources
from PIL import Image

from xaitools.errors import DataError


@pytest.fixture
def camvid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with one tiny CamVid, beside a folder that is none of ours."""
    for root in (tmp_path / "data" / "cam", tmp_path / "secret"):
        (root / "test").mkdir(parents=True)
        (root / "testannot").mkdir()
        Image.new("RGB", (20, 16), "red").save(root / "test" / "a.png")
        Image.new("L", (20, 16), 3).save(root / "testannot" / "a.png")
        (root / "test.txt").write_text("test/a.png testannot/a.png\n")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "secret")
    monkeypatch.setenv("XAITOOLS_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "cam"


def test_only_what_is_there_is_offered(camvid: Path) -> None:
    assert "camvid:cam#test" in sources.offered()
    (camvid / "test.txt").unlink()
    assert sources.offered() == list(sources.SCENES)


def test_sample_of_the_data_folder(camvid: Path) -> None:
    picture = sources.from_dataset("camvid:cam#test", 0)
    assert picture.rgb.shape == (16, 20, 3)
    assert picture.truth_classes[3] == "Road"
    assert picture.source[1:] == ("--item", "a")


@pytest.mark.parametrize("path", ["../secret", "/etc", "~", "", ".", "cam/../../secret", "link", "a\0b"])
def test_nothing_outside_the_data_folder(camvid: Path, path: str) -> None:
    for text in (f"camvid:{path}#test", f"camvid:{camvid.parent.parent / 'secret'}"):
        with pytest.raises(DataError):
            sources.dataset(text)


def test_large_upload_is_scaled_and_says_so() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (3000, 1500), "blue").save(buffer, "png")
    picture = sources.from_upload("C:\\photos\\<script>.png", buffer.getvalue())
    assert picture.rgb.shape == (512, 1024, 3)
    assert "3000 x 1500 scaled down to 1024 x 512" in picture.note
    assert picture.sample.id == "<script>.png"


def test_pictures_are_equal_when_their_pixels_are() -> None:
    assert sources.from_dataset("scenes:test?n=2", 0) == sources.from_dataset.__wrapped__("scenes:test?n=2", 0)
    assert sources.from_dataset("scenes:test?n=2", 0) != sources.from_dataset("scenes:test?n=2", 1)


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 16), colour).save(buffer, "png")
    return buffer.getvalue()


def test_a_picture_that_was_sent_can_be_had_by_its_hash_until_others_take_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_sent", type(sources._sent)())
    monkeypatch.setattr(sources, "MOST_SENT", 2)
    first = sources.keep("a.png", png("red"))
    assert sources.kept(first).sample.id == "a.png" and len(first) == 64
    second, third = sources.keep("b.png", png("blue")), sources.keep("c.png", png("green"))
    assert sources.kept(third).rgb[0, 0].tolist() == [0, 128, 0] and sources.kept(second).sample.id == "b.png"
    with pytest.raises(DataError, match="send it again"):
        sources.kept(first)
    with pytest.raises(DataError, match="not a picture"):
        sources.keep("d.png", b"<html>")
    assert len(sources._sent) == 2
    monkeypatch.setattr(sources, "MOST_SENT_BYTES", len(png("red")))
    last = sources.keep("e.png", png("red"))
    assert list(sources._sent) == [last]
