"""Every request that the HTTP API takes, as a value with the way to read its answer; without I/O, for both clients."""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from atoll.client import models
from atoll.client.retry import Repeat
from atoll.core.errors import AtollError, Internal, Unavailable, from_problem
from atoll.core.ids import JobRef
from atoll.core.site_file import SiteFile
from atoll.core.spec import JobSpec, read_spec

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

Reference = int | str | JobRef | models.JobSummary | models.Submitted
"""What names a job: its id, `"12[3]"`, or what the platform answered about it."""


@dataclass(frozen=True)
class Reply:
    """An answer as it came: status, headers with lower-case names, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Upload:
    """A file that is sent as a body; `progress` is told the bytes as they go."""

    path: Path
    size: int
    progress: Callable[[int], None] | None = None


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and how its answer is read."""

    method: str
    path: str
    read: Callable[[Reply], T]
    query: Sequence[tuple[str, str]] = ()
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    upload: Upload | None = None
    repeat: Repeat = Repeat.SAFE
    accept: frozenset[int] = frozenset({200, 201, 204})
    public: bool = False
    """Whether it may be asked without a token."""

    def result(self, reply: Reply) -> T:
        """What the platform answered. Raises the AtollError that it told of."""
        if reply.status not in self.accept:
            raise error_of(reply)
        return self.read(reply)


def error_of(reply: Reply) -> AtollError:
    """The error that an answer tells of, whoever wrote it."""
    try:
        document = json.loads(reply.body)
    except ValueError:
        document = None
    if isinstance(document, dict) and ("detail" in document or "title" in document):
        try:
            return from_problem({"status": reply.status, **document})
        except (KeyError, TypeError):  # a problem, but not one of ours
            return from_problem({"status": reply.status, "detail": str(document.get("detail"))[:500]})
    if reply.status in (502, 503, 504):
        return Unavailable("unavailable", f"The platform is not available now (HTTP {reply.status}).")
    if 400 <= reply.status < 500 and reply.status != 404:
        return from_problem({"status": reply.status, "detail": f"The platform refused it (HTTP {reply.status})."})
    return not_atoll(f"HTTP {reply.status} without an explanation")


def error_of_event(data: str) -> AtollError:
    """The error that broke off a stream of events, as its event `problem` tells it."""
    return error_of(Reply(500, {}, data.encode()))


def not_atoll(what: str) -> AtollError:
    """What answered does not speak Atoll's language."""
    return Internal(
        "bad_answer", f"What answered does not seem to be Atoll ({what}); check the address in ATOLL_URL or --url."
    )


def reference(job: Reference) -> JobRef:
    """The job that is meant. Raises Invalid."""
    if isinstance(job, JobRef):
        return job
    return JobRef.parse(str(job.id if isinstance(job, models.JobSummary | models.Submitted) else job))


def specification(spec: JobSpec | Mapping[str, Any] | None, fields: Mapping[str, Any]) -> JobSpec:
    """The specification in either form, with `fields` put over it. Raises Invalid."""
    if isinstance(spec, JobSpec) and not fields:
        return spec
    base = spec.document() if isinstance(spec, JobSpec) else dict(spec or {})
    return read_spec({**base, **{"class" if name == "class_" else name: value for name, value in fields.items()}})


def _job_path(job: Reference, *rest: str) -> str:
    return "/".join(("/api/v1/jobs", quote(str(reference(job)), safe=""), *rest))


def _model(kind: type[M]) -> Callable[[Reply], M]:
    def read(reply: Reply) -> M:
        try:
            return kind.model_validate_json(reply.body)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the answer"
            raise not_atoll(f"{where}: {first['msg']}") from None

    return read


def _nothing(reply: Reply) -> None:
    return None


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _key(idempotency_key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}


def submit(spec: JobSpec, *, hold: bool, idempotency_key: str | None) -> Call[models.Submitted]:
    """Take in one job."""
    query = [("hold", "true")] if hold else []
    headers = _key(idempotency_key)
    return Call("POST", "/api/v1/jobs", _model(models.Submitted), query, spec.document(), headers)


