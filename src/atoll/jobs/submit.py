"""Submissions: whatever comes while a transaction runs goes into the next one, together.

One fsync then serves hundreds of requests. What is wrong with one submission fails that one alone: everything is
checked by reading before anything is written.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from atoll.core.clock import to_micros
from atoll.core.errors import AtollError, Invalid, Unavailable
from atoll.core.reasons import ReasonCode
from atoll.core.states import ENDED, JobState
from atoll.faces.http.platform import Platform
from atoll.jobs.prepare import Prepared
from atoll.store import files, idempotency, jobs, projects
from atoll.store.arrays import is_array, ranges_of
from atoll.store.idempotency import Claim
from atoll.store.jobs import JobRow, NewDependency, NewJob, chunked
from atoll.store.people import Principal
from atoll.store.tables import jobs as table

MOST_TOGETHER = 1000
"""Most single submissions that one transaction takes."""


@dataclass(slots=True)
class Submission:
    """One request: jobs that are accepted together or not at all."""

    who: Principal
    prepared: Sequence[Prepared]
    bulk: bool = False
    warnings: Sequence[str] = ()
    key: str | None = None
    """Idempotency key, and the digest of the request that came with it."""
    digest: bytes = b""


@dataclass(slots=True)
class Accepted:
    """The answer to a submission, as JSON; `replayed` where it was given before."""

    answer: str
    replayed: bool = False


class TreeChanged(Unavailable):
    """The project tree is no longer the one that a submission was held against; it should be prepared again."""

    def __init__(self) -> None:
        super().__init__("tree_changes", "The project tree changes all the time; try again in a moment.", retry_after=1)


@dataclass(slots=True)
class _Entry:
    """A submission on its way through a transaction."""

    submission: Submission
    edges: list[list[NewDependency]] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    new: list[NewJob] = field(default_factory=list)
    result: Accepted | AtollError | None = None

    @property
    def inputs(self) -> list[tuple[int, str]]:
        """What its jobs take in: (job id, SHA-256)."""
        pairs = zip(self.ids, self.submission.prepared, strict=True)
        return [(job_id, sha256) for job_id, prepared in pairs for _, sha256 in prepared.files]

    @property
    def answer(self) -> str:
        """What is answered once the rows are made."""
        if self.submission.bulk:
            return json.dumps({"ids": self.ids}, separators=(",", ":"))
        columns = self.new[0].columns
        document = {
            "id": self.ids[0], "name": columns["name"], "state": columns["state"], "tasks": columns["task_count"],
            "warnings": list(self.submission.warnings),
        }  # fmt: skip
        return json.dumps(document, separators=(",", ":"))


def create(connection: Connection, submissions: Sequence[Submission], now: int) -> list[Accepted | AtollError]:
    """Insert what can be inserted, in the one transaction that this is called in; an answer for each."""
    entries = [_Entry(submission) for submission in submissions]
    _replay(connection, entries)
    _check_tree(connection, entries)
    _check_files(connection, entries, now)
    _check_dependencies(connection, entries)
    _make_rows(connection, entries, now)
    _claim_keys(connection, entries, now)
    new: list[NewJob] = []
    ids: list[int] = []
    taken_in: list[tuple[int, str]] = []
    answers: list[Accepted | AtollError] = []
    for entry in entries:
        if entry.result is None:
            new += entry.new
            ids += entry.ids
            taken_in += entry.inputs
            entry.result = Accepted(entry.answer)
        answers.append(entry.result)
    if new:
        jobs.insert_many(connection, new, ids)
        files.set_inputs(connection, taken_in)
    return answers


def _make_rows(connection: Connection, entries: Sequence[_Entry], now: int) -> None:
    fresh = [entry for entry in entries if entry.result is None]
    count = sum(len(entry.submission.prepared) for entry in fresh)
    ids = iter(jobs.allocate_ids(connection, count) if count else ())
    for entry in fresh:
        entry.ids = [next(ids) for _ in entry.submission.prepared]
        entry.new = [_row(entry, place, prepared, now) for place, prepared in enumerate(entry.submission.prepared)]


def _row(entry: _Entry, place: int, prepared: Prepared, now: int) -> NewJob:
    """The row of one job; held where it waits for others."""
    prepared.columns["submitted_at"] = now
    if not prepared.awaited and not prepared.siblings:
        return NewJob(prepared.columns)
    columns = dict(prepared.columns)  # what was prepared stays: a transaction may run again
    edges = entry.edges[place] if entry.edges else []
    edges = edges + [NewDependency(entry.ids[at], None, kind) for at, kind in prepared.siblings]
    blockers = sum(edge.open for edge in edges)
    if blockers:
        columns |= {"blockers": blockers, "state": JobState.HELD.value}
        if not columns["hold"]:
            columns["reason"] = ReasonCode.DEPENDENCY.value
    return NewJob(columns, edges)


# ---- idempotency


def _replay(connection: Connection, entries: Sequence[_Entry]) -> None:
    """Answer what was answered before."""
    keys: dict[str, list[str]] = {}
    for entry in entries:
        if entry.submission.key is not None:
            keys.setdefault(entry.submission.who.person, []).append(entry.submission.key)
    for person, wanted in keys.items():
        known: dict[str, Any] = {}
        for piece in chunked(wanted):
            known |= idempotency.find(connection, person, list(piece))
        for entry in entries:
            submission = entry.submission
            if submission.who.person == person and submission.key in known:
                row = known[submission.key]
                entry.result = _same(row.key, submission.digest, bytes(row.request), row.answer)


def _same(key: str, digest: bytes, known: bytes, answer: str) -> Accepted | AtollError:
    """The `answer` to the request `known`, where that is the one with this `digest`."""
    if digest == known:
        return Accepted(answer, replayed=True)
    return idempotency.reused(key)


def _claim_keys(connection: Connection, entries: Sequence[_Entry], now: int) -> None:
    """Keep the keys of what is accepted with their answers; of several with one key only the first is made."""
    same: dict[tuple[str, str], list[_Entry]] = {}
    for entry in entries:
        if entry.result is None and entry.submission.key is not None:
            same.setdefault((entry.submission.who.person, entry.submission.key), []).append(entry)
    if not same:
        return
    claims = [Claim(person, key, group[0].submission.digest, group[0].answer) for (person, key), group in same.items()]
    taken = idempotency.claim(connection, claims, now)
    for pair, group in same.items():
        # where another replica was quicker, its answer is everybody's
        _replay(connection, group[1:] if pair in taken else group)


# ---- the project tree


def _check_tree(connection: Connection, entries: Sequence[_Entry]) -> None:
    """Fail what was held against another project tree than the one that there is now."""
    revision = projects.revision(connection)
    for entry in entries:
        if entry.result is None and any(prepared.revision != revision for prepared in entry.submission.prepared):
            entry.result = TreeChanged()


# ---- files


def _check_files(connection: Connection, entries: Sequence[_Entry], now: int) -> None:
    """Fail what names a file that its person has not sent."""
    for entry in entries:
        if entry.result is not None or not any(prepared.files for prepared in entry.submission.prepared):
            continue
        person = entry.submission.who.person
        wanted = sorted({sha256 for prepared in entry.submission.prepared for _, sha256 in prepared.files})
        owned: set[str] = set()
        for piece in chunked(wanted):
            owned |= files.owned(connection, piece, person)
        for place, sha256 in (pair for prepared in entry.submission.prepared for pair in prepared.files):
            if sha256 not in owned:
                entry.result = Invalid(
                    "file_not_sent",
                    f"{place}: you have not sent a file with this hash; send it first: PUT /api/v1/files/{sha256}.",
                    field=place,
                )
                break
        else:
            for piece in chunked(wanted):
                files.touch(connection, piece, now)


# ---- dependencies


def _check_dependencies(connection: Connection, entries: Sequence[_Entry]) -> None:
    """Judge what the new jobs wait for. The rows are locked: none of them ends before the new job is there."""
    waiting = [
        entry for entry in entries
        if entry.result is None and any(prepared.awaited for prepared in entry.submission.prepared)
    ]  # fmt: skip
    if not waiting:
        return
    ids = {ref.job for entry in waiting for prepared in entry.submission.prepared for _, ref, _ in prepared.awaited}
    upstream: dict[int, JobRow] = {}
    for piece in chunked(sorted(ids)):
        query = select(table).where(table.c.id.in_(piece)).order_by(table.c.id).with_for_update(read=True)
        upstream.update((row.id, row) for row in connection.execute(query))
    for entry in waiting:
        who = entry.submission.who
        try:
            entry.edges = [
                [edge for item in prepared.awaited for edge in _edges(connection, upstream, who, *item)]
                for prepared in entry.submission.prepared
            ]
        except Invalid as error:
            entry.result = error


def _edges(
    connection: Connection, upstream: dict[int, JobRow], who: Principal, place: str, ref: Any, kind: str
) -> list[NewDependency]:
    row = upstream.get(ref.job)
    if row is None or row.array_id is not None or not (who.administrator or row.owner == who.person):
        raise Invalid("no_such_job", f"{place}: there is no job {ref.job}.", field=place)
    if ref.tasks is None:
        return [_edge(place, str(row.id), row.id, None, kind, JobState(row.state))]
    states = _task_states(connection, row, ref, place)
    return [
        _edge(place, f"{row.id}[{task}]", row.id, task, kind, state) for task, state in sorted(states.items())
    ]  # fmt: skip


def _task_states(connection: Connection, array: JobRow, ref: Any, place: str) -> dict[int, JobState]:
    waiting, dropped = ranges_of(array.waiting), ranges_of(array.dropped)
    rows = {row.task: JobState(row.state) for row in jobs.get_tasks(connection, array.id, ref.tasks)}
    states: dict[int, JobState] = {}
    for task in ref.tasks:
        if task in rows:
            states[task] = rows[task]
        elif task in waiting:
            states[task] = JobState.QUEUED
        elif task in dropped:
            states[task] = JobState.CANCELLED
        else:
            what = f"job {array.id} has no task {task}" if is_array(array) else f"job {array.id} is no array"
            raise Invalid("no_such_task", f"{place}: {what}.", field=place)
    return states


def _edge(place: str, name: str, on_job: int, on_task: int | None, kind: str, state: JobState) -> NewDependency:
    if state not in ENDED:
        return NewDependency(on_job, on_task, kind)
    if not jobs.satisfied(kind, state):
        wanted = {"ok": "succeed", "not_ok": "not succeed"}.get(kind, "end")
        raise Invalid(
            "dependency_never",
            f"{place}: job {name} should {wanted}, but it has ended already: {state}. This job could never start.",
            field=place,
        )
    return NewDependency(on_job, on_task, kind, open=False)


# ---- gathering


class Submitter:
    """Takes submissions and commits together whatever came while the last transaction ran."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._waiting: list[tuple[Submission, asyncio.Future[Accepted]]] = []
        self._running: asyncio.Task[None] | None = None

    async def submit(self, submission: Submission) -> Accepted:
        """Make the jobs; returns once they are safe. Raises what is wrong with this submission, and Unavailable."""
        future: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        self._waiting.append((submission, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="submissions")
        return await future

    async def submit_alone(self, submission: Submission) -> Accepted:
        """As `submit`, for one so large that it has a transaction of its own."""
        [result] = await self._write([submission])
        self._platform.changed()
        if isinstance(result, AtollError):
            raise result
        return result

    async def answered(self, who: Principal, key: str, digest: bytes) -> Accepted | None:
        """What was answered to the same request before. Raises Conflict where the key was another request's."""
        found = await self._platform.database.read(lambda connection: idempotency.find(connection, who.person, [key]))
        if key not in found:
            return None
        result = _same(key, digest, bytes(found[key].request), found[key].answer)
        if isinstance(result, AtollError):
            raise result
        return result

    async def _write(self, submissions: Sequence[Submission]) -> list[Accepted | AtollError]:
        now = to_micros(self._platform.clock())
        return await self._platform.database.write(lambda connection: create(connection, submissions, now))

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
                await self._commit([item for item in batch if not item[1].cancelled()])
        finally:
            self._running = None

    async def _commit(self, batch: Sequence[tuple[Submission, asyncio.Future[Accepted]]]) -> None:
        results: Sequence[Accepted | Exception]
        try:
            results = await self._write([submission for submission, _ in batch])
        except Exception as error:  # whatever it is, each of those who wait must hear of it
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue  # whoever sent it went away
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
        self._platform.changed()
