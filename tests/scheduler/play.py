"""Plays a golden scenario step by step, and writes down what was decided in the words that scenarios use.

    starts          JOB [at SITE/FLAVOR], or COUNT of ARRAY [at SITE/FLAVOR], in the order in which it was decided
    evictions       JOB for JOB at once, or JOB for JOB after DURATION
    promises        JOB, or COUNT of ARRAY [at SITE/FLAVOR]
    reservations    JOB [at SITE/FLAVOR] in DURATION

The place is left out where there is only one. A task of an array is ARRAY.NUMBER.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from atoll.core.project import clearances
from atoll.core.project_file import read_projects
from atoll.core.ranges import Ranges
from atoll.core.reasons import Reason
from atoll.core.spec import JobClass
from atoll.scheduler.consistency import contents, validate
from atoll.scheduler.cycle import cycle
from atoll.scheduler.explain import explain
from atoll.scheduler.model import (
    Change,
    Decisions,
    JobGone,
    JobWaits,
    PolicyChanged,
    RoomFreed,
    RoomTaken,
    Running,
    SiteChanged,
    Spent,
    TreeChanged,
    Waiting,
)
from atoll.scheduler.quota import Tree
from atoll.scheduler.snapshot import Snapshot
from tests.scheduler.builders import carried_out
from tests.scheduler.scenario import Expected, JobEntry, RunningEntry, Scenario, SiteEntry, Step, WaitingEntry

NOON = 1_767_268_800_000_000  # 2026-01-01 12:00:00 UTC
SECOND = 1_000_000


class Play:
    """A world that a scenario describes, and what has been told in it."""

    def __init__(self, scenario: Scenario) -> None:
        """The world before the first decision."""
        self.now = NOON
        self.snapshot = Snapshot()
        self._ids: dict[str, int] = {}
        self._jobs: dict[str, Waiting] = {}  # by attempt's name: what waits again when it was evicted
        self._attempts: dict[str, str] = {}  # by attempt, its name
        self._evictions: Counter[str] = Counter()
        self._told: dict[str, Reason] = {}
        self._clearances: dict[str, frozenset[str]] = {}
        self._apply([PolicyChanged(scenario.policy.policy()), *self._tree(scenario.tree), *_sites(scenario.sites)])
        for name, entry in scenario.runs.items():
            self._evictions[name] = entry.evictions
            self._apply([RoomTaken(self._running(name, entry))])
        self._apply(
            Spent(
                past.project, past.person, past.flavor, past.resources * past.during, self.now - past.ago * SECOND,
                past.of_class is JobClass.OPPORTUNISTIC,
            )
            for past in scenario.spent
        )  # fmt: skip
        self._arrive(scenario.waits)

    # ---- what happens

    def happen(self, step: Step) -> None:
        """Let what a step says happen."""
        self.now += step.after * SECOND
        attempts = {name: attempt for attempt, name in self._attempts.items()}
        for name in step.ends:
            self._end(name, attempts[name])
        self._apply(JobGone(self._ids[name]) for name in step.cancelled)
        self._apply([*self._tree(step.tree), *_sites(step.sites)])
        self._arrive(step.arrives)

    def _end(self, name: str, attempt: str) -> None:
        running = self.snapshot.running(attempt)
        del self._attempts[attempt]
        self._apply([RoomFreed(attempt, self.now)])
        if running.leaving:
            self._evictions[name] += 1
            self._apply([JobWaits(self._jobs[name])])

    def _arrive(self, entries: dict[str, WaitingEntry]) -> None:
        for name, entry in entries.items():
            waiting = replace(
                self._waiting(name, entry, entry.waited),
                not_before=self.now + entry.begins * SECOND if entry.begins else 0,
                backing_off=entry.backs_off,
                tasks=None if entry.tasks is None else Ranges((range(entry.tasks),)),
                width=entry.width,
            )
            self._apply([JobWaits(waiting)])

    def _waiting(self, name: str, entry: JobEntry, age: int) -> Waiting:
        self._ids[name] = len(self._ids) + 1
        waiting = Waiting(
            self._ids[name], entry.rank, entry.priority, self.now - age * SECOND, entry.resources, entry.nodes,
            tuple(entry.flavors), entry.placement, project=entry.project, expected=entry.expected,
        )  # fmt: skip
        self._jobs[name] = self._cleared(waiting)
        return self._jobs[name]

    def _cleared(self, waiting: Waiting) -> Waiting:
        """With the words that its project needs."""
        words = self._clearances.get(waiting.project, frozenset())
        return replace(waiting, placement=replace(waiting.placement, clearance=words))

    def _tree(self, projects: dict[str, object] | None) -> list[Change]:
        if projects is None:
            return []
        nodes = read_projects({"projects": projects})
        self._clearances = clearances(nodes)
        waiting = contents(self.snapshot)[0].values()
        return [TreeChanged(Tree(nodes)), *(JobWaits(self._cleared(job)) for job in waiting)]

    def _running(self, name: str, entry: RunningEntry) -> Running:
        job = self._waiting(name, entry, entry.since + entry.waited)
        began = self.now - entry.since * SECOND
        pool = self.snapshot.pools[0]
        site, flavor = entry.at.split("/") if entry.at else (pool.site, pool.flavor.name)
        attempt = f"{job.job_id:04}"
        self._attempts[attempt] = name
        return Running(
            attempt, job.job_id, site, flavor, job.request, job.nodes, job.rank, entry.queued, job.priority, False,
            job.project, entry.person, began, 0 if entry.queued else began,
            0 if entry.saved is None else self.now - entry.saved * SECOND, entry.walltime, entry.expected, entry.grace,
            entry.evictions,
        )  # fmt: skip

    def _apply(self, changes: Iterable[Change]) -> None:
        self.snapshot.apply(changes)

    # ---- what is decided

    def decide(self, expected: Expected) -> list[str]:
        """Decide and carry it out; what was decided, each a line. `expected` says of what else there is to be told."""
        decisions = cycle(self.snapshot, self.now)
        lines = [*self._lines(decisions), *self._reasons(decisions, expected), *self._facts(expected)]
        if expected.wakeup is not None:
            wakeup = decisions.next_wakeup
            lines.append(f"wakeup: {'none' if wakeup is None else duration(wakeup - self.now)}")
        self._apply(carried_out(self.snapshot, decisions, self.now))
        self._name_attempts()
        validate(self.snapshot)
        return lines

    def _lines(self, decisions: Decisions) -> list[str]:
        lines = []
        for place in decisions.placements:
            count = None if place.tasks is None else len(place.tasks)
            lines.append(f"starts: {self._several(place.job_id, count)}{self._at(place.site, place.flavor)}")
        for eviction in decisions.evictions:
            when = f"after {duration(eviction.at - self.now)}" if eviction.at else "at once"
            victim, claim = self._attempts[eviction.attempt_id], self._name(eviction.for_job)
            lines.append(f"evictions: {victim} for {claim} {when}")
        lines += [f"reprieved: {self._attempts[attempt]}" for attempt in decisions.reprieved]
        for job_id, promise in decisions.promises:
            count = None if self.snapshot.waiting(job_id).tasks is None else promise.count
            lines.append(f"promises: {self._several(job_id, count)}{self._at(promise.site, promise.flavor)}")
        for known in decisions.reservations:
            where, when = self._at(known.site, known.flavor), duration(known.start - self.now)
            lines.append(f"reservations: {self._name(known.job_id)}{where} in {when}")
        return lines + [f"recalls: {self._attempts[attempt]}" for attempt in decisions.recalls]

    def _reasons(self, decisions: Decisions, expected: Expected) -> list[str]:
        self._told |= {self._name(job_id): reason for job_id, reason in decisions.reasons}
        started = {self._name(place.job_id) for place in decisions.placements if place.tasks is None}
        lines = []
        for name, wanted in expected.waits.items():
            reason = None if name in started else self._told.get(name)
            if reason is None:
                lines.append(f"waits: {name}: it does not wait")
            elif isinstance(wanted, str):
                lines.append(f"waits: {name}: {reason.code}")
            else:
                part = wanted.get(reason.code, reason.sentence)
                lines.append(f"waits: {name}: {reason.code}: {part if part in reason.sentence else reason.sentence}")
        return lines

    def _facts(self, expected: Expected) -> list[str]:
        lines = []
        for name, wanted in expected.facts.items():
            explanation = explain(self.snapshot, self._ids[name], self.now)
            said = "it does not wait" if explanation is None else " ".join(explanation.facts)
            lines.append(f"facts: {name}: {wanted if wanted in said else said}")
        return lines

    def _name_attempts(self) -> None:
        """Name what has started, and have it know how often its job was evicted."""
        for attempt, running in contents(self.snapshot)[1].items():
            if attempt in self._attempts:
                continue
            task = re.search(r"\[(\d+)\]", attempt)
            name = self._name(running.job_id) + (f".{task[1]}" if task else "")
            self._attempts[attempt] = name
            self._told.pop(name, None)
            self._apply([RoomTaken(replace(running, evictions=self._evictions[name]))])
            if task:  # an evicted task waits as an entry of its own
                array = self._jobs[self._name(running.job_id)]
                self._ids.setdefault(name, len(self._ids) + 1)
                self._jobs[name] = replace(array, job_id=self._ids[name], tasks=None, group=array.job_id)

    def _several(self, job_id: int, count: int | None) -> str:
        return self._name(job_id) if count is None else f"{count} of {self._name(job_id)}"

    def _at(self, site: str, flavor: str) -> str:
        return f" at {site}/{flavor}" if len(self.snapshot.pools) > 1 else ""

    def _name(self, job_id: int) -> str:
        return next(name for name, known in self._ids.items() if known == job_id)


def expected_lines(expected: Expected) -> list[str]:
    """What is expected, each a line as `Play.decide` writes it."""
    lines = [
        f"{what}: {line}"
        for what in ("starts", "evictions", "reprieved", "promises", "reservations", "recalls")
        for line in getattr(expected, what)
    ]
    for name, wanted in expected.waits.items():
        said = [wanted] if isinstance(wanted, str) else [f"{code}: {part}" for code, part in wanted.items()]
        lines += [f"waits: {name}: {reason}" for reason in said]
    lines += [f"facts: {name}: {part}" for name, part in expected.facts.items()]
    return lines + ([] if expected.wakeup is None else [f"wakeup: {duration(expected.wakeup * SECOND)}"])


def duration(micros: int) -> str:
    """A duration as scenarios write it: `1d2h`, `15m`, `30s`, `0s`."""
    rest, parts = micros // SECOND, []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _sites(entries: dict[str, SiteEntry]) -> list[Change]:
    return [SiteChanged(entry.state(name)) for name, entry in entries.items()]
