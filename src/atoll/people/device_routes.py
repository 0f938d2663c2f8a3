"""HTTP: how a command line is let in. It has no token yet, so these routes ask for none."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from atoll.core.clock import to_micros
from atoll.core.errors import AtollError
from atoll.faces.http.auth import Here
from atoll.faces.http.body import read_json
from atoll.faces.http.origin import own_origin
from atoll.faces.http.problems import problems
from atoll.faces.http.times import moment, moment_or_none
from atoll.people import device, login
from atoll.people.model import DeviceCode, DeviceQuestion, DeviceRequest, TokenWithText

router = APIRouter(tags=["people"])
_SECRET = {"cache-control": "no-store"}


def _without_login(*statuses: int) -> dict[int | str, dict[str, object]]:
    """The answers in case of an error of what needs no login."""
    return {status: answer for status, answer in problems(*statuses).items() if status != 401}


@router.post(
    "/login/device", response_model=DeviceCode, status_code=201, responses=_without_login(413, 415, 429),
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {
        "schema": {"$ref": "#/components/schemas/DeviceRequest"}}}}},
)  # fmt: skip
async def begin_device_login(request: Request, platform: Here) -> Response:
    """Begin to log in a command line: it shows the code, and somebody enters it in a browser."""
    wanted = await read_json(request, DeviceRequest)
    address = login.network_of(request.client.host if request.client else None)
    await login.begin_try(platform, [device.begun_by(address)])
    now = to_micros(platform.clock())
    begun = await platform.database.write(lambda connection: device.begin(connection, wanted.machine, now))
    page, code = f"{own_origin(request, platform.address)}/device", device.shown(begun.code)
    found = {
        "device_code": begun.secret, "user_code": code, "verification_uri": page,
        "verification_uri_complete": f"{page}?code={code}", "expires_in": device.CODE_SECONDS, "interval": device.GAP,
    }  # fmt: skip
    return JSONResponse(found, 201, _SECRET)


@router.post(
    "/login/device/token", response_model=TokenWithText, responses=_without_login(403, 404, 409, 413, 415, 429),
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {
        "schema": {"$ref": "#/components/schemas/DeviceQuestion"}}}}},
)  # fmt: skip
async def ask_device_login(request: Request, platform: Here) -> Response:
    """Whether the command line was let in: its token, in this answer only.

    Else a problem whose code is that of RFC 8628: `authorization_pending`, `slow_down`, `access_denied`,
    `expired_token`.
    """
    asked = await read_json(request, DeviceQuestion)
    now = to_micros(platform.clock())
    told = await platform.database.write(lambda connection: device.ask(connection, asked.device_code, now))
    if isinstance(told, AtollError):
        raise told
    found = {
        "id": told.id, "person": told.person, "name": told.name, "created_at": moment(told.created_at),
        "expires_at": moment_or_none(told.expires_at), "token": told.text,
    }  # fmt: skip
    return JSONResponse(found, 200, _SECRET)
