"""What fuzz.py reads: every reader of xaitools with valid seeds, words of its format, and what a grammar of it makes."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

import xaitools as xt
from xaitools.adapters import SegmentationModel
from xaitools.audit import recount
from xaitools.audit.folder import RECORDS, RUN, claim
from xaitools.audit.plan import CLEAN, Piece, make_plan
from xaitools.audit.records import Folder, Row, parquet_bytes, to_table
from xaitools.data.image import read_map, read_segments
from xaitools.data.relabel import read_classes_map
from xaitools.data.repaired import read_repair
from xaitools.data.writing import write_dataset
from xaitools.errors import XaiError
from xaitools.metrics.groups import read_columns
from xaitools.report.store import load_explanation, save_explanation
from xaitools.targets import Target
from xaitools.training.recipe import read_recipe
from xaitools.types import Explanation
from xaitools.zoo import shipped
from xaitools.zoo.weights import read_checkpoint, read_weights

CHUNKS = (b"IHDR", b"IDAT", b"PLTE", b"tRNS", b"eXIf", b"iCCP", b"\xff\xd8", b"\xff\xc0", b"\xff\xda", b"II*\0", b"GIF89a", b"RIFF")

Read = Callable[[bytes], Any]


@dataclass
class Reader:
    """seeds  valid inputs, words  pieces of the format, made  what hypothesis makes beside bytes"""

    read: Read
    seeds: Sequence[bytes]
    words: Sequence[bytes] = ()
    made: st.SearchStrategy[bytes] | None = None


def picture(mode: str, form: str, side: int = 16, **options: Any) -> bytes:
    values = np.random.default_rng(0).integers(0, 4, (side, side, 3)).astype(np.uint8)
    image = Image.fromarray(values).convert(mode) if mode != "I;16" else Image.fromarray(values[..., 0].astype(np.uint16))
    if mode == "P":
        image = Image.fromarray(values[..., 0]).convert("P")
    found = io.BytesIO()
    image.save(found, form, **options)
    return found.getvalue()


def text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def in_file(path: Path, read: Callable[[], Any]) -> Read:
    """Reads by ``read`` after the bytes were put into ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def write_and_read(data: bytes) -> Any:
        path.write_bytes(data)
        return read()

    return write_and_read


def items(string: str) -> list[Any]:
    """All items of a dataset, each of which may be refused by itself."""
    data = xt.load_dataset(string)
    found: list[Any] = []
    for index in range(min(len(data), 4)):
        try:
            found.append(data[index])
        except XaiError as error:
            found.append(str(error))
    if found and all(isinstance(each, str) for each in found):
        raise XaiError(found[0])
    return found


def nothing_but_json(known: Sequence[str]) -> st.SearchStrategy[bytes]:
    numbers = st.integers(-3, 70) | st.sampled_from([0, 1, -1, 2**31, 2**63, 1e308]) | st.floats(allow_nan=True)
    leaf = st.none() | st.booleans() | numbers | st.text(max_size=8) | st.sampled_from(list(known))
    keys = st.sampled_from(list(known)) | st.text(max_size=5)
    tree = st.recursive(leaf, lambda each: st.lists(each, max_size=5) | st.dictionaries(keys, each, max_size=6), max_leaves=25)
    return st.dictionaries(keys, tree, max_size=8).map(lambda value: json.dumps(value).encode())


def tags(names: Sequence[str]) -> st.SearchStrategy[bytes]:
    name = st.sampled_from(list(names))
    leaf = st.tuples(name, st.integers(-5, 40).map(str) | st.text("<&;>ab1. ", max_size=6)).map(lambda each: "<{0}>{1}</{0}>".format(*each))
    tree = st.recursive(
        leaf, lambda each: st.tuples(name, st.lists(each, max_size=6)).map(lambda p: f"<{p[0]}>{''.join(p[1])}</{p[0]}>"), max_leaves=20
    )
    return st.lists(tree, max_size=6).map(lambda each: f"<annotation>{''.join(each)}</annotation>".encode())


