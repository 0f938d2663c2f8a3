"""The Slurm driver: runs attempts as jobs of a cluster, as the accounts of the persons who sent them."""

import os
import signal as signals
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from atoll.core.ids import is_attempt_id
from atoll.core.site import Ability, SiteReport
from atoll.core.spec import JobClass
from atoll.drivers.base import (
    Answer,
    Channel,
    DriverError,
    DriverSetup,
    Execution,
    Held,
    Launch,
    LogChunk,
    Observation,
    Phase,
    StopReason,
    StopRequest,
)
from atoll.drivers.shell import Shell
from atoll.drivers.slurm import scripts
from atoll.drivers.slurm.config import read_config
from atoll.drivers.slurm.ends import REQUEUED
from atoll.drivers.slurm.facts import flavors, notes
from atoll.drivers.slurm.hints import Hints
from atoll.drivers.slurm.images import image_program
from atoll.drivers.slurm.inside import Inside
from atoll.drivers.slurm.jobs import SlurmJob
from atoll.drivers.slurm.observing import Observer
from atoll.drivers.slurm.openings import Openings
from atoll.drivers.slurm.said import plain, unreachable
from atoll.drivers.slurm.site import SlurmSite, make_shell
from atoll.drivers.slurm.submitting import Submitter


class SlurmDriver:
    """A Slurm cluster as a site. Has Logs, Signals, Watch, Stage, Exec and Connect."""

    def __init__(self, setup: DriverSetup, shell: Shell | None = None) -> None:
        """`shell` takes the place of the one that the site file asks for. Raises Invalid."""
        self._setup = setup
        self._config = read_config(setup.config)
        self._site = SlurmSite(setup, self._config, shell or make_shell(self._config))
        self._observer = Observer(self._site)
        self._submitter = Submitter(self._site, self._observer)
        self._inside = Inside(self._site)
        self._hints = Hints(self._site)
        self._openings = Openings(self._site)

    # -- Driver --------------------------------------------------------------------------------------------------

    async def describe(self) -> SiteReport:
        """The cluster as far as this site uses it. Raises DriverError."""
        facts = await self._site.facts(fresh=True)
        limits = await self._site.limits()
        await self._site.home(None)
        used = facts.partitions_of(self._config.options(name).partition for name in JobClass)
        nodes = [node for node in facts.nodes if node.partitions & used.keys()]
        if not nodes:
            raise DriverError(f"The partitions {', '.join(used) or '(none)'} have no nodes.")
        abilities = {
            Ability.SIGNAL, Ability.FILES, Ability.SCRATCH, Ability.VENV, Ability.SECRETS, Ability.CONNECT,
        }  # fmt: skip
        if image_program(self._config, facts) is not None:
            abilities.add(Ability.IMAGE)
        if self._config.conda is not None or "conda" in facts.programs:
            abilities.add(Ability.CONDA)
        if self._config.volumes:
            abilities.add(Ability.VOLUMES)
        if len(nodes) > 1:
            abilities.add(Ability.MULTINODE)
        if self._serves_others():
            abilities.add(Ability.OTHER_PERSONS)
        labels = dict.fromkeys(sorted(limits.features), "yes")
        if facts.cluster:
            labels["cluster"] = facts.cluster
        kinds, unsaid = await self._openings.told(flavors(nodes), nodes)
        return SiteReport(
            flavors=kinds,
            abilities=frozenset(abilities),
            labels=labels,
            max_walltime=limits.max_walltime,
            max_jobs=facts.number("MaxJobCount", 10_000),
            owner=self._setup.owner or None,
            queues=True,
            recalls=True,
            volumes=frozenset(self._config.volumes),
            notes=(*notes(facts), *facts.unknown(self._config.classes), *unsaid),
        )

    def _serves_others(self) -> bool:
        if self._setup.shared:
            return True
        if self._config.transport == "ssh":
            return self._config.ssh().serves_others
        return os.geteuid() == 0

    async def submit(self, attempts: Sequence[Launch]) -> list[Answer]:
        """Lay the attempts out and hand them to sbatch, as arrays where their options are the same."""
        answers = await self._submitter.submit(attempts)
        for account in {launch.account for launch in attempts}:
            self._hints.want_too(account)
        return answers

    async def observe(self, held: Sequence[Held]) -> Observation:
        """All attempts of this platform: by squeue, and by what ended ones wrote.

        After a hint, and shortly after a listing, only what the attempts wrote that were hinted at.
        """
        told = self._hints.take()
        if told and self._observer.may_follow_up():
            return await self._observer.follow_up(held, told)
        observation = await self._observer.observe(held, told)
        self._hints.want({status.account for status in self._observer.live.values()})
        return observation

    async def stop(self, attempts: Sequence[StopRequest]) -> None:
        """Write down why, then signal those that run and cancel those that wait. Raises DriverError.

        Of those that are recalled only what has not begun is cancelled, see scripts.STOP.
        """
        by_account: dict[str | None, list[str]] = {}
        for each in attempts:
            attempt = each.attempt
            if not is_attempt_id(attempt.attempt_id, self._setup.instance):
                continue
            known = self._observer.live.get(attempt.attempt_id)
            if each.reason is StopReason.RECALLED and known is not None and known.phase is Phase.RUNNING:
                continue  # its node may be about to begin, and it was told as begun
            native = attempt.native_id or (known.native_id if known is not None else "") or "-"
            milliseconds = max(0, min(round(each.grace * 1000), 10**9))
            line = f"{attempt.attempt_id} {each.reason.value} {milliseconds} {native}\n"
            by_account.setdefault(attempt.account, []).append(line)
        await self._for_each(by_account, self._stop_of)

    async def _stop_of(self, account: str | None, lines: list[str]) -> None:
        root = (await self._site.home(account)).root
        ran = await self._site.script(
            account, scripts.STOP, root, stdin="".join(lines).encode(), allowed=tuple(range(1, 256))
        )
        said = plain(ran.error.decode("utf-8", "replace"))
        if unreachable(said) or "timed out" in said.lower():
            raise DriverError(f"Slurm's controller does not answer: {said}.")

    async def _for_each(
        self, by_account: Mapping[str | None, list[str]], act: Callable[[str | None, list[str]], Awaitable[None]]
    ) -> None:
        """Do something for each account; one that cannot be acted for holds up nobody else. Raises DriverError."""
        failed: list[DriverError] = []
        for account, items in by_account.items():
            try:
                await act(account, items)
            except DriverError as error:
                failed.append(error)
        if failed:
            raise failed[0]

    async def forget(self, attempts: Sequence[Held]) -> None:
        """Remove the folders of ended attempts; those that still run are left alone. Raises DriverError."""
        observer = self._observer
        # one that was told as live is no ended one to whoever asks, whatever became of it since
        ours = [
            each
            for each in attempts
            if is_attempt_id(each.attempt_id, self._setup.instance) and each.attempt_id not in observer.live
        ]
        if any(observer.ended(each.attempt_id) is None for each in ours):
            await observer.observe(ours)
        by_account: dict[str | None, list[str]] = {}
        for each in ours:
            if each.attempt_id not in observer.live:
                by_account.setdefault(each.account, []).append(each.attempt_id)
        await self._for_each(by_account, self._forget_of)

    async def _forget_of(self, account: str | None, gone: list[str]) -> None:
        root = (await self._site.home(account)).root
        await self._reap(account, gone)
        await self._site.script(account, scripts.FORGET, root, stdin="\n".join(gone).encode(), seconds=300)
        self._observer.forget(gone)

    async def _reap(self, account: str | None, gone: Sequence[str]) -> None:
        """Take out of Slurm's queue what it began anew by itself: it would find its claim taken and do nothing."""
        ends = [self._observer.ended(each) for each in gone]
        natives = [end.native_id for end in ends if end is not None and end.native_state == REQUEUED]
        if natives:
            await self._site.shell.run(account, ["scancel", "--quiet", *natives])

    async def close(self) -> None:
        """Let go of connections. Jobs go on."""
        await self._site.shell.close()

    # -- Logs, Signals, Watch, Stage, Exec, Connect --------------------------------------------------------------

    async def read_log(self, attempt: Held, stream: str, offset: int, limit: int) -> LogChunk:
        """A piece of output. Raises KeyError where there is no such attempt or stream."""
        return await self._inside.read_log(attempt, stream, offset, limit)

    async def signal(self, attempt: Held, signal: int) -> None:
        """Send a signal to all processes of a running attempt. Raises KeyError where it does not run."""
        if signal not in signals.valid_signals():
            raise ValueError(f"{signal} is no signal")
        _, native = await self._running(attempt)
        root = (await self._site.home(attempt.account)).root
        ran = await self._site.script(
            attempt.account, scripts.SIGNAL, root, attempt.attempt_id, str(int(signal)), native,
            allowed=tuple(range(1, 256)),
        )  # fmt: skip
        if ran.code != 0:
            said = plain(ran.error.decode("utf-8", "replace"))
            if unreachable(said):
                raise DriverError(f"Slurm's controller does not answer: {said}.")
            raise KeyError(attempt.attempt_id)

    def changes(self) -> AsyncIterator[None]:
        """Yields after attempts began or ended, as far as that is told."""
        return self._hints.changes()

    async def take_out(self, attempt: Held, patterns: Sequence[str], into: Path) -> list[str]:
        """Copy files of the working directory. Raises KeyError where there is no such attempt."""
        return await self._inside.take_out(attempt, patterns, into)

    async def execute(self, attempt: Held, command: Sequence[str], *, terminal: bool = False) -> Execution:
        """Start a command beside the attempt's own, on its first node. Raises KeyError where it does not run."""
        job, _ = await self._running(attempt)
        return await self._inside.execute(attempt, job, command, terminal=terminal)

    async def connect(self, attempt: Held, port: int) -> Channel:
        """A stream to a port of the attempt's first node. Raises KeyError where it does not run."""
        job, _ = await self._running(attempt)
        return await self._inside.connect(attempt, job, port)

    async def _running(self, attempt: Held) -> tuple[SlurmJob, str]:
        """The job of a running attempt, and what scancel calls it. Raises KeyError."""
        key = attempt.attempt_id
        if not is_attempt_id(key, self._setup.instance) or self._observer.ended(key) is not None:
            raise KeyError(key)
        if key not in self._observer.jobs or self._observer.live[key].phase is not Phase.RUNNING:
            await self._observer.observe([attempt])
        status, job = self._observer.live.get(key), self._observer.jobs.get(key)
        if status is None or job is None or status.phase is not Phase.RUNNING:
            raise KeyError(key)
        return job, status.native_id
