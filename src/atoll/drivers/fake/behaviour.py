"""How a fake site misbehaves. Each bad habit has a name; several at once are a `Behaviour` with several fields."""

from typing import Annotated

from pydantic import Field

from atoll.core.spec import Document

Duration = Annotated[float, Field(ge=0)]


class Behaviour(Document):
    """What a fake site does other than it should; by default nothing. Times are in seconds."""

    delay: Duration = 0.0
    """How long each call takes."""
    vanished: str | None = None
    """Set: no call is answered, with this message. What runs goes on."""
    refuses: str | None = None
    """Set: nothing new is taken, with this message."""
    refuses_for_good: bool = True
    """Whether a refusal is permanent."""
    answers: bool = True
    """False: whoever submits never learns whether the attempts arrived."""
    lands_after: Duration | None = 0.0
    """When attempts arrive that were not answered; None: never."""
    sees_all: bool = True
    """False: an observation holds every other attempt only, and says that it is not complete."""
    remembers: Duration | None = None
    """How long an ended attempt is known; None: until it is told to forget it."""


class Outage(Document):
    """When a fake site is not to be reached for a while, again and again. Times are in seconds."""

    after: Duration = 0.0
    """How long after the site's beginning it comes first."""
    lasts: Annotated[float, Field(gt=0)]
    every: Annotated[float, Field(gt=0)] | None = None
    """How long after one began the next does; None: there is only one."""
    message: str = "The connection was refused."

    def is_on(self, age: float) -> bool:
        """Whether it is on when the site is `age` seconds old."""
        since = age - self.after
        return since >= 0 and (since if self.every is None else since % self.every) < self.lasts


HONEST = Behaviour()


def slow(seconds: float) -> Behaviour:
    """Each call takes `seconds`."""
    return Behaviour(delay=seconds)


def vanished(message: str = "The connection was refused.") -> Behaviour:
    """No call is answered, while what runs goes on."""
    return Behaviour(vanished=message)


def refusing(message: str = "The queue is closed.", *, for_good: bool = True) -> Behaviour:
    """Nothing new is taken."""
    return Behaviour(refuses=message, refuses_for_good=for_good)


def unanswering(lands_after: float | None = 0.0) -> Behaviour:
    """Submissions are not answered, and land `lands_after` seconds later, or (None) never."""
    return Behaviour(answers=False, lands_after=lands_after)


def glancing() -> Behaviour:
    """Observations are incomplete."""
    return Behaviour(sees_all=False)


def forgetful(seconds: float = 0.0) -> Behaviour:
    """Ended attempts are no longer known after `seconds`."""
    return Behaviour(remembers=seconds)
