"""Brings ended attempts home: output to the log store, files to the file store, then the job to its end or requeued.

Only when that is in the store may the site forget the attempt; see `forget`.
"""

import asyncio
import logging
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from atoll.control import launches
from atoll.control.work import SiteWork, Tools, held
from atoll.core.errors import AtollError, Internal
from atoll.core.spec import JobSpec
from atoll.core.states import Outcome
from atoll.drivers.base import DriverError, Held, Logs, Stage
from atoll.store import attempts, files, logs
from atoll.store.attempts import AttemptRow, Finished
from atoll.store.leases import Lease
from atoll.store.logs import STREAMS, StoredLog

log = logging.getLogger(__name__)
BATCH = 200
_AT_ONCE = 8
_CHUNK = 1024 * 1024
_TRIES = 6
"""How often output that cannot be collected is tried, where the site itself answers."""
_LASTING_AFTER = 24 * 3600 * 1_000_000
"""Microseconds for which output is waited for behind what only an operator can change."""


@dataclass(frozen=True)
class _Home:
    """What was brought home of one attempt."""

    finished: Finished
    logs: list[StoredLog]
    outputs: list[tuple[str, str, int]] | None
    owner: str
    note: str = ""
    """What the person should know of it."""


class Finisher:
    """One of the two finish loops of a site: for attempts that bring files out, or for those that bring none.

    Apart, so that large files of one job hold up nobody's end. What fails is tried again later, others first.
    """

    def __init__(self, work: SiteWork, *, with_files: bool) -> None:
        self._work = work
        self._with_files = with_files
        self._later: dict[str, tuple[int, float]] = {}

    async def step(self, lease: Lease) -> float | None:
        """Bring home at most BATCH attempts; 0 where there may be more."""
        work, tools = self._work, self._work.tools
        limit = BATCH + len(self._later)
        rows = await tools.database.read(lambda connection: attempts.finishing(connection, work.site, limit))
        found = await tools.database.read(
            lambda connection: launches.with_arrays(connection, sorted({row.job_id for row in rows}))
        )
        now = time.monotonic()
        mine = [
            _Ended(row, launches.spec_of(found[row.job_id][1].spec), found[row.job_id][0].owner)
            for row in rows
            if row.job_id in found and self._later.get(row.id, (0, now))[1] <= now
        ]
        mine = [ended for ended in mine if bool(ended.spec.files_out) is self._with_files]
        brought = await self._bring_all(mine, lease)
        homes = [home for home in brought if home is not None]
        await self._write_all(homes, lease)
        for key in set(self._later) - {row.id for row in rows}:
            del self._later[key]
        if self._later:
            return max(0.0, min(at for _, at in self._later.values()) - time.monotonic())
        return 0 if len(rows) >= limit and mine else None

    async def _bring_all(self, mine: Sequence["_Ended"], lease: Lease) -> list["_Home | None"]:
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def bring(ended: _Ended) -> _Home | None:
            async with at_once:
                self._work.tools.check(lease)
                try:
                    return await _bring_home(self._work, ended)
                except Exception as error:
                    # whatever one job's files do to us, the others come home
                    self._put_off(ended.row.id, error)
                    if self._is_to_be_tried_again(ended, error):
                        return None
                    note = f"Its output could not be collected: {error}."
                    return _Home(ended.finished, [], None, ended.owner, note)

        return await asyncio.gather(*(bring(ended) for ended in mine))

    async def _write_all(self, homes: Sequence["_Home"], lease: Lease) -> None:
        """Write what was brought home in one transaction; where that fails, each by itself."""
        tools = self._work.tools
        if not homes:
            return
        try:
            await tools.guarded(lease, lambda connection: _write(connection, homes, tools))
        except Internal as failure:
            if len(homes) == 1:
                self._put_off(homes[0].finished.attempt_id, failure)
                return
            for home in homes:
                await self._write_all([home], lease)

    def _is_to_be_tried_again(self, ended: "_Ended", error: Exception) -> bool:
        """Whether output that could not be collected may be so later."""
        if isinstance(error, DriverError) and error.lasting:
            return self._work.tools.now() - (ended.row.ended_at or 0) < _LASTING_AFTER
        return isinstance(error, DriverError | AtollError) or self._later[ended.row.id][0] < _TRIES

    def forget_failures(self) -> None:
        """Try everything again now."""
        self._later.clear()

    def _put_off(self, attempt_id: str, error: Exception) -> None:
        times = self._later.get(attempt_id, (0, 0.0))[0] + 1
        self._later[attempt_id] = (times, time.monotonic() + min(300.0, 2.0**times))
        if times == 1:
            log.warning("site %s: output of %s is still to be collected: %s", self._work.site, attempt_id, error)


