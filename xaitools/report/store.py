"""Explanations on disk: every file is written whole or not at all, and nothing read back is trusted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .. import __version__
from ..data.png import png
from ..errors import DataError, PlanError, XaiError
from ..files import DRAFT, UNFINISHED, folder_name, plain, read_json, write_bytes, write_json
from ..types import TASKS, Attribution, Explanation, Prediction, Refusal
from .trace_document import trace_document, trace_of, trace_text

FORMATS = ("png", "pdf", "svg")
MAX_TENSOR_BYTES = 4 * 2**30

DRAWN = ("class-model-", "feature-projection-")
"""How the names of images begin that a method made; not read back."""

DOCUMENT, TENSORS, TRACE, PANELS = "explanation.json", "attributions.safetensors", "trace.json", "panels.json"
PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}


def explanations_of(result: object, image: Tensor | None = None, prediction: Prediction | None = None) -> list[Explanation]:
    """``result`` as explanations: these themselves, or attributions of one image, completed by what is given."""
    results = list(result) if isinstance(result, Sequence) else [result]
    pairs = tuple(each for each in results if isinstance(each, Attribution | Refusal))
    explanations = [each for each in results if isinstance(each, Explanation)]
    if not results or len(results) not in (len(pairs), len(explanations)):
        came = ", ".join(sorted({type(each).__name__ for each in results})) or "an empty list"
        raise XaiError(f"got {came}; expected an attribution, an explanation, or a list of one of them")
    targets, methods = dict.fromkeys(each.target for each in pairs), dict.fromkeys(each.method for each in pairs)
    return explanations or [Explanation("", "", image, prediction, tuple(targets), tuple(methods), pairs)]


def document(explanation: Explanation) -> dict[str, Any]:
    """What stands in explanation.json; see the README.  ``area`` is in pixels, boxes are xyxy in pixels of the image."""
    rows, counts = [], dict.fromkeys(explanation.methods, 0)
    for each in explanation.pairs():
        rows.append(_row(each, counts[each.method]))
        counts[each.method] += isinstance(each, Attribution)
    prediction = explanation.prediction
    return plain(
        {
            "xaitools": __version__,
            "model": explanation.model,
            "image": explanation.name,
            "image_size": _size(explanation),
            "task": prediction.task if prediction else None,
            "predictions": _found(prediction) if prediction else [],
            "explanations": rows,
        }
    )


def _row(each: Attribution | Refusal, index: int) -> dict[str, Any]:
    if isinstance(each, Refusal):
        return {"target": each.target, "method": each.method, "error": " ".join(each.error.split())}
    row = {
        "target": each.target,
        "method": each.method,
        "params": each.params,
        "seed": each.seed,
        "score": each.score,
        "relevance_sum": float(each.values.double().sum()),
        "seconds": each.seconds,
        "tensor": [each.method, index],
    }
    if each.ledger is not None:
        row["ledger"] = [{"layer": layer, "absorbed": absorbed} for layer, absorbed in each.ledger]
    if each.notes:
        row["notes"] = each.notes
    return row


def _size(explanation: Explanation) -> list[int]:
    if explanation.image is not None:
        return list(explanation.image.shape[-2:])
    maps = [each.values for each in explanation.attributions if isinstance(each, Attribution)]
    return list(maps[0].shape) if maps else list(explanation.prediction.image_size) if explanation.prediction else [0, 0]


def _found(prediction: Prediction) -> list[dict[str, Any]]:
    rows = []
    for index, (label, score) in enumerate(zip(prediction.labels.tolist(), prediction.scores.tolist(), strict=True)):
        row: dict[str, Any] = {"label": prediction.classes[label], "score": score}
        if prediction.boxes is not None:
            row["box_xyxy"] = prediction.boxes[index]
        if prediction.masks is not None:
            row["area"] = int(prediction.masks[index].sum())
        elif prediction.semantic is not None:
            row["area"] = int((prediction.semantic == label).sum())
        rows.append(row)
    return rows


def tensors(explanation: Explanation) -> dict[str, Tensor]:
    """One float32 tensor (K, H, W) for each method that explained anything, rows in the order of the targets."""
    maps: dict[str, list[Tensor]] = {}
    for each in explanation.pairs():
        if isinstance(each, Attribution):
            maps.setdefault(each.method, []).append(each.values.detach().to("cpu", torch.float32))
    return {method: torch.stack(rows) for method, rows in maps.items()}


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """``formats`` itself, or one line that says which are known."""
    for each in formats:
        if each not in FORMATS:
            raise XaiError(f"figure format {each!r}; expected {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(formats))


def save_explanation(explanation: Explanation, out: str | Path, formats: Sequence[str] = ("png",), **look: Any) -> list[Path]:
    """Writes explanation.json, attributions.safetensors and figure.<format> into the folder ``out``; gives their paths.

    Where a method is LRP, also ledger.<format>; where an attribution carries a trace, also trace.json (see
    ``trace_document``) and trace.<format>, where it carries panels, panels.json (see ``panels_document``) and
    panels.<format>, and where it carries an image <method>-<target>.png, none of which are read back.  ``look`` goes to
    ``figure``.  An earlier explanation in ``out`` is replaced; explanation.json goes first and comes last, so that a folder
    which has one is complete.  Raises PlanError when ``out`` holds anything else.
    """
    folder = _claim(out)
    files = {TENSORS: save(tensors(explanation))} | _drawn(explanation) | _figures(explanation, formats, look)
    files |= _ledger_figures(explanation, formats, look)
    if (trace := trace_of(explanation)) is not None:
        files |= {TRACE: trace_text(trace_document(explanation, trace)).encode()} | _trace_figures(explanation, formats, look)
    if any(isinstance(each, Attribution) and each.panels is not None for each in explanation.attributions):
        files |= _panels(explanation, formats, look)
    return replace_files(folder, DOCUMENT, document(explanation), files)


def save_explanations(
    explanations: Sequence[Explanation], out: str | Path | None, formats: Sequence[str] = ("png",), *, layout: str = "single",
    folders: Sequence[Path] | None = None, **look: Any,
) -> tuple[list[dict[str, Any]], list[Path]]:  # fmt: skip
    """The documents of several images, and the files written for them: none without ``out``.

    One image goes into ``out`` itself, several into one folder each, named after them, unless ``folders`` says where each of
    them goes.  With the layout ``sheet`` the figure of all lies in ``out``, and the folders hold the maps.  Raises PlanError,
    before anything is written, when
    ``out`` holds anything else.
    """
    documents = [document(each) for each in explanations]
    if out is None:
        return documents, []
    root = Path(out).expanduser()
    folders = folders or check_out(out, [each.name for each in explanations])
    if list(folders) == [root]:
        return documents, save_explanation(explanations[0], out, formats, layout=layout, **look)
    sheet = layout == "sheet"
    figures = _figures(explanations, formats, {"layout": layout, **look}) if sheet else {}
    files = [path for each, folder in zip(explanations, folders, strict=True)
             for path in save_explanation(each, folder, () if sheet else formats, **look)]  # fmt: skip
    for name, data in figures.items():
        write_bytes(root / name, data)
    return documents, [*files, *(root / name for name in figures)]


def _figures(result: Explanation | Sequence[Explanation], formats: Sequence[str], look: dict[str, Any]) -> dict[str, bytes]:
    if not formats:
        return {}
    from .figures import figure, figure_bytes  # so that reading and writing work without matplotlib

    drawing = figure(result, **look)
    return {f"figure.{each}": figure_bytes(drawing, each) for each in check_formats(formats)}


def _drawn(explanation: Explanation) -> dict[str, bytes]:
    """The images that a method made, named after their targets."""
    files: dict[str, bytes] = {}
    for each in explanation.pairs():
        if isinstance(each, Attribution) and each.image is not None:
            name = f"{each.method}-{folder_name(each.target)}"
            taken = sum(other.startswith(name) for other in files)
            files[f"{name}-{taken + 1}.png" if f"{name}.png" in files else f"{name}.png"] = png(each.image)
    return files


def _trace_figures(explanation: Explanation, formats: Sequence[str], look: dict[str, Any]) -> dict[str, bytes]:
    if not formats:
        return {}
    from .trace import trace_figure

    return _beside("trace", trace_figure, explanation, formats, look)


def _panels(explanation: Explanation, formats: Sequence[str], look: dict[str, Any]) -> dict[str, bytes]:
    from .panels import panels_document, panels_figure

    text = json.dumps(panels_document(explanation), ensure_ascii=False, allow_nan=False)
    return {PANELS: text.encode()} | (_beside("panels", panels_figure, explanation, formats, look) if formats else {})


def _ledger_figures(explanation: Explanation, formats: Sequence[str], look: dict[str, Any]) -> dict[str, bytes]:
    if not formats:
        return {}
    from .ledger import ledger_figure, with_ledger

    return _beside("ledger", ledger_figure, explanation, formats, look) if with_ledger(explanation) else {}


def _beside(
    name: str, draw: Callable[..., Any], explanation: Explanation, formats: Sequence[str], look: dict[str, Any]
) -> dict[str, bytes]:
    """A figure that goes with that of the maps; of ``look`` it has the page, not the arrangement."""
    from .page import figure_bytes

    drawing = draw(explanation, **{key: value for key, value in look.items() if key not in ("layout", "scale")})
    return {f"{name}.{each}": figure_bytes(drawing, each) for each in check_formats(formats)}


def claimed(out: str | Path, document: str, others: Set[str], what: str) -> Path:
    """``out`` as a folder that may be written: new, empty, or holding nothing but ``what`` in words, with its ``document``."""
    folder = Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise PlanError(f"--out {out}: a file stands there; give a folder")
    names = {path.name for path in folder.iterdir() if not _left(path)} if folder.exists() else set()
    strange = names - others - {document}
    if strange or (names and document not in names):  # the others alone may be anybody's
        raise PlanError(f"--out {out}: holds {min(strange or names)!r}, which is no part of {what}; give a new or empty folder")
    return folder


def replace_files(folder: Path, document: str, value: Any, files: Mapping[str, bytes]) -> list[Path]:
    """Writes ``files`` and ``value`` as the JSON ``document`` in place of what the folder held; gives their paths.

    The document goes first and comes last, so that a folder which has one is complete.  What is unfinished there stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in [
        folder / document,
        *(path for path in folder.iterdir() if path.name not in files and not path.name.startswith(UNFINISHED)),
    ]:
        stale.unlink(missing_ok=True)
    for name, data in files.items():
        write_bytes(folder / name, data)
    write_json(folder / document, value)
    return [folder / name for name in (document, *files)]


