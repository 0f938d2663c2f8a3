"""Pages from Jinja2 templates, which live beside the `pages.py` that shows them, in the rooms' folders `templates`.

A page extends `base.html`; what htmx asks for is one block of the same template, so that both can never differ.
"""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from atoll.core.clock import from_micros
from atoll.core.resources import format_seconds
from atoll.faces.web import assets

_PACKAGE = Path(__file__).parents[2]
_KIT = Path(__file__).with_name("templates")
_POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@cache
def _environment() -> Environment:
    found = Environment(
        # a room's templates by their path in the package, as "jobs/templates/job.html"
        loader=FileSystemLoader([_KIT, _PACKAGE]), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    found.globals["asset"] = assets.address
    found.filters |= {"moment": _moment, "milli": _milli, "size": _size, "duration": format_seconds}
    return found


def is_fragment(request: Request) -> bool:
    """Whether htmx asks for a piece of the page, and not for all of it after the browser's Back."""
    headers = request.headers
    return headers.get("hx-request") == "true" and headers.get("hx-history-restore-request") != "true"


def show(
    request: Request, template: str, values: Mapping[str, Any], *, block: str | None = None, status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:  # fmt: skip
    """A page; only `block` of it where htmx asks for a piece.

    Templates see `values`, `request`, `nonce` (for inline scripts and styles), and `viewer`, the Principal who looks,
    None without login.
    """
    nonce = secrets.token_urlsafe(16)
    whole = {"request": request, "nonce": nonce, "viewer": getattr(request.state, "viewer", None), **values}
    fragment = block is not None and is_fragment(request)
    html = render_block(template, block, whole) if fragment and block else render(template, whole)
    sent = {
        "content-security-policy": _POLICY.format(nonce=nonce), "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin", "cache-control": "no-store", "vary": "HX-Request",
        "cross-origin-opener-policy": "same-origin", "x-frame-options": "DENY", **(headers or {}),
    }  # fmt: skip
    return HTMLResponse(html, status, sent)


def render(template: str, values: Mapping[str, Any]) -> str:
    """The text of a template."""
    return _environment().get_template(template).render(values)


def render_block(template: str, block: str, values: Mapping[str, Any]) -> str:
    """The text of one block of a template."""
    found = _environment().get_template(template)
    return "".join(found.blocks[block](found.new_context(dict(values))))


def _moment(value: datetime | str | int | None, style: str = "moment") -> Markup:
    """A time, told in the reader's zone by `atoll.js`; without script in UTC. Microseconds, ISO 8601 or a datetime."""
    if value is None:
        return Markup("")
    moment = from_micros(value) if isinstance(value, int) else value
    moment = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    moment = moment.astimezone(UTC)
    return Markup('<time datetime="{}" data-style="{}">{} UTC</time>').format(
        moment.isoformat(timespec="milliseconds"), style, moment.strftime("%Y-%m-%d %H:%M")
    )


def _milli(value: int) -> str:
    """Milli-CPU or milli-GPU as figures beside others: `2`, `0.5`, `17.8`."""
    return f"{value / 1000:.1f}".removesuffix(".0")


def _size(value: int) -> str:
    """Bytes as figures beside others, three digits of them: `17 B`, `2.2 TiB`, `528 GiB`."""
    size, units = float(value), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while size >= 999.5 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.3g} {units[0]}"
