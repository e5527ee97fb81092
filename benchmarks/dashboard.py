"""How long a person waits at the dashboard: python benchmarks/dashboard.py [CLICKS]

A real Chromium, headless, on the same machine as the server; times run from the click (or the address) to the frame in which the
picture of the answer is on the page, so they hold the way there and back, the prediction and the drawing.  Every click asks
something new: maps that the server keeps are not timed.  Needs Chromium, playwright and the data folder (rows without it are left out).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from urllib.parse import urlencode

import numpy as np
import torch
from playwright.sync_api import Browser, Page, TimeoutError, sync_playwright

from xaitools import zoo
from xaitools.locations import data_root

CLICKS, WHOLE = 50, 10
TABS = 10
CASES = {"unet-scenes": "scenes:test", "unet-camvid": "camvid:camvid#test", "faster-rcnn-bccd": "voc:bccd#test"}
METHODS = ("saliency", "lrp")
BUSY = "unet-camvid"
"""Its occlusion runs while the other tabs are used."""
PATIENCE = 120_000  # milliseconds
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]

# streamlit's components live in shadow roots
CHANGED = """([key, before]) => {
    const host = document.querySelector(`[class*="st-key-${key}"]`);
    const base = host && [host, ...host.querySelectorAll("*")].map(each => (each.shadowRoot ?? each).querySelector(".base")).find(Boolean);
    return base && base.alt && base.alt !== before;
}"""


@contextmanager
def server() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "xaitools", "dashboard", "--port", str(port), "--runs", runs]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            address = f"http://localhost:{port}"
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{address}/_stcore/health", timeout=2).close()
                    break
                except OSError:
                    time.sleep(0.2)
            yield address
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def tab(browser: Browser) -> Page:
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(PATIENCE)
    return page


def wait(page: Page, key: str, before: str = "") -> None:
    """Until the picture ``key`` is there, with other words than ``before``."""
    page.wait_for_function(CHANGED, arg=[key, before], polling=50)


def visit(page: Page, address: str, model: str, method: str, item: int = 0) -> None:
    page.goto(f"{address}/?{urlencode({'model': model, 'data': CASES[model], 'method': method, 'item': item})}")


def words(page: Page, key: str) -> str:
    return page.locator(f".st-key-{key} .base").get_attribute("alt") or ""


def settle(page: Page) -> None:
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()


def first_paint(browser: Browser, address: str, times: int) -> list[float]:
    found = []
    for _ in range(times):
        page = tab(browser)
        start = time.perf_counter()
        visit(page, address, "unet-scenes", "saliency")
        wait(page, "picture")
        found.append(time.perf_counter() - start)
        page.context.close()
    return found


def spots(page: Page, chance: np.random.Generator) -> list[tuple[float, float]]:
    """Where to click: the middles of all boxes but the chosen one, or places drawn at random."""
    boxes = [box.bounding_box() for box in page.locator(".st-key-picture .box").all()]
    if boxes:
        return [(each["x"] + each["width"] / 2, each["y"] + each["height"] / 2) for each in boxes[1:]]
    frame = page.locator(".st-key-picture .stage").bounding_box()
    return [
        (frame["x"] + frame["width"] * across, frame["y"] + frame["height"] * down) for across, down in chance.uniform(0.1, 0.9, (10, 2))
    ]


def clicks(page: Page, address: str, model: str, method: str, times: int, first: int = 1) -> list[float]:
    """Seconds from a click to its map: of a pixel drawn at random, or of a box that was not explained yet."""
    chance, found, item, key = np.random.default_rng(first), [], first, f"map-{method}"
    while len(found) < times:
        visit(page, address, model, method, item)
        wait(page, key)
        item += 1
        settle(page)
        seen, patience = set(), 30_000 if page.locator(".st-key-picture .box").count() else PATIENCE
        for x, y in spots(page, chance)[: times - len(found)]:
            settle(page)
            before, start = words(page, key), time.perf_counter()
            page.mouse.click(x, y)
            try:
                page.wait_for_function(CHANGED, arg=[key, before], polling=50, timeout=patience)
            except TimeoutError:
                if patience == PATIENCE:  # else the middle of this box lies in the chosen one: nothing new was asked
                    raise
                continue
            took = time.perf_counter() - start
            target = page.get_by_label("Target", exact=True).input_value()
            if target not in seen:
                found.append(took)
            seen.add(target)
    return found


def occlusion(page: Page, address: str, model: str, times: int) -> list[tuple[float, float]]:
    """Seconds from a click until occlusion's map is there in coarse windows, and until it is there whole."""
    chance, found, item = np.random.default_rng(0), [], 3
    while len(found) < times:
        visit(page, address, model, "occlusion", item)
        wait(page, "map-occlusion")
        settle(page)
        item += 1
        target = page.get_by_label("Target", exact=True).input_value()
        for x, y in spots(page, chance)[:1]:
            before, start = words(page, "map-occlusion"), time.perf_counter()
            page.mouse.click(x, y)
            try:
                page.wait_for_function(CHANGED, arg=["coarse", ""], polling=50, timeout=30_000)
            except TimeoutError:
                continue
            coarse = time.perf_counter() - start
            wait(page, "map-occlusion", before)
            if page.get_by_label("Target", exact=True).input_value() != target:
                found.append((coarse, time.perf_counter() - start))
    return found


