"""What is reached inside attempts, and what is laid there: also as another account, and when something is killed."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.core.errors import Invalid
from atoll.core.states import Outcome
from atoll.drivers.base import DriverError, Launch, Phase, Refused, StopReason
from atoll.drivers.contract.inside import Commands, Ports, Secrets, Volumes
from atoll.drivers.process.config import read_config
from tests.contract.process_harness import ProcessHarness, until
from tests.drivers.process.test_accounts import NAMES, accounts, needs_root, open_folder

FOREVER = "while :; do sleep 0.1; done"
_ = (accounts, open_folder)  # fixtures


@needs_root
class TestAsAnotherAccount(Secrets, Volumes, Ports, Commands):
    """The same cases of the contract where the job runs as somebody else than the platform."""

    async def test_command_inside_runs_as_the_attempts_account(self, harness: ProcessHarness) -> None:
        """User, groups and files; nothing of the platform's rights."""
        launch = await started(harness, f"id; echo up; {FOREVER}")
        for terminal in (False, True):
            words = ["sh", "-c", "id; cat /etc/shadow; test -w /proc/self/fd/1 && echo writable"]
            execution = await harness.executor.execute(harness.held_as(launch), words, terminal=terminal)
            async with asyncio.timeout(10):
                told = b""
                while piece := await execution.read(4096):
                    told += piece
            await execution.close()
            assert told.split(b"\n")[0].strip() == (await harness.read(launch)).split(b"\n")[0]
            assert b"root:" not in told
            assert b"writable" in told

    @pytest.fixture(params=["auto", "sampling"])
    async def harness(
        self, accounts: tuple, open_folder: Path, request: pytest.FixtureRequest
    ) -> AsyncIterator[ProcessHarness]:
        volume = open_folder / "volume"
        volume.mkdir()
        volume.chmod(0o777)
        config = {
            "accounts": {"ann": NAMES[0]},
            "volumes": {"data": {"path": str(volume)}},
            "memory_by": request.param,
        }
        harness = ProcessHarness(open_folder, config)
        harness.owner, harness.account = "ann", NAMES[0]
        harness.platform_owner = "somebody-else"
        await harness.start()
        yield harness
        await harness.tear_down()


@pytest.fixture
async def volumes(tmp_path: Path) -> AsyncIterator[ProcessHarness]:
    """A site with a volume, one inside of it, and one that can only be read."""
    (tmp_path / "data/inner").mkdir(parents=True)
    (tmp_path / "fixed").mkdir()
    config = {
        "volumes": {
            "data": {"path": str(tmp_path / "data")},
            "inner": {"path": str(tmp_path / "data/inner")},
            "fixed": {"path": str(tmp_path / "fixed"), "read_only": True},
            "gone": {"path": str(tmp_path / "gone")},
        }
    }
    harness = ProcessHarness(tmp_path, config)
    await harness.start()
    yield harness
    await harness.tear_down()


def asking(harness: ProcessHarness, text: str, *asked: dict, **spec: object) -> Launch:
    return harness.launch({"command": ["sh", "-c", text], "volumes": list(asked), **spec})


async def test_volumes_within_each_other_and_at_the_root(volumes: ProcessHarness) -> None:
    """Whatever their order; folders that this machine does not have are not made on it."""
    asked = (
        {"name": "inner", "path": "/atoll-test-volumes/deep/data/inside"},
        {"name": "data", "path": "/atoll-test-volumes/deep/data"},
        {"name": "inner", "path": "/atoll-test-other/", "read_only": True},
    )
    text = (
        "cd /atoll-test-volumes/deep/data && mkdir -p inside && echo one >file && echo two >inside/file && "
        "cat /atoll-test-other/file && (echo three >/atoll-test-other/file) 2>&-; ls /atoll-test-volumes"
    )
    (volumes.folder / "data/inside").mkdir()
    assert await volumes.output(asking(volumes, text, *asked)) == "two\ndeep\n"
    assert (volumes.folder / "data/file").read_text() == "one\n"
    assert (volumes.folder / "data/inner/file").read_text() == "two\n"
    assert list((volumes.folder / "data/inside").iterdir()) == []
    assert not seen_outside("atoll-test-")


def seen_outside(name: str) -> bool:
    """Whether this machine has such a folder or mount, apart from what a job sees."""
    return any(path.name.startswith(name) for path in Path("/").iterdir()) or name in Path("/proc/mounts").read_text()


