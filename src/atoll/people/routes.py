"""HTTP: who am I, and my tokens."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import JSONResponse, Response

from atoll.core.clock import to_micros
from atoll.faces.http.auth import Authenticator, Caller, Here
from atoll.faces.http.body import read_json
from atoll.faces.http.problems import problems
from atoll.faces.http.times import moment, moment_or_none
from atoll.people import service
from atoll.people.model import Me, TokenRequest, Tokens, TokenWithText
from atoll.store import people

router = APIRouter(tags=["people"])
TokenId = Annotated[str, Path(pattern=r"^[0-9a-f]{1,16}$")]


def _document(row: Any) -> dict[str, Any]:
    return {
        "id": row.id, "person": row.person, "name": row.name, "created_at": moment(row.created_at),
        "expires_at": moment_or_none(row.expires_at),
    }  # fmt: skip


@router.get("/me", response_model=Me, responses=problems())
async def who_am_i(who: Caller) -> Response:
    """Whose token this is, or who is logged in."""
    found = {"person": who.person, "administrator": who.administrator, "token_id": who.token_id}
    return JSONResponse(found)


@router.get("/tokens", response_model=Tokens, responses=problems())
async def list_tokens(who: Caller, platform: Here) -> Response:
    """One's valid tokens; an administrator sees everybody's."""
    person = None if who.administrator else who.person
    rows = await platform.database.read(lambda connection: people.list_tokens(connection, person))
    return JSONResponse({"items": [_document(row) for row in rows]})


@router.post(
    "/tokens", response_model=TokenWithText, status_code=201, responses=problems(403, 413, 415),
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {
        "schema": {"$ref": "#/components/schemas/TokenRequest"}}}}},
)  # fmt: skip
async def create_token(request: Request, who: Caller, platform: Here) -> Response:
    """Make a token. Its text is in this answer and nowhere else."""
    wanted = await read_json(request, TokenRequest)
    now = to_micros(platform.clock())
    expires_at = now + wanted.expires_in * 1_000_000 if wanted.expires_in is not None else None
    token = await platform.database.write(
        lambda connection: service.create_token(connection, who, wanted.name, expires_at, wanted.person, now)
    )
    return JSONResponse({**_document(token), "token": token.text}, 201, {"cache-control": "no-store"})


@router.delete("/tokens/{token_id}", status_code=204, response_class=Response, responses=problems(404))
async def revoke_token(request: Request, token_id: TokenId, who: Caller, platform: Here) -> Response:
    """End a token: at once here, within two seconds at other replicas."""
    now = to_micros(platform.clock())
    await platform.database.write(lambda connection: service.revoke_token(connection, who, token_id, now))
    authenticator: Authenticator = request.app.state.authenticator
    await authenticator.forget()
    return Response(status_code=204)
