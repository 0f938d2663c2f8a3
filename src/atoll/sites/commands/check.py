"""`atoll site check`: tries a site end to end, with small jobs of whoever asks."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atoll.core.errors import AtollError
from atoll.core.states import ENDED, JobState

if TYPE_CHECKING:
    from atoll.client.models import Job
    from atoll.client.synchronous import Client

OK, FAILED, SKIPPED = "ok", "fail", "skipped"
_LOOK_EVERY = 0.5
_CONTENT = b"carried in and out\n"


@dataclass(frozen=True)
class Step:
    """One thing that was tried."""

    name: str
    result: str
    """ok, fail or skipped."""
    words: str

    def document(self) -> dict[str, str]:
        """The step as plain data."""
        return asdict(self)


class _Failure(Exception):
    """What was tried does not work; the message says what was seen instead."""


class Check:
    """One check of one site; each step is told as soon as it is done."""

    def __init__(self, client: "Client", site: str, patience: float, tell: Callable[[Step], None]) -> None:
        self._client = client
        self._site = site
        self._patience = patience
        self._tell = tell

    def run(self) -> None:
        """Try everything; a site that does not answer or is drained is asked nothing more."""
        site = self._client.site(self._site)
        if not self._try("answers", self._answers) or not self._try("takes work", self._takes_work):
            return
        if not self._try("runs a job and tells its end", self._runs):
            return
        if "files" in site.abilities:
            self._try("carries files in and out", self._carries_files)
        else:
            self._tell(Step("carries files in and out", SKIPPED, "the site cannot"))
        self._try("cancels a running job", self._cancels)

    def _try(self, name: str, what: Callable[[], str]) -> bool:
        try:
            words = what()
        except (AtollError, _Failure) as error:
            sentence = error.sentence if isinstance(error, AtollError) else str(error)
            self._tell(Step(name, FAILED, sentence))
            return False
        self._tell(Step(name, OK, words))
        return True

    def _answers(self) -> str:
        found = self._client.describe_site(self._site)
        if not found.answers:
            raise _Failure(found.message)
        flavors = ", ".join(f"{flavor.name} ({flavor.nodes} nodes)" for flavor in found.flavors)
        return f"in {found.seconds:.1f} s; it has {flavors or 'nothing'}"

    def _takes_work(self) -> str:
        site = self._client.site(self._site)
        if site.drained:
            raise _Failure(f"it is drained; let it work again with: atoll site resume {self._site}")
        return f"jobs of {site.identity}"

    def _runs(self) -> str:
        began = time.monotonic()
        job = self._run(["/bin/sh", "-c", "echo to output; echo to error >&2; exit 3"])
        if (job.state, job.exit_code) != (JobState.FAILED, 3):
            raise _Failure(f"a job that ends with exit code 3 is told as {job.state}: {self._why(job)}")
        for stream, expected in (("stdout", b"to output\n"), ("stderr", b"to error\n")):
            got = self._client.logs(job.id, stream).data
            if got != expected:
                raise _Failure(f"its {stream} should be {expected!r} and is {got[:200]!r}")
        return f"in {time.monotonic() - began:.1f} s, with its output"

    def _carries_files(self) -> str:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "in"
            source.write_bytes(_CONTENT)
            sha256 = self._client.upload(source)
            files = {"files_in": [{"path": "in", "sha256": sha256}], "files_out": ["out"]}
            job = self._run(["/bin/sh", "-c", "cat in >out"], **files)
            if job.state != JobState.SUCCEEDED:
                raise _Failure(f"the job that copies a file is told as {job.state}: {self._why(job)}")
            outputs = self._client.outputs(job.id)
            if [output.path for output in outputs] != ["out"]:
                raise _Failure(f"it should have brought out one file, and brought {len(outputs)}")
            if self._client.fetch(job.id, outputs[0], Path(folder)).read_bytes() != _CONTENT:
                raise _Failure("the file that came out is not the one that went in")
        return "unchanged"

    def _cancels(self) -> str:
        job = self._submit(["sleep", "600"], grace=5)
        self._wait(job, frozenset({JobState.RUNNING, *ENDED}))
        began = time.monotonic()
        self._client.cancel(job)
        ended = self._wait(job, ENDED)
        if ended.state != JobState.CANCELLED:
            raise _Failure(f"the cancelled job is told as {ended.state}: {self._why(ended)}")
        return f"in {time.monotonic() - began:.1f} s"

    def _submit(self, command: list[str], **fields: Any) -> int:
        return self._client.submit(
            command=command, name="site-check", constraints=[f"site={self._site}"], cpu="0.1", walltime="30m", **fields
        ).id

    def _run(self, command: list[str], **fields: Any) -> "Job":
        return self._wait(self._submit(command, **fields), ENDED)

    def _wait(self, job: int, states: frozenset[JobState]) -> "Job":
        """Wait until the job is in one of the states; one that takes too long is cancelled, and that is a failure."""
        until = time.monotonic() + self._patience
        while (found := self._client.job(job)).state not in states:
            if time.monotonic() > until:
                why = self._why(found)
                self._client.cancel(job)
                raise _Failure(f"job {job} is still {found.state} after {self._patience:.0f} s: {why}")
            time.sleep(_LOOK_EVERY)  # with an end, which following the job's events would not have
        return found

    def _why(self, job: "Job") -> str:
        return self._client.why(job.id).sentence
