"""The file store: contents by their SHA-256 in a folder that all replicas share, and who may use each.

Files go up before the job that needs them; a person may use a content only after having sent it, since knowing a
hash is no proof of having the file.
"""

import asyncio
import hashlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from atoll.core.errors import Invalid, TooLarge, Unavailable
from atoll.store.tables import file_owners, files, inputs, outputs

_PIECE = 1 << 20
"""Bytes that are written at once."""


class FileStore:
    """The folder. Contents are written beside and renamed, so that a content that is there is whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, sha256: str) -> Path:
        """Where a content lies, or would lie."""
        return self.folder / sha256[:2] / sha256

    def size(self, sha256: str) -> int:
        """Bytes of a content; 0 where it is gone."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return 0

    async def receive(self, chunks: AsyncIterator[bytes], expected: str | None, limit: int) -> tuple[str, int]:
        """Take in a content; returns its SHA-256 and size in bytes.

        Raises TooLarge beyond `limit` bytes, Invalid where it is not the `expected` one, Unavailable on a full disk.
        """
        digest, size = hashlib.sha256(), 0
        part = self.folder / f"part-{secrets.token_hex(8)}"

        def write(stream: BinaryIO, data: bytes) -> None:
            digest.update(data)
            stream.write(data)

        try:
            with part.open("wb") as stream:
                gathered = bytearray()
                async for chunk in chunks:
                    size += len(chunk)
                    if size > limit:
                        raise TooLarge("file_too_large", f"The file is larger than the {limit} bytes allowed.")
                    gathered += chunk
                    if len(gathered) >= _PIECE:
                        await asyncio.to_thread(write, stream, bytes(gathered))
                        gathered.clear()
                write(stream, bytes(gathered))
                stream.flush()
                await asyncio.to_thread(os.fsync, stream.fileno())
            found = digest.hexdigest()
            if expected is not None and found != expected:
                raise Invalid(
                    "wrong_hash",
                    f"What arrived has the SHA-256 {found}, not {expected}; send the file again.",
                    field="sha256",
                )
            self._keep(part, found)
            return found, size
        except OSError as error:
            raise Unavailable(
                "file_store", f"The file store cannot be written ({error.strerror}).", retry_after=30
            ) from error
        finally:
            part.unlink(missing_ok=True)

    def take(self, source: Path) -> tuple[str, int]:
        """Take in a local file of the control plane's; returns its SHA-256 and size in bytes."""
        digest = hashlib.sha256()
        part = self.folder / f"part-{secrets.token_hex(8)}"
        try:
            with source.open("rb") as reading, part.open("wb") as writing:
                while chunk := reading.read(1 << 20):
                    digest.update(chunk)
                    writing.write(chunk)
                os.fsync(writing.fileno())
            size = part.stat().st_size
            self._keep(part, digest.hexdigest())
            return digest.hexdigest(), size
        finally:
            part.unlink(missing_ok=True)

    def _keep(self, part: Path, sha256: str) -> None:
        target = self.path(sha256)
        target.parent.mkdir(exist_ok=True, mode=0o700)
        part.replace(target)

    def sweep(self, before: float) -> None:
        """Remove what a process that died left unfinished before `before` (seconds since 1970)."""
        for entry in [*self.folder.glob("part-*"), *self.folder.glob("tmp*")]:
            if entry.stat().st_mtime < before:
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)

    def remove(self, sha256: str) -> None:
        """Remove a content that nothing needs any more."""
        self.path(sha256).unlink(missing_ok=True)


def put(connection: Connection, sha256: str, size: int, person: str, now: int) -> None:
    """Note that a content is in the store and that `person` has it."""
    if connection.execute(update(files).where(files.c.sha256 == sha256).values(used_at=now)).rowcount == 0:
        connection.execute(insert(files).values(sha256=sha256, size=size, used_at=now))
    query = select(file_owners.c.person).where(file_owners.c.sha256 == sha256, file_owners.c.person == person)
    if connection.execute(query).first() is None:
        try:
            with connection.begin_nested():
                connection.execute(insert(file_owners).values(sha256=sha256, person=person))
        except IntegrityError:
            return  # sent twice at the same time: it is there, which is all that was wanted


def owned(connection: Connection, hashes: Sequence[str], person: str) -> set[str]:
    """Those of `hashes` that `person` has sent."""
    query = select(file_owners.c.sha256).where(file_owners.c.person == person, file_owners.c.sha256.in_(list(hashes)))
    return set(connection.execute(query).scalars())


def touch(connection: Connection, hashes: Sequence[str], now: int) -> None:
    """Contents are in use: purge leaves them alone for another while."""
    connection.execute(update(files).where(files.c.sha256.in_(list(hashes))).values(used_at=now))


def set_inputs(connection: Connection, taken: Sequence[tuple[int, str]]) -> None:
    """Note what new jobs take in: (job id, SHA-256) each."""
    rows = [{"job_id": job_id, "sha256": sha256} for job_id, sha256 in dict.fromkeys(taken)]
    if rows:
        connection.execute(insert(inputs), rows)


def is_known(connection: Connection, sha256: str) -> bool:
    """Whether the store is to have this content."""
    return connection.execute(select(files.c.sha256).where(files.c.sha256 == sha256)).first() is not None


def unused(connection: Connection, before: int, limit: int) -> list[str]:
    """Contents that nobody sent since `before` (microseconds) and that no known job takes in or brought out."""
    brought_out = select(outputs.c.sha256).where(outputs.c.sha256 == files.c.sha256).exists()
    taken_in = select(inputs.c.sha256).where(inputs.c.sha256 == files.c.sha256).exists()
    query = select(files.c.sha256).where(files.c.used_at < before, ~brought_out, ~taken_in).limit(limit)
    return list(connection.execute(query).scalars())


def drop(connection: Connection, hashes: Sequence[str]) -> None:
    """Forget contents that are about to be removed."""
    connection.execute(delete(file_owners).where(file_owners.c.sha256.in_(list(hashes))))
    connection.execute(delete(files).where(files.c.sha256.in_(list(hashes))))


def set_outputs(connection: Connection, job_id: int, found: Sequence[tuple[str, str, int]]) -> None:
    """What a job brought out: (path, SHA-256, size) each; replaces what an earlier attempt brought."""
    connection.execute(delete(outputs).where(outputs.c.job_id == job_id))
    if found:
        connection.execute(
            insert(outputs),
            [{"job_id": job_id, "path": path, "sha256": sha256, "size": size} for path, sha256, size in found],
        )


def get_outputs(connection: Connection, job_id: int) -> list[tuple[str, str, int]]:
    """What a job brought out: (path, SHA-256, size), by path."""
    query = select(outputs).where(outputs.c.job_id == job_id).order_by(outputs.c.path)
    return [(row.path, row.sha256, row.size) for row in connection.execute(query)]
