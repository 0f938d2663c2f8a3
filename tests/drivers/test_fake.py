"""The fake site: it plays attempts on a virtual clock, and misbehaves in each way that it is told to."""

import asyncio
import itertools
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atoll.core.clock import ManualClock
from atoll.core.errors import Invalid
from atoll.core.ids import new_attempt_id
from atoll.core.resources import Resources
from atoll.core.site import Ability
from atoll.core.spec import JobSpec
from atoll.core.states import Outcome
from atoll.drivers.base import (
    AttemptStatus,
    Driver,
    DriverError,
    DriverSetup,
    Held,
    Launch,
    Logs,
    Phase,
    Refused,
    Signals,
    StopReason,
    StopRequest,
    Submitted,
    Unknown,
)
from atoll.drivers.fake import (
    Engine,
    FakeDriver,
    forgetful,
    glancing,
    refusing,
    slow,
    unanswering,
    vanished,
)

GIB = 2**30
INSTANCE = "abcde"


class Site:
    """A driver, its engine and a clock to turn."""

    def __init__(self, folder: Path, cpus: int = 2) -> None:
        self.clock = ManualClock()
        self.engine = Engine(Resources(cpus * 1000, 4 * GIB), clock=self.clock)
        self.setup = DriverSetup("toy", INSTANCE, folder)
        self.slept: list[float] = []
        self.driver = self.new_driver()
        self._numbers: Iterator[int] = itertools.count(1)

    def new_driver(self) -> FakeDriver:
        return FakeDriver(self.setup, self.engine, self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)

    def launch(self, cpu: int = 1, walltime: int | None = None, **env: object) -> Launch:
        number = next(self._numbers)
        spec = JobSpec(command=["true"], env={f"FAKE_{name.upper()}": str(value) for name, value in env.items()})
        return Launch(
            new_attempt_id(INSTANCE, self.clock), number, None, 1, 1, str(number), "ada", "physics", None, spec,
            Resources(cpu * 1000, GIB), 1, walltime,
        )  # fmt: skip

    async def submitted(self, **options: Any) -> str:
        launch = self.launch(**options)
        (answer,) = await self.driver.submit([launch])
        assert isinstance(answer, Submitted)
        return launch.attempt_id

    async def status(self, attempt_id: str) -> AttemptStatus:
        observation = await self.driver.observe([])
        assert observation.complete
        return observation.states[attempt_id]

    async def stop(self, attempt_id: str, reason: StopReason = StopReason.CANCELLED, grace: float = 10) -> None:
        await self.driver.stop([StopRequest(Held(attempt_id), reason, grace)])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_it_is_a_driver_with_logs_and_signals(site: Site) -> None:
    assert isinstance(site.driver, Driver)
    assert isinstance(site.driver, Logs)
    assert isinstance(site.driver, Signals)


async def test_an_attempt_runs_for_its_time_and_ends_with_its_exit_code(site: Site) -> None:
    good, bad = await site.submitted(runtime=5), await site.submitted(runtime=7, exit=3)
    begun = site.clock()
    assert (await site.status(good)).phase is Phase.RUNNING
    site.clock.advance(5)
    status = await site.status(good)
    assert (status.phase, status.outcome, status.exit_code) == (Phase.ENDED, Outcome.SUCCEEDED, 0)
    assert status.started_at == begun
    assert status.ended_at == site.clock()
    assert status.cpu_seconds == 5
    assert (await site.status(bad)).phase is Phase.RUNNING
    site.clock.advance(86_400)
    status = await site.status(bad)
    assert (status.outcome, status.exit_code) == (Outcome.FAILED, 3)
    assert status.ended_at is not None
    assert (status.ended_at - begun).total_seconds() == 7


async def test_a_clock_that_jumps_over_days_still_plays_everything_in_its_turn(site: Site) -> None:
    attempts = [await site.submitted(cpu=2, runtime=10) for _ in range(5)]
    begun = site.clock()
    assert [(await site.status(attempt)).phase for attempt in attempts] == [Phase.RUNNING] + [Phase.STARTING] * 4
    site.clock.advance(86_400)
    ends = [(await site.status(attempt)).ended_at for attempt in attempts]
    assert [(end - begun).total_seconds() for end in ends if end] == [10, 20, 30, 40, 50]


async def test_labels_say_what_the_environment_does_not(site: Site) -> None:
    launch = site.launch()
    spec = launch.spec.model_copy(update={"labels": {"fake_runtime": "3", "fake_exit": "9"}})
    await site.driver.submit([replace(launch, spec=spec)])
    site.clock.advance(3)
    assert (await site.status(launch.attempt_id)).exit_code == 9


