"""Why a job is where it is: its reason, its place among those that wait, and the facts behind it."""

from typing import Any

from sqlalchemy import Connection

from atoll.core.clock import from_micros
from atoll.core.ids import JobRef, task_name
from atoll.core.reasons import evicted_for, recalled_from
from atoll.core.resources import format_seconds
from atoll.core.site import Health, Site
from atoll.core.spec import JobClass, JobSpec, read_spec
from atoll.core.states import ACTIVE, JobState, Outcome
from atoll.jobs.estimates import Estimates, together
from atoll.jobs.service import Found, find, spec_document
from atoll.jobs.view import awaited, counts_of
from atoll.scheduler.fit import is_remote, obstacle
from atoll.scheduler.model import Demand
from atoll.store import attempts, jobs, projects, reserved, sites
from atoll.store.jobs import JobRow
from atoll.store.people import Principal

_WANTED = {"ok": "to succeed", "not_ok": "to end without success", "any": "to end"}
_MOST_FACTS = 20


def why(connection: Connection, ref: JobRef, who: Principal, now: int, estimates: Estimates) -> dict[str, Any]:
    """The whole answer. Raises NotFound."""
    found = find(connection, ref, who)
    short = found.summary()
    state = JobState(short["state"])
    estimate = None
    handed_over = state in (JobState.PLACED, JobState.STARTING)
    of_array = state is JobState.RUNNING and found.row is found.whole
    if state is JobState.QUEUED or handed_over or (of_array and _queues(found.whole)):
        estimate = estimates.of(connection, found.row or found.whole)
    if of_array and found.whole.active_count:
        estimate = together((estimate, estimates.arrays_at_sites(connection, [found.whole.id]).get(found.whole.id)))
    facts = _facts(connection, found, state, now)
    if len(facts) > _MOST_FACTS:
        facts = [*facts[:_MOST_FACTS], f"And {len(facts) - _MOST_FACTS} more."]
    return {
        "job": short["id"], "state": state.value, "code": short["reason"]["code"],
        "sentence": short["reason"]["sentence"], "estimate": estimate, "facts": facts, "remedies": None,
    }  # fmt: skip


def entry(connection: Connection, ref: JobRef, who: Principal) -> int | None:
    """The id by which a job, or the array whose task it is, waits in the queue; None where it does not. As `find`."""
    row = (found := find(connection, ref, who)).row or found.whole
    return row.id if jobs.waits(row) else None


def _queues(array: JobRow) -> bool:
    return array.waiting_count > 0 and not array.hold and not array.blockers


def _facts(connection: Connection, found: Found, state: JobState, now: int) -> list[str]:
    facts: list[str] = []
    counts = counts_of(found.whole)
    if counts is not None and found.task is None:
        facts.append(
            f"Of its {counts['total']} tasks {counts['waiting']} wait, {counts['active']} are active, "
            f"{counts['succeeded']} succeeded, {counts['failed']} failed, {counts['cancelled']} were cancelled."
        )
    if state is JobState.HELD:
        facts += _holders(connection, found)
    if state is JobState.QUEUED or (found.task is None and counts is not None and counts["waiting"]):
        facts += _promise(found) + _begin(found, now) + _return(connection, found) + _reservation(connection, found)
        facts += _sites(connection, found.whole, now)
    elif state in ACTIVE:
        facts += _current(connection, found, now)
    elif state not in (JobState.HELD, JobState.QUEUED):
        facts += _ends(connection, found)
    return facts


def _holders(connection: Connection, found: Found) -> list[str]:
    facts = []
    row = found.row or found.whole
    if row.hold or found.whole.hold:
        facts.append(f"It is held by its owner or an administrator; release it with: atoll release {found.whole.id}.")
    edges = jobs.unended_dependencies(connection, found.whole.id)
    known = awaited(connection, edges)
    for edge in edges:
        other = known.get((edge.on_job, edge.on_task))
        state = other.state if other is not None else "waiting"
        facts.append(f"Waits for job {task_name(edge.on_job, edge.on_task)} {_WANTED[edge.kind]}; it is {state}.")
    return facts


def _promise(found: Found) -> list[str]:
    if found.whole.class_ != JobClass.OPPORTUNISTIC:
        return []
    return ["It is opportunistic: it runs on what is idle, and has no promise of when that is."]


