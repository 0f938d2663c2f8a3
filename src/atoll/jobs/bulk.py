"""Many specifications in one body, read straight from its bytes."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from atoll.core.spec import JobSpec, explain_validation

MOST_JOBS = 10_000


class _Bulk(BaseModel):
    model_config = ConfigDict(extra="forbid")
    jobs: Annotated[list[JobSpec], Field(min_length=1, max_length=MOST_JOBS)]


_reader = TypeAdapter(_Bulk)
_KNOWN = {"": ["jobs"], "jobs": [field.alias or name for name, field in JobSpec.model_fields.items()]}


def read_bulk(text: bytes) -> list[JobSpec]:
    """The specifications. Raises Invalid, naming each field that is wrong with its job's place: `jobs.3.cpu`."""
    try:
        return _reader.validate_json(text).jobs
    except ValidationError as error:
        raise explain_validation(error, _KNOWN, "job") from None
