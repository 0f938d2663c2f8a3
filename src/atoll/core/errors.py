"""What can go wrong, as one tree, branched by what the caller can do about it.

AtollError
├── Invalid       the request is wrong: change it
├── Denied        this person may not do that: ask for the right, or log in
├── NotFound      there is no such thing (or not for this person)
├── Conflict      the thing is not in a state that allows it: look again, then decide
├── Exhausted     a limit is reached: later, or less          (retry_after)
├── Unavailable   a part does not answer: later                (retry_after)
└── Internal      a fault of Atoll itself: report it

Each carries a code for programs, one sentence for people, and the field or object meant.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class AtollError(Exception):
    """Base of all errors that Atoll tells a caller about.

    `code` is a stable snake_case word, `sentence` one sentence that says what was wrong, where, and what to do,
    `field` the dotted path of the field or the name of the object meant.
    """

    status: ClassVar[int] = 500
    """HTTP status of this branch."""
    exit_code: ClassVar[int] = 70
    """Exit status of the command line for this branch, after sysexits.h."""
    title: ClassVar[str] = "Error"

    def __init__(self, code: str, sentence: str, *, field: str | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.field = field

    def problem(self) -> dict[str, Any]:
        """The error as an RFC 9457 problem document."""
        document: dict[str, Any] = {
            "type": f"urn:atoll:error:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.sentence,
            "code": self.code,
        }
        if self.field is not None:
            document["field"] = self.field
        return document


class Invalid(AtollError):
    """The request is wrong. `errors` lists every field that is, as (field, sentence) pairs."""

    status = 422
    exit_code = 65
    title = "The request is not valid"

    def __init__(
        self, code: str, sentence: str, *, field: str | None = None, errors: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(code, sentence, field=field)
        self.errors = errors

    def problem(self) -> dict[str, Any]:
        """The problem document, with every wrong field."""
        document = super().problem()
        if self.errors:
            document["errors"] = [{"field": field, "detail": detail} for field, detail in self.errors]
        return document


class Denied(AtollError):
    """The person may not do this."""

    status = 403
    exit_code = 77
    title = "Not allowed"


class Unauthenticated(Denied):
    """Nobody knows who is asking: the token is missing, wrong, expired or revoked."""

    status = 401
    title = "Not logged in"


class NotFound(AtollError):
    """There is no such thing, or none that this person may know of."""

    status = 404
    exit_code = 66
    title = "Not found"


class Conflict(AtollError):
    """The thing is not in a state that allows this."""

    status = 409
    exit_code = 75
    title = "Conflict"


class _Later(AtollError):
    def __init__(self, code: str, sentence: str, *, field: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(code, sentence, field=field)
        self.retry_after = retry_after

    def problem(self) -> dict[str, Any]:
        document = super().problem()
        if self.retry_after is not None:
            document["retry_after"] = self.retry_after
        return document


class Exhausted(_Later):
    """A limit is reached. `retry_after` is in seconds, None where waiting does not help."""

    status = 429
    exit_code = 75
    title = "A limit is reached"


class TooLarge(Exhausted):
    """What was sent is larger than the platform takes."""

    status = 413
    exit_code = 65
    title = "Too large"


class Unavailable(_Later):
    """A part that is needed does not answer now. `retry_after` is in seconds."""

    status = 503
    exit_code = 69
    title = "Not available now"


class Internal(AtollError):
    """A fault of Atoll itself."""

    title = "Internal error"


_BRANCHES: tuple[type[AtollError], ...] = (
    Invalid, Denied, Unauthenticated, NotFound, Conflict, Exhausted, TooLarge, Unavailable, Internal,
)  # fmt: skip


def from_problem(document: Mapping[str, Any]) -> AtollError:
    """The error that a problem document tells of; the inverse of `AtollError.problem`."""
    status = document.get("status", 500)
    branch = next((branch for branch in _BRANCHES if branch.status == status), Internal)
    code = str(document.get("code", "unknown"))
    sentence = str(document.get("detail") or document.get("title") or f"The platform answered {status}.")
    field = document.get("field")
    if issubclass(branch, Invalid):
        pairs = tuple((str(item["field"]), str(item["detail"])) for item in document.get("errors", ()))
        return branch(code, sentence, field=field, errors=pairs)
    if issubclass(branch, _Later):
        return branch(code, sentence, field=field, retry_after=document.get("retry_after"))
    return branch(code, sentence, field=field)
