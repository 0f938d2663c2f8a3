"""The process driver: runs attempts as processes of this machine, under the supervisor of the site."""

import asyncio
import errno
import os
import shutil
import signal as signals
import socket
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from atoll.core.clock import from_micros, system_clock
from atoll.core.errors import Invalid
from atoll.core.ids import is_attempt_id
from atoll.core.resources import format_bytes, format_milli
from atoll.core.site import Ability, Flavor, SiteReport
from atoll.core.states import Outcome
from atoll.drivers.base import (
    Answer,
    AttemptStatus,
    DriverError,
    DriverSetup,
    Held,
    Launch,
    LogChunk,
    Observation,
    Phase,
    Refused,
    StopReason,
    StopRequest,
    Submitted,
    Unknown,
)
from atoll.drivers.process import volumes
from atoll.drivers.process.accounts import Account, Unmapped, account_for, closed_folder
from atoll.drivers.process.config import group_name, read_config
from atoll.drivers.process.execution import Ends, ProcessExecution
from atoll.drivers.process.folders import SiteFolders
from atoll.drivers.process.link import SupervisorLink
from atoll.drivers.process.listening import PortChannel, address_of
from atoll.drivers.process.machine import Machine, discover
from atoll.drivers.wrapper import SECRETS, Place, Record, read_record, render_launch
from atoll.drivers.wrapper.take_out import take_out

_SCRATCH_NOTE = "Scratch space must be free when a job is taken on, and is not held to what was asked."
_NO_MOUNTS = "this machine lets the platform make no mounts, neither as root nor by a user namespace"
_PATH = "/usr/local/bin:/usr/bin:/bin"
_ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OUTCOMES = {
    StopReason.CANCELLED: Outcome.CANCELLED,
    StopReason.EVICTED: Outcome.EVICTED,
    StopReason.ORPHANED: Outcome.CANCELLED,
}
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE}
_INLINE = 64 << 10
"""Bytes of output that are read on the event loop; more would hold it up."""
_DISTINCT_SITE = ("ATOLL_NODE_RANK", "ATOLL_NODES", "ATOLL_CPUS")


