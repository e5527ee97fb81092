"""Folders of object stores, named by a URI such as s3://bucket/prefix, as pyarrow reaches them.

Credentials are those of the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws, a role; Google's and Azure's own);
what they are is never asked, and a URI that holds some is refused, as it would stand in reports.  An object appears whole or not at all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from .errors import StoreError, first_line

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

CONNECT, REQUEST, ATTEMPTS = 10.0, 60.0, 3
"""Seconds to reach S3 and to wait for an answer, and how often each is tried."""
S3_OPTIONS = ("endpoint_override", "region", "scheme")

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
NAME = re.compile(r"(?!\.{1,2}(/|$))[^/\\\x00-\x1f\x7f]+(/(?!\.{1,2}(/|$))[^/\\\x00-\x1f\x7f]+)*")

REMEDIES = (
    (r"NO_SUCH_BUCKET|bucket does not exist", "there is no such bucket: make it, or correct its name"),
    (
        r"ACCESS_DENIED|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|SIGNATURE|CREDENTIAL|INTERNAL_FAILURE|Unauthenticated|Permission ?denied|"
        r"status 40[13]",
        "access is denied: give credentials that may use it, e.g. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    (
        r"NETWORK_CONNECTION|curlCode|[Tt]imed? ?out|TIMEOUT|Could not resolve|Could not connect|unavailable",
        "it does not answer: check the network and AWS_ENDPOINT_URL, and try again",
    ),
)
"""What pyarrow says, and what to do about it."""


@dataclass(frozen=True)
class Entry:
    """An object's size in bytes and when it was last written, in nanoseconds since 1970, as far as the store counts these."""

    size: int
    changed: int


def is_uri(text: object) -> bool:
    """
    >>> is_uri("s3://bucket/runs"), is_uri("runs/s3"), is_uri("C:/runs")
    (True, False, False)
    """
    return isinstance(text, str) and SCHEME.match(text) is not None


class Store:
    """What lies below ``root`` of ``files``; names are relative to it.  ``uri`` names it in words, ``bucket`` is what must be there.

    Whatever fails raises StoreError, one line.
    """

    def __init__(self, files: FileSystem, root: str, uri: str, bucket: str = "") -> None:
        self.files, self.root, self.uri, self.bucket = files, root.rstrip("/"), uri, bucket

    def names(self, under: str = "") -> dict[str, bool]:
        """What lies immediately below the folder ``under``, and whether each is a folder."""
        from pyarrow.fs import FileType

        return {name: info.type == FileType.Directory for name, info in self._infos(under, recursive=False)}

    def listed(self, under: str = "") -> dict[str, Entry]:
        """All files below the folder ``under``, by their names relative to it."""
        from pyarrow.fs import FileType

        infos = self._infos(under, recursive=True)
        return {name: Entry(info.size or 0, info.mtime_ns or 0) for name, info in infos if info.type == FileType.File}

    def read(self, name: str, limit: int) -> bytes:
        with self._asking(name, "cannot be read"), self.files.open_input_stream(self._path(name)) as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise StoreError(f"{self._shown(name)}: more than {limit / 2**20:g} MB, which is not read; take it away")
        return data

    def write(self, name: str, data: bytes) -> None:
        path = self._path(name)
        with self._asking(name, "cannot be written"):
            try:
                stream = self.files.open_output_stream(path)
            except FileNotFoundError:  # where folders are more than names
                self.files.create_dir(path.rpartition("/")[0], recursive=True)
                stream = self.files.open_output_stream(path)
            stream.write(data)  # no with statement, whose end would make an object of a part
            stream.close()

    def _infos(self, under: str, recursive: bool) -> Iterator[tuple[str, Any]]:
        from pyarrow.fs import FileSelector, FileType

        base = self._path(under).rstrip("/")
        with self._asking(under, "cannot be listed"):
            infos = self.files.get_file_info(FileSelector(base, recursive=recursive, allow_not_found=True))
            if not infos and self.bucket and self.files.get_file_info(self.bucket).type == FileType.NotFound:
                raise OSError("NO_SUCH_BUCKET")  # which some pyarrow takes for a folder that is not there
        for info in infos:
            name = info.path[len(base) :].lstrip("/") if base else info.path
            if not NAME.fullmatch(name):
                raise StoreError(f"{self.uri}: holds {name[:60]!r}, which cannot be the name of a file here; take it away")
            yield name, info

    def _path(self, name: str) -> str:
        return "/".join(filter(None, (self.root, name)))

    def _shown(self, name: str) -> str:
        return f"{self.uri}/{name}".rstrip("/")

    @contextmanager
    def _asking(self, name: str, what: str) -> Iterator[None]:
        with asking(self._shown(name), what):
            yield


@contextmanager
def asking(shown: str, what: str) -> Iterator[None]:
    """Turns what pyarrow raises into a StoreError that names the remedy."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        said = first_line(error)
        remedy = next((words for pattern, words in REMEDIES if re.search(pattern, said)), "check the store, and try again")
        raise StoreError(f"{shown}: {what} ({said[:200]}); {remedy}") from None


def opened(uri: str) -> Store:
    """The folder that ``uri`` names, whatever ``pyarrow.fs.FileSystem.from_uri`` takes; nothing is read yet.

    Of s3 ``?endpoint_override=http://HOST:PORT``, ``region=`` and ``scheme=`` are known; without them $AWS_ENDPOINT_URL and the bucket's
    region are taken.
    """
    parts = urlsplit(uri)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
    if ":" in parts.netloc.rpartition("@")[0]:
        raise StoreError(f"{shown}: credentials do not belong into a URI, which stands in reports; set AWS_ACCESS_KEY_ID or its like")
    if not parts.netloc:
        raise StoreError(f"{uri}: names no bucket; expected {parts.scheme}://BUCKET/PREFIX")
    with asking(shown, "cannot be opened"):
        if parts.scheme == "s3":
            return Store(_s3(parts, shown), f"{parts.netloc}{parts.path}", shown, parts.netloc)
        return Store(*_other(uri, parts), shown)


def _s3(parts: SplitResult, shown: str) -> FileSystem:
    """As ``from_uri``, which sets no bounds to waiting."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    options = dict(parse_qsl(parts.query))
    if strange := sorted(set(options) - set(S3_OPTIONS)):
        raise StoreError(f"{shown}: unknown option {strange[0]!r}; expected {', '.join(S3_OPTIONS)}")
    if endpoint := _set("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        options.setdefault("endpoint_override", endpoint)
    elsewhere = "us-east-1" if "endpoint_override" in options else ""
    options.setdefault("region", _set("AWS_REGION", "AWS_DEFAULT_REGION") or elsewhere or resolve_s3_region(parts.netloc))
    bounds = {"connect_timeout": CONNECT, "request_timeout": REQUEST, "retry_strategy": AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS)}
    return S3FileSystem(**options, **bounds, allow_delayed_open=True)


def _set(*names: str) -> str:
    """The first of these variables of the environment that is set."""
    return next((value for name in names if (value := os.environ.get(name))), "")


def _other(uri: str, parts: SplitResult) -> tuple[FileSystem, str]:
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem

    if parts.scheme in ("gs", "gcs") and "retry_limit_seconds" not in parts.query:
        uri += f"{'&' if parts.query else '?'}retry_limit_seconds={ATTEMPTS * CONNECT:g}"
    try:
        return FileSystem.from_uri(uri)
    except ArrowInvalid as error:
        if "Unrecognized filesystem" not in str(error):
            raise
        raise StoreError(f"{parts.scheme}://: unknown scheme; expected s3://, gs:// or abfs:// of an object store, or a folder") from None
