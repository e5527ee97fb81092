"""What every walk through the dashboard does: find a picture, wait for the page, look at it as people do."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

SIZES = [("light", 1280), ("dark", 1280), ("light", 820), ("dark", 820)]
"""Colour scheme and width, those of a laptop and of a tablet held upright."""


def stage(page: Page, key: str = "picture") -> Locator:
    """The picture of that key; what can be clicked."""
    return page.locator(f".st-key-{key} .stage")


def base(page: Page, key: str = "picture") -> Locator:
    return stage(page, key).locator(".base")


def frame(page: Page, key: str = "picture") -> dict[str, float]:
    """Where the picture stands on the screen, all of it: a mouse reaches nothing that is scrolled away."""
    stage(page, key).scroll_into_view_if_needed()
    return stage(page, key).bounding_box()


def settled(page: Page) -> None:
    """Nothing is computed now.  A choice just made may not have reached the server yet: wait for what it changes first."""
    expect(page.locator("[data-testid=stApp]")).to_have_attribute("data-test-script-state", "notRunning")


def offered(page: Page) -> None:
    """The files to download are the last: one that is asked for while the page is still being made may be gone again."""
    settled(page)
    page.wait_for_timeout(2000)


def alt(page: Page, key: str = "picture") -> str:
    """The picture's text alternative, once it is there and the page has settled."""
    expect(base(page, key)).to_have_attribute("alt", re.compile("."))
    settled(page)
    return base(page, key).get_attribute("alt") or ""


def choose(page: Page, label: str, option: str) -> None:
    """An option of a list, by a regular expression."""
    field = page.get_by_label(label, exact=True)
    field.scroll_into_view_if_needed()
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")  # a scroll closes an open list
    field.click()
    page.get_by_role("option", name=re.compile(option)).click()


def look(page: Page, folder: Path, name: str, sizes: list[tuple[str, int]] = SIZES, height: int = 1400) -> None:
    """Pictures of the page as it is, for people; nothing may reach beyond its sides."""
    for scheme, width in sizes:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(1500)  # charts are drawn anew for their width
        page.screenshot(path=folder / f"{name}-{scheme}-{width}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        sides = page.locator(".stage, .tile").evaluate_all("all => all.map(each => each.getBoundingClientRect().right)")
        assert max(sides, default=0) <= width, name
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")
