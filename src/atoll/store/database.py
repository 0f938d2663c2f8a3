"""One database, SQLite or PostgreSQL, and its transactions.

All writes of a process go through one thread, which commits whatever has gathered while the last commit ran in one
transaction; so a thousand submissions at once cost a few commits, and SQLite has its single writer. Reads run beside
it on a few threads. The functions handed in get an open connection and must not commit, keep it, or do anything else
outside the database: a transaction may be run again.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from atoll.core.errors import AtollError, Internal, Invalid, Unavailable

Result = TypeVar("Result")
Work = Callable[[Connection], Result]
log = logging.getLogger(__name__)

_RETRYABLE = {"40001", "40P01"}
"""PostgreSQL's serialization failure and deadlock: the same transaction may succeed when it is run again."""
_LOCK_NOT_AVAILABLE = "55P03"
_TRIES = 5
_GATHER = 512
"""Most pieces of work that one transaction takes together."""
BUSY_SECONDS = 10.0
"""How long a writer waits for another's lock before it says so."""
_IDLE_IN_TRANSACTION_MILLISECONDS = 5_000
"""After this PostgreSQL ends a transaction whose owner fell silent, so that a paused replica holds up nobody."""
_LOCK_MILLISECONDS = 4_000
_STALLED_SECONDS = 10
"""Age from which a transaction that others wait for counts as stalled: ours take a second at the most."""


def parse_url(text_url: str) -> URL:
    """The URL of a database. Raises Invalid for what is neither SQLite nor PostgreSQL."""
    try:
        url = make_url(text_url)
    except SQLAlchemyError:
        raise Invalid(
            "bad_database_url",
            "The database URL cannot be read; write sqlite:////folder/atoll.db or postgresql://user@host/name.",
            field="database",
        ) from None
    backend = url.get_backend_name()
    if backend == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and url.database and url.database != ":memory:":
        return url.set(drivername="sqlite")
    raise Invalid(
        "bad_database_url",
        f"Atoll keeps its state in SQLite or PostgreSQL, not in {backend}; "
        "write sqlite:////folder/atoll.db or postgresql://user@host/name.",
        field="database",
    )


ORDER_LOCK = 0x4F5554424F58  # "OUTBOX"


