"""What an attempt finds inside, and how it is reached there: volumes, secrets, ports, commands, terminals."""

import asyncio
import random
import secrets

import pytest

from atoll.core.site import Ability
from atoll.core.states import Outcome
from atoll.drivers.base import Channel, DriverError, Launch, Refused, Stage, StopReason
from atoll.drivers.contract.harness import MIB, Harness, digest, only

_UNTIL_STOPPED = "while :; do sleep 0.1; done"

_ECHO = """
import socket, sys
listener = socket.create_server(("", int(sys.argv[1])))
print("listening", flush=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(b"who are you?\\n")
    while piece := connection.recv(65536):
        connection.sendall(piece.upper())
    connection.sendall(b"bye")
    connection.close()
"""


class Volumes:
    """Named volumes are found where the job asked for them."""

    async def test_writable_volume_is_shared_with_what_is_in_it(self, harness: Harness) -> None:
        """A job reads what is there, and what it writes stays, also a folder below it."""
        await _need_volume(harness)
        folder, word = harness.volume_folder(), secrets.token_hex(8)
        (folder / f"in-{word}").write_text("from outside\n")
        text = f'cd "{harness.volume_path}" && cat in-{word} && mkdir out-{word} && echo inside >out-{word}/file'
        assert await harness.output(_with_volume(harness, text)) == "from outside\n"
        assert (folder / f"out-{word}" / "file").read_text() == "inside\n"

    async def test_read_only_volume_cannot_be_written(self, harness: Harness) -> None:
        """A job reads a volume that it asked for as read-only, and cannot change it; or the site refuses to try."""
        await _need_volume(harness)
        folder, word = harness.volume_folder(), secrets.token_hex(8)
        (folder / f"in-{word}").write_text("from outside\n")
        inside = f"{harness.volume_path}/in-{word}"
        text = f'cat "{inside}"; (echo changed >"{inside}") 2>&-; rm -f "{inside}" 2>&-; touch "{inside}-new" 2>&-; :'
        launch = _with_volume(harness, text, read_only=True)
        answer = only(await harness.driver.submit([launch]))
        if isinstance(answer, Refused):
            assert "volumes" in answer.message
            return
        await harness.submit(launch)
        await harness.wait([launch])
        assert await harness.read(launch) == b"from outside\n"
        assert (folder / f"in-{word}").read_text() == "from outside\n"
        assert not (folder / f"in-{word}-new").exists()

    async def test_unknown_volume_is_refused_by_name(self, harness: Harness) -> None:
        """A volume that the site does not have: refused for good, the name said."""
        await harness.need(Ability.VOLUMES)
        volumes = [{"name": "no-such-volume", "path": harness.volume_path}]
        answer = only(await harness.driver.submit([harness.launch({"command": ["true"], "volumes": volumes})]))
        assert isinstance(answer, Refused)
        assert answer.permanent
        assert "volumes" in answer.message
        assert "no-such-volume" in answer.message


class Secrets:
    """Secrets reach the job, and nobody else."""

    async def test_secrets_arrive_as_variables_and_files(self, harness: Harness) -> None:
        """Byte for byte; a file is below the working directory and closed to others; a script finds them too."""
        await harness.need(Ability.SECRETS)
        text, content = 'line one\nit\'s $HOME `id` \\ "two" grüße', bytes(range(256)) * 20
        show = (
            "import os, hashlib, stat\n"
            "print(hashlib.sha256(os.environb[b'KEY']).hexdigest())\n"
            "print(hashlib.sha256(open('keys/deep/file.pem', 'rb').read()).hexdigest())\n"
            "print(hashlib.sha256(open('both', 'rb').read()).hexdigest())\n"
            "print(oct(os.stat('keys/deep/file.pem').st_mode & 0o077))\n"
            "print(os.environ['BOTH'])\n"
        )
        launch = harness.launch(
            {
                "script": f"#!{harness.python}\n{show}",
                "secrets": [
                    {"name": "word", "env": "KEY"},
                    {"name": "pem", "file": "keys/deep/file.pem"},
                    {"name": "both", "env": "BOTH", "file": "both"},
                ],
            },
            secrets={"word": text.encode(), "pem": content, "both": b"in both"},
        )
        lines = (await harness.output(launch)).splitlines()
        assert lines == [digest(text.encode()), digest(content), digest(b"in both"), "0o0", "in both"]

    async def test_secrets_are_shown_nowhere(self, harness: Harness) -> None:
        """Neither the engine's listings nor what is kept of the attempt after its end hold them."""
        await harness.need(Ability.SECRETS)
        await harness.listings()
        words = [secrets.token_hex(16) for _ in range(2)]
        launch = harness.launch(
            {
                "command": ["/bin/sh", "-c", f'test -n "$KEY" && test -s file && echo up; {_UNTIL_STOPPED}'],
                "secrets": [{"name": "first", "env": "KEY"}, {"name": "second", "file": "file"}],
            },
            secrets={"first": words[0].encode(), "second": words[1].encode()},
        )
        assert not any(word in repr(launch) for word in words)
        await harness.submit(launch)
        await harness.wait_for_output(launch, b"up")
        listed = await harness.listings()
        assert launch.attempt_id in listed, "the listings do not show the attempt at all"
        assert not any(word in listed for word in words)
        await harness.stop(launch, StopReason.CANCELLED, grace=2)
        (status,) = await harness.wait([launch])
        assert not any(word in repr(status) for word in words)
        if isinstance(harness.driver, Stage):
            into = harness.folder / "taken"
            taken = await harness.driver.take_out(harness.held_as(launch), ["*", "**/*"], into)
            assert not any(word.encode() in (into / path).read_bytes() for path in taken for word in words)
        left = await harness.left_behind(launch)
        assert left, "nothing at all is left of the attempt before it is forgotten"
        assert not any(word.encode() in left for word in words)

    async def test_secret_without_a_value_is_refused_by_name(self, harness: Harness) -> None:
        """A job never starts without a secret that it asked for."""
        await harness.need(Ability.SECRETS)
        launch = harness.launch({"command": ["true"], "secrets": [{"name": "missing-key", "env": "KEY"}]})
        answer = only(await harness.driver.submit([launch]))
        assert isinstance(answer, Refused)
        assert "secrets" in answer.message
        assert "missing-key" in answer.message


