"""One registry for everything that is added by one new file.

A package holds a ``Registry``, its files decorate what they offer, and the registry imports the files
of its package the first time somebody asks it.  The contract tests iterate over the same registries.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from .errors import XaiError, unknown

T = TypeVar("T")


@dataclass(frozen=True)
class About:
    """What a person should know of an entry before believing it.

    means  in three sentences: what it asks, how it finds out, what the answer looks like
    paper  where it comes from
    doubt  when not to trust it
    """

    means: str
    paper: str
    doubt: str


class Registry(Mapping[str, T], Generic[T]):
    """Names to entries of one kind, filled by the modules of ``package``.

    ``error`` is the exception raised for an unknown name; its message lists the nearest names.
    """

    def __init__(self, kind: str, package: str, error: type[XaiError] = XaiError) -> None:
        self.kind, self.package, self.error = kind, package, error
        self._entries: dict[str, T] = {}
        self._families: dict[str, Callable[[str], T]] = {}
        self._loaded = False

    def add(self, name: str, entry: T) -> T:
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._entries[name] = entry
        return entry

    def register(self, name: str) -> Callable[[T], T]:
        return lambda entry: self.add(name, entry)

    def family(self, prefix: str) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
        """Registers what makes the entry called ``prefix:NAME`` from NAME; such entries are found, but not listed."""

        def add(make: Callable[[str], T]) -> Callable[[str], T]:
            self._families[prefix] = make
            return make

        return add

    def _load(self) -> dict[str, T]:
        if not self._loaded:
            self._loaded = True
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                if not module.name.startswith("_"):
                    importlib.import_module(f"{self.package}.{module.name}")
        return self._entries

    def __getitem__(self, name: str) -> T:
        entries = self._load()
        prefix, colon, rest = name.partition(":")
        if colon and prefix in self._families:
            return self._families[prefix](rest)
        if name not in entries:
            raise self.error(unknown(self.kind, name, entries))
        return entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._load()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._load()))

    def __len__(self) -> int:
        return len(self._load())
