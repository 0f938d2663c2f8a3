"""What an observation makes of what Slurm and the folders say, without any Slurm."""

import time
from pathlib import Path

import pytest

from atoll.core.clock import from_micros
from atoll.core.states import Outcome
from atoll.drivers.base import AttemptStatus, DriverSetup, Held, Phase
from atoll.drivers.shell import LocalShell
from atoll.drivers.slurm.config import read_config
from atoll.drivers.slurm.jobs import SlurmJob
from atoll.drivers.slurm.observing import Observer
from atoll.drivers.slurm.records import SiteRecord
from atoll.drivers.slurm.site import SlurmSite
from atoll.drivers.wrapper import Record
from tests.drivers.slurm.test_ends import job

ID = "abcde-0123456789abcdef"
RUNS = SiteRecord(Record(claimed=True, started_at=100.5, pid=5, native_id="1"))


async def seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: list[SlurmJob], found: SiteRecord, *, hinted: bool = False
) -> AttemptStatus:
    """What is told of an attempt that was submitted as job 1, and then as job 2."""
    site = SlurmSite(DriverSetup("slurm", "abcde", tmp_path, {}, "ann"), read_config({}), LocalShell())

    async def listed() -> list[SlurmJob]:
        return jobs

    async def records(*_: object) -> dict[str, SiteRecord]:
        return {ID: found}

    observer = Observer(site)
    monkeypatch.setattr(site, "jobs", listed)
    monkeypatch.setattr(observer, "records", records)
    return (await observer.observe([Held(ID, "2", None)], {None: {ID}} if hinted else None)).states[ID]


@pytest.mark.parametrize(
    ("first", "found", "phase", "outcome"),
    [
        ("RUNNING", RUNS, Phase.RUNNING, None),
        ("PENDING", SiteRecord(), Phase.STARTING, None),  # it may still begin
        ("RUNNING", SiteRecord(Record(claimed=True)), Phase.RUNNING, None),  # it is about to write that it began
        ("PENDING", SiteRecord(stop="evicted"), Phase.ENDED, Outcome.EVICTED),  # it finds that it is to stop
        ("NODE_FAIL", RUNS, Phase.ENDED, Outcome.NODE_FAILED),
        ("FAILED", SiteRecord(), Phase.ENDED, Outcome.NODE_FAILED),  # neither began
    ],
)
async def test_attempt_that_was_submitted_twice_ends_with_the_job_that_ran_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, found: SiteRecord, phase: Phase,
    outcome: Outcome | None,
) -> None:  # fmt: skip
    name = f"atoll-{ID}"
    both = [job(first, job_id=1, name=name), job("COMPLETED", job_id=2, name=name)]
    status = await seen(tmp_path, monkeypatch, both, found)
    assert (status.phase, status.outcome) == (phase, outcome)
    if phase is not Phase.ENDED or found is RUNS:
        assert status.native_id == "1"


@pytest.mark.parametrize("hinted", [True, False])
async def test_end_that_was_hinted_at_is_told_beside_an_answer_that_is_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hinted: bool
) -> None:
    ended = SiteRecord(Record(claimed=True, started_at=100.5, ended_at=110.5, exit_code=3, pid=5, native_id="2"))
    jobs = [job("RUNNING", job_id=2, name=f"atoll-{ID}")]
    status = await seen(tmp_path, monkeypatch, jobs, ended, hinted=hinted)
    assert (status.phase, status.exit_code) == ((Phase.ENDED, 3) if hinted else (Phase.RUNNING, None))


@pytest.mark.parametrize(("ahead", "told"), [(3600, True), (-1, False)])
async def test_start_that_slurm_expects_is_told_until_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int, told: bool
) -> None:
    expected = round(time.time()) + ahead
    jobs = [job("PENDING", job_id=2, name=f"atoll-{ID}", expected=float(expected))]
    status = await seen(tmp_path, monkeypatch, jobs, SiteRecord())
    assert status.expected_at == (from_micros(expected * 1_000_000) if told else None)
