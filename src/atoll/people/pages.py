"""The portal's pages of logging in and out: login, one-time link, password, and letting a command line in."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import RedirectResponse, Response

from atoll.core.clock import to_micros
from atoll.core.errors import AtollError, Denied, Exhausted, Invalid, NotFound, Unauthenticated
from atoll.faces.http.auth import Authenticator, Here
from atoll.faces.http.origin import cookie_header, login_cookies, own_origin
from atoll.faces.http.platform import Platform
from atoll.faces.web.forms import Form, own_path, read_form
from atoll.faces.web.templates import show
from atoll.faces.web.visitor import Visitor
from atoll.people import device, login, passwords
from atoll.people.passwords import Passwords
from atoll.store import tries

router = APIRouter()


def _page(
    request: Request, name: str, values: Mapping[str, Any], error: AtollError | None = None, status: int | None = None
) -> Response:
    """A page of this room; what is wrong with its form is `wrong`: sentences by field, "" for the whole."""
    wrong: defaultdict[str, str] = defaultdict(str)
    if error is not None:
        wrong[error.field or ""] = error.sentence
    retry = getattr(error, "retry_after", None)
    headers = {"retry-after": str(max(1, round(retry)))} if retry is not None else {}
    code = status or (200 if error is None else error.status)
    return show(request, f"people/templates/{name}.html", {"wrong": wrong, **values}, status=code, headers=headers)


def _host(request: Request) -> str | None:
    return request.client.host if request.client else None


def _former(request: Request, platform: Platform) -> str | None:
    """The secret of the login that the browser has already."""
    cookies = login_cookies(request.headers, own_origin(request, platform.address))
    return cookies[0] if len(cookies) == 1 else None


async def _logged_in(request: Request, platform: Platform, secret: str, where: str) -> Response:
    """Keep the login in the browser, and go on."""
    await _forget(request)
    cookie = cookie_header(own_origin(request, platform.address), secret, platform.login.longest)
    return RedirectResponse(where, 303, {"set-cookie": cookie, "cache-control": "no-store"})


async def _forget(request: Request) -> None:
    authenticator: Authenticator = request.app.state.authenticator
    await authenticator.forget()


def _passwords(request: Request) -> Passwords:
    known: Passwords = request.app.state.passwords
    return known


@router.get("/login")
async def show_login(request: Request, next: str = "/") -> Response:
    """The form; whoever is logged in goes on to where the link leads."""
    authenticator: Authenticator = request.app.state.authenticator
    try:
        await authenticator.find(request)
    except Unauthenticated as error:
        told = error if error.code == "two_logins" else None
        return _page(request, "login", {"next": own_path(next), "name": ""}, told, 200)
    return RedirectResponse(own_path(next), 303, {"cache-control": "no-store"})


@router.post("/login")
async def log_in(request: Request, platform: Here) -> Response:
    """Log in, and go on to where the person wanted to."""
    form = await read_form(request)
    where, name, password = own_path(form.get("next", "/")), form.get("name", "").strip(), form.get("password", "")
    values = {"next": where, "name": name[:255]}
    for field, given in (("name", name), ("password", password)):
        if not given:
            return _page(request, "login", values, Invalid("missing", f"Type your {field}.", field=field))
    try:
        secret = await login.log_in(
            platform, _passwords(request), name, password, host=_host(request), former=_former(request, platform)
        )
    except (Denied, Exhausted) as error:
        return _page(request, "login", values, error)
    return await _logged_in(request, platform, secret, where)


@router.post("/logout")
async def log_out(request: Request, platform: Here) -> Response:
    """Log out of this browser."""
    origin, now = own_origin(request, platform.address), to_micros(platform.clock())
    secrets = login_cookies(request.headers, origin)

    def work(connection: Connection) -> None:
        for secret in secrets[:2]:
            login.end_session(connection, secret, now)

    await platform.database.write(work)
    await _forget(request)
    headers = {"set-cookie": cookie_header(origin, "", 0), "cache-control": "no-store"}
    return RedirectResponse("/login", 303, headers)


@router.get("/login/once/{secret}")
async def show_link(request: Request, platform: Here, secret: str) -> Response:
    """The form for choosing a password. Looking at it uses nothing up: mail programs look at links, too."""
    try:
        person = await login.whose_link(platform, secret)
    except NotFound as error:
        return _page(request, "said", {"title": "This link is not good", "text": error.sentence}, status=404)
    return _page(request, "once", {"person": person})


@router.post("/login/once/{secret}")
async def use_link(request: Request, platform: Here, secret: str) -> Response:
    """Take the password, log the person in, and let the link be good no more."""
    form = await read_form(request)
    try:
        person = await login.whose_link(platform, secret)
        try:
            made = await login.use_link(
                platform, _passwords(request), secret, _new_password(form, person), host=_host(request),
                former=_former(request, platform),
            )  # fmt: skip
        except Invalid as error:
            return _page(request, "once", {"person": person}, error)
    except NotFound as error:
        return _page(request, "said", {"title": "This link is not good", "text": error.sentence}, status=404)
    return await _logged_in(request, platform, made, "/")


def _new_password(form: Form, person: str) -> str:
    """The password that a form has twice. Raises Invalid for the first field that is wrong."""
    wanted = form.get("password", "")
    passwords.check(wanted, person)
    if wanted != form.get("again", ""):
        raise Invalid("not_the_same", "The two are not the same; type the new password twice.", field="again")
    return wanted


@router.get("/password")
async def show_password(request: Request, who: Visitor) -> Response:
    """The form for changing one's own password."""
    return _page(request, "password", {})


