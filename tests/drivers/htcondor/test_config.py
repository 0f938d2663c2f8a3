"""The site file of an HTCondor site is read strictly: no macro of the submit language and no secret gets in."""

from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.drivers.htcondor.config import read_config

WRONG: dict[str, dict[str, Any]] = {
    "misspelt": {"scheddd": "x"},
    "macro in requirements": {"requirements": "$(evil)"},
    "macro in a flavor": {"flavors": {"cpu": "$ENV(HOME) == 1"}},
    "line in an attribute": {"classes": {"batch": {"attributes": {"A": "1\nqueue 5"}}}},
    "bad attribute": {"classes": {"batch": {"attributes": {"a b": "1"}}}},
    "bad group": {"classes": {"batch": {"accounting_group": "a b"}}},
    "bad parameter": {"parameters": {"sec_default": "x"}},
    "token itself": {"token": "eyJhbGciOi"},
    "two tokens": {"token": {"file": "/a", "directory": "/b"}},
    "no token": {"token": {}},
    "accounts without a place": {"token": {"accounts": "/etc/tokens"}},
    "container without image": {"universe": "container"},
    "docker universe": {"universe": "docker"},
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_wrong_config_is_invalid(case: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_config(WRONG[case])
    assert "eyJ" not in caught.value.sentence


def test_misspelt_field_gets_a_suggestion() -> None:
    with pytest.raises(Invalid, match="Did you mean 'schedd'"):
        read_config({"scheddd": "x"})


def test_whole_config_is_read() -> None:
    config = read_config(
        {
            "collector": "cm.example.org:9618", "schedd": "ap1.example.org",
            "token": {"file": "/etc/atoll/token", "accounts": "/etc/atoll/{account}"},
            "parameters": {"SEC_CLIENT_AUTHENTICATION_METHODS": "IDTOKENS"}, "universe": "container",
            "image": "docker://debian:12", "requirements": 'TARGET.Arch == "X86_64"',
            "flavors": {"gpu": "TARGET.TotalGPUs > 0"}, "max_walltime": "2d",
            "classes": {"batch": {"accounting_group": "group_a.b", "attributes": {"WantFlocking": "true"}}},
        }
    )  # fmt: skip
    assert config.max_walltime == 172_800
