"""What a Podman site's file may say."""

from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.drivers.podman.config import read_config

SSH = {
    "transport": "ssh", "host": "gpu1", "user": "atoll", "key": "/keys/id", "known_hosts": "/keys/known",
    "folder": "/srv/atoll",
}  # fmt: skip


def test_nothing_said_is_podman_on_this_machine() -> None:
    config = read_config({})
    assert (config.transport, config.socket, config.pull) == ("local", "/run/podman/podman.sock", "missing")
    assert config.capabilities == []


@pytest.mark.parametrize(
    ("config", "field", "words"),
    [
        ({"soket": "/run/x"}, "config.soket", "Did you mean 'socket'?"),
        ({"socket": "run/x"}, "config.socket", "absolute"),
        ({"pull": "sometimes"}, "config.pull", "missing"),
        ({"volumes": {"data": {"path": "/"}}}, "config", "whole host"),
        ({"volumes": {"data": {"path": "/d", "readonly": True}}}, "config.volumes.data.readonly", "mean 'read_only'?"),
        ({"host": "gpu1"}, "config", "transport ssh only"),
        ({k: v for k, v in SSH.items() if k != "folder"}, "config", "folder"),
        ({**SSH, "impersonate": "sudo -u {account}"}, "config", "impersonate"),
        ({"capabilities": ["ALL"]}, "config.capabilities.0", "cannot stand here"),
        ({"gpu_kind": "gpus"}, "config.gpu_kind", "cannot stand here"),
    ],
)
def test_mistake_is_named_by_its_field(config: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_config(config)
    assert (caught.value.field or "config").rstrip(".") == field
    assert words in caught.value.sentence


def test_host_behind_ssh_needs_its_key_and_host_keys() -> None:
    assert read_config(SSH).ssh().host == "gpu1"
    with pytest.raises(Invalid) as caught:
        read_config({name: value for name, value in SSH.items() if name != "known_hosts"}).ssh()
    assert caught.value.field == "config.known_hosts"
