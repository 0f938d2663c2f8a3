"""A real PostgreSQL server in a temporary folder, for tests and benchmarks.

    with PostgresServer() as server:
        url = server.create_database()

It listens on a free port of the loopback address, takes a password that only this process knows, and ends
with the process that started it. `stop`, `start`, `kill`, `pause` and `resume` make it vanish and come back.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

from tests.support.ports import free_port

_SUPERUSER = "atoll"
_SERVER_ACCOUNT = "postgres"  # the server refuses to run as root
_START_SECONDS = 30.0
_STOP_SECONDS = 30.0


class PostgresUnavailable(Exception):
    """This machine has no PostgreSQL that can be started; the message says what is missing."""


class PostgresServer:
    """One server with databases of its own.

    `durable=False` turns fsync off: quicker, for a database that has no power cut to outlive.
    `synchronous_commit` is on in both cases. `settings` are further lines of postgresql.conf.
    """

    def __init__(self, *, durable: bool = True, settings: Mapping[str, str] | None = None) -> None:
        self._settings = {
            "synchronous_commit": "on",
            "fsync": "on" if durable else "off",
            "max_connections": "100",
            "shared_buffers": "64MB",
            **(settings or {}),
        }
        self._binaries = find_binaries()
        self._password = secrets.token_hex(16)
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        try:
            self._initialise()
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    # Databases

    def url(self, database: str) -> str:
        """SQLAlchemy's URL of `database`."""
        return f"postgresql+psycopg://{_SUPERUSER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str | None = None) -> str:
        """Create an empty database, with a name of its own unless one is given; its URL."""
        name = name or f"atoll_{secrets.token_hex(6)}"
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop the database of `url`, and with it whatever connections somebody left open."""
        name = url.rpartition("/")[2]
        with self.connect() as connection:
            drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            connection.execute(drop.format(sql.Identifier(name)))

    # Its life

    def start(self) -> None:
        """Start the server, on the port and folder that it had before; returns when it answers."""
        assert self._folder is not None, "use the server as a context manager"
        assert self._process is None, "the server runs already"
        self.port = self.port or free_port()
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                # The kernel ends the server when the thread that started it is gone, SIGKILL included.
                _as_server_account("--pdeathsig", "INT")
                + [str(self._binaries / "postgres"), "-D", "data", "-p", str(self.port)],
                cwd=self._folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests; they end the server themselves
            )
        if self._answers():
            return
        self._process = None
        text = (self._folder / "server.log").read_text(errors="replace")
        raise RuntimeError(f"PostgreSQL did not start; its log ends:\n{text[-2000:]}")

    def stop(self) -> None:
        """Stop the server in order: connections are cut, nothing that was committed is lost."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End the server at once, as a crash would; the next `start` recovers from its log."""
        self._end(signal.SIGQUIT)

    def pause(self) -> None:
        """Stop all of its processes where they are: connections stay open and nothing answers."""
        main = self._pid
        # The main process first, so that it starts no further one while they are listed.
        os.kill(main, signal.SIGSTOP)
        for child in _children(main):
            _send(child, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        main = self._pid
        for child in _children(main):
            _send(child, signal.SIGCONT)
        os.kill(main, signal.SIGCONT)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the server for the length of a `with` block."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def remove(self) -> None:
        """Stop the server and remove its folder; may be called at any time and more than once."""
        self.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    # Inside

    @property
    def _pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def connect(self, timeout: float = 10) -> psycopg.Connection[tuple[object, ...]]:
        """A connection of the superuser, each statement a transaction of its own."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=_SUPERUSER,
            password=self._password,
            dbname="postgres",
            connect_timeout=int(timeout),
            autocommit=True,
        )

    def _initialise(self) -> None:
        """Make the folder and an empty cluster in it, both the server account's own."""
        # As root not in $TMPDIR: a folder there may be closed to the server's account.
        self._folder = Path(tempfile.mkdtemp(prefix="atoll-pg-", dir="/tmp" if os.geteuid() == 0 else None))
        password = self._folder / "password"
        password.write_text(self._password)
        if os.geteuid() == 0:
            account = pwd.getpwnam(_SERVER_ACCOUNT)
            for path in (password, self._folder):
                os.chown(path, account.pw_uid, account.pw_gid)
        subprocess.run(
            _as_server_account()
            + [str(self._binaries / "initdb"), "--pgdata=data", "--no-sync", "--no-instructions"]
            + [f"--username={_SUPERUSER}", f"--pwfile={password}", "--auth=scram-sha-256"]
            + ["--encoding=UTF8", "--locale=C.UTF-8"],
            cwd=self._folder,
            env=_environment(),
            check=True,
            capture_output=True,
        )
        self._settings["listen_addresses"] = "127.0.0.1"
        self._settings["unix_socket_directories"] = str(self._folder)
        with (self._folder / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in self._settings.items())

    def _answers(self) -> bool:
        """Wait until the server answers; False if it ended instead."""
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            with contextlib.suppress(psycopg.OperationalError), self.connect(timeout=5):
                return True
            time.sleep(0.02)
        self._end(signal.SIGQUIT)
        return False

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            for child in _children(process.pid):  # a paused server would not hear
                _send(child, signal.SIGCONT)
            _send(process.pid, signal.SIGCONT)
            _send(process.pid, how)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            # SIGKILL to the main process alone would leave its children; SIGQUIT makes it end them first.
            process.send_signal(signal.SIGQUIT)
            process.wait(_STOP_SECONDS)


def find_binaries() -> Path:
    """Folder of the newest PostgreSQL's programs, on the PATH or where Debian puts them.

    Raises PostgresUnavailable.
    """
    on_path = shutil.which("initdb")
    if on_path and shutil.which("postgres"):
        return Path(on_path).resolve().parent
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    if not versions:
        raise PostgresUnavailable("no initdb on the PATH or in /usr/lib/postgresql (package postgresql)")
    if os.geteuid() == 0:
        try:
            pwd.getpwnam(_SERVER_ACCOUNT)
        except KeyError:
            raise PostgresUnavailable(f"root may not run it; no account {_SERVER_ACCOUNT} is there") from None
    return max(versions, key=lambda path: float(path.parent.name))


def _as_server_account(*options: str) -> list[str]:
    """Beginning of a command line that goes on as somebody who may run the server."""
    if os.geteuid() != 0:
        return ["setpriv", *options] if options else []
    account = ["--reuid", _SERVER_ACCOUNT, "--regid", _SERVER_ACCOUNT, "--clear-groups"]
    return ["setpriv", *account, *options]


def _environment() -> dict[str, str]:
    # PG* variables of the person who runs the tests are about other servers.
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _children(parent: int) -> list[int]:
    """Process ids of the direct children: all of the server's processes are, each in a group of its own."""
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        # A process that ended while this looks is not one to signal.
        with contextlib.suppress(OSError):
            # "pid (name) state parent ...", where the name may hold spaces and parentheses
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                children.append(int(stat.parent.name))
    return children


def _send(process: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)
