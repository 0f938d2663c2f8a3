"""Plugins that answer garbage, hang, forget, answer from memory or break off: one sentence, and no job suffers."""

import asyncio
import time
from collections.abc import Iterable

import pytest

from atoll.core.states import Outcome
from atoll.drivers.base import (
    AttemptStatus,
    DriverError,
    DriverSetup,
    Held,
    Launch,
    Phase,
    Refused,
    StopReason,
    StopRequest,
    Submitted,
    Unknown,
)
from atoll.drivers.contract.harness import only
from atoll.drivers.interlink import InterlinkDriver
from tests.contract.interlink_harness import InterlinkHarness

SENTENCES = {
    "garbage": "no JSON: <html>",
    "hang": "did not answer GET /status within 2 seconds",
    "drip": "did not answer GET /status within 2 seconds",
    "flood": "has more than",
    "broken": "with 500: panic: runtime error",
}


def creations(calls: Iterable[tuple[str, object]]) -> list[str]:
    return [type(body).__name__ for path, body in calls if path == "/create"]


async def settled(harness: InterlinkHarness, launch: Launch) -> AttemptStatus | None:
    """What the first complete observation tells of an attempt that nobody has acknowledged."""
    async with asyncio.timeout(10):
        while not (observation := await harness.driver.observe([launch.held])).complete:  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # nothing else tells
    return observation.states.get(launch.attempt_id)


@pytest.mark.parametrize("mode", sorted(SENTENCES))
async def test_bad_answer_to_an_observation_is_one_sentence_in_bounded_time(
    harness: InterlinkHarness, mode: str
) -> None:
    launch = harness.script("sleep 60")
    await harness.submit(launch)
    harness.plugin.modes(mode)
    begun = time.monotonic()
    with pytest.raises(DriverError) as caught:
        await harness.driver.observe(harness.held())
    assert time.monotonic() - begun < 8
    assert SENTENCES[mode] in str(caught.value)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    harness.plugin.modes()
    await harness.wait([launch], Phase.RUNNING)


@pytest.mark.parametrize("mode", ["garbage", "hang", "drip", "lost-answer"])
async def test_creation_without_a_proper_answer_is_unknown_and_runs_once(harness: InterlinkHarness, mode: str) -> None:
    launch = harness.script('echo ran >>"$ATOLL_CHECKPOINT_DIR/runs"; exit 6', checkpoint_key="once")
    harness.plugin.modes(mode)
    answer = only(await harness.driver.submit([launch]))
    assert isinstance(answer, Unknown)
    harness.plugin.modes()
    if await settled(harness, launch) is None:
        await harness.submit(launch)
    (status,) = await harness.wait([launch])
    assert status.exit_code == 6
    assert (harness.folder / "checkpoints" / "once" / "runs").read_text() == "ran\n"


async def test_creation_that_may_still_land_leaves_the_observation_incomplete(harness: InterlinkHarness) -> None:
    launch = harness.script("true")
    harness.plugin.modes("hang")
    assert isinstance(only(await harness.driver.submit([launch])), Unknown)
    harness.plugin.modes()
    assert not (await harness.driver.observe([launch.held])).complete
    assert isinstance(only(await harness.driver.submit([launch])), Unknown)
    await asyncio.sleep(1.1)
    assert (await harness.driver.observe([launch.held])).complete


async def test_refusal_is_told_in_the_engines_words_and_may_be_repeated(harness: InterlinkHarness) -> None:
    harness.plugin.modes("refuses")
    launches = [harness.script("true") for _ in range(3)]
    answers = await harness.driver.submit(launches)
    assert all(isinstance(answer, Refused) and not answer.permanent for answer in answers)
    assert all(
        "Invalid partition name specified" in answer.message for answer in answers if isinstance(answer, Refused)
    )


async def test_one_that_hangs_does_not_make_the_others_wait_as_long_again(harness: InterlinkHarness) -> None:
    harness.plugin.modes("hang")
    begun = time.monotonic()
    answers = await harness.driver.submit([harness.script("true") for _ in range(20)])
    assert time.monotonic() - begun < 5
    assert all(isinstance(answer, Unknown) for answer in answers)