async def test_walltime_and_memory_are_enforced(site: Site) -> None:
    endless = await site.submitted(runtime=1000, walltime=60)
    greedy = await site.submitted(memory="2G")
    status = await site.status(greedy)
    assert (status.outcome, status.signal, status.max_memory) == (Outcome.OUT_OF_MEMORY, 9, 2 * GIB)
    site.clock.advance(60)
    assert (await site.status(endless)).outcome is Outcome.TIMED_OUT


async def test_what_it_has_free_follows_what_runs(site: Site) -> None:
    await site.submitted(cpu=1, runtime=5)
    (flavor,) = (await site.driver.describe()).flavors
    assert flavor.total == Resources(2000, 4 * GIB)
    assert flavor.free == Resources(1000, 3 * GIB)
    site.clock.advance(5)
    (flavor,) = (await site.driver.describe()).flavors
    assert flavor.free == flavor.total


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (StopReason.CANCELLED, Outcome.CANCELLED),
        (StopReason.EVICTED, Outcome.EVICTED),
        (StopReason.ORPHANED, Outcome.CANCELLED),
    ],
)
async def test_a_stopped_attempt_ends_by_its_reason(site: Site, reason: StopReason, outcome: Outcome) -> None:
    attempt = await site.submitted(runtime=100)
    await site.stop(attempt, reason)
    status = await site.status(attempt)
    assert (status.phase, status.outcome, status.signal) == (Phase.ENDED, outcome, signal.SIGTERM)


async def test_one_that_does_not_react_is_killed_when_the_grace_is_over_and_asking_again_does_not_prolong_it(
    site: Site,
) -> None:
    attempt = await site.submitted(runtime=100, stop_time=50)
    await site.stop(attempt, grace=10)
    site.clock.advance(6)
    await site.stop(attempt, StopReason.EVICTED, grace=10)
    assert (await site.status(attempt)).phase is Phase.RUNNING
    site.clock.advance(4)
    status = await site.status(attempt)
    assert (status.outcome, status.signal) == (Outcome.CANCELLED, signal.SIGKILL)


async def test_one_that_ends_by_itself_while_it_is_stopped_keeps_its_own_end(site: Site) -> None:
    attempt = await site.submitted(runtime=5, stop_time=8)
    await site.stop(attempt, grace=30)
    site.clock.advance(5)
    assert (await site.status(attempt)).outcome is Outcome.SUCCEEDED


async def test_one_that_waits_for_room_can_be_stopped_and_never_starts(site: Site) -> None:
    await site.submitted(cpu=2, runtime=5)
    attempt = await site.submitted()
    await site.stop(attempt)
    site.clock.advance(100)
    status = await site.status(attempt)
    assert (status.outcome, status.started_at) == (Outcome.CANCELLED, None)
    assert site.engine.starts[attempt] == 0


async def test_stopping_what_is_not_known_is_harmless(site: Site) -> None:
    await site.stop(new_attempt_id(INSTANCE))
    assert (await site.driver.observe([])).states == {}


async def test_deadly_signals_end_an_attempt_and_others_are_noted(site: Site) -> None:
    attempt = await site.submitted(runtime=100)
    await site.driver.signal(Held(attempt), signal.SIGUSR1)
    assert (await site.status(attempt)).phase is Phase.RUNNING
    await site.driver.signal(Held(attempt), signal.SIGINT)
    status = await site.status(attempt)
    assert (status.outcome, status.signal) == (Outcome.FAILED, signal.SIGINT)
    assert site.engine.signals == [(attempt, signal.SIGUSR1), (attempt, signal.SIGINT)]
    with pytest.raises(KeyError):
        await site.driver.signal(Held(attempt), signal.SIGUSR1)


async def test_output_is_read_by_pieces_from_either_end_until_it_is_forgotten(site: Site) -> None:
    attempt = await site.submitted(output="one\ntwo\n", error_output="oh")
    chunk = await site.driver.read_log(Held(attempt), "stdout", 4, 3)
    assert (chunk.offset, chunk.data, chunk.size) == (4, b"two", 8)
    chunk = await site.driver.read_log(Held(attempt), "stdout", -4, 100)
    assert (chunk.offset, chunk.data) == (4, b"two\n")
    assert (await site.driver.read_log(Held(attempt), "stderr", 0, 10)).data == b"oh"
    site.clock.advance(1)
    await site.driver.forget([Held(attempt)])
    with pytest.raises(KeyError):
        await site.driver.read_log(Held(attempt), "stdout", 0, 1)


async def test_only_ended_attempts_are_forgotten(site: Site) -> None:
    attempt = await site.submitted(runtime=5)
    await site.driver.forget([Held(attempt)])
    assert (await site.status(attempt)).phase is Phase.RUNNING
    site.clock.advance(5)
    await site.driver.forget([Held(attempt)])
    assert (await site.driver.observe([])).states == {}