class Ports:
    """The control plane reaches into attempts by streams of bytes."""

    async def test_port_of_an_attempt_is_reached(self, harness: Harness) -> None:
        """Both directions, whoever speaks first, a megabyte whole, ends told apart, several connections at once."""
        await harness.need(Ability.CONNECT)
        launch, port = await _listening(harness)
        held = harness.held_as(launch)
        first, second = [await harness.connections.connect(held, port) for _ in range(2)]
        # the attempt asks and the platform answers: so it is reached from inside, without a route of its own
        await _expect(first, b"who are you?\n")
        data = random.Random(5).randbytes(MIB).translate(bytes.maketrans(b"abcdefghijklmnopqrstuvwxyz", b"?" * 26))
        sent = asyncio.create_task(_send(first, data))
        await _expect(first, data)
        await sent
        assert await _rest(first) == b"bye"
        await first.close()
        await second.write(b"still there")
        await second.end()
        await _expect(second, b"who are you?\nSTILL THERE")
        assert await _rest(second) == b"bye"
        await second.close()

    async def test_port_where_nobody_listens_is_an_error(self, harness: Harness) -> None:
        """A sentence where nobody listens; a KeyError for an attempt that is unknown, or has ended."""
        await harness.need(Ability.CONNECT)
        launch, _ = await _listening(harness)
        async with asyncio.timeout(harness.patience):
            with pytest.raises(DriverError) as caught:
                await _talk(harness, launch, harness.free_port())
        assert str(caught.value)
        await harness.stop(launch, StopReason.CANCELLED, grace=0)
        await harness.wait([launch])
        for each in (launch, harness.script(":")):
            with pytest.raises(KeyError):
                await harness.connections.connect(harness.held_as(each), 80)


