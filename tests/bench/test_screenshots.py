"""The command that makes the README's pictures."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from bench import screenshots
from tests.support.demo import RunningDemo
from tests.support.engines import skip_without

_PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.e2e
def test_it_takes_the_pictures_that_the_readme_shows(tmp_path: Path) -> None:
    if shutil.which("chromium") is None:
        skip_without("chromium", "it is not installed")
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    shown = set(re.findall(r"\]\(docs/screenshots/([a-z]+\.png)\)", readme))
    with RunningDemo(tmp_path, "--speed", "120") as demo:
        taken = screenshots.take(demo, tmp_path / "pictures")
    assert len(shown) == 4
    assert {file.name for file in taken} == shown
    assert all(file.read_bytes().startswith(_PNG) and file.stat().st_size > 20_000 for file in taken)
