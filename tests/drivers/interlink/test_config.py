"""The site file of an interLink site is read strictly, and never holds a secret."""

from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.drivers.base import DriverError
from atoll.drivers.interlink.config import Reference, read_config

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no url": ({}, "config.url"),
    "unknown scheme": ({"url": "ftp://host"}, "config.url"),
    "credentials in the url": ({"url": "http://me:word@host"}, "config.url"),
    "relative socket": ({"url": "unix://run/plugin.sock"}, "config.url"),
    "misspelt field": ({"url": "http://host", "tokem": {"env": "T"}}, "config.tokem"),
    "token itself": ({"url": "http://host", "token": "abc"}, "config.token"),
    "token twice": ({"url": "http://host", "token": {"env": "T", "file": "/t"}}, "config.token"),
    "key without certificate": ({"url": "https://host", "key": "/k"}, "config"),
    "authority without https": ({"url": "http://host", "ca": "/ca"}, "config"),
    "node larger than all": (
        {"url": "http://host", "total": {"cpus": 1, "memory": "1G"}, "node": {"cpus": 2, "memory": "1G"}}, "config",
    ),
    "flag that brings another": ({"url": "http://h", "classes": {"batch": {"flags": ["--a=1 --uid=0"]}}}, "config.cl"),
    "flag that brings a line": ({"url": "http://h", "classes": {"batch": {"flags": ["--a\n#SBATCH -u"]}}}, "config.cl"),
    "unknown class": ({"url": "http://h", "classes": {"bach": {}}}, "config.classes"),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(WRONG))
def test_wrong_config_is_invalid_and_names_the_field(case: str) -> None:
    config, field = WRONG[case]
    with pytest.raises(Invalid) as caught:
        read_config(config)
    assert (caught.value.field or "config").startswith(field)


def test_misspelt_field_gets_a_suggestion() -> None:
    with pytest.raises(Invalid, match="Did you mean 'token'"):
        read_config({"url": "http://host", "tokem": {"env": "T"}})


def test_token_is_read_when_it_is_used(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    reference = Reference(file=str(file))
    with pytest.raises(DriverError, match="cannot be read"):
        reference.read()
    for word in ("first", "second"):
        file.write_text(f"{word}\n")
        assert reference.read() == word
    monkeypatch.setenv("PLUGIN_TOKEN", "third")
    assert Reference(env="PLUGIN_TOKEN").read() == "third"


@pytest.mark.parametrize("content", ["", "two\nlines", "grüße", "x" * 20_000])
def test_what_cannot_be_a_token_is_not_sent_and_not_shown(tmp_path: Any, content: str) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(DriverError) as caught:
        Reference(file=str(tmp_path / "token")).read()
    assert "There is no token in the file" in str(caught.value)
    assert not content or content not in str(caught.value)
