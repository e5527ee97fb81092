"""``python:package.module:factory`` or ``python:path/to/file.py:factory``: the user's own code makes the model."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ..adapters import Adapter, UserModel
from ..errors import ModelError, XaiError
from .base import SOURCES, WRAPPING, Spec
from .weights import load_state, read_checkpoint
from .wrapping import placed, wrap


@SOURCES.register("python")
def open_python(spec: Spec) -> Adapter:
    """A callable without arguments that returns a network (``?task=`` and ``classes=`` say what it is) or a model."""
    place, _, name = spec.what.rpartition(":")
    if not place or not name:
        raise ModelError(f"model {spec.text!r}: expected python:package.module:factory or python:path/to/file.py:factory")
    module = _imported(place)
    factory = getattr(module, name, None)
    if not callable(factory):
        raise ModelError(f"model {spec.text!r}: {place} has no callable {name!r}; it has {', '.join(_callables(module)) or 'none'}")
    made = _guarded(factory, spec.text)
    task, classes, weights = spec.take("task"), spec.classes(), spec.take("weights")
    options = spec.wrapping()
    spec.done(["task", "classes", "weights", *WRAPPING])
    if not isinstance(made, nn.Module) or (hasattr(made, "predict") and hasattr(made, "task")):
        if task or classes or weights:
            raise ModelError(f"model {spec.text!r}: the factory gives a model of its own ({type(made).__name__}); drop task and classes")
        own = made if isinstance(made, Adapter) else UserModel(made, name=spec.text)
        own.weights_hash = own.weights_hash or _source_hash(module)
        return own
    if task is None or classes is None:
        raise ModelError(f"model {spec.text!r}: the factory gives a network; add ?task=segmentation&classes=NAME,NAME,... ")
    if weights:
        load_state(made, read_checkpoint(Path(weights)), spec.text)
    placed(made, options.pop("device", None), options.pop("dtype", None))
    return wrap(made, task=task, classes=classes, name=spec.text, **options)


def _imported(place: str) -> ModuleType:
    path = Path(place)
    if path.suffix != ".py":
        return _guarded(lambda: importlib.import_module(place), f"python:{place}")
    if not path.is_file():
        raise ModelError(f"python:{place}: no such file; expected python:path/to/file.py:factory")
    name = f"xaitools_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ModelError(f"python:{place}: cannot be imported; expected a Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses and pickles look themselves up there
    sys.path.insert(0, str(path.resolve().parent))  # its neighbours, as when it is run as a script
    try:
        _guarded(lambda: found.loader.exec_module(module), f"python:{place}")  # type: ignore[union-attr]
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _guarded(call: Any, text: str) -> Any:
    """What ``call`` gives; an error of the user's code becomes one line that says where it happened."""
    try:
        return call()
    except XaiError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}, line {frame.lineno}"
        raise ModelError(f"model {text!r}: {type(error).__name__} in {where}: {error}; mend that file") from error


def _callables(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value) and getattr(value, "__module__", "") == module.__name__][:10]


def _source_hash(module: ModuleType) -> str:
    """Stands for the weights of a model that has none we could look into."""
    file = getattr(module, "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
