"""Ends that the site brings about: walltime, memory, stops, and what a job leaves behind."""

import asyncio
import time

from atoll.core.site import Ability
from atoll.core.states import Outcome
from atoll.drivers.base import AttemptStatus, Launch, Phase, StopReason
from atoll.drivers.contract.harness import MIB, Harness

TICKS = 'while :; do echo tick >>"$1"; sleep 0.05; done'


class Ends:
    """Limits are held, stops are honoured, and an end is the end of everything."""

    async def test_walltime_ends_as_timed_out(self, harness: Harness) -> None:
        """A job that runs longer than its walltime is ended, soon after it, and told as timed out."""
        begun = time.monotonic()
        status = await harness.run(harness.launch({"command": ["sleep", "60"], "grace": 1}, walltime=1))
        assert status.outcome is Outcome.TIMED_OUT
        assert time.monotonic() - begun < 2 + harness.slack + harness.patience / 2
        assert status.message

    async def test_signal_comes_before_the_walltime(self, harness: Harness) -> None:
        """The signal that a job asked for reaches it as long before the end as it asked, and it may end by it."""
        await harness.need(Ability.SIGNAL)
        launch = harness.launch(
            {
                "command": ["sh", "-c", "trap 'echo warned; exit 7' USR1; echo up; while :; do sleep 0.1; done"],
                "signal": {"name": "USR1", "before": 28},
            },
            walltime=30,
        )
        status = await harness.run(launch)
        assert await harness.read(launch) == b"up\nwarned\n"
        assert (status.outcome, status.exit_code) == (Outcome.FAILED, 7)

    async def test_memory_ends_as_out_of_memory(self, harness: Harness) -> None:
        """A job that uses more memory than it asked for is ended and told as out of memory."""
        take = "import time; x=[]\nfor _ in range(40): x.append(b'x' * (16 << 20)); time.sleep(0.02)\ntime.sleep(30)"
        launch = harness.launch({"command": [harness.python, "-c", take]})
        status = await harness.run(launch)
        assert status.outcome is Outcome.OUT_OF_MEMORY
        assert status.exit_code != 0
        assert status.message

    async def test_memory_of_several_processes_counts_together(self, harness: Harness) -> None:
        """Children count too: none of them alone is over the limit."""
        take = (
            "import os,time\nfor _ in range(8):\n"
            "  if os.fork() == 0:\n    x = b'x' * (64 << 20); time.sleep(150); os._exit(0)\n"
            "time.sleep(150)"
        )
        begun = time.monotonic()
        status = await harness.run(harness.launch({"command": [harness.python, "-c", take]}), patience=90)
        assert status.outcome is Outcome.OUT_OF_MEMORY
        assert time.monotonic() - begun < 60 + harness.slack, "what was left of the job went on"

    async def test_memory_within_the_limit_is_let_be(self, harness: Harness) -> None:
        """A job that stays below what it asked for is not touched, and its use is told where the site knows it."""
        take = "x = b'x' * (100 << 20); import time; time.sleep(0.6)"
        status = await harness.run(harness.launch({"command": [harness.python, "-c", take]}))
        assert status.outcome is Outcome.SUCCEEDED
        assert status.max_memory is None or 90 * MIB < status.max_memory < 256 * MIB

    async def test_cancelled_job_may_tidy_up(self, harness: Harness) -> None:
        """A stop sends TERM and waits: the job can end by itself within its grace."""
        launch = await self._trapped(harness, "trap 'echo tidied; exit 3' TERM")
        await harness.stop(launch, StopReason.CANCELLED, grace=20)
        status = await self._ended(harness, launch)
        assert (status.outcome, status.exit_code) == (Outcome.CANCELLED, 3)
        assert b"tidied" in await harness.read(launch)

    async def test_eviction_is_told_as_evicted(self, harness: Harness) -> None:
        """The reason of a stop decides the outcome."""
        launch = await self._trapped(harness, ":")
        await harness.stop(launch, StopReason.EVICTED, grace=20)
        status = await self._ended(harness, launch)
        assert status.outcome is Outcome.EVICTED

    async def test_job_that_ignores_the_signal_is_killed_after_its_grace(self, harness: Harness) -> None:
        """Not before, and not much later."""
        launch = await self._trapped(harness, "trap '' TERM")
        begun = time.monotonic()
        await harness.stop(launch, StopReason.CANCELLED, grace=2)
        status = await self._ended(harness, launch)
        assert status.outcome is Outcome.CANCELLED
        assert 1.8 < time.monotonic() - begun < 2 + harness.slack

    async def test_stopping_again_does_not_prolong_the_grace(self, harness: Harness) -> None:
        """A repeated stop is harmless, and can only make the end come sooner."""
        launch = await self._trapped(harness, "trap '' TERM")
        begun = time.monotonic()
        await harness.stop(launch, StopReason.CANCELLED, grace=2)
        await harness.stop(launch, StopReason.EVICTED, grace=60)
        status = await self._ended(harness, launch)
        assert status.outcome is Outcome.CANCELLED
        assert time.monotonic() - begun < 2 + harness.slack

    async def test_stop_without_grace_kills_at_once(self, harness: Harness) -> None:
        """A grace of 0 does not wait for anybody."""
        launch = await self._trapped(harness, "trap '' TERM")
        await harness.stop(launch, StopReason.CANCELLED, grace=0)
        status = await self._ended(harness, launch)
        assert status.outcome is Outcome.CANCELLED

    async def test_stop_right_after_submit_leaves_nothing_running(self, harness: Harness) -> None:
        """A stop that comes before, while or just after the job starts is not lost."""
        launches = [harness.script("sleep 300") for _ in range(10)]
        await harness.submit(*launches)
        for launch in launches:
            await harness.stop(launch, StopReason.CANCELLED, grace=5)
        statuses = await harness.wait(launches)
        assert {status.outcome for status in statuses} == {Outcome.CANCELLED}

    async def test_stop_of_unknown_or_ended_attempts_is_harmless(self, harness: Harness) -> None:
        """An attempt that ended by itself keeps its own outcome."""
        launch = harness.script("exit 4")
        await harness.stop(launch, StopReason.CANCELLED, grace=1)
        assert await harness.status(launch) is None
        await harness.run(launch)
        await harness.stop(launch, StopReason.CANCELLED, grace=1)
        status = await harness.status(launch)
        assert status is not None
        assert (status.outcome, status.exit_code) == (Outcome.FAILED, 4)

    async def test_signal_reaches_a_running_job(self, harness: Harness) -> None:
        """A signal can be sent without stopping the job; to one that does not run it is a KeyError."""
        launch = await self._trapped(harness, "trap 'echo got it' USR1")
        import signal

        await harness.signals.signal(harness.held_as(launch), signal.SIGUSR1)
        await harness.wait_for_output(launch, b"got it")
        status = await harness.status(launch)
        assert status is not None
        assert status.phase is Phase.RUNNING
        missing = harness.script(":")
        try:
            await harness.signals.signal(harness.held_as(missing), signal.SIGUSR1)
        except KeyError:
            return
        raise AssertionError("a signal to an unknown attempt must be a KeyError")

    async def test_background_process_ends_with_the_job(self, harness: Harness) -> None:
        """A process that a job leaves in the background is ended with it."""
        await self._leaves_nothing(harness, f"sh -c '{TICKS}' sh \"$T\" & sleep 0.3")

    async def test_daemon_ends_with_the_job(self, harness: Harness) -> None:
        """So is one that forked twice, has a session of its own, and no variable left to know it by."""
        await self._leaves_nothing(
            harness, f"(cd / && env -i setsid sh -c '{TICKS}' sh \"$T\" >/dev/null 2>&1 </dev/null &) ; sleep 0.3"
        )

    async def test_daemon_ends_when_the_job_is_killed(self, harness: Harness) -> None:
        """The same where the job did not end by itself."""
        await self._leaves_nothing(
            harness,
            f'(cd / && env -i setsid sh -c \'trap "" TERM; {TICKS}\' sh "$T" >/dev/null 2>&1 </dev/null &) ; '
            "trap '' TERM; while :; do sleep 0.1; done",
            stop=True,
        )

    async def _leaves_nothing(self, harness: Harness, text: str, stop: bool = False) -> None:
        """A process writes ticks to a file that outlives its job; a later job sees that no more come."""
        key = "ticks"
        launch = harness.script(f'T="$ATOLL_CHECKPOINT_DIR/ticks"; {text}', checkpoint_key=key)
        await harness.submit(launch)
        if stop:
            await harness.wait([launch], Phase.RUNNING)
            await asyncio.sleep(0.5)  # time for ticks
            await harness.stop(launch, StopReason.CANCELLED, grace=0.5)
        await harness.wait([launch])
        look = 'cd "$ATOLL_CHECKPOINT_DIR"; wc -l <ticks; sleep 0.4; wc -l <ticks'
        first, second = (await harness.output(harness.script(look, checkpoint_key=key))).split()
        assert int(first) > 0, "the process never ran"
        assert first == second, "the process goes on after its job"

    async def _trapped(self, harness: Harness, trap: str) -> Launch:
        launch = harness.script(f"{trap}; echo up; while :; do sleep 0.1; done")
        await harness.submit(launch)
        await harness.wait_for_output(launch, b"up\n")
        return launch

    async def _ended(self, harness: Harness, launch: Launch) -> AttemptStatus:
        return (await harness.wait([launch]))[0]
