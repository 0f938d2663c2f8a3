"""What a site file may say of a login node."""

from typing import Any

import pytest
from pydantic import ValidationError

from atoll.core.errors import Invalid
from atoll.drivers.shell import SshFields

WHOLE = {"host": "login.example.org", "user": "atoll", "key": "/keys/atoll", "known_hosts": "/keys/known_hosts"}


def test_complete_fields_give_a_login_node() -> None:
    given = WHOLE | {"port": 2222, "keys": {"ann": "/keys/ann"}, "impersonate": "sudo -n -u {account} --"}
    config = SshFields.model_validate(given).ssh()
    assert (config.host, config.user, config.key, config.port) == ("login.example.org", "atoll", "/keys/atoll", 2222)
    assert (config.key_of("ann"), config.key_of("bob")) == ("/keys/ann", None)
    assert config.words_as("bob") == ["sudo", "-n", "-u", "bob", "--"]
    assert config.serves_others
    assert not SshFields.model_validate(WHOLE).ssh().serves_others


def test_keys_by_template_are_each_accounts_own() -> None:
    config = SshFields.model_validate(WHOLE | {"keys": "/keys/{account}/id"}).ssh()
    assert config.key_of("ann") == "/keys/ann/id"


@pytest.mark.parametrize("missing", WHOLE)
def test_each_missing_field_is_named(missing: str) -> None:
    fields = SshFields.model_validate({name: value for name, value in WHOLE.items() if name != missing})
    with pytest.raises(Invalid) as raised:
        fields.ssh()
    assert raised.value.field == f"config.{missing}"


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "-oProxyCommand=id"}, {"host": "a b"}, {"user": "-l"}, {"key": "keys/atoll"}, {"port": 0},
        {"keys": "/keys/all"}, {"keys": {"Ann Lee": "/keys/ann"}}, {"keys": {"ann": "ann"}}, {"sessions": 0},
        {"impersonate": "sudo -n --"}, {"impersonate": "sudo 'open"}, {"impersonate": []}, {"password": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SshFields.model_validate(WHOLE | wrong)
