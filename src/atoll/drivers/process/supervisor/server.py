"""The supervisor's socket: one JSON document on a line asks, one answers; called by the supervisor's loop.

Only processes of the supervisor's own account, or root's, are heard. A client that asked to be told of changes gets
the line {"changed": VERSION} after some, and the next one only after somebody has observed.
"""

import json
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import Any

_MOST_DESCRIPTORS = 4
"""That may come with one question: the ends of a command's pipes, or of its terminal."""

_LONGEST = 256 << 20
"""Bytes that one question may have."""


class Client:
    """One connection: what came in and is not whole yet, and what is still to go out."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.pieces: list[bytes] = []
        self.received = 0
        self.outgoing = bytearray()
        self.told: int | None = None
        """Version of the last hint; None where the client wants none."""
        self.free = True
        """Whether somebody has looked since the last hint."""
        self.descriptors: list[int] = []
        """What came in with the last question; whoever answers it takes them."""

    def take_descriptors(self) -> list[int]:
        """What came in; the caller closes it."""
        taken, self.descriptors = self.descriptors, []
        return taken


Answer = Callable[[dict[str, Any], Client], dict[str, Any]]


class Server:
    """Listens, reads questions, writes answers; never blocks."""

    def __init__(self, path: str, poll: select.epoll, answer: Answer, gone: Callable[[Client], None]) -> None:
        self._poll = poll
        self._answer = answer
        self._gone = gone
        self.clients: dict[int, Client] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if os.path.lexists(path):  # no pathlib in the supervisor
            os.unlink(path)  # noqa: PTH108  # a dead supervisor's: we hold the lock
        self._listener.bind(path)
        os.chmod(path, 0o600)  # noqa: PTH101
        self._listener.listen(64)
        self._listener.setblocking(False)
        poll.register(self._listener.fileno(), select.EPOLLIN)

    def handle(self, descriptor: int, events: int) -> bool:
        """Do what the poll said of `descriptor`; False where it is not ours."""
        if descriptor == self._listener.fileno():
            self._accept()
            return True
        client = self.clients.get(descriptor)
        if client is None:
            return False
        try:
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._read(client)
            if events & select.EPOLLOUT:
                self._flush(client)
        except OSError:
            self._drop(client)
        return True

    def hint(self, version: int) -> None:
        """Tell those who asked for it that something changed."""
        for client in list(self.clients.values()):
            if client.told is not None and client.told < version and client.free:
                client.told, client.free = version, False
                self.send(client, {"changed": version})

    def looked(self) -> None:
        """Somebody asked what there is: from now on a change is news again."""
        for client in self.clients.values():
            client.free = True

    def send(self, client: Client, document: dict[str, Any]) -> None:
        """Send a document to a client, if it is still there."""
        if client.connection.fileno() < 0:
            return
        client.outgoing += json.dumps(document, separators=(",", ":")).encode() + b"\n"
        try:
            self._flush(client)
        except OSError:
            self._drop(client)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # it went away again
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", credentials)
        if uid not in (0, os.getuid()):
            connection.close()
            return
        connection.setblocking(False)
        self.clients[connection.fileno()] = Client(connection)
        self._poll.register(connection.fileno(), select.EPOLLIN)

    def _read(self, client: Client) -> None:
        try:
            piece, descriptors, _, _ = socket.recv_fds(client.connection, 1 << 20, _MOST_DESCRIPTORS)
        except BlockingIOError:
            return
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        client.descriptors += descriptors
        client.received += len(piece)
        if not piece or client.received > _LONGEST:
            self._drop(client)
            return
        client.pieces.append(piece)
        if b"\n" not in piece:
            return
        *lines, rest = b"".join(client.pieces).split(b"\n")
        client.pieces, client.received = [rest], len(rest)
        for line in lines:
            self._take(client, line)

    def _take(self, client: Client, line: bytes) -> None:
        try:
            question = json.loads(line)
            if question["ask"] == "watch":
                client.told = -1
                reply: dict[str, Any] = {}
            else:
                reply = self._answer(question, client)
        except (ValueError, KeyError, TypeError) as error:
            reply = {"error": f"the question is not understood: {error!r}"}
        except OSError as error:
            reply = {"error": str(error)}
        for descriptor in client.take_descriptors():
            os.close(descriptor)
        self.send(client, reply)

    def _flush(self, client: Client) -> None:
        while client.outgoing:
            try:
                del client.outgoing[: client.connection.send(client.outgoing[: 1 << 20])]
            except BlockingIOError:
                break
        wanted = select.EPOLLIN | (select.EPOLLOUT if client.outgoing else 0)
        self._poll.modify(client.connection.fileno(), wanted)

    def _drop(self, client: Client) -> None:
        descriptor = client.connection.fileno()
        if self.clients.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)
            client.connection.close()
            for each in client.take_descriptors():
                os.close(each)
            self._gone(client)

    def close(self) -> None:
        """Stop listening and let go of all clients."""
        for client in list(self.clients.values()):
            self._drop(client)
        self._poll.unregister(self._listener.fileno())
        self._listener.close()
