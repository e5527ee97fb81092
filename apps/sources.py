"""Where pictures come from: drawn scenes, datasets in the data folder, an upload; and from nowhere else."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from factors import told
from PIL import Image

from xaitools.data import load_dataset, read_image
from xaitools.data.base import LAYOUTS, Dataset
from xaitools.errors import DataError
from xaitools.locations import data_root
from xaitools.types import Sample

UPLOAD, CAMERA = SENT = ("upload", "camera")
MOST_SENT, MOST_SENT_BYTES = 64, 256 * 2**20
"""Pictures that were sent, and their bytes, that stay on the server for whoever has the address; the newest."""
SCENE = "scenes"
SCENES = ("scenes:test", "scenes:val", "scenes:train")
MAX_UPLOAD_MB = 32
MAX_SIDE = 1024
"""Longer pictures are scaled down: a map of every pixel of a 50-megapixel photograph serves nobody."""


@dataclass(frozen=True)
class Picture:
    """One picture; equal when its name and its pixels are.

    source         how the command line names it
    pixels         height, width and hash
    truth_classes  the names behind ``sample.semantic``
    note           what is known of it, for the caption
    """

    source: tuple[str, ...]
    pixels: tuple[int, int, str]
    sample: Sample = field(compare=False)
    truth_classes: tuple[str, ...] = field(compare=False, default=())
    note: str = field(compare=False, default="")

    @property
    def rgb(self) -> np.ndarray:
        return as_rgb(self.sample.image)


def _signs() -> dict[str, Callable[[Path], Iterator[str]]]:
    """For each layout, the splits that a folder seems to hold."""
    return {
        "camvid": lambda root: (path.stem for path in root.glob("*.txt") if (root / f"{path.stem}annot").is_dir()),
        "voc": lambda root: (path.stem for path in root.glob("ImageSets/Main/*.txt") if path.stem in ("test", "val", "train", "trainval")),
        "coco": lambda root: (path.stem.removeprefix("instances_") for path in root.glob("annotations/instances_*.json")),
        "penn-fudan": lambda root: iter(("test", "train") if (root / "PedMasks").is_dir() else ()),
    }


def offered() -> list[str]:
    """The datasets that are there, as dataset strings with paths relative to the data folder."""
    root = data_root().resolve()
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink()) if root.is_dir() else []
    found = [f"{layout}:{folder.name}#{split}" for folder in folders for layout, splits in _signs().items()
             if layout in LAYOUTS for split in sorted(splits(folder))]  # fmt: skip
    return [*SCENES, *found]


def family(text: str) -> str:
    """A dataset without its split and options.

    >>> family("voc:bccd#test"), family("scenes:val?n=5")
    ('voc:bccd', 'scenes')
    """
    layout = text.partition(":")[0]
    return layout if layout == SCENE else text.partition("#")[0].partition("?")[0]


@lru_cache(maxsize=8)
def dataset(text: str) -> Dataset:
    """The dataset ``text``, whose folder is read as one in the data folder; it has at least one item."""
    data = load_dataset(located(text))
    if not data.ids:
        raise DataError(f"dataset {text!r} has no items; choose another split")
    return data


def located(text: str) -> str:
    """``text`` with the path of its folder as the command line takes it; refused where it leads out of the data folder."""
    layout, _, rest = text.partition(":")
    if layout == SCENE or layout not in LAYOUTS:
        return text
    cut = min((rest.index(mark) for mark in "#?" if mark in rest), default=len(rest))
    root = data_root().resolve()
    try:
        folder = (root / rest[:cut]).resolve()
        inside = folder.is_relative_to(root) and folder.is_dir()
    except (OSError, ValueError):
        inside = False
    if not inside:
        raise DataError(f"dataset {text!r}: no such folder in the data folder; offered are {', '.join(offered())}")
    return f"{layout}:{os.path.relpath(folder)}{rest[cut:]}"


@lru_cache(maxsize=16)
def from_dataset(text: str, item: int) -> Picture:
    data = dataset(text)
    sample = data[item]
    if family(text) == SCENE:
        facts = [told(sample.tags)]
    else:
        facts = [f"{name} {value}" for name, value in sample.tags.items() if name != "file" and isinstance(value, int | str)]
    return made(sample, (located(text), "--item", sample.id), ", ".join([sample.id, *facts]), tuple(data.semantic_classes))


@lru_cache(maxsize=4)
def from_upload(name: str, content: bytes) -> Picture:
    """Raises DataError when ``content`` is no picture that can be read."""
    name = Path(name.replace("\\", "/")).name or "picture"
    return made(Sample(id=name, image=read_image(content, name=name)), (name,), name)


_sent: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
_sending = threading.Lock()


def keep(name: str, content: bytes) -> str:
    """The hash under which the picture can be had again from this server.  Raises DataError when it is no picture that can be read."""
    from_upload(name, content)
    digest = hashlib.sha256(content).hexdigest()
    with _sending:
        _sent[digest] = (name, content)
        _sent.move_to_end(digest)
        while len(_sent) > MOST_SENT or sum(len(each) for _, each in _sent.values()) > MOST_SENT_BYTES:
            _sent.popitem(last=False)
    return digest


def keep_image(name: str, image: torch.Tensor) -> str:
    """The hash of an image (3, H, W) that a page has made; rounded to 255ths, as a picture that was sent."""
    buffer = io.BytesIO()
    Image.fromarray(as_rgb(image)).save(buffer, "png")
    return keep(f"{name}.png", buffer.getvalue())


def kept(digest: str) -> Picture:
    """The picture of that hash.  Raises DataError when it is not here, or no longer."""
    with _sending:
        found = _sent.get(digest)
    if found is None:
        raise DataError(f"picture {digest[:12]!r} is not on this server, or no longer; send it again")
    return from_upload(*found)


def made(sample: Sample, source: tuple[str, ...], note: str, truth_classes: tuple[str, ...] = ()) -> Picture:
    """``sample`` as a picture of the page, scaled down where it is longer than ``MAX_SIDE``."""
    height, width = sample.image.shape[1:]
    scale = MAX_SIDE / max(height, width)
    if scale < 1:
        size = (max(8, round(width * scale)), max(8, round(height * scale)))
        small = Image.fromarray(as_rgb(sample.image)).resize(size, Image.Resampling.LANCZOS)
        image = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255).permute(2, 0, 1).contiguous()
        sample, source = Sample(sample.id, image), ("picture.png",)
        note += f", {width} x {height} scaled down to {size[0]} x {size[1]}: download the picture for the command below"
    digest = hashlib.sha256(sample.image.numpy().tobytes()).hexdigest()
    return Picture(source, (*sample.image.shape[1:], digest), sample, truth_classes, note)


def as_rgb(image: torch.Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] as (H, W, 3) uint8."""
    return (255 * image.permute(1, 2, 0).numpy()).round().astype(np.uint8)
