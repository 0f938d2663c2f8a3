"""What the API says of persons, tokens and logins."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from atoll.core.spec import Text

LONGEST_SECONDS = 10 * 366 * 86400


Role = Literal["member", "administrator"]
PERSON = r"^[A-Za-z0-9][A-Za-z0-9._@+-]*$"
"""Names of people who are added: as accounts and mail addresses are written."""
PersonName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=PERSON)]
Machine = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._ @-]*$")]


class Me(BaseModel):
    """Who asks."""

    person: str
    administrator: bool
    token_id: Annotated[str | None, Field(description="The token that was sent; null in a browser.")]


class TokenRequest(BaseModel):
    """A token to make."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[Text, Field(description="For people: what the token is used for.")] = "token"
    expires_in: Annotated[
        int | None, Field(ge=1, le=LONGEST_SECONDS, strict=True, description="Seconds until it ends; null: never.")
    ] = None
    person: Annotated[Text | None, Field(description="Whose token; others than oneself: administrators only.")] = None


class Token(BaseModel):
    """A token, without its text."""

    id: str
    person: str
    name: str
    created_at: str
    expires_at: str | None


class TokenWithText(Token):
    """A token that was just made."""

    token: Annotated[str, Field(description="The text to send as Bearer; shown this once.")]


class Tokens(BaseModel):
    """A list of tokens."""

    items: list[Token]


class Person(BaseModel):
    """An account."""

    person: str
    role: Role
    has_password: Annotated[bool, Field(description="Whether the person has chosen a password.")]
    disabled: bool
    created_at: str


class People(BaseModel):
    """A list of accounts."""

    items: list[Person]


class PersonRequest(BaseModel):
    """An account to add."""

    model_config = ConfigDict(extra="forbid")
    person: Annotated[PersonName, Field(description="Name to log in with.")]
    role: Role = "member"


class PersonChange(BaseModel):
    """What is to change of an account; what is left out stays."""

    model_config = ConfigDict(extra="forbid")
    role: Role | None = None
    disabled: Annotated[bool | None, Field(strict=True)] = None


class Link(BaseModel):
    """A link by which a person chooses a password and is logged in."""

    person: str
    link: Annotated[str, Field(description="Good once; shown only in this answer. A former one is good no more.")]
    expires_at: str


class DeviceRequest(BaseModel):
    """A command line that wants to be let in."""

    model_config = ConfigDict(extra="forbid")
    machine: Annotated[Machine, Field(description="Where it is; the token will have this name.")]


class DeviceCode(BaseModel):
    """What a command line shows, and with what it asks on; as RFC 8628 has it."""

    device_code: Annotated[str, Field(description="Secret: with this the command line asks for its token.")]
    user_code: Annotated[str, Field(description="What the person compares, or types.")]
    verification_uri: str
    verification_uri_complete: str
    expires_in: Annotated[int, Field(description="Seconds.")]
    interval: Annotated[int, Field(description="Seconds to wait between two questions.")]


class DeviceQuestion(BaseModel):
    """A command line asks whether it was let in."""

    model_config = ConfigDict(extra="forbid")
    device_code: Annotated[str, StringConstraints(min_length=1, max_length=100)]
