"""Errors as the API tells them: RFC 9457 problem documents, whatever went wrong."""

import json
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from atoll.core.errors import AtollError, Denied, Invalid, NotFound, TooLarge, Unavailable

log = logging.getLogger(__name__)
_PARAMETER = re.compile(r"\{\w+\}")
MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str
    detail: str


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    model_config = ConfigDict(extra="forbid")
    type: str = Field(description="urn:atoll:error: and the code.")
    title: str
    status: int
    detail: str = Field(description="One sentence: what was wrong, where, and what to do.")
    code: str = Field(description="A stable word for programs.")
    field: str | None = Field(default=None, description="Dotted path of the field, or name of the object meant.")
    errors: list[FieldProblem] | None = None
    retry_after: float | None = Field(default=None, description="Seconds.")


_DESCRIPTIONS = {
    401: "The token is missing, wrong, expired or revoked, and nobody is logged in.",
    403: "This person may not do that, or a page of another origin asks.",
    404: "There is no such thing, or none that this person may know of.",
    409: "The thing is not in a state that allows this.",
    413: "What was sent is larger than the platform takes.",
    415: "The body has another media type than this takes.",
    422: "The request is not valid; `errors` names each field that is wrong.",
    429: "A limit is reached.",
    500: "A fault of Atoll itself.",
    503: "A part that is needed does not answer now.",
}


_NO_HTTP = {
    "description": "The server cannot read the request, for example because its address is longer than 64 KiB.",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers in case of an error, for `responses`; 400, 401, 403, 422, 500 and 503 are always among them."""
    reference = {"schema": {"$ref": "#/components/schemas/Problem"}}
    found: dict[int | str, dict[str, Any]] = {400: _NO_HTTP}
    return found | {
        status: {"description": _DESCRIPTIONS[status], "content": {MEDIA_TYPE: reference}}
        for status in sorted({401, 403, 422, 500, 503, *statuses})
    }


class UnsupportedMedia(Invalid):
    """The body is of a media type that the operation does not take."""

    status = 415
    title = "Another media type is needed"


class NotAllowed(Invalid):
    """The path exists, the method does not."""

    status = 405
    title = "Not a method of this path"


def problem_response(error: AtollError, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that tells of `error`."""
    fields = dict(headers or {})
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        fields["retry-after"] = str(max(1, round(retry_after)))
    if error.status == 401:
        fields["www-authenticate"] = "Bearer"
    content = json.dumps(error.problem(), ensure_ascii=True)
    return Response(content, error.status, fields, MEDIA_TYPE)


def from_validation(errors: Iterable[Mapping[str, Any]]) -> Invalid:
    """FastAPI's list of what is wrong with the parameters, as one error that names each."""
    found = []
    for item in errors:
        place = ".".join(str(part) for part in item["loc"][1:]) or str(item["loc"][0])
        message = str(item["msg"]).removeprefix("Value error, ").rstrip(".") + "."
        if item["type"] == "missing":
            message = "This is required."
        found.append((place, message[:1].upper() + message[1:]))
    field, message = found[0]
    return Invalid("invalid_request", f"{field}: {message}", field=field, errors=tuple(found))


def answer(error: Exception) -> Response | None:
    """What is answered where `error` was raised; None where it is none of the errors that are expected."""
    if isinstance(error, AtollError):
        if error.status >= 500 and not isinstance(error, Unavailable):
            log.error("internal error: %s", error, exc_info=error)
        return problem_response(error)
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)  # nobody will read it
    return None


def fault() -> Response:
    """What is answered where Atoll made a mistake: what is inside is nobody else's business."""
    return problem_response(AtollError("internal", "Atoll made a mistake; its operator finds the details in the log."))


async def _on_error(_request: Request, error: Exception) -> Response:
    return answer(error) or fault()


async def _on_validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem_response(from_validation(error.errors()))


async def _on_http(request: Request, error: Exception) -> Response:
    """Starlette's own errors: no such path, no such method, a body that cannot be read."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    translated: AtollError
    if error.status_code == 404:
        translated = NotFound("no_such_path", f"There is nothing at {path}; /api/v1/openapi.json lists what there is.")
    elif error.status_code == 405:
        allowed = _allowed(request.app, request.url.path)
        takes = f"; it takes {allowed}" if allowed else ""
        translated = NotAllowed("no_such_method", f"{path} does not take {request.method[:20]}{takes}.")
        return problem_response(translated, {"allow": allowed} if allowed else error.headers)
    elif error.status_code == 413:
        translated = TooLarge("too_large", str(error.detail))
    elif error.status_code in (401, 403):
        translated = Denied("denied", str(error.detail))
    else:
        translated = Invalid("bad_request", str(error.detail))
    return problem_response(translated, error.headers)


def _allowed(app: FastAPI, path: str) -> str:
    """The methods that a path takes, by the document; Starlette's own answer names those of one route only."""
    paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
    found = [paths[path]] if path in paths else [
        operations for template, operations in paths.items()
        if re.fullmatch(_PARAMETER.sub(_any_value, template), path)
    ]  # fmt: skip
    return ", ".join(sorted({method.upper() for operations in found for method in operations}))


def _any_value(parameter: re.Match[str]) -> str:
    return ".+" if parameter[0] == "{path}" else "[^/]+"


async def _on_fault(_request: Request, _error: Exception) -> Response:
    return fault()  # the error itself is logged by the server


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem document."""
    app.add_exception_handler(AtollError, _on_error)
    app.add_exception_handler(ClientDisconnect, _on_error)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_fault)