def joined(parts: Sequence[str]) -> st.SearchStrategy[bytes]:
    part = st.sampled_from(list(parts)) | st.integers(-10, 10**12).map(str) | st.text(max_size=4)
    return st.lists(part, max_size=12).map(lambda each: "".join(each).encode("utf-8", "surrogateescape"))


def readers(root: Path) -> dict[str, Reader]:
    """Every reader with its seeds; ``root`` is an empty folder for the files that it wants around it."""
    scenes = xt.load_dataset("scenes:test?n=2&size=32")
    for layout in ("voc", "coco", "cityscapes", "camvid"):
        write_dataset({"test": scenes}, layout, root / layout)
    return _pictures() | _datasets(root, scenes) | _lists(root, scenes) | _models(root) | _runs(root, scenes) | _strings(root)


def _pictures() -> dict[str, Reader]:
    pictures = [picture("RGB", form) for form in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")]
    pictures += [picture(mode, "PNG") for mode in ("L", "P", "RGBA", "LA", "1", "I;16")] + [picture("CMYK", "JPEG"), picture("F", "TIFF")]
    maps = [picture(mode, "PNG") for mode in ("L", "P", "1", "I;16")]
    return {
        "image": Reader(xt.read_image, pictures, CHUNKS),
        "label map": Reader(lambda data: read_map(data, (16, 16)), maps, CHUNKS),  # type: ignore[arg-type]
        "segment numbers": Reader(lambda data: read_segments(data, (16, 16)), [picture("RGB", "PNG")], CHUNKS),  # type: ignore[arg-type]
    }


def _datasets(root: Path, scenes: Any) -> dict[str, Reader]:
    def made(layout: str, pattern: str, words: Sequence[bytes], made: st.SearchStrategy[bytes] | None = None) -> Reader:
        """One file of a dataset of its own, the rest of which stays sound."""
        home = Path(tempfile.mkdtemp(dir=root)) / layout
        shutil.copytree(root / layout, home)
        paths = sorted(home.rglob(pattern))
        read = in_file(paths[0], lambda: items(f"{layout}:{home}#test"))
        return Reader(read, [path.read_bytes() for path in paths], words, made)

    boxes = ["object", "name", "bndbox", "xmin", "ymin", "xmax", "ymax", "difficult", "size", "width", "height", "depth", "part"]
    evil = [b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b"<![CDATA[", b"<?xml version='1.0' encoding='utf-7'?>", b"nan", b"1e999", b"-1"]
    names = ["../", "/", "\n", " 1", " -1", ".xml", "\0", *scenes.ids]
    keys = ["images", "annotations", "categories", "id", "image_id", "category_id", "bbox", "segmentation", "counts", "size", "iscrowd",
            "file_name", "width", "height", "name", "isthing", "segments_info", "area"]  # fmt: skip
    values = [b"null", b"[]", b"{}", b"-1", b"1e999", b"NaN", b'"../../etc/hostname"', b"[[1e9]]"]
    found = {
        "VOC annotation": made("voc", "*.xml", [*(f"<{each}>".encode() for each in boxes), *evil], tags(boxes)),
        "VOC list": made("voc", "test.txt", [b"../", b"/etc/hostname", b"\n", b"\0", b"\r"], joined(names)),
        "VOC classes": made("voc", "classes.txt", [b"1 ", b"\n", b"background", b"0 a"], joined(["1 a", "\n", "2 b", "background", "#"])),
        "Cityscapes labels": made(
            "cityscapes", "labels.csv", [b",", b"\n", b'"', b"256", b"-1", b"\xef\xbb\xbf"],
            joined(["id,name,semantic,instances,thing\n", "0,a,0,,1\n", ",", "\n", '"', "256", "-1", "1"]),
        ),
        "Cityscapes instances": made("cityscapes", "*instanceIds.png", CHUNKS),
        "CamVid classes": made("camvid", "classes.txt", [b" ", b"\n", b"255", b"-1"], joined(["a", "\n", " ", "0", "1", "255"])),
        "CamVid list": made("camvid", "test.txt", [b"../", b" ", b"\n", b"\0"], joined(["../", "test/", "\n", " ", ".png", *scenes.ids])),
    }  # fmt: skip
    for kind in ("instances", "panoptic", "stuff"):
        if list((root / "coco").rglob(f"{kind}_*.json")):
            words = [*(f'"{each}":'.encode() for each in keys), *values]
            found[f"COCO {kind}"] = made("coco", f"{kind}_*.json", words, nothing_but_json(keys))
    return found


def _lists(root: Path, scenes: Any) -> dict[str, Reader]:
    words = [b",", b"\n", b'"', b"\0", b"mask", b"-1", b"nan"]
    groups = "id,group\n" + "".join(f"{id},a\n" for id in scenes.ids)
    repair = "id,action,weight,left,top,right,bottom\n" + "".join(f"{id},mask,1,1,2,9,8\n" for id in scenes.ids)
    made = joined([",", "\n", '"', "id", "action", "weight", "group", "keep", *scenes.ids])
    return {
        "classes map": Reader(in_file(root / "map.csv", lambda: read_classes_map(root / "map.csv")), [b"a,b\nc,d\n"], words, made),
        "groups": Reader(
            in_file(root / "groups.csv", lambda: read_columns(root / "groups.csv", scenes.ids)), [groups.encode()], words, made
        ),
        "repair list": Reader(
            in_file(root / "repair.csv", lambda: read_repair(root / "repair.csv", scenes.ids)), [repair.encode()], words, made
        ),
    }


def _models(root: Path) -> dict[str, Reader]:
    """Cards, recipes and weights."""
    own, models = shipped.part("models") / "unet-scenes", root / "models"
    (models / "any").mkdir(parents=True)
    (models / "any" / "weights.safetensors").write_bytes((own / "weights.safetensors").read_bytes())

    def zoo() -> Any:
        before, shipped.part = shipped.part, lambda _: models
        try:
            return shipped.load("any")
        finally:
            shipped.part = before

    toml = [
        b"=",
        b"[",
        b"]",
        b'"',
        b"architecture",
        b"classes",
        b"task",
        b"[input]",
        b"mean",
        b"sha256",
        b"[network]",
        b"-1",
        b"nan",
        b"1e9",
    ]
    lines = joined([*(each.decode() for each in toml), "\n", " = 1"])
    header = [b'"dtype":"F32"', b'"shape":[2,3]', b'"data_offsets":[0,24]', b'"__metadata__":{}', b"BF16", b"-1", b"18446744073709551615"]
    archive = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, archive)
    pickles = [b"cos\nsystem\n", b"PK\x03\x04", b"\x80\x02", b"R."]
    tensors = save({"a": torch.zeros(2, 3), "b": torch.ones(4, dtype=torch.int64)})
    recipe, weights, checkpoint = (root / name for name in ("recipe.toml", "w.safetensors", "w.pt"))
    return {
        "card": Reader(in_file(models / "any" / "card.toml", zoo), [(own / "card.toml").read_bytes()], toml, lines),
        "recipe": Reader(in_file(recipe, lambda: read_recipe(recipe)), [(own / "recipe.toml").read_bytes()], toml, lines),
        "safetensors": Reader(in_file(weights, lambda: read_weights(weights)), [tensors], header),
        "checkpoint": Reader(in_file(checkpoint, lambda: read_checkpoint(checkpoint)), [archive.getvalue()], pickles),
    }


