"""The application on a database of each kind, and a browser before a running platform."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.engines import skip_without
from tests.support.http import Served, serving
from tests.support.platform import RunningPlatform

OpenPage = Callable[..., Page]


@pytest.fixture
async def served(database_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(database_url, tmp_path) as served:
        yield served


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's browser. While it is there its event loop runs: no other file's coroutines could, were it kept."""
    path = shutil.which("chromium")
    if path is None:
        skip_without("chromium", "it is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    """A platform with one machine, for the tests of a file."""
    with RunningPlatform(tmp_path_factory.mktemp("portal") / "data") as platform:
        yield platform


@pytest.fixture
def browser_page(chromium: Browser, running: RunningPlatform) -> Iterator[OpenPage]:
    """Opens a path of the platform as its owner; whatever a page complains of on the console fails the test.

    Options are those of a browser's context: `color_scheme`, `viewport`, `java_script_enabled`.
    """
    contexts, complaints = [], []

    def complain(message: Any) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    def open_page(path: str, **options: Any) -> Page:
        headers = {"Authorization": f"Bearer {running.token}"}
        context = chromium.new_context(base_url=running.url, extra_http_headers=headers, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", complain)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path)
        page.wait_for_selector("h1")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints
