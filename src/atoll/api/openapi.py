"""The OpenAPI document: what FastAPI finds out by itself, and the bodies that routes read on their own."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from atoll.core.spec import JobSpec
from atoll.faces.http.problems import Problem
from atoll.jobs.change import JobChanges
from atoll.jobs.model import SignalRequest
from atoll.people.model import TokenRequest

_BODIES: tuple[type[BaseModel], ...] = (JobSpec, JobChanges, SignalRequest, TokenRequest, Problem)
_TEMPLATE = "#/components/schemas/{model}"


def document(app: FastAPI) -> dict[str, Any]:
    """The document of `app`, made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, openapi_version=app.openapi_version, summary=app.summary,
            description=app.description, routes=app.routes, tags=app.openapi_tags,
        )  # fmt: skip
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        for model in _BODIES:
            schema = model.model_json_schema(ref_template=_TEMPLATE)
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        app.openapi_schema = made
    return app.openapi_schema
