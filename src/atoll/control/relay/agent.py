"""The relay's other end, inside an attempt: run around a server that people reach through Atoll.

    python3 agent.py --port PORT [--listen ADDRESS] [--server-url NAME=PATH]... [--reverse-url NAME=PATH]... -- COMMAND

It is sent to the site as one file: the standard library of Python 3.8 and no more. It listens in two places:

- the control port, PORT or one of the CANDIDATES - 1 ports after it where others have taken that, at ADDRESS (default:
  all, because some engines come from another machine). Only the relay gets further than a greeting: both prove that
  they know the attempt's secret (ATOLL_RELAY_SECRET) before anything else is said.
- a loopback port of its own choice, for the server: what connects there comes out at the relay's one target.

COMMAND is started with `{port}` in its words replaced by a free loopback port, at which it is expected to listen; or
with `{socket}` replaced by the path of a unix socket. Its environment says how things are reached, for each of
--server-url (the server) and --reverse-url (the target): NAME=http://127.0.0.1:N/PATH. Signals are passed on to it, and
the agent ends with its exit code, 128 + n where signal n ended it. Where the relay is not there, those who come from
inside wait for it, for so long.

A connection from the relay begins with HELLO, one byte for its kind and NONCE bytes; the agent answers NONCE bytes and
its proof; the relay sends its own. FORWARD then is a stream to the server, in which the agent says OPENED first.
SPARE waits: the relay sends PING and gets it back, until the agent says BEGIN; it is the stream of somebody inside
from when the relay has answered OPENED; it answers UNREACHED where its target is not there.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import fcntl
import hashlib
import hmac
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import suppress

SECRET_VARIABLE = "ATOLL_RELAY_SECRET"  # noqa: S105  (its name)
HELLO = b"ATOLL-1\n"
FORWARD, SPARE = b"F", b"S"
OPENED, UNREACHED, PING, BEGIN = b"+", b"-", b".", b"!"
NONCE = 32
PROOF = 32
CANDIDATES = 8
"""Ports in a row, the first of which that is free is the control port."""

_GREET_WITHIN = 10.0
_MOST_GREETING = 64
"""Connections that may be at their greeting; one more, and the oldest goes."""
_MOST_STREAMS = 400
"""Streams to the server: two descriptors each, of the 1,024 that programs usually may have."""
_MOST_WAITING = 64
_MOST_SPARES = 16
_WAIT_FOR_RELAY = 30.0
"""Seconds that somebody inside waits for a spare connection."""
_SILENCE = 100.0
"""Seconds without a PING after which a spare connection is given up."""
HALF_CLOSED = 120.0
"""Seconds without a byte after which a stream of which one direction has ended is closed."""
_CONNECT_WITHIN = 10.0
_LAST_BYTES = 1.0
"""Seconds that streams get to end after the server did."""
_PIECE = 64 << 10
"""Bytes that are read at a time; where as many come, more is to be expected."""
_IN_PIPE = 1 << 20
"""Bytes that the kernel moves at a time."""
_WORTH_WAKING = 512 << 10
"""Bytes that are waited for, meanwhile: waking for each little piece is what takes the time."""
_PAUSE = 0.01
"""Seconds without so many bytes after which whatever has come is passed on, and the kernel's help let go."""
_NO_WAIT = 2 | 1
"""SPLICE_F_NONBLOCK and SPLICE_F_MOVE of splice(2)."""
_SET_PIPE_SIZE = 1031
"""F_SETPIPE_SZ of fcntl(2)."""
_PASSED_ON = ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "CONT", "WINCH")
_LISTENS = "0A"
_OURS_TO_REACH = {
    "0100007F", "7F000001", "00000000",
    "0" * 32, "0000000000000000FFFF00000100007F", "00000000000000000000FFFF7F000001",
}  # fmt: skip
"""Addresses as /proc/net/tcp writes them that a connection to 127.0.0.1 may meet."""


