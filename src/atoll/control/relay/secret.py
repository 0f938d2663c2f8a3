"""Which jobs the relay carries streams for, and the secrets that it shares with their attempts."""

import hashlib
import hmac
import random

from atoll.control.relay.agent import CANDIDATES, SECRET_VARIABLE
from atoll.core.spec import JobSpec

PORT_NAME = "relay"
"""The name of a job's port at which its agent listens."""
_LOWEST, _HIGHEST = 10_000, 32_000
"""Above the ports of well-known programs, below those that Linux gives to outgoing connections."""


def random_port() -> int:
    """A port for the agent of a new job; it makes do with one close to it where several jobs share a node."""
    return random.randrange(_LOWEST, _HIGHEST, CANDIDATES)


def relayed_port(spec: JobSpec) -> int | None:
    """The number of the job's port named `relay`; None where the relay has nothing to do with it."""
    if spec.array is not None:
        return None
    return next((port.port for port in spec.ports if port.name == PORT_NAME), None)


def secret_of(key: str, attempt_id: str) -> str:
    """The secret of one attempt, 64 hex digits, made of the platform's `key`: who knows one knows no other."""
    return hmac.new(key.encode(), f"relay {attempt_id}".encode(), hashlib.sha256).hexdigest()


def secret_environment(attempt_id: str, key: str) -> dict[str, str]:
    """The variable in which the agent of an attempt finds its secret."""
    return {SECRET_VARIABLE: secret_of(key, attempt_id)}
