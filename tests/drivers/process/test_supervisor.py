"""The supervisor: killed and restarted it loses nothing, and it is one, small, and closed to others."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from atoll.core.states import Outcome
from atoll.drivers.base import DriverError, LogChunk, Phase, StopReason
from atoll.drivers.process import boot
from atoll.drivers.process.config import group_name
from atoll.drivers.process.supervisor.cgroups import Groups
from tests.contract.process_harness import ProcessHarness, ended, until


async def kill_supervisor(harness: ProcessHarness) -> psutil.Process:
    """SIGKILL, and nobody restarts it until the driver asks again."""
    supervisor = await harness.supervisor()
    supervisor.kill()
    await ended(supervisor)
    return supervisor


async def test_ends_are_right_after_the_supervisor_was_killed(either: ProcessHarness) -> None:
    """Ended before, ended while none was there, ended after: each exit code is that of the wrapper's record."""
    before, during = either.script("exit 21"), either.script("sleep 0.5; exit 22")
    after, by_signal = either.script("sleep 2; exit 23"), either.script("sleep 0.5; kill -9 $$")
    await either.submit(before, during, after, by_signal)
    await either.wait([before])
    await either.wait([during, after, by_signal], Phase.RUNNING)
    old = await kill_supervisor(either)
    await asyncio.sleep(1.0)  # two of them end meanwhile
    statuses = await either.wait([before, during, after, by_signal])
    assert [status.exit_code for status in statuses] == [21, 22, 23, 137]
    assert statuses[3].signal == 9
    assert {status.outcome for status in statuses} == {Outcome.FAILED}
    assert (await either.supervisor()).pid != old.pid


async def test_walltime_counts_from_the_start_although_the_supervisor_was_killed(either: ProcessHarness) -> None:
    launch = either.launch({"command": ["sleep", "60"], "grace": 0}, walltime=2)
    begun = time.monotonic()
    await either.submit(launch)
    await either.wait([launch], Phase.RUNNING)
    await asyncio.sleep(1.0)
    await kill_supervisor(either)
    (status,) = await either.wait([launch])
    assert status.outcome is Outcome.TIMED_OUT
    assert time.monotonic() - begun < 3 + either.slack


async def test_grace_and_verdict_outlive_the_supervisor(either: ProcessHarness) -> None:
    """A stop that was under way goes on: the kill comes when it was due, and the outcome is the reason's."""
    launch = either.script("trap '' TERM; echo up; while :; do sleep 0.1; done")
    await either.submit(launch)
    await either.wait_for_output(launch, b"up")
    begun = time.monotonic()
    await either.stop(launch, StopReason.EVICTED, grace=2)
    await kill_supervisor(either)
    (status,) = await either.wait([launch])
    assert status.outcome is Outcome.EVICTED
    assert 1.8 < time.monotonic() - begun < 2 + either.slack


async def test_memory_is_held_after_the_supervisor_was_killed(either: ProcessHarness) -> None:
    take = "import time; time.sleep(1.5); x=[]\nfor _ in range(60): x.append(b'x' * (16 << 20)); time.sleep(0.02)"
    launch = either.launch({"command": [either.python, "-c", take + "\ntime.sleep(30)"]})
    await either.submit(launch)
    await either.wait([launch], Phase.RUNNING)
    await kill_supervisor(either)
    (status,) = await either.wait([launch])
    assert status.outcome is Outcome.OUT_OF_MEMORY


@pytest.mark.parametrize("how", ["ends", "is stopped"])
async def test_daemon_ends_although_the_supervisor_was_killed(either: ProcessHarness, how: str) -> None:
    """Its wrapper is still its reaper: forked twice, in a session of its own, with no environment, it ends."""
    ticks = 'trap "" TERM; while :; do echo tick >>"$1"; sleep 0.05; done'
    text = (
        f"(cd / && env -i setsid sh -c '{ticks}' sh \"$ATOLL_CHECKPOINT_DIR/ticks\" >/dev/null 2>&1 </dev/null &) ; "
        f"sleep {1.0 if how == 'ends' else 60}"
    )
    launch = either.script(text, checkpoint_key="ticks")
    await either.submit(launch)
    await either.wait([launch], Phase.RUNNING)
    file = either.site / "checkpoints/ticks/ticks"
    await until(file.exists)
    await kill_supervisor(either)
    if how == "is stopped":
        await either.stop(launch, StopReason.CANCELLED, grace=1)
    await either.wait([launch])
    size = file.stat().st_size
    await asyncio.sleep(0.3)
    assert file.stat().st_size == size


