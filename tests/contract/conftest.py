"""Holds each run of the contract against its table: no case is skipped that the table says the driver does."""

from collections.abc import Generator
from typing import Any, cast

import pytest

from atoll.drivers.contract import DriverContract
from tests.contract.expected import SOME_PARTS, column_of
from tests.support.engines import skips_by_engine

SECONDARY = {
    "TestSlurm": {"owner"},
    "TestSlurmOverSsh": {"own", "impersonated"},
    "TestSlurmRest": {"owner"},
    "TestPodman": {"own"},
}
"""Further accounts by which an engine is used: all cases run for one of them, and for these a sample."""
SAMPLE = {
    "exit_code_is_told", "streams_are_apart", "environment_is_the_platforms", "files_keep_their_checksums_in_and_out",
    "secrets_arrive_as_variables_and_files", "cancelled_job_may_tidy_up", "walltime_ends_as_timed_out",
    "attempts_are_found_after_a_restart_of_the_platform", "forgotten_attempt_is_gone",
    "checkpoint_folder_survives_attempts_and_forgetting", "other_person_without_an_account_is_refused",
}  # fmt: skip


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the secondary accounts' other cases to --full-size: each of them costs an engine seconds."""
    if config.getoption("--full-size"):
        return
    left_out = [item for item in items if isinstance(item, pytest.Function) and _is_left_out(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def _is_left_out(item: pytest.Function) -> bool:
    secondary = SECONDARY.get(item.cls.__name__ if item.cls is not None else "")
    if secondary is None or item.originalname.removeprefix("test_") in SAMPLE:
        return False
    return not secondary.isdisjoint(item.name.partition("[")[2].rstrip("]").split("-"))


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
            wrong = _wrong(report, name in column.skips or name in column.elsewhere)
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
