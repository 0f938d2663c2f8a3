"""A shell on the folder that the control plane shares with the nodes, in which Slurm's commands ask slurmrestd.

The driver's scripts stay as they are: what they lay out and write down is done here, as the account. Where they call
sbatch or scancel, a function of that name notes the call; once the script has ended the calls are made over HTTP, and
the script's output is completed as if the command had given it.
"""

import asyncio
import getpass
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence

from atoll.drivers.base import Channel, DriverError, Execution
from atoll.drivers.shell import NoAccount, Ran, Shell, Unfinished
from atoll.drivers.shell.base import plain_words
from atoll.drivers.slurm.facts import DESCRIBE
from atoll.drivers.slurm.rest import Complaint, Slurmrestd
from atoll.drivers.slurm.rest_facts import described, read_settings
from atoll.drivers.slurm.scripts import OPENINGS
from atoll.drivers.slurm.tokens import Tokens

_NOTED = 75
"""The code of a command that is only noted."""
_PRELUDE = f"""
exec 4>&1
atoll_note() {{ {{ printf '\\037'; printf '%s\\037' "$@"; echo; }} >&4; }}
sbatch() {{ atoll_note sbatch "$@"; return {_NOTED}; }}
scancel() {{ atoll_note scancel "$@"; }}
scontrol() {{ :; }}
"""
"""Calls of a script's go to its output, apart from what it captures; this machine's own scontrol is not asked."""
_WRITE_DOWN = r"""
cd -- "$1/batches" || exit 74
while read -r batch job; do
    echo "$job" >"$batch/job" || exit 74
done
"""
_PROGRAMS = "for program in apptainer singularity ch-run conda; do command -v $program; done; :"
_SEPARATOR = b"\x1f"
_LONGEST_LINE = 1 << 20
_AT_ONCE = 8
_AWAY = "unable to contact"
_GONE = ("invalid job id", "already completing", "already done", "job/step already")
_PATH = "/usr/local/bin:/usr/bin:/bin"

Sink = Callable[[bytes], Awaitable[None]]


