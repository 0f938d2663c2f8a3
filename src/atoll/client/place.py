"""Where the platform is, and the token for it: flags, environment, data folder, login file, in this order."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from atoll.core.errors import Denied, Invalid, Unavailable

CLIENT_FILE = "client.json"
"""In a data folder: the address and the local token of the platform whose folder it is; written by `atoll up`."""
DEFAULT_DATA = "atoll-data"
LOGIN_FILE = Path(".config") / "atoll" / "login.json"
"""Below the home folder: the platform to use where nothing else is said, and a token for each one."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Platform:
    """A platform's address, the token for it, and where both were found."""

    url: str
    token: str | None = field(repr=False)
    source: str

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        return urlsplit(self.url).hostname in _LOOPBACK


def find_platform(
    url: str | None = None,
    token: str | None = None,
    data: str | os.PathLike[str] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
) -> Platform:
    """The platform to talk to. Raises Unavailable, Denied or Invalid, saying what to set or to start.

    `url`, `token` and `data` are what the caller was told; the rest is looked for in `environment` (this process's).
    """
    variables = os.environ if environment is None else environment
    if not url and data is not None:
        return _from_data(Path(data), f"the data folder {data}", token)
    token = token or variables.get("ATOLL_TOKEN") or None
    if address := url or variables.get("ATOLL_URL"):
        source = "--url" if url else "ATOLL_URL"
        checked = check_url(address, source)
        return Platform(checked, token or _token_for(checked, variables), source)
    if folder := variables.get("ATOLL_DATA"):
        return _from_data(Path(folder).expanduser(), "ATOLL_DATA", token)
    login = login_file(variables)
    if login is not None and login.exists():
        return _read(login, "the login file", token)
    if (Path(DEFAULT_DATA) / CLIENT_FILE).exists():
        return _from_data(Path(DEFAULT_DATA), f"./{DEFAULT_DATA}", token)
    raise Unavailable(
        "no_platform",
        "No platform is known here: log in with 'atoll login URL', start one with 'atoll up', or set ATOLL_DATA to its "
        "data folder, or ATOLL_URL and ATOLL_TOKEN to its address and your token.",
    )


def login_file(variables: Mapping[str, str]) -> Path | None:
    """Where the login file is, or would be; None where there is no home folder."""
    base = variables.get("XDG_CONFIG_HOME")
    if base:
        return Path(base) / "atoll" / "login.json"
    home = variables.get("HOME")
    return Path(home) / LOGIN_FILE if home else None


def _token_for(url: str, variables: Mapping[str, str]) -> str | None:
    """A token that was kept for just this address."""
    folder = variables.get("ATOLL_DATA")
    kept = [Path(folder).expanduser() / CLIENT_FILE] if folder else []
    login = login_file(variables)
    for file in [*kept, *([login] if login else [])]:
        try:
            document = read_document(file, str(file))
        except (Invalid, Denied, Unavailable):
            continue
        if token := _kept_token(document, url):
            return token
    return None


def _kept_token(document: Mapping[str, Any], url: str) -> str | None:
    """The token that a file has for an address: of its own platform, or one of several in `logins`."""
    logins = document.get("logins")
    login = logins.get(url) if isinstance(logins, dict) else None
    if isinstance(login, dict):
        token = login.get("token")
        return token if isinstance(token, str) else None
    token = document.get("token")
    return token if isinstance(token, str) and str(document.get("url", "")).rstrip("/") == url else None


def _from_data(folder: Path, source: str, token: str | None) -> Platform:
    file = folder / CLIENT_FILE
    if not file.exists():
        what = "is not there" if not folder.is_dir() else f"has no {CLIENT_FILE}: no platform was started with it yet"
        raise Unavailable(
            "no_platform",
            f"The data folder {folder.absolute()} {what}; start one with: atoll up --data {folder}.",
            field=source,
        )
    return _read(file, source, token)


def _read(file: Path, source: str, token: str | None) -> Platform:
    document = read_document(file, source)
    url, kept = document.get("url"), document.get("token")
    if not isinstance(url, str) or not (kept is None or isinstance(kept, str)):
        raise Invalid(
            "bad_login", f'{file} must hold {{"url": "http://...", "token": "..."}}; write it anew.', field=source
        )
    checked = check_url(url, str(file))
    return Platform(checked, token or _kept_token(document, checked), source)


def read_document(file: Path, source: str) -> dict[str, Any]:
    """The object in a JSON file. Raises Unavailable where it is not there, Denied, Invalid; `source` names it."""
    try:
        document: Any = json.loads(file.read_text(encoding="utf-8"))
    except PermissionError:
        raise Denied(
            "not_your_platform",
            f"{file} may be read by its owner only; set ATOLL_URL and ATOLL_TOKEN to a token of your own.",
            field=source,
        ) from None
    except FileNotFoundError:
        raise Unavailable("no_platform", f"{file} is not there.", field=source) from None
    except (OSError, ValueError) as error:
        raise Invalid("bad_login", f"{file} cannot be read as JSON: {error}.", field=source) from None
    if not isinstance(document, dict):
        raise Invalid("bad_login", f"{file} must hold an object with url and token; write it anew.", field=source)
    return document


def check_url(url: str, source: str) -> str:
    """An address as it is used. Raises Invalid."""
    try:
        parts = urlsplit(url.strip())
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        right = False
    if not right:
        raise Invalid(
            "bad_url", f"{source}: {url!r} is no address; write for example http://127.0.0.1:8470.", field=source
        )
    return url.strip().rstrip("/")
