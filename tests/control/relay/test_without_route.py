"""A node in a network namespace with nothing but its loopback: streams pass in both directions all the same."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from atoll.control.relay import AGENT, address_of, random_port, reserve
from atoll.control.relay.agent import SECRET_VARIABLE
from atoll.control.relay.carrier import Carrier, Road
from atoll.control.relay.server import read_target
from atoll.control.relay.sites import ConnectedSite
from atoll.control.relay.tunnel import Tunnel
from atoll.drivers.base import Channel, Execution, Held
from atoll.drivers.fake import FakeDriver
from atoll.drivers.shell.local import LocalShell
from tests.support.engines import skip_without
from tests.support.ports import free_port
from tests.support.relay import SERVER, Target

_BRIDGE = """
import os, socket, sys, threading
far = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def send():
    while data := os.read(0, 65536):
        far.sendall(data)
    far.shutdown(socket.SHUT_WR)
sender = threading.Thread(target=send)
sender.start()
while data := far.recv(65536):
    os.write(1, data)
os.close(1)
os.close(2)  # the same pipe
sender.join()
"""


@dataclass
class Namespace:
    """A network namespace, as an engine whose only way in is a command inside."""

    name: str
    shell: LocalShell = field(default_factory=LocalShell)

    def words(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *words]

    async def connect(self, attempt: Held, port: int) -> Channel:
        words = self.words(sys.executable, "-I", "-S", "-c", _BRIDGE, str(port))
        return Patient(await self.shell.open(None, words))


class Patient:
    """A command as a channel that lets the command pass on what it has before it is ended."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self.read = execution.read
        self.write = execution.write
        self.end = execution.end

    async def close(self) -> None:
        await self._execution.end()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._execution.wait(), 5)
        await self._execution.close()


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    name = f"atoll-test-{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True, text=True)
    if made.returncode != 0:
        skip_without("network namespaces", made.stderr.strip() or "only root can make one")
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield Namespace(name)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture
async def reached(namespace: Namespace) -> AsyncIterator[tuple[str, int]]:
    """The address of a session's server in the namespace."""
    port, secret = random_port(), secrets.token_hex(32)
    words = [sys.executable, "-S", str(AGENT), "--port", str(port), "--reverse-url", "OUTSIDE_URL=/", "--"]
    agent = await asyncio.create_subprocess_exec(
        *namespace.words(*words, sys.executable, str(SERVER), "{port}"), env={SECRET_VARIABLE: secret}
    )
    address = address_of(1, free_port())
    with Target() as target, reserve(address[1]):
        tunnel = Tunnel(Held("tests-0000000000000000"), port, secret)
        site = ConnectedSite("island", namespace, FakeDriver.__new__(FakeDriver))
        carrier = Carrier(Road(1, "tests-0000000000000000", address, tunnel), site, read_target(target.address))
        carrier.start()
        yield address
        await carrier.end()
    agent.terminate()
    await agent.wait()


async def ask(address: tuple[str, int], said: bytes) -> bytes:
    """What the server says, once it is there."""
    async with asyncio.timeout(30):
        while True:
            reader, writer = await asyncio.open_connection(*address)
            try:
                writer.write(said)
                writer.write_eof()
                if answer := await reader.read():
                    return answer
            except ConnectionError:
                pass  # not there yet
            finally:
                writer.close()
            await asyncio.sleep(0.05)


async def test_no_route_is_needed(namespace: Namespace, reached: tuple[str, int]) -> None:
    shown = await asyncio.to_thread(
        subprocess.run, namespace.words("ip", "route"), capture_output=True, check=True, text=True
    )
    assert shown.stdout == ""
    assert await ask(reached, b"echo\nhere") == b"here"
    assert await ask(reached, b"outside\nthere") == b"hello there"