def _left(path: Path) -> bool:
    """Whether a file is one from which a computation goes on, or half written: nothing that a result consists of."""
    return path.name.endswith(DRAFT) or path.name.startswith(UNFINISHED)


def check_out(out: str | Path, names: Sequence[str]) -> list[Path]:
    """The folder for each image of ``names`` in ``out``; PlanError when one of them holds anything but an earlier explanation."""
    if len(names) == 1:
        return [_claim(out)]
    root = Path(out).expanduser()
    folders = [root / name for name in _folder_names(names)]
    _claim(root, also={folder.name for folder in folders})
    return [_claim(folder) for folder in folders]


def _folder_names(images: Sequence[str]) -> list[str]:
    """One name for each, its image's where the file system takes it; equal names are numbered."""
    names: list[str] = []
    for each in images:
        path = Path(each)
        base = folder_name(each.removesuffix(path.suffix) if path.suffix.lower() in PICTURES else each)
        taken = sum(name == base or name.startswith(f"{base}-") for name in names)
        names.append(f"{base}-{taken + 1}" if base in names else base)
    return names


def _claim(out: str | Path, also: Set[str] = frozenset()) -> Path:
    """``out`` as a folder that may be written: new, empty, or holding nothing but an earlier explanation and ``also``."""
    folder = Path(out).expanduser()
    if not folder.exists():
        return folder
    if not folder.is_dir():
        raise PlanError(f"--out {out}: a file stands there; give a folder")
    names = {path.name for path in folder.iterdir() if not _left(path)}
    figures = {f"{name}.{each}" for name in ("figure", "ledger", "trace", "panels") for each in FORMATS}
    drawn = {name for name in names if name.startswith(DRAWN) and name.endswith(".png")}
    strange = names - {DOCUMENT, TENSORS, TRACE, PANELS} - figures - drawn - also
    # figures alone may be anybody's
    if strange or (names and names <= figures | drawn):
        raise PlanError(f"--out {out}: holds {min(strange or names)!r}, which is no part of an explanation; give a new or empty folder")
    return folder


