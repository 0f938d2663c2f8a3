"""The pages on drivers name every method of the protocols, every hook, and every case with what each driver does."""

from __future__ import annotations

import re

import yaml

from atoll.core.site_file import read_site_file
from atoll.drivers import base
from atoll.drivers.contract import CASES, Hooks
from atoll.drivers.process.config import ProcessConfig, read_config
from tests.contract.expected import COLUMNS, SOME_PARTS, table, written
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "drivers" / "writing.md").read_text()


def methods(protocol: type) -> list[str]:
    return [name for name, value in vars(protocol).items() if callable(value) and not name.startswith("_")]


def test_every_method_of_a_driver_is_in_the_table() -> None:
    told = re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE)
    assert told == methods(base.Driver)


def test_every_optional_ability_is_in_the_table() -> None:
    protocols = (base.Logs, base.Signals, base.Watch, base.Stage, base.Connect, base.Exec)
    for protocol in protocols:
        row = re.search(rf"^\| `{protocol.__name__}` \| `(\w+)` \|", PAGE, re.MULTILINE)
        assert row is not None, f"{protocol.__name__} is not in the table"
        assert [row[1]] == methods(protocol)


def test_every_hook_is_in_the_table_with_what_it_does() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", PAGE.partition("| hook |")[2], re.MULTILINE))
    assert told == {name: " ".join((vars(Hooks)[name].__doc__ or "").split()) for name in methods(Hooks)}


def test_table_of_cases_is_what_the_suite_holds_drivers_to() -> None:
    assert written() == table(), "write it anew: python -m tests.contract.expected"


def test_what_is_expected_to_be_skipped_are_cases_of_the_contract() -> None:
    assert CASES.keys() >= SOME_PARTS
    for name, column in COLUMNS.items():
        assert CASES.keys() >= column.skips.keys(), name
        assert column.proven or not column.skips, f"{name} has reasons for skipping, and is not proven"


def test_page_on_process_sites_has_every_field_and_a_site_file_that_is_right() -> None:
    page = (ROOT / "docs" / "sites" / "process.md").read_text()
    told = re.findall(r"^\| `(\w+)` \| ", page.partition("| field of `config`")[2].partition("##")[0], re.MULTILINE)
    assert told == list(ProcessConfig.model_fields)
    example = re.search(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert example is not None
    site = read_site_file(example[1].encode(), "site.yaml")
    assert site.driver == "process"
    assert read_config(yaml.safe_load(example[1])["config"]).volumes.keys() == {"datasets", "results"}
