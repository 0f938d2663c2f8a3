"""What only a real Podman shows: rights inside, limits, ends from outside, and images that are wrong."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atoll.core.resources import Resources
from atoll.core.states import Outcome
from atoll.drivers.base import DriverError, Held, Launch, Phase, Refused, StopReason, Submitted, Unknown
from tests.contract.podman_harness import PodmanHarness
from tests.support.engines import skip_without
from tests.support.podman import IMAGE, PodmanService

FOREVER = "echo up; while :; do sleep 0.1; done"


async def test_job_has_no_capabilities_and_cannot_gain_any(harness: PodmanHarness) -> None:
    status = await harness.output(harness.script("grep -E '^(Cap|NoNewPrivs)' /proc/self/status"))
    lines = dict(line.split(":\t") for line in status.splitlines())
    assert lines["NoNewPrivs"] == "1"
    assert {int(value, 16) for name, value in lines.items() if name.startswith("Cap")} == {0}


async def test_job_runs_as_its_account_with_its_groups(tmp_path: Path, podman_service: PodmanService) -> None:
    harness = PodmanHarness(tmp_path, podman_service, account="games")
    await harness.start()
    try:
        launch = harness.script("id -u; id -g; echo x >made; pwd >&2; cat /atoll/orders/plan && exit 1; exit 0")
        ids = (await harness.output(launch)).split()
        assert ids == ["5", "60"]
        assert (harness.folder_of(launch.attempt_id) / "work" / "made").stat().st_uid == 5
        assert (await harness.status(launch)).account == "games"  # type: ignore[union-attr]
    finally:
        await harness.tear_down()


async def test_orders_of_the_platform_can_be_read_and_not_written(harness: PodmanHarness) -> None:
    text = "for d in orders tools; do touch /atoll/$d/x 2>/dev/null && echo wrote $d; done; rm -f /atoll/orders/plan; :"
    launch = harness.script(text)
    assert await harness.output(launch) == ""
    assert (harness.site / "orders" / launch.attempt_id / "plan").exists()


async def test_limits_are_the_engines(harness: PodmanHarness) -> None:
    launch = harness.script("exit 0", request=Resources(cpu=1500, memory=300 << 20))
    await harness.run(launch)
    limits = harness.inspect(launch)["HostConfig"]
    assert limits["Memory"] == limits["MemorySwap"] == 300 << 20
    assert (limits["CpuQuota"], limits["CpuPeriod"]) == (150_000, 100_000)
    assert limits["PidsLimit"] == 4096


async def test_container_that_is_killed_from_outside_is_a_failure_of_the_node(harness: PodmanHarness) -> None:
    launch = harness.script(FOREVER)
    await harness.submit(launch)
    await harness.wait_for_output(launch, b"up")
    await harness.podman("kill", f"atoll-{launch.attempt_id}")
    (status,) = await harness.wait([launch])
    assert (status.outcome, status.signal) == (Outcome.NODE_FAILED, 9)
    assert "outside" in status.message


async def test_grace_ends_although_nobody_is_there_to_end_it(harness: PodmanHarness) -> None:
    launch = harness.script(f"trap '' TERM; {FOREVER}")
    await harness.submit(launch)
    await harness.wait_for_output(launch, b"up")
    pid = harness.inspect(launch)["State"]["Pid"]
    await harness.stop(launch, StopReason.EVICTED, grace=1)
    await harness.driver.close()
    async with asyncio.timeout(8):
        await until(Path(f"/proc/{pid}").exists, False)
    await harness.start()
    (status,) = await harness.wait([launch])
    assert status.outcome is Outcome.EVICTED


async def test_stop_is_held_although_the_job_got_rid_of_its_keeper(
    harness: PodmanHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoll.drivers.podman.driver._LATE", 0.5)
    mean = "for p in /proc/[0-9]*; do n=${p#/proc/}; [ $n = $$ ] || [ $n = $PPID ] || kill -9 $n 2>/dev/null; done"
    launch = harness.script(f"{mean}; trap '' TERM; {FOREVER}")
    await harness.submit(launch)
    await harness.wait_for_output(launch, b"up")
    begun = time.monotonic()
    await harness.stop(launch, StopReason.CANCELLED, grace=1)
    (status,) = await harness.wait([launch])
    assert status.outcome is Outcome.CANCELLED
    assert time.monotonic() - begun < 10


async def test_walltime_is_held_by_podman_where_the_keeper_is_gone(harness: PodmanHarness) -> None:
    launch = harness.script("true", walltime=100)
    await harness.run(launch)
    name = f"atoll-{launch.attempt_id}"
    settings = json.loads(await harness.podman("inspect", name))[0]
    assert settings["Config"]["Timeout"] > 100 + launch.spec.grace


async def test_signals_that_no_shell_can_pass_on_reach_the_job_alone(harness: PodmanHarness) -> None:
    launch = harness.script(FOREVER)
    await harness.submit(launch)
    await harness.wait_for_output(launch, b"up")
    await harness.signals.signal(harness.held_as(launch), signal.SIGKILL)
    (status,) = await harness.wait([launch])
    assert (status.outcome, status.signal, status.exit_code) == (Outcome.FAILED, 9, 137)


async def test_container_of_a_platform_that_died_before_the_start_is_started(harness: PodmanHarness) -> None:
    """The engine made it, and nobody came to start it."""
    launch = harness.script("exit 31")
    await harness.driver.describe()
    service = harness.service
    with service.frozen():
        (answer,) = await harness.driver.submit([launch])  # the call is given up: whether it landed nobody knows
        assert isinstance(answer, Unknown)
        await harness.driver.close()
    await harness.start()
    if await harness.status(launch) is None:
        await harness.submit(launch)
    (status,) = await harness.wait([launch])
    assert status.exit_code == 31


async def test_image_that_is_not_there_is_refused_for_good_where_none_is_pulled(
    tmp_path: Path, podman_service: PodmanService
) -> None:
    harness = PodmanHarness(tmp_path, podman_service, pull="never")
    await harness.start()
    try:
        launch = harness.launch({"command": ["true"], "environment": {"image": "localhost/no-such:1"}})
        (answer,) = await harness.driver.submit([launch])
        assert isinstance(answer, Refused)
        assert answer.permanent
        assert "environment.image" in answer.message
        assert "no-such:1" in answer.message
        assert await harness.status(launch) is None
        assert not harness.folder_of(launch.attempt_id).exists()
    finally:
        await harness.tear_down()


async def test_image_without_a_shell_is_refused_for_good_with_the_engines_words(harness: PodmanHarness) -> None:
    empty = harness.folder / "empty.tar"
    subprocess.run(["tar", "-cf", empty, "-C", "/", "etc/hostname"], check=True)  # noqa: ASYNC221
    await harness.podman("import", str(empty), "localhost/empty:1")
    launch = harness.launch({"command": ["true"], "environment": {"image": "localhost/empty:1"}})
    (answer,) = await harness.driver.submit([launch])
    assert isinstance(answer, Refused)
    assert answer.permanent
    assert "/bin/sh" in answer.message
    assert await harness.status(launch) is None
    assert launch.attempt_id not in await harness.podman("ps", "-a", "--format", "{{.Names}}")


async def test_image_of_its_own_is_used(harness: PodmanHarness) -> None:
    await harness.podman("tag", IMAGE, "localhost/mine:2")
    launch = harness.launch({"command": ["/bin/sh", "-c", "echo $PATH"], "environment": {"image": "localhost/mine:2"}})
    assert "/usr/bin" in await harness.output(launch)
    assert harness.inspect(launch)["ImageName"] == "localhost/mine:2"


async def test_files_come_out_of_a_working_directory_in_the_image(harness: PodmanHarness) -> None:
    text = "mkdir -p out; echo 1 >out/a.csv; ln -s out/a.csv in; ln -s /etc/passwd passwd; echo 2 >b; chmod +x b"
    launch = harness.launch({"command": ["/bin/sh", "-c", text], "workdir": "/var/tmp"})
    await harness.run(launch)
    into = harness.folder / "taken"
    taken = await harness.stage.take_out(harness.held_as(launch), ["out/*", "in", "passwd", "b"], into)
    assert taken == ["b", "in", "out/a.csv"]
    assert (into / "in").read_text() == "1\n"
    assert os.access(into / "b", os.X_OK)


async def test_pipe_in_the_place_of_a_record_holds_nobody_up(harness: PodmanHarness) -> None:
    text = "cd /atoll/attempt && rm -f start verdict && mkfifo start verdict stop && ln -s /etc/shadow end; exit 0"
    launch = harness.script(f"until [ -e go ]; do sleep 0.1; done; {text}")
    await harness.submit(launch)
    await harness.wait([launch], Phase.RUNNING)  # its start was read: nobody opens the pipe any more
    (harness.folder_of(launch.attempt_id) / "work" / "go").touch()
    (status,) = await harness.wait([launch])
    assert status.phase is Phase.ENDED
    assert status.outcome is not Outcome.CANCELLED


async def test_attempts_of_a_second_platform_are_left_alone(harness: PodmanHarness, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = PodmanHarness(tmp_path / "other", harness.service)
    await other.start()
    try:
        mine, theirs = harness.script("sleep 60"), other.script("sleep 60")
        await harness.submit(mine)
        await other.submit(theirs)
        assert set((await harness.driver.observe([])).states) == {mine.attempt_id}
        await harness.driver.stop([])
        await harness.driver.forget([Held(theirs.attempt_id)])
        assert set((await other.driver.observe([])).states) == {theirs.attempt_id}
    finally:
        await other.tear_down()


async def test_gpu_of_another_platform_is_not_given_away(harness: PodmanHarness, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = PodmanHarness(tmp_path / "other", harness.service)
    await other.start()
    try:
        spec = {"command": ["/bin/sh", "-c", "ls /dev | grep gpu; sleep 60"], "gpu": 1}
        first, second, third = harness.launch(spec), other.launch(spec), harness.launch(spec)
        for owner, launch in ((harness, first), (other, second)):
            await owner.submit(launch)
            await owner.wait_for_output(launch, b"gpu")
        seen = [(await harness.read(first)).split(), (await other.read(second)).split()]
        assert sorted(seen) == [[b"gpu0"], [b"gpu1"]]
        (answer,) = await harness.driver.submit([third])
        assert isinstance(answer, Submitted)
        status = await harness.status(third)
        assert status is not None
        assert (status.phase, status.native_state) == (Phase.STARTING, "it waits for a free GPU")
        await other.stop(second, StopReason.CANCELLED, grace=0)
        await harness.wait([third], Phase.RUNNING)
    finally:
        await other.tear_down()


@pytest.mark.parametrize("shell", ["busybox", "bash"])
async def test_image_whose_shell_is_another_one_does_all_the_same(harness: PodmanHarness, shell: str) -> None:
    """What images bring as /bin/sh differs: BusyBox on Alpine, bash on Fedora, dash on Debian."""
    image = await another_shell(harness, shell)
    environment = {"image": image}

    def job(text: str, **extra: Any) -> Launch:
        values = {name: extra.pop(name) for name in ("walltime", "secrets_given") if name in extra}
        given = values.pop("secrets_given", {})
        spec = {"command": ["/bin/sh", "-c", text], "environment": environment, **extra}
        return harness.launch(spec, secrets=given, **values)

    exits = job("echo out; echo error >&2; exit 3", stdout="%x.log", name="a b")
    killed = job("kill -2 $$; sleep 5")
    timed = job(FOREVER, walltime=2, grace=1)
    stopped = job(f"trap 'echo tidied; exit 4' TERM; {FOREVER}")
    stubborn = job(f"trap '' TERM; {FOREVER}")
    warned = job("trap 'echo warned; exit 7' USR1; while :; do sleep 0.1; done", walltime=60,
                 signal={"name": "USR1", "before": 58})  # fmt: skip
    secret = job('test "$KEY" = "it\'s"; cat file', secrets_given={"k": b"it's", "f": b"content"},
                 secrets=[{"name": "k", "env": "KEY"}, {"name": "f", "file": "file"}])  # fmt: skip
    everyone = [exits, killed, timed, stopped, stubborn, warned, secret]
    await harness.submit(*everyone)
    for launch in (stopped, stubborn):
        await harness.wait_for_output(launch, b"up")
        await harness.stop(launch, StopReason.CANCELLED, grace=1)
    statuses = await harness.wait(everyone)
    told = [(status.outcome, status.exit_code) for status in statuses]
    assert told[:2] == [(Outcome.FAILED, 3), (Outcome.FAILED, 130)]
    assert statuses[1].signal == 2
    assert [outcome for outcome, _ in told[2:5]] == [Outcome.TIMED_OUT, Outcome.CANCELLED, Outcome.CANCELLED]
    assert told[3] in ((Outcome.CANCELLED, 4), (Outcome.CANCELLED, 137))
    assert told[5:] == [(Outcome.FAILED, 7), (Outcome.SUCCEEDED, 0)]
    assert await harness.read(exits, "stdout") == b"out\n"
    assert await harness.read(secret) == b"content"


async def another_shell(harness: PodmanHarness, shell: str) -> str:
    """An image whose /bin/sh is `shell`. Skips where this machine has none to make it of."""
    root = harness.folder / "image"
    name = f"localhost/{shell}:1"
    if shell == "bash":
        recipe = harness.folder / "Containerfile"
        recipe.write_text(f"FROM {IMAGE}\nRUN ln -sf bash /usr/bin/sh\n")
        await harness.podman("build", "--isolation", "chroot", "-t", name, "-f", str(recipe), str(harness.folder))
        return name
    program = shutil.which("busybox")
    if program is None or b"ld-linux" in Path(program).read_bytes()[:4096]:  # noqa: ASYNC240
        skip_without("BusyBox", "no static busybox (package busybox-static) to make an image of")
    (root / "bin").mkdir(parents=True)
    (root / "usr").mkdir()
    (root / "usr" / "bin").symlink_to("../bin")
    shutil.copy(program, root / "bin" / "busybox")
    for applet in subprocess.check_output([program, "--list"], text=True).split():  # noqa: ASYNC221
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    packed = harness.folder / "image.tar"
    subprocess.run(["tar", "-cf", packed, "-C", root, "."], check=True)  # noqa: ASYNC221
    await harness.podman("import", str(packed), name)
    return name


async def until(look: Callable[[], bool], wanted: bool) -> None:
    """Wait for what only looking again tells."""
    while look() is not wanted:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def test_attempt_that_was_laid_out_starts_although_its_empty_checkpoints_were_dropped(
    harness: PodmanHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = harness.script("true", checkpoint_key="again")
    await harness.run(first)
    second = harness.script("exit 5", checkpoint_key="again")

    async def create(_attempt: str, _body: object) -> None:
        raise DriverError("The service is gone.")

    with monkeypatch.context() as patched:
        patched.setattr(harness.driver._containers, "create", create)  # type: ignore[attr-defined]
        [answer] = await harness.driver.submit([second])
    assert isinstance(answer, Unknown)
    await harness.forget(first)
    assert not (harness.site / "checkpoints" / "again").exists()
    status = await harness.run(second)
    assert status.exit_code == 5
