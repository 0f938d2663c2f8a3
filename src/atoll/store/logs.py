"""The log store: the output of attempts that ended, its head and its tail within a limit.

The bytes are in a folder that all replicas share, a file for each attempt and stream; what is in it is a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select

from atoll.store.tables import logs

STREAMS = ("stdout", "stderr")


@dataclass(frozen=True)
class StoredLog:
    """What is kept of a stream: the first `head` and the last `tail` bytes of `size`."""

    attempt_id: str
    stream: str
    size: int
    head: int
    tail: int

    @property
    def omitted(self) -> int:
        """Bytes between head and tail that were not kept."""
        return self.size - self.head - self.tail


class LogStore:
    """The folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, attempt_id: str, stream: str) -> Path:
        """Where the stream of an attempt lies, or would lie."""
        return self.folder / attempt_id[-2:] / f"{attempt_id}.{stream}"

    def write(self, attempt_id: str, stream: str, head: bytes, tail: bytes) -> None:
        """Keep a stream; writing it again replaces it."""
        path = self.path(attempt_id, stream)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        # of each stream its own: both of an attempt may be written at once
        part = path.with_name(f"{path.name}.part")
        part.write_bytes(head + tail)
        part.replace(path)

    def read(self, log: StoredLog, offset: int, limit: int) -> tuple[int, bytes]:
        """At most `limit` bytes of the stream from `offset` (negative: from the end), and where they begin.

        An offset in the part that was not kept continues at the tail.
        """
        start = max(0, log.size + offset) if offset < 0 else min(offset, log.size)
        tail_start = log.size - log.tail
        if start >= log.head:
            start = max(start, tail_start)
            place = log.head + start - tail_start
            available = log.size - start
        else:
            place, available = start, log.head - start
        if min(limit, available) <= 0:
            return start, b""
        with self.path(log.attempt_id, log.stream).open("rb") as stream:
            stream.seek(place)
            return start, stream.read(min(limit, available))

    def remove(self, attempt_id: str) -> None:
        """Remove what is kept of an attempt."""
        for stream in STREAMS:
            self.path(attempt_id, stream).unlink(missing_ok=True)


def put(connection: Connection, stored: Sequence[StoredLog]) -> None:
    """Note what the folder now has; replaces what was noted of the same streams."""
    if not stored:
        return
    ids = sorted({log.attempt_id for log in stored})
    for start in range(0, len(ids), 500):
        connection.execute(delete(logs).where(logs.c.attempt_id.in_(ids[start : start + 500])))
    connection.execute(
        insert(logs),
        [
            {"attempt_id": log.attempt_id, "stream": log.stream, "size": log.size, "head": log.head,
             "tail": log.tail}
            for log in stored
        ],
    )  # fmt: skip


def find(connection: Connection, attempt_id: str, stream: str) -> StoredLog | None:
    """What is kept of a stream; None where nothing is."""
    query = select(logs).where(logs.c.attempt_id == attempt_id, logs.c.stream == stream)
    row = connection.execute(query).one_or_none()
    return StoredLog(row.attempt_id, row.stream, row.size, row.head, row.tail) if row else None