async def test_plugin_that_wants_a_list_is_learnt_from_its_error_once(harness: InterlinkHarness) -> None:
    harness.plugin.modes("wants-list")
    harness.plugin.calls()
    launches = [harness.script("exit 5") for _ in range(3)]
    await harness.submit(*launches)
    assert creations(harness.plugin.calls()) == ["dict", "list", "list", "list"]
    assert {status.exit_code for status in await harness.wait(launches)} == {5}
    harness.plugin.modes()  # it was replaced by a newer one
    again = [harness.script("exit 6") for _ in range(2)]
    await harness.submit(*again)
    assert creations(harness.plugin.calls()) == ["list", "dict", "dict"]
    assert {status.exit_code for status in await harness.wait(again)} == {6}


async def test_answers_from_memory_lose_no_job(harness: InterlinkHarness) -> None:
    """The Slurm plugin answers for ten seconds what it answered before, whatever pods it is asked for."""
    harness.config["answer_age"] = 12
    await harness.restart()
    harness.plugin.modes("remembers")
    first, second = harness.script("exit 4"), harness.script("exit 5")
    await harness.submit(first)
    assert await harness.status(first) is not None  # remembered from now on
    await harness.submit(second)
    observation = await harness.driver.observe(harness.held())
    assert observation.states[second.attempt_id].phase is Phase.STARTING
    ends = await harness.wait([first, second])
    assert [status.exit_code for status in ends] == [4, 5]


async def test_answer_to_another_question_says_nothing(harness: InterlinkHarness) -> None:
    """However long the plugin goes on to answer a question that somebody else asked."""
    first, second = harness.script("sleep 60"), harness.script("sleep 60")
    await harness.submit(first, second)
    await harness.wait([first, second], Phase.RUNNING)
    await harness.restart()
    harness.plugin.modes("remembers")
    await harness.driver.stop([StopRequest(harness.held_as(first), StopReason.CANCELLED, 0)])  # asks for this one only
    observation = await harness.driver.observe([harness.held_as(second)])
    assert observation.states[second.attempt_id].phase is Phase.STARTING
    await asyncio.sleep(1.2)  # longer than an answer may be old
    assert second.attempt_id in (await harness.driver.observe([harness.held_as(second)])).states


async def test_pod_that_the_plugin_does_not_know_does_not_hide_the_others(harness: InterlinkHarness) -> None:
    """The Docker plugin fails the whole question for one pod that it does not know."""
    launches = [harness.script("sleep 60") for _ in range(9)]
    await harness.submit(*launches)
    await harness.wait(launches, Phase.RUNNING)
    harness.plugin.modes("all-or-nothing")
    gone = launches[4]
    harness.plugin.forget(harness.uid(gone))
    observation = await harness.driver.observe(harness.held())
    assert observation.complete
    assert observation.states.keys() == {launch.attempt_id for launch in launches if launch is not gone}
    assert {status.phase for status in observation.states.values()} == {Phase.RUNNING}


@pytest.mark.parametrize("mode", ["no-change", "no-containers"])
async def test_saying_nothing_changes_nothing(harness: InterlinkHarness, mode: str) -> None:
    launch = harness.script("sleep 1; exit 9")
    await harness.submit(launch)
    await harness.wait([launch], Phase.RUNNING)
    harness.plugin.modes(mode)
    await asyncio.sleep(1.5)
    status = await harness.status(launch)
    assert status is not None
    assert status.phase is Phase.RUNNING
    await harness.restart()  # and nobody remembers how it was
    status = await harness.status(launch)
    assert status is not None
    assert status.phase is Phase.STARTING
    harness.plugin.modes()
    (status,) = await harness.wait([launch])
    assert status.exit_code == 9


async def test_forgotten_pod_is_missing_and_never_succeeded(harness: InterlinkHarness) -> None:
    launch = harness.script("sleep 60")
    await harness.submit(launch)
    await harness.wait([launch], Phase.RUNNING)
    harness.plugin.forget(harness.uid(launch))
    status = await harness.status(launch)
    assert status is not None, "one answer without it may be an old one"
    await asyncio.sleep(1.1)
    assert await harness.status(launch) is None


async def test_output_begins_where_the_jobs_own_begins(harness: InterlinkHarness) -> None:
    """The Slurm plugin puts its batch job's own words, which grow, before the output of the pod."""
    launch = harness.script("echo out; echo error >&2; sleep 1; echo end")
    await harness.submit(launch)
    harness.plugin.modes("noisy")
    await harness.wait_for_output(launch, b"out\n")
    await harness.wait([launch])
    assert await harness.read(launch) == b"out\nerror\nend\n"
    chunk = await harness.logs.read_log(harness.held_as(launch), "stderr", 0, 100)
    assert (chunk.data, chunk.size) == (b"", 0)