def submit_many(specs: Sequence[JobSpec], *, hold: bool, idempotency_key: str | None) -> Call[models.SubmittedMany]:
    """Take in several jobs, all or none."""
    query = [("hold", "true")] if hold else []
    body = {"jobs": [spec.document() for spec in specs]}
    headers = _key(idempotency_key)
    return Call("POST", "/api/v1/jobs/bulk", _model(models.SubmittedMany), query, body, headers)


@dataclass(frozen=True)
class JobFilter:
    """Which jobs a list is to hold. Without state and since, those that have not ended, unless `ended` says so."""

    states: Sequence[str] = ()
    owner: str | None = None
    project: str | None = None
    name: str | None = None
    site: str | None = None
    since: datetime | None = None
    ended: bool = False
    array: int | None = None

    def query(self, limit: int, cursor: str | None) -> list[tuple[str, str]]:
        """The query of a request for at most `limit` of them."""
        pairs = [("state", str(state)) for state in self.states]
        texts = {"owner": self.owner, "project": self.project, "name": self.name, "site": self.site}
        pairs += [(name, value) for name, value in texts.items() if value is not None]
        if self.since is not None:
            pairs.append(("since", _rfc3339(self.since)))
        if self.ended:
            pairs.append(("all", "true"))
        if self.array is not None:
            pairs.append(("array", str(self.array)))
        if cursor is not None:
            pairs.append(("cursor", cursor))
        return [*pairs, ("limit", str(limit))]


def jobs(which: JobFilter, limit: int, cursor: str | None) -> Call[models.Page[models.JobSummary]]:
    """A page of jobs."""
    return Call("GET", "/api/v1/jobs", _model(models.Page[models.JobSummary]), which.query(limit, cursor))


def job(job: Reference) -> Call[models.Job]:
    """All about one job or task."""
    return Call("GET", _job_path(job), _model(models.Job))


def why(job: Reference, remedies: bool) -> Call[models.Why]:
    """Why it waits or ended, and what would help."""
    query = [("remedies", "true")] if remedies else []
    return Call("GET", _job_path(job, "why"), _model(models.Why), query)


def explain(spec: JobSpec) -> Call[models.Explained]:
    """What would become of a job."""
    return Call("POST", "/api/v1/jobs/explain", _model(models.Explained), body=spec.document())


def logs(job: Reference, stream: str, attempt: int | None, offset: int, limit: int | None) -> Call[models.LogPart]:
    """Bytes of an output stream."""
    query = [("stream", stream), ("offset", str(offset))]
    query += [("attempt", str(attempt))] if attempt is not None else []
    query += [("limit", str(limit))] if limit is not None else []
    return Call("GET", _job_path(job, "logs"), _log_part, query)


def _log_part(reply: Reply) -> models.LogPart:
    try:
        offset = int(reply.headers["atoll-log-offset"])
        size = int(reply.headers["atoll-log-size"])
    except (KeyError, ValueError):
        raise not_atoll("the headers of a log are missing") from None
    return models.LogPart(
        data=reply.body,
        offset=offset,
        size=size,
        complete=reply.headers.get("atoll-log-complete", "true") == "true",
        omitted=int(reply.headers.get("atoll-log-omitted") or 0),
    )


def act(job: Reference, action: str) -> Call[models.Changed]:
    """Cancel, hold, release or requeue a job, some of its tasks, or all of them."""
    repeat = Repeat.UNSENT if action == "requeue" else Repeat.SAFE
    return Call("POST", _job_path(job, action), _model(models.Changed), headers=_key(None), repeat=repeat)


def send_signal(job: Reference, signal: str) -> Call[models.Changed]:
    """Send a signal to the processes of a job."""
    body = {"signal": signal}
    return Call(
        "POST", _job_path(job, "signal"), _model(models.Changed), body=body, headers=_key(None), repeat=Repeat.UNSENT
    )


def change(job: Reference, fields: Mapping[str, Any]) -> Call[models.Job]:
    """Change what may still be changed."""
    return Call("PATCH", _job_path(job), _model(models.Job), body=dict(fields))


def outputs(job: Reference) -> Call[models.Page[models.Output]]:
    """The files that a job brought out."""
    return Call("GET", _job_path(job, "outputs"), _model(models.Page[models.Output]))


