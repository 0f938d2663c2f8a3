"""Attempts and hosts for tests that need no engine."""

from typing import Any

from atoll.core.ids import new_attempt_id
from atoll.core.resources import Resources
from atoll.core.spec import JobSpec
from atoll.drivers.base import Launch
from atoll.drivers.podman.container import HostFacts
from atoll.drivers.podman.layout import Owner

INSTANCE = "abcde"
OWNER = Owner("ann", 1001, 1001, (1001, 2000), own=False)
FACTS = HostFacts(
    4000, 8 << 30, rootless=False, controllers=frozenset({"cpu", "memory", "pids"}), version="4.3.1", arch="amd64",
    runtime="runc", hostname="host",
)  # fmt: skip


def launch(spec: dict[str, Any] | None = None, **values: Any) -> Launch:
    usual: dict[str, Any] = {
        "attempt_id": new_attempt_id(INSTANCE), "job_id": 7, "task": None, "task_count": 1, "number": 1,
        "checkpoint_key": "job-7", "person": "ann", "project": "physics", "account": "ann",
        "spec": JobSpec.model_validate({"command": ["true"], **(spec or {})}),
        "request": Resources(cpu=500, memory=256 << 20), "nodes": 1, "walltime": None,
    }  # fmt: skip
    return Launch(**(usual | values))