def _begin(found: Found, now: int) -> list[str]:
    row = found.row or found.whole
    if row.not_before <= now:
        return []
    left = format_seconds((row.not_before - now) / 1_000_000)
    return [f"Does not start before {from_micros(row.not_before):%Y-%m-%d %H:%M:%S} UTC, in {left}."]


def _return(connection: Connection, found: Found) -> list[str]:
    """That the last attempt was pulled back or evicted, where it was: it explains why the job waits here again."""
    if found.row is None or found.row.attempt_id is None:
        return []
    row = attempts.known(connection, [found.row.attempt_id]).get(found.row.attempt_id)
    if row is not None and row.outcome == Outcome.RECALLED:
        return [f"Attempt {row.number} {_lowered(recalled_from(row.site).sentence)}"]
    if row is not None and row.outcome == Outcome.EVICTED and row.evicted_for is not None:
        reason = evicted_for(attempts.project_of(connection, row.evicted_for))
        return [f"Attempt {row.number} {_lowered(reason.sentence)}"]
    return []


def _reservation(connection: Connection, found: Found) -> list[str]:
    """The start that it has for certain."""
    start = reserved.get(connection, (found.row or found.whole).id)
    if start is None:
        return []
    moment = f"{from_micros(start.start):%Y-%m-%d %H:%M:%S} UTC"
    return [f"It has a reservation: it starts at site {start.site} at {moment} at the latest."]


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _sites(connection: Connection, whole: JobRow, now: int) -> list[str]:
    """What each site means for a waiting job."""
    clearance = projects.clearance_of(connection, whole.project)
    spec = read_spec(spec_document(whole))
    demand = Demand.of(spec, whole.owner, whole.memory, clearance)
    known, drained = sites.load(connection), sites.drained(connection)
    has_home = any(
        site.report is not None and site.health is Health.OK and site.name not in drained
        and not is_remote(site) and obstacle(demand, site) is None
        for site in known
    )  # fmt: skip
    facts = []
    for site in known:
        found = obstacle(demand, site)
        if found is not None:
            facts.append(found.sentence)
        elif site.health is not Health.OK or site.report is None:
            facts.append(_silence(site, now))
        elif is_remote(site) and site.wait.of(spec.class_) and has_home:
            facts.append(_far(site, spec))
        else:
            facts.append(f"Site {site.name} could run it once it has room.")
    return facts or ["There is no site yet that could run it."]


def _far(site: Site, spec: JobSpec) -> str:
    """What a remote site with a queue means for a job that a local one could run, as far as its walltime tells."""
    wait = site.wait.of(spec.class_)
    usual = format_seconds(wait)
    if spec.walltime is not None and spec.walltime < wait:
        return f"Site {site.name} has a usual wait of {usual}, longer than the job runs; it stays local."
    return f"Site {site.name} could run it once it has room; what is shorter than the usual wait, {usual}, stays local."


def _silence(site: Site, now: int) -> str:
    if site.seen_at is None:
        return f"Site {site.name} has not answered yet."
    age = format_seconds(max(0.0, (from_micros(now) - site.seen_at).total_seconds()))
    message = f": {site.message.rstrip('.')}" if site.message else ""
    return f"Site {site.name} does not answer; it last did {age} ago{message}."


def _current(connection: Connection, found: Found, now: int) -> list[str]:
    if found.row is None or found.row.attempt_id is None:
        return []
    row = attempts.known(connection, [found.row.attempt_id]).get(found.row.attempt_id)
    if row is None:
        return []
    facts = [f"Attempt {row.number} is at site {row.site}, flavor {row.flavor}."]
    site = next((site for site in sites.load(connection) if site.name == row.site), None)
    if site is not None and site.health is not Health.OK:
        facts.append(f"{_silence(site, now)} The last known state is shown.")
    if row.started_at is not None:
        ran = format_seconds(max(0.0, ((row.ended_at or now) - row.started_at) / 1_000_000))
        facts.append(f"It {'ran' if row.ended_at else 'has run'} for {ran}.")
    return facts


def _ends(connection: Connection, found: Found) -> list[str]:
    """How each attempt ended, the last first."""
    if found.row is None:
        return []
    facts = []
    for row in reversed(attempts.of_job(connection, found.row.id)):
        exit_code = f", exit code {row.exit_code}" if row.exit_code is not None else ""
        message = f": {row.message.rstrip('.')}" if row.message else ""
        facts.append(f"Attempt {row.number} at site {row.site}: {row.outcome or row.state}{exit_code}{message}.")
    return facts
