"""What the loops of a site work with."""

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from atoll.control.leases import LeaseKeeper
from atoll.control.pump import Pump
from atoll.core.clock import Clock, to_micros
from atoll.drivers.base import Driver, Held
from atoll.scheduler.model import Policy
from atoll.store import leases
from atoll.store.attempts import AttemptRow
from atoll.store.database import Database, Result
from atoll.store.files import FileStore
from atoll.store.leases import Lease, StaleLease
from atoll.store.logs import LogStore


def held(row: AttemptRow) -> Held:
    """The attempt of a row, as drivers are told of it."""
    return Held(row.id, row.native_id, row.account)


@dataclass(frozen=True)
class Tools:
    """The parts of a platform that every loop is given."""

    database: Database
    clock: Clock
    keeper: LeaseKeeper
    pump: Pump
    files: FileStore
    logs: LogStore
    instance: str
    policy: Policy = field(default_factory=Policy)
    """How the queue works."""

    def now(self) -> int:
        """Microseconds since 1970 UTC."""
        return to_micros(self.clock())

    async def guarded(self, lease: Lease, work: Callable[[Connection], Result]) -> Result:
        """Run a write that counts only while `lease` is ours, and tell everybody. Raises StaleLease."""

        def transaction(connection: Connection) -> Result:
            leases.guard(connection, lease)
            return work(connection)

        result = await self.database.write(transaction)
        self.pump.poke()
        return result

    def check(self, lease: Lease, seconds: float = 0.0) -> None:
        """Raise StaleLease unless the lease is ours for `seconds` more; asked before each call to an engine."""
        if self.keeper.get(lease.name, seconds) != lease:
            raise StaleLease(lease.name)


@dataclass(frozen=True)
class SiteWork:
    """A site, its driver, and how its loops shall behave."""

    tools: Tools
    site: str
    driver: Driver
    observe_every: float = 5.0
    """Seconds between two questions to the engine where nothing hints at news."""
    observe_gap: float = 0.05
    """Seconds that must lie between two questions."""
    call_seconds: float = 30.0
    """Longest that a call which hands attempts over may take."""
    log_limit: int = 2 * 1024 * 1024
    """Bytes kept of each stream: half of it from the head, half from the tail."""

    output_limit: int = 10 * 1024**3
    """Bytes of files that one attempt may bring out; those beyond are left out."""

    @property
    def lease_name(self) -> str:
        """The lease under which this site's loops run."""
        return f"site:{self.site}"
