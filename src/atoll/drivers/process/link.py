"""The driver's connection to the supervisor: starts it where there is none, asks, and hears hints."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from atoll.drivers.base import DriverError
from atoll.drivers.process.execution import Ends, ProcessExecution
from atoll.drivers.process.supervisor.main import PROTOCOL

_BOOT = Path(__file__).with_name("boot.py")
_LIMIT = 512 << 20
_START_WITHIN = 15.0
_ANSWER_WITHIN = 20.0
_TRY_EVERY = 0.05


class SupervisorLink:
    """Asks the supervisor of the site in `folder`. Questions go one after the other; a lost answer is asked again.

    That is right because every question may be repeated: an attempt is known by its id.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._folder = folder
        self._state = folder / "supervisor"
        self._settings = {**settings, "state": str(self._state)}
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._asking = asyncio.Lock()
        self._starting = asyncio.Lock()
        self._watchers: set[asyncio.StreamWriter] = set()
        self.closed = False
        self.memory = ""
        """How the supervisor enforces memory: v1, v2 or sampling. Known after the first answer."""
        self.mounts = ""
        """How the supervisor makes mounts: root, user or not at all."""
        self.pid = 0

    async def ask(self, question: str, **values: Any) -> dict[str, Any]:
        """The supervisor's answer. Raises DriverError where there is none."""
        line = json.dumps({"ask": question, **values}, separators=(",", ":")).encode() + b"\n"
        async with self._asking:
            for last in (False, True):
                try:
                    return await self._ask(line)
                except DriverError:
                    raise
                except (ConnectionError, EOFError, ValueError) as error:
                    self._let_go()
                    if last:
                        raise DriverError(f"The supervisor of this machine does not answer: {error}.") from error
                except TimeoutError as error:
                    self._let_go()
                    raise DriverError(
                        f"The supervisor of this machine did not answer within {_ANSWER_WITHIN:.0f} s."
                    ) from error
                except BaseException:
                    self._let_go()  # cancelled between question and answer: the next one must not get this answer
                    raise
        raise AssertionError("unreachable")

    async def _ask(self, line: bytes) -> dict[str, Any]:
        if self._streams is None:
            self._streams = await self._connect()
        reader, writer = self._streams
        writer.write(line)
        async with asyncio.timeout(_ANSWER_WITHIN):
            await writer.drain()
            answer: dict[str, Any] = json.loads(await reader.readuntil(b"\n"))
        if "error" in answer:
            raise DriverError(f"The supervisor of this machine could not do that: {answer['error']}.")
        return answer

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yields when something may have changed, also when the connection had to be made anew."""
        while not self.closed:
            try:
                reader, writer = await self._connect()
            except DriverError:
                await asyncio.sleep(1.0)  # nothing tells when it can be started again; the caller polls meanwhile
                continue
            self._watchers.add(writer)
            try:
                writer.write(b'{"ask":"watch"}\n')
                while await reader.readline():
                    yield
            except ConnectionError:
                yield
            finally:
                self._watchers.discard(writer)
                writer.close()

    async def execute(self, ends: Ends, **values: Any) -> ProcessExecution:
        """A command beside an attempt's. Raises KeyError where that does not run, DriverError where it cannot be."""
        try:
            reader, writer = await self._connect()
            self._watchers.add(writer)
            let_go = partial(self._drop, writer)
            try:
                async with asyncio.timeout(_ANSWER_WITHIN):
                    answer = await self._hand_over(reader, writer, ends, values)
            except BaseException:
                let_go()
                raise
        except BaseException as error:
            ends.close()
            if isinstance(error, ConnectionError | EOFError | TimeoutError | ValueError):
                raise DriverError(f"The supervisor of this machine does not answer: {error}.") from error
            raise
        ends.hand_over()
        if answer.get("started"):
            return ProcessExecution(ends, reader, let_go)
        ends.close()
        let_go()
        if "error" in answer:
            raise DriverError(f"The command cannot be started: {answer['error']}.")
        raise KeyError(values["id"])

    @staticmethod
    async def _hand_over(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: Ends, values: dict[str, Any]
    ) -> dict[str, Any]:
        """Ask for a command with our descriptors beside the question; the answer."""
        line = json.dumps({"ask": "execute", "terminal": ends.terminal, **values}).encode() + b"\n"
        with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as plain:
            # nothing was written before, so there is room for the first piece, and the descriptors go with that
            sent = socket.send_fds(plain, [line], ends.handed)
        writer.write(line[sent:])
        await writer.drain()
        answer: dict[str, Any] = json.loads(await reader.readuntil(b"\n"))
        return answer

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._watchers.discard(writer)
        writer.close()

    async def close(self) -> None:
        """Let go of all connections; the supervisor goes on."""
        self.closed = True
        writers = [*self._watchers, *([self._streams[1]] if self._streams is not None else [])]
        self._let_go()
        for writer in writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def _let_go(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a supervisor of our version, started where there is none."""
        async with self._starting:
            try:
                async with asyncio.timeout(_START_WITHIN):
                    while True:
                        streams = await self._open()
                        if streams is None:
                            await asyncio.to_thread(self._start)
                            # where another one is just coming up or leaving, only trying again tells
                            while (streams := await self._open()) is None:
                                await asyncio.sleep(_TRY_EVERY)
                                await asyncio.to_thread(self._start)
                        if await self._greet(*streams):
                            return streams
            except TimeoutError as error:
                raise DriverError(
                    f"The supervisor of this machine could not be started within {_START_WITHIN:.0f} s; "
                    f"see {self._state / 'log'}."
                ) from error

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the supervisor is one that we understand; another is asked to make room, its attempts go on."""
        understood = False
        try:
            writer.write(b'{"ask":"hello"}\n')
            hello = json.loads(await reader.readuntil(b"\n"))
            if hello.get("protocol") == PROTOCOL and hello.get("settings") == self._settings:
                self.memory, self.mounts, self.pid = hello["memory"], hello["mounts"], hello["pid"]
                understood = True
            else:
                writer.write(b'{"ask":"leave"}\n')
                await reader.read()
        except (ConnectionError, EOFError, ValueError):
            understood = False
        finally:
            if not understood:
                writer.close()
        return understood

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        try:
            descriptor = os.open(self._state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            # by way of the folder's descriptor: a socket's path may have 107 bytes only
            return await asyncio.open_unix_connection(f"/proc/self/fd/{descriptor}/socket", limit=_LIMIT)
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def _start(self) -> None:
        """Start the supervisor and wait until it listens."""
        try:
            self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._state.chmod(0o700)
        except OSError as error:
            raise DriverError(f"The supervisor's folder {self._state} cannot be made: {error.strerror}.") from error
        words = [sys.executable, "-I", "-S", str(_BOOT), str(self._folder), json.dumps(self._settings)]
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={"PATH": os.defpath},
                check=False,
                timeout=_START_WITHIN,
            )
        except subprocess.TimeoutExpired:
            return  # who asked us waits no longer, and says so
        except OSError as error:
            raise DriverError(
                f"The supervisor of this machine cannot be started, as this machine has no room for a process: "
                f"{error.strerror}."
            ) from error
        if done.returncode != 0:
            raise DriverError(f"The supervisor of this machine does not start: {self._complaint(done.stderr)}")

    def _complaint(self, said: bytes) -> str:
        lines = said.decode("utf-8", "replace").splitlines()
        try:
            lines += (self._state / "log").read_text("utf-8", "replace").splitlines()
        except OSError as error:
            lines.append(str(error))
        return lines[-1] if lines else "it gave no reason."
