"""A cluster as it is spoken to: commands for an account at the site, and Slurm's answers, kept while they are fresh."""

import asyncio
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence

from atoll.core.spec import JobClass
from atoll.drivers.base import DriverError, DriverSetup
from atoll.drivers.shell import LocalShell, Ran, Shell, SshShell, Unfinished
from atoll.drivers.slurm import scripts
from atoll.drivers.slurm.accounting import MOST, question, read_records
from atoll.drivers.slurm.config import SlurmConfig
from atoll.drivers.slurm.facts import DESCRIBE, Facts, read_facts
from atoll.drivers.slurm.jobs import SlurmJob, read_jobs
from atoll.drivers.slurm.layout import Home
from atoll.drivers.slurm.options import Limits
from atoll.drivers.slurm.rest_shell import RestShell
from atoll.drivers.slurm.said import plain, unreachable

FRESH = 60.0
"""Seconds for which the description of the cluster is believed."""
_LATE = 30.0
"""Seconds more, in which the next description is on its way."""
_PATH = "/usr/local/bin:/usr/bin:/bin"
_MOST_ANSWER = 1 << 30
_BY_SIGNAL = 128
"""What a shell adds to a signal's number to make a code of it."""
_MOST_EXCLUDED = 1000
"""Nodes with GPUs that jobs without are kept from; of more, the list would be too long for Slurm."""
_THREAD = 256 << 10
"""Bytes of an answer that are read on the event loop; more would hold it up."""


def make_shell(config: SlurmConfig) -> Shell:
    """The shell that the site file asks for; it connects when it is used."""
    environment = {}
    if config.slurm_conf is not None:
        environment["SLURM_CONF"] = config.slurm_conf
    if config.bin is not None:
        environment["PATH"] = f"{config.bin}:{_PATH}"
    if config.transport == "ssh":
        return SshShell(config.ssh(), environment)
    local = LocalShell(environment)
    if config.transport == "rest":
        assert config.url is not None
        assert config.token is not None
        return RestShell(config.url, config.token, local, slurm_conf=config.slurm_conf)
    return local


