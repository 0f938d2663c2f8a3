"""HTCondor for tests: a real pool where its daemons are, and a stand-in for the schedd everywhere.

The stand-in answers what a worker is asked, runs `job.sh` as processes of this machine, and has constraints and values
evaluated by the real ClassAd library. It proves the driver's own logic and its shell text, and nothing of HTCondor.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import classad2
import htcondor2

from atoll.drivers.htcondor.link import Failed

LIFETIME = 300
"""Seconds after which a job of the stand-in is ended, whatever becomes of the tests."""
MACHINE = {
    "Name": "slot1@here", "Machine": "here", "SlotType": "Partitionable", "PartitionableSlot": True,
    "TotalSlotCpus": 64, "TotalSlotMemory": 65536, "Cpus": 60, "Memory": 60000, "State": "Unclaimed",
}  # fmt: skip


class StandIn:
    """A schedd in this process. One for each test."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="atoll-condor-"))
        self.jobs: dict[str, dict[str, Any]] = {}
        self.history: list[dict[str, Any]] = []
        self.descriptions: list[str] = []
        self.questions = 0
        self.down = False
        self.refuse = ""
        self.idle = False
        """Whether jobs find no machine."""
        self._cluster = 0
        self._running: dict[str, tuple[asyncio.subprocess.Process, asyncio.Task[None]]] = {}
        self._killers: set[asyncio.Task[None]] = set()

    async def ask(self, question: str, *, longer: float = 0.0, **values: Any) -> Any:
        """As `Link.ask`."""
        if self.down:
            raise Failed("Failed to fetch ads from schedd, errmsg=CEDAR:6001:Failed to connect to <127.0.0.1:9618>")
        return await getattr(self, f"_{question}")(**values)

    async def close(self) -> None:
        """As `Link.close`; jobs go on."""

    async def stop(self) -> None:
        """End every job."""
        for job in list(self._running):
            await self._kill(job)
        for task in [task for _, task in self._running.values()] + list(self._killers):
            await task
        shutil.rmtree(self.root, ignore_errors=True)

    # -- the worker's questions ----------------------------------------------------------------------------------

    async def _machines(self, projection: list[str]) -> list[dict[str, Any]]:
        return [{name: value for name, value in MACHINE.items() if name in projection}]

    async def _queue(self, constraint: str, projection: list[str]) -> list[dict[str, Any]]:
        self.questions += 1
        return _matching(self.jobs.values(), constraint, projection)

    async def _history(self, constraint: str, projection: list[str], most: int) -> list[dict[str, Any]]:
        return _matching(reversed(self.history), constraint, projection)[:most]

    async def _submit(self, description: str, lines: list[dict[str, str]]) -> dict[str, Any]:
        if self.refuse:
            raise Failed(self.refuse)
        self.descriptions.append(description)
        self._cluster += 1
        for number, line in enumerate(lines):
            submit = htcondor2.Submit(description)
            for name, value in line.items():
                submit[name] = value
            await self._queue_one(f"{self._cluster}.{number}", submit)
        return {"cluster": self._cluster, "first": 0, "count": len(lines)}

    async def _edit(self, jobs: list[str], attribute: str, value: str) -> int:
        for job in jobs:
            self.jobs[job][attribute] = classad2.ExprTree(value).eval()
        return len(jobs)

    async def _remove(self, jobs: list[str] | str, reason: str) -> dict[str, Any]:
        if isinstance(jobs, str):
            found = _matching(self.jobs.values(), jobs, ["ClusterId", "ProcId"])
            jobs = [f"{ad['ClusterId']}.{ad['ProcId']}" for ad in found]
        for job in jobs:
            ad = self.jobs.get(job)
            if ad is None:
                continue
            if ad["JobStatus"] == 2:
                ad |= {"JobStatus": 3, "EnteredCurrentStatus": time.time(), "RemoveReason": reason}
                self._signal(job, signal.SIGTERM)
                self._killers.add(asyncio.create_task(self._kill_later(job, ad["JobMaxVacateTime"])))
            elif ad["JobStatus"] not in (3, 4):
                ad |= {"JobStatus": 3, "EnteredCurrentStatus": time.time(), "RemoveReason": reason}
            self._leave(job)
        return {"TotalSuccess": len(jobs)}

    async def _retrieve(self, jobs: list[str]) -> None:
        for job in jobs:
            ad = self.jobs[job]
            for name in (*ad["outputs"], "condor.out", "condor.err"):
                shutil.copy(self.root / job / name, ad["folder"])

    # -- running -------------------------------------------------------------------------------------------------

    async def _queue_one(self, job: str, submit: Any) -> None:
        folder = Path(submit.expand("initialdir"))
        inputs, outputs = (submit.expand(f"transfer_{way}put_files").split(",") for way in ("in", "out"))
        sandbox = self.root / job
        sandbox.mkdir()
        for name in inputs:
            shutil.copy(folder / name, sandbox)
        cluster, proc = map(int, job.split("."))
        self.jobs[job] = {
            "ClusterId": cluster, "ProcId": proc, "Owner": "atoll", "JobStatus": 1, "EnteredCurrentStatus": time.time(),
            "AtollInstance": classad2.ExprTree(submit.expand("MY.AtollInstance")).eval(),
            "AtollAttempt": classad2.ExprTree(submit.expand("MY.AtollAttempt")).eval(), "LeaveJobInQueue": True,
            "JobMaxVacateTime": int(submit.expand("job_max_vacate_time")), "folder": folder, "outputs": outputs,
            "executable": Path(submit.expand("executable")),
        }  # fmt: skip
        classad2.ExprTree(submit.expand("requirements"))
        if not self.idle:
            await self._start(job)

    async def negotiate(self) -> None:
        """Give all that waits a machine, and what comes later too."""
        self.idle = False
        for job in [job for job, ad in self.jobs.items() if ad["JobStatus"] == 1]:
            await self._start(job)

    async def _start(self, job: str) -> None:
        ad, sandbox, now = self.jobs[job], self.root / job, time.time()
        ad |= {"JobStatus": 2, "EnteredCurrentStatus": now, "RemoteHost": "slot1@here", "NumJobStarts": 1}
        ad["JobCurrentStartExecutingDate"] = int(now)
        words = [
            "/usr/bin/timeout", "-k", "1", str(LIFETIME), "/usr/bin/unshare", "--mount", "--pid", "--fork",
            "--kill-child", "--mount-proc", "/bin/sh", str(ad["executable"]),
        ]  # fmt: skip
        with (sandbox / "condor.out").open("wb") as out, (sandbox / "condor.err").open("wb") as error:
            process = await asyncio.create_subprocess_exec(
                *words, cwd=sandbox, env={}, start_new_session=True, stdin=subprocess.DEVNULL, stdout=out, stderr=error
            )
        self._running[job] = process, asyncio.create_task(self._wait(job, process))

    async def _wait(self, job: str, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        ad = self.jobs.get(job, {})
        now = time.time()
        ad.pop("RemoteHost", None)
        if ad.get("JobStatus") == 2:
            # unshare ends by the signal that ended its child, and timeout tells it as 128 + n
            ended = {"ExitBySignal": code == 128 + signal.SIGXCPU, "ExitCode": code}
            ended |= {"ExitSignal": code - 128} if ended["ExitBySignal"] else {}
            ad |= {"JobStatus": 4, "EnteredCurrentStatus": now, "CompletionDate": int(now), **ended}
            if any(not (self.root / job / name).exists() for name in ad["outputs"]):
                ad |= {"JobStatus": 5, "HoldReasonCode": 12, "HoldReason": "an output file is not there"}
        self._leave(job)

    def _leave(self, job: str) -> None:
        """A job that is over and need not stay goes into the history."""
        ad = self.jobs.get(job)
        if ad is not None and ad["JobStatus"] in (3, 4) and not ad["LeaveJobInQueue"] and "RemoteHost" not in ad:
            self.history.append(self.jobs.pop(job))

    def _init(self, job: str) -> list[int]:
        """The process ids of job.sh, below timeout and unshare."""
        process, _ = self._running[job]
        below = [process.pid]
        for _ in range(2):
            try:
                below = [int(each) for each in Path(f"/proc/{below[0]}/task/{below[0]}/children").read_text().split()]
            except (OSError, IndexError):
                return []
        return below

    def _signal(self, job: str, number: int) -> None:
        for pid in self._init(job):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass  # it has just ended by itself

    async def _kill_later(self, job: str, seconds: float) -> None:
        process, task = self._running[job]
        await asyncio.wait([task], timeout=seconds)
        if process.returncode is None:
            await self._kill(job)

    async def _kill(self, job: str) -> None:
        process, _ = self._running[job]
        if process.returncode is None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has just ended by itself
            await process.wait()

    # -- what tests do to it -------------------------------------------------------------------------------------

    def job_of(self, attempt_id: str) -> str:
        """cluster.proc of an attempt."""
        return next(job for job, ad in self.jobs.items() if ad["AtollAttempt"] == attempt_id)

    async def started(self, attempt_id: str) -> None:
        """Return when the wrapper of a job has begun."""
        async with asyncio.timeout(20):
            while not (self.root / self.job_of(attempt_id) / "start").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def remove_by_hand(self, attempt_id: str) -> None:
        """As an administrator does."""
        job = self.job_of(attempt_id)
        self.jobs[job]["JobMaxVacateTime"] = 0
        await self._remove([job], "via condor_rm (by user root)")


def _matching(found: Any, constraint: str, projection: list[str]) -> list[dict[str, Any]]:
    wanted = classad2.ExprTree(constraint)
    told = []
    for ad in found:
        plain = {name: value for name, value in ad.items() if isinstance(value, str | bool | int | float)}
        if wanted.eval(classad2.ClassAd(plain)) is True:
            told.append({name: plain[name] for name in projection if name in plain})
    return told