async def test_files_are_taken_out_of_a_working_directory_in_a_volume(volumes: ProcessHarness) -> None:
    data = {"name": "data", "path": "/mnt/atoll-test-data"}
    (volumes.folder / "data/work").mkdir()
    launch = asking(volumes, "echo made >made", data, workdir="/mnt/atoll-test-data/work")
    await volumes.run(launch)
    into = volumes.folder / "taken"
    assert await volumes.stage.take_out(volumes.held_as(launch), ["*"], into) == ["made"]


@pytest.mark.parametrize("path", ["/atoll-test-seen/data", "/mnt/atoll-test-seen"])
async def test_command_inside_sees_the_volumes(volumes: ProcessHarness, path: str) -> None:
    (volumes.folder / "data/file").write_text("in the volume\n")
    launch = asking(volumes, f"echo up; {FOREVER}", {"name": "data", "path": path})
    await volumes.submit(launch)
    await volumes.wait_for_output(launch, b"up")
    execution = await volumes.executor.execute(volumes.held_as(launch), ["sh", "-c", f"cat {path}/file; pwd"])
    async with asyncio.timeout(10):
        told = b""
        while piece := await execution.read(4096):
            told += piece
        assert await execution.wait() == 0
    await execution.close()
    assert told.decode() == f"in the volume\n{volumes.folder_of(launch.attempt_id)}/work\n"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([{"name": "dato", "path": "/x"}], "no volume 'dato'; it has: data, fixed, gone, inner"),
        ([{"name": "fixed", "path": "/x"}], "only be read"),
        ([{"name": "data", "path": "/"}], "nothing can be laid at '/'"),
        ([{"name": "data", "path": "/usr/"}], "nothing can be laid at '/usr/'"),
        ([{"name": "data", "path": "//dev//shm"}], "nothing can be laid"),
        ([{"name": "data", "path": "/x/../etc"}], "nothing can be laid"),
        ([{"name": "data", "path": "/x"}, {"name": "inner", "path": "/x/"}], "two volumes"),
    ],
)
async def test_volume_that_cannot_be_had_is_refused(volumes: ProcessHarness, asked: list, words: str) -> None:
    (answer,) = await volumes.driver.submit([asking(volumes, "true", *asked)])
    assert isinstance(answer, Refused)
    assert answer.permanent
    assert answer.message.startswith("volumes: ")
    assert words in answer.message


async def test_volume_over_the_sites_own_folder_is_refused(volumes: ProcessHarness) -> None:
    for path in (volumes.site.parent, volumes.site / "attempts"):
        (answer,) = await volumes.driver.submit([asking(volumes, "true", {"name": "data", "path": str(path)})])
        assert isinstance(answer, Refused)
        assert "keeps its jobs" in answer.message


async def test_volume_whose_folder_is_gone_is_said(volumes: ProcessHarness) -> None:
    status = await volumes.run(asking(volumes, "true", {"name": "gone", "path": "/mnt/atoll-test"}))
    assert status.outcome is Outcome.NODE_FAILED
    assert "gone" in status.message


def test_wrong_volume_in_the_sites_file_is_named() -> None:
    with pytest.raises(Invalid) as caught:
        read_config({"volumes": {"data": {"path": "/data", "readonly": True}}})
    assert caught.value.field == "config.volumes.data.readonly"
    assert "'read_only'" in caught.value.sentence
    with pytest.raises(Invalid) as caught:
        read_config({"volumes": {"data": {"path": "data"}}})
    assert caught.value.field == "config.volumes.data.path"


async def test_secrets_are_removed_although_the_wrapper_was_killed(harness: ProcessHarness) -> None:
    """Or it could not even begin: stopped before its start."""
    spec = {"command": ["sh", "-c", f"echo up; {FOREVER}"], "secrets": [{"name": "key", "file": "key", "env": "KEY"}]}
    launch = harness.launch(spec, secrets={"key": b"word"})
    folder = harness.folder_of(launch.attempt_id) / "secrets"
    await harness.submit(launch)
    await harness.wait_for_output(launch, b"up")
    assert [path.name for path in folder.iterdir()] == ["0"]
    await harness.remove_behind_our_back(launch)
    await harness.wait([launch])
    assert not folder.is_dir() or not list(folder.iterdir())


