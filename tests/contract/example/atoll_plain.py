"""A driver as small as one can be: attempts are plain processes of this machine, and their folders are its memory."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from atoll.core.clock import from_micros, system_clock
from atoll.core.errors import Invalid
from atoll.core.ids import is_attempt_id
from atoll.core.resources import Bytes, Milli, Resources
from atoll.core.site import Ability, Flavor, SiteReport
from atoll.core.spec import Document, explain_validation
from atoll.core.states import Outcome
from atoll.drivers.base import (
    Answer,
    AttemptStatus,
    DriverSetup,
    Held,
    Launch,
    LogChunk,
    Observation,
    Phase,
    Refused,
    StopRequest,
    Submitted,
)
from atoll.drivers.wrapper import LAUNCH, SCRIPT, WRAPPER, Place, read_record, render_launch

_KILL = """
for tried in 1 2 3 4 5 6 7 8 9 10; do
    read -r group rest <"$0/start" && break  # what took the claim just now writes it at once
    sleep 0.5
done
kill -TERM -"$group" && sleep "$1" && kill -KILL -"$group"
"""


class PlainConfig(Document):
    """The site file's `config`."""

    cpus: Milli = 4000
    memory: Bytes = 8 << 30


def read_config(config: Mapping[str, Any]) -> PlainConfig:
    """The configuration that a site file says. Raises Invalid, naming the field."""
    try:
        return PlainConfig.model_validate(dict(config))
    except ValidationError as error:
        raise explain_validation(error, {"": list(PlainConfig.model_fields)}, "site", "config.") from None


