"""When a full cluster has room again is asked of Slurm, and never in the way of anything else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from atoll.core.resources import Resources
from atoll.core.site import Flavor, SiteReport
from atoll.drivers.base import Driver, DriverError, DriverSetup
from atoll.drivers.shell import LocalShell, Ran
from atoll.drivers.slurm import openings as asking
from atoll.drivers.slurm.config import read_config
from atoll.drivers.slurm.facts import flavors
from atoll.drivers.slurm.openings import Openings, Question, questions, read_plans
from atoll.drivers.slurm.options import Limits
from atoll.drivers.slurm.rest_shell import RestShell
from atoll.drivers.slurm.scripts import OPENINGS
from atoll.drivers.slurm.site import SlurmSite
from tests.contract.slurm_harness import SlurmHarness
from tests.drivers.slurm.test_facts import GIB, facts, node

LIMITS = Limits(gpu_types={"gpu-a100": "A100"}, gpu_nodes=("g1",))
FULL = {"CPUAlloc": "16", "AllocMem": "65536"}
PLAN = "sbatch: Job 4 to start at 1795476769 using 4 processors on nodes n1 in partition main"


def asked(*nodes: str, **config: Any) -> list[Question]:
    known = facts(*nodes)
    here = [each for each in known.nodes if each.partitions & {"short", "gpu"}]
    return questions(known, LIMITS, read_config({"transport": "local", **config}), here)


# -- what is asked ---------------------------------------------------------------------------------------------------


def test_a_full_flavor_is_asked_for_a_cpu_with_its_share_and_for_a_node() -> None:
    small, whole = asked(node("c1", **FULL), node("c2", **FULL))
    assert (small.flavor, small.room) == ("cpu", Resources(1000, 4 * GIB))
    assert whole.room == Resources(16_000, 64 * GIB)
    assert whole.options == (
        "--nodes=1", "--ntasks-per-node=1", "--cpus-per-task=16", "--mem=65536M", "--exclude=g1"
    )  # fmt: skip


def test_nothing_is_asked_where_a_node_has_the_room() -> None:
    assert [each.room.cpu for each in asked(node("c1", **FULL), node("c2", CPUAlloc="15"))] == [16_000]
    assert asked(node("c1", **FULL), node("c2", CPUAlloc="0", AllocMem="0")) == []
    assert asked(node("c1", State="DOWN")) == [], "that node comes back when somebody repairs it"


def test_a_node_with_gpus_is_asked_for_one_of_them_as_the_class_is_that_gets_there() -> None:
    gpu = node("g1", "short", Gres="gpu:A100:4(S:0-1)", GresUsed="gpu:A100:4(IDX:0-3)", **FULL)
    options = {"partition": "short", "qos": "high", "account": "physics", "constraint": "fast|new"}
    small, whole = asked(gpu, classes={"batch": options})
    assert (small.flavor, small.room) == ("gpu-a100", Resources(4000, 16 * GIB, 1000))
    named = ("--partition=short", "--qos=high", "--account=physics", "--constraint=fast|new")
    assert small.options[2:] == ("--cpus-per-task=4", "--mem=16384M", "--gres=gpu:A100:1", *named)
    assert whole.options[4] == "--gres=gpu:A100:4"
    classes = {"batch": {"partition": "gpu"}, "interactive": {"partition": "short", "qos": "high"}}
    assert [each.options[-1] for each in asked(node("c1", **FULL), classes=classes)] == ["--qos=high"] * 2


def test_at_most_eight_questions_are_asked_and_small_rooms_first() -> None:
    kinds = [node(f"g{n}", Gres=f"gpu:kind{n}:2", GresUsed=f"gpu:kind{n}:2", **FULL) for n in range(6)]
    found = asked(*kinds)
    assert [each.room.gpu for each in found] == [1000] * 6 + [2000] * 2


# -- what is answered ------------------------------------------------------------------------------------------------

ONE, TWO = asked(node("c1", **FULL))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 allocation failure: Requested node configuration is not available", "allocation failure: Requested node "),
        ("1 " + PLAN, "Job 4 to start"),
        ("0 ", "it said nothing"),
        ("0 sbatch: Job 4 to start at 2026-11-23T23:32:49 using 4 processors on nodes n1 in partition main", "Job 4"),
        (f"0 {PLAN}\t{PLAN}", "Job 4"),
        (f"0 {PLAN} and then some", "Job 4"),
        ("0 sbatch: Submitted batch job 4", "Submitted"),
        ("127 /bin/sh: 1: sbatch: not found", "sbatch: not found"),
        ("124 ", "Slurm does not answer in time"),
        ("no answer at all", "Slurm does not answer in time"),
        ("", "Slurm does not answer in time"),
    ],
)
def test_what_is_no_plan_is_told_in_its_words(text: str, words: str) -> None:
    times, unsaid = read_plans(f"0 {PLAN}\n{text}\n", [ONE, TWO])
    assert times == {ONE: datetime.fromtimestamp(1795476769, UTC)}
    ((said, names),) = unsaid.items()
    assert words in said
    assert names == ["cpu"]


def test_a_plan_is_found_among_what_a_site_s_own_rules_say() -> None:
    times, unsaid = read_plans(f"0 sbatch: lua: job goes to main\t{PLAN}\t\n", [ONE])
    assert (list(times), unsaid) == ([ONE], {})
    assert read_plans("", [ONE, TWO])[1] == {"Slurm does not answer in time": ["cpu"]}


# -- a round ---------------------------------------------------------------------------------------------------------


class Answers(LocalShell):
    """A shell whose cluster is full, and that answers as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: bytes | Exception = b""
        self.delay = 0.0
        self.rounds = 0

    async def run(self, account: str | None, words: Sequence[str], **rest: Any) -> Ran:
        if words[2] != OPENINGS:
            return await super().run(account, words, **rest)
        self.rounds += 1
        await asyncio.sleep(self.delay)
        if isinstance(self.answer, Exception):
            raise self.answer
        return Ran(0, self.answer, b"")


