"""What browsers load besides pages: the style sheet, scripts, icons, and others' programs that the build brings.

Each is read once, compressed once, and named by what it contains, so that a browser keeps it for good.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header
from starlette.responses import Response

from atoll.core.errors import NotFound

FOLDER = Path(__file__).with_name("static")
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class _Asset:
    media_type: str
    plain: bytes
    packed: bytes
    digest: str


@cache
def _load(name: str) -> _Asset:
    """A file of the folder. Raises KeyError where there is none of that name."""
    path = FOLDER / name
    if path.suffix not in _TYPES or not path.is_file() or not path.resolve().is_relative_to(FOLDER):
        raise KeyError(name)
    content = path.read_bytes()
    packed = gzip.compress(content, 9, mtime=0)
    return _Asset(_TYPES[path.suffix], content, packed, hashlib.sha256(content).hexdigest()[:12])


def address(name: str) -> str:
    """Where a page finds a file, as `atoll.css` or `vendor/htmx.js`. Raises KeyError where it is missing."""
    return f"/static/{_load(name).digest}/{name}"


@router.get("/static/{digest}/{name:path}")
async def show_asset(digest: str, name: str, accept_encoding: Annotated[str, Header()] = "") -> Response:
    """One file; kept for good where it is asked for by what it contains."""
    try:
        found = _load(name)
    except (KeyError, OSError, ValueError):
        raise NotFound("no_such_file", "There is no such file.", field="name") from None
    # a page of another version of the platform, during an upgrade, gets what there is
    keep = "public, max-age=31536000, immutable" if digest == found.digest else "no-cache"
    headers = {"cache-control": keep, "vary": "Accept-Encoding", "x-content-type-options": "nosniff"}
    if "gzip" in accept_encoding:
        return Response(found.packed, media_type=found.media_type, headers={**headers, "content-encoding": "gzip"})
    return Response(found.plain, media_type=found.media_type, headers=headers)
