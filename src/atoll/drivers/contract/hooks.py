"""What only some engines can be asked for in a test: each hook skips its cases until a harness overrides it.

A harness sets or overrides what its engine can do; the cases that need a hook say so by its name when they are skipped.
"""

import socket
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NoReturn

import pytest

from atoll.drivers.base import Launch


def without(what: str) -> NoReturn:
    """Skip the case: the harness has no way to `what`."""
    pytest.skip(f"the harness cannot {what}")


class Hooks:
    """Sizes and interventions; `Harness` inherits them."""

    engine_limit: int | None = None
    """Most attempts that the engine takes in one piece (a small MaxArraySize, say); None where it has no such limit."""
    gpus = 0
    """GPUs that the site has; 0 skips the cases on GPUs."""
    volume: str | None = None
    """Name of a volume of the site that may be written; `volume_folder` is what is in it."""
    volume_path = "/mnt/atoll-contract/data"
    """Where the cases ask for the volume to be found; a site without mounts of its own names the real place."""
    crowd = 1000
    """Attempts that are observed with one question."""

    def volume_folder(self) -> Path:
        """The content of the volume `volume`, as these tests see it."""
        without("look into a volume")

    def free_port(self) -> int:
        """A port that an attempt may listen on: any number where attempts have a network of their own."""
        with socket.socket() as listener:
            listener.bind(("", 0))
            port: int = listener.getsockname()[1]
            return port

    async def listings(self) -> str:
        """All that the engine and the site show of jobs to other people: listings, details, process lists."""
        without("read the engine's listings")

    async def left_behind(self, launch: Launch) -> bytes:
        """All that the site keeps of an attempt that ended: file names and contents, the engine's object."""
        without("look at what an attempt leaves behind")

    def slow_acceptance(self) -> AbstractAsyncContextManager[None]:
        """Within, the engine takes longer to accept an attempt than the driver waits; afterwards it is quick again."""
        without("delay the engine's acceptance")

    def nothing_begins(self) -> AbstractAsyncContextManager[None]:
        """Within, what is submitted waits in the engine's own queue; afterwards it begins."""
        without("keep the engine from starting what it is given")

    async def restart_engine(self) -> None:
        """Stop the engine and start it again, at once; what runs goes on if the engine can do that."""
        without("restart the engine")

    def engine_down(self) -> AbstractAsyncContextManager[None]:
        """Within, the engine answers nobody; what runs goes on. Afterwards it answers again."""
        without("stop the engine")

    async def outlast_memory(self, launch: Launch) -> None:
        """Return when `launch` has ended and its engine has forgotten it; the driver is asked nothing meanwhile."""
        without("have the engine forget an attempt that ended")

    async def remove_behind_our_back(self, launch: Launch) -> None:
        """Remove a running attempt from the engine, by its own means, as an administrator or a fault would."""
        without("remove an attempt behind the driver's back")

    async def run_again(self, launch: Launch) -> None:
        """Have the engine start a running attempt again by itself, as after the failure of a node."""
        without("have the engine start an attempt again by itself")

    def refused_by_engine(self) -> tuple[Launch, str]:
        """An attempt that the engine refuses, and some of the engine's words on it."""
        without("name an attempt that the engine refuses")

    async def questions(self) -> int:
        """How many listings of jobs the engine has been asked for so far, by anybody."""
        without("count the questions to the engine")
