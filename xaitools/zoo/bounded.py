"""Model strings of somebody who is not trusted: nothing runs, nothing is fetched, and no file outside given folders is read."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode

from ..errors import ModelError
from .base import SOURCES
from .shipped import names

NETWORKS = ("torchvision", "smp")
"""Sources whose networks are made without code of anybody else."""

WEIGHTS = ".safetensors"
MOST = {"size": 2048, "crop": 2048, "shorter": 2048, "min_size": 2048, "max_size": 2048}
"""Pixels to which a network may be asked to resize, lest one string takes all memory."""
MOST_CLASSES = 1000
PLAIN = re.compile(r"[\w.+-]{1,100}", re.ASCII)


def bounded(text: str, folders: Sequence[Path]) -> str:
    """``text`` where it may be opened, its files, which lie below one of ``folders``, as the command line takes them.

    Names of the zoo, and ``torchvision:`` or ``smp:`` with ``weights=none`` or a safetensors file there; ``classes=`` may be a
    file there too.  Links and ``..`` are followed before a path is judged.  Raises ModelError, one line, for anything else.
    """
    source, colon, rest = text.partition(":")
    if not colon:
        if text not in names():
            raise ModelError(f"model {text[:100]!r}: not in the zoo; choose one, or type torchvision:NAME?weights=none or smp:NAME?...")
        return text
    if source not in NETWORKS:
        remedy = "that runs code; start the dashboard with --allow-python" if source in SOURCES else "expected torchvision: or smp:"
        raise ModelError(f"model {text[:100]!r}: {remedy}")
    what, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in (("name", what), ("encoder", options.get("encoder", "resnet18"))):
        if not PLAIN.fullmatch(value):
            raise ModelError(f"model {text[:100]!r}: {name} {value[:60]!r}; expected letters, digits, _.+- alone")
    for name, most in MOST.items():
        if any(int(number) > most for number in re.findall(r"\d+", options.get(name, ""))):
            raise ModelError(f"model {text[:100]!r}: {name}={options[name][:60]}; at most {most} pixels here")
    weights = options.get("weights", "published")
    if weights == "published":
        raise ModelError(f"model {text[:100]!r}: nothing is downloaded here; give weights=none or weights=FILE{WEIGHTS} in the data folder")
    if weights != "none":
        options["weights"] = _inside(weights, folders, text, WEIGHTS)
    classes = options.get("classes", "")
    if classes.isdigit() and int(classes) > MOST_CLASSES:
        raise ModelError(f"model {text[:100]!r}: classes={classes[:20]}; at most {MOST_CLASSES} here")
    if _is_file(Path(classes)) or any(_is_file(folder / classes) for folder in folders):
        options["classes"] = _inside(classes, folders, text, ".txt")
    return f"{source}:{what}?{urlencode(options, quote_via=quote, safe='/,')}"


def _inside(name: str, folders: Sequence[Path], text: str, suffix: str) -> str:
    """The path of the file called ``name`` in one of ``folders``."""
    for folder in folders:
        try:
            path, home = (folder / name).resolve(), folder.resolve()
            if path.is_relative_to(home) and path.suffix == suffix and path.is_file():
                return os.path.relpath(path)
        except (OSError, RuntimeError, ValueError):  # a loop of links, a null byte
            continue
    raise ModelError(f"model {text[:100]!r}: no file {name[:60]!r} that ends in {suffix} in the data or model folder; put it there")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, a null byte
        return False