async def test_stop_keeps_reason_and_output_beyond_the_pod_and_a_restart(harness: InterlinkHarness) -> None:
    launch = harness.script("echo so far; sleep 60")
    await harness.submit(launch)
    await harness.wait_for_output(launch, b"so far")
    harness.plugin.calls()
    await harness.stop(launch, StopReason.EVICTED, grace=1)
    assert [path for path, _ in harness.plugin.calls() if path == "/delete"] == ["/delete"]
    await harness.restart()
    await harness.stop(launch, StopReason.CANCELLED, grace=0)
    status = await harness.status(launch)
    assert status is not None
    assert (status.phase, status.outcome) == (Phase.ENDED, Outcome.EVICTED)
    assert await harness.read(launch) == b"so far\n"
    await harness.forget(launch)
    assert await harness.status(launch) is None
    assert list((harness.folder / "site" / "stopped").iterdir()) == []


async def test_job_that_ended_unseen_keeps_its_end_when_it_is_stopped(harness: InterlinkHarness) -> None:
    launch = harness.script("exit 7")
    await harness.submit(launch)
    await asyncio.sleep(1)  # it ends, and nobody asks
    await harness.stop(launch, StopReason.CANCELLED, grace=0)
    (status,) = await harness.wait([launch])
    assert (status.outcome, status.exit_code) == (Outcome.FAILED, 7)


async def test_signal_comes_before_the_walltime_and_the_job_may_end_by_it(harness: InterlinkHarness) -> None:
    spec = {
        "command": ["sh", "-c", "trap 'echo warned; exit 7' USR1; echo up; while :; do sleep 0.1; done"],
        "signal": {"name": "USR1", "before": 28},
    }
    launch = harness.launch(spec, walltime=30)
    status = await harness.run(launch)
    assert (status.outcome, status.exit_code) == (Outcome.FAILED, 7)
    assert (await harness.read(launch)).endswith(b"warned\n")


async def test_exit_code_of_a_walltime_that_was_none_is_a_failure(harness: InterlinkHarness) -> None:
    status = await harness.run(harness.launch({"command": ["sh", "-c", "exit 124"], "walltime": "1h"}, walltime=3600))
    assert (status.outcome, status.exit_code) == (Outcome.FAILED, 124)


async def test_long_script_and_secrets_reach_a_pod_that_runs(harness: InterlinkHarness) -> None:
    script = "#!/bin/sh\n" + "# grüße\n" * 12_000 + 'printf %s "$KEY"; cat keys/pem\n'
    spec = {"script": script, "secrets": [{"name": "a", "env": "KEY"}, {"name": "b", "file": "keys/pem"}]}
    launch = harness.launch(spec, secrets={"a": b"two lines\n\n", "b": b"bytes \0\xff\n"})
    await harness.run(launch)
    assert await harness.read(launch) == b"two lines\n\nbytes \0\xff\n"


async def test_job_of_the_same_attempt_is_not_run_twice_on_a_node(harness: InterlinkHarness) -> None:
    """Where an engine starts a pod's command a second time, the first one's folder is in its way."""
    launch = harness.script("exit 3")
    (harness.folder / f"atoll-{launch.attempt_id}").mkdir()
    status = await harness.run(launch)
    assert status.exit_code == 125
    assert b"the pod runs here already" in await harness.read(launch)


async def test_site_without_capacity_says_what_to_do(harness: InterlinkHarness) -> None:
    config = {**harness.config, "total": None}
    driver = InterlinkDriver(DriverSetup("grid", harness.instance, harness.folder / "other", config, harness.owner))
    report = await driver.describe()
    assert (report.flavors[0].total.cpu, report.flavors[0].total.memory) == (64_000, 64 << 30)
    harness.plugin.modes("garbage")
    with pytest.raises(DriverError, match="give total"):
        await driver.describe()
    await driver.close()


async def test_strangers_are_not_asked_for(harness: InterlinkHarness) -> None:
    harness.plugin.calls()
    observation = await harness.driver.observe([Held("../../etc"), Held("bbbbb-0000000000000000", "a/b/c/d")])
    assert (observation.complete, dict(observation.states)) == (True, {})
    assert harness.plugin.calls() == []


async def test_submitted_answer_is_the_same_for_the_same_attempt_in_one_call(harness: InterlinkHarness) -> None:
    launch = harness.script("true")
    harness.plugin.calls()
    first, second = await harness.driver.submit([launch, launch])
    assert isinstance(first, Submitted)
    assert first == second
    assert creations(harness.plugin.calls()) == ["dict"]
