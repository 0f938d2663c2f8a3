"""The client for programs that wait for each answer."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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


class Client(Wire):
    """A platform, to be asked and told. Finds it as the command line does where `url` and `data` are not given.

    All methods raise `AtollError`. What fails on the way is tried again for `patience` seconds, and never done twice.
    """

    _http: httpx2.Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def submit(
        self,
        spec: JobSpec | Mapping[str, Any] | None = None,
        *,
        hold: bool = False,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> models.Submitted:
        """Submit a job, as a specification or by its fields: `submit(command=["true"], cpu=2)`."""
        checked = calls.specification(spec, fields)
        return self._send(calls.submit(checked, hold=hold, idempotency_key=idempotency_key))

    def submit_many(
        self,
        specs: Sequence[JobSpec | Mapping[str, Any]],
        *,
        hold: bool = False,
        idempotency_key: str | None = None,
    ) -> list[int]:
        """Submit up to 10,000 jobs together, all or none. Returns their ids in the order given."""
        checked = [calls.specification(spec, {}) for spec in specs]
        return list(self._send(calls.submit_many(checked, hold=hold, idempotency_key=idempotency_key)).ids)

    def jobs(self, which: JobFilter | None = None, *, limit: int | None = None) -> Iterator[models.JobSummary]:
        """Jobs, newest first, page by page; at most `limit` of them."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            page = self._send(calls.jobs(which or JobFilter(), min(left or 1000, 1000), cursor))
            yield from page.items[:left]
            cursor = page.next_cursor
            if cursor is None:
                return
            left = left - len(page.items) if left is not None else None

    def job(self, job: Reference) -> models.Job:
        """All about one job or task."""
        return self._send(calls.job(job))

    def why(self, job: Reference, *, remedies: bool = False) -> models.Why:
        """Why it waits or ended; with `remedies` also what would help, which takes a moment to find out."""
        return self._send(calls.why(job, remedies))

    def explain(self, spec: JobSpec | Mapping[str, Any] | None = None, **fields: Any) -> models.Explained:
        """Whether a job could run, where, and when it would start; nothing is submitted."""
        return self._send(calls.explain(calls.specification(spec, fields)))

    def logs(
        self,
        job: Reference,
        stream: str = "stdout",
        *,
        attempt: int | None = None,
        offset: int = 0,
        limit: int | None = None,
    ) -> models.LogPart:
        """Bytes of `stdout` or `stderr` from `offset`; a negative one counts from the end."""
        return self._send(calls.logs(job, stream, attempt, offset, limit))

    def follow(
        self, job: Reference, stream: str = "both", *, attempt: int | None = None, tail: int | None = None,
        position: str | None = None,
    ) -> Iterator[Event]:  # fmt: skip
        """The output as it is written: events `chunk`, `state`, and at last `end`. Survives restarts of the platform.

        `position` is the id of the last event that was taken in, to go on after it.
        """
        call = calls.follow(job, stream, attempt, tail)
        call.last_event_id = position
        return (event for event in self._stream(call) if event.name != "connecting")

    def events(self, jobs: Sequence[int] = (), *, position: str | None = None) -> Iterator[Event]:
        """Changes of jobs as they happen: events `job`."""
        call = calls.events(jobs)
        call.last_event_id = position
        return (event for event in self._stream(call) if event.name == "job")

    def wait(self, job: Reference) -> models.Job:
        """Wait until a job, a task or a whole array has ended. Survives restarts of the platform."""
        ref = calls.reference(job)
        waiter = Waiter(next(iter(ref.tasks)) if ref.tasks is not None else None)
        attempts = self._attempts()
        for event in self._stream(calls.events([ref.job]), attempts):
            if not waiter.due(event):
                continue
            found = self._send(calls.job(ref), watching=True)
            if found.ended:
                return found
            attempts.limit = self.endurance
            attempts.alive()
            waiter.asked(found.tasks.open if found.tasks else 1)
        raise Internal("stream_ended", "The stream of events ended by itself.")

    def cancel(self, job: Reference) -> models.Changed:
        """Cancel a job, some of its tasks, or all of them."""
        return self._send(calls.act(job, "cancel"))

    def hold(self, job: Reference) -> models.Changed:
        """Keep a waiting job from starting."""
        return self._send(calls.act(job, "hold"))

    def release(self, job: Reference) -> models.Changed:
        """Let a held job go on."""
        return self._send(calls.act(job, "release"))

    def requeue(self, job: Reference) -> models.Changed:
        """Run a job again, from the start."""
        return self._send(calls.act(job, "requeue"))

    def signal(self, job: Reference, signal: str) -> models.Changed:
        """Send a signal, as in `USR1`, to the processes of a running job."""
        return self._send(calls.send_signal(job, signal))

    def change(self, job: Reference, **fields: Any) -> models.Job:
        """Change what may still be changed: name, priority, walltime, begin, retries, labels, ..."""
        return self._send(calls.change(job, fields))

    def upload(self, file: LocalFile | Path, progress: Callable[[int], None] | None = None) -> str:
        """Store a file unless the platform has it. Returns the SHA-256 of its content."""
        if isinstance(file, LocalFile):
            source, sha256, size = file.source, file.sha256, file.size
        else:
            source, (sha256, size) = file, hash_file(file)
        if self._send(calls.has_file(sha256)):
            if progress is not None:
                progress(size)
            return sha256
        return self._send(calls.put_file(sha256, Upload(source, size, progress))).sha256

    def outputs(self, job: Reference) -> tuple[models.Output, ...]:
        """The files that a job brought out."""
        return self._send(calls.outputs(job)).items

    def fetch(
        self, job: Reference, output: models.Output, folder: Path, progress: Callable[[int], None] | None = None
    ) -> Path:
        """Bring an output into `folder`, under its own path, and check its content. Returns where it is."""
        target = safe_target(folder, output.path)
        attempts = self._attempts()
        while True:
            incoming = Incoming(target, output.sha256)
            try:
                if self._download(calls.output_path(job, output.path), incoming, attempts, progress):
                    return target
            finally:
                incoming.discard()

    def sites(self) -> tuple[models.Site, ...]:
        """All sites."""
        return self._send(calls.sites()).items

    def site(self, name: str) -> models.Site:
        """One site."""
        return self._send(calls.site(name))

    def site_file(self, name: str) -> SiteFile:
        """A site as it is configured; for administrators."""
        return self._send(calls.site_file(name))

    def put_site(self, file: SiteFile) -> tuple[models.Site, bool]:
        """Add the site that `file` says, or change how it is configured; whether it is new. For administrators."""
        return self._send(calls.put_site(file))

    def drain_site(self, name: str, *, drained: bool = True) -> models.Site:
        """Let a site get no new work, or (drained=False) work again. For administrators."""
        return self._send(calls.change_site(name, drained))

    def remove_site(self, name: str) -> None:
        """Remove a site at which no job is any more. For administrators."""
        self._send(calls.remove_site(name))

    def describe_site(self, name: str) -> models.Described:
        """Ask a site what it has, now. For administrators."""
        return self._send(calls.describe_site(name))

    def projects(self) -> models.Projects:
        """The project tree, from the root down, with its quotas and what is used of them."""
        return self._send(calls.projects())

    def project(self, name: str) -> models.Project:
        """One project."""
        return self._send(calls.project(name))

    def tree(self) -> models.Tree:
        """The project tree as a project file has it. For administrators."""
        return self._send(calls.tree())

    def put_projects(
        self, projects: Mapping[str, Any], *, revision: int | None = None, dry_run: bool = False
    ) -> models.Plan:
        """Make the content of a project file the tree, or (dry_run) tell what that would change. For administrators.

        Raises Conflict where the tree is no longer that of `revision`.
        """
        return self._send(calls.put_projects(projects, revision, dry_run))

    def change_people(self, project: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> models.Project:
        """Let people submit to a project, or no longer. For its managers, and administrators."""
        return self._send(calls.change_people(project, list(add), list(remove)))

    def flavors(self) -> tuple[models.Flavor, ...]:
        """The kinds of hardware over all sites."""
        return self._send(calls.flavors()).items

    def flavor(self, name: str) -> models.Flavor:
        """One kind of hardware."""
        return self._send(calls.flavor(name))

    def reservations(self) -> tuple[models.Reservation, ...]:
        """The reservations that are not over, by begin."""
        return self._send(calls.reservations()).items

    def add_reservation(self, **fields: Any) -> models.Reservation:
        """Keep room: name, flavor, site, nodes or cpu, memory, gpu, project or people, starts_at, ends_at, purpose.

        For administrators.
        """
        return self._send(calls.add_reservation(fields))

    def remove_reservation(self, number: int) -> None:
        """Keep that room no longer. For administrators."""
        self._send(calls.remove_reservation(number))

    def queue(self) -> models.Queue:
        """How many jobs wait and run, by class and project, and who borrows from whom."""
        return self._send(calls.queue())

    def tokens(self) -> tuple[models.Token, ...]:
        """The tokens of this person."""
        return self._send(calls.tokens()).items

    def create_token(self, name: str, *, expires_in: int | None = None, person: str | None = None) -> models.Token:
        """Make a token, shown only in this answer; `expires_in` seconds. Another `person`: administrators only."""
        return self._send(calls.create_token(name, expires_in, person))

    def revoke_token(self, token_id: str | int) -> None:
        """Make a token useless."""
        self._send(calls.revoke_token(str(token_id)))

    def me(self) -> models.Me:
        """Who is asking."""
        return self._send(calls.me())

    def people(self) -> tuple[models.Person, ...]:
        """All accounts. For administrators."""
        return self._send(calls.people()).items

    def add_person(self, person: str, *, role: str = "member") -> models.Link:
        """Add somebody; the answer has a link to log in by. For administrators."""
        return self._send(calls.add_person(person, role))

    def make_link(self, person: str) -> models.Link:
        """A new link for somebody who has no password, or forgot it. For administrators."""
        return self._send(calls.make_link(person))

    def change_person(self, person: str, *, role: str | None = None, disabled: bool | None = None) -> models.Person:
        """Give a role, disable or enable; None leaves it. For administrators."""
        return self._send(calls.change_person(person, role, disabled))

    def begin_device_login(self, machine: str) -> models.DeviceCode:
        """Ask for a code by which somebody lets in a command line on `machine`; needs no token."""
        return self._send(calls.begin_device_login(machine))

    def ask_device_login(self, device_code: str) -> models.Token:
        """The token, once somebody has let the command line in; needs none. Raises Conflict before, Exhausted."""
        return self._send(calls.ask_device_login(device_code))

    def version(self) -> models.Version:
        """The platform's version."""
        return self._send(calls.version())

    def _connection(self) -> httpx2.Client:
        if self._http is None:
            self._http = httpx2.Client(**self._client_settings())
        return self._http

    def _send(self, call: Call[T], *, watching: bool = False) -> T:
        attempts = self._attempts(watching=watching)
        while True:
            try:
                reply = reply_of(self._connection().request(**self._request(call), **_content(call.upload)))
            except (httpx2.RequestError, httpx2.InvalidURL) as error:
                delay = self._after_failure(call, error, attempts)
            else:
                pause = self._after_answer(reply, attempts)
                if pause is None:
                    return call.result(reply)
                delay = pause
            time.sleep(delay)

    def _stream(self, call: StreamCall, attempts: Attempts | None = None) -> Iterator[Event]:
        """Events, over as many connections as it takes; `connecting` comes before each of them."""
        attempts = attempts or self._attempts(watching=True)
        while True:
            yield Event("connecting")
            try:
                with self._connection().stream(**self._stream_request(call)) as response:
                    if is_event_stream(response):
                        self._answered = True
                        attempts.limit = self.endurance
                        parser = EventParser()
                        for data in response.iter_bytes():
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
                        response.read()
                        pause = self._after_answer(reply_of(response), attempts)
                        if pause is None:
                            raise stream_refusal(reply_of(response))
                        delay = pause
            except (httpx2.RequestError, ValueError) as error:
                delay = self._after_failure(None, error, attempts)
            except Unavailable as error:
                delay = attempts.delay(error.sentence, error)
            time.sleep(delay)

    def _download(
        self, path: str, incoming: Incoming, attempts: Attempts, progress: Callable[[int], None] | None
    ) -> bool:
        """One try to fetch an output: whether it is there and right. Raises AtollError when it is enough."""
        headers = self._headers({"Accept": "*/*"})
        came = 0
        try:
            url = self.platform.url + path
            with self._connection().stream("GET", url, headers=headers, timeout=self._timeout) as response:
                if response.status_code != 200:
                    response.read()
                    delay = self._after_answer(reply_of(response), attempts)
                    if delay is None:
                        raise calls.error_of(reply_of(response))
                    time.sleep(delay)
                    return False
                for data in response.iter_bytes(CHUNK):
                    incoming.write(data)
                    came += len(data)
                    if progress is not None:
                        progress(len(data))
        except httpx2.RequestError as error:
            if progress is not None:
                progress(-came)
            time.sleep(self._after_failure(None, error, attempts))
            return False
        if not incoming.finish():
            raise Internal("wrong_content", f"The content of {incoming.target.name} is not what was announced.")
        return True


def _content(upload: Upload | None) -> dict[str, Any]:
    return {"content": _chunks(upload)} if upload is not None else {}


def _chunks(upload: Upload) -> Iterator[bytes]:
    sent = 0
    with upload.path.open("rb") as file:
        try:
            while chunk := file.read(CHUNK):
                yield chunk
                sent += len(chunk)
                if upload.progress is not None:
                    upload.progress(len(chunk))
        except GeneratorExit:
            if upload.progress is not None:
                upload.progress(-sent)  # broken off; the next try begins anew
            raise