async def test_link_in_the_place_of_secrets_is_not_followed(harness: ProcessHarness) -> None:
    """What is removed at the end is the attempt's own."""
    other = harness.folder / "other"
    other.mkdir()
    (other / "env").write_text("somebody's")
    text = f'cd "$ATOLL_SCRATCH/.." && rm -r secrets && ln -s {other} secrets; echo up; {FOREVER}'
    spec = {"command": ["sh", "-c", text], "secrets": [{"name": "key", "env": "KEY"}]}
    launch = harness.launch(spec, secrets={"key": b"word"})
    await harness.submit(launch)
    await harness.wait_for_output(launch, b"up")
    await harness.remove_behind_our_back(launch)
    await harness.wait([launch])
    assert (other / "env").read_text() == "somebody's"


async def test_port_of_somebody_else_is_not_reached_through_an_attempt(harness: ProcessHarness) -> None:
    launch = harness.script("sleep 60")
    await harness.submit(launch)
    await harness.wait([launch], Phase.RUNNING)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(DriverError, match=f"No process of this attempt listens on port {port}"):
            await harness.connections.connect(harness.held_as(launch), port)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "127.0.0.2"])
async def test_port_is_reached_at_the_address_that_it_is_bound_to(harness: ProcessHarness, address: str) -> None:
    family = "socket.AF_INET6" if ":" in address else "socket.AF_INET"
    text = (
        f"import socket; s = socket.create_server(('{address}', 0), family={family}); "
        "print(s.getsockname()[1], flush=True); c, _ = s.accept(); c.sendall(b'hello'); c.close()"
    )
    launch = harness.launch({"command": [harness.python, "-c", text]})
    await harness.submit(launch)
    await harness.wait_for_output(launch, b"\n")
    channel = await harness.connections.connect(harness.held_as(launch), int(await harness.read(launch)))
    assert await channel.read(100) == b"hello"
    await channel.close()


async def started(harness: ProcessHarness, text: str) -> Launch:
    launch = harness.script(text)
    await harness.submit(launch)
    await harness.wait_for_output(launch, b"up")
    return launch


def alive(marker: str) -> list[int]:
    """Processes with `marker` in their words."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                if marker.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


@pytest.mark.parametrize("what", ["the driver goes", "the supervisor is killed", "the caller lets go"])
async def test_command_inside_ends_and_the_attempt_goes_on(either: ProcessHarness, what: str) -> None:
    launch = await started(either, f"echo up; sleep 2.{os.getpid()}; exit 5")
    marker = f"300.{os.getpid()}"
    execution = await either.executor.execute(either.held_as(launch), ["sleep", marker])
    await until(lambda: alive(marker))
    if what == "the driver goes":
        await either.restart()
    elif what == "the supervisor is killed":
        await either.kill_supervisor()
        with pytest.raises(DriverError):
            await execution.wait()
    else:
        await execution.close()
    await until(lambda: not alive(marker))
    await execution.close()
    assert (await either.wait([launch]))[0].exit_code == 5


async def test_command_inside_counts_as_the_attempts_memory(either: ProcessHarness) -> None:
    launch = await started(either, f"echo up; {FOREVER}")
    take = "import time; x = b'x' * (400 << 20); time.sleep(30)"
    execution = await either.executor.execute(either.held_as(launch), [either.python, "-c", take])
    (status,) = await either.wait([launch])
    assert status.outcome is Outcome.OUT_OF_MEMORY
    assert await execution.wait() == 128 + signal.SIGKILL
    await execution.close()


async def test_what_a_command_inside_leaves_behind_ends_with_it(harness: ProcessHarness) -> None:
    launch = await started(harness, f"echo up; {FOREVER}")
    marker = f"301.{os.getpid()}"
    words = ["sh", "-c", f"setsid sleep {marker} & exit 0"]
    execution = await harness.executor.execute(harness.held_as(launch), words)
    async with asyncio.timeout(10):
        assert await execution.wait() == 0
    await until(lambda: not alive(marker))
    await execution.close()
    await harness.stop(launch, StopReason.CANCELLED, 0)
    await harness.wait([launch])


async def test_much_input_waits_for_a_command_that_does_not_read(harness: ProcessHarness) -> None:
    """Nothing piles up in between; letting go ends the waiting."""
    launch = await started(harness, f"echo up; {FOREVER}")
    execution = await harness.executor.execute(harness.held_as(launch), ["sleep", "60"])
    writing = asyncio.create_task(execution.write(b"x" * (1 << 20)))
    done, _ = await asyncio.wait([writing], timeout=0.3)
    assert not done
    await execution.close()
    with pytest.raises(DriverError):
        await writing
    await harness.stop(launch, StopReason.CANCELLED, 0)
    await harness.wait([launch])