def output_path(job: Reference, path: str) -> str:
    """The address of one output's bytes."""
    return _job_path(job, "outputs", quote(path, safe="/"))


def has_file(sha256: str) -> Call[bool]:
    """Whether this person may use the stored file of that content."""
    return Call("HEAD", f"/api/v1/files/{sha256}", lambda reply: reply.status != 404, accept=frozenset({200, 204, 404}))


def put_file(sha256: str, upload: Upload) -> Call[models.StoredFile]:
    """Store a file under the hash of its content."""
    return Call("PUT", f"/api/v1/files/{sha256}", _model(models.StoredFile), upload=upload)


def sites() -> Call[models.Page[models.Site]]:
    """All sites."""
    return Call("GET", "/api/v1/sites", _model(models.Page[models.Site]))


def site(name: str) -> Call[models.Site]:
    """One site."""
    return Call("GET", f"/api/v1/sites/{quote(name, safe='')}", _model(models.Site))


def _site_path(name: str, *parts: str) -> str:
    return "/".join(["/api/v1/sites", quote(name, safe=""), *parts])


def site_file(name: str) -> Call[SiteFile]:
    """A site as it is configured; for administrators."""
    return Call("GET", _site_path(name, "file"), _model(SiteFile))


def put_site(file: SiteFile) -> Call[tuple[models.Site, bool]]:
    """Add a site or change how it is configured; whether it is new."""
    read = _model(models.Site)
    body = file.model_dump(mode="json")
    return Call("PUT", _site_path(file.name), lambda reply: (read(reply), reply.status == 201), body=body)


def change_site(name: str, drained: bool) -> Call[models.Site]:
    """Drain a site, or let it work again."""
    return Call("PATCH", _site_path(name), _model(models.Site), body={"drained": drained})


def remove_site(name: str) -> Call[None]:
    """Remove a site."""
    return Call("DELETE", _site_path(name), _nothing, repeat=Repeat.UNSENT)


def describe_site(name: str) -> Call[models.Described]:
    """Ask a site what it has, now."""
    return Call("POST", _site_path(name, "describe"), _model(models.Described), repeat=Repeat.SAFE)


def projects() -> Call[models.Projects]:
    """The project tree."""
    return Call("GET", "/api/v1/projects", _model(models.Projects))


def _project_path(name: str) -> str:
    return f"/api/v1/projects/{quote(name, safe='')}"


def project(name: str) -> Call[models.Project]:
    """One project."""
    return Call("GET", _project_path(name), _model(models.Project))


def tree() -> Call[models.Tree]:
    """The project tree as a project file has it; for administrators."""
    return Call("GET", "/api/v1/tree", _model(models.Tree))


def put_projects(projects: Mapping[str, Any], revision: int | None, dry_run: bool) -> Call[models.Plan]:
    """Make this the project tree, or (dry_run) ask what that would change."""
    query = [("dry_run", "true")] if dry_run else []
    body = {"projects": dict(projects), "revision": revision}
    # with a revision a repetition that comes too late is a conflict, and changes nothing
    repeat = Repeat.SAFE if dry_run else Repeat.UNSENT
    return Call("PUT", "/api/v1/projects", _model(models.Plan), query, body, repeat=repeat)


def change_people(project: str, add: Sequence[str], remove: Sequence[str]) -> Call[models.Project]:
    """Let people submit to a project, or no longer."""
    return Call("PATCH", _project_path(project), _model(models.Project), body={"add": add, "remove": remove})


def flavors() -> Call[models.Page[models.Flavor]]:
    """The kinds of hardware."""
    return Call("GET", "/api/v1/flavors", _model(models.Page[models.Flavor]))


def flavor(name: str) -> Call[models.Flavor]:
    """One kind of hardware."""
    return Call("GET", f"/api/v1/flavors/{quote(name, safe='')}", _model(models.Flavor))


def reservations() -> Call[models.Page[models.Reservation]]:
    """The reservations that are not over."""
    return Call("GET", "/api/v1/reservations", _model(models.Page[models.Reservation]))


