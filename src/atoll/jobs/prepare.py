"""From a specification to the row that it becomes: all that can be checked without a transaction."""

import asyncio
import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from graphlib import CycleError, TopologicalSorter
from typing import Any

from sqlalchemy import Connection

from atoll.core.clock import to_micros
from atoll.core.errors import Invalid
from atoll.core.ids import JobRef
from atoll.core.ranges import ArraySpec
from atoll.core.reasons import ReasonCode
from atoll.core.site import Site
from atoll.core.spec import JobClass, JobSpec
from atoll.core.states import JobState
from atoll.faces.http.platform import Platform
from atoll.jobs.projects import Projects
from atoll.scheduler.fit import impossible
from atoll.scheduler.model import Demand
from atoll.store import projects, sites
from atoll.store.people import Principal

MAX_EDGES = 10_000
"""Most jobs and tasks that one job may wait for."""
SITES_SECONDS = 2.0
_MOST_VERDICTS = 10_000
_LAST_BEGIN = 32_503_680_000_000_000
"""The year 3000."""


class SitesView:
    """What sites and projects there are, as of a moment ago; submissions are held against it."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._sites: tuple[Site, ...] = ()
        self._reading: asyncio.Task[None] | None = None
        self._verdicts: dict[Demand, tuple[str, str] | None] = {}
        self.read_at = float("-inf")
        """What changed before this moment (`time.monotonic`) is seen."""
        self.projects = Projects()

    def forget(self) -> None:
        """Read all again before the next submission: this replica has changed something."""
        self.read_at = float("-inf")
        self._reading = None  # what is being read may be older than the change

    async def refresh(self, since: float | None = None) -> None:
        """Read the sites, and the project tree if it has changed, where that was before `since`, or long ago.

        All who wait for it wait for the same reading. Raises Unavailable.
        """
        wanted = time.monotonic() - SITES_SECONDS if since is None else since
        while self.read_at < wanted:
            if self._reading is None:
                self._reading = asyncio.create_task(self._read(), name="sites")
            await asyncio.shield(self._reading)

    async def _read(self) -> None:
        this, began = asyncio.current_task(), time.monotonic()

        def read(connection: Connection) -> tuple[tuple[Site, ...], Projects | None]:
            # compared here, and not when the reading was asked for: it may have waited for a thread
            revision = projects.revision(connection)
            tree = Projects(projects.load(connection), revision) if revision != self.projects.revision else None
            return tuple(sites.load(connection)), tree

        try:
            found, tree = await self._platform.database.read(read)
            if self._reading is this:  # else it is older than the change, and maybe than what is known by now
                self._take(found, tree)
                self.read_at = began
        finally:
            if self._reading is this:
                self._reading = None

    def _take(self, found: Sequence[Site], tree: Projects | None) -> None:
        if tree is not None:
            self.projects = tree
        shown = tuple(dataclasses.replace(site, seen_at=None) for site in found)
        if shown != self._sites:
            self._sites = shown
            self._verdicts = {}

    def check(self, demand: Demand, prefix: str = "") -> None:
        """Refuse (Invalid) what no site can ever run."""
        # threads may do this at once: a table is never emptied, but another one taken
        verdicts = self._verdicts
        if demand not in verdicts:
            if len(verdicts) >= _MOST_VERDICTS:
                self._verdicts = verdicts = {}
            verdicts[demand] = impossible(demand, self._sites)
        verdict = verdicts[demand]
        if verdict is not None:
            field, sentence = verdict
            raise Invalid("impossible", f"{prefix}{field}: {sentence}", field=prefix + field)

    def check_size(self, project: str | None, spec: JobSpec, demand: Demand, prefix: str = "") -> None:
        """Refuse (Invalid) what a project could never have; `project` is one of the tree, or there is no tree."""
        # opportunistic jobs take what is idle, beyond all quotas
        if project is not None and spec.class_ is not JobClass.OPPORTUNISTIC:
            self.projects.check_size(project, demand, self._sites, prefix)

    def warnings(self) -> list[str]:
        """What whoever submits should know."""
        return [] if self._sites else ["There is no site yet; the job waits until there is one."]


@dataclass(slots=True)
class Prepared:
    """A job that is ready to be inserted, but for what only the transaction knows."""

    columns: dict[str, Any]
    awaited: Sequence[tuple[str, JobRef, str]] = ()
    """(field, job or tasks, kind of end) of each dependency on a job that exists already."""
    siblings: Sequence[tuple[int, str]] = ()
    """(place in the same request, kind of end) of each dependency on a job submitted with it."""
    files: Sequence[tuple[str, str]] = ()
    """(field, SHA-256) of each file to take in."""
    revision: int = 0
    """Of the project tree that the job was held against."""

    @property
    def is_array(self) -> bool:
        """Whether it is an array."""
        return bool(self.columns["waiting_count"])


def prepare(
    spec: JobSpec, who: Principal, view: SitesView, platform: Platform, *, hold: bool = False, prefix: str = ""
) -> Prepared:
    """Check one specification and make its row. `prefix` goes before the names of fields. Raises Invalid, Denied."""
    memory = spec.memory if spec.memory is not None else platform.default_memory(spec.cpu)
    tree = view.projects
    project = tree.choose(spec.project, who.person, platform.clock().date(), prefix)
    demand = Demand.of(spec, who.person, memory, tree.clearance(project))
    view.check(demand, prefix)
    view.check_size(project, spec, demand, prefix)
    columns: dict[str, Any] = {
        "owner": who.person, "project": project, "name": spec.title, "class_": spec.class_.value,
        "spec": spec.to_json(), "priority": spec.priority, "cpu": spec.cpu, "memory": memory, "gpu": spec.gpu,
        "nodes": spec.nodes, "hold": hold, "not_before": 0, "waiting": None, "waiting_count": 0, "task_count": 1,
        "width": None, "blockers": 0, "walltime": spec.walltime, "grace": spec.grace,
    }  # fmt: skip
    state, reason = JobState.QUEUED, ReasonCode.NONE
    if spec.begin is not None:
        columns["not_before"] = begin_micros(spec.begin, prefix)
        reason = ReasonCode.BEGIN_TIME
    if hold:
        state, reason = JobState.HELD, ReasonCode.HELD_BY_USER
    columns["state"], columns["reason"] = state.value, reason.value
    if spec.array is not None:
        array = ArraySpec.parse(spec.array)
        count = len(array.tasks)
        columns |= {"waiting": str(array.tasks), "waiting_count": count, "task_count": count, "width": array.width}
    prepared = Prepared(columns, revision=tree.revision)
    if spec.files_in:
        prepared.files = [
            (f"{prefix}files_in.{number}.sha256", item.sha256) for number, item in enumerate(spec.files_in)
        ]
    return prepared


def begin_micros(begin: datetime, prefix: str = "") -> int:
    """A begin time as the store keeps it. Raises Invalid for times that nobody means."""
    micros = to_micros(begin)
    if not 0 <= micros < _LAST_BEGIN:
        raise Invalid("bad_begin", f"{prefix}begin: write a time between 1970 and 2999.", field=f"{prefix}begin")
    return micros


def prepare_one(spec: JobSpec, who: Principal, view: SitesView, platform: Platform, *, hold: bool = False) -> Prepared:
    """As `prepare`, for a job whose dependencies are jobs that exist already."""
    prepared = prepare(spec, who, view, platform, hold=hold)
    if spec.dependencies:
        prepared.awaited = [
            (field, _reference(item.job, field), item.on.value)
            for number, item in enumerate(spec.dependencies)
            for field in (f"dependencies.{number}.job",)
        ]
        _check_edges(prepared)
    return prepared


def prepare_all(
    specs: Sequence[JobSpec], who: Principal, view: SitesView, platform: Platform, *, hold: bool = False
) -> list[Prepared]:
    """As `prepare`, for jobs that are submitted together and may name each other in their dependencies."""
    found = [
        prepare(spec, who, view, platform, hold=hold, prefix=f"jobs.{number}.") for number, spec in enumerate(specs)
    ]
    if any(spec.dependencies for spec in specs):
        _link(specs, found)
    return found


def _link(specs: Sequence[JobSpec], found: Sequence[Prepared]) -> None:
    places: dict[str, list[int]] = {}
    for place, spec in enumerate(specs):
        if spec.name is not None:
            places.setdefault(spec.name, []).append(place)
    graph: dict[int, list[int]] = {}
    for place, spec in enumerate(specs):
        awaited: list[tuple[str, JobRef, str]] = []
        siblings: list[tuple[int, str]] = []
        for number, item in enumerate(spec.dependencies):
            field = f"jobs.{place}.dependencies.{number}.job"
            named = places.get(item.job, [])
            if len(named) > 1:
                raise Invalid(
                    "ambiguous_name", f"{field}: {len(named)} jobs of this request have the name {item.job!r}; "
                    "give them different names.", field=field,
                )  # fmt: skip
            if named:
                siblings.append((named[0], item.on.value))
            else:
                awaited.append((field, _reference(item.job, field), item.on.value))
        found[place].awaited, found[place].siblings = awaited, siblings
        _check_edges(found[place])
        if siblings:
            graph[place] = [sibling for sibling, _ in siblings]
    _refuse_cycles(graph, specs)


def _refuse_cycles(graph: Mapping[int, Sequence[int]], specs: Sequence[JobSpec]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = [specs[place].name or str(place) for place in reversed(error.args[1])]
        first = error.args[1][-1]
        raise Invalid(
            "dependency_cycle", f"The jobs wait for each other in a circle: {' -> '.join(cycle[:20])}.",
            field=f"jobs.{first}.dependencies",
        ) from None  # fmt: skip


def _reference(text: str, field: str) -> JobRef:
    try:
        return JobRef.parse(text)
    except Invalid as error:
        raise Invalid("bad_dependency", f"{field}: {error.sentence}", field=field) from None


def _check_edges(prepared: Prepared) -> None:
    edges = sum(len(ref.tasks) if ref.tasks is not None else 1 for _, ref, _ in prepared.awaited)
    if edges > MAX_EDGES:
        field = prepared.awaited[0][0]
        raise Invalid(
            "too_many_dependencies",
            f"{field}: the job would wait for {edges} jobs and tasks, more than {MAX_EDGES}; wait for whole arrays.",
            field=field,
        )