async def test_daemon_ends_although_no_supervisor_is_there(harness: ProcessHarness) -> None:
    """The wrapper alone ends what its command left behind."""
    text = (
        "(cd / && env -i setsid sh -c 'while :; do echo tick >>\"$1\"; sleep 0.05; done' sh "
        '"$ATOLL_CHECKPOINT_DIR/ticks" >/dev/null 2>&1 </dev/null &) ; sleep 1'
    )
    launch = harness.script(text, checkpoint_key="ticks")
    await harness.submit(launch)
    await harness.wait([launch], Phase.RUNNING)
    await kill_supervisor(harness)
    end, file = harness.folder_of(launch.attempt_id) / "end", harness.site / "checkpoints/ticks/ticks"
    await until(end.exists)
    await asyncio.sleep(0.3)
    size = file.stat().st_size
    await asyncio.sleep(0.3)
    assert file.stat().st_size == size


async def test_nothing_is_lost_or_run_twice_when_the_supervisor_is_killed_at_random(harness: ProcessHarness) -> None:
    """Thirty kills while two hundred attempts are handed over and run: each ran exactly once, with its exit code."""
    pause = random.Random(20).uniform
    launches = [
        harness.script(f'echo {number} >>"$ATOLL_CHECKPOINT_DIR/runs"; exit {number % 7}', checkpoint_key="all")
        for number in range(200)
    ]
    await harness.supervisor()

    async def submit(batch: list[int]) -> None:
        while True:
            try:
                await harness.submit(*(launches[number] for number in batch))
                return
            except DriverError:
                continue  # killed twice while it was asked; whoever drives this asks again

    async def kill() -> None:
        for _ in range(30):
            await asyncio.sleep(pause(0.0, 0.15))
            pid = harness.process_driver.supervisor_pid
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # the last one has not been asked for again yet

    killer = asyncio.create_task(kill())
    for first in range(0, 200, 20):
        await submit(list(range(first, first + 20)))
    while not killer.done():
        try:
            await harness.driver.observe(harness.held())
        except DriverError:
            continue
    await killer
    statuses = await harness.wait(launches, patience=60)
    wrong = [
        (number, status)
        for number, status in enumerate(statuses)
        if status.exit_code != number % 7 or status.outcome is Outcome.LOST
    ]
    assert not wrong, wrong[:3]
    runs = (harness.site / "checkpoints/all/runs").read_text().split()
    assert sorted(map(int, runs)) == list(range(200))


async def test_second_supervisor_ends_at_once(harness: ProcessHarness) -> None:
    """The lock lets one in; whoever starts another is served by the first."""
    first = await harness.supervisor()
    settings = {"name": "x", "gpus": [], "cgroups": False, "state": str(harness.site / "supervisor")}
    words = [sys.executable, "-I", "-S", boot.__file__, str(harness.site), json.dumps(settings)]
    done = await asyncio.to_thread(subprocess.run, words, timeout=10, check=False)
    assert done.returncode == 0
    assert (await harness.supervisor()) == first
    others = [each for each in psutil.process_iter(["cmdline"]) if str(harness.site) in (each.info["cmdline"] or [])]
    assert others == [first]


async def test_supervisor_is_small_and_imports_nothing_large(harness: ProcessHarness) -> None:
    supervisor = await harness.supervisor()
    assert supervisor.memory_info().rss < 20 << 20
    mapped = {Path(entry.path).name for entry in supervisor.memory_maps()}
    assert not [name for name in mapped if "pydantic" in name or "numpy" in name or "_asyncio" in name]


