"""Pictures that anyone may send: each is read rightly, or refused in one line."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xaitools.data import image as image_module
from xaitools.data.image import read_image, read_map
from xaitools.errors import DataError

HEIGHT, WIDTH = 24, 32


def pixels() -> np.ndarray:
    """(24, 32, 3) uint8: red rises to the right, green downwards, blue is 64; smooth, so that JPEG keeps it."""
    red, green = np.meshgrid(np.linspace(0, 255, WIDTH), np.linspace(0, 255, HEIGHT))
    return np.stack([red, green, np.full_like(red, 64)], axis=2).round().astype(np.uint8)


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def expected(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1) / 255


def refused(source: str | Path | bytes, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        read_image(source)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    for word in words:
        assert word in message


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


# ---- read rightly


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_keep_each_value(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"picture.{kind.lower()}"
    file.write_bytes(encoded(Image.fromarray(pixels()), kind))
    image = read_image(file)
    assert image.dtype == torch.float32 and image.is_contiguous()
    assert torch.equal(image, expected(pixels()))
    assert torch.equal(image, read_image(file.read_bytes())) and torch.equal(image, read_image(str(file)))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_come_close(kind: str) -> None:
    image = read_image(encoded(Image.fromarray(pixels()), kind, quality=95))
    assert (image - expected(pixels())).abs().mean() < 0.02


def test_cmyk_becomes_rgb() -> None:
    image = read_image(encoded(Image.fromarray(pixels()).convert("CMYK"), "JPEG", quality=95))
    assert (image - expected(pixels())).abs().mean() < 0.02


def test_palette_gives_colours_and_as_a_map_indices(tmp_path: Path) -> None:
    indices = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 3
    picture = Image.fromarray(indices)
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    file = tmp_path / "palette.png"
    picture.save(file)
    assert torch.equal(read_image(file), expected(np.eye(3, dtype=np.uint8)[indices] * 255))
    assert torch.equal(read_map(file, (HEIGHT, WIDTH)), torch.from_numpy(indices).long())


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_by_its_range(kind: str) -> None:
    grey = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    image = read_image(encoded(Image.fromarray(grey), kind))
    assert torch.allclose(image, torch.from_numpy(grey.astype(np.float32) / 65535).expand(3, -1, -1), atol=1e-6)


def test_sixteen_bit_rgb_loses_only_its_low_bytes() -> None:
    cv2 = pytest.importorskip("cv2")
    done, data = cv2.imencode(".png", pixels()[..., ::-1].astype(np.uint16) * 257)
    assert done
    assert torch.equal(read_image(data.tobytes()), expected(pixels()))


def test_transparency_lies_over_white() -> None:
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[:, : WIDTH // 2] = 0
    image = read_image(encoded(Image.fromarray(np.concatenate([pixels(), alpha], axis=2))))
    assert (image[:, :, : WIDTH // 2] == 1).all()
    assert torch.equal(image[:, :, WIDTH // 2 :], expected(pixels())[:, :, WIDTH // 2 :])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(kind: str, orientation: int) -> None:
    stored = {
        1: lambda upright: upright,
        2: np.fliplr,
        3: lambda upright: np.rot90(upright, 2),
        4: np.flipud,
        5: lambda upright: upright.transpose(1, 0, 2),
        6: np.rot90,
        7: lambda upright: np.rot90(upright.transpose(1, 0, 2), 2),
        8: lambda upright: np.rot90(upright, -1),
    }[orientation](pixels())
    exif = Image.Exif()
    exif[image_module.ORIENTATION] = orientation
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    image = read_image(encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options))
    assert image.shape == (3, HEIGHT, WIDTH)
    assert (image - expected(pixels())).abs().mean() < 0.02


def test_a_malformed_exif_block_does_not_cost_the_picture() -> None:
    exif = Image.Exif()
    exif[image_module.ORIENTATION], exif[282] = 6, 72.0
    data = bytearray(encoded(Image.fromarray(pixels()), "JPEG", exif=exif))
    start = data.index(b"Exif\0\0") + 6
    for offset in range(start, start + len(exif.tobytes()) - 6):
        for value in (0, 7, 255):
            broken = bytearray(data)
            broken[offset] = value
            assert sorted(read_image(bytes(broken)).shape) == [3, HEIGHT, WIDTH]


def test_of_an_animation_the_first_frame() -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "lime")]
    image = read_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert torch.equal(image, torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, HEIGHT, WIDTH))


# ---- refused in one line


def test_a_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.png", "none.png", "no such file")


@pytest.mark.parametrize("name", ["a" * 300, "nul\0byte.png", "~no-such-user-here/picture.png"])
def test_a_name_that_no_file_can_have(name: str) -> None:
    refused(name, name)


def test_a_folder(tmp_path: Path) -> None:
    refused(tmp_path, "a folder")


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    file = tmp_path / "secret.png"
    file.write_bytes(encoded(Image.fromarray(pixels())))
    monkeypatch.setattr(Path, "read_bytes", denied)  # a mode of 000 would not stop root
    refused(file, "secret.png", "Permission denied")


def test_an_empty_file(tmp_path: Path) -> None:
    file = tmp_path / "empty.jpg"
    file.touch()
    refused(file, "empty.jpg", "empty")
    refused(b"", "uploaded file", "empty")


@pytest.mark.parametrize("data", [b"<!DOCTYPE html><html></html>", b"%PDF-1.7", b"\0" * 4096, b"GIF89a", b"\xff\xd8\xff"])
def test_what_is_no_picture(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "page.png"
    file.write_bytes(data)
    refused(file, "page.png", "not a picture")


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("BMP", {}), ("GIF", {}), ("TIFF", {}), ("WEBP", {}), ("PPM", {})],
)
def test_a_truncated_file_is_refused_and_not_half_grey(kind: str, options: dict[str, bool]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind, **options)
    for share in (0.02, 0.3, 0.5, 0.9, 0.98):
        refused(data[: int(len(data) * share)], "uploaded file")


@pytest.mark.parametrize("size", [(1, 1), (1, 100), (100, 7)])
def test_a_picture_of_hardly_a_pixel(size: tuple[int, int]) -> None:
    refused(encoded(Image.new("RGB", size)), f"{size[0]} x {size[1]}", "at least")


@pytest.mark.parametrize("size", [(30_000, 30_000), (8_000, 8_000), (2**31 - 1, 8)])
def test_a_huge_picture_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    # the pixels are missing, so that decoding them would give another message
    refused(png_header(*size), "million")


def test_a_file_of_too_many_bytes(tmp_path: Path) -> None:
    file = tmp_path / "long.png"
    with file.open("wb") as stream:
        stream.truncate(image_module.MAX_BYTES + 1)
    refused(file, "long.png", "at most 64 MB")


def test_a_text_chunk_that_unpacks_to_megabytes() -> None:
    data = encoded(Image.fromarray(pixels()))
    squeezer = zlib.compressobj(9)
    body = b"Comment\0\0" + b"".join(squeezer.compress(bytes(2**20)) for _ in range(8)) + squeezer.flush()
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    refused(data[:33] + chunk + data[33:], "not a picture")


def test_random_damage_never_gives_more_than_one_line() -> None:
    generator = np.random.default_rng(0)
    exif = Image.Exif()
    exif[image_module.ORIENTATION] = 8
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        data = np.frombuffer(encoded(Image.fromarray(pixels()), kind, exif=exif), dtype=np.uint8)
        for _ in range(60):
            broken = data.copy()
            broken[generator.integers(0, min(len(data), int(generator.choice([40, 200, 10_000]))), 4)] = generator.integers(0, 256, 4)
            try:
                image = read_image(broken.tobytes())
            except DataError as error:
                assert "\n" not in str(error)
            else:
                assert torch.isfinite(image).all() and image.min() >= 0 and image.max() <= 1


# ---- label maps


def test_a_map_keeps_sixteen_bit_values(tmp_path: Path) -> None:
    values = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 80
    Image.fromarray(values).save(tmp_path / "map.png")
    assert torch.equal(read_map(tmp_path / "map.png", (HEIGHT, WIDTH)), torch.from_numpy(values.astype(np.int64)))


def test_a_coloured_map_and_one_of_another_size_are_refused(tmp_path: Path) -> None:
    Image.fromarray(pixels()).save(tmp_path / "colour.png")
    Image.fromarray(pixels()[..., 0]).save(tmp_path / "grey.png")
    with pytest.raises(DataError, match=r"colour\.png: a label map must hold one value a pixel"):
        read_map(tmp_path / "colour.png", (HEIGHT, WIDTH))
    with pytest.raises(DataError, match=f"label map is {WIDTH} x {HEIGHT}, its picture {HEIGHT} x {WIDTH}"):
        read_map(tmp_path / "grey.png", (WIDTH, HEIGHT))
