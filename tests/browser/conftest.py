"""The dashboard in a subprocess on a free port, and a real Chromium that looks at it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from xaitools import zoo
from xaitools.locations import part

SHIPPED = ("unet-scenes", "faster-rcnn-scenes")
TINY = ("tiny-segmenter", "tiny-detector")
# offline and bounded: a browser that looks for updates waits for hosts that do not answer
PATIENCE = 120_000  # milliseconds; a machine that trains beside the tests is slow
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        reason = "no Chromium here; install it with: apt-get install -y chromium"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def models() -> tuple[str, str]:
    """A segmenter and a detector: the shipped ones, or random ones where they are not trained yet."""
    return SHIPPED if set(SHIPPED) <= set(zoo.names()) else TINY


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the server's long work."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def address(models: tuple[str, str], runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    shipped = [sys.executable, "-m", "xaitools", "dashboard", "--port", str(port),
               "--runs", str(runs)]  # fmt: skip
    tiny = [sys.executable, str(Path(__file__).parents[1] / "apps" / "tiny_zoo.py"), str(part("apps") / "dashboard.py"),
            f"--server.port={port}", "--server.headless=true", "--browser.gatherUsageStats=false"]  # fmt: skip
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with log.open("w") as file:
        server = subprocess.Popen(shipped if models == SHIPPED else tiny, stdout=file, stderr=file, start_new_session=True)
    try:
        _wait(f"http://localhost:{port}/_stcore/health", server, log)
        yield f"http://localhost:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # the command line and the server that it started
        server.wait(20)
    words = log.read_text()
    assert "Traceback" not in words and "Stack (" not in words, words


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(480):
        assert server.poll() is None, f"the server ended: {log.read_text()}"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    pytest.fail(f"the server did not answer within two minutes: {log.read_text()}")


def _sought(message: ConsoleMessage) -> bool:
    """Streamlit looks for its server below the address of a page first, and finds it above."""
    return "404" in message.text and "/_stcore/" in message.location["url"]


@pytest.fixture
def page(chromium: Browser, address: str) -> Iterator[Page]:
    """A page that must see no error and ask no other host."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" and not _sought(message) else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith((address, "data:", "blob:")) else wrong.append(request.url))
    yield page
    assert page.locator("[data-testid=stException]").count() == 0
    context.close()
    assert wrong == []