async def test_supervisor_costs_nothing_while_nothing_happens(harness: ProcessHarness) -> None:
    supervisor = await harness.supervisor()
    await harness.run(harness.script(":"))
    before = sum(supervisor.cpu_times()[:2])
    await asyncio.sleep(2.0)
    assert sum(supervisor.cpu_times()[:2]) - before <= 0.02


async def test_supervisor_collects_every_child(harness: ProcessHarness) -> None:
    """No zombies: neither wrappers nor what jobs left behind."""
    supervisor = await harness.supervisor()
    launches = [harness.script("(sleep 60 &); (setsid sleep 60 &)") for _ in range(20)]
    await harness.submit(*launches)
    await harness.wait(launches)
    await until(lambda: not supervisor.children(recursive=True))


async def test_supervisor_with_running_attempts_does_not_shut_down(harness: ProcessHarness) -> None:
    launch = harness.script("sleep 60")
    await harness.submit(launch)
    await harness.wait([launch], Phase.RUNNING)
    assert not await harness.process_driver.shutdown()
    status = await harness.status(launch)
    assert status is not None
    assert status.phase is Phase.RUNNING


async def test_supervisor_survives_interrupts_and_the_end_of_its_driver(harness: ProcessHarness) -> None:
    supervisor = await harness.supervisor()
    assert os.getsid(supervisor.pid) != os.getsid(0)
    for number in (signal.SIGINT, signal.SIGHUP):
        supervisor.send_signal(number)
    await harness.restart()
    assert await harness.supervisor() == supervisor


async def test_supervisor_and_jobs_end_when_the_folder_vanishes(tmp_path: Path) -> None:
    harness = ProcessHarness(tmp_path)
    await harness.start()
    launch = harness.script("(setsid sleep 60 &); sleep 60")
    await harness.submit(launch)
    await harness.wait([launch], Phase.RUNNING)
    supervisor = await harness.supervisor()
    await harness.driver.close()
    jobs = supervisor.children(recursive=True)
    assert jobs
    groups = Groups.find(group_name(harness.site))  # where none may be made, None
    await asyncio.to_thread(harness.site.rename, tmp_path / "elsewhere")
    for process in (supervisor, *jobs):
        await ended(process)
    assert groups is None or not await asyncio.to_thread(os.path.isdir, groups.base)


async def test_socket_is_closed_to_other_accounts(harness: ProcessHarness) -> None:
    await harness.supervisor()
    state = harness.site / "supervisor"
    assert state.stat().st_mode & 0o777 == 0o700
    assert (state / "socket").stat().st_mode & 0o777 == 0o600


async def test_supervisor_answers_nonsense_with_an_error_and_goes_on(harness: ProcessHarness) -> None:
    supervisor = await harness.supervisor()
    for line in (
        b"nonsense\n",
        b"[]\n",
        b"{}\n",
        b'{"ask":"dance"}\n',
        b'{"ask":"stop"}\n',
        b'{"ask":"submit","attempts":3}\n',
    ):
        reader, writer = await asyncio.open_unix_connection(harness.site / "supervisor" / "socket")
        writer.write(line)
        assert "error" in json.loads(await reader.readline())
        writer.close()
        await writer.wait_closed()
    assert await harness.supervisor() == supervisor


