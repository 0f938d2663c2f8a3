"""Which requests of browsers are taken: those of the platform's own pages, and nobody else's.

People's own servers (notebooks) run on sibling subdomains, so a hostile page may be of the *same site*: a browser
sends our cookie with its requests, whatever SameSite says. The rules, held in this order:

1. A request with the header Authorization is judged by that alone; the cookie is not looked at. A page elsewhere
   cannot send this header without asking first (CORS), and it is never answered that it may: we send no CORS headers.
2. Methods that change something, and the opening of websockets, have to come from the platform's own origin: every
   header Origin says so, and Sec-Fetch-Site, where the browser sends it, says `same-origin`; where there is no Origin,
   Sec-Fetch-Site has to be there. For pages this holds with and without our cookie (nobody is to be logged in as
   somebody else from elsewhere), below /api where our cookie comes along.
3. Methods that only ask, with our cookie, are refused where Sec-Fetch-Site says `same-site` or `cross-site`, or Origin
   another origin than ours; but for links to pages that somebody follows (Sec-Fetch-Mode `navigate`, -Dest
   `document`, GET, not below /api). They change nothing, and the page that has the link cannot read what comes.
4. The cookie is host-only: no other host can read it. A sibling can add one of the same name for all hosts, though.
   Where two come, nobody knows which is ours, and both are taken for none. Where the platform is reached by https its
   name begins with `__Host-`, which browsers let nobody add from elsewhere.
5. No page may be put into a frame (frame-ancestors 'none', in `faces.web.templates`).

The platform's own origin is its configured `address`; without one what the request itself was sent to (scheme and
Host): a page elsewhere can let its own name mean this machine, but browsers send our cookie to our name only.
"""

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from atoll.core.errors import Denied
from atoll.faces.http.problems import problem_response

_ASKING = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN = frozenset({"same-origin", "none"})


def own_origin(connection: HTTPConnection, address: str | None) -> str:
    """The platform's origin, as browsers write it: `https://atoll.example.org`."""
    if address is not None:
        return address
    scheme = {"ws": "http", "wss": "https"}.get(connection.scope["scheme"], connection.scope["scheme"])
    return f"{scheme}://{connection.headers.get('host', '')}".lower()


def cookie_name(origin: str) -> str:
    """The name of the cookie that says who is logged in."""
    return "__Host-atoll" if origin.startswith("https://") else "atoll"


def login_cookies(headers: Headers, origin: str) -> list[str]:
    """The values of all cookies of our name that a request has: one, where all is well."""
    name = cookie_name(origin)
    pairs = [part.strip().partition("=") for line in headers.getlist("cookie") for part in line.split(";")]
    return [value for key, _, value in pairs if key.strip() == name]


def cookie_header(origin: str, value: str, seconds: int) -> str:
    """The header Set-Cookie that keeps `value` for so long; with 0 seconds the one that removes it."""
    secure = "; Secure" if origin.startswith("https://") else ""
    return f"{cookie_name(origin)}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"


def refusal(scope: Scope, address: str | None) -> str | None:
    """The sentence that says why a request is refused; None where it is taken."""
    connection = HTTPConnection(scope)
    headers = connection.headers
    if "authorization" in headers:
        return None
    page = not scope["path"].startswith("/api/")
    own = own_origin(connection, address)
    asking = scope["type"] == "http" and scope["method"] in _ASKING
    if not login_cookies(headers, own) and (asking or not page):
        return None
    site = headers.get("sec-fetch-site")
    origins = headers.getlist("origin")
    foreign = any(origin.lower() != own for origin in origins)
    if not asking:
        if not foreign and (site == "same-origin" or (site is None and origins)):
            return None
        return f"This is taken from the platform's own pages only, at {own}{_told(headers)}."
    if (site is None or site in _OWN) and not foreign:
        return None
    if page and _is_followed_link(scope, headers):
        return None
    return f"Pages of another origin may not read this{_told(headers)}."


def _is_followed_link(scope: Scope, headers: Mapping[str, str]) -> bool:
    wanted = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    return scope["method"] == "GET" and all(headers.get(name) == value for name, value in wanted.items())


def _told(headers: Mapping[str, str]) -> str:
    """From where the browser says that it comes: what an operator needs who forgot to configure the address."""
    origin = headers.get("origin")
    return f"; the browser says that it is at {origin[:200]!r}" if origin else ""


class OwnOrigin:
    """ASGI middleware that holds the rules, before anything else sees a request."""

    def __init__(self, app: ASGIApp, address: str | None) -> None:
        self._app = app
        self._address = address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        reason = refusal(scope, self._address) if scope["type"] in ("http", "websocket") else None
        if reason is None:
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "another origin"})
            return
        answer: Response
        if scope["path"].startswith("/api/"):
            answer = problem_response(Denied("other_origin", reason))
        else:
            answer = PlainTextResponse(f"{reason}\n", 403, {"cache-control": "no-store"})
        await answer(scope, receive, send)
