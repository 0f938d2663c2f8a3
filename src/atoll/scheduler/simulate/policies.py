"""The named policies that a simulation compares: each is a setting of the cycle, and of which node takes what.

A policy more is an entry more in `POLICIES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from atoll.core.errors import NotFound
from atoll.core.spec import JobClass, suggestion
from atoll.scheduler.cycle import cycle
from atoll.scheduler.model import RANKS, Decisions
from atoll.scheduler.simulate.machines import Choice, first_node, fullest_node
from atoll.scheduler.snapshot import Snapshot
from atoll.scheduler.traces.model import TraceJob

ALL = "all"
"""What asks for every policy."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How a simulation decides."""

    name: str
    sentence: str
    decide: Callable[[Snapshot, int], Decisions]
    """What happens at a time, in microseconds."""
    choose_node: Choice
    """Which node takes an attempt, where what was decided does not say."""
    owned: bool = False
    """Whether it is decided which node takes an attempt; if not, `choose_node` is the engine that does."""
    ranked: bool = True
    """Whether classes go before one another, or all jobs by their age."""

    def rank(self, job_class: JobClass) -> int:
        """The rank with which a job of a class waits."""
        return RANKS[job_class if self.ranked else JobClass.BATCH]

    def project(self, job: TraceJob) -> str:
        """The project that a job counts to; none where all jobs go by their age."""
        return job.project if self.ranked else ""

    def person(self, job: TraceJob) -> str:
        """The person that a job counts to; none where all jobs go by their age."""
        return job.person if self.ranked else ""


_decide = partial(cycle, head=0)  # reasons are for people who wait

POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy("atoll", "as the platform decides, down to the node and the GPU", _decide, fullest_node, owned=True),
        Policy("first-fit", "the oldest that fits, whatever its class; the first node with room", _decide, first_node,
               ranked=False),
    )
}  # fmt: skip


def named(name: str) -> list[Policy]:
    """The policy of a name, or all of them. Raises NotFound with a suggestion."""
    if name == ALL:
        return list(POLICIES.values())
    if name not in POLICIES:
        known = [*POLICIES, ALL]
        hint = suggestion(name, known) or f" There are {', '.join(known)}."
        raise NotFound("no_such_policy", f"There is no policy {name!r}.{hint}", field="policy")
    return [POLICIES[name]]
