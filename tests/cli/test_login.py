"""Logging in on a machine: by a code that is confirmed in a browser, or with a token; and accounts."""

from __future__ import annotations

import json
import re
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.cli.conftest import Atoll
from tests.support.platform import RunningPlatform

PASSWORD = "a rather long one"


@contextmanager
def _browser(platform: RunningPlatform, link: str) -> Iterator[httpx2.Client]:
    """A browser in which somebody chose a password by a link."""
    headers = {"origin": platform.url, "sec-fetch-site": "same-origin"}
    with httpx2.Client(base_url=platform.url, headers=headers) as client:
        answer = client.post(link, data={"password": PASSWORD, "again": PASSWORD})
        assert (answer.status_code, answer.headers["location"]) == (303, "/"), answer.text
        yield client


@pytest.fixture
def anna(there: Atoll, platform: RunningPlatform) -> Iterator[httpx2.Client]:
    """Anna's browser; she is added where she is not known."""
    known = json.loads(there("user", "ls", "-o", "json").out)
    words = ["link"] if any(person["person"] == "anna" for person in known) else ["add"]
    with _browser(platform, there("user", *words, "anna").out.strip()) as browser:
        yield browser


def _approving(
    browser: httpx2.Client, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], decision: str
) -> list[str]:
    """Confirm the code that the command line shows, when it begins to wait; the pages that were seen."""
    pages: list[str] = []

    def confirm(_seconds: float) -> None:
        told = capfdbinary.readouterr().err.decode()
        address = re.search(r"http://\S+/device\?code=(\S+)", told)
        assert address is not None
        page = browser.get("/device", params={"code": address[1].lower().replace("-", " ")})
        assert page.status_code == 200, page.text
        answer = browser.post("/device", data={"code": address[1], "decision": decision})
        pages.extend((page.text, answer.text))

    monkeypatch.setattr(time, "sleep", confirm)
    monkeypatch.setattr(socket, "gethostname", lambda: "anna's laptop")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    return pages


def test_the_owner_chooses_a_password_by_the_link_that_up_printed(
    atoll: Atoll, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with RunningPlatform(tmp_path_factory.mktemp("first") / "data") as platform:
        links = re.findall(r"http://127.0.0.1:\d+/login/once/\S+", platform.tail())
        assert len(links) == 1
        with _browser(platform, links[0]) as browser:
            me = browser.get("/api/v1/me").json()
            assert me["administrator"] is True
            assert browser.get("/api/v1/people").status_code == 200
            platform.kill()
            platform.start()
            assert re.findall(r"http://127.0.0.1:\d+/login/once/\S+", platform.tail()) == links, "no second one"
            assert browser.get("/api/v1/me").json() == me, "a restart logs nobody out"


def test_login_by_a_code_and_logout(
    there: Atoll, platform: RunningPlatform, anna: httpx2.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:  # fmt: skip
    monkeypatch.delenv("ATOLL_DATA")
    pages = _approving(anna, monkeypatch, capfdbinary, "approve")
    done = there("login", platform.url)
    assert done.code == 0, done.err
    assert re.fullmatch(rf"Logged in to {platform.url} as anna, until .+\.\n", done.out)
    assert "anna-s laptop" in pages[0]
    assert "90 days" in pages[0]
    assert "anna-s laptop is logged in as anna" in pages[1]
    file = tmp_path / ".config" / "atoll" / "login.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    kept = json.loads(file.read_text())
    token = kept["logins"][platform.url]["token"]
    assert kept["url"] == platform.url

    assert there("ps").code == 0
    listed = json.loads(there("token", "ls", "-o", "json").out)
    assert [item["name"] for item in listed] == ["anna-s laptop"]
    again = there("login", "-o", "json")
    assert (again.code, json.loads(again.out)["person"]) == (0, "anna")
    assert "token" not in json.loads(again.out)
    headers = {"authorization": f"Bearer {token}"}
    assert httpx2.get(f"{platform.url}/api/v1/me", headers=headers).status_code == 401, "the former one is revoked"

    newer = json.loads(file.read_text())["logins"][platform.url]["token"]
    assert there("logout").out == f"Logged out of {platform.url}.\n"
    assert not file.exists()
    headers = {"authorization": f"Bearer {newer}"}
    assert httpx2.get(f"{platform.url}/api/v1/me", headers=headers).status_code == 401
    missing = there("logout", platform.url)
    assert missing.code == 66
    assert "There is no login for" in missing.err
    told = there("ps", "--url", platform.url)
    assert f"atoll login {platform.url}" in told.err


def test_a_login_that_is_refused_says_so(
    there: Atoll, platform: RunningPlatform, anna: httpx2.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:  # fmt: skip
    _approving(anna, monkeypatch, capfdbinary, "refuse")
    done = there("login", platform.url)
    assert done.code == 77
    assert "refused" in done.err
    assert not (tmp_path / ".config").exists()


def test_login_with_a_token_where_there_is_no_browser(
    there: Atoll, platform: RunningPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ATOLL_DATA")
    done = there("login", "--token-stdin", platform.url, stdin=platform.token + "\n")
    assert (done.code, "an administrator" in done.out) == (0, True), done.err
    assert there("ps").code == 0
    wrong = there("login", "--token-stdin", platform.url, stdin="atl_wrong\n")
    assert wrong.code == 77
    assert there("login", "--token-stdin", platform.url, stdin="\n").code == 65
    assert there("ps").code == 0, "what was there is kept"


def test_accounts_from_the_command_line(there: Atoll) -> None:
    assert re.fullmatch(r"http://127.0.0.1:\d+/login/once/[\w-]{43}\n", there("user", "add", "carl").out)
    again = there("user", "add", "carl")
    assert again.code == 75
    assert "atoll user link carl" in again.err
    assert there("user", "add", "a/b").code == 65
    assert there("user", "role", "carl", "administrator").out == "carl: administrator, no password.\n"
    assert there("user", "disable", "carl", "nobody").code == 66
    listed = {item["person"]: item for item in json.loads(there("user", "ls", "-o", "json").out)}
    assert (listed["carl"]["role"], listed["carl"]["disabled"]) == ("administrator", True)
    assert there("user", "link", "carl").code == 75
    assert there("user", "enable", "carl", "-o", "name").out == "carl\n"
    assert set(json.loads(there("user", "link", "carl", "-o", "json").out)) == {"person", "link", "expires_at"}
    assert there("user", "role", "carl", "king").code == 65