class PlainDriver:
    """This machine without any engine. Has Logs."""

    def __init__(self, setup: DriverSetup) -> None:
        self._setup = setup
        config = read_config(setup.config)
        self._room = Resources(config.cpus, config.memory)
        self._attempts = setup.folder / "attempts"
        self._checkpoints = setup.folder / "checkpoints"

    async def describe(self) -> SiteReport:
        """What the site has and can do."""
        flavor = Flavor("cpu", total=self._room, node=self._room)
        return SiteReport((flavor,), frozenset({Ability.VENV, Ability.SCRATCH}), owner=self._setup.owner)

    async def submit(self, attempts: Sequence[Launch]) -> list[Answer]:
        """Start each attempt that was not started before."""
        return [await asyncio.to_thread(self._submit, launch) for launch in attempts]

    def _submit(self, launch: Launch) -> Answer:
        folder = self._attempts / launch.attempt_id
        refusal = self._cannot(launch)
        if refusal is not None:
            return Refused(launch.attempt_id, refusal)
        if not folder.exists():
            try:
                self._lay_out(launch, folder)
            except Invalid as error:
                return Refused(launch.attempt_id, error.sentence)
        # Repeating this is harmless: the wrapper runs an attempt that was claimed before no second time.
        words = ["setsid", "--fork", "/bin/sh", str(WRAPPER), str(folder), launch.attempt_id]
        subprocess.run(words, stdin=subprocess.DEVNULL, env={}, check=True)
        return Submitted(launch.attempt_id, launch.attempt_id)

    def _cannot(self, launch: Launch) -> str | None:
        """Why the site never runs this, the field named first; None where it does."""
        spec, environment = launch.spec, launch.spec.environment
        reasons = {
            "person": launch.person != self._setup.owner and f"{launch.person!r} has no account here",
            "environment.image": environment and environment.image and "there are no containers here",
            "environment.conda": environment and environment.conda and "there is no conda here",
            "volumes": spec.volumes and "there are no volumes here",
            "secrets": spec.secrets and "no secrets can be handed over here",
            "files_in": launch.files and "no files can be carried here",
            "walltime": launch.walltime is not None and "nobody holds jobs to a walltime here",
            "nodes": launch.nodes > 1 and "there is one node",
            "memory": not launch.request.fits(self._room) and f"there are {self._room}",
        }
        return next((f"{field}: {reason}." for field, reason in reasons.items() if reason), None)

    def _lay_out(self, launch: Launch, folder: Path) -> None:
        """Make the attempt's folder, whole or not at all. Raises Invalid."""
        fresh, checkpoint = folder.with_suffix(".new"), self._checkpoints / launch.checkpoint_key
        shutil.rmtree(fresh, ignore_errors=True)
        for path in (fresh / "work" / (launch.spec.workdir or "").lstrip("/"), fresh / "scratch", checkpoint):
            path.mkdir(parents=True, exist_ok=True)
        place = Place(
            folder=str(folder),
            workdir=str(folder / "work" / (launch.spec.workdir or "")),  # an absolute one stays as it is
            account="",
            environment={"PATH": os.defpath, "HOME": str(Path.home())},
            site_environment={
                "ATOLL_SCRATCH": str(folder / "scratch"),
                "ATOLL_CHECKPOINT_DIR": str(checkpoint),
                "ATOLL_MASTER_ADDR": "127.0.0.1",
                "ATOLL_NODE_RANK": "0",
                "ATOLL_NODES": "1",
                "ATOLL_CPUS": str(max(1, launch.request.cpu // 1000)),
            },
        )
        (fresh / LAUNCH).write_text(render_launch(launch, place))
        if launch.spec.script is not None:
            (fresh / SCRIPT).write_text(launch.spec.script)
        fresh.rename(folder)

    async def observe(self, held: Sequence[Held]) -> Observation:
        """Every attempt of this platform: one look at the folders."""
        as_of = system_clock()
        ours = [path for path in self._attempts.glob("*") if is_attempt_id(path.name, self._setup.instance)]
        return Observation(complete=True, as_of=as_of, states={path.name: _status(path) for path in ours})

    async def stop(self, attempts: Sequence[StopRequest]) -> None:
        """TERM to the attempt's processes now, and KILL after the grace, by a process that outlives us."""
        for request in attempts:
            folder = self._attempts / request.attempt.attempt_id
            # nothing waits here, so that there is nothing to be recalled
            if not folder.is_dir() or read_record(str(folder)).ended or request.reason == "recalled":
                continue
            if not (folder / "stopped").exists():
                outcome = Outcome.EVICTED if request.reason == "evicted" else Outcome.CANCELLED
                (folder / "stopped").write_text(outcome.value)
            try:
                (folder / "claim").mkdir()  # who has not started yet never will: the claim is taken
            except FileExistsError:
                words = ["setsid", "--fork", "/bin/sh", "-c", _KILL, str(folder), str(max(0.0, request.grace))]
                await asyncio.to_thread(subprocess.run, words, stderr=subprocess.DEVNULL, check=True)

    async def forget(self, attempts: Sequence[Held]) -> None:
        """Remove the folders of attempts that ended."""
        for each in attempts:
            folder = self._attempts / each.attempt_id
            if folder.is_dir() and _status(folder).phase is Phase.ENDED:
                await asyncio.to_thread(shutil.rmtree, folder)

    async def close(self) -> None:
        """There is no connection to let go of."""

    async def read_log(self, attempt: Held, stream: str, offset: int, limit: int) -> LogChunk:
        """A piece of output. Raises KeyError."""
        folder = self._attempts / attempt.attempt_id
        if not is_attempt_id(attempt.attempt_id) or not folder.is_dir() or stream not in ("stdout", "stderr"):
            raise KeyError(attempt.attempt_id)
        try:
            descriptor = os.open(folder / stream, os.O_RDONLY | os.O_NOFOLLOW)  # what the job put there is not trusted
        except OSError:
            return LogChunk(0, b"", 0)
        try:
            size = os.fstat(descriptor).st_size
            start = max(0, size + offset) if offset < 0 else min(offset, size)
            return LogChunk(start, os.pread(descriptor, limit, start), size)
        finally:
            os.close(descriptor)


def _status(folder: Path) -> AttemptStatus:
    """What the wrapper wrote in an attempt's folder, or did not."""
    record, stopped = read_record(str(folder)), folder / "stopped"
    started = None if record.started_at is None else from_micros(int(record.started_at * 1e6))
    if record.ended_at is not None:
        outcome = Outcome.SUCCEEDED if record.exit_code == 0 else Outcome.FAILED
    elif record.pid is not None and not _alive(record.pid):
        outcome = Outcome.LOST
    elif record.pid is None and stopped.exists():
        outcome = Outcome.CANCELLED
    else:
        phase = Phase.STARTING if record.pid is None else Phase.RUNNING
        return AttemptStatus(folder.name, phase, folder.name, started_at=started)
    return AttemptStatus(
        folder.name,
        Phase.ENDED,
        folder.name,
        started_at=started,
        ended_at=None if record.ended_at is None else from_micros(int(record.ended_at * 1e6)),
        outcome=Outcome(stopped.read_text()) if stopped.exists() else outcome,
        exit_code=record.exit_code,
        signal=record.signal,
    )


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