def _strings(root: Path) -> dict[str, Reader]:
    def model(data: bytes) -> Any:
        return xt.load_model(text(data).replace("python:", "pythom:"))

    models = ["unet-scenes", "torchvision:", "smp:", "resnet18", "Unet", "?", "&", "=", "weights=none", "classes=", "3", "a,b",
              "encoder=resnet18", "task=", "segmentation", "mean=", "0.5,0.5,0.5", "size=", "32,32", "background=", "first", "device=", "%",
              "#", "nms=", "1e999"]  # fmt: skip
    layouts = ["voc:", "coco:", "cityscapes:", "camvid:", "folder:", "penn-fudan:", "cue-conflict:", "scenes:", "test", "train", "#", "?",
               "&", "=", "n=", "size=", "seed=", "shortcut=", "tag", "rho=", "crop=", "prevalence=", "+", "..", "/", "%", "-1", "1e9",
               "999999999", str(root / "voc")]  # fmt: skip
    targets = ["top", "all", "class:", "pixel:", "region:", "gt:", "box:", "mask:", ":left", ":vs:", "1,2", "1,2,3,4", "car", "%20", ":",
               ",", "nan", "inf"]  # fmt: skip
    some = {
        "model string": (model, models,
                         ["torchvision:resnet18?weights=none", "smp:Unet?encoder=resnet18&classes=3&weights=none", "unet-scenes"]),
        "dataset string": (lambda data: items(text(data)), layouts,
                           ["scenes:test?n=4&size=32&shortcut=tag&rho=1", f"voc:{root / 'voc'}#test", "coco:.#val", "scenes:val?crop=64"]),
        "target": (target, targets, ["box:0:left", "pixel:1,2:car", "region:gt:traffic%20light:vs:", "box:1,2,3,4:car", "class:a:vs:b"]),
    }  # fmt: skip
    return {
        name: Reader(read, [each.encode() for each in seeds], [each.encode() for each in words], joined(words))
        for name, (read, words, seeds) in some.items()
    }


