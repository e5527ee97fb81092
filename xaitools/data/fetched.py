"""Datasets in object stores: what is asked for is fetched once into a folder here, and again where it has changed there.

``camvid:s3://BUCKET/camvid#test`` fetches the split alone in the layouts that tell by names or lists which files are a split's
(camvid, cityscapes, coco, folder, voc), else everything.  A file has changed when its size or the time of its last writing differs.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from ..errors import DataError, StoreError
from ..files import folder_name, read_json, write_bytes, write_json
from ..locations import CACHE_GB, cache_bytes, cache_root
from ..stores import Entry, Store, opened
from .base import inside, lines

Progress = Callable[[int, int], None]
Wanted = Callable[["Copy", Sequence[str]], Iterable[str]]

AT_ONCE = 8
"""Files that are fetched at the same time."""
MAX_FILE_BYTES = 2**30


class Copy:
    """The folder ``root`` in the cache with what was fetched of ``store``; beside it stands which files these are."""

    def __init__(self, store: Store, told: Progress | None) -> None:
        self.store, self.there, self.told = store, store.listed(), told
        if not self.there:
            raise StoreError(f"{store.uri}: holds no file; expected the root of a dataset")
        name = f"{folder_name(store.uri.partition('://')[2])}-{hashlib.sha256(store.uri.encode()).hexdigest()[:12]}"
        self.root = cache_root() / name
        self.index = self.root.with_name(f"{name}.json")
        self.here = _index(self.index)
        for name in [name for name, entry in self.here.items() if self.there.get(name) != entry]:
            inside(self.root, name).unlink(missing_ok=True)
            del self.here[name]

    def fetch(self, names: Iterable[str]) -> None:
        """Those of ``names`` that are in the store and not here.  What was fetched before something failed stays."""
        self.root.mkdir(parents=True, exist_ok=True)
        new = sorted(name for name in {*names} & self.there.keys() if name not in self.here or not inside(self.root, name).is_file())
        self._check_room(new)
        with ThreadPoolExecutor(AT_ONCE) as threads:
            try:
                for done, each in enumerate(as_completed([threads.submit(self._get, name) for name in new]), 1):
                    each.result()
                    if self.told is not None:
                        self.told(done, len(new))
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise
            finally:
                write_json(self.index, {name: [entry.size, entry.changed] for name, entry in sorted(self.here.items())})

    def _get(self, name: str) -> None:
        size, path = self.there[name].size, inside(self.root, name)
        data = self.store.read(name, min(size, MAX_FILE_BYTES))
        if len(data) < size:
            raise StoreError(f"{self.store.uri}/{name}: was cut short while it was fetched; try again when nobody writes there")
        try:
            write_bytes(path, data)
        except OSError as error:
            raise StoreError(f"{path}: cannot be written ({error.strerror}); make room, or set XAITOOLS_CACHE to another folder") from None
        self.here[name] = self.there[name]

    def _check_room(self, new: Collection[str]) -> None:
        """The cache as a whole has a bound; nothing in it is deleted unasked, as another run may be reading it."""
        held = sum(entry.size for path in cache_root().glob("*.json") if path != self.index for entry in _index(path).values())
        held += sum(entry.size for entry in self.here.values())
        needed, limit = sum(self.there[name].size for name in new), cache_bytes()
        if new and held + needed > limit:
            raise StoreError(
                f"{self.store.uri}: {needed / 1e9:.3g} GB are to be fetched, and the cache {cache_root()} holds {held / 1e9:.3g} of "
                f"{limit / 1e9:.3g} GB; delete folders there that nobody needs, or set {CACHE_GB} to more"
            )


def _index(path: Path) -> dict[str, Entry]:
    """Nothing where it is missing or damaged: all is fetched again."""
    try:
        found: Any = read_json(path)
        return {str(name): Entry(int(size), int(changed)) for name, (size, changed) in found.items()}
    except (DataError, AttributeError, TypeError, ValueError):
        return {}


def fetched(uri: str, layout: str, splits: Sequence[str], told: Progress | None = None) -> Path:
    """The folder here that holds what ``splits`` (none: everything) of the dataset at ``uri`` need.

    Raises StoreError where the store cannot be read, holds names that lead out of the folder, or more than the cache may hold.
    """
    copy = Copy(opened(uri), told)
    wanted = WANTED.get(layout) if splits else None
    copy.fetch(copy.there if wanted is None else wanted(copy, splits))
    return copy.root


def _camvid(copy: Copy, splits: Sequence[str]) -> Iterable[str]:
    """What the lists say."""
    lists = [name for name in ("classes.txt", *(f"{split}.txt" for split in splits)) if name in copy.there]
    copy.fetch(lists)
    rows = [row for name in lists if name != "classes.txt" for row in lines(copy.root, name)]
    return [*lists, *(posixpath.normpath(file) for row in rows for file in row.split())]


def _cityscapes(copy: Copy, splits: Sequence[str]) -> Iterable[str]:
    return [name for name in copy.there if "/" not in name or name.split("/")[1] in splits]


def _coco(copy: Copy, splits: Sequence[str]) -> Iterable[str]:
    part = re.compile(rf"(?:.*_)?(?:{'|'.join(map(re.escape, splits))})(?:_pixelmaps)?(?:\.json)?")
    return [name for name in copy.there if any(part.fullmatch(each) for each in name.split("/"))]


def _folder(copy: Copy, splits: Sequence[str]) -> Iterable[str]:
    return [name for name in copy.there if name.split("/")[0] in splits]


def _voc(copy: Copy, splits: Sequence[str]) -> Iterable[str]:
    """The pictures of the split; all annotations, as these may say which classes there are."""
    copy.fetch(name for name in copy.there if name.startswith("ImageSets/"))
    lists = [f"ImageSets/{kind}{split}.txt" for split in splits for kind in ("", "Main/", "Segmentation/")]
    ids = {row for name in lists if name in copy.there for row in lines(copy.root, name)}
    pictures = ("JPEGImages", "SegmentationClass", "SegmentationObject")

    def asked(name: str) -> bool:
        top, _, rest = name.partition("/")
        return top not in pictures or rest.rpartition(".")[0] in ids

    return filter(asked, copy.there)


WANTED: Mapping[str, Wanted] = {"camvid": _camvid, "cityscapes": _cityscapes, "coco": _coco, "folder": _folder, "voc": _voc}
"""Which files the splits of a layout need, of those in the store."""
