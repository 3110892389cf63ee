"""Fixtures: a real Chromium, and a daemon on the demo stream that all tests of a module share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.servers.browser import find_chromium
from tests.servers.process import ServerError

if TYPE_CHECKING:
    from tests.browser.demo_stream import RunningDemo

DEMO_SECONDS = 15.0
TIMEOUT_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedDemo:
    """The demo after its end, and what an open overview has shown before, without a reload."""

    demo: RunningDemo
    seen: tuple[str, ...]
    loads: int


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium; without one the tests are skipped, except where CI is true."""
    try:
        program = find_chromium()
    except ServerError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    with sync_playwright() as playwright:
        # Chromium's sandbox does not work as root.
        started = playwright.chromium.launch(executable_path=str(program), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[WatchedDemo]:
    """The daemon with its page, watched in an open overview until its source has ended."""
    # Loaded here: pytest reads this file before the filter of warnings in tests/conftest.py is active.
    from tests.browser.demo_stream import run_demo

    folder: Path = tmp_path_factory.mktemp("demo")
    with run_demo(f"sqlite:///{folder / 'demo.db'}", DEMO_SECONDS) as running:
        page = _open_overview(browser, running)
        loads: list[str] = []
        page.on("load", lambda _: loads.append("load"))
        rows = page.locator("[data-panel=incidents] tbody tr")
        seen = []
        for kind in ("spike", "drift"):
            expect(rows.filter(has_text=kind).first).to_be_visible(timeout=TIMEOUT_MS)
            seen.append(kind)
        running.daemon.join(TIMEOUT_MS / 1000)
        page.context.close()
        _take_pictures(browser, running)
        yield WatchedDemo(demo=running, seen=tuple(seen), loads=len(loads))


def _take_pictures(browser: Browser, running: RunningDemo) -> None:
    """Store the pictures of the documentation in the folder of $OUTRIDER_PICTURES, if it is set."""
    folder = os.environ.get("OUTRIDER_PICTURES")
    if not folder:
        return
    page = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light").new_page()
    page.goto(running.address)
    page.screenshot(path=Path(folder) / "overview.png", clip={"x": 0, "y": 0, "width": 1280, "height": 760})
    page.get_by_role("link", name="payments spike").first.click()
    page.wait_for_load_state()
    page.screenshot(path=Path(folder) / "incident.png")
    page.context.close()


def _open_overview(browser: Browser, running: RunningDemo) -> Page:
    """Open the overview as soon as the daemon has made the database."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.goto(running.address)
    while running.daemon.is_alive() and page.locator("[data-panel=streams] tbody tr").count() == 0:
        page.wait_for_timeout(100)
        page.reload()
    return page


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser context 1280 pixels wide, whose pages wait up to a minute for a condition."""
    made = browser.new_context(viewport={"width": 1280, "height": 900})
    made.set_default_timeout(TIMEOUT_MS)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A page of the context."""
    return context.new_page()
