"""What the API says of persons and tokens."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from atoll.core.spec import Text

LONGEST_SECONDS = 10 * 366 * 86400


class Me(BaseModel):
    """Who asks."""

    person: str
    administrator: bool


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
