"""Where the client looks for its platform, in which order, and what it says where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atoll.client.place import find_platform
from atoll.core.errors import Denied, Invalid, Unavailable


def write(file: Path, url: str, token: str | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"url": url, "token": token}))


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a platform in each place that is looked at."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data" / "client.json", "http://data:1", "data-token")
    write(tmp_path / "home" / ".config" / "atoll" / "login.json", "http://login:1", "login-token")
    write(tmp_path / "atoll-data" / "client.json", "http://here:1", "here-token")
    return tmp_path


def test_places_are_tried_in_the_documented_order(places: Path) -> None:
    environment = {
        "ATOLL_URL": "http://env:1",
        "ATOLL_DATA": str(places / "data"),
        "HOME": str(places / "home"),
    }
    found = [find_platform("http://flag:1", environment=environment).url]
    for name in ("ATOLL_URL", "ATOLL_DATA", "HOME"):
        found.append(find_platform(environment=environment).url)
        del environment[name]
    found.append(find_platform(environment=environment).url)
    assert found == ["http://flag:1", "http://env:1", "http://data:1", "http://login:1", "http://here:1"]


def test_each_place_has_its_own_token_and_the_variable_wins(places: Path) -> None:
    data = {"ATOLL_DATA": str(places / "data")}
    assert find_platform(environment=data).token == "data-token"
    assert find_platform(environment={**data, "ATOLL_TOKEN": "mine"}).token == "mine"


def test_a_token_kept_for_an_address_is_used_for_that_address_only(places: Path) -> None:
    environment = {"HOME": str(places / "home")}
    assert find_platform("http://login:1/", environment=environment).token == "login-token"
    assert find_platform("http://other:1", environment=environment).token is None


def test_where_nothing_is_known_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Unavailable, match=r"atoll up.*ATOLL_DATA.*ATOLL_URL"):
        find_platform(environment={"HOME": str(tmp_path)})


def test_a_data_folder_without_a_platform_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"nowhere is not there; start one with: atoll up --data"):
        find_platform(environment={"ATOLL_DATA": str(tmp_path / "nowhere")})
    with pytest.raises(Unavailable, match=r"no platform was started with it yet"):
        find_platform(data=tmp_path, environment={})


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"url": 5}', '{"token": "x"}', '{"url": "http://x", "token": 5}', "\xff"]
)
def test_a_broken_file_is_named_and_nothing_of_it_is_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "client.json").write_text(text, encoding="latin-1")
    with pytest.raises(Invalid, match=r"client\.json"):
        find_platform(data=tmp_path, environment={})


def test_somebody_elses_folder_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "client.json", "http://x:1", "secret")

    def refuse(self: Path, *arguments: object, **options: object) -> str:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_text", refuse)  # root reads everything
    with pytest.raises(Denied, match="owner only"):
        find_platform(data=tmp_path, environment={})


@pytest.mark.parametrize("url", ["localhost:8470", "ftp://x", "http://", "http://x:99999", "http://x:port", " "])
def test_what_is_no_address_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(Invalid, match=r"ATOLL_URL.*http://127\.0\.0\.1:8470"):
        find_platform(environment={"ATOLL_URL": url})
