"""What a dataset is, and how a dataset string becomes one.

``LAYOUT:PATH#SPLIT`` names a folder in a known layout, ``#val+test`` its splits one after another; ``scenes:SPLIT?n=..``
is drawn on demand.
A layout is added by one file in this package that registers a function ``(path, split, options) -> Dataset`` in LAYOUTS
and, where datasets can be written in it, a function ``(dataset, split) -> Writer`` in WRITERS.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import parse_qsl

from torch.utils.data import ConcatDataset

from ..errors import DataError
from ..registry import Registry
from ..stores import is_uri
from ..types import Sample

Opener = Callable[[str, str | None, Mapping[str, str]], "Dataset"]

PICTURES = (".jpg", ".png", ".jpeg")

NAME = re.compile(r"[^\W_][\w.()+=@-]{0,199}")

LAYOUTS: Registry[Opener] = Registry("dataset layout", "xaitools.data", DataError)
WRITERS: Registry[Callable[[Dataset, str], Writer]] = Registry("layout to write", "xaitools.data", DataError)


@runtime_checkable
class Dataset(Protocol):
    """An ordered set of samples, each read when it is asked for.

    name              the string that opens it again
    task              the richest task its truth serves: classification, segmentation, detection or instances
    classes           object classes; ``Sample.label`` and ``Sample.labels`` index into it
    semantic_classes  classes of ``Sample.semantic``; empty where there are no semantic maps
    things            names among ``semantic_classes`` that are objects; the rest is background
    ids               unique and stable

    It may also have ``clusters``, a mapping from ids to names of what a bootstrap should draw as a whole, and ``scope``, a
    function from ids to words that say what an interval over these speaks of.

    ``dataset[i]`` raises DataError for a broken item; a run lists it and goes on.
    """

    name: str
    task: str
    classes: tuple[str, ...]
    semantic_classes: tuple[str, ...]
    things: frozenset[str]

    @property
    def ids(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class Writer(Protocol):
    """One split of a dataset as the files of a layout, each a name relative to the dataset's folder and its bytes.

    left_out  what the layout has no place for, in words; complete when all items are through
    """

    @property
    def left_out(self) -> Sequence[str]: ...

    def files(self, sample: Sample) -> list[tuple[str, bytes]]:
        """Raises DataError for an item that the layout cannot hold."""
        ...

    def lists(self) -> list[tuple[str, bytes]]:
        """The files about all items, once these are through."""
        ...


DRAWN = "scenes"
"""The layout without a folder."""


def load_dataset(text: str, told: Callable[[int, int], None] | None = None) -> Dataset:
    """The dataset that ``text`` names.

    Where PATH is the URI of a folder in an object store, s3://BUCKET/PREFIX, what is asked for is fetched into a cache first (see
    ``fetched``), and ``told`` is called with (files done, files in all).

    Raises DataError when the layout is unknown, the folder is missing or does not have the layout, and StoreError where fetching fails.
    """
    layout, colon, rest = text.partition(":")
    if not colon:
        raise DataError(f"dataset {text!r} has no layout; write LAYOUT:PATH#SPLIT, e.g. voc:DIR#test or scenes:test?n=50")
    opener = LAYOUTS[layout]
    rest, _, query = rest.partition("?")
    path, _, split = rest.partition("#")
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        raise DataError(f"dataset {text!r}: the part after '?' must be name=value&name=value") from None
    if any("\0" in part for part in (text, *options.values())):
        raise DataError(f"dataset {text!r}: no name of a file holds the character NUL; leave it out")
    splits = split.split("+") if split else []
    each_of: Sequence[str | None] = splits or [None]
    here = path
    if is_uri(path) and layout != DRAWN:
        from .fetched import fetched

        here = str(fetched(path, layout, splits, told))
    parts = [opener(here, each, options) for each in each_of]
    for part in parts if here != path else ():  # no report depends on where the cache is
        part.name = part.name.replace(here, path)
    return parts[0] if len(parts) == 1 else Joined(text, parts)


class Joined:
    """Splits of one folder, one after another.  Raises DataError where they share an item or differ in their classes."""

    def __init__(self, name: str, parts: Sequence[Dataset]) -> None:
        self.name, self.task = name, parts[0].task
        self.classes, self.semantic_classes, self.things = kinds = _kinds(parts[0])
        if any(_kinds(part) != kinds or part.task != self.task for part in parts):
            raise DataError(f"dataset {name!r}: its splits differ in their classes or tasks; take them one at a time")
        self.ids = unique([id for part in parts for id in part.ids], name)
        self.clusters = {id: f"{place}.{name}" for place, part in enumerate(parts) for id, name in getattr(part, "clusters", {}).items()}
        self.scope = getattr(parts[0], "scope", None)
        self._items: ConcatDataset[Sample] = ConcatDataset(parts)  # type: ignore[arg-type]  # wants a base class, uses none

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return self._items[index]


def _kinds(dataset: Dataset) -> tuple[tuple[str, ...], tuple[str, ...], frozenset[str]]:
    return dataset.classes, dataset.semantic_classes, dataset.things


def folder(path: str, layout: str, *parts: str) -> Path:
    """``path`` as an existing folder that holds the folders ``parts``, or one line that says what is missing."""
    found = Path(os.path.expanduser(path))
    if not path or not os.path.isdir(found):
        raise DataError(f"{layout}: no folder {path!r}; expected the root of a dataset in {layout} layout")
    for part in parts:
        if not (found / part).is_dir():
            raise DataError(f"{layout}: no folder {part!r} in {path!r}; a dataset in {layout} layout has {', '.join(parts)}")
    return found


def no_options(options: Mapping[str, str], layout: str) -> None:
    if options:
        raise DataError(f"{layout}: unknown option {next(iter(options))!r}; a {layout} dataset takes none")


def choose_split(split: str | None, present: Collection[str], layout: str) -> str:
    """``split`` if it is there; where none is asked for the only one, else test, else val.

    >>> choose_split(None, ["train", "val"], "voc")
    'val'
    """
    wanted = [split] if split is not None else present if len(present) == 1 else ["test", "val"]
    for name in wanted:
        if name in present:
            return name
    asked = "name a split" if split is None else f"no split {split!r}"
    raise DataError(f"{layout}: {asked}; write #SPLIT with one of: {', '.join(sorted(present)) or 'none, there is no split here'}")


def inside(root: Path, entry: str) -> Path:
    """``root / entry``, refused where ``..``, a link or an absolute name leads out of the dataset's folder."""
    try:
        path = (root / entry).resolve()
        home = root.resolve()
    except (OSError, RuntimeError, ValueError):
        raise DataError(f"{entry!r} cannot be the name of a file; correct it in the dataset's list or annotation") from None
    if not path.is_relative_to(home):
        raise DataError(f"{entry}: leads outside the dataset's folder and is not followed; put the file itself there")
    return path


