"""Removes what attempts leave in their folders, whatever they made there. Called by drivers that keep such folders."""

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path


def remove_tree(path: str) -> None:
    """Remove a folder with all that is in it, also below folders that their owner closed; follows no link."""

    def open_up(function: object, inner: str, error: object) -> None:
        with suppress(OSError):
            Path(inner).parent.chmod(0o700)
            if not Path(inner).is_symlink():
                Path(inner).chmod(0o700)

    try:
        if os.geteuid() != 0:  # to root nothing is closed
            shutil.rmtree(path, onerror=open_up)
        shutil.rmtree(path, ignore_errors=True)
    except RecursionError:
        # a thousand folders within each other are too many for Python 3.11, but not for rm
        subprocess.run(["/bin/rm", "-rf", "--", path], check=False, stderr=subprocess.DEVNULL)