def proof(secret: bytes, who: bytes, kind: bytes, theirs: bytes, ours: bytes) -> bytes:
    """What shows that `who` (b"agent" or b"relay") knows the secret: HMAC over both sides' nonces, the relay's first.

    The name is part of it, so that neither side's proof can be sent back as its own.
    """
    return hmac.new(secret, who + b"\0" + kind + theirs + ours, hashlib.sha256).digest()


class Refused(Exception):
    """The other side said something wrong, or nothing."""


class Agent:
    """Carries streams between the relay and a server."""

    def __init__(
        self, secret: bytes, server: str | tuple[str, int], control: socket.socket, reverse: socket.socket
    ) -> None:
        self._secret = secret
        self._server = server
        self._listeners = control, reverse
        self._loop = asyncio.get_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: set[asyncio.Task[None]] = set()
        """The tasks that carry something."""
        self._greeting: dict[asyncio.Task[None], None] = {}
        self._visitors: list[_Visitor] = []
        """Those from inside who wait for a spare connection."""
        self._visited = asyncio.Condition()
        self._spares = 0
        self._forwards = 0

    def start(self) -> None:
        """Listen."""
        control, reverse = self._listeners
        self._begin(self._accept(control, self._welcome))
        self._begin(self._accept(reverse, self._welcome_inside))

    async def end(self) -> None:
        """Let streams end for a moment, then close all that is open."""
        for listener in self._listeners:
            listener.close()
        if self._streams:
            await asyncio.wait(self._streams, timeout=_LAST_BYTES)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, listener: socket.socket, welcome: Callable[[socket.socket], None]) -> None:
        while True:
            try:
                client, _ = await self._loop.sock_accept(listener)
            except OSError as error:
                if error.errno in (errno.EBADF, errno.EINVAL):
                    return
                await asyncio.sleep(0.1)  # no descriptors left, perhaps: those who hold them may let go
                continue
            client.setblocking(False)
            with suppress(OSError):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            welcome(client)

    # -- from the relay ------------------------------------------------------------------------------------------

    def _welcome(self, client: socket.socket) -> None:
        task = self._begin(self._serve(client))
        self._greeting[task] = None
        task.add_done_callback(lambda done: self._greeting.pop(done, None))
        if len(self._greeting) > _MOST_GREETING:
            # whoever knows the secret needs one round trip, so that it is not the oldest for long
            next(iter(self._greeting)).cancel()

    async def _serve(self, client: socket.socket) -> None:
        try:
            kind = await asyncio.wait_for(self._greet(client), _GREET_WITHIN)
            self._greeting.pop(_this_task(), None)
            if kind == SPARE and self._spares < _MOST_SPARES:
                await self._keep(client)
            elif kind == FORWARD and self._forwards < _MOST_STREAMS:
                self._forwards += 1
                try:
                    await self._forward(client)
                finally:
                    self._forwards -= 1
        except (OSError, Refused, asyncio.TimeoutError):
            pass  # garbage, a stranger, or a way that broke: there is nobody to tell
        finally:
            client.close()

    async def _greet(self, client: socket.socket) -> bytes:
        """The kind of a connection whose other side is the relay. Raises Refused."""
        hello = await self._exactly(client, len(HELLO) + 1 + NONCE)
        kind, theirs = hello[len(HELLO) : len(HELLO) + 1], hello[len(HELLO) + 1 :]
        if not hello.startswith(HELLO) or kind not in (FORWARD, SPARE):
            raise Refused
        ours = os.urandom(NONCE)
        await self._loop.sock_sendall(client, ours + proof(self._secret, b"agent", kind, theirs, ours))
        said = await self._exactly(client, PROOF)
        if not hmac.compare_digest(said, proof(self._secret, b"relay", kind, theirs, ours)):
            raise Refused
        return kind

    async def _exactly(self, client: socket.socket, count: int) -> bytes:
        said = b""
        while len(said) < count:
            piece = await self._loop.sock_recv(client, count - len(said))
            if not piece:
                raise Refused
            said += piece
        return said

    async def _forward(self, client: socket.socket) -> None:
        with await asyncio.wait_for(self._reach(), _CONNECT_WITHIN) as server:
            await self._loop.sock_sendall(client, OPENED)
            await self._carry(client, server)

    async def _carry(self, one: socket.socket, other: socket.socket) -> None:
        task = _this_task()
        self._streams.add(task)
        try:
            await carry(one, other)
        finally:
            self._streams.discard(task)

    async def _reach(self) -> socket.socket:
        """A connection to the server. Raises OSError, Refused."""
        server = socket.socket(socket.AF_UNIX if isinstance(self._server, str) else socket.AF_INET)
        try:
            server.setblocking(False)
            await self._loop.sock_connect(server, self._server)
            if not isinstance(self._server, str):
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if not listens_here(self._server[1]):
                    raise Refused
        except BaseException:
            server.close()
            raise
        return server

    # -- from inside ---------------------------------------------------------------------------------------------

    def _welcome_inside(self, client: socket.socket) -> None:
        if len(self._visitors) >= _MOST_WAITING:
            client.close()
            return
        visitor = _Visitor(client, self._loop.time() + _WAIT_FOR_RELAY)
        self._loop.call_at(visitor.until, self._give_up, visitor)
        self._begin(self._announce(visitor))

    async def _announce(self, visitor: _Visitor) -> None:
        """Have somebody from inside wait for a spare connection, but not for ever."""
        if self._loop.time() >= visitor.until:
            visitor.socket.close()
            return
        async with self._visited:
            self._visitors.append(visitor)
            self._visited.notify_all()

    def _give_up(self, visitor: _Visitor) -> None:
        if visitor in self._visitors:
            self._visitors.remove(visitor)
            visitor.socket.close()

    async def _next_visitor(self) -> _Visitor:
        async with self._visited:
            while not self._visitors:
                await self._visited.wait()
            return self._visitors.pop(0)

    async def _keep(self, client: socket.socket) -> None:
        """Hold a spare connection, until it becomes somebody's stream. Raises OSError, Refused."""
        self._spares += 1
        coming = self._loop.create_task(self._next_visitor())
        try:
            await self._answer_pings(client, coming)
        except BaseException:
            coming.cancel()
            await asyncio.wait({coming})
            if not coming.cancelled():
                self._begin(self._announce(coming.result()))
            raise
        finally:
            self._spares -= 1
        await self._see_off(client, coming.result())

    async def _answer_pings(self, client: socket.socket, coming: asyncio.Task[_Visitor]) -> None:
        """Return when somebody comes. Raises OSError, Refused where the connection ends before."""
        while not coming.done():
            reading = self._loop.create_task(self._exactly(client, 1))
            try:
                done, _ = await asyncio.wait({reading, coming}, timeout=_SILENCE, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not reading.done():
                    reading.cancel()
                    await asyncio.wait({reading})
            if not done or (reading in done and reading.result() != PING):
                raise Refused
            if reading in done:
                await self._loop.sock_sendall(client, PING)

    async def _see_off(self, client: socket.socket, visitor: _Visitor) -> None:
        """Bring somebody from inside to the relay's target, or have them wait for another connection."""
        try:
            await self._loop.sock_sendall(client, BEGIN)
            # a PING may have been under way when we said BEGIN
            while (said := await asyncio.wait_for(self._exactly(client, 1), _CONNECT_WITHIN)) == PING:
                pass
        except (OSError, Refused, asyncio.TimeoutError):
            await self._announce(visitor)
            return
        with visitor.socket:
            if said == OPENED:
                await self._carry(client, visitor.socket)
            else:
                abort(visitor.socket)


class _Visitor:
    """Somebody from inside who wants to reach the relay's target."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self.socket = connection
        self.until = until
        """Time of the event loop until which it waits for a spare connection."""


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def carry(one: socket.socket, other: socket.socket) -> None:
    """Copy between two sockets in both directions, until both have ended; what breaks breaks both, by a reset."""
    moved = [0]
    directions = {asyncio.ensure_future(copy(source, target, moved)) for source, target in ((one, other), (other, one))}
    try:
        done, left = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        while left and not any(task.exception() for task in done):
            before = moved[0]
            done, left = await asyncio.wait(left, timeout=HALF_CLOSED)
            if left and moved[0] == before:
                break
        if left or any(task.exception() for task in done):
            abort(one)
            abort(other)
    finally:
        for task in directions:
            task.cancel()
        await asyncio.gather(*directions, return_exceptions=True)


async def copy(source: socket.socket, target: socket.socket, moved: list[int]) -> None:
    """Copy from one socket to the other until the end, which is passed on; `moved[0]` rises by the bytes moved.

    What comes in large pieces is moved by the kernel, where Python can ask it to (3.10): splice(2) copies nothing.
    """
    loop = asyncio.get_event_loop()
    while piece := await loop.sock_recv(source, _PIECE):
        await loop.sock_sendall(target, piece)
        moved[0] += len(piece)
        if len(piece) == _PIECE and hasattr(os, "splice"):
            await _splice(source, target, moved)
    target.shutdown(socket.SHUT_WR)


async def _splice(source: socket.socket, target: socket.socket, moved: list[int]) -> None:
    """Have the kernel move what comes, until the end or a pause. Raises OSError."""
    splicing = _Splicing(source, target)
    try:
        before = -1
        while not splicing.over.done() and (splicing.left or splicing.moved != before):
            before = splicing.moved
            await asyncio.wait({splicing.over}, timeout=_PAUSE)
            moved[0] += splicing.moved - before
        if splicing.over.done():
            splicing.over.result()
    finally:
        splicing.close()


class _Splicing:
    """Moves what comes from one socket to the other through a pipe, until `over` is done."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self._loop = asyncio.get_event_loop()
        self._source = source
        self._target = target
        self._out, self._in = os.pipe()
        with suppress(OSError):  # a smaller one does as well, if that is all that we may have
            fcntl.fcntl(self._in, _SET_PIPE_SIZE, _IN_PIPE)
        self._stuck = False
        self.left = 0
        """Bytes in the pipe."""
        self.moved = 0
        self.over: asyncio.Future[None] = self._loop.create_future()
        source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, _WORTH_WAKING)
        self._loop.add_reader(source, self._take)

    def _take(self) -> None:
        try:
            self.left = os.splice(self._source.fileno(), self._in, _IN_PIPE, flags=_NO_WAIT)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        self.moved += self.left
        if self.left:
            self._give()
        else:
            self._end(None)

    def _give(self) -> None:
        try:
            while self.left:
                self.left -= os.splice(self._out, self._target.fileno(), self.left, flags=_NO_WAIT)
        except BlockingIOError:
            if not self._stuck:
                self._stuck = True
                self._loop.remove_reader(self._source)
                self._loop.add_writer(self._target, self._give)
            return
        except OSError as error:
            self._end(error)
            return
        if self._stuck:
            self._stuck = False
            self._loop.remove_writer(self._target)
            self._loop.add_reader(self._source, self._take)

    def _end(self, error: OSError | None) -> None:
        self._let_go()
        if error is None:
            self.over.set_result(None)
        else:
            self.over.set_exception(error)

    def _let_go(self) -> None:
        if self._stuck:
            self._loop.remove_writer(self._target)
        else:
            self._loop.remove_reader(self._source)

    def close(self) -> None:
        """Let go of the sockets and the pipe."""
        if not self.over.done():
            self._let_go()
            self.over.cancel()
        with suppress(OSError):
            self._source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        os.close(self._out)
        os.close(self._in)


