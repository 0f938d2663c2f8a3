"""A login node, two accounts of it, and the shells that reach them."""

import asyncio
import os
import pwd
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from atoll.drivers.shell import LocalShell, Shell, SshConfig, SshShell
from tests.support.openssh import OpenSsh, made_accounts, need_openssh

ANN, BOB = (f"atoll-test-{name}-{os.getpid()}" for name in ("ann", "bob"))
BECOME = ("setpriv", "--reuid={account}", "--regid={account}", "--init-groups", "--")


@pytest.fixture(scope="module")
def accounts() -> Iterator[dict[str, pwd.struct_passwd]]:
    """Two accounts of this machine; ann's shell is bash with a start-up file that talks."""
    if os.geteuid() != 0:
        pytest.skip("only root can run commands as somebody else")
    with made_accounts(ANN, BOB) as made:
        profile = Path(made[0].pw_dir) / ".bashrc"
        profile.write_text("echo welcome to the cluster\necho mind the quota >&2\n")
        yield {entry.pw_name: entry for entry in made}


@pytest.fixture(scope="module")
def node(accounts: dict[str, pwd.struct_passwd]) -> Iterator[OpenSsh]:
    """A login node that all tests of a module share."""
    need_openssh()
    with OpenSsh() as server:
        yield server


@pytest.fixture(scope="module")
def config(node: OpenSsh) -> SshConfig:
    """How root logs in at the node; it may act as ann, and bob logs in himself."""
    keys = {BOB: str(node.new_key(BOB))}
    return SshConfig(
        "127.0.0.1", "root", str(node.new_key("root")), str(node.known_hosts), node.port, keys, BECOME, patience=5.0
    )


@pytest.fixture
async def ssh(config: SshConfig) -> AsyncIterator[SshShell]:
    """A shell on the node."""
    shell = SshShell(config)
    yield shell
    await shell.close()


@pytest.fixture(params=["local", "ssh"])
async def shell(request: pytest.FixtureRequest, accounts: dict[str, pwd.struct_passwd]) -> AsyncIterator[Shell]:
    """A shell here, and one on the node."""
    made: Shell
    if request.param == "local":
        made = LocalShell({"ATOLL_EXTRA": "with 'quotes'"})
    else:
        made = SshShell(request.getfixturevalue("config"), {"ATOLL_EXTRA": "with 'quotes'"})
    yield made
    await made.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can pass; pytest's own are closed."""
    path = Path(tempfile.mkdtemp(prefix="atoll-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def echo_socket(open_folder: Path) -> AsyncIterator[Path]:
    """A unix socket that only ann may open, and that gives back what it gets."""
    path = open_folder / "socket"
    server = await asyncio.start_unix_server(give_back, path)
    shutil.chown(path, ANN)
    path.chmod(0o600)
    yield path
    server.close()
    await server.wait_closed()


@pytest.fixture
async def echo_port() -> AsyncIterator[int]:
    """A TCP port that gives back what it gets."""
    server = await asyncio.start_server(give_back, "127.0.0.1", 0)
    yield int(server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()


async def give_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo until the end, then end."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
