"""What each driver is expected to skip of the contract, and why: the table of docs/drivers/contract.md, as data.

The suite holds every run against it (see conftest.py), and a test of the documentation holds the page against it. When
a case or a driver was added, `python -m tests.contract.expected` writes the page's table anew; with names of drivers it
runs their cases first, and prints which were skipped or failed, to be copied here.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from atoll.drivers.contract import CASES

PAGE = Path(__file__).parents[2] / "docs" / "drivers" / "contract.md"
BEGIN, END = "<!-- table -->\n", "<!-- end table -->\n"

SOME_PARTS = frozenset({"what_the_site_cannot_do_is_refused_by_name"})
"""Cases of several parts of which a driver that can do more skips more."""


@dataclass(frozen=True)
class Column:
    """One driver in the table."""

    tests: str
    """Name of the test class."""
    against: str
    """What the cases run against."""
    proven: bool = True
    """False: not against the real engine, so that its column says no more than "not proven"."""
    skips: Mapping[str, str] = field(default_factory=dict)
    """Cases that are skipped, and why, in a few words."""
    elsewhere: frozenset[str] = frozenset()
    """Cases that the class skips, and that another one runs for it: at another partition, ..."""


_MULTINODE = (
    "command_of_several_nodes_runs_once_on_the_first",
    "command_of_several_nodes_runs_on_each",
    "failure_on_one_node_ends_all",
    "several_nodes_start_together_or_not_at_all",
)
_ONE_MACHINE = dict.fromkeys(_MULTINODE, "one machine")
_NO_LIMIT = {"array_beyond_the_engines_limit_runs_whole": "no such limit"}
_NO_QUEUE = {"recall_takes_a_waiting_attempt_back": "no queue"}
_ALONE = _ONE_MACHINE | _NO_LIMIT | _NO_QUEUE
_GPUS = frozenset({"gpus_are_granted_and_visible", "gpus_are_counted_right"})
_NO_COMMANDS = dict.fromkeys(
    ("command_runs_inside_an_attempt", "command_inside_ends_with_its_attempt", "terminal_inside_an_attempt",
     "platform_is_reached_from_inside_without_a_route"),
    "slurmrestd starts no commands inside a job",
)  # fmt: skip

COLUMNS: dict[str, Column] = {
    "process": Column("TestProcess", "this machine, memory by cgroup and by looking", skips=_ALONE),
    "slurm": Column("TestSlurm", "Slurm by its commands on this machine", elsewhere=_GPUS),
    "slurm by SSH": Column("TestSlurmOverSsh", "Slurm by way of an SSH server", elsewhere=_GPUS),
    "slurm by REST": Column("TestSlurmRest", "Slurm by slurmrestd", skips=_NO_COMMANDS, elsewhere=_GPUS),
    "podman": Column("TestPodman", "Podman by its socket", skips=_ALONE),
    "podman by SSH": Column("TestPodmanOverSsh", "Podman by way of an SSH server", skips=_ALONE),
    "kubernetes": Column("TestKubernetes", "Kubernetes", proven=False),
    "htcondor": Column("TestHtcondor", "HTCondor", proven=False),
    "interlink": Column("TestInterlink", "a plugin of the tests' own that runs real processes", proven=False),
}
"""The drivers, in the table's order."""


def column_of(tests: str) -> Column | None:
    """The proven column that a test class fills; None where there is nothing to hold it against."""
    return next((column for column in COLUMNS.values() if column.tests == tests and column.proven), None)


def table() -> str:
    """The table as Markdown: a row for each case, a column for each driver."""
    lines = [f"| case | what it proves | {' | '.join(COLUMNS)} |", f"| --- | --- |{' --- |' * len(COLUMNS)}"]
    for name, proves in CASES.items():
        cells = [_cell(column, name) for column in COLUMNS.values()]
        lines.append(f"| `{name}` | {' '.join(proves.split())} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(column: Column, case: str) -> str:
    if not column.proven:
        return "not proven"
    reason = column.skips.get(case)
    return "ok" if reason is None else f"skipped: {reason}"


def written() -> str:
    """The table as it stands in the documentation."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip("\n") + "\n"


class _Runs:
    """Notes, as a plugin of pytest, which cases did not pass, and what they said."""

    def __init__(self) -> None:
        self.skipped: dict[str, str] = {}
        self.failed: set[str] = set()
        self.passed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        case = report.nodeid.rpartition("::test_")[2].partition("[")[0]
        if report.skipped and isinstance(report.longrepr, tuple):
            self.skipped[case] = str(report.longrepr[2]).removeprefix("Skipped: ")
        elif report.failed:
            self.failed.add(case)
        elif report.when == "call":
            self.passed.add(case)


def try_out(name: str) -> str:
    """Run the cases of the driver `name`; what came of them, as text for COLUMNS."""
    runs = _Runs()
    pytest.main(["-n", "0", "-q", "--no-header", f"tests/contract/test_{name}.py"], plugins=[runs])
    lines = [f"    {case!r}: {reason!r},\n" for case, reason in sorted(runs.skipped.items()) if case in CASES]
    failed = sorted(runs.failed & CASES.keys())
    ok = len(runs.passed - runs.failed - runs.skipped.keys())
    return f"{name}: {ok} of {len(CASES)} cases are passed whole; failed: {failed}; skips={{\n{''.join(lines)}}}\n"


if __name__ == "__main__":
    print("".join(map(try_out, sys.argv[1:])))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}")