class ProcessDriver:
    """This machine as a site. Has Logs, Signals, Watch, Stage, Connect and Exec."""

    def __init__(self, setup: DriverSetup) -> None:
        self._setup = setup
        self._config = read_config(setup.config)
        self._folder = Path(os.path.realpath(self._config.folder or setup.folder))
        self._folders = SiteFolders(self._folder, shared=self._others)
        self._machine = discover(self._config)
        settings = {
            "name": group_name(self._folder),
            "gpus": [gpu.index for gpu in self._machine.gpus],
            "cgroups": self._config.memory_by == "auto",
            "mounts": bool(self._config.volumes),
        }
        self._link = SupervisorLink(self._folder, settings)
        self._prepared = False
        self._known: dict[str, AttemptStatus] = {}
        self._epoch: str | None = None
        self._version = 0
        self._accounts: dict[tuple[str, str | None], Account] = {}

    @property
    def _others(self) -> bool:
        return os.geteuid() == 0 and bool(self._config.accounts)

    @property
    def machine(self) -> Machine:
        """What was found of this machine."""
        return self._machine

    @property
    def supervisor_pid(self) -> int:
        """Process id of the supervisor; 0 before the first question to it."""
        return self._link.pid

    # -- Driver --------------------------------------------------------------------------------------------------

    async def describe(self) -> SiteReport:
        """What this machine has. Raises DriverError where the supervisor cannot be started."""
        await self._ask("hello")
        machine = self._machine
        flavor = Flavor(machine.flavor, total=machine.total, node=machine.total)
        abilities = {Ability.SIGNAL, Ability.FILES, Ability.SCRATCH, Ability.VENV, Ability.SECRETS, Ability.CONNECT}
        notes = []
        if self._conda() is not None:
            abilities.add(Ability.CONDA)
        if self._config.volumes and self._link.mounts:
            abilities.add(Ability.VOLUMES)
        elif self._config.volumes:
            notes.append(f"Volumes cannot be used: {_NO_MOUNTS}.")
        if self._others or self._setup.shared:
            abilities.add(Ability.OTHER_PERSONS)
        by = {
            "v1": "Memory is held to what was asked by cgroup (version 1).",
            "v2": "Memory is held to what was asked by cgroup (version 2).",
            "sampling": "Memory is looked at a few times a second, as no cgroup may be made here: a job can pass "
            "its limit for a moment before it is ended.",
        }[self._link.memory]
        notes = [by, "CPUs are counted, and not held to what was asked.", _SCRATCH_NOTE, *notes, *machine.notes]
        return SiteReport(
            flavors=(flavor,), abilities=frozenset(abilities), owner=self._setup.owner or None,
            volumes=frozenset(self._config.volumes), notes=tuple(notes),
        )  # fmt: skip

    async def submit(self, attempts: Sequence[Launch]) -> list[Answer]:
        """Lay the attempts' folders out and hand them to the supervisor."""
        if not attempts:
            return []
        await self._prepare()
        if self._link.pid == 0 and any(launch.spec.volumes for launch in attempts):
            await self._ask("hello")  # whether there can be volumes
        laid = await asyncio.to_thread(lambda: [self._lay_out(launch) for launch in attempts])
        requests = [request for request in laid if isinstance(request, dict)]
        said = (await self._ask("submit", attempts=requests))["answers"] if requests else []
        sentences = iter(said)
        answers: list[Answer] = []
        for launch, request in zip(attempts, laid, strict=True):
            if not isinstance(request, dict):
                answers.append(request)
                continue
            sentence = next(sentences)
            if sentence is None:
                answers.append(Submitted(launch.attempt_id, launch.attempt_id))
            else:
                answers.append(Refused(launch.attempt_id, sentence))
        return answers

    async def observe(self, held: Sequence[Held]) -> Observation:
        """What the supervisor knows: it is asked for what changed, and the answer is all there is."""
        as_of = system_clock()
        await self._prepare()
        answer = await self._ask("observe", epoch=self._epoch, since=self._version)
        self._learn(answer)
        if answer["count"] != len(self._known):
            # another driver of this site made the supervisor forget some
            self._learn(await self._ask("observe", epoch=None, since=0))
        ours = self._setup.instance + "-"
        states = {each: status for each, status in self._known.items() if each.startswith(ours)}
        missing = [each for each in held if each.attempt_id not in states and is_attempt_id(each.attempt_id)]
        if missing:
            states |= await asyncio.to_thread(self._ends_of, missing)
        return Observation(complete=True, as_of=as_of, states=states)

    def _learn(self, answer: dict[str, Any]) -> None:
        """Bring what is known up to date with an answer to "observe"."""
        if answer["whole"]:
            self._known = {}
        self._epoch, self._version = answer["epoch"], answer["version"]
        for state in answer["attempts"]:
            self._known[state[0]] = _status(state)

    def _ends_of(self, missing: Sequence[Held]) -> dict[str, AttemptStatus]:
        """The ends of attempts that the supervisor has lost (its journal is gone), as their wrappers wrote them."""
        found = {}
        for each in missing:
            record = read_record(str(self._folders.of(each.attempt_id)))
            if record.ended:
                found[each.attempt_id] = _recorded(each.attempt_id, record)
        return found

    async def stop(self, attempts: Sequence[StopRequest]) -> None:
        """Ask the attempts to end by TERM, and have them killed after their grace; none waits, to be recalled."""
        stops = [
            {"id": each.attempt.attempt_id, "outcome": _OUTCOMES[each.reason].value, "grace": max(0.0, each.grace)}
            for each in attempts
            if each.reason is not StopReason.RECALLED
        ]
        if stops:
            await self._ask("stop", attempts=stops)

    async def forget(self, attempts: Sequence[Held]) -> None:
        """Drop ended attempts and remove their folders; those that still run are left alone."""
        ids = [each.attempt_id for each in attempts if is_attempt_id(each.attempt_id, self._setup.instance)]
        if not ids:
            return
        gone = (await self._ask("forget", ids=ids))["gone"]
        for each in gone:
            self._known.pop(each, None)
        await asyncio.to_thread(self._folders.remove, gone)

    async def close(self) -> None:
        """Let go of the supervisor, which goes on."""
        await self._link.close()

    # -- Logs, Signals, Watch, Stage, Connect, Exec -------------------------------------------------------------------

    async def read_log(self, attempt: Held, stream: str, offset: int, limit: int) -> LogChunk:
        """A piece of output, from the attempt's folder. Raises KeyError for an attempt or stream that is not there."""
        attempt_id = attempt.attempt_id
        chunk = self._folders.read_log(attempt_id, stream, offset, min(limit, _INLINE))
        if len(chunk.data) < min(limit, chunk.size - chunk.offset):
            return await asyncio.to_thread(self._folders.read_log, attempt_id, stream, offset, limit)
        return chunk

    async def signal(self, attempt: Held, signal: int) -> None:
        """Send a signal to all processes of a running attempt. Raises KeyError where it does not run."""
        if signal not in signals.valid_signals():
            raise ValueError(f"{signal} is no signal")
        if not (await self._ask("signal", id=attempt.attempt_id, signal=int(signal)))["sent"]:
            raise KeyError(attempt.attempt_id)

    def changes(self) -> AsyncGenerator[None, None]:
        """Yields after an attempt started or ended, at most once until the next observe."""
        return self._link.changes()

    async def take_out(self, attempt: Held, patterns: Sequence[str], into: Path) -> list[str]:
        """Copy files of the attempt's working directory. Raises KeyError where there is no such attempt."""
        return await asyncio.to_thread(self._take_out, attempt.attempt_id, patterns, into)

    async def connect(self, attempt: Held, port: int) -> PortChannel:
        """A stream to a port that a process of the attempt listens on, by the loopback of this machine."""
        pids = (await self._ask("members", id=attempt.attempt_id))["pids"]
        if pids is None:
            raise KeyError(attempt.attempt_id)
        address = await asyncio.to_thread(address_of, pids, port)
        if address is None:
            raise DriverError(f"No process of this attempt listens on port {port}.")
        return await PortChannel.open(address, port)

    async def execute(self, attempt: Held, command: Sequence[str], *, terminal: bool = False) -> ProcessExecution:
        """Start a command beside the attempt's own, as its account; without a terminal its errors are output, too."""
        await self._prepare()
        return await self._link.execute(Ends(terminal), id=attempt.attempt_id, words=list(command))

    async def shutdown(self) -> bool:
        """Tell the supervisor to end, if no attempt runs; whether it does. Not part of the protocol of drivers."""
        return bool((await self._ask("shutdown"))["leaving"])

    # -- how -----------------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        if not self._prepared:
            await asyncio.to_thread(self._folders.prepare_site)
            self._prepared = True

    async def _ask(self, question: str, **values: Any) -> dict[str, Any]:
        await self._prepare()
        return await self._link.ask(question, **values)

    def _take_out(self, attempt_id: str, patterns: Sequence[str], into: Path) -> list[str]:
        root = self._folders.open_workdir(attempt_id)
        if root is None:
            return []
        try:
            uid = self._folders.of(attempt_id).stat().st_uid
            return take_out(root, patterns, into, None if uid == os.geteuid() else uid)
        finally:
            os.close(root)

    def _conda(self) -> str | None:
        return self._config.conda or os.environ.get("CONDA_EXE") or shutil.which("conda")

    def _lay_out(self, launch: Launch) -> dict[str, Any] | Refused | Unknown:
        """Make the attempt's folder; what the supervisor is to be asked, or why the attempt cannot run here."""
        if not is_attempt_id(launch.attempt_id, self._setup.instance):
            return Refused(launch.attempt_id, f"attempt: {launch.attempt_id!r} is not an attempt of this platform")
        try:
            refusal = self._cannot(launch)
            if refusal is not None:
                return Refused(launch.attempt_id, refusal)
            shortage = self._short_of_scratch(launch)
            if shortage is not None:
                return shortage
            account = self._account(launch)
            workdir = self._folders.workdir_of(launch)
            text = render_launch(launch, self._place(launch, account, workdir))
            self._folders.lay_out(launch, account, text, volumes.outside(workdir, launch, self._config.volumes))
        except (Unmapped, ValueError, Invalid) as error:
            return Refused(launch.attempt_id, f"{str(error).rstrip('.')}.")
        except OSError as error:
            message = f"The attempt's folder cannot be made in {self._folders.attempts}: {error.strerror}."
            # a full disk is nobody's fault, and may have room again
            full = error.errno in _PASSING
            return Unknown(launch.attempt_id, message) if full else Refused(launch.attempt_id, message, permanent=False)
        return self._request(launch, account)

    def _cannot(self, launch: Launch) -> str | None:
        """Why this machine can never run the attempt, the field named; None where it can."""
        spec, total = launch.spec, self._machine.total
        asked = launch.request
        reasons = {
            "environment.image": spec.environment is not None and spec.environment.image is not None
            and "this site runs no container images",
            "environment.conda": spec.environment is not None and spec.environment.conda is not None
            and self._conda() is None and "this site has no conda",
            "volumes": self._without_volumes(launch),
            "nodes": launch.nodes > 1 and f"this site is one machine, and {launch.nodes} nodes were asked for",
            "cpu": asked.cpu > total.cpu
            and f"{format_milli(asked.cpu)} CPUs were asked for and this machine has {format_milli(total.cpu)}",
            "memory": asked.memory > total.memory
            and f"{format_bytes(asked.memory)} were asked for and this machine has {format_bytes(total.memory)}",
            "gpu": asked.gpu > total.gpu
            and f"{format_milli(asked.gpu)} GPUs were asked for and this machine has {format_milli(total.gpu)}",
        }  # fmt: skip
        return next((f"{field}: {reason}." for field, reason in reasons.items() if reason), None)

    def _without_volumes(self, launch: Launch) -> str | None:
        if not launch.spec.volumes:
            return None
        if self._config.volumes and not self._link.mounts:
            return _NO_MOUNTS
        return volumes.refusal(launch, self._config.volumes, self._folder)

    def _short_of_scratch(self, launch: Launch) -> Refused | None:
        """Why the attempt's scratch space is not to be had, now or ever. Raises OSError."""
        asked = launch.spec.scratch
        if not asked:
            return None
        disk = os.statvfs(self._folders.attempts)
        total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
        if asked <= free:
            return None
        never = asked > total
        has = f"has {format_bytes(total)}" if never else f"has {format_bytes(free)} free at this moment"
        message = f"scratch: {format_bytes(asked)} were asked for and the file system of {self._folder} {has}."
        return Refused(launch.attempt_id, message, permanent=never)

    def _account(self, launch: Launch) -> Account:
        key = (launch.person, launch.account)
        account = self._accounts.get(key)
        if account is None:
            account = account_for(launch, self._setup, self._config)
            if not account.own:
                self._open_way(account)
            self._accounts[key] = account
        return account

    def _open_way(self, account: Account) -> None:
        """Let another account pass to its attempts, without letting it list them."""
        for path in (self._folder, self._folders.attempts, self._folders.checkpoints):
            path.chmod(0o711)
        closed = closed_folder(self._folders.attempts, account)
        if closed is not None:
            raise Unmapped(
                f"account: {account.name!r} cannot reach the folder {self._folders.attempts}, because {closed} is "
                "closed to it; name another folder in the site's config"
            )

    def _place(self, launch: Launch, account: Account, workdir: str) -> Place:
        folder = str(self._folders.of(launch.attempt_id))
        environment = {
            "PATH": self._config.path or self._default_path(account),
            "HOME": account.home,
            "USER": account.name,
            "LOGNAME": account.name,
            "SHELL": account.shell,
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            **({"TZ": os.environ["TZ"]} if "TZ" in os.environ else {}),
            **self._config.environment,
        }
        given = {**environment, **launch.environment, **launch.spec.env}
        site = {
            "ATOLL_SCRATCH": f"{folder}/scratch",
            "ATOLL_CHECKPOINT_DIR": str(self._folders.checkpoint_of(launch)),
            "ATOLL_MASTER_ADDR": "127.0.0.1",
        }
        known = dict(zip(_DISTINCT_SITE, ("0", "1", str(max(1, -(-launch.request.cpu // 1000)))), strict=True))
        site |= {name: value for name, value in known.items() if name not in given}
        if launch.spec.slurm:
            host = socket.gethostname().partition(".")[0]
            site |= {"SLURMD_NODENAME": host, "SLURM_JOB_NODELIST": host, "SLURM_NODELIST": host}
            site |= {"SLURM_SUBMIT_DIR": workdir}
            ranks = {"SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
            site |= {name: value for name, value in ranks.items() if name not in given}
        if self._machine.gpus:
            # only the supervisor knows which devices, and it hands them down by the environment
            environment.pop("CUDA_VISIBLE_DEVICES", None)
        return Place(
            folder=folder,
            workdir=workdir,
            account=account.name,
            environment=environment,
            site_environment=site,
            files=f"{folder}/files" if launch.files and not workdir.startswith(f"{folder}/") else None,
            secrets=f"{folder}/{SECRETS}" if launch.spec.secrets else None,
            conda=self._conda(),
            withheld=frozenset({"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"} if self._machine.gpus else ()),
        )

    def _default_path(self, account: Account) -> str:
        if account.own:
            return os.environ.get("PATH") or (_ROOT_PATH if account.uid == 0 else _PATH)
        return _PATH

    def _request(self, launch: Launch, account: Account) -> dict[str, Any]:
        end = launch.spec.signal
        return {
            "id": launch.attempt_id,
            "uid": account.uid,
            "gid": account.gid,
            "groups": [] if account.own else list(account.groups),
            "memory": launch.request.memory,
            "walltime": launch.walltime,
            "signal": int(signals.Signals[f"SIG{end.name}"]) if end is not None else 0,
            "before": end.before if end is not None else 0,
            "grace": launch.spec.grace,
            "gpu": launch.request.gpu,
            "volumes": volumes.requests(launch, self._config.volumes),
            "scratch": str(self._folders.of(launch.attempt_id) / "scratch"),
            "secrets": str(self._folders.of(launch.attempt_id) / SECRETS) if launch.spec.secrets else "",
            "checkpoint": launch.checkpoint_key,
        }


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else from_micros(round(seconds * 1_000_000))


def _status(state: list[Any]) -> AttemptStatus:
    """What the supervisor's answer says of one attempt; the order is that of `Attempt.status`."""
    attempt_id, phase, pid, started, ended, outcome, code, signal, message, peak, cpu = state
    return AttemptStatus(
        attempt_id=attempt_id,
        phase=Phase(phase),
        native_id=attempt_id,
        native_state=f"process {pid}" if pid else "",
        started_at=_moment(started),
        ended_at=_moment(ended),
        outcome=Outcome(outcome) if outcome is not None else None,
        exit_code=code,
        signal=signal,
        message=message,
        max_memory=peak,
        cpu_seconds=cpu,
    )


def _recorded(attempt_id: str, record: Record) -> AttemptStatus:
    """What the wrapper's record says of an attempt that ended."""
    return AttemptStatus(
        attempt_id=attempt_id,
        phase=Phase.ENDED,
        native_id=attempt_id,
        started_at=_moment(record.started_at),
        ended_at=_moment(record.ended_at),
        outcome=Outcome.SUCCEEDED if record.exit_code == 0 else Outcome.FAILED,
        exit_code=record.exit_code,
        signal=record.signal,
        cpu_seconds=record.cpu_seconds,
    )
