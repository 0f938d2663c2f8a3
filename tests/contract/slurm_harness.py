"""The Slurm driver for the contract and for its own tests: a real cluster on this machine."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from atoll.drivers.base import Driver, DriverSetup, Held, Launch, StopReason, StopRequest
from atoll.drivers.contract import Harness
from atoll.drivers.slurm import SlurmDriver, submitting
from tests.contract.process_harness import until
from tests.support.slurm import SlurmCluster


class SlurmHarness(Harness):
    """Runs the cases as the account that runs the tests, or, where that is root, as another one."""

    interval = 0.3
    patience = 40.0

    def __init__(
        self, folder: Path, cluster: SlurmCluster, account: str | None = None, config: dict[str, Any] | None = None
    ) -> None:
        super().__init__(folder)
        self.cluster = cluster
        self.account = account
        self.sites = cluster.folder / "sites"
        self.sites.mkdir(mode=0o1777, exist_ok=True)
        self.sites.chmod(0o1777)
        self.volumes = cluster.folder / "volumes" / "data"
        self.volumes.mkdir(parents=True, exist_ok=True)
        self.volumes.chmod(0o777)
        self.config: dict[str, Any] = {
            "transport": "local",
            "slurm_conf": str(cluster.conf),
            "folder": str(self.sites),
            "classes": {"interactive": {"reservation": "no-such-reservation"}},
            "volumes": {"data": str(self.volumes)},
            **(config or {}),
        }
        self.volume, self.volume_path = "data", str(self.volumes)
        self.engine_limit = cluster.max_array_size

    async def make_driver(self) -> Driver:
        return SlurmDriver(DriverSetup("slurm", self.instance, self.folder, self.config, self.owner))

    async def tear_down(self) -> None:
        """End what is left, so that the next case finds room."""
        live = (await self.driver.observe(self.held())).states
        stops = [
            StopRequest(Held(key, status.native_id, status.account), StopReason.ORPHANED, 0)
            for key, status in live.items()
            if status.outcome is None
        ]
        if stops:
            await self.driver.stop(stops)
        await self.driver.close()

    def folder_of(self, launch: Launch) -> Path:
        """The attempt's folder."""
        return self.sites / (self.account or "root") / self.instance / "attempts" / launch.attempt_id

    # -- hooks ---------------------------------------------------------------------------------------------------

    def volume_folder(self) -> Path:
        """The volume is a plain folder that all nodes share."""
        return self.volumes

    async def listings(self) -> str:
        """What Slurm and `ps` show, and the names of all that the site keeps."""
        listed = [await self.slurm("squeue", "--json"), await self.slurm("scontrol", "show", "jobs", "-dd")]
        done = await asyncio.to_thread(
            subprocess.run, ["ps", "axww", "-o", "user,pid,args"], capture_output=True, check=True
        )
        return "".join(listed) + done.stdout.decode("utf-8", "replace") + "\n".join(map(str, self.sites.rglob("*")))

    async def left_behind(self, launch: Launch) -> bytes:
        """The attempt's folder and its batch with all files, and what Slurm keeps of its job."""
        folder = self.folder_of(launch)
        batch = folder / "about"
        files = [path for path in folder.rglob("*") if path.is_file()]
        files += [path for path in (folder.parents[1] / "batches").rglob("*") if path.is_file()]
        files += [path for path in (self.cluster.folder / "state").rglob("*") if path.is_file()]
        assert batch in files
        return b"\n".join(str(path).encode() + b"\n" + path.read_bytes() for path in files)

    @asynccontextmanager
    async def slow_acceptance(self) -> AsyncIterator[None]:
        """slurmctld does nothing for longer than the driver waits."""
        await self.driver.describe()
        usual = submitting._QUIET
        submitting._QUIET = 1.0
        self.cluster.pause()
        try:
            yield
        finally:
            submitting._QUIET = usual
            self.cluster.resume()
            await asyncio.to_thread(self.cluster.mend)

    @asynccontextmanager
    async def nothing_begins(self) -> AsyncIterator[None]:
        """The partitions take jobs, and start none."""
        await self._set_partitions("DOWN")
        try:
            yield
        finally:
            await self._set_partitions("UP")

    async def _set_partitions(self, state: str) -> None:
        for name in set((await self.slurm("sinfo", "-h", "-o", "%R")).split()):
            await self.slurm("scontrol", "update", f"PartitionName={name}", f"State={state}")

    async def restart_engine(self) -> None:
        """slurmctld is killed and started; the nodes go on."""
        await asyncio.to_thread(self.cluster.stop)
        self.cluster.start()
        await asyncio.to_thread(self.cluster.mend)

    @asynccontextmanager
    async def engine_down(self) -> AsyncIterator[None]:
        """slurmctld is killed."""
        await self.driver.describe()
        await asyncio.to_thread(self.cluster.stop)
        try:
            yield
        finally:
            self.cluster.start()
            await asyncio.to_thread(self.cluster.mend)

    async def outlast_memory(self, launch: Launch) -> None:
        """slurmctld forgets all jobs at once, which otherwise takes it MinJobAge and a minute."""
        await until((self.folder_of(launch) / "end").exists)
        await asyncio.to_thread(self.cluster.forget_jobs)

    async def remove_behind_our_back(self, launch: Launch) -> None:
        """Somebody cancels it by hand."""
        await self.slurm("scancel", str(self.held_as(launch).native_id))

    async def run_again(self, launch: Launch) -> None:
        """Slurm starts it again under the same number, as it does after the failure of a node where it may."""
        native = str(self.held_as(launch).native_id)
        await self.slurm("scontrol", "update", f"JobId={native}", "Requeue=1")
        await self.slurm("scontrol", "requeue", native)
        await self.slurm("scontrol", "update", f"JobId={native}", "StartTime=now")

    def refused_by_engine(self) -> tuple[Launch, str]:
        """Its class names a reservation that is not there."""
        return self.launch({"command": ["true"], "class": "interactive"}), "reservation"

    async def questions(self) -> int:
        """Listings of jobs, as sdiag counts them."""
        counts = await asyncio.to_thread(self.cluster.questions)
        return sum(count for kind, count in counts.items() if kind.startswith("REQUEST_JOB_INFO"))

    async def slurm(self, *words: str) -> str:
        """One of Slurm's commands, as root."""
        return await asyncio.to_thread(self.cluster.run, *words)
