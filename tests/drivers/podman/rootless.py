"""Runs jobs at the rootless Podman of the account that this runs as, and prints what became of them, as JSON.

python rootless.py SOCKET IMAGE USERNS FOLDER
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from atoll.drivers.base import DriverSetup, StopReason
from atoll.drivers.contract import Harness
from atoll.drivers.podman import PodmanDriver


class RootlessHarness(Harness):
    """The driver, as the account to which the Podman belongs."""

    patience = 60.0
    interval = 0.3

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        super().__init__(folder)
        self._config = config

    async def make_driver(self) -> PodmanDriver:
        """At the account's own socket."""
        return PodmanDriver(DriverSetup("rootless", self.instance, self.folder / "site", self._config, self.owner))


async def main(socket: str, image: str, userns: str, folder: str) -> None:
    """One job that fails, and one that is cancelled and says goodbye."""
    place = Path(folder)
    config = {
        "socket": socket, "image": image, "pull": "never", "network": "none", "userns": userns,
        "folder": str(place / "attempts"),
    }  # fmt: skip
    harness = RootlessHarness(place, config)
    await harness.start()
    try:
        notes = (await harness.driver.describe()).notes
        fails = harness.script("id -u; echo made >made; exit 3")
        failed = await harness.run(fails)
        told = (await harness.read(fails)).decode()
        lasts = harness.script("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done")
        await harness.submit(lasts)
        await harness.wait_for_output(lasts, b"up\n")
        await harness.stop(lasts, StopReason.CANCELLED, grace=5)
        (cancelled,) = await harness.wait([lasts])
        said = (await harness.read(lasts)).decode()
    finally:
        await harness.tear_down()
    print(json.dumps({
        "notes": notes, "failed": [failed.outcome, failed.exit_code], "id": told.strip(),
        "cancelled": cancelled.outcome, "said": said,
    }))  # fmt: skip


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
