"""Holds each run of the contract against its table: no case is skipped that the table says the driver does."""

from collections.abc import Generator
from typing import Any, cast

import pytest

from atoll.drivers.contract import DriverContract
from tests.contract.expected import SOME_PARTS, column_of
from tests.support.engines import skips_by_engine


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip that is not expected, and a pass where a skip is, into a failure."""
    report = yield
    if isinstance(item, pytest.Function) and item.cls is not None and issubclass(item.cls, DriverContract):
        column = column_of(item.cls.__name__)
        name = item.originalname.removeprefix("test_")
        if column is not None and name not in SOME_PARTS:
            wrong = _wrong(report, name in column.skips)
            if wrong is not None:
                report.outcome = "failed"
                report.longrepr = f"{wrong} (tests/contract/expected.py): {report.longrepr}"
    return report


def _wrong(report: pytest.TestReport, expected: bool) -> str | None:
    if report.skipped and not expected and not skips_by_engine([cast(Any, report)]):
        return "skipped, although the table of the contract says that this driver does it"
    if report.passed and report.when == "call" and expected:
        return "passed, although the table of the contract says that this driver skips it"
    return None