class SlurmSite:
    """What the parts of the driver share."""

    def __init__(self, setup: DriverSetup, config: SlurmConfig, shell: Shell) -> None:
        self.setup = setup
        self.config = config
        self.shell = shell
        self._homes: dict[str | None, Home] = {}
        self._facts: tuple[float, Facts] | None = None
        self._asking = asyncio.Lock()

    async def script(
        self, account: str | None, text: str, *arguments: str, stdin: bytes | AsyncIterable[bytes] = b"",
        sink: Callable[[bytes], Awaitable[None]] | None = None, seconds: float = 60.0, allowed: tuple[int, ...] = (),
    ) -> Ran:  # fmt: skip
        """Run one of our scripts.

        Raises DriverError where it ends with a code other than 0 and those allowed, Unfinished where a signal ends it.
        """
        ran = await self.shell.run(
            account, ["/bin/sh", "-c", text, "atoll", *arguments], stdin=stdin, sink=sink, seconds=seconds
        )
        if ran.code > _BY_SIGNAL:
            raise Unfinished(f"At the site the command was ended by signal {ran.code - _BY_SIGNAL}.")
        if ran.code != 0 and ran.code not in allowed:
            raise DriverError(f"At the site: {plain(ran.error.decode('utf-8', 'replace'))} (exit code {ran.code}).")
        return ran

    async def home(self, account: str | None) -> Home:
        """An account at the site. Raises NoAccount and DriverError."""
        known = self._homes.get(account)
        if known is not None:
            return known
        ran = await self.script(account, scripts.ABOUT)
        lines = ran.out.decode("utf-8", "replace").splitlines()
        if len(lines) != 5 or not lines[0].startswith("/") or not all(each.isdecimal() for each in lines[3:]):
            who = f"account {account!r}" if account else "the site's own account"
            raise DriverError(f"At the site {who} has no home folder: {lines}.")
        home, name, shell, uid, gid = lines
        self._homes[account] = Home(name, home, shell, self._root(name, home), int(uid), int(gid))
        return self._homes[account]

    def _root(self, name: str, home: str) -> str:
        folder = self.config.folder
        if folder is None:
            folder = f"{home.rstrip('/')}/.atoll"
        elif "{account}" in folder:
            folder = folder.replace("{account}", name)
        else:
            folder = f"{folder}/{name}"
        return f"{folder}/{self.setup.instance}"

    async def facts(self, *, fresh: bool = False) -> Facts:
        """The cluster; asked anew after `FRESH` seconds, or where `fresh` is wanted. Raises DriverError."""
        if self._facts is not None and not fresh and self._are_fresh():
            return self._facts[1]  # also while somebody asks
        async with self._asking:
            if self._facts is None or fresh or not self._are_fresh():
                now = time.monotonic()
                ran = await self.shell.run(None, ["/bin/sh", "-c", DESCRIBE, "atoll"], seconds=30)
                if ran.code != 0:
                    raise _no_answer("scontrol", ran)
                self._facts = now, await asyncio.to_thread(read_facts, ran.out.decode("utf-8", "replace"))
            return self._facts[1]

    def _are_fresh(self) -> bool:
        return self._facts is not None and time.monotonic() - self._facts[0] <= FRESH + _LATE

    async def limits(self) -> Limits:
        """What decides about options. Raises DriverError."""
        facts = await self.facts()
        times = [facts.longest(self.config.options(name)) for name in JobClass]
        with_gpus = tuple(sorted(node.name for node in facts.nodes if node.total.gpu))
        return Limits(
            max_array_size=facts.number("MaxArraySize", 1001),
            max_walltime=None if None in times else max(filter(None, times), default=None),
            features=frozenset().union(*(node.features for node in facts.nodes)),
            gpu_types={node.flavor: node.gpu_type for node in facts.nodes if node.gpu_type is not None},
            gpu_nodes=with_gpus if len(with_gpus) < min(len(facts.nodes), _MOST_EXCLUDED) else (),
        )

    async def accounting(self, natives: Sequence[str]) -> dict[str, SlurmJob]:
        """Jobs that have ended, as slurmdbd remembers them. Raises DriverError."""
        told: dict[str, SlurmJob] = {}
        for start in range(0, len(natives), MOST):
            ran = await self.shell.run(None, question(natives[start : start + MOST]), seconds=30)
            if ran.code != 0:
                raise _no_answer("sacct", ran)
            told |= await asyncio.to_thread(read_records, ran.out)
        return told

    async def jobs(self) -> list[SlurmJob]:
        """All jobs that the cluster knows, by one question. Raises DriverError."""
        answer = bytearray()

        async def take(piece: bytes) -> None:
            answer.extend(piece)
            if len(answer) > _MOST_ANSWER:
                raise DriverError(f"squeue told more than {_MOST_ANSWER >> 20} MiB of jobs, which is not read.")

        ran = await self.shell.run(None, ["squeue", "--json"], sink=take, seconds=30)
        if ran.code != 0:
            raise _no_answer("squeue", ran)
        try:
            return read_jobs(answer) if len(answer) < _THREAD else await asyncio.to_thread(read_jobs, answer)
        except DriverError:
            # while the controller is away 22.05 ends well, and says why in its error output only
            if ran.error:
                raise _no_answer("squeue", ran) from None
            raise


def _no_answer(program: str, ran: Ran) -> DriverError:
    said = plain(ran.error.decode("utf-8", "replace"))
    if ran.code == 127:
        return DriverError(f"The site has no {program}: {said}; name the folder of Slurm's commands as config.bin.")
    if unreachable(said):
        return DriverError(f"Slurm's controller does not answer: {said}.")
    return DriverError(f"{program} failed: {said} (exit code {ran.code}).")
