"""Model strings: ``NAME`` of the zoo, or ``SOURCE:WHAT?option=value&...`` for somebody else's network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from ..errors import ModelError, unknown
from ..registry import Registry

SOURCES: Registry[Callable[..., Any]] = Registry("model source", "xaitools.zoo", ModelError)
"""From what stands before the colon to a function that makes the model; one file adds a source."""

MAX_CLASSES = 100_000
MAX_LIST = 10**7  # characters of a file of class names


@dataclass
class Spec:
    """One model string, taken apart.  Every option must be taken, so that none is quietly ignored."""

    text: str
    what: str
    options: dict[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the caller asked for beside the string: device, dtype, score_threshold."""

    @classmethod
    def parse(cls, text: str, settings: Mapping[str, Any]) -> Spec:
        body, mark, query = text.partition(":")[2].partition("?")
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(mark))
        except ValueError:
            raise ModelError(f"model {text!r}: the part after '?' must be name=value&name=value") from None
        return cls(text, body, dict(pairs), settings)

    def take(self, name: str, default: str | None = None) -> str | None:
        return self.options.pop(name, default)

    def done(self, known: Sequence[str]) -> None:
        """Refuses the options that nobody has taken."""
        if self.options:
            raise ModelError(f"model {self.text!r}: {unknown('option', next(iter(self.options)), known)}")

    def classes(self) -> list[str] | None:
        """Names from ``classes=``: with commas, one a line in a file, or a number of nameless ones."""
        text = self.take("classes")
        if text is None:
            return None
        if text.isascii() and text.isdigit() and 0 < int(text) <= MAX_CLASSES:
            return [f"class {index}" for index in range(int(text))]
        if Path(text).is_file():
            with Path(text).open(encoding="utf-8", errors="replace") as file:
                return [name.strip() for name in file.read(MAX_LIST).splitlines() if name.strip()]
        return [name.strip() for name in text.split(",") if name.strip()]

    def wrapping(self) -> dict[str, Any]:
        """The options of ``xt.wrap`` that any network takes."""
        found: dict[str, Any] = dict(self.settings)
        for name in ("mean", "std"):
            if (text := self.take(name)) is not None:
                found[name] = self._numbers(name, text, 3, float)
        for name in ("size", "crop"):
            if (text := self.take(name)) is not None:
                found[name] = self._numbers(name, text, 2, int)
        for name, kind in (("shorter", int), ("nms", float), ("score_threshold", float)):
            if (text := self.take(name)) is not None:
                found[name] = self._numbers(name, text, 1, kind)[0]
        for name in ("order", "background"):
            if (text := self.take(name)) is not None:
                found[name] = text
        return found

    def number(self, name: str, text: str) -> int:
        return int(self._numbers(name, text, 1, int)[0])

    def _numbers(self, name: str, text: str, count: int, kind: Callable[[str], Any]) -> tuple[Any, ...]:
        try:
            values = tuple(kind(part) for part in text.split(","))
        except ValueError:
            values = ()
        if len(values) != count:
            whole = "whole " if kind is int else ""
            what = f"one {whole}number" if count == 1 else f"{count} {whole}numbers with commas"
            raise ModelError(f"model {self.text!r}: {name}={text!r}; expected {what}")
        return values


WRAPPING = ("mean", "std", "size", "crop", "shorter", "order", "background", "nms", "score_threshold")
