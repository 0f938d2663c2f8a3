"""The OpenAPI document: what FastAPI finds out by itself, and the bodies that routes read on their own."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from atoll.core.site_file import SiteFile
from atoll.core.spec import JobSpec
from atoll.faces.http.problems import Problem
from atoll.jobs.change import JobChanges
from atoll.jobs.model import SignalRequest
from atoll.people.model import DeviceQuestion, DeviceRequest, PersonChange, PersonRequest, TokenRequest
from atoll.queue.model import PeopleChange, ReservationRequest, TreeRequest
from atoll.sites.routes import SiteChange

_BODIES: tuple[type[BaseModel], ...] = (
    JobSpec, JobChanges, SignalRequest, SiteChange, SiteFile, TokenRequest, TreeRequest, PeopleChange,
    ReservationRequest, PersonRequest, PersonChange, DeviceRequest, DeviceQuestion, Problem,
)  # fmt: skip
_LINKS = (
    (("/api/v1/jobs", "post"), "id", "$response.body#/id"),
    (("/api/v1/tokens", "post"), "token_id", "$response.body#/id"),
    (("/api/v1/files/{sha256}", "put"), "sha256", "$response.body#/sha256"),
)
"""What the answers to a creation are good for: (path, method), the parameter that takes a part of it, which part."""
_TEMPLATE = "#/components/schemas/{model}"


def _link(paths: dict[str, Any], path: str, method: str, parameter: str, found: str) -> None:
    """Say in the document that an answer has what other operations take as `parameter`."""
    links = {
        operation["operationId"]: {"operationId": operation["operationId"], "parameters": {parameter: found}}
        for place, methods in paths.items()
        for other, operation in methods.items()
        if f"{{{parameter}}}" in place and (place, other) != (path, method)
    }
    for status, answer in paths[path][method]["responses"].items():
        if status in ("200", "201"):
            answer["links"] = links


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
        for answered, parameter, found in _LINKS:
            _link(made["paths"], *answered, parameter, found)
        app.openapi_schema = made
    return app.openapi_schema
