"""HTTP: files that persons send for their jobs, by the hash of their content."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel
from sqlalchemy import Connection
from starlette.responses import JSONResponse, Response

from atoll.core.clock import to_micros
from atoll.core.errors import NotFound
from atoll.faces.http.auth import Caller, Here
from atoll.faces.http.problems import problems
from atoll.store import files

router = APIRouter(tags=["files"])
Sha256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the content, in hexadecimal.")]


class Stored(BaseModel):
    """A content in the file store."""

    sha256: str
    size: int


@router.put(
    "/files/{sha256}", status_code=201, response_model=Stored,
    responses={**problems(413), 200: {"model": Stored, "description": "This person had sent it before."}},
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {
        "schema": {"type": "string", "format": "binary"}}}}},
)  # fmt: skip
async def send_file(request: Request, sha256: Sha256, who: Caller, platform: Here) -> Response:
    """Send a file; jobs of the same person may then name it in `files_in`."""
    found, size = await platform.files.receive(request.stream(), sha256, platform.file_limit)
    now = to_micros(platform.clock())

    def write(connection: Connection) -> bool:
        known = bool(files.owned(connection, [found], who.person))
        files.put(connection, found, size, who.person, now)
        return known

    known = await platform.database.write(write)
    return JSONResponse({"sha256": found, "size": size}, 200 if known else 201)


@router.head("/files/{sha256}", status_code=200, response_class=Response, responses=problems(404))
async def has_file(sha256: Sha256, who: Caller, platform: Here) -> Response:
    """Whether this person may use a content without sending it again."""
    now = to_micros(platform.clock())

    def touch(connection: Connection) -> bool:
        known = bool(files.owned(connection, [sha256], who.person))
        if known:
            files.touch(connection, [sha256], now)
        return known

    # noted as used, so that it does not go between this question and the job that names it
    if not await platform.database.write(touch):
        raise NotFound("no_such_file", "You have not sent a file with this hash.", field="sha256")
    return Response()
