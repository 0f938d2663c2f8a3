"""The page on operating names every setting with its default, and every place in the data folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from atoll.core import config
from atoll.core.config import PlatformConfig, read_config
from atoll.core.documents import read_yaml
from atoll.core.resources import parse_bytes, parse_seconds
from tests.docs.pages import ROOT, blocks

FILE = ROOT / "docs" / "operating.md"
PAGE = FILE.read_text()


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of the configuration with its default, in the order of the code."""
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            yield from keys(type(default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", default


def table() -> dict[str, list[str]]:
    """The other cells of each row of the table of settings, by key."""
    section = PAGE.partition("## Configuration\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in rows}


def test_every_setting_is_listed_and_no_other() -> None:
    assert list(table()) == [key for key, _ in keys(PlatformConfig)]


def test_defaults_are_the_ones_of_the_code() -> None:
    for key, default in keys(PlatformConfig):
        told = table()[key][0]
        if default is None or default == {}:
            assert not told.startswith("`"), f"{key} has no fixed default, and the page says {told}"
        elif key.startswith(("queue.", "login.")) and key != "queue.most_evictions":
            assert parse_seconds(told.strip("`")) == default, key
        elif isinstance(default, bool):
            assert told == f"`{str(default).lower()}`", key
        elif key.startswith(("memory", "log_limit", "file_limit")):
            assert parse_bytes(told.strip("`")) == default, key
        else:
            assert told == f"`{default:g}`" if isinstance(default, float) else told == f"`{default}`", key


def test_variables_are_the_ones_that_are_read() -> None:
    told = {match for cells in table().values() for match in re.findall(r"ATOLL_\w+", cells[2])}
    assert told == {"ATOLL_DATA", *(f"ATOLL_{name.upper()}" for name in config._FROM_ENVIRONMENT)}


def test_the_example_is_a_configuration() -> None:
    example = next(block for block in blocks(FILE) if block.language == "yaml" and "keep_days" in block.body)
    assert read_config(None, {}, read_yaml(example.body)).local.cpus == 14_000
