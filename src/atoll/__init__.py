"""Atoll's typed client: `atoll.Client`, `atoll.AsyncClient` and the words that they speak.

Everything is imported when it is first asked for, so that `import atoll`, and with it the command line, starts quickly.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atoll.client.asynchronous import AsyncClient as AsyncClient
    from atoll.client.models import Attempt as Attempt
    from atoll.client.models import Job as Job
    from atoll.client.models import JobSummary as JobSummary
    from atoll.client.models import Site as Site
    from atoll.client.models import Submitted as Submitted
    from atoll.client.models import Token as Token
    from atoll.client.models import Why as Why
    from atoll.client.synchronous import Client as Client
    from atoll.core.errors import AtollError as AtollError
    from atoll.core.errors import Conflict as Conflict
    from atoll.core.errors import Denied as Denied
    from atoll.core.errors import Exhausted as Exhausted
    from atoll.core.errors import Internal as Internal
    from atoll.core.errors import Invalid as Invalid
    from atoll.core.errors import NotFound as NotFound
    from atoll.core.errors import Unavailable as Unavailable
    from atoll.core.spec import JobSpec as JobSpec
    from atoll.core.states import JobState as JobState
    from atoll.core.states import Outcome as Outcome

    __version__: str

_HOMES = {
    "atoll.client.asynchronous": ("AsyncClient",),
    "atoll.client.models": ("Attempt", "Job", "JobSummary", "Site", "Submitted", "Token", "Why"),
    "atoll.client.synchronous": ("Client",),
    "atoll.core.errors": (
        "AtollError", "Conflict", "Denied", "Exhausted", "Internal", "Invalid", "NotFound", "Unavailable",
    ),
    "atoll.core.spec": ("JobSpec",),
    "atoll.core.states": ("JobState", "Outcome"),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncClient", "AtollError", "Attempt", "Client", "Conflict", "Denied", "Exhausted", "Internal", "Invalid", "Job",
    "JobSpec", "JobState", "JobSummary", "NotFound", "Outcome", "Site", "Submitted", "Token", "Unavailable", "Why",
    "__version__",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            value: Any = version("atoll")
        except PackageNotFoundError:  # run from a folder, not installed
            value = "0+unknown"
    elif name in _HOME_OF:
        value = getattr(import_module(_HOME_OF[name]), name)
    else:
        raise AttributeError(f"module 'atoll' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
