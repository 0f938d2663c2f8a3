"""A site as its operator configures it: the file that `atoll site add` takes."""

import re
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from atoll.core.documents import read_yaml
from atoll.core.errors import Invalid
from atoll.core.spec import Document, JobClass, Name, Text, explain_validation

SAME_NAME = "same-name"
SHARED = "shared"
_PERSON = "{person}"
# No account may look like an option, and none may carry what a shell or a path would take for its own.
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,254}")


def _may_be(account: str, person: str) -> bool:
    """Whether a person may have the account: nobody but the person `root`, who runs the platform, is given root's."""
    return _ACCOUNT.fullmatch(account) is not None and (account != "root" or person == "root")


def _check_map(value: Any) -> Any:
    if isinstance(value, dict):
        for person, account in value.items():
            if not isinstance(person, str) or not isinstance(account, str) or not _may_be(account, person):
                raise ValueError(f"the account {str(account)[:80]!r} of {str(person)[:80]!r} is not one that can be")
    elif not isinstance(value, str) or (value != SAME_NAME and value.count(_PERSON) != 1):
        raise ValueError("must be same-name, a table of persons and accounts, or a text with {person} in it")
    return value


class Identity(Document):
    """As which account of the site each person's jobs run: by `map`, or all as the site's own account (`shared`)."""

    map: Annotated[
        Any,
        BeforeValidator(_check_map),
        Field(description="same-name; a table of persons and accounts; or a text with {person}, as in hpc-{person}."),
    ] = None
    shared: bool = False

    @model_validator(mode="before")
    @classmethod
    def _read_word(cls, value: Any) -> Any:
        if value in (SHARED, {"shared": True}):
            return {"shared": True}
        if isinstance(value, dict) and value.get("map") is not None and not value.get("shared"):
            return value
        raise ValueError("must be shared, or {map: same-name}, {map: {PERSON: ACCOUNT}} or {map: a-text-with-{person}}")

    @model_serializer
    def _write_word(self) -> Any:
        return SHARED if self.shared else {"map": self.map}

    def account_of(self, person: str) -> str | None:
        """The person's account; None where the person has none, and where all share the site's own."""
        if self.shared:
            return None
        if isinstance(self.map, dict):
            return self.map.get(person)
        account = person if self.map == SAME_NAME else self.map.replace(_PERSON, person)
        return account if _may_be(account, person) else None

    def serves(self, person: str) -> bool:
        """Whether the person's jobs may run here."""
        return self.shared or self.account_of(person) is not None


class Price(Document):
    """What an hour of one CPU, and of one GPU, costs: in money of one kind for all sites."""

    cpu: Annotated[float, Field(ge=0, le=1e6)] = 0
    gpu: Annotated[float, Field(ge=0, le=1e6)] = 0


class SiteFile(Document):
    """All that an operator says of a site."""

    name: Name
    driver: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
    labels: Annotated[dict[Name, Name], Field(default_factory=dict, description="What constraints are held against.")]
    identity: Annotated[
        Identity | None,
        WithJsonSchema(
            {
                "anyOf": [
                    {"const": SHARED},
                    {"type": "null"},
                    {
                        "type": "object",
                        "required": ["map"],
                        "additionalProperties": False,
                        "properties": {
                            "map": {
                                "anyOf": [
                                    {"type": "string"},
                                    {"type": "object", "additionalProperties": {"type": "string"}},
                                ]
                            },
                        },
                    },
                ]
            }
        ),
        Field(description="Accounts of persons. shared: everybody's jobs run as one. Default: the owner's jobs only."),
    ] = None
    backlog: Annotated[
        dict[JobClass, Annotated[int, Field(ge=0, le=1_000_000)]],
        Field(default_factory=dict, description="How many attempts of each class may wait in the engine's own queue."),
    ]
    clearance: Annotated[
        list[Text],
        Field(default_factory=list, max_length=100, description="The words of projects whose data may be here."),
    ]
    price: Annotated[Price | None, Field(description="What an hour of a CPU or GPU costs. Default: nothing.")] = None
    energy: Annotated[
        float | None, Field(ge=0, le=1e6, description="Grams of CO2e in a kWh of the electricity that is used there.")
    ] = None
    config: Annotated[dict[str, Any], Field(default_factory=dict, description="The driver's own settings.")]


_KNOWN = {"": list(SiteFile.model_fields), "identity": ["map"], "price": list(Price.model_fields)}


def read_site(document: Any) -> SiteFile:
    """The site that plain data says. Raises Invalid, naming the field."""
    if not isinstance(document, dict):
        names = ", ".join(SiteFile.model_fields)
        sentence = f"A site must be keys and values: {names}."
        raise Invalid("bad_site", sentence, field="site")
    try:
        return SiteFile.model_validate(document)
    except ValidationError as error:
        raise explain_validation(error, _KNOWN, "site", "") from None


def read_site_file(text: bytes, where: str) -> SiteFile:
    """The site that a YAML or JSON file says; `where` names it in errors. Raises Invalid."""
    return read_site(read_yaml(text, where))
