"""Object stores: what is found there, what is refused, and one line for whatever fails."""

from __future__ import annotations

import socket
import time

import pytest
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from tests.store_server import KEYS, NOBODY, free_port, served
from xaitools import stores
from xaitools.errors import StoreError
from xaitools.stores import NAME, Store, asking, opened


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(SubTreeFileSystem(str(tmp_path), LocalFileSystem()), "a/b/", "s3://bucket/b")


def test_what_is_written_is_listed_and_read(store, tmp_path):
    assert store.names() == {} and store.listed() == {}
    store.write("run.json", b"{}")
    store.write("records/one.parquet", b"123")
    assert store.names() == {"run.json": False, "records": True}
    assert {name: entry.size for name, entry in store.listed().items()} == {"run.json": 2, "records/one.parquet": 3}
    assert {name: entry.size for name, entry in store.listed("records").items()} == {"one.parquet": 3}
    assert store.read("records/one.parquet", 3) == (tmp_path / "a/b/records/one.parquet").read_bytes() == b"123"
    with pytest.raises(StoreError, match=r"s3://bucket/b/records/one.parquet: more than .* MB"):
        store.read("records/one.parquet", 2)
    with pytest.raises(StoreError, match=r"s3://bucket/b/none: cannot be read"):
        store.read("none", 2)


@pytest.mark.parametrize("name", ["..", "a/../b", "/a", "a//b", "a/", ".", "./a", "a\\b", "a\nb", "a\0b", ""])
def test_names_that_lead_elsewhere_are_refused(store, name, monkeypatch):
    class Info:
        path = f"a/b/{name}"

    monkeypatch.setattr(store, "files", type("Files", (), {"get_file_info": lambda self, selector: [Info()]})())
    if not name.startswith("/"):  # the store itself has no such name: one more slash is no difference
        with pytest.raises(StoreError, match="cannot be the name of a file"):
            store.listed()
    assert not NAME.fullmatch(name)


def test_names_of_files_are_taken():
    assert all(NAME.fullmatch(name) for name in ("run.json", "records/000001-fog-3.parquet", ".hidden", "..a/b..", "späte Straße/1.png"))


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://", "names no bucket; expected s3://BUCKET/PREFIX"),
        ("s3://me:secret@bucket/runs", "s3://bucket/runs: credentials do not belong into a URI"),
        ("s3://bucket/runs?access_key=secret", "s3://bucket/runs: unknown option 'access_key'"),
        ("ftp://bucket/runs", "ftp://: unknown scheme; expected s3://, gs:// or abfs://"),
    ],
)
def test_uris_that_are_refused(uri, words):
    with pytest.raises(StoreError) as raised:
        opened(uri)
    assert words in str(raised.value) and "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("When listing: AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation: ...", "there is no such bucket"),
        ("AWS Error ACCESS_DENIED during HeadObject operation: No response body.", "access is denied: give credentials"),
        ("AWS Error NETWORK_CONNECTION: curlCode: 28, Timeout was reached", "it does not answer: check the network"),
        ("something\nelse", "check the store, and try again"),
    ],
)
def test_what_fails_is_one_line_that_names_the_remedy(said, words):
    with pytest.raises(StoreError) as raised, asking("s3://bucket/b", "cannot be listed"):
        raise OSError(said)
    first = said.partition("\n")[0]
    assert str(raised.value).startswith(f"s3://bucket/b: cannot be listed ({first}); {words}")


def test_a_store_that_never_answers_is_given_up(monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    for name, value in (("REQUEST", 0.5), ("CONNECT", 0.5), ("ATTEMPTS", 1)):
        monkeypatch.setattr(stores, name, value)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(StoreError, match="s3://bucket/runs: cannot be listed .*; it does not answer"):
            opened(f"s3://bucket/runs?endpoint_override=http://127.0.0.1:{silent.getsockname()[1]}").names()
        assert time.monotonic() - began < 10


@pytest.mark.long
def test_a_real_server_and_what_it_refuses(monkeypatch):
    with served() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        store = server.bucket("runs", "s3://runs/deep/prefix")
        assert store.names() == {}
        store.write("records/one.parquet", b"1" * 6_000_000)  # more than one part
        store.write("run.json", b"{}")
        assert store.names() == {"run.json": False, "records": True}
        assert store.listed()["records/one.parquet"].size == len(store.read("records/one.parquet", 2**23)) == 6_000_000
        assert abs(store.listed()["run.json"].changed / 1e9 - time.time()) < 60
        with pytest.raises(StoreError, match="s3://none/x: cannot be listed .*; there is no such bucket"):
            opened("s3://none/x").names()
        with pytest.raises(StoreError, match="s3://none/x/a: cannot be written .*; there is no such bucket"):
            opened("s3://none/x").write("a", b"1")
        nobody = f"http://127.0.0.1:{free_port()}"
        with pytest.raises(StoreError, match="cannot be listed .*; it does not answer: check the network and AWS_ENDPOINT_URL"):
            opened(f"s3://runs/deep?endpoint_override={nobody}").names()
    with served(INITIAL_NO_AUTH_ACTION_COUNT="0") as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.environment["AWS_ENDPOINT_URL"])
        strange = opened("s3://runs/x")
        for attempt in (strange.names, lambda: strange.write("a", b"1"), lambda: strange.read("a", 1)):
            with pytest.raises(StoreError, match="access is denied: give credentials that may use it"):
                attempt()
        for name in KEYS.keys() - NOBODY.keys():
            monkeypatch.delenv(name)
        with pytest.raises(StoreError, match="access is denied: give credentials that may use it"):
            opened("s3://runs/x").names()