async def test_the_same_attempt_runs_once_however_often_it_is_submitted(site: Site) -> None:
    launch = site.launch(runtime=5)
    first = await site.driver.submit([launch, launch])
    site.clock.advance(5)
    assert await site.driver.submit([launch]) == first[:1] == first[1:]
    await site.driver.observe([])
    await site.driver.forget([launch.held])
    (again,) = await site.driver.submit([launch])
    assert again == Refused(launch.attempt_id, "This attempt has run here before.")
    assert site.engine.starts[launch.attempt_id] == 1


async def test_what_is_too_large_or_makes_no_sense_is_refused_for_good(site: Site) -> None:
    answers = await site.driver.submit([site.launch(cpu=3), site.launch(runtime="soon"), site.launch()])
    large, senseless, good = answers
    assert isinstance(large, Refused)
    assert (large.message, large.permanent) == ("cpu: no node has 3 CPU, 1 GiB.", True)
    assert isinstance(senseless, Refused)
    assert "FAKE_" in senseless.message
    assert isinstance(good, Submitted)


async def test_beyond_its_limit_of_jobs_it_refuses_for_now(site: Site) -> None:
    site.engine.max_jobs = 1
    first, second = site.launch(runtime=5), site.launch()
    assert isinstance((await site.driver.submit([first]))[0], Submitted)
    (answer,) = await site.driver.submit([second])
    assert answer == Refused(second.attempt_id, "The engine takes 1 jobs at once.", permanent=False)
    assert isinstance((await site.driver.submit([first]))[0], Submitted)
    site.clock.advance(5)
    assert isinstance((await site.driver.submit([second]))[0], Submitted)


async def test_another_platforms_attempts_are_not_seen(site: Site) -> None:
    await site.submitted()
    other = FakeDriver(replace(site.setup, instance="vwxyz"), site.engine)
    assert (await other.observe([])).states == {}
    assert len((await site.driver.observe([])).states) == 1


async def test_a_slow_site_takes_its_time_for_every_call(site: Site) -> None:
    site.engine.behave(slow(3))
    begun = site.clock()
    observation = await site.driver.observe([])
    assert observation.as_of == begun
    await site.driver.describe()
    assert site.slept == [3, 3]


async def test_a_refusing_site_takes_nothing_and_says_whether_it_ever_will(site: Site) -> None:
    launch = site.launch()
    site.engine.behave(refusing("Closed."))
    assert await site.driver.submit([launch]) == [Refused(launch.attempt_id, "Closed.", permanent=True)]
    site.engine.behave(refusing("Busy.", for_good=False))
    assert await site.driver.submit([launch]) == [Refused(launch.attempt_id, "Busy.", permanent=False)]
    site.engine.behave()
    assert isinstance((await site.driver.submit([launch]))[0], Submitted)


async def test_a_vanished_site_answers_nothing_while_what_runs_goes_on(site: Site) -> None:
    attempt = await site.submitted(runtime=5)
    site.engine.behave(vanished("No route to host."))
    calls = (
        site.driver.describe,
        lambda: site.driver.observe([]),
        lambda: site.driver.submit([]),
        lambda: site.driver.stop([]),
        lambda: site.driver.forget([]),
        lambda: site.driver.read_log(Held(attempt), "stdout", 0, 1),
        lambda: site.driver.signal(Held(attempt), signal.SIGTERM),
    )
    for call in calls:
        with pytest.raises(DriverError, match="No route to host"):
            await call()
    site.clock.advance(5)
    site.engine.behave()
    assert (await site.status(attempt)).outcome is Outcome.SUCCEEDED


async def test_a_site_that_vanishes_during_a_call_does_not_answer_it(site: Site) -> None:
    async def vanish(seconds: float) -> None:
        site.engine.behave(vanished())

    site.engine.behave(slow(1))
    with pytest.raises(DriverError):
        await FakeDriver(site.setup, site.engine, vanish).observe([])


async def test_an_unanswered_submission_lands_later_and_once(site: Site) -> None:
    launch = site.launch(runtime=5)
    site.engine.behave(unanswering(lands_after=10))
    (answer,) = await site.driver.submit([launch])
    assert isinstance(answer, Unknown)
    assert (await site.driver.observe([])).states == {}
    site.engine.behave()
    site.clock.advance(10)
    assert (await site.status(launch.attempt_id)).phase is Phase.RUNNING
    assert isinstance((await site.driver.submit([launch]))[0], Submitted)
    assert site.engine.starts[launch.attempt_id] == 1


async def test_an_unanswered_submission_that_was_repeated_before_it_landed_runs_once(site: Site) -> None:
    launch = site.launch(runtime=1)
    site.engine.behave(unanswering(lands_after=10))
    await site.driver.submit([launch])
    site.engine.behave()
    await site.driver.submit([launch])
    site.clock.advance(5)
    await site.driver.forget([launch.held])
    site.clock.advance(50)
    assert (await site.driver.observe([])).states == {}
    assert site.engine.starts[launch.attempt_id] == 1


