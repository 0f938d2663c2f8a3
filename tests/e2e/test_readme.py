"""What the documentation tells people to type works, in that order, on a fresh platform."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, RUNNABLE, blocks, commands
from tests.docs.shell import Shell
from tests.support.platform import RunningPlatform

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/*/README.md"))]
RUN = [page for page in PAGES if commands(page)]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    # where the pages tell readers to look for it
    with RunningPlatform(tmp_path / "clone" / "atoll-data") as platform, Shell(tmp_path, platform) as shell:
        yield shell


@pytest.mark.e2e
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", RUN, ids=named)
def test_the_commands_of_a_page_do_what_it_says(page: Path, shell: Shell) -> None:
    for command in commands(page):
        shell.check(named(page), command)


def test_the_tours_are_run() -> None:
    assert {"README.md", "docs/tour.md", "examples/digits/README.md"} <= {named(page) for page in RUN}


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "tour.md"], ids=named)
def test_a_tour_leaves_out_only_how_to_start(page: Path) -> None:
    left_out = [block.body for block in blocks(page) if block.language in RUNNABLE and not block.runs]
    assert left_out in ([], ["make up\n"])