def load_explanation(folder: str | Path, image: Tensor | None = None) -> Explanation:
    """The explanation that ``save_explanation`` wrote; give the ``image`` (3, H, W) to draw it again.

    The prediction holds what explanation.json says: boxes and labels, with the found classes as its classes, but no
    semantic map and no masks.  Raises DataError when a file is missing, damaged, or does not fit the other.
    """
    folder = Path(folder).expanduser()
    content = read_json(folder / DOCUMENT)
    try:
        size = _sizes(content["image_size"])
        if image is not None and tuple(image.shape) != (3, *size):
            raise DataError(f"{folder}: explains an image of (3, H, W) = {(3, *size)}, got {tuple(image.shape)}; give the same image")
        attributions = tuple(_attributions(folder / TENSORS, content["explanations"], size))
        prediction = _prediction(content["task"], content["predictions"], size) if content["task"] else None
        rows = [(each.target, each.method) for each in attributions]
        targets, methods = (tuple(dict.fromkeys(names)) for names in (zip(*rows, strict=True) if rows else ((), ())))
        return Explanation(str(content["model"]), str(content["image"]), image, prediction, targets, methods, attributions)
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, SafetensorError) as error:
        raise DataError(f"{folder}: not an explanation written by xaitools ({type(error).__name__}: {error}); explain again") from None


