"""The page on drivers names every method of the protocols and every case of the contract."""

from __future__ import annotations

import re

from atoll.drivers import base
from atoll.drivers.contract import CASES
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "drivers.md").read_text()


def methods(protocol: type) -> list[str]:
    return [name for name, value in vars(protocol).items() if callable(value) and not name.startswith("_")]


def test_every_method_of_a_driver_is_in_the_table() -> None:
    told = re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE)
    assert told == methods(base.Driver)


def test_every_optional_ability_is_in_the_table() -> None:
    protocols = (base.Logs, base.Signals, base.Watch, base.Stage)
    for protocol in protocols:
        row = re.search(rf"^\| `{protocol.__name__}` \| `(\w+)` \|", PAGE, re.MULTILINE)
        assert row is not None, f"{protocol.__name__} is not in the table"
        assert [row[1]] == methods(protocol)


def test_every_case_of_the_contract_is_listed_with_what_it_proves() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", PAGE.partition("## The contract suite")[2], re.MULTILINE))
    assert told == {name: " ".join(words.split()) for name, words in CASES.items()}
