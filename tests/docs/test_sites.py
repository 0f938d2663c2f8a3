"""Each driver's page has a whole example that the driver takes, and names every setting."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from atoll.control.drivers import Drivers
from atoll.core.site_file import SiteFile, read_site_file
from atoll.core.spec import Document
from atoll.drivers.base import DriverSetup
from tests.docs.pages import ROOT, blocks

DRIVERS = ("slurm", "podman", "kubernetes", "htcondor", "interlink", "process")


def page(driver: str) -> Path:
    return ROOT / "docs" / "sites" / f"{driver}.md"


def examples(path: Path) -> list[SiteFile]:
    return [
        read_site_file(block.body.encode(), str(path))
        for block in blocks(path)
        if block.language == "yaml" and "\ndriver:" in f"\n{block.body}"
    ]


def settings(driver: str) -> set[str]:
    module: Any = importlib.import_module(f"atoll.drivers.{driver}.config")
    model: type[Document] = getattr(module, f"{driver.capitalize()}Config")
    return set(model.model_fields)


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_pages_examples_are_sites_that_the_driver_takes(driver: str, tmp_path: Path) -> None:
    found = examples(page(driver))
    assert any(site.config for site in found), "a page needs one example with a config"
    for site in found:
        assert site.driver == driver
        Drivers().make(site.driver, DriverSetup(site.name, "aaaaa", tmp_path, site.config, "ada"))


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_setting_of_a_driver_is_on_its_page(driver: str) -> None:
    text = page(driver).read_text()
    if driver in ("slurm", "podman") and "ssh.md" in text:
        text += (ROOT / "docs" / "sites" / "ssh.md").read_text()
    missing = {name for name in settings(driver) if f"`{name}`" not in text}
    assert not missing


def test_the_general_page_has_a_site_file_that_can_be_read() -> None:
    assert examples(ROOT / "docs" / "sites.md")
