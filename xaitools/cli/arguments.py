"""Words of the command line as values, and numbers as words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..errors import XaiError


class LocalPath(click.ParamType):
    """A path on this machine: an address would become a folder called ``s3:``."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from ..stores import is_uri

        if is_uri(value):
            self.fail(
                f"{value!r}: expected a path on this machine; the folders of probe and audit alone may lie in an object store", param, ctx
            )
        return Path(value)


PATH = LocalPath()


def loaded_model(name: str, device: str, options: Mapping[str, str], threads: int = 0) -> Any:
    import torch

    from ..zoo import load_model

    if threads:
        torch.set_num_threads(threads)
    known = {"score_threshold": float, "dtype": str}
    for key in options:
        if key not in known:
            raise XaiError(f"--set model.{key}: unknown; expected model.{' or model.'.join(known)}")
    try:
        values = {key: known[key](value) for key, value in options.items()}
    except ValueError:
        raise XaiError(f"--set model.score_threshold={options['score_threshold']}: expected a number from 0 to 1") from None
    return load_model(name, device=device, **values)


@dataclass(frozen=True)
class Named:
    """A model and a dataset by their strings, from which any process makes the same."""

    model: str
    dataset: str
    device: str
    options: Mapping[str, str]

    def __call__(self) -> tuple[Any, Any]:
        from ..data import load_dataset

        return loaded_model(self.model, self.device, self.options), load_dataset(self.dataset)


def named_pictures(inputs: Sequence[str], limit: int) -> Iterator[tuple[str, Callable[[], tuple[Any, Any]]]]:
    """(name, function that gives the sample and its dataset, or None) of every image.

    A dataset string stands for its first ``limit`` items.
    """
    from ..data import LAYOUTS, load_dataset, read_image
    from ..types import Sample

    for text in inputs:
        layout = text.partition(":")[0]
        if layout in LAYOUTS and not Path(text).exists():
            dataset = load_dataset(text)
            for index in range(min(limit, len(dataset))):
                yield str(dataset.ids[index]), lambda d=dataset, i=index: (d[i], d)  # type: ignore[misc]
        else:
            name = Path(text).name
            yield name, lambda path=text, n=name: (Sample(n, read_image(path)), None)  # type: ignore[misc]


def parsed_settings(pairs: Sequence[str], owners: set[str]) -> dict[str, dict[str, str]]:
    """``NAME.KEY=VALUE`` as {NAME: {KEY: VALUE}}; a name that this run does not use is refused."""
    found: dict[str, dict[str, str]] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        owner, _, key = name.rpartition(".")
        if not owner or not key or "=" not in pair:
            raise XaiError(f"--set {pair}: expected NAME.KEY=VALUE, e.g. occlusion.window=16")
        if owner not in owners:
            raise XaiError(f"--set {pair}: {owner!r} is not part of this run; expected one of {', '.join(sorted(owners))}")
        found.setdefault(owner, {})[key] = value
    return found


def at_commas(values: Sequence[str]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def parsed_severities(text: str) -> tuple[int, ...]:
    parts = at_commas([text])
    if not parts or any(part not in "12345" or len(part) != 1 for part in parts):
        raise XaiError(f"--severities {text}: expected whole numbers from 1 to 5, e.g. 1,3,5")
    return tuple(sorted({int(part) for part in parts}))


def in_words(value: float | None, ci: Sequence[float] | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.3f}" + (f" [{ci[0]:.3f}, {ci[1]:.3f}]" if ci else "")