def add_reservation(fields: Mapping[str, Any]) -> Call[models.Reservation]:
    """Keep room."""
    body = {name: _rfc3339(value) if isinstance(value, datetime) else value for name, value in fields.items()}
    return Call("POST", "/api/v1/reservations", _model(models.Reservation), body=body, headers=_key(None))


def remove_reservation(number: int) -> Call[None]:
    """Keep that room no longer."""
    return Call("DELETE", f"/api/v1/reservations/{number}", _nothing, repeat=Repeat.UNSENT)


def queue() -> Call[models.Queue]:
    """How the queue stands."""
    return Call("GET", "/api/v1/queue", _model(models.Queue))


def tokens() -> Call[models.Page[models.Token]]:
    """The tokens of this person; of all people for administrators."""
    return Call("GET", "/api/v1/tokens", _model(models.Page[models.Token]))


def create_token(name: str, expires_in: int | None, person: str | None) -> Call[models.Token]:
    """Make a token; only the answer to this shows it."""
    body = {"name": name, "expires_in": expires_in, **({"person": person} if person else {})}
    return Call("POST", "/api/v1/tokens", _model(models.Token), body=body, headers=_key(None), repeat=Repeat.UNSENT)


def revoke_token(token_id: str) -> Call[None]:
    """Make a token useless."""
    return Call("DELETE", f"/api/v1/tokens/{quote(token_id, safe='')}", _nothing, repeat=Repeat.UNSENT)


def me() -> Call[models.Me]:
    """Who is asking."""
    return Call("GET", "/api/v1/me", _model(models.Me))


def people() -> Call[models.Page[models.Person]]:
    """All accounts."""
    return Call("GET", "/api/v1/people", _model(models.Page[models.Person]))


def add_person(person: str, role: str) -> Call[models.Link]:
    """Add somebody."""
    body = {"person": person, "role": role}
    return Call("POST", "/api/v1/people", _model(models.Link), body=body, repeat=Repeat.UNSENT)


def make_link(person: str) -> Call[models.Link]:
    """A new link for somebody."""
    return Call("POST", f"{_person_path(person)}/link", _model(models.Link))


def change_person(person: str, role: str | None, disabled: bool | None) -> Call[models.Person]:
    """Give a role, disable or enable; None leaves it."""
    given = {"role": role, "disabled": disabled}
    body = {name: value for name, value in given.items() if value is not None}
    return Call("PATCH", _person_path(person), _model(models.Person), body=body)


def _person_path(person: str) -> str:
    return f"/api/v1/people/{quote(person, safe='')}"


def begin_device_login(machine: str) -> Call[models.DeviceCode]:
    """Ask for a code, for a command line on `machine`."""
    body = {"machine": machine}
    return Call("POST", "/api/v1/login/device", _model(models.DeviceCode), body=body, public=True)


def ask_device_login(device_code: str) -> Call[models.Token]:
    """Ask whether somebody let the command line in."""
    body = {"device_code": device_code}
    return Call("POST", "/api/v1/login/device/token", _model(models.Token), body=body, public=True)


def version() -> Call[models.Version]:
    """The platform's version."""
    return Call("GET", "/api/v1/version", _model(models.Version), public=True)


@dataclass
class StreamCall:
    """A request for an event stream; `last_event_id` moves on as events are taken in, for resuming."""

    path: str
    query: Sequence[tuple[str, str]] = ()
    final: str | None = None
    """Name of the event after which the stream is over."""
    last_event_id: str | None = None

    def headers(self) -> dict[str, str]:
        """The headers with which to ask for what follows."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self.last_event_id is not None:
            headers["Last-Event-ID"] = self.last_event_id
        return headers


def events(jobs: Iterable[int]) -> StreamCall:
    """The changes of these jobs; of all that this person may see where none is named."""
    return StreamCall("/api/v1/events", [("job", str(job)) for job in jobs])


def follow(job: Reference, stream: str, attempt: int | None, tail: int | None) -> StreamCall:
    """The output of a job as it is written, until its end."""
    query = [("stream", stream)]
    query += [("attempt", str(attempt))] if attempt is not None else []
    query += [("tail", str(tail))] if tail is not None else []
    return StreamCall(_job_path(job, "logs", "follow"), query, final="end")
