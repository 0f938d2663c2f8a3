"""What hostile programs inside an attempt, or beside it, can do: use up what is theirs, and no more."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import psutil
import pytest

from atoll.client.synchronous import Client
from atoll.control.relay.agent import HELLO, NONCE, PROOF
from atoll.control.relay.carrier import MOST_BACKWARDS
from tests.support.relay import RunningRelay, Target, session


@pytest.fixture
def port() -> int:
    """The port at which the session's agent listens."""
    return 31_000


@pytest.fixture
def reached(client: Client, relay: RunningRelay, port: int) -> Iterator[int]:
    """A session whose agent listens at `port`."""
    made = client.submit(session(client, port=port))
    relay.wait_for(made.id)
    yield made.id
    client.cancel(made.id)
    client.wait(made.id)


def test_garbage_at_the_agent_gets_nothing(relay: RunningRelay, reached: int, port: int) -> None:
    for garbage in (b"GET / HTTP/1.1\r\n\r\n" + bytes(100), HELLO + b"X" + bytes(NONCE), os.urandom(1000)):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as stranger, suppress(ConnectionResetError):
            stranger.sendall(garbage)
            assert stranger.recv(100) == b""
    assert relay.ask(reached, b"who") == b"1\n"


def test_wrong_secret_gets_nothing(relay: RunningRelay, reached: int, port: int) -> None:
    for kind in (b"F", b"S"):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as stranger:
            stranger.sendall(HELLO + kind + bytes(NONCE))
            challenge = b""
            while len(challenge) < NONCE + PROOF:
                challenge += stranger.recv(NONCE + PROOF)
            stranger.sendall(challenge[NONCE:])  # the agent's own proof, sent back
            with suppress(ConnectionResetError):
                assert stranger.recv(100) == b""
    assert relay.ask(reached, b"who") == b"1\n"


def test_crowd_of_strangers_does_not_lock_the_relay_out(relay: RunningRelay, reached: int, port: int) -> None:
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        assert relay.ask(reached, b"who") == b"1\n"
        assert relay.ask(reached, b"outside", b"again") == b"hello again"


def test_somebody_elses_server_at_the_port_gets_nothing(client: Client, relay: RunningRelay) -> None:
    """An attempt whose program knows no secret: it sees a greeting, and no byte of a stream."""
    spec = session(client, port=31_100)
    listen = (
        "import socket, sys\nserver = socket.create_server(('127.0.0.1', 31100))\n"
        "while True:\n    client, _ = server.accept()\n    print(client.recv(1000), flush=True)\n"
        "    client.sendall(bytes(64))\n    print(client.recv(1000), flush=True)\n"
    )
    made = client.submit({**spec, "command": ["python3", "-c", listen]})
    relay.wait_for_log(f"job {made.id} at local: Who listens at port 31100 does not know the attempt's secret.")
    with relay.connect(made.id) as stream, suppress(ConnectionResetError):
        stream.sendall(b"cookie")
        assert stream.recv(1) == b""
    client.cancel(made.id)
    client.wait(made.id)
    said = client.logs(made.id).data
    assert b"ATOLL-1" in said
    assert b"cookie" not in said


def test_server_that_never_reads_holds_little(relay: RunningRelay, reached: int) -> None:
    """Its streams stand still, with some memory each; others go on."""
    assert relay.process is not None
    used = psutil.Process(relay.process.pid)
    before = used.memory_info().rss
    with ExitStack() as stack:
        for _ in range(10):
            stream = stack.enter_context(relay.connect(reached))
            stream.sendall(b"silent\n")
            stream.settimeout(0.2)
            with suppress(TimeoutError):
                while True:
                    stream.sendall(bytes(1 << 20))
        assert relay.ask(reached, b"echo", bytes(1_000_000)) == bytes(1_000_000)
        assert used.memory_info().rss - before < 30e6


def test_crowd_from_inside_is_bounded(relay: RunningRelay, reached: int, target: Target) -> None:
    assert relay.ask(reached, b"crowd 400", seconds=60)
    assert 0 < target.most <= MOST_BACKWARDS
    relay.wait_for(reached, b"outside")