def lock_order(connection: Connection) -> None:
    """Let no other transaction of the platform write before this one is over, as SQLite does by itself.

    The first lock of every write: replicas then never wait for each other in a circle, and events get their numbers
    in the order of commits. Each transaction carries many changes, so that little is lost.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ORDER_LOCK})


class _Vanished(Exception):
    """The file that the connection has open is no longer the one at its path."""


class Database:
    """The open database. Make it with `Database.open`, which brings the schema up to date."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.dialect = url.get_backend_name()
        self._path = Path(url.database) if self.dialect == "sqlite" and url.database else None
        self._engine = _sqlite_engine(self._path) if self._path else _postgresql_engine(url)
        # one view of everything for each piece of work that reads
        views = {} if self._path else {"isolation_level": "REPEATABLE READ"}
        self._reading = self._engine.execution_options(**views)
        self._pending: queue.SimpleQueue[tuple[Work[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="atoll-read")
        self._inode: tuple[int, int] | None = None
        self._closed = False
        self._writer = threading.Thread(target=self._write_forever, name="atoll-write", daemon=True)
        self._writer.start()

    @classmethod
    def open(cls, url: str) -> "Database":
        """Open the database at `url`, creating its schema or bringing it up to date. Raises Unavailable, Invalid."""
        from atoll.store.migrate import upgrade

        parsed = parse_url(url)
        try:
            upgrade(parsed)
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable(error, parsed) from error
        return cls(parsed)

    @property
    def shown_url(self) -> str:
        """The URL without its password."""
        return self.url.render_as_string(hide_password=True)

    async def write(self, work: Work[Result]) -> Result:
        """Run `work` in a transaction and return what it returned once that is committed.

        Raises what `work` raised (then nothing of it is kept), and Unavailable where the database does not take it.
        """
        return await asyncio.wrap_future(self.write_soon(work))

    def write_soon(self, work: Work[Result]) -> "Future[Result]":
        """As `write`, for callers outside the event loop."""
        self._refuse_closed()
        future: Future[Result] = Future()
        self._pending.put((work, future))
        return future

    async def read(self, work: Work[Result]) -> Result:
        """Run `work`, which only reads, on a consistent view. Raises Unavailable."""
        self._refuse_closed()
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, work)

    def read_now(self, work: Work[Result]) -> Result:
        """As `read`, in the calling thread."""
        try:
            self._check_file()
            with self._reading.connect() as connection:
                if self.dialect == "sqlite":
                    connection.exec_driver_sql("BEGIN")
                return work(connection)
        except (DBAPIError, OSError, _Vanished) as error:
            raise _failure(error, self.url) from error

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Unavailable("stopping", "The platform is stopping; try again in a moment.", retry_after=5)

    def close(self) -> None:
        """Finish what was handed in, then let go of all connections."""
        if not self._closed:
            self._closed = True
            self._pending.put(None)
            self._writer.join(timeout=30)
            self._readers.shutdown(wait=True)
            self._engine.dispose()

    def _write_forever(self) -> None:
        while (first := self._pending.get()) is not None:
            batch = [first]
            while len(batch) < _GATHER and not self._pending.empty():
                following = self._pending.get()
                if following is None:
                    self._pending.put(None)
                    break
                batch.append(following)
            try:
                self._run(batch)
            except BaseException as error:
                # the thread must outlive anything: without it every write would hang
                log.exception("the writer failed")
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)

    def _run(self, batch: list[tuple[Work[Any], Future[Any]]]) -> None:
        batch = [item for item in batch if item[1].set_running_or_notify_cancel()]
        results: list[Any] = []
        for tries_left in reversed(range(_TRIES)):
            try:
                results = self._transaction([work for work, _ in batch])
            except (DBAPIError, OSError, _Vanished) as error:
                state = getattr(getattr(error, "orig", None), "sqlstate", None)
                if tries_left and state == _LOCK_NOT_AVAILABLE:
                    self._end_stalled()
                    continue
                if tries_left and state in _RETRYABLE:
                    continue
                failure = _failure(error, self.url)
                failure.__cause__ = error
                results = [failure] * len(batch)
            except Exception as error:  # whoever handed the work in hears of it, and decides what it means
                results = [error] * len(batch)
            break
        for (_, future), result in zip(batch, results, strict=True):
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _transaction(self, works: list[Work[Any]]) -> list[Any]:
        """Run each piece of work under a savepoint of its own, so that one that fails takes nothing with it."""
        self._check_file()
        results: list[Any] = []
        with self._engine.connect() as connection:
            if self.dialect == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                lock_order(connection)
            for work in works:
                if len(works) == 1:
                    results.append(work(connection))
                    break
                savepoint = connection.begin_nested()
                try:
                    results.append(work(connection))
                    savepoint.commit()
                except DBAPIError as error:
                    if _concerns_all(error):
                        raise
                    savepoint.rollback()
                    results.append(_failure(error, self.url))
                except Exception as error:
                    savepoint.rollback()
                    results.append(error)
            connection.commit()
        return results

    def _end_stalled(self) -> None:
        """End transactions of other replicas that hold locks and have not moved for long.

        PostgreSQL's own time-out for idle transactions does not see one that was cut off in the middle of a
        pipelined statement: to the server it is active, waiting for the client.
        """
        statement = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND usename = current_user AND application_name = 'atoll' AND pid <> pg_backend_pid() "
            "AND xact_start < clock_timestamp() - make_interval(secs => :age) "
            "AND (wait_event = 'ClientRead' OR state LIKE 'idle in transaction%')"
        )
        try:
            with self._engine.connect() as connection:
                ended = len(connection.execute(statement, {"age": _STALLED_SECONDS}).all())
        except SQLAlchemyError as error:
            log.warning("stalled transactions could not be ended: %s", error)
            return
        if ended:
            log.warning("ended %d transactions of other replicas that held locks and did not move", ended)

    def _check_file(self) -> None:
        """A SQLite file that was removed or replaced under us would take writes that nobody ever sees again."""
        if self._path is None:
            return
        try:
            status = self._path.stat()
        except OSError as error:
            self._engine.dispose()
            self._inode = None
            raise _Vanished(f"{self._path} cannot be opened: {error.strerror}") from error
        inode = (status.st_dev, status.st_ino)
        if self._inode != inode:
            if self._inode is not None:
                self._engine.dispose()
            self._inode = inode