async def test_an_unanswered_submission_may_never_land(site: Site) -> None:
    launch = site.launch()
    site.engine.behave(unanswering(lands_after=None))
    await site.driver.submit([launch])
    site.clock.advance(1000)
    assert (await site.driver.observe([])).states == {}


async def test_a_glancing_site_sees_half_and_says_so(site: Site) -> None:
    for _ in range(4):
        await site.submitted()
    site.engine.behave(glancing())
    observation = await site.driver.observe([])
    assert not observation.complete
    assert len(observation.states) == 2


async def test_a_forgetful_site_drops_what_ended(site: Site) -> None:
    attempt = await site.submitted(runtime=5)
    site.engine.behave(forgetful(30))
    site.clock.advance(34)
    assert (await site.status(attempt)).outcome is Outcome.SUCCEEDED
    site.clock.advance(1)
    observation = await site.driver.observe([])
    assert observation.complete
    assert attempt not in observation.states


async def test_a_lost_attempt_is_unknown_and_its_room_is_free(site: Site) -> None:
    attempt, following = await site.submitted(cpu=2, runtime=50), await site.submitted(cpu=2)
    site.engine.lose(attempt)
    states = (await site.driver.observe([])).states
    assert attempt not in states
    assert states[following].phase is Phase.RUNNING


async def test_a_restart_of_the_engine_breaks_off_what_runs_and_starts_what_waits(site: Site) -> None:
    running, waiting = await site.submitted(cpu=2, runtime=50), await site.submitted(cpu=2, runtime=50)
    site.clock.advance(5)
    site.engine.restart()
    status = await site.status(running)
    assert (status.outcome, status.message) == (Outcome.NODE_FAILED, "The engine was restarted.")
    assert (await site.status(waiting)).phase is Phase.RUNNING
    assert site.engine.starts == {running: 1, waiting: 1}


async def test_a_restarted_control_plane_finds_its_attempts_again(site: Site) -> None:
    attempt = await site.submitted(runtime=5, exit=4)
    await site.driver.close()
    site.clock.advance(60)
    site.driver = site.new_driver()
    assert (await site.status(attempt)).exit_code == 4


async def test_a_site_is_made_of_its_file_alone_on_the_real_clock(tmp_path: Path) -> None:
    config = {
        "cpus": 8, "memory": "16G", "gpus": 2, "nodes": 3, "max_walltime": "1h", "abilities": ["image"],
        "runtime": 0, "behaviour": {"delay": 0.001},
    }  # fmt: skip
    driver = FakeDriver(DriverSetup("toy", INSTANCE, tmp_path, config))
    report = await asyncio.wait_for(driver.describe(), 5)
    (flavor,) = report.flavors
    assert (flavor.name, flavor.nodes) == ("gpu", 3)
    assert flavor.node == Resources(8000, 16 * GIB, 2000)
    assert flavor.total == flavor.node * 3
    assert report.abilities == {Ability.IMAGE}
    assert report.max_walltime == 3600
    assert report.owner is None  # the platform belongs to nobody
    launch = Site(tmp_path).launch()
    await driver.submit([launch])
    assert (await driver.observe([])).states[launch.attempt_id].outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("config", "field", "words"),
    [
        ({"cpu": 2}, "config.cpu", "Did you mean 'cpus'?"),
        ({"memory": "much"}, "config.memory", "is no size"),
        ({"nodes": 0}, "config.nodes", "greater than or equal to 1"),
        ({"behaviour": {"delays": 1}}, "config.behaviour.delays", "Did you mean 'delay'?"),
    ],
)
def test_a_wrong_configuration_is_refused_by_field(
    tmp_path: Path, config: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(Invalid) as caught:
        FakeDriver(DriverSetup("toy", INSTANCE, tmp_path, config))
    assert caught.value.field == field
    assert words in caught.value.sentence


async def test_a_planned_outage_comes_and_goes_again_and_again_while_what_runs_goes_on(tmp_path: Path) -> None:
    clock = ManualClock()
    engine = Engine(Resources(2000, 4 * GIB), clock=clock)
    outage = {"after": 100, "lasts": 20, "every": 60, "message": "The login node is down."}
    driver = FakeDriver(DriverSetup("toy", INSTANCE, tmp_path, {"outage": outage}), engine)
    assert (await driver.observe([])).complete
    for quiet in (100, 40, 40):
        clock.advance(quiet)
        with pytest.raises(DriverError, match="login node is down"):
            await driver.observe([])
        clock.advance(20)
        assert (await driver.observe([])).complete
