"""Forms as browsers send them."""

from urllib.parse import parse_qs

from starlette.requests import Request

from atoll.core.errors import Invalid, TooLarge
from atoll.faces.http.problems import UnsupportedMedia

LARGEST = 1 << 20
"""Bytes that a form may have."""
_MOST_FIELDS = 10_000
_MEDIA_TYPE = "application/x-www-form-urlencoded"


class Form:
    """What was filled in: each field with the values that it came with."""

    def __init__(self, fields: dict[str, list[str]]) -> None:
        self._fields = fields

    def get(self, name: str, default: str = "") -> str:
        """The last value of a field."""
        return self._fields.get(name, [default])[-1]

    def all(self, name: str) -> list[str]:
        """Every value of a field, as of boxes that are ticked."""
        return self._fields.get(name, [])


async def read_form(request: Request) -> Form:
    """The form in a request, where no files are in it. Raises UnsupportedMedia, TooLarge, Invalid."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _MEDIA_TYPE:
        raise UnsupportedMedia("not_a_form", f"Send a form, as {_MEDIA_TYPE}.", field="Content-Type")
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > LARGEST:
            raise TooLarge("form_too_large", f"The form is larger than {LARGEST >> 20} MiB.")
    try:
        fields = parse_qs(content.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Invalid("bad_form", "The form cannot be read.") from None
    if any("\0" in text for name, values in fields.items() for text in (name, *values)):  # PostgreSQL keeps none
        raise Invalid("bad_form", "The form has a character that is none: NUL.")
    return Form(fields)


def own_path(text: str) -> str:
    """`text` where it is a path of the platform's own (`/jobs?page=2`), else `/`: nobody is sent elsewhere by us."""
    plain = all("!" <= character <= "~" for character in text) and "\\" not in text
    return text if plain and len(text) <= 2000 and text.startswith("/") and not text.startswith("//") else "/"
