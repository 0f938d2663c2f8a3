"""Asks a worker process, one thing at a time, and replaces it where it hangs, dies or answers garbage."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from atoll.drivers.base import DriverError
from atoll.drivers.htcondor.config import HtcondorConfig

_WORKER = Path(__file__).with_name("worker.py")
_LONGEST = 256 << 20
"""Bytes of an answer."""
_WORDS = 500


class Failed(Exception):
    """The bindings raised. The message is in their words."""


class Link:
    """A worker for one account of a site; started with the first question."""

    def __init__(self, config: HtcondorConfig, token: str | None, folder: Path) -> None:
        self._config = config
        self._token = token
        """File or folder of tokens."""
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._answers: asyncio.StreamReader | None = None
        self._transport: asyncio.ReadTransport | None = None
        self._private: str | None = None
        self._turn = asyncio.Lock()

    async def ask(self, question: str, *, longer: float = 0.0, **values: Any) -> Any:
        """The worker's answer, within the configured time and `longer` seconds.

        Raises Failed for an error of the bindings, DriverError where none came in time.
        """
        within = self._config.timeout + longer
        async with self._turn:
            try:
                async with asyncio.timeout(within):
                    answer = await self._exchange(question, values)
            except TimeoutError:
                await self._end()
                raise DriverError(
                    f"HTCondor did not answer within {within:.0f} seconds (asked for: {question})."
                ) from None
            except (OSError, ValueError) as error:
                await self._end()
                words = str(error)[:_WORDS].rstrip(".") or type(error).__name__
                raise DriverError(f"HTCondor's bindings broke off (asked for: {question}): {words}.") from None
            except BaseException:
                # half a question is not to be followed by the next
                await self._end()
                raise
        if "error" in answer:
            raise Failed(str(answer["error"])[:_WORDS].rstrip("."))
        return answer["value"]

    async def _exchange(self, question: str, values: dict[str, Any]) -> dict[str, Any]:
        if self._process is None or self._process.returncode is not None:
            await self._end()
            await self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._answers is not None
        self._process.stdin.write(json.dumps({"ask": question, "with": values}).encode() + b"\n")
        await self._process.stdin.drain()
        line = await self._answers.readline()
        if not line.endswith(b"\n"):
            raise OSError("the process that runs them ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def _start(self) -> None:
        reading, writing = os.pipe()
        try:
            settings = {"collector": self._config.collector, "schedd": self._config.schedd, "answers": writing}
            environment = await asyncio.to_thread(self._environment)
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", str(_WORKER), json.dumps(settings), stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, pass_fds=(writing,),
                env=environment, cwd="/", start_new_session=True,
            )  # fmt: skip
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._answers = asyncio.StreamReader(limit=_LONGEST)
        protocol = asyncio.StreamReaderProtocol(self._answers)
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(reading, "rb"))

    def _environment(self) -> dict[str, str]:
        """What the worker finds: HTCondor's settings, and nothing of ours. Raises DriverError without its token."""
        config = self._config
        variables = {
            "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
            "HOME": str(self._folder),
            "LANG": "C.UTF-8",
            "CONDOR_CONFIG": config.condor_config or "ONLY_ENV",
            **{f"_CONDOR_{name}": value for name, value in config.parameters.items()},
        }
        if config.collector is not None:
            variables["_CONDOR_COLLECTOR_HOST"] = config.collector
        if self._token is not None:
            folder = self._tokens(Path(self._token))
            # the second is where they are looked for by root
            variables |= {"_CONDOR_SEC_TOKEN_DIRECTORY": folder, "_CONDOR_SEC_TOKEN_SYSTEM_DIRECTORY": folder}
        return variables

    def _tokens(self, path: Path) -> str:
        """A folder with the token: HTCondor takes folders only, and only files that nobody else can read."""
        if path.is_dir():
            return str(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DriverError(f"The token {path} cannot be read: {error.strerror}.") from None
        self._private = tempfile.mkdtemp(prefix="atoll-htcondor-")
        file = Path(self._private) / "token"
        file.touch(0o600)
        file.write_bytes(content)
        return self._private

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has just ended by itself
            await process.wait()
            if process.stdin is not None:
                process.stdin.close()
        if self._transport is not None:
            self._transport.close()
            self._transport = self._answers = None
        if self._private is not None:
            private, self._private = self._private, None
            await asyncio.to_thread(shutil.rmtree, private, True)

    async def close(self) -> None:
        """End the worker."""
        async with self._turn:
            await self._end()
