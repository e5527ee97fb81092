"""A real object store on this machine, for tests: moto's S3 server as a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.environments import interpreter
from xaitools.stores import Store, opened

NOBODY = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAFORTESTSONLY0000", "AWS_SECRET_ACCESS_KEY": "for tests only", **NOBODY}


@dataclass(frozen=True)
class Server:
    """process  that serves
    environment  what a process needs in order to reach it
    """

    process: subprocess.Popen[bytes]
    environment: dict[str, str]

    def bucket(self, name: str, uri: str) -> Store:
        """Makes the bucket ``name`` and gives the store ``uri``; the test's own environment must be ``environment``."""
        from pyarrow.fs import S3FileSystem

        S3FileSystem(endpoint_override=self.environment["AWS_ENDPOINT_URL"], region="us-east-1", allow_bucket_creation=True).create_dir(
            name
        )
        return opened(uri)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def served(**settings: str) -> Iterator[Server]:
    """The server while it is needed; skips where its environment cannot be made."""
    try:
        python = interpreter("moto", "moto[s3]==5.2.5", "flask>=3", "flask-cors>=5")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a real object store needs moto in an environment of its own, which could not be made: {error}")
    port = free_port()
    command = [str(python), "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert process.poll() is None, "the server ended before it served"
            with socket.socket() as door:
                if door.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield Server(process, {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"})
    finally:
        process.kill()
        process.wait()