@router.post("/password")
async def change_password(request: Request, who: Visitor, platform: Here) -> Response:
    """Change one's own password; every other browser is logged out."""
    form = await read_form(request)
    try:
        wanted = _new_password(form, who.person)
        secret = await login.change_password(
            platform, _passwords(request), who.person, form.get("present", ""), wanted, _host(request)
        )
    except Denied as error:
        wrong = Denied(error.code, "This is not your password.", field="present")
        return _page(request, "password", {}, wrong)
    except (Invalid, Exhausted) as error:
        return _page(request, "password", {}, error)
    return await _logged_in(request, platform, secret, "/")


@router.get("/device")
async def show_device(request: Request, who: Visitor, platform: Here, code: str = "") -> Response:
    """The form for a code; with a code, which command line it is, and the question whether to let it in."""
    wanted = device.read_code(code)
    if not wanted:
        return _page(request, "device", {"machine": None, "code": ""})
    limit, now = device.entered_by(who.person), to_micros(platform.clock())
    try:
        await login.begin_try(platform, [limit])
        row = await platform.database.read(lambda connection: device.find(connection, wanted, now))
    except (NotFound, Exhausted) as error:
        shown = code if isinstance(error, NotFound) else device.shown(wanted)
        return _page(request, "device", {"machine": None, "code": shown[:20]}, error)
    await platform.database.write(lambda connection: tries.take_back(connection, [limit]))
    days = device.TOKEN_SECONDS // 86400
    return _page(request, "device", {"machine": row.machine, "code": device.shown(row.code), "days": days})


@router.post("/device")
async def decide_device(request: Request, who: Visitor, platform: Here) -> Response:
    """Let a command line in, or refuse it."""
    form = await read_form(request)
    code, approved = device.read_code(form.get("code", "")), form.get("decision") == "approve"
    limit, now = device.entered_by(who.person), to_micros(platform.clock())
    try:
        await login.begin_try(platform, [limit])
        row = await platform.database.write(
            lambda connection: device.decide(connection, code, who.person, approved, now)
        )
    except (NotFound, Exhausted) as error:
        return _page(request, "device", {"machine": None, "code": form.get("code", "")[:20]}, error)
    await platform.database.write(lambda connection: tries.take_back(connection, [limit]))
    if approved:
        text = f"The command line on {row.machine} is logged in as {who.person}. You can close this page."
        return _page(request, "said", {"title": "It is let in", "text": text})
    text = f"The command line on {row.machine} was refused. If you did not start it, tell your administrators."
    return _page(request, "said", {"title": "It is refused", "text": text})
