"""What Podman is asked for."""

import json
from dataclasses import replace
from typing import Any

import pytest

from atoll.drivers.podman.config import read_config
from atoll.drivers.podman.container import body_of, place_of
from atoll.drivers.podman.layout import contents
from tests.drivers.podman.launches import FACTS, INSTANCE, OWNER, launch

VOLUMES = {"volumes": {"data": {"path": "/srv/data", "read_only": True}, "home": {"path": "/srv/home"}}}


def body(spec: dict[str, Any] | None = None, config: dict[str, Any] | None = None, **values: Any) -> dict[str, Any]:
    facts = values.pop("facts", FACTS)
    settings = read_config({"image": "base", **(config or {})})
    return body_of(launch(spec, **values), OWNER, settings, facts, "/srv/atoll", INSTANCE)


def test_container_has_no_rights_but_its_accounts() -> None:
    asked = body()
    assert asked["user"] == "1001:1001"
    assert asked["groups"] == ["2000"]
    assert asked["cap_drop"] == ["ALL"]
    assert asked["cap_add"] == []
    assert asked["no_new_privileges"] is True
    assert asked["httpproxy"] is False
    assert all({"nosuid", "nodev"} <= set(mount["Options"]) for mount in asked["mounts"])
    assert "remove" not in asked
    assert asked["restart_policy"] == "no"


def test_limits_are_what_was_asked_for_and_swap_is_no_way_out() -> None:
    limits = body()["resource_limits"]
    assert limits["memory"] == {"limit": 256 << 20, "swap": 256 << 20}
    assert limits["cpu"] == {"quota": 50_000, "period": 100_000}
    assert limits["pids"] == {"limit": 4096}
    assert body(config={"cpu_limit": "weight"})["resource_limits"]["cpu"] == {"shares": 512}


def test_host_without_controllers_is_asked_for_no_limits() -> None:
    assert body(facts=replace(FACTS, controllers=frozenset()))["resource_limits"] == {}


def test_rootless_container_runs_as_its_own_root_and_publishes_ports_on_loopback() -> None:
    asked = body({"ports": [{"port": 8888}]}, facts=replace(FACTS, rootless=True))
    assert asked["user"] == "0:0"
    assert asked["portmappings"] == [{"host_ip": "127.0.0.1", "container_port": 8888, "protocol": "tcp"}]
    kept = body(config={"userns": "keep-id"}, facts=replace(FACTS, rootless=True))
    assert (kept["user"], kept["userns"]) == ("1001:1001", {"nsmode": "keep-id"})


def test_podman_ends_what_the_keeper_did_not() -> None:
    asked = body({"grace": 60}, walltime=3600)
    assert asked["timeout"] > 3660
    assert "timeout" not in body()


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        ({"name": "datta", "path": "/data"}, "it has data, home"),
        ({"name": "data", "path": "/data"}, "can only be read"),
        ({"name": "home", "path": "/atoll/orders"}, "nothing can be mounted"),
        ({"name": "home", "path": "//atoll"}, "nothing can be mounted"),
        ({"name": "home", "path": "/a/../proc/self"}, "nothing can be mounted"),
        ({"name": "home", "path": "/"}, "nothing can be mounted"),
    ],
)
def test_volume_that_cannot_be_given_is_refused(volume: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        body({"volumes": [volume]}, VOLUMES)


def test_volumes_are_mounted_as_asked() -> None:
    volumes = [{"name": "data", "path": "/in", "read_only": True}, {"name": "home", "path": "/home/me/"}]
    mounts = {mount["Destination"]: mount for mount in body({"volumes": volumes}, VOLUMES)["mounts"]}
    assert mounts["/in"]["Source"] == "/srv/data"
    assert "ro" in mounts["/in"]["Options"]
    assert "rw" in mounts["/home/me"]["Options"]


def test_secrets_and_variables_are_in_no_part_of_the_container() -> None:
    config = read_config({"image": "base"})
    job = launch(
        {"secrets": [{"name": "key", "env": "KEY"}, {"name": "file", "file": "a/key"}], "env": {"PLAIN": "plainly"}},
        secrets={"key": b"s3cret", "file": b"t0psecret"},
    )
    asked = json.dumps(body_of(job, OWNER, config, FACTS, "/srv/atoll", INSTANCE))
    assert not any(word in asked for word in ("s3cret", "t0psecret", "plainly"))
    entries = contents(job, place_of(job, OWNER, config))
    holding = [entry for entry in entries if isinstance(entry.content, bytes) and b"s3cret" in entry.content]
    assert [entry.path.split("/")[0] for entry in holding] == ["secrets"]
    assert all(entry.mode == 0o600 for entry in holding)


def test_folders_come_before_what_is_in_them() -> None:
    job = launch({"workdir": "deep/er"})
    paths = [entry.path for entry in contents(job, place_of(job, OWNER, read_config({"image": "base"})))]
    assert paths.index("work") < paths.index("work/deep") < paths.index("work/deep/er")
    with pytest.raises(ValueError, match="leads out"):
        place_of(launch({"workdir": "../../orders"}), OWNER, read_config({"image": "base"}))
