"""A control plane in slow motion: one site that is played, a clock turned by hand, loops that run step by step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from atoll.control import dispatch, finish, observe, stop
from atoll.control.describe import Describer
from atoll.control.dispatch import Dispatcher
from atoll.control.finish import Finisher
from atoll.control.leases import LeaseKeeper
from atoll.control.pump import Pump
from atoll.control.submit import Submitter
from atoll.control.work import SiteWork, Tools
from atoll.core.clock import ManualClock
from atoll.core.reasons import ReasonCode
from atoll.core.resources import Resources
from atoll.core.spec import read_spec
from atoll.core.states import JobState
from atoll.drivers.base import DriverError, DriverSetup
from atoll.drivers.fake import Engine, FakeDriver
from atoll.store import attempts, jobs, settings, sites
from atoll.store.attempts import AttemptRow
from atoll.store.database import Database
from atoll.store.files import FileStore
from atoll.store.jobs import JobRow, NewJob
from atoll.store.leases import Lease
from atoll.store.logs import LogStore

SITE = "played"


class SlowMotion:
    """One replica. `crash` makes a new one on the same database and the same engine."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        *,
        cpus: int = 4,
        gpus: int = 0,
        nodes: int = 1,
        ttl: float = 9.0,
        **config: Any,
    ) -> None:
        self.database = database
        self.folder = folder
        self.clock = ManualClock()
        self.engine = Engine(Resources(cpus * 1000, 8 * 2**30, gpus * 1000), nodes, clock=self.clock)
        self.ttl = ttl
        self.config: dict[str, Any] = config

    async def begin(self) -> None:
        """Come up, for the first time or again."""
        instance = await self.database.write(settings.instance_id)
        self.tools = Tools(
            self.database, self.clock, LeaseKeeper(self.database, self.monotonic, self.ttl), Pump(self.database),
            FileStore(self.folder / "files"), LogStore(self.folder / "logs"), instance,
        )  # fmt: skip
        await self.database.write(lambda connection: sites.put(connection, SITE, "fake", {}, {}))
        self.driver = FakeDriver(DriverSetup(SITE, instance, self.folder, self.config), self.engine)
        self.work = SiteWork(self.tools, SITE, self.driver)
        self.dispatcher = Dispatcher(self.tools)
        self.describer = Describer(self.work)
        self.submitter = Submitter(self.work, lambda: None)
        self.finishers = [Finisher(self.work, with_files=with_files) for with_files in (False, True)]
        self.tools.keeper.want(dispatch.LEASE)
        self.tools.keeper.want(self.work.lease_name)
        await self.tools.keeper.renew()

    def monotonic(self) -> float:
        """The turned clock, for leases."""
        return self.clock().timestamp()

    async def crash(self) -> None:
        """The replica dies where it stands; another takes over once its leases have run out."""
        keeper = self.tools.keeper
        await self.begin()
        # the database's clock cannot be turned: take the dead one's leases as if they had run out
        for name in (dispatch.LEASE, self.work.lease_name):
            await self.database.write(partial(_expire, name=name))
        await self.tools.keeper.renew()
        assert keeper.holder != self.tools.keeper.holder

    def lease(self, name: str | None = None) -> Lease:
        """Our lease."""
        found = self.tools.keeper.get(name or self.work.lease_name)
        assert found is not None
        return found

    async def insert(self, *documents: dict[str, Any], owner: str = "ada") -> list[int]:
        """Submit jobs; returns their ids."""

        def work(connection: Connection) -> list[int]:
            ids = jobs.allocate_ids(connection, len(documents))
            new = [NewJob(self._columns(document, owner)) for document in documents]
            jobs.insert_many(connection, new, ids)
            return ids

        return await self.database.write(work)

    def _columns(self, document: dict[str, Any], owner: str) -> dict[str, Any]:
        spec = read_spec({"command": ["true"], **document})
        array = spec.array_spec
        columns: dict[str, Any] = {
            "owner": owner, "name": spec.title, "class_": spec.class_, "spec": spec.to_json(),
            "state": JobState.QUEUED, "reason": ReasonCode.NONE, "cpu": spec.cpu, "memory": spec.memory or 2**20,
            "gpu": spec.gpu, "nodes": spec.nodes, "submitted_at": self.tools.now(), "priority": spec.priority,
            "project": spec.project, "walltime": spec.walltime, "grace": spec.grace,
        }  # fmt: skip
        if array is not None:
            count = len(array.tasks)
            columns |= {
                "waiting": str(array.tasks), "waiting_count": count, "task_count": count, "width": array.width,
            }  # fmt: skip
        return columns

    async def dispatch(self) -> None:
        """One round of the dispatch loop; a millisecond after the last, as attempts are named by their time."""
        self.clock.advance(0.001)
        await self.tools.keeper.renew()
        await self.dispatcher.step(self.lease(dispatch.LEASE))

    async def step(self, *names: str) -> None:
        """One round of each of the site's loops that are named; a site that does not answer is no error here."""
        steps = {
            "describe": self._describe, "submit": self._submit, "observe": observe.step, "stop": stop.step,
            "finish": self._finish, "forget": finish.forget,
        }  # fmt: skip
        await self.tools.keeper.renew()
        for name in names or tuple(steps):
            try:
                await steps[name](self.work, self.lease())
            except DriverError:
                continue

    async def _describe(self, _work: SiteWork, lease: Lease) -> None:
        await self.describer.step(lease)

    async def _submit(self, _work: SiteWork, lease: Lease) -> None:
        await self.submitter.step(lease)
        await self.submitter.step_large(lease)

    async def _finish(self, _work: SiteWork, lease: Lease) -> None:
        for finisher in self.finishers:
            await finisher.step(lease)

    async def round(self) -> None:
        """One round of everything."""
        await self.step("describe")
        await self.dispatch()
        await self.step("submit", "observe", "stop", "finish", "forget")

    async def settle(self, rounds: int = 50, seconds: float = 1.0) -> None:
        """Rounds, with time passing between them, until nothing waits or runs."""
        for _ in range(rounds):
            await self.round()
            if not await self.database.read(jobs.count_by_state):
                return
            self.clock.advance(seconds)

    async def job(self, job_id: int) -> JobRow:
        """A job's row."""
        row = await self.database.read(lambda connection: jobs.get(connection, job_id))
        assert row is not None
        return row

    async def attempts(self, job_id: int) -> Sequence[AttemptRow]:
        """A job's attempts."""
        return await self.database.read(lambda connection: attempts.of_job(connection, job_id))


def _expire(connection: Connection, name: str) -> None:
    from sqlalchemy import update

    from atoll.store.tables import leases

    connection.execute(update(leases).where(leases.c.name == name).values(expires_at=0))
