"""The client for asyncio; the same methods as `Client`, to be awaited."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from atoll.client import calls, models
from atoll.client.calls import Call, JobFilter, Reference, StreamCall, Upload
from atoll.client.events import Event, EventParser, Waiter
from atoll.client.files import CHUNK, Incoming, LocalFile, hash_file, safe_target
from atoll.client.retry import Attempts
from atoll.client.wire import Wire, is_event_stream, reply_of, stream_refusal
from atoll.core.errors import Internal, Unavailable
from atoll.core.site_file import SiteFile
from atoll.core.spec import JobSpec

T = TypeVar("T")


class AsyncClient(Wire):
    """A platform, to be asked and told. Finds it as the command line does where `url` and `data` are not given.

    All methods raise `AtollError`. What fails on the way is tried again for `patience` seconds, and never done twice.
    """

    _http: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def submit(
        self,
        spec: JobSpec | Mapping[str, Any] | None = None,
        *,
        hold: bool = False,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> models.Submitted:
        """Submit a job, as a specification or by its fields: `submit(command=["true"], cpu=2)`."""
        checked = calls.specification(spec, fields)
        return await self._send(calls.submit(checked, hold=hold, idempotency_key=idempotency_key))

    async def submit_many(
        self,
        specs: Sequence[JobSpec | Mapping[str, Any]],
        *,
        hold: bool = False,
        idempotency_key: str | None = None,
    ) -> list[int]:
        """Submit up to 10,000 jobs together, all or none. Returns their ids in the order given."""
        checked = [calls.specification(spec, {}) for spec in specs]
        return list((await self._send(calls.submit_many(checked, hold=hold, idempotency_key=idempotency_key))).ids)

    async def jobs(
        self, which: JobFilter | None = None, *, limit: int | None = None
    ) -> AsyncIterator[models.JobSummary]:
        """Jobs, newest first, page by page; at most `limit` of them."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            page = await self._send(calls.jobs(which or JobFilter(), min(left or 1000, 1000), cursor))
            for item in page.items[:left]:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return
            left = left - len(page.items) if left is not None else None

    async def job(self, job: Reference) -> models.Job:
        """All about one job or task."""
        return await self._send(calls.job(job))

    async def why(self, job: Reference, *, remedies: bool = False) -> models.Why:
        """Why it waits or ended; with `remedies` also what would help, which takes a moment to find out."""
        return await self._send(calls.why(job, remedies))

    async def explain(self, spec: JobSpec | Mapping[str, Any] | None = None, **fields: Any) -> models.Explained:
        """Whether a job could run, where, and when it would start; nothing is submitted."""
        return await self._send(calls.explain(calls.specification(spec, fields)))

    async def logs(
        self,
        job: Reference,
        stream: str = "stdout",
        *,
        attempt: int | None = None,
        offset: int = 0,
        limit: int | None = None,
    ) -> models.LogPart:
        """Bytes of `stdout` or `stderr` from `offset`; a negative one counts from the end."""
        return await self._send(calls.logs(job, stream, attempt, offset, limit))

    def follow(
        self, job: Reference, stream: str = "both", *, attempt: int | None = None, tail: int | None = None,
        position: str | None = None,
    ) -> AsyncIterator[Event]:  # fmt: skip
        """The output as it is written: events `chunk`, `state`, and at last `end`. Survives restarts of the platform.

        `position` is the id of the last event that was taken in, to go on after it.
        """
        call = calls.follow(job, stream, attempt, tail)
        call.last_event_id = position
        return (event async for event in self._stream(call) if event.name != "connecting")

    def events(self, jobs: Sequence[int] = (), *, position: str | None = None) -> AsyncIterator[Event]:
        """Changes of jobs as they happen: events `job`."""
        call = calls.events(jobs)
        call.last_event_id = position
        return (event async for event in self._stream(call) if event.name == "job")

    async def wait(self, job: Reference) -> models.Job:
        """Wait until a job, a task or a whole array has ended. Survives restarts of the platform."""
        ref = calls.reference(job)
        waiter = Waiter(next(iter(ref.tasks)) if ref.tasks is not None else None)
        attempts = self._attempts()
        async for event in self._stream(calls.events([ref.job]), attempts):
            if not waiter.due(event):
                continue
            found = await self._send(calls.job(ref), watching=True)
            if found.ended:
                return found
            attempts.limit = self.endurance
            attempts.alive()
            waiter.asked(found.tasks.open if found.tasks else 1)
        raise Internal("stream_ended", "The stream of events ended by itself.")

    async def cancel(self, job: Reference) -> models.Changed:
        """Cancel a job, some of its tasks, or all of them."""
        return await self._send(calls.act(job, "cancel"))

    async def hold(self, job: Reference) -> models.Changed:
        """Keep a waiting job from starting."""
        return await self._send(calls.act(job, "hold"))

    async def release(self, job: Reference) -> models.Changed:
        """Let a held job go on."""
        return await self._send(calls.act(job, "release"))

    async def requeue(self, job: Reference) -> models.Changed:
        """Run a job again, from the start."""
        return await self._send(calls.act(job, "requeue"))

    async def signal(self, job: Reference, signal: str) -> models.Changed:
        """Send a signal, as in `USR1`, to the processes of a running job."""
        return await self._send(calls.send_signal(job, signal))

    async def change(self, job: Reference, **fields: Any) -> models.Job:
        """Change what may still be changed: name, priority, walltime, begin, retries, labels, ..."""
        return await self._send(calls.change(job, fields))

    async def upload(self, file: LocalFile | Path, progress: Callable[[int], None] | None = None) -> str:
        """Store a file unless the platform has it. Returns the SHA-256 of its content."""
        if isinstance(file, LocalFile):
            source, sha256, size = file.source, file.sha256, file.size
        else:
            source, (sha256, size) = file, await asyncio.to_thread(hash_file, file)
        if await self._send(calls.has_file(sha256)):
            if progress is not None:
                progress(size)
            return sha256
        return (await self._send(calls.put_file(sha256, Upload(source, size, progress)))).sha256

    async def outputs(self, job: Reference) -> tuple[models.Output, ...]:
        """The files that a job brought out."""
        return (await self._send(calls.outputs(job))).items

    async def fetch(
        self, job: Reference, output: models.Output, folder: Path, progress: Callable[[int], None] | None = None
    ) -> Path:
        """Bring an output into `folder`, under its own path, and check its content. Returns where it is."""
        target = safe_target(folder, output.path)
        attempts = self._attempts()
        while True:
            incoming = Incoming(target, output.sha256)
            try:
                if await self._download(calls.output_path(job, output.path), incoming, attempts, progress):
                    return target
            finally:
                incoming.discard()

    async def sites(self) -> tuple[models.Site, ...]:
        """All sites."""
        return (await self._send(calls.sites())).items

    async def site(self, name: str) -> models.Site:
        """One site."""
        return await self._send(calls.site(name))

    async def site_file(self, name: str) -> SiteFile:
        """A site as it is configured; for administrators."""
        return await self._send(calls.site_file(name))

    async def put_site(self, file: SiteFile) -> tuple[models.Site, bool]:
        """Add the site that `file` says, or change how it is configured; whether it is new. For administrators."""
        return await self._send(calls.put_site(file))

    async def drain_site(self, name: str, *, drained: bool = True) -> models.Site:
        """Let a site get no new work, or (drained=False) work again. For administrators."""
        return await self._send(calls.change_site(name, drained))

    async def remove_site(self, name: str) -> None:
        """Remove a site at which no job is any more. For administrators."""
        await self._send(calls.remove_site(name))

    async def describe_site(self, name: str) -> models.Described:
        """Ask a site what it has, now. For administrators."""
        return await self._send(calls.describe_site(name))

    async def projects(self) -> models.Projects:
        """The project tree, from the root down, with its quotas and what is used of them."""
        return await self._send(calls.projects())

    async def project(self, name: str) -> models.Project:
        """One project."""
        return await self._send(calls.project(name))

    async def tree(self) -> models.Tree:
        """The project tree as a project file has it. For administrators."""
        return await self._send(calls.tree())

    async def put_projects(
        self, projects: Mapping[str, Any], *, revision: int | None = None, dry_run: bool = False
    ) -> models.Plan:
        """Make the content of a project file the tree, or (dry_run) tell what that would change. For administrators.

        Raises Conflict where the tree is no longer that of `revision`.
        """
        return await self._send(calls.put_projects(projects, revision, dry_run))

    async def change_people(
        self, project: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> models.Project:
        """Let people submit to a project, or no longer. For its managers, and administrators."""
        return await self._send(calls.change_people(project, list(add), list(remove)))

    async def flavors(self) -> tuple[models.Flavor, ...]:
        """The kinds of hardware over all sites."""
        return (await self._send(calls.flavors())).items

    async def flavor(self, name: str) -> models.Flavor:
        """One kind of hardware."""
        return await self._send(calls.flavor(name))

    async def reservations(self) -> tuple[models.Reservation, ...]:
        """The reservations that are not over, by begin."""
        return (await self._send(calls.reservations())).items

    async def add_reservation(self, **fields: Any) -> models.Reservation:
        """Keep room: name, flavor, site, nodes or cpu, memory, gpu, project or people, starts_at, ends_at, purpose.

        For administrators.
        """
        return await self._send(calls.add_reservation(fields))

    async def remove_reservation(self, number: int) -> None:
        """Keep that room no longer. For administrators."""
        await self._send(calls.remove_reservation(number))

    async def queue(self) -> models.Queue:
        """How many jobs wait and run, by class and project, and who borrows from whom."""
        return await self._send(calls.queue())

    async def tokens(self) -> tuple[models.Token, ...]:
        """The tokens of this person."""
        return (await self._send(calls.tokens())).items

    async def create_token(
        self, name: str, *, expires_in: int | None = None, person: str | None = None
    ) -> models.Token:
        """Make a token, shown only in this answer; `expires_in` seconds. Another `person`: administrators only."""
        return await self._send(calls.create_token(name, expires_in, person))

    async def revoke_token(self, token_id: str | int) -> None:
        """Make a token useless."""
        await self._send(calls.revoke_token(str(token_id)))

    async def me(self) -> models.Me:
        """Who is asking."""
        return await self._send(calls.me())

    async def people(self) -> tuple[models.Person, ...]:
        """All accounts. For administrators."""
        return (await self._send(calls.people())).items

    async def add_person(self, person: str, *, role: str = "member") -> models.Link:
        """Add somebody; the answer has a link to log in by. For administrators."""
        return await self._send(calls.add_person(person, role))

    async def make_link(self, person: str) -> models.Link:
        """A new link for somebody who has no password, or forgot it. For administrators."""
        return await self._send(calls.make_link(person))

    async def change_person(
        self, person: str, *, role: str | None = None, disabled: bool | None = None
    ) -> models.Person:
        """Give a role, disable or enable; None leaves it. For administrators."""
        return await self._send(calls.change_person(person, role, disabled))

    async def begin_device_login(self, machine: str) -> models.DeviceCode:
        """Ask for a code by which somebody lets in a command line on `machine`; needs no token."""
        return await self._send(calls.begin_device_login(machine))

    async def ask_device_login(self, device_code: str) -> models.Token:
        """The token, once somebody has let the command line in; needs none. Raises Conflict before, Exhausted."""
        return await self._send(calls.ask_device_login(device_code))

    async def version(self) -> models.Version:
        """The platform's version."""
        return await self._send(calls.version())

    def _connection(self) -> httpx2.AsyncClient:
        if self._http is None:
            self._http = httpx2.AsyncClient(**self._client_settings())
        return self._http

    async def _send(self, call: Call[T], *, watching: bool = False) -> T:
        attempts = self._attempts(watching=watching)
        while True:
            try:
                reply = reply_of(await self._connection().request(**self._request(call), **_content(call.upload)))
            except (httpx2.RequestError, httpx2.InvalidURL) as error:
                delay = self._after_failure(call, error, attempts)
            else:
                pause = self._after_answer(reply, attempts)
                if pause is None:
                    return call.result(reply)
                delay = pause
            await asyncio.sleep(delay)

    async def _stream(self, call: StreamCall, attempts: Attempts | None = None) -> AsyncIterator[Event]:
        """Events, over as many connections as it takes; `connecting` comes before each of them."""
        attempts = attempts or self._attempts(watching=True)
        while True:
            yield Event("connecting")
            try:
                async with self._connection().stream(**self._stream_request(call)) as response:
                    if is_event_stream(response):
                        self._answered = True
                        attempts.limit = self.endurance
                        parser = EventParser()
                        async for data in response.aiter_bytes():
                            for event in parser.feed(data):
                                if event.name == "problem":
                                    raise calls.error_of_event(event.data)
                                attempts.came(event.name)
                                yield event
                                call.last_event_id = event.id or call.last_event_id
                                if event.name == call.final:
                                    return
                        delay = attempts.delay("the stream ended early")
                    else:
                        await response.aread()
                        pause = self._after_answer(reply_of(response), attempts)
                        if pause is None:
                            raise stream_refusal(reply_of(response))
                        delay = pause
            except (httpx2.RequestError, ValueError) as error:
                delay = self._after_failure(None, error, attempts)
            except Unavailable as error:
                delay = attempts.delay(error.sentence, error)
            await asyncio.sleep(delay)

    async def _download(
        self, path: str, incoming: Incoming, attempts: Attempts, progress: Callable[[int], None] | None
    ) -> bool:
        """One try to fetch an output: whether it is there and right. Raises AtollError when it is enough."""
        headers = self._headers({"Accept": "*/*"})
        came = 0
        try:
            url = self.platform.url + path
            async with self._connection().stream("GET", url, headers=headers, timeout=self._timeout) as response:
                if response.status_code != 200:
                    await response.aread()
                    delay = self._after_answer(reply_of(response), attempts)
                    if delay is None:
                        raise calls.error_of(reply_of(response))
                    await asyncio.sleep(delay)
                    return False
                async for data in response.aiter_bytes(CHUNK):
                    incoming.write(data)
                    came += len(data)
                    if progress is not None:
                        progress(len(data))
        except httpx2.RequestError as error:
            if progress is not None:
                progress(-came)
            await asyncio.sleep(self._after_failure(None, error, attempts))
            return False
        if not incoming.finish():
            raise Internal("wrong_content", f"The content of {incoming.target.name} is not what was announced.")
        return True


def _content(upload: Upload | None) -> dict[str, Any]:
    return {"content": _chunks(upload)} if upload is not None else {}


async def _chunks(upload: Upload) -> AsyncIterator[bytes]:
    sent = 0
    with upload.path.open("rb") as file:
        try:
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                yield chunk
                sent += len(chunk)
                if upload.progress is not None:
                    upload.progress(len(chunk))
        except GeneratorExit:
            if upload.progress is not None:
                upload.progress(-sent)  # broken off; the next try begins anew
            raise