class RestShell:
    """A Shell; commands that are not Slurm's run on this machine."""

    def __init__(self, url: str, token: str, shell: Shell, *, slurm_conf: str | None = None) -> None:
        """`token` is as Tokens takes it; `shell` runs what is not Slurm's; `slurm_conf` as the nodes find it."""
        self._own = getpass.getuser()
        self._shell = shell
        self._rest = Slurmrestd(url, Tokens(token, self._own, shell))
        self._slurm_conf = slurm_conf
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def run(
        self, account: str | None, words: Sequence[str], *, stdin: bytes | AsyncIterable[bytes] = b"",
        sink: Sink | None = None, seconds: float = 30.0,
    ) -> Ran:  # fmt: skip
        """Run a command; see Shell. Where slurmrestd does not answer, DriverError is raised in the command's place."""
        match list(words):
            case ["squeue", "--json"]:
                return await self._squeue(account, sink, seconds)
            case ["scancel", *rest]:
                return await self._scancel(account, [rest], seconds)
            case ["/bin/sh", "-c", text, *_] if text == OPENINGS:
                raise DriverError("slurmrestd cannot be asked, for it plans no job without taking it.")
            case ["/bin/sh", "-c", text, *_] if text == DESCRIBE:
                return await self._describe(account, seconds)
            case ["/bin/sh", "-c", text, *rest] if "sbatch " in text or "scancel " in text:
                return await self._script(account, text, rest, stdin, sink, seconds)
        return await self._shell.run(account, words, stdin=stdin, sink=sink, seconds=seconds)

    async def open(self, account: str | None, words: Sequence[str], *, terminal: bool = False) -> Execution:
        """Start a command of this machine as a channel; slurmrestd has none inside a job."""
        if any(word in ("srun", "salloc") for word in words):
            raise DriverError("slurmrestd starts no commands inside a running job: use the transport local or ssh.")
        return await self._shell.open(account, words, terminal=terminal)

    async def connect(self, account: str | None, host: str, port: int) -> Channel:
        """A stream to a TCP port as it is reached from this machine."""
        return await self._shell.connect(account, host, port)

    async def connect_unix(self, account: str | None, path: str) -> Channel:
        """A stream to a unix socket of this machine."""
        return await self._shell.connect_unix(account, path)

    async def close(self) -> None:
        """Let go of connections."""
        await self._rest.close()
        await self._shell.close()

    # -- what Slurm tells ----------------------------------------------------------------------------------------

    async def _squeue(self, account: str | None, sink: Sink | None, seconds: float) -> Ran:
        pieces: list[bytes] = []

        async def keep(piece: bytes) -> None:
            pieces.append(piece)

        try:
            await self._rest.jobs(account or self._own, sink or keep, seconds=seconds)
        except Complaint as error:
            raise DriverError(f"Slurm does not tell of its jobs: {error}.") from None
        return Ran(0, b"".join(pieces), b"")

    async def _describe(self, account: str | None, seconds: float) -> Ran:
        name = account or self._own
        try:
            ping, nodes, partitions, reservations = [
                await self._rest.get(what, name, seconds=seconds)
                for what in ("ping", "nodes", "partitions", "reservations")
            ]
        except Complaint as error:
            raise DriverError(f"Slurm does not tell of the cluster: {error}.") from None
        settings: dict[str, str] = {}
        if self._slurm_conf is not None:
            try:
                settings = await asyncio.to_thread(read_settings, self._slurm_conf)
            except OSError:
                settings = {}  # the nodes have it, and this machine need not
        if not self._rest.arrays:
            settings["MaxArraySize"] = "1"
        programs = await self._shell.run(None, ["/bin/sh", "-c", _PROGRAMS])
        said = programs.out.decode("utf-8", "replace")
        return Ran(0, described(ping, nodes, partitions, reservations, settings, said).encode(), b"")

    async def _ping(self, account: str, seconds: float) -> None:
        try:
            await self._rest.get("ping", account, seconds=seconds)
        except Complaint as error:
            raise DriverError(f"Slurm's controller does not answer: {error}.") from None

    # -- what scripts do -----------------------------------------------------------------------------------------

    async def _script(
        self, account: str | None, text: str, arguments: Sequence[str], stdin: bytes | AsyncIterable[bytes],
        sink: Sink | None, seconds: float,
    ) -> Ran:  # fmt: skip
        if "scancel " in text:
            # a controller that is away is told of at once, also where the script would find nothing to cancel
            await self._ping(account or self._own, seconds)
        pieces: list[bytes] = []

        async def keep(piece: bytes) -> None:
            pieces.append(piece)

        tell = sink or keep
        noted = _Noted(tell)
        words = ["/bin/sh", "-c", _PRELUDE + text, *arguments]
        ran = await self._shell.run(account, words, stdin=stdin, sink=noted.take, seconds=seconds)
        await noted.end()
        code, error = ran.code, ran.error
        root = arguments[1] if len(arguments) > 1 else ""
        if noted.submissions and code == 0:
            await self._submit(account, root, noted.submissions, tell, seconds)
        if noted.cancels:
            done = await self._scancel(account, noted.cancels, seconds)
            code, error = code or done.code, error + done.error
        return Ran(code, b"".join(pieces), error)

    async def _submit(
        self, account: str | None, root: str, calls: Sequence[list[str]], tell: Sink, seconds: float
    ) -> None:
        """Make the noted calls of sbatch, tell of each what the script would, and write down what came of them."""
        answers = await asyncio.gather(*(self._sbatch(account, call, seconds) for call in calls))
        taken = [f"{batch} {job}\n" for batch, job, _ in answers if job]
        if taken:
            words = ["/bin/sh", "-c", _WRITE_DOWN, "atoll", root]
            await self._shell.run(account, words, stdin="".join(taken).encode())
        for batch, job, said in answers:
            await tell(f"job {batch} {job}\n".encode() if job else f"failed {batch} 1 {said}\n".encode())

    async def _sbatch(self, account: str | None, call: Sequence[str], seconds: float) -> tuple[str, str, str]:
        """Batch, job's number where it was taken, complaint where not."""
        options = [word for word in call if word.startswith("--")]
        words = [word for word in call if not word.startswith("--")]
        batch = words[2] if len(words) > 2 else ""
        environment = {"PATH": _PATH}
        if self._slurm_conf is not None:
            environment["SLURM_CONF"] = self._slurm_conf
        words = ["/bin/sh", *words]
        try:
            async with self._turns:
                job = await self._rest.submit(account or self._own, options, words, environment, seconds=seconds)
            return batch, job, ""
        except Complaint as error:
            return batch, "", plain_words(error)
        except Unfinished as error:
            return batch, "", f"timed out: {plain_words(error)}"
        except NoAccount as error:
            return batch, "", f"access/permission denied: {plain_words(error)}"
        except DriverError as error:
            return batch, "", f"unable to contact slurm controller: {plain_words(error)}"

    async def _scancel(self, account: str | None, calls: Sequence[Sequence[str]], seconds: float) -> Ran:
        """Make calls of scancel; the answer is the command's, with what went wrong as its error output."""
        asked: list[tuple[str, str | None]] = []
        for call in calls:
            signal = next((word.partition("=")[2] for word in call if word.startswith("--signal=")), None)
            asked += [(word, signal) for word in call if not word.startswith("-")]
        name = account or self._own
        said = await asyncio.gather(*(self._kill(name, native, signal, seconds) for native, signal in asked))
        wrong = dict.fromkeys(filter(None, said))
        return Ran(1 if wrong else 0, b"", "".join(f"{line}\n" for line in wrong).encode())

    async def _kill(self, account: str, native: str, signal: str | None, seconds: float) -> str:
        """The complaint; empty where there is none."""
        if not native.replace("_", "").isdecimal():
            return f"{plain_words(native)} is no job"
        async with self._turns:
            try:
                await self._rest.kill(account, native, signal, seconds=seconds)
            except Complaint as error:
                if any(words in str(error).lower() for words in _GONE):
                    return "" if signal is None else str(error)
                if signal != "TERM" or _AWAY in str(error).lower():
                    return str(error)
            else:
                return ""
            try:  # it does not run yet: as scancel would be told next
                await self._rest.kill(account, native, None, seconds=seconds)
            except Complaint as error:
                return str(error)
            return ""


class _Noted:
    """A script's output, with the calls that it notes taken out."""

    def __init__(self, tell: Sink) -> None:
        self._tell = tell
        self._rest = b""
        self.submissions: list[list[str]] = []
        self.cancels: list[list[str]] = []

    async def take(self, piece: bytes) -> None:
        """A piece of the output. Raises DriverError for a line without an end."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            raise DriverError("A script at the site writes a line without an end.")
        told = [line + b"\n" for line in lines if not self._note(line)]
        if told:
            await self._tell(b"".join(told))

    async def end(self) -> None:
        """What is left without a line's end."""
        if self._rest:
            await self._tell(self._rest)

    def _note(self, line: bytes) -> bool:
        if line.startswith(_SEPARATOR):
            name, *words = line.strip(_SEPARATOR).decode("utf-8", "surrogateescape").split("\x1f")
            (self.submissions if name == "sbatch" else self.cancels).append(words)
            return True
        # what the script makes of a command that was only noted
        return line.startswith(b"failed ") and line.split(b" ")[2:3] == [str(_NOTED).encode()]
