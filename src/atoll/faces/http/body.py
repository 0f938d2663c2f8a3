"""Bodies of requests: how large they may be, and reading JSON."""

import asyncio
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atoll.core.errors import Invalid, TooLarge
from atoll.core.spec import explain_validation
from atoll.faces.http.problems import UnsupportedMedia, problem_response

Model = TypeVar("Model", bound=BaseModel)
JSON_LIMIT = 32 << 20
"""Bytes that a JSON body may have."""
_DRAIN_LIMIT = 1 << 30
_DRAIN_SECONDS = 30.0


class BodyLimit:
    """ASGI middleware that refuses bodies beyond `JSON_LIMIT`, except on paths that stream files."""

    def __init__(self, app: ASGIApp, streaming_prefix: str) -> None:
        self._app = app
        self._streaming_prefix = streaming_prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"].startswith(self._streaming_prefix):
            await self._app(scope, receive, send)
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and int(length) > JSON_LIMIT:
            # the sender sees the answer only when it is done sending, so most of it is taken and dropped
            await _drain(receive)
            await problem_response(_too_large(), {"connection": "close"})(scope, receive, send)
            return
        await self._app(scope, _counting(receive), send)


def _counting(receive: Receive) -> Receive:
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        if message["type"] == "http.request":
            size += len(message.get("body", b""))
            if size > JSON_LIMIT:
                raise _too_large()
        return message

    return counted


def _too_large() -> TooLarge:
    return TooLarge(
        "body_too_large",
        f"The request is larger than the {JSON_LIMIT >> 20} MiB allowed; send fewer jobs at once, "
        "and files with PUT /api/v1/files.",
    )


async def _drain(receive: Receive) -> None:
    taken = 0
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while taken < _DRAIN_LIMIT:
                message = await receive()
                taken += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
    except TimeoutError:
        return


async def json_body(request: Request) -> bytes:
    """The JSON text that a request has. Raises UnsupportedMedia where it says that it is something else."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type and content_type != "application/json" and not content_type.endswith("+json"):
        raise UnsupportedMedia(
            "not_json", f"The body is {content_type[:100]!r}; send JSON with Content-Type: application/json.",
            field="Content-Type",
        )  # fmt: skip
    return await request.body()


async def read_json(request: Request, model: type[Model]) -> Model:
    """The body as `model`. Raises Invalid, naming each field that is wrong."""
    text = await json_body(request)
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        known = {"": [field.alias or name for name, field in model.model_fields.items()]}
        raise explain_validation(error, known, "request") from None


def idempotency_key(request: Request) -> str | None:
    """The header Idempotency-Key, None where there is none. Raises Invalid for one that cannot be kept."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 0 < len(key) <= 255 or not key.isascii() or not key.isprintable():
        raise Invalid(
            "bad_idempotency_key",
            "Idempotency-Key must be 1 to 255 printable ASCII characters, for example a UUID.",
            field="Idempotency-Key",
        )
    return key