class Commands:
    """Commands beside the job's own, in its place."""

    async def test_command_runs_inside_an_attempt(self, harness: Harness) -> None:
        """With the attempt's environment and working directory, input to its end, output, and its exit code."""
        _ = harness.executor
        launch = harness.launch(
            {"command": ["/bin/sh", "-c", f"echo here >mark; echo up; {_UNTIL_STOPPED}"], "env": {"MARK": "it's $x"}}
        )
        await harness.submit(launch)
        await harness.wait_for_output(launch, b"up")
        held = harness.held_as(launch)
        words = ["/bin/sh", "-c", 'cat mark; echo "$MARK"; echo "$ATOLL_JOB_ID" "$1"; tr a-z A-Z; exit 5', "sh", "a  *"]
        execution = await harness.executor.execute(held, words)
        await execution.write(b"say it ")
        await execution.write(b"loud\n")
        await execution.end()
        async with asyncio.timeout(harness.patience):
            told = (await _rest(execution)).decode()
            assert await execution.wait() == 5
        await execution.close()
        assert told == f"here\nit's $x\n{launch.environment['ATOLL_JOB_ID']} a  *\nSAY IT LOUD\n"
        missing = await harness.executor.execute(held, ["/no/such/command"])
        async with asyncio.timeout(harness.patience):
            assert await missing.wait() in (126, 127)
        await missing.close()
        with pytest.raises(KeyError):
            await harness.executor.execute(harness.script(":").held, ["true"])

    async def test_command_inside_ends_with_its_attempt(self, harness: Harness) -> None:
        """What was started beside the job's own command does not outlive it; nothing starts in an ended attempt."""
        _ = harness.executor
        launch = harness.script(f"echo up; {_UNTIL_STOPPED}", checkpoint_key="inside")
        await harness.submit(launch)
        await harness.wait_for_output(launch, b"up")
        ticks = 'while :; do echo tick >>"$ATOLL_CHECKPOINT_DIR/ticks"; echo tick; sleep 0.05; done'
        execution = await harness.executor.execute(harness.held_as(launch), ["/bin/sh", "-c", ticks])
        async with asyncio.timeout(harness.patience):
            assert (await execution.read(100)).startswith(b"tick")
        await harness.stop(launch, StopReason.CANCELLED, grace=0)
        (status,) = await harness.wait([launch])
        assert status.outcome is Outcome.CANCELLED
        async with asyncio.timeout(harness.patience):
            assert await execution.wait() != 0
        await execution.close()
        with pytest.raises(KeyError):
            await harness.executor.execute(harness.held_as(launch), ["true"])
        look = 'cd "$ATOLL_CHECKPOINT_DIR"; wc -l <ticks; sleep 0.4; wc -l <ticks'
        first, second = (await harness.output(harness.script(look, checkpoint_key="inside"))).split()
        assert first == second, "the command goes on after its attempt"

    async def test_platform_is_reached_from_inside_without_a_route(self, harness: Harness) -> None:
        """A job asks, and the platform answers, over a command beside it: no network is needed from either side."""
        _ = harness.executor
        launch = harness.script("mkfifo ask answer && echo up && echo 'which way?' >ask && cat answer")
        await harness.submit(launch)
        await harness.wait_for_output(launch, b"up")
        words = ["/bin/sh", "-c", "cat ask; cat >answer"]
        relay = await harness.executor.execute(harness.held_as(launch), words)
        async with asyncio.timeout(harness.patience):
            assert await _until(relay, b"\n") == b"which way?\n"
            await relay.write(b"this way\n")
            await relay.end()
        (status,) = await harness.wait([launch])
        await relay.close()
        assert status.exit_code == 0
        assert await harness.read(launch) == b"up\nthis way\n"

    async def test_terminal_inside_an_attempt(self, harness: Harness) -> None:
        """A terminal of the size that it is told, where ^C interrupts and both outputs are one."""
        _ = harness.executor
        launch = harness.script(f"echo up; {_UNTIL_STOPPED}")
        await harness.submit(launch)
        await harness.wait_for_output(launch, b"up")
        words = ["/bin/sh", "-c", "test -t 0 && test -t 1 && test -t 2 && echo ready; read x; stty size; exec sleep 60"]
        execution = await harness.executor.execute(harness.held_as(launch), words, terminal=True)
        async with asyncio.timeout(harness.patience):
            seen = await _until(execution, b"ready")
            await execution.resize(101, 37)
            await execution.write(b"go\n")
            seen += await _until(execution, b"37 101")
            await execution.write(b"\x03")
            assert await execution.wait() == 130
        await execution.close()
        status = await harness.status(launch)
        assert status is not None
        assert status.ended_at is None, "the interrupt reached the job itself"


async def _need_volume(harness: Harness) -> None:
    await harness.need(Ability.VOLUMES)
    if harness.volume is None:
        pytest.skip("the harness names no volume")


def _with_volume(harness: Harness, text: str, *, read_only: bool = False) -> Launch:
    volume = {"name": harness.volume, "path": harness.volume_path, "read_only": read_only}
    return harness.launch({"command": ["/bin/sh", "-c", text], "volumes": [volume]})


async def _listening(harness: Harness) -> tuple[Launch, int]:
    """An attempt that listens, and its port."""
    port = harness.free_port()
    spec = {"command": [harness.python, "-c", _ECHO, str(port)], "ports": [{"name": "echo", "port": port}]}
    launch = harness.launch(spec)
    await harness.submit(launch)
    await harness.wait_for_output(launch, b"listening")
    return launch, port


async def _talk(harness: Harness, launch: Launch, port: int) -> None:
    """Connect and read: some engines tell only then that nobody listens."""
    channel = await harness.connections.connect(harness.held_as(launch), port)
    try:
        await channel.read(1)
    finally:
        await channel.close()


async def _send(channel: Channel, data: bytes) -> None:
    for start in range(0, len(data), 10_000):
        await channel.write(data[start : start + 10_000])
    await channel.end()


async def _expect(channel: Channel, data: bytes) -> None:
    """Read exactly `data`."""
    async with asyncio.timeout(30):
        got = b""
        while len(got) < len(data):
            piece = await channel.read(len(data) - len(got))
            assert piece, f"the stream ended after {len(got)} of {len(data)} bytes"
            got += piece
    assert digest(got) == digest(data)


async def _rest(channel: Channel) -> bytes:
    """Read until the stream ends."""
    pieces = []
    async with asyncio.timeout(30):
        while piece := await channel.read(65536):
            pieces.append(piece)
    return b"".join(pieces)


async def _until(channel: Channel, text: bytes) -> bytes:
    """Read until `text` has been seen."""
    seen = b""
    while text not in seen:
        piece = await channel.read(4096)
        assert piece, f"the stream ended before {text!r}: {seen!r}"
        seen += piece
    return seen