def target(data: bytes) -> Target:
    """A target, which must be the same when it was written and read again."""
    found = Target.parse(text(data))
    if Target.parse(str(found)) != found:
        raise AssertionError(f"{text(data)!r} became {found} and then another")
    return found


def _runs(root: Path, scenes: Any) -> dict[str, Reader]:
    """What a folder of a run holds, and an explanation."""

    class Grey(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :1].repeat(1, len(scenes.semantic_classes), 1, 1)

    model = SegmentationModel(Grey(), scenes.semantic_classes, background=0, name="grey")
    result = xt.probe(model, scenes, ["fog"], out=root / "run", relevance=0)
    plan, _ = make_plan(model, scenes, ["fog"], relevance=0)
    run, records = (root / "run" / RUN).read_bytes(), parquet_bytes(result.records)
    claimed, counted, other, why = (root / name for name in ("claimed", "counted", "other", "why"))
    (counted / RECORDS).mkdir(parents=True)
    (counted / RECORDS / "all.parquet").write_bytes(records)
    other.mkdir()
    (other / RUN).write_bytes(run)
    piece, store = Piece(0, CLEAN, (0,)), Folder(root / "store", plan.identity)
    rows = [Row(scenes.ids[0], "clean", 0, None, {"confusion": np.zeros(4, np.int64)})]
    attribution = xt.explain(model, scenes[0].image, target="top", method="saliency")
    named = Explanation("grey", "a.png", scenes[0].image, None, (attribution.target,), (attribution.method,), (attribution,))
    save_explanation(named, why, formats=())
    words = [b'"plan"', b'"identity"', b"{", b"[", b"null", b"1e999", b'"items"', b'"severities"', b'"conditions"', b'"fog-3"', b"-1"]
    facts = ["plan", "identity", "items", "severities", "conditions", "probes", "fog", "seed", "batch_size", "model", "task", "classes"]
    keys = ["model", "image", "image_size", "task", "predictions", "label", "score", "box_xyxy", "explanations", "target", "method",
            "params", "tensor", "ledger", "seconds", "notes", "error"]  # fmt: skip
    told = why / "explanation.json"
    fields = [f'"{each}":'.encode() for each in keys]
    return {
        "run.json, resumed": Reader(
            in_file(claimed / RUN, lambda: claim(claimed, plan, True, dry=True)), [run], words, nothing_but_json(facts)
        ),
        "run.json, recounted": Reader(
            in_file(counted / RUN, lambda: recount(counted, replicates=20)), [run], words, nothing_but_json(facts)
        ),
        "records": Reader(
            in_file(other / RECORDS / "all.parquet", lambda: recount(other, replicates=20)), [records], [b"PAR1", b"confusion"]
        ),
        "piece": Reader(in_file(store.path(piece), lambda: store.read(piece, [scenes.ids[0]])), [parquet_bytes(to_table(rows))], [b"PAR1"]),
        "explanation": Reader(in_file(told, lambda: load_explanation(why)), [told.read_bytes()], fields, nothing_but_json(keys)),
    }