@dataclass(frozen=True)
class _Ended:
    """An attempt that has ended, with what is to be known of its job."""

    row: AttemptRow
    spec: JobSpec
    owner: str

    @property
    def finished(self) -> Finished:
        """What is written of it in the end."""
        return Finished(self.row.id, self.row.job_id, self.spec.retries, self.spec.rerun)


async def _bring_home(work: SiteWork, ended: _Ended) -> _Home:
    """Output and files of one attempt."""
    row, spec = ended.row, ended.spec
    stored: list[StoredLog] = []
    outputs: list[tuple[str, str, int]] | None = None
    # what was refused or never began left nothing at the site
    if row.submit_began_at is not None and row.outcome not in (Outcome.REFUSED, Outcome.RECALLED):
        for found in await asyncio.gather(*(_store_log(work, held(row), stream) for stream in STREAMS)):
            stored += found
        if spec.files_out:
            outputs = await _take_out(work, held(row), spec)
    return _Home(ended.finished, stored, outputs, ended.owner)


async def _store_log(work: SiteWork, attempt: Held, stream: str) -> list[StoredLog]:
    if not isinstance(work.driver, Logs):
        return []
    half = work.log_limit // 2
    try:
        first = await work.driver.read_log(attempt, stream, 0, min(half, _CHUNK))
        if first.size == 0:
            return []
        head = first.data + await _read(work.driver, attempt, stream, len(first.data), min(half, first.size))
        start = max(len(head), first.size - half)
        tail = await _read(work.driver, attempt, stream, start, first.size)
    except KeyError:
        return []  # the site never had it, or has forgotten it: there is no output to be had
    await asyncio.to_thread(work.tools.logs.write, attempt.attempt_id, stream, head, tail)
    return [StoredLog(attempt.attempt_id, stream, max(first.size, len(head) + len(tail)), len(head), len(tail))]


async def _read(driver: Logs, attempt: Held, stream: str, start: int, end: int) -> bytes:
    parts = []
    while start < end:
        chunk = await driver.read_log(attempt, stream, start, min(_CHUNK, end - start))
        if not chunk.data:
            break
        parts.append(chunk.data)
        start += len(chunk.data)
    return b"".join(parts)


async def _take_out(work: SiteWork, attempt: Held, spec: JobSpec) -> list[tuple[str, str, int]]:
    if not isinstance(work.driver, Stage):
        return []
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=work.tools.files.folder))
    try:
        kept: list[tuple[str, str, int]] = []
        room = work.output_limit
        for path in await work.driver.take_out(attempt, spec.files_out, folder):
            size = (folder / path).stat().st_size
            if size > room:
                log.warning(
                    "site %s: %s of %s is not kept: it is beyond the limit", work.site, path, attempt.attempt_id
                )
                continue
            room -= size
            kept.append((path, *await asyncio.to_thread(work.tools.files.take, folder / path)))
        return kept
    except KeyError:
        return []
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _write(connection: Connection, homes: Sequence[_Home], tools: Tools) -> None:
    now = tools.now()
    logs.put(connection, [stored for home in homes for stored in home.logs])
    for home in homes:
        if home.note:
            attempts.add_note(connection, home.finished.attempt_id, home.note)
        if home.outputs is not None:
            for _, sha256, size in home.outputs:
                files.put(connection, sha256, size, home.owner, now)
            files.set_outputs(connection, home.finished.job_id, home.outputs)
    attempts.finish(connection, [home.finished for home in homes], now, tools.policy.most_evictions)


async def forget(work: SiteWork, lease: Lease) -> float | None:
    """Let the site forget what is safe in the store; a step of its own."""
    tools = work.tools
    rows = await tools.database.read(lambda connection: attempts.to_forget(connection, work.site, 500))
    if not rows:
        return None
    tools.check(lease)
    await work.driver.forget([held(row) for row in rows])
    await tools.guarded(lease, lambda connection: attempts.forgotten(connection, [row.id for row in rows]))
    return 0 if len(rows) == 500 else None