def _sizes(pair: Any) -> tuple[int, int]:
    height, width = (int(each) for each in pair)
    return height, width


def _attributions(path: Path, rows: list[Any], size: tuple[int, int]) -> Iterator[Attribution | Refusal]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; explain again")
    if path.stat().st_size > MAX_TENSOR_BYTES:
        raise DataError(f"{path}: more than {MAX_TENSOR_BYTES // 2**30} GB; no file of ours is so large")
    seen = set()
    with safe_open(path, framework="pt") as file:
        for row in rows:
            target, method = str(row["target"]), str(row["method"])
            if "error" in row:
                yield Refusal(target, method, str(row["error"]))
                continue
            name, index = row["tensor"]
            if (name, index) in seen:  # else a small file could ask for any amount of memory
                raise DataError(f"{path}: map {index} of {name!r} is named twice; explain again")
            seen.add((name, index))
            block = file.get_slice(name)
            if block.get_dtype() != "F32" or tuple(block.get_shape()[1:]) != size or not 0 <= index < block.get_shape()[0]:
                raise DataError(f"{path}: tensor {name!r} holds no map {index} of {size} in float32; explain again")
            ledger = tuple((str(each["layer"]), float(each["absorbed"])) for each in row["ledger"]) if "ledger" in row else None
            params, notes = dict(row["params"]), tuple(map(str, row.get("notes", ())))
            score = math.nan if row["score"] is None else float(row["score"])
            yield Attribution(block[index], target, method, params, int(row["seed"]), score, ledger, float(row["seconds"] or 0), notes)


def _prediction(task: str, rows: list[Any], size: tuple[int, int]) -> Prediction:
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}")
    classes = tuple(dict.fromkeys(str(row["label"]) for row in rows))
    labels = torch.tensor([classes.index(str(row["label"])) for row in rows], dtype=torch.int64)
    scores = torch.tensor([float(row["score"]) for row in rows])
    boxes = torch.tensor([row["box_xyxy"] for row in rows]).reshape(-1, 4) if task in ("detection", "instances") else None
    return Prediction(task, classes, size, labels, scores, boxes=boxes)
