"""What is run at the site, without any Slurm."""

import os
import subprocess
from pathlib import Path

import pytest

from atoll.drivers.base import DriverError, DriverSetup
from atoll.drivers.shell import LocalShell, Unfinished
from atoll.drivers.slurm import scripts
from atoll.drivers.slurm.config import read_config
from atoll.drivers.slurm.site import SlurmSite

ID = "abcde-0123456789abcdef"


async def test_script_that_is_killed_may_have_done_its_work(tmp_path: Path) -> None:
    """Else a submission that is killed in the midst of sbatch would count as refused, and run again."""
    site = SlurmSite(DriverSetup("slurm", "abcde", tmp_path, {}, "ann"), read_config({}), LocalShell())
    with pytest.raises(Unfinished):
        await site.script(None, "kill -9 $$")
    with pytest.raises(DriverError) as refused:
        await site.script(None, "exit 74")
    assert not isinstance(refused.value, Unfinished)


def take_away(root: Path, mv: str) -> None:
    """Run AGAIN with another `mv`."""
    programs = root / "bin"
    programs.mkdir()
    (programs / "mv").write_text(f'#!/bin/sh\n{mv}\nexec /bin/mv "$@"\n')
    (programs / "mv").chmod(0o755)
    (root / "incoming").mkdir()
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
    words = ["/bin/sh", "-c", scripts.AGAIN, "atoll", str(root)]
    subprocess.run(words, input=f"{ID}\n", text=True, check=True, env=environment)


def test_nobody_begins_an_attempt_while_its_folder_is_taken_away(tmp_path: Path) -> None:
    folder = tmp_path / "attempts" / ID
    folder.mkdir(parents=True)
    (folder / "launch").touch()
    take_away(tmp_path, f'mkdir "$2/claim" 2>/dev/null && touch {tmp_path}/began')
    assert not (tmp_path / "began").exists()
    assert not folder.exists()


def test_folder_of_an_attempt_that_has_begun_stays(tmp_path: Path) -> None:
    folder = tmp_path / "attempts" / ID
    (folder / "claim").mkdir(parents=True)
    (folder / "launch").touch()
    take_away(tmp_path, "")
    assert (folder / "launch").exists()
