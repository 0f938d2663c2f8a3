"""An attempt's own bundle: what it takes from the image's, and what it says for Slurm and the runtime."""

import json
from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.drivers.slurm.config import read_config
from atoll.drivers.slurm.layout import Entrance
from atoll.drivers.slurm.oci import Bundle, oci_entrance, read_bundle
from tests.drivers.slurm.test_images import ATTEMPT, HOME
from tests.drivers.slurm.test_options import launch

BUNDLE = Bundle("/images/a/rootfs", ("PATH=/image/bin", "A=image", "B=image"), ("hosts",))
OLD, NEW = (22, 5), (23, 2)


def entered(spec: dict[str, Any], version: tuple[int, int] = NEW, **config: Any) -> Entrance:
    one = launch(spec={"environment": {"image": "/images/a"}, **spec})
    return oci_entrance(one, BUNDLE, read_config(config), HOME, version)


def described(spec: dict[str, Any], version: tuple[int, int] = NEW, **config: Any) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(entered(spec, version, **config).files["bundle/config.json"])
    return read


@pytest.mark.parametrize(("root", "place"), [("rootfs", "/images/a/rootfs"), ("../b", "/images/b"), ("/c", "/c")])
def test_bundle_says_where_its_root_is_and_what_its_variables_are(root: str, place: str) -> None:
    text = json.dumps({"root": {"path": root}, "process": {"env": ["A=1"], "args": ["sh"]}})
    assert read_bundle("/images/a", text.encode()) == Bundle(place, ("A=1",))


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"root": 1}', b'{"root": {"path": 1}}', b'{"root": {"path": "a"}, "process": []}',
             b'{"root": {"path": "a"}, "process": {"env": [1]}}', b"[" * 100_000,
             b'{"root": {"path": "/x\\ud800"}}',
             b'{"root": {"path": "a"}, "process": {"env": [' + b'"",' * 70_000 + b'""]}}'],
)  # fmt: skip
def test_what_describes_no_bundle_is_refused(text: bytes) -> None:
    with pytest.raises(Invalid, match=r"environment\.image: /images/a/config\.json describes no bundle"):
        read_bundle("/images/a", text)


def test_account_alone_is_mapped_and_stays_on_the_nodes_network() -> None:
    linux = described({})["linux"]
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]
    assert linux["gidMappings"] == [{"containerID": 0, "hostID": 100, "size": 1}]
    assert linux["namespaces"] == [{"type": "user"}, {"type": "mount"}]


def test_volumes_and_folders_are_mounted_behind_what_lies_above_them() -> None:
    spec = {"volumes": [{"name": "data", "path": "/in", "read_only": True}], "workdir": "/project"}
    mounts = [
        (each["destination"], each["source"], each["options"])
        for each in described(spec, volumes={"data": "/d"})["mounts"]
    ]
    assert mounts[3:] == [
        ("/tmp", "tmpfs", ["nosuid", "nodev", "mode=1777"]),
        ("/etc/hosts", "/etc/hosts", ["rbind", "ro"]),
        ("/in", "/d", ["rbind", "ro"]),
        ("/project", "/project", ["rbind"]),
        ("/tmp/atoll", HOME.root, ["rbind"]),
    ]
    assert described(spec, volumes={"data": "/d"})["process"]["cwd"] == "/project"


def test_slurm_that_looks_for_the_root_in_the_bundle_finds_a_place_for_it() -> None:
    old = described({}, OLD)
    assert old["root"] == {"path": f"{HOME.root}/{ATTEMPT}/bundle/rootfs", "readonly": True}
    assert old["mounts"][0] == {"destination": "/", "type": "none", "source": BUNDLE.root, "options": ["rbind"]}
    assert "bundle/rootfs/" in entered({}, OLD).files
    assert described({})["root"]["path"] == BUNDLE.root
    assert "bundle/rootfs/" not in entered({}).files


def test_job_wins_over_the_images_variables() -> None:
    assert described({"env": {"B": "job"}})["process"]["env"] == ["PATH=/image/bin", "A=image"]
    assert entered({}).words[4] == "/image/bin"
    assert entered({"env": {"PATH": "/mine"}}).words[4] == ""


def test_step_runs_the_attempts_bundle_and_is_known_as_a_step() -> None:
    entrance = entered({})
    assert f"--container={HOME.root}/{ATTEMPT}/bundle" in entrance.words
    assert entrance.words[-1] == "--"
    assert "step" in entrance.files