def _sqlite_engine(path: Path) -> Engine:
    # mode=rw: a database that has vanished is an error, never a new and empty one
    engine = create_engine(
        f"sqlite:///file:{path}?mode=rw&uri=true",
        poolclass=QueuePool,
        hide_parameters=True,
        pool_size=6,
        max_overflow=2,
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-8000", "temp_store=2"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


def _postgresql_engine(url: URL) -> Engine:
    return create_engine(
        url,
        pool_size=6,
        max_overflow=2,
        pool_pre_ping=True,
        hide_parameters=True,
        pool_recycle=1800,
        connect_args={
            "connect_timeout": 5,
            "application_name": "atoll",
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
            "options": f"-c idle_in_transaction_session_timeout={_IDLE_IN_TRANSACTION_MILLISECONDS}"
            f" -c lock_timeout={_LOCK_MILLISECONDS} -c statement_timeout=60000 -c synchronous_commit=on"
            " -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3",
        },
    )


_SQLITE_TROUBLE = frozenset({5, 6, 7, 8, 9, 10, 11, 13, 14, 26})
"""SQLite's result codes for a database that is busy, locked, read-only, damaged, full or not to be opened."""
_POSTGRESQL_TROUBLE = ("08", "25", "40", "53", "55", "57", "58", "XX")
"""PostgreSQL's classes of errors that are about the connection, the server or other transactions."""


def _concerns_all(error: DBAPIError) -> bool:
    """Whether an error is about the database, and not about the one statement that met it."""
    if error.connection_invalidated:
        return True
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _SQLITE_TROUBLE
    state = getattr(error.orig, "sqlstate", None)
    if state is None and isinstance(error, DataError):
        return False  # psycopg refused a value before anything was sent: one that PostgreSQL cannot store
    return state is None or state.startswith(_POSTGRESQL_TROUBLE)


def _failure(error: BaseException, url: URL) -> AtollError:
    """What whoever handed work in is told: the database is in trouble, or it refused this very statement."""
    if isinstance(error, DBAPIError) and not _concerns_all(error):
        return Internal("database_refused", f"The database refused to store this ({_words(error)}); please report it.")
    return _unavailable(error, url)


def _words(error: BaseException) -> str:
    """The first line of what the database said."""
    said = str(getattr(error, "orig", None) or error).strip()
    return said.splitlines()[0] if said else type(error).__name__


def _unavailable(error: BaseException, url: URL) -> AtollError:
    """What a database's failure means for the person who asked, in one sentence."""
    words = _words(error)
    lowered = words.lower()
    where = f"The database {url.render_as_string(hide_password=True)}"
    if "disk is full" in lowered or "no space left" in lowered or "could not extend file" in lowered:
        sentence = f"{where} cannot be written: the disk is full. Free some space; the platform goes on by itself."
        return Unavailable("disk_full", sentence, retry_after=30)
    if "locked" in lowered or "lock timeout" in lowered:
        return Unavailable(
            "database_locked", f"{where} is locked by another program ({words}); try again.", retry_after=5
        )
    return Unavailable("database_unavailable", f"{where} does not answer ({words}).", retry_after=5)


def database_now(connection: Connection) -> int:
    """The database's own time in microseconds UTC: the clock that leases go by."""
    if connection.dialect.name == "sqlite":
        statement = "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000"
    else:
        statement = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
    return int(connection.execute(text(statement)).scalar_one())