async def test_supervisor_of_another_version_makes_room_and_its_attempts_go_on(
    harness: ProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = harness.script("sleep 1.5; exit 5")
    await harness.submit(launch)
    await harness.wait([launch], Phase.RUNNING)
    old = await harness.supervisor()
    harness.config["gpus"] = 1  # settings that the old one was not started with
    await harness.restart()
    (status,) = await harness.wait([launch])
    assert status.exit_code == 5
    assert await harness.supervisor() != old


async def test_wrapper_that_is_killed_fails_its_attempt(harness: ProcessHarness) -> None:
    """A job that kills its wrapper gains nothing: the attempt failed, and its processes end."""
    launch = harness.script("setsid sleep 60 & kill -9 $PPID; sleep 60")
    await harness.submit(launch)
    (status,) = await harness.wait([launch])
    assert (status.outcome, status.signal) == (Outcome.FAILED, 9)
    supervisor = await harness.supervisor()
    await until(lambda: not supervisor.children(recursive=True))


async def test_what_left_its_session_ends_although_wrapper_and_supervisor_were_killed(tmp_path: Path) -> None:
    """Without a cgroup it is known by its environment."""
    harness = ProcessHarness(tmp_path, {"memory_by": "sampling"})
    await harness.start()
    launch = harness.script("setsid sleep 61 & echo $! up; sleep 60")
    await harness.submit(launch)
    await harness.wait_for_output(launch, b"up")
    left = psutil.Process(int((await harness.read(launch)).split()[0]))
    (status,) = await harness.wait([launch], Phase.RUNNING)
    bystander = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    await kill_supervisor(harness)
    os.kill(int(status.native_state.split()[1]), signal.SIGKILL)
    await until(lambda: left.is_running() and os.getsid(left.pid) == left.pid)
    (status,) = await harness.wait([launch])
    assert status.outcome is Outcome.LOST
    await ended(left)
    assert bystander.returncode is None
    bystander.kill()
    await bystander.wait()
    await harness.tear_down()


async def test_empty_checkpoint_folder_goes_with_the_last_attempt_that_shares_it(harness: ProcessHarness) -> None:
    """A million tasks leave no million folders; what a job wrote there stays."""
    first, second = (harness.script('test -d "$ATOLL_CHECKPOINT_DIR"', checkpoint_key="shared") for _ in range(2))
    writes = harness.script('echo 1 >"$ATOLL_CHECKPOINT_DIR/step"', checkpoint_key="kept")
    await harness.submit(first, second, writes)
    assert {status.exit_code for status in await harness.wait([first, second, writes])} == {0}

    def there() -> list[str]:
        return sorted(path.name for path in (harness.site / "checkpoints").iterdir())

    await harness.forget(first, writes)
    assert there() == ["kept", "shared"]
    await kill_supervisor(harness)
    await harness.forget(second)
    assert there() == ["kept"]
    again = harness.script('test -d "$ATOLL_CHECKPOINT_DIR"', checkpoint_key="shared")
    assert (await harness.run(again)).exit_code == 0


async def test_large_output_is_not_read_on_the_event_loop(
    harness: ProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = harness.script("head -c 300000 /dev/zero")
    await harness.run(launch)
    folders, read = harness.process_driver._folders, []
    really = folders.read_log

    def watched(attempt_id: str, stream: str, offset: int, limit: int) -> LogChunk:
        chunk = really(attempt_id, stream, offset, limit)
        read.append((threading.current_thread() is threading.main_thread(), len(chunk.data)))
        return chunk

    monkeypatch.setattr(folders, "read_log", watched)
    assert len((await harness.logs.read_log(harness.held_as(launch), "stdout", 0, 1 << 20)).data) == 300_000
    assert len((await harness.logs.read_log(harness.held_as(launch), "stdout", -70_000, 1 << 20)).data) == 70_000
    assert len((await harness.logs.read_log(harness.held_as(launch), "stdout", 299_000, 1 << 20)).data) == 1000
    assert [size for on_loop, size in read if not on_loop] == [300_000, 70_000]
    assert max(size for on_loop, size in read if on_loop) <= 64 << 10


async def test_observing_a_thousand_attempts_takes_less_than_20_ms(harness: ProcessHarness) -> None:
    launches = [harness.launch({"command": ["true"]}) for _ in range(1000)]
    await harness.submit(*launches)
    await harness.wait(launches, patience=100)
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        states = (await harness.driver.observe(harness.held())).states
        times.append(time.perf_counter() - begun)
        assert len(states) == 1000
    assert min(times) < 0.02
    await harness.driver.forget([launch.held for launch in launches])
    assert not list((harness.site / "attempts").iterdir())