def abort(connection: socket.socket) -> None:
    """Have the other side see that a stream broke, and did not just end."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def listens_here(port: int) -> bool:
    """Whether it is one of our own account's programs that listens at loopback `port`, as far as Linux tells.

    Between the choice of the port and the server's start anybody on the node may take it, and would get the stream.
    Root may have started the server as somebody else, and is not asked.
    """
    if os.geteuid() == 0:
        return True
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/net/{name}") as file:  # noqa: PTH123  (the site's Python may be an old one)
                lines = file.read().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            address, _, number = fields[1].partition(":")
            if fields[3] == _LISTENS and int(number, 16) == port and address in _OURS_TO_REACH:
                return int(fields[7]) == os.geteuid()
    return not os.path.exists("/proc/net/tcp")  # noqa: PTH110


# ---- the server, and how it is started


def listen(address: str, first: int) -> socket.socket:
    """The control port. Raises OSError where all candidates are taken."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in range(first, min(first + CANDIDATES, 65536)):
        listener = socket.socket(family)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(256)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        listener.setblocking(False)
        return listener
    raise OSError(errno.EADDRINUSE, f"the ports {first} to {first + CANDIDATES - 1} are all taken")


def listen_inside() -> socket.socket:
    """A loopback port for the server."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(256)
    listener.setblocking(False)
    return listener


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _urls(given: list[str], port: int) -> dict[str, str]:
    variables = {}
    for entry in given:
        name, _, path = entry.partition("=")
        variables[name] = f"http://127.0.0.1:{port}/{path.lstrip('/')}"
    return variables


def _variable(text: str) -> str:
    if not text.partition("=")[0].isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return text


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line. Ends the program with 2 where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="agent.py", description="Runs a server that is reached through Atoll's relay."
    )
    parser.add_argument("--port", type=int, required=True, help="the job's port named relay")
    parser.add_argument("--listen", default="0.0.0.0", metavar="ADDRESS")  # noqa: S104  (only the relay gets further)
    parser.add_argument("--server-url", action="append", default=[], type=_variable, metavar="NAME=PATH")
    parser.add_argument("--reverse-url", action="append", default=[], type=_variable, metavar="NAME=PATH")
    parser.add_argument("command", nargs="+", help="{port} or {socket} in it says where the server listens")
    return parser.parse_args(words)


async def run(given: argparse.Namespace, secret: bytes) -> int:
    """Run the server and carry its streams; its exit code. Raises OSError where there is no port to listen at."""
    control, reverse = listen(given.listen, given.port), listen_inside()
    environment = {name: value for name, value in os.environ.items() if name != SECRET_VARIABLE}
    environment.update(_urls(given.reverse_url, reverse.getsockname()[1]))
    folder = ""
    if any("{socket}" in word for word in given.command):
        folder = tempfile.mkdtemp(prefix="atoll-")  # closed to others, and its name is short enough for a socket
        server: str | tuple[str, int] = os.path.join(folder, "socket")  # noqa: PTH118
    else:
        port = free_port()
        server = ("127.0.0.1", port)
        environment.update(_urls(given.server_url, port))
    place = str(server if folder else server[1])
    words = [word.replace("{socket}" if folder else "{port}", place) for word in given.command]
    agent = Agent(secret, server, control, reverse)
    agent.start()
    try:
        return await _supervise(words, environment)
    finally:
        await agent.end()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


async def _supervise(words: list[str], environment: dict[str, str]) -> int:
    try:
        child = subprocess.Popen(words, env=environment)  # noqa: ASYNC220  (nothing else waits yet)
    except OSError as error:
        print(f"agent.py: {words[0]} cannot be started: {error.strerror}.", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126
    loop = asyncio.get_event_loop()
    for name in _PASSED_ON:
        number = getattr(signal, f"SIG{name}")
        loop.add_signal_handler(number, child.send_signal, number)
    code = await loop.run_in_executor(None, child.wait)
    return 128 - code if code < 0 else code


def main() -> int:
    """Run; the exit code."""
    given = parse()
    secret = os.environ.get(SECRET_VARIABLE, "")
    if not secret:
        print(f"agent.py: {SECRET_VARIABLE} is not set: the job has no port named relay.", file=sys.stderr)
        return 2
    try:
        return asyncio.run(run(given, secret.encode()))
    except OSError as error:
        print(f"agent.py: it cannot listen: {error.strerror or error}.", file=sys.stderr)
        return 75


if __name__ == "__main__":
    sys.exit(main())
