"""The job that a session is: the relay's agent, and behind it the server, reached by people and reaching the hub."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atoll.control.relay import AGENT, PORT_NAME, random_port
from atoll.core.errors import Invalid
from atoll.core.spec import JobClass

TOKEN_FILE = "hub-token"  # noqa: S105  (its name)
CHOICES = ("cpu", "memory", "gpu", "walltime", "project", "flavor", "environment", "constraints", "volumes", "priority")
"""What of a job people may choose for their session."""
_REACHED_OTHERWISE = frozenset({
    "JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN", "JUPYTERHUB_API_URL", "JUPYTERHUB_ACTIVITY_URL", "JUPYTERHUB_SERVICE_URL",
})  # fmt: skip
"""Variables that the hub makes for servers beside it: secrets, and addresses that only the agent knows."""
_START = 'JUPYTERHUB_API_TOKEN=$(cat "$0") && export JUPYTERHUB_API_TOKEN && exec "$@"'


@dataclass(frozen=True)
class Session:
    """A server as the hub wants it; paths are those of URLs."""

    name: str
    command: Sequence[str]
    hub_api: str
    activity: str
    prefix: str
    """Below which the server answers."""
    environment: Mapping[str, str | None]
    labels: Mapping[str, str]
    fields: Mapping[str, Any] = field(default_factory=dict)
    """What else the job is to have: resources, environment, project."""


def check_choices(choices: Mapping[str, Any]) -> dict[str, Any]:
    """What a person chose, as fields of the job. Raises Invalid, naming what may be chosen."""
    for name in choices:
        if name not in CHOICES:
            raise Invalid(
                "unknown_choice", f"{name!r} cannot be chosen for a session; choose of: {', '.join(CHOICES)}.",
                field=name,
            )  # fmt: skip
    return {name: value for name, value in choices.items() if value not in ("", None)}


def document(session: Session, agent: str, token: str) -> dict[str, Any]:
    """The job specification; `agent` and `token` are the SHA-256 of the files of that content, already sent.

    The token goes as a file: a specification is shown to people, and one that is shown must hold no secret.
    """
    port = random_port()
    words = ["python3", AGENT.name, "--port", str(port)]
    words += ["--server-url", f"JUPYTERHUB_SERVICE_URL={session.prefix}"]
    words += ["--reverse-url", f"JUPYTERHUB_API_URL={session.hub_api}"]
    words += ["--reverse-url", f"JUPYTERHUB_ACTIVITY_URL={session.activity}"]
    words += ["--", "sh", "-c", _START, TOKEN_FILE, *session.command]
    variables = {
        name: value for name, value in session.environment.items()
        if value is not None and name not in _REACHED_OTHERWISE
    }  # fmt: skip
    own = dict(session.fields)
    return {
        **own,
        "name": session.name,
        "class": JobClass.INTERACTIVE.value,
        "command": words,
        "env": {**variables, **own.get("env", {})},
        "ports": [*own.get("ports", []), {"name": PORT_NAME, "port": port}],
        "labels": {**own.get("labels", {}), **session.labels},
        "files_in": [
            *own.get("files_in", []), {"path": AGENT.name, "sha256": agent}, {"path": TOKEN_FILE, "sha256": token},
        ],
    }  # fmt: skip
