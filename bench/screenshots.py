"""The README's pictures: four pages of a busy demonstration, as a browser shows them.

    python -m bench.screenshots [FOLDER]

A demonstration is started in a folder that is removed again, and is let run until there is something to see on each
page. It is drawn by chance, but from a seed; times and the moment still make each set of pictures a little different.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import Page, ViewportSize, sync_playwright

from atoll.client.calls import JobFilter
from tests.support.demo import RunningDemo

FOLDER = Path(__file__).parent.parent / "docs" / "screenshots"
_SIZE: ViewportSize = {"width": 1280, "height": 800}
_BEFORE = 5
"""Place in the queue of the job whose page is shown."""
_DRAWN = (
    "document.fonts.ready.then(() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))))"
)


@dataclass(frozen=True)
class Shot:
    """One picture."""

    name: str
    path: str
    theme: Literal["light", "dark"] = "light"


def _shots(waiting: str) -> list[Shot]:
    return [
        Shot("jobs", "/jobs"), Shot("job", f"/jobs/{waiting}", "dark"),
        Shot("sites", "/sites", "dark"), Shot("queue", "/queue"),
    ]  # fmt: skip


def take(demo: RunningDemo, folder: Path) -> list[Path]:
    """Take all pictures into a folder; returns their files. Raises RuntimeError where there is no browser."""
    program = shutil.which("chromium")
    if program is None:
        raise RuntimeError("chromium is not installed: make engines installs it")
    folder.mkdir(parents=True, exist_ok=True)
    taken = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for shot in _shots(_someone_in_line(demo)):
            context = browser.new_context(
                base_url=demo.url, viewport=_SIZE, color_scheme=shot.theme,
                extra_http_headers={"Authorization": f"Bearer {demo.token}"},
            )  # fmt: skip
            page = context.new_page()
            page.goto(shot.path)
            page.wait_for_selector("h1")
            _settle(page)
            taken.append(folder / f"{shot.name}.png")
            page.screenshot(path=taken[-1])
            context.close()
        browser.close()
    return taken


def _someone_in_line(demo: RunningDemo) -> str:
    """A job that has others before it and an estimate: its page has the most to show."""
    found: list[str] = []

    def look() -> bool:
        for job in demo.client.jobs(JobFilter(states=("queued",)), limit=50):
            estimate = demo.client.why(job.id).estimate
            if estimate is not None and estimate.start is not None and (estimate.position or 0) >= _BEFORE:
                found.append(job.id)
                return True
        return False

    demo.wait_for(look)
    return found[0]


def _settle(page: Page) -> None:
    """Wait until fonts are there and what is drawn by script has been drawn."""
    page.evaluate(_DRAWN)


def main() -> None:
    """Take the pictures into the folder that is named, or the documentation's."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    with tempfile.TemporaryDirectory() as there, RunningDemo(Path(there), "--speed", "120", "--seed", "7") as demo:
        for file in take(demo, folder):
            print(f"{file}: {file.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