def beside_occlusion(browser: Browser, address: str, times: int) -> tuple[list[float], int]:
    """Clicks in one of ``TABS`` tabs while another computes occlusion; and how many of them found it still running at their end."""
    tabs = [tab(browser) for _ in range(TABS)]
    for number, page in enumerate(tabs[2:]):
        visit(page, address, "unet-scenes", "saliency", 20 + number)
        wait(page, "map-saliency")
    found, running, item = [], 0, 50
    while len(found) < times:
        visit(tabs[0], address, BUSY, "occlusion", item)
        wait(tabs[0], "picture")
        some = clicks(tabs[1], address, "unet-scenes", "lrp", min(5, times - len(found)), first=item)
        running += len(some) if tabs[0].locator(".st-key-map-occlusion .base").count() == 0 else 0
        found += some
        item += 1
    for page in tabs:
        page.context.close()
    return found, running


def row(name: str, seconds: Sequence[float], aim: str) -> str:
    middle, late, worst = np.percentile(seconds, [50, 95, 100])
    return f"| {name} | {len(seconds)} | {middle:.2f} s | {late:.2f} s | {worst:.2f} s | {aim} |"


def main(times: int) -> None:
    load = os.getloadavg()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    models = [model for model, data in CASES.items() if model in zoo.names() and
              (data.startswith("scenes") or (data_root() / data.partition(":")[2].partition("#")[0]).is_dir())]  # fmt: skip
    with server() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        first_paint(browser, address, 1)  # the server loads
        print(
            f"{datetime.now(UTC):%Y-%m-%d}, torch {torch.__version__}, {os.cpu_count()} cores, load average before {load[0]:.1f}",
            flush=True,
        )
        print("\n| what | n | median | 95th percentile | worst | aim |\n|---|---|---|---|---|---|", flush=True)
        print(row("first paint of Inspect, unet-scenes", first_paint(browser, address, min(times, 10)), "3 s"), flush=True)
        page = tab(browser)
        for model in models:
            for method in METHODS:
                print(row(f"click to map, {model}, {method}", clicks(page, address, model, method, times), "1 s"), flush=True)
        for model in models:
            coarse, whole = zip(*occlusion(page, address, model, WHOLE), strict=True)
            print(row(f"click to coarse occlusion map, {model}", coarse, "2 s"), flush=True)
            print(row(f"click to whole occlusion map, {model}", whole, "-"), flush=True)
        if BUSY in models:
            found, running = beside_occlusion(browser, address, times)
            said = f"click to LRP map, {TABS} tabs open and one computing occlusion of {BUSY} ({running} of the clicks ended before it did)"
            print(row(said, found, "3 s (95th)"), flush=True)
        browser.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else CLICKS)
