"""How a room registers its commands: each is given a client, and the options that all of them have."""

import inspect
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from atoll.core.errors import AtollError, Invalid
from atoll.faces.terminal.output import Format, hint

if TYPE_CHECKING:
    from atoll.client.synchronous import Client
    from atoll.core.ids import JobRef

T = TypeVar("T")
TIMEOUT_VARIABLE = "ATOLL_TIMEOUT"

Output = Annotated[
    Format,
    typer.Option("-o", "--format", help="Form of the result.", case_sensitive=False),
]
"""The option for the form of the result."""
Jobs = Annotated[list[str], typer.Argument(metavar="JOB", help="12, 12[3] or 12[3,7-9].", show_default=False)]
"""One or more jobs, tasks or sets of tasks."""
OneJob = Annotated[str, typer.Argument(metavar="JOB", help="12, or one task as in 12[3].", show_default=False)]
"""One job or task."""

_URL = inspect.Parameter(
    "url",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help="The platform. Default: ATOLL_URL, or that of ATOLL_DATA, of the "
                     "login file, of ./atoll-data.", show_default=False),
    ],
)  # fmt: skip
_TIMEOUT = inspect.Parameter(
    "timeout",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", min=0, help="How long to try where the platform does not answer. "
                     "Default: ATOLL_TIMEOUT, or 15; 600 for those who wait and follow.", show_default=False),
    ],
)  # fmt: skip


def command(
    app: typer.Typer, name: str, *, more: Callable[..., Any] | None = None, lazy: bool = False, **settings: Any
) -> Callable[[Callable[..., None]], None]:
    """Register a function as the command `name` of `app`.

    Its first parameter is the client, or, where it is `lazy`, a function that makes one; the rest are its own. The
    parameters of `more` are options too, and given to it as keywords.
    """

    def register(function: Callable[..., None]) -> None:
        own = list(inspect.signature(function).parameters.values())[1:]
        own = [parameter for parameter in own if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
        own += inspect.signature(more).parameters.values() if more is not None else []

        def run(*, url: str | None, timeout: float | None, **values: Any) -> None:
            if lazy:
                function(lambda: connect(url, timeout), **values)
                return
            with connect(url, timeout) as client:
                function(client, **values)

        run.__doc__ = function.__doc__
        run.__name__ = function.__name__
        run.__annotations__ = {}
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + [_URL, _TIMEOUT]
        )
        app.command(name, **settings)(run)

    return register


def connect(url: str | None = None, timeout: float | None = None) -> "Client":
    """The client for what flags and environment say. Raises AtollError."""
    from atoll.client.retry import PATIENCE, WATCH_PATIENCE
    from atoll.client.synchronous import Client

    given = timeout if timeout is not None else _timeout_of_environment()
    return Client(
        url,
        patience=PATIENCE if given is None else given,
        endurance=WATCH_PATIENCE if given is None else given,
        on_trouble=hint,
    )


def _timeout_of_environment() -> float | None:
    text = os.environ.get(TIMEOUT_VARIABLE)
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        raise Invalid(
            "bad_timeout", f"{TIMEOUT_VARIABLE}: {text!r} is no number of seconds.", field=TIMEOUT_VARIABLE
        ) from None


def references(jobs: list[str]) -> "list[JobRef]":
    """The jobs that were named. Raises Invalid before anything is done."""
    from atoll.core.ids import JobRef

    return [JobRef.parse(job) for job in jobs]


MOST_TASKS = 10_000
"""Tasks that a command takes one by one."""


def single_tasks(jobs: list[str]) -> "list[JobRef]":
    """The jobs that were named, sets of tasks taken apart. Raises Invalid."""
    from atoll.core.ids import JobRef
    from atoll.core.ranges import Ranges

    single: list[JobRef] = []
    for ref in references(jobs):
        if ref.tasks is None:
            single.append(ref)
            continue
        if len(ref.tasks) > MOST_TASKS:
            raise Invalid("too_many_tasks", f"{ref} names more than {MOST_TASKS} tasks; name fewer.", field="job")
        single += [JobRef(ref.job, Ranges.of([task])) for task in ref.tasks]
    return single


def for_each(things: Sequence[T], action: Callable[[T], None]) -> None:
    """Do it for each, whatever becomes of the others. Raises the last error after all were tried."""
    failed: AtollError | None = None
    for thing in things:
        try:
            action(thing)
        except AtollError as error:
            if failed is not None:
                hint(failed.sentence)
            failed = error
    if failed is not None:
        raise failed
