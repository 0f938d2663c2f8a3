"""Paging by cursor: an opaque text that says where the next page begins."""

import base64
import binascii
import re
from typing import Annotated

from fastapi import Query

from atoll.core.errors import Invalid

_INSIDE = re.compile(r"([a-z]):(\d{1,18})")


def write_cursor(kind: str, position: int) -> str:
    """A cursor of a `kind` (one letter, so that no list takes another's) at `position`."""
    return base64.urlsafe_b64encode(f"{kind}:{position}".encode()).decode().rstrip("=")


def read_cursor(kind: str, cursor: str | None) -> int | None:
    """The position in a cursor, None for none. Raises Invalid."""
    if cursor is None:
        return None
    try:
        inside = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (ValueError, binascii.Error):
        inside = ""
    match = _INSIDE.fullmatch(inside)
    if match is None or match[1] != kind:
        raise Invalid(
            "bad_cursor", "The cursor is not one of this list: pass on next_cursor of the page before, unchanged.",
            field="cursor",
        )  # fmt: skip
    return int(match[2])


Cursor = Annotated[
    str | None, Query(max_length=100, pattern=r"^[A-Za-z0-9_-]*$", description="`next_cursor` of the page before.")
]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most items on the page.")]
