"""The login file: a token for each platform, readable by its owner only."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from atoll.client.logins import Login, LoginFile
from atoll.client.place import find_platform

ONE, TWO = "https://one.example", "https://two.example"


def test_each_platform_has_a_token_and_the_last_is_the_one_to_use(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    file = LoginFile(environment)
    file.keep(ONE, Login("atl_one", "a1"))
    file.keep(TWO, Login("atl_two"))
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    assert find_platform(environment=environment).token == "atl_two"
    assert find_platform(ONE + "/", environment=environment).token == "atl_one"
    assert find_platform("https://three.example", environment=environment).token is None
    assert (file.get(ONE), file.default()) == (Login("atl_one", "a1"), TWO)
    file.drop(TWO)
    assert (find_platform(environment=environment).url, file.get(TWO)) == (ONE, None)
    file.drop(ONE)
    assert not file.path.exists()


def test_a_file_that_a_person_wrote_is_kept_when_another_login_comes(tmp_path: Path) -> None:
    file = LoginFile({"XDG_CONFIG_HOME": str(tmp_path)})
    file.path.parent.mkdir()
    file.path.write_text(json.dumps({"url": ONE + "/", "token": "mine"}))
    assert file.get(ONE) == Login("mine")
    file.keep(TWO, Login("atl_two"))
    assert file.get(ONE) == Login("mine")


def test_no_token_is_shown_by_accident() -> None:
    assert "secret" not in repr(Login("secret"))