def contents(root: Path, entry: str, limit: int) -> bytes:
    """The bytes of the file ``entry`` of a dataset, at most ``limit`` of them."""
    path = inside(root, entry)
    if not os.path.isfile(path):
        raise DataError(f"{entry}: no such file in the dataset's folder; add it, or take the item out of its list")
    try:
        size = path.stat().st_size
        if size > limit:
            raise DataError(f"{entry}: {size / 2**20:.1f} MB; at most {limit / 2**20:g} MB are read, so split the file")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{entry}: cannot be read ({error.strerror}); check its permissions") from None


def find_picture(root: Path, part: str, stem: str) -> str:
    """The picture ``stem`` in the folder ``part`` of a dataset, as a name relative to ``root``."""
    for suffix in PICTURES:
        if os.path.isfile(inside(root, f"{part}/{stem}{suffix}")):
            return f"{part}/{stem}{suffix}"
    raise DataError(f"{part}/{stem}: no picture with {', '.join(PICTURES)}; add it, or take the item out of its list")


def lines(root: Path, entry: str, limit: int = 2**26) -> list[str]:
    """The lines of a text file of a dataset, stripped, without empty ones."""
    text = contents(root, entry, limit).decode("utf-8-sig", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def unique(ids: Sequence[str], source: str) -> Sequence[str]:
    """``ids``, refused where one stands twice."""
    seen: set[str] = set()
    for entry in ids:
        if entry in seen:
            raise DataError(f"{source}: {entry!r} stands there twice; remove one of them")
        seen.add(entry)
    return ids


def file_name(name: str) -> str:
    """``name``, refused where it cannot name a file or stand in a list of files on every system.

    >>> file_name("aachen_000000_000019")
    'aachen_000000_000019'
    """
    if not NAME.fullmatch(name):
        raise DataError(f"{name[:60]!r} cannot name a file; expected letters, digits and _.()+=@-, beginning with a letter or digit")
    return name


def readable(dataset: Dataset, indices: Sequence[int] | None = None) -> Iterator[tuple[int, Sample | DataError]]:
    """Each item of ``indices`` in turn, or the error that says why it cannot be read."""
    for index in range(len(dataset)) if indices is None else indices:
        try:
            yield index, dataset[index]
        except DataError as error:
            yield index, error
