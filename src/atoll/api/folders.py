"""What is where in the data folder."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from atoll.core.config import PlatformConfig
from atoll.core.errors import Conflict
from atoll.store.place import make_private_folder, refuse_network_file_system


@dataclass(frozen=True)
class Folders:
    """What is where in the data folder."""

    data: Path

    @property
    def state(self) -> Path:
        """The database and what only the platform may see."""
        return self.data / "state"

    @property
    def front(self) -> Path:
        """What the proxy in front of the platform reads."""
        return self.state / "front"

    def site(self, name: str) -> Path:
        """What belongs to one site."""
        return self.data / "sites" / name


def prepare(config: PlatformConfig) -> Folders:
    """Make the data folder. Raises Invalid where it cannot be used."""
    folders = Folders(config.data_folder)
    refuse_network_file_system(folders.data)
    # jobs of other persons pass through to their own folder below, and can list nothing on the way
    make_private_folder(folders.data, 0o711 if os.geteuid() == 0 else 0o700)
    make_private_folder(folders.state)
    make_private_folder(folders.data / "sites", 0o711 if os.geteuid() == 0 else 0o700)
    return folders


@contextlib.contextmanager
def sole_user(folders: Folders, name: str) -> Iterator[None]:
    """Hold the lock `name` of the data folder. Raises Conflict where another process does."""
    with (folders.state / name).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Conflict(
                "already_running",
                f"Another Atoll runs on the data folder {folders.data}{_owner_of(file)}; "
                "stop it, or choose another folder with --data.",
                field="data",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _owner_of(file: IO[str]) -> str:
    file.seek(0)
    pid = file.read(20).strip()
    return f" (process {pid})" if pid.isdecimal() else ""
