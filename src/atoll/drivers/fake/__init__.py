"""A site that is only played, on whatever clock it is given: for tests, demonstrations and simulation."""

from atoll.drivers.fake.behaviour import (
    HONEST,
    Behaviour,
    forgetful,
    glancing,
    refusing,
    slow,
    unanswering,
    vanished,
)  # fmt: skip
from atoll.drivers.fake.driver import FakeDriver
from atoll.drivers.fake.engine import Engine

__all__ = [
    "HONEST", "Behaviour", "Engine", "FakeDriver", "forgetful", "glancing", "refusing", "slow", "unanswering",
    "vanished",
]  # fmt: skip
