"""HTTP: accounts, for administrators."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from sqlalchemy import Connection
from starlette.responses import JSONResponse, Response

from atoll.core.clock import to_micros
from atoll.faces.http.auth import Authenticator, Caller, Here, require_administrator
from atoll.faces.http.body import read_json
from atoll.faces.http.origin import own_origin
from atoll.faces.http.problems import problems
from atoll.faces.http.times import moment
from atoll.people import accounts, login
from atoll.people.model import Link, People, Person, PersonChange, PersonRequest
from atoll.store import people

router = APIRouter(tags=["people"])
PersonPath = Annotated[str, Path(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f/]+$")]
_SECRET = {"cache-control": "no-store"}


def _document(row: Any) -> dict[str, Any]:
    return {
        "person": row.name, "role": row.role, "has_password": row.password is not None,
        "disabled": row.disabled_at is not None, "created_at": moment(row.created_at),
    }  # fmt: skip


def _body(model: str) -> Mapping[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _link(request: Request, address: str | None, person: str, made: tuple[str, int]) -> Response:
    secret, until = made
    link = f"{own_origin(request, address)}/login/once/{secret}"
    return JSONResponse({"person": person, "link": link, "expires_at": moment(until)}, 201, _SECRET)


@router.get("/people", response_model=People, responses=problems(403))
async def list_people(who: Caller, platform: Here) -> Response:
    """Everybody who is known. For administrators."""
    require_administrator(who, "see all accounts")
    rows = await platform.database.read(people.list_people)
    return JSONResponse({"items": [_document(row) for row in rows]})


@router.post(
    "/people", response_model=Link, status_code=201, responses=problems(403, 409, 413, 415),
    openapi_extra=dict(_body("PersonRequest")),
)  # fmt: skip
async def add_person(request: Request, who: Caller, platform: Here) -> Response:
    """Add somebody, who is answered with a link to log in by. For administrators."""
    require_administrator(who, "add people")
    wanted = await read_json(request, PersonRequest)
    now = to_micros(platform.clock())
    made = await platform.database.write(
        lambda connection: accounts.add(connection, wanted.person, wanted.role, now, who.person)
    )
    return _link(request, platform.address, wanted.person, made)


@router.get("/people/{person}", response_model=Person, responses=problems(403, 404))
async def get_person(person: PersonPath, who: Caller, platform: Here) -> Response:
    """One account. For administrators."""
    require_administrator(who, "see all accounts")
    return JSONResponse(_document(await platform.database.read(lambda connection: accounts.get(connection, person))))


@router.post("/people/{person}/link", response_model=Link, status_code=201, responses=problems(403, 404, 409))
async def make_link(request: Request, person: PersonPath, who: Caller, platform: Here) -> Response:
    """A new link for somebody who has none, or forgot the password. For administrators."""
    require_administrator(who, "make links for other people")
    now = to_micros(platform.clock())
    made = await platform.database.write(lambda connection: login.new_link(connection, person, now, who.person))
    return _link(request, platform.address, person, made)


@router.patch(
    "/people/{person}", response_model=Person, responses=problems(403, 404, 409, 413, 415),
    openapi_extra=dict(_body("PersonChange")),
)  # fmt: skip
async def change_person(request: Request, person: PersonPath, who: Caller, platform: Here) -> Response:
    """Give a role, disable (all logins end, tokens are refused) or enable. For administrators."""
    require_administrator(who, "change accounts")
    wanted = await read_json(request, PersonChange)
    now = to_micros(platform.clock())

    def work(connection: Connection) -> Any:
        return accounts.change(connection, person, wanted.role, wanted.disabled, now, who.person)

    row = await platform.database.write(work)
    authenticator: Authenticator = request.app.state.authenticator
    await authenticator.forget()
    return JSONResponse(_document(row))