class Asked:
    """A full cluster of one node that is asked when it opens."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known = facts(node("c1", **FULL))
        self.shell = Answers()
        site = SlurmSite(DriverSetup("blue", "aaaaa", folder, {}), read_config({}), self.shell)
        monkeypatch.setattr(site, "_facts", (time.monotonic(), self.known))
        self.openings = Openings(site)

    async def told(self) -> tuple[Flavor, Sequence[str]]:
        (flavor,), unsaid = await self.openings.told(flavors(self.known.nodes), self.known.nodes)
        return flavor, unsaid


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """That cluster."""
    return Asked(tmp_path, monkeypatch)


def plan(minutes: float) -> str:
    return "0 " + PLAN.replace("1795476769", str(int(time.time() + minutes * 60)))


async def test_a_round_is_asked_once_a_minute_and_remembered(cluster: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.shell.answer = f"{plan(10)}\n{plan(20)}\n".encode()
    first, unsaid = await cluster.told()
    assert [each.room.cpu for each in first.openings] == [1000, 16_000]
    assert unsaid == ()
    assert await cluster.told() == (first, ())
    assert cluster.shell.rounds == 1
    monkeypatch.setattr(asking, "_EVERY", 0.0)
    cluster.openings._again_at = 0.0  # a minute later
    cluster.shell.answer = f"{plan(365 * 24 * 60)}\n{plan(-1)}\n".encode()
    second, _ = await cluster.told()
    assert second.openings == (), "a year stands for never, and what is over is no opening"
    assert cluster.shell.rounds == 2


@pytest.mark.parametrize("trouble", [DriverError("The login node is away."), OSError("broken pipe")])
async def test_trouble_is_a_note_and_the_next_round_is_later(cluster: Asked, trouble: Exception) -> None:
    cluster.shell.answer = trouble
    flavor, unsaid = await cluster.told()
    assert flavor.openings == ()
    assert unsaid == (f"When there will be room is not known: {str(trouble).rstrip('.')}.",)
    assert cluster.openings._again_at > time.monotonic() + 500


async def test_who_describes_the_site_does_not_wait_for_a_slow_slurm(
    cluster: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_WITHIN", 0.05)
    cluster.shell.delay = 30.0
    flavor, unsaid = await asyncio.wait_for(cluster.told(), 5)
    assert flavor.openings == ()
    assert unsaid == ("When there will be room is not known: Slurm does not answer in time.",)
    assert cluster.openings._again_at > time.monotonic() + 500


async def test_slurmrestd_says_that_it_cannot(tmp_path: Path) -> None:
    shell = RestShell("http://127.0.0.1:9", "/nowhere", LocalShell())
    with pytest.raises(DriverError, match="plans no job without taking it"):
        await shell.run(None, ["/bin/sh", "-c", OPENINGS, "atoll"], stdin=b"--nodes=1\n")
    await shell.close()


# -- a real one ------------------------------------------------------------------------------------------------------


async def described(driver: Driver, holds: Callable[[SiteReport], bool]) -> SiteReport:
    """The first report of which something holds; Slurm is asked each time, whenever it was asked before."""
    deadline = time.monotonic() + 30
    while not holds(report := await driver.describe()):
        assert time.monotonic() < deadline, report
        driver._openings._again_at = 0.0  # type: ignore[attr-defined]
        await asyncio.sleep(0.2)  # only asking again tells
    return report


async def test_a_full_cluster_opens_when_somebody_s_walltime_is_over(own_harness: SlurmHarness) -> None:
    def room(report: SiteReport) -> list[tuple[int, timedelta]]:
        now = datetime.now(UTC)
        return [(each.room.cpu, each.at - now) for each in report.flavors[0].openings]

    assert room(await own_harness.driver.describe()) == []
    for minutes, cpus in ((10, 1), (30, 3)):
        words = [f"--time={minutes}", f"--cpus-per-task={cpus}", "--mem=10M", "--output=/dev/null", "--wrap=sleep 900"]
        await own_harness.slurm("sbatch", *words)
    report = await described(own_harness.driver, lambda report: len(report.flavors[0].openings) == 2)
    (small, first), (whole, second) = room(report)
    assert (small, whole) == (1000, 4000)
    assert timedelta(minutes=9) < first < timedelta(minutes=11)
    assert timedelta(minutes=29) < second < timedelta(minutes=31)
    assert not any("room" in note for note in report.notes)
    queued = await own_harness.slurm("squeue", "-h", "-t", "PENDING", "-o", "%j")
    assert queued.strip() == "", "nothing was submitted"


async def test_what_slurm_refuses_to_plan_is_a_note(own_harness: SlurmHarness) -> None:
    own_harness.config["classes"] = {"batch": {"reservation": "no-such-reservation"}}
    driver = await own_harness.make_driver()
    await own_harness.slurm("sbatch", "--cpus-per-task=4", "--mem=10M", "--output=/dev/null", "--wrap=sleep 900")
    report = await described(driver, lambda report: any("room" in note for note in report.notes))
    await driver.close()
    assert report.flavors[0].openings == ()
    sentence = "When there will be room is not known: cpu: allocation failure: Requested reservation is invalid."
    assert sentence in report.notes
