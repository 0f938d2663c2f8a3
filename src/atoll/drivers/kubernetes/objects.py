"""Reads what the API server lists, as far as it is needed, and what the pods' own words say of an end."""

import re
from dataclasses import dataclass
from datetime import datetime

import msgspec

from atoll.drivers.wrapper import parse_end

INSTANCE, ATTEMPT = "atoll/instance", "atoll/attempt"
"""Labels of all that is ours."""
PERSON, ACCOUNT, NODES, LAUNCH_EACH = "atoll/person", "atoll/account", "atoll/nodes", "atoll/launch-each"
CHOSEN = "atoll/on-nodes"
"""Annotation of a Job whose nodes Atoll chose: their names, by rank."""
STOP, STOP_WORDS = "atoll/stop", "atoll/stop-message"
"""Annotations of the Job."""
RECALL = "atoll/recall"
"""Annotation of a Job that is recalled: `asked`, then `done` once it can never begin."""
MAIN, KEEPER = "main", "keeper"
"""Names of the two containers."""


class _Struct(msgspec.Struct, rename="camel"):
    pass


class Meta(_Struct):
    """Metadata of an object."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None

    @property
    def attempt_id(self) -> str:
        """The attempt that the object belongs to."""
        return (self.labels or {}).get(ATTEMPT, "")

    def annotation(self, name: str) -> str | None:
        """The value of an annotation."""
        return (self.annotations or {}).get(name)


class Condition(_Struct):
    """A condition of a Job or pod."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


class JobSpec(_Struct):
    """What a Job asks for."""

    parallelism: int | None = None
    suspend: bool | None = None


class JobStatus(_Struct):
    """How a Job is."""

    active: int | None = None
    start_time: datetime | None = None
    completion_time: datetime | None = None
    conditions: list[Condition] | None = None


class Job(_Struct):
    """A Job of the API group batch/v1."""

    metadata: Meta
    spec: JobSpec = msgspec.field(default_factory=JobSpec)
    status: JobStatus = msgspec.field(default_factory=JobStatus)

    def condition(self, *types: str) -> Condition | None:
        """The first condition of these types that is true."""
        return _true(self.status.conditions, types)


class Waiting(_Struct):
    """Why a container waits."""

    reason: str = ""
    message: str = ""


class Running(_Struct):
    """Since when a container runs."""

    started_at: datetime | None = None


class Terminated(_Struct):
    """How a container ended."""

    exit_code: int = 0
    signal: int | None = None
    reason: str = ""
    message: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None


class ContainerState(_Struct):
    """Whichever of the three is set."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Struct):
    """How a container is."""

    name: str = ""
    state: ContainerState = msgspec.field(default_factory=ContainerState)


class PodStatus(_Struct):
    """How a pod is."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    start_time: datetime | None = None
    conditions: list[Condition] | None = None
    container_statuses: list[ContainerStatus] | None = None


class Quantities(_Struct):
    """What a container asks for."""

    requests: dict[str, str] | None = None


class ContainerSpec(_Struct):
    """A container as far as its requests."""

    resources: Quantities = msgspec.field(default_factory=Quantities)


class PodSpec(_Struct):
    """Where a pod is, and what it asks for."""

    node_name: str = ""
    containers: list[ContainerSpec] = []


class PodPlace(_Struct):
    """Where a pod is; no node before it has one."""

    node_name: str = ""


class Pod(_Struct):
    """A pod of ours."""

    metadata: Meta
    spec: PodPlace = msgspec.field(default_factory=PodPlace)
    status: PodStatus = msgspec.field(default_factory=PodStatus)

    def condition(self, *types: str) -> Condition | None:
        """The first condition of these types that is true."""
        return _true(self.status.conditions, types)

    def container(self, name: str) -> ContainerState:
        """The state of a container; an empty one where nothing is known of it."""
        for each in self.status.container_statuses or ():
            if each.name == name:
                return each.state
        return ContainerState()

    @property
    def rank(self) -> int:
        """Its node's number within the attempt."""
        text = (self.metadata.labels or {}).get("batch.kubernetes.io/job-completion-index", "0")
        return int(text) if text.isdecimal() else 0

    @property
    def unplaced(self) -> bool:
        """Whether it has no node yet, so that nothing of it can have begun."""
        return not self.spec.node_name and not self.status.container_statuses and not self.over

    @property
    def over(self) -> bool:
        """Whether nothing of it runs or will run."""
        return self.status.phase in ("Succeeded", "Failed")


class ListMeta(msgspec.Struct, rename={"next": "continue"}):
    """How a list goes on."""

    next: str = ""


class JobList(_Struct):
    """A page of Jobs."""

    items: list[Job] | None = None
    metadata: ListMeta = msgspec.field(default_factory=ListMeta)


class PodList(_Struct):
    """A page of pods."""

    items: list[Pod] | None = None
    metadata: ListMeta = msgspec.field(default_factory=ListMeta)


class SomeObject(_Struct):
    """Any object, as far as its metadata."""

    metadata: Meta


class SomeList(_Struct):
    """A page of any objects."""

    items: list[SomeObject] | None = None
    metadata: ListMeta = msgspec.field(default_factory=ListMeta)


def _true(conditions: list[Condition] | None, types: tuple[str, ...]) -> Condition | None:
    for each in conditions or ():
        if each.type in types and each.status == "True":
            return each
    return None


@dataclass(frozen=True)
class Report:
    """What pod.sh said of an end, in the container's termination message."""

    asked: str = ""
    """Why it was ended, where it did not end by itself."""
    exit_code: int | None = None
    signal: int | None = None
    cpu_seconds: float | None = None
    max_memory: int | None = None
    memory_kills: int = 0


_ASKED = re.compile(r"^asked ([a-z_]{1,20})\n")
_MEMORY = re.compile(r"^memory (\d{1,18}) (\d{1,9})$", re.MULTILINE)


def read_report(message: str) -> Report:
    """The report in a termination message; an empty one where it is none."""
    text = message[:4096]
    end = parse_end(text.encode("utf-8", "replace") if text.endswith("\n") else f"{text}\n".encode())
    asked, memory = _ASKED.match(text), _MEMORY.search(text)
    code, signal, spent = end or (None, None, None)
    return Report(
        asked[1] if asked else "",
        code,
        signal,
        spent,
        int(memory[1]) or None if memory else None,
        int(memory[2]) if memory else 0,
    )
