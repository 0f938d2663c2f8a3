"""Mounts without root's rights: by a user namespace, where the machine allows one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.drivers.process.supervisor import mounts

PROGRAM = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import mounts
if mounts.possible() not in ("user", "root"):
    sys.exit(77)
mounts.mount_volumes(json.loads(sys.argv[3]), False, sys.argv[2])
os.execvp("sh", ["sh", "-c", sys.argv[4]])
"""


@pytest.fixture
def plain() -> list[str]:
    """Words before a program that is to run without root's rights; the system's Python, as ours may be closed."""
    if os.geteuid() != 0:
        return [sys.executable]
    python = "/usr/bin/python3"
    if not Path(python).exists():
        pytest.skip("no Python that others than root may use")
    return ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", python]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody can pass, with the module in it."""
    place = Path("/tmp") / f"atoll-test-mounts-{os.getpid()}"
    place.mkdir(mode=0o755)
    for name in ("code", "spare", "volume", "volume/deep"):
        (place / name).mkdir()
        (place / name).chmod(0o777)
    shutil.copy(mounts.__file__, place / "code" / "mounts.py")
    (place / "volume" / "file").write_text("from outside\n")
    yield place
    shutil.rmtree(place)


def test_volumes_are_laid_by_a_user_namespace(plain: list[str], place: Path) -> None:
    """At paths that the machine has not, also below the root; read-only ones hold against writing."""
    text = (
        "cat /atoll-test-user/data/file && id -u && echo inside >/atoll-test-user/data/written && "
        "(echo no >/mnt/atoll-test-user/file) 2>&- ; cat /mnt/atoll-test-user/file; test -d /usr && test -c /dev/null"
    )
    volumes = (
        f'[{{"source": "{place}/volume", "target": "/atoll-test-user/data", "read_only": false}}, '
        f'{{"source": "{place}/volume", "target": "/mnt/atoll-test-user", "read_only": true}}]'
    )
    words = [*plain, "-I", "-S", "-c", PROGRAM, str(place / "code"), str(place / "spare"), volumes, text]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, cwd="/")
    if done.returncode == 77:
        pytest.skip("this machine permits no user namespaces")
    uid = "65534" if os.geteuid() == 0 else str(os.getuid())
    assert done.stdout == f"from outside\n{uid}\nfrom outside\n", done.stderr
    assert done.returncode == 0
    assert (place / "volume" / "written").read_text() == "inside\n"
    assert (place / "volume" / "file").read_text() == "from outside\n"
    assert not Path("/atoll-test-user").exists()
    assert not Path("/mnt/atoll-test-user").exists()
