"""Where a job is reached on the relay's machine: a loopback address of its own, at the relay's one port."""

import socket

from atoll.core.errors import Conflict

_FIRST = 127 << 24 | 1 << 16
"""127.1.0.0; what is below is left to other programs: 127.0.0.1, and the names that distributions put beside it."""
_COUNT = 254 << 16
"""Addresses up to 127.254.255.255."""
_BACKLOG = 256


def address_of(job_id: int, port: int) -> tuple[str, int]:
    """Host and port at which the relay that has `port` carries streams to a job's port named `relay`.

    The same for ever, for all the job's attempts, without asking anybody; Linux routes all of 127/8 to itself. Jobs
    whose ids lie a multiple of 16,646,144 apart have the same: the relay then serves the one that has run for longer,
    and complains of the other.
    """
    return socket.inet_ntoa((_FIRST + job_id % _COUNT).to_bytes(4, "big")), port


def reserve(port: int) -> socket.socket:
    """Take the relay's port away from other accounts, and from other relays, for as long as the socket stays open.

    It is bound to all addresses and listens at none, so that connections are refused. Hand it on to children that send
    streams to the relay (`set_inheritable`, `pass_fds`), and to the relay itself by `--reserved FD`. Raises Conflict
    where somebody else has the port.
    """
    holder = socket.socket()
    try:
        # streams of a relay that was killed may linger, and are no reason to refuse
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("0.0.0.0", port))  # noqa: S104  (it never listens)
        # not before: a second relay is refused; from now on Linux lets sockets of the same account in, and no others
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError as error:
        holder.close()
        raise Conflict(
            "port_in_use",
            f"The relay cannot have the port {port}: {error.strerror}. Choose another port (relay: {{port: ...}} in "
            "the configuration).",
            field="relay.port",
        ) from None
    return holder


def listen(address: tuple[str, int]) -> socket.socket:
    """A listening socket at a job's address, beside the reserved port. Raises OSError."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
