"""The login file: the platforms in which this person has logged in on this machine, with a token for each.

    {"url": "https://atoll.example.org", "logins": {"https://atoll.example.org": {"token": "atl_...", "id": "1f2e"}}}

`url` is the one that is used where nothing else is said: the last that was logged in to. `id` is there where the
token was made by the login. Only its owner can read the file.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll.client.place import login_file, read_document
from atoll.core.errors import Unavailable


@dataclass(frozen=True)
class Login:
    """What is kept of a login."""

    token: str = field(repr=False)
    token_id: str | None = None
    """The token's id, where the login made it."""


class LoginFile:
    """The file, as it is at each look."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        path = login_file(os.environ if environment is None else environment)
        if path is None:
            raise Unavailable("no_home", "There is no home folder to keep the login in; set HOME or XDG_CONFIG_HOME.")
        self.path: Path = path

    def _read(self) -> dict[str, Any]:
        """What is in the file, in its present form; of one that a person wrote, too."""
        if not self.path.exists():
            return {"url": None, "logins": {}}
        document = read_document(self.path, "the login file")
        url, logins = document.get("url"), document.get("logins")
        kept = dict(logins) if isinstance(logins, dict) else {}
        if isinstance(url, str) and isinstance(document.get("token"), str):
            kept.setdefault(url.rstrip("/"), {"token": document["token"]})
        return {"url": url.rstrip("/") if isinstance(url, str) else None, "logins": kept}

    def default(self) -> str | None:
        """The address that is used where nothing else is said."""
        url: str | None = self._read()["url"]
        return url

    def get(self, url: str) -> Login | None:
        """The login at an address."""
        found = self._read()["logins"].get(url)
        if not isinstance(found, dict) or not isinstance(found.get("token"), str):
            return None
        return Login(found["token"], found.get("id"))

    def keep(self, url: str, login: Login) -> None:
        """Keep a login, and use that platform where nothing else is said."""
        document = self._read()
        entry = {"token": login.token, **({"id": login.token_id} if login.token_id else {})}
        self._write({"url": url, "logins": {**document["logins"], url: entry}})

    def drop(self, url: str) -> None:
        """Keep a login no longer."""
        document = self._read()
        logins = {place: entry for place, entry in document["logins"].items() if place != url}
        if not logins:
            self.path.unlink(missing_ok=True)
            return
        default = document["url"] if document["url"] in logins else next(iter(logins))
        self._write({"url": default, "logins": logins})

    def _write(self, document: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self.path.with_suffix(f".{os.getpid()}")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
        part.replace(self.path)
