"""One process of this machine with its pipes, on whichever event loop runs (uvloop's cannot change accounts)."""

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

from atoll.drivers.shell.accounts import Identity

_LIMIT = 256 << 10
"""Bytes that wait in a stream to be read."""
_AFTER_KILL = 2.0
"""Seconds to wait for a killed process; one that waits for a dead file server is then left to be collected later."""
_AT_HOME = 'cd -- "$HOME" 2>/dev/null || cd /; exec "$@"'
"""Goes home as the account, whose home root itself may not be allowed to enter."""


class Process:
    """A running command in a session of its own. Make it with `start`; `end` must be called in the end."""

    def __init__(self, popen: "subprocess.Popen[bytes]") -> None:
        self._popen = popen
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._transports: list[asyncio.BaseTransport] = []
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        threading.Thread(target=self._watch, name=f"process-{popen.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process id, which is its group's too."""
        return self._popen.pid

    @property
    def code(self) -> int | None:
        """How it ended, as a shell tells it; None while it runs."""
        code = self._popen.returncode
        return 128 - code if code is not None and code < 0 else code

    def _watch(self) -> None:
        # without collecting it: as long as it is there, no other process can have its id
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop is closed, and with it whoever wanted to know
            self._loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._popen.wait()
        self._ended.set()

    async def take_pipes(self) -> None:
        """Make streams of the pipes."""
        if self._popen.stdin is not None:
            self.stdin = await self._writer(self._popen.stdin)
        if self._popen.stdout is not None:
            self.stdout = await self._reader(self._popen.stdout)
        if self._popen.stderr is not None:
            self.stderr = await self._reader(self._popen.stderr)

    async def _reader(self, pipe: IO[bytes]) -> asyncio.StreamReader:
        reader = asyncio.StreamReader(limit=_LIMIT)
        transport, _ = await self._loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        self._transports.append(transport)
        return reader

    async def _writer(self, pipe: IO[bytes]) -> asyncio.StreamWriter:
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
        transport, _ = await self._loop.connect_write_pipe(lambda: protocol, pipe)
        self._transports.append(transport)
        return asyncio.StreamWriter(transport, protocol, None, self._loop)

    async def wait(self) -> int:
        """How it ended, as a shell tells it."""
        await self._ended.wait()
        assert self.code is not None
        return self.code

    def send(self, number: int) -> None:
        """Send a signal to the command's group; nothing happens where it has ended."""
        if not self._ended.is_set():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    async def end(self) -> None:
        """Kill what still runs of the command's group, collect it, and close the pipes."""
        for transport in self._transports:
            transport.close()
        if not self._transports:
            for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
                if pipe is not None:
                    pipe.close()
        if not self._ended.is_set():
            self.send(signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), _AFTER_KILL)
        else:
            await asyncio.sleep(0)  # a closed transport lets go of its pipe in the next turn of the loop


def start(
    identity: Identity, words: Sequence[str], environment: Mapping[str, str], *,
    stdin: int = subprocess.DEVNULL, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE,
) -> Process:  # fmt: skip
    """Start `words` as the account, at its home, with `environment`. Raises OSError."""
    options: dict[str, Any] = {}
    if identity.own:
        options["cwd"] = identity.home if os.access(identity.home, os.X_OK) else "/"
    else:
        words = ["/bin/sh", "-c", _AT_HOME, "sh", *words]
        options |= {"user": identity.uid, "group": identity.gid, "extra_groups": identity.groups, "cwd": "/"}
    popen = subprocess.Popen(
        words, env=dict(environment), stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True, umask=0o077,
        **options,
    )  # fmt: skip
    return Process(popen)
