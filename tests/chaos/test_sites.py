"""Random faults at real sites: engines killed, paused and cut off, the control plane too, jobs removed by hand.

Whatever happens, every job is accounted for, and none runs twice.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.engines import skip_without
from tests.support.ledger import ENDED, Ledger, all_jobs, submit_surely
from tests.support.openssh import OpenSsh, need_openssh
from tests.support.platform import RunningPlatform
from tests.support.podman import IMAGE, PodmanService, PodmanUnavailable
from tests.support.slurm import SlurmCluster, need_slurm
from tests.support.trail import Trail, what_happened
from tests.support.wire import Wire

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]
CI_SECONDS, FULL_SECONDS = 180.0, 1800.0
_BATCH, _MOST_WAITING = 10, 60
_SETTLE = 300.0
_TOLD = 10
"""Most jobs of which a failure tells all."""


class Sites:
    """Two Slurm clusters, one of them behind SSH and a wire that can be cut, and a Podman host."""

    def __init__(self, stack: ExitStack, only: str | None) -> None:
        """`only`: the driver to whose sites all jobs go."""
        self.only = only
        need_slurm()
        need_openssh()
        try:
            self.containers = PodmanService()
        except PodmanUnavailable as error:
            skip_without("Podman", str(error))
        stack.callback(self.containers.remove)
        self.near = stack.enter_context(SlurmCluster(nodes=2, cpus=8))
        # forgets ended jobs sooner than an outage lasts
        self.far = stack.enter_context(SlurmCluster(nodes=2, cpus=8, min_job_age=3))
        self.login = stack.enter_context(OpenSsh())
        self.wire = stack.enter_context(Wire(self.login.port))
        self.folder = Path(stack.enter_context(_open_folder()))
        self.ledger = Ledger(self.folder / "ledger")
        self.ledger.path.touch()
        self.ledger.path.chmod(0o666)
        roots = [self.folder / "containers", *(cluster.folder / "sites" for cluster in (self.near, self.far))]
        self.trail = stack.enter_context(Trail(roots))

    def files(self) -> Iterator[dict[str, Any]]:
        """The site files."""
        near = {"transport": "local", "slurm_conf": str(self.near.conf), "folder": str(self.near.folder / "sites")}
        known_hosts = self.folder / "known_hosts"
        host_key = self.login.known_hosts.read_text().partition(" ")[2]
        known_hosts.write_text(f"[127.0.0.1]:{self.wire.port} {host_key}")
        far = {
            "transport": "ssh", "host": "127.0.0.1", "port": self.wire.port, "user": "root",
            "key": str(self.login.new_key("root")), "known_hosts": str(known_hosts), "slurm_conf": str(self.far.conf),
            "folder": str(self.far.folder / "sites"),
        }  # fmt: skip
        containers = {
            "socket": str(self.containers.socket), "image": IMAGE, "pull": "never", "cpus": 8,
            "folder": str(self.folder / "containers"), "network": "none",
            "volumes": {"ledger": {"path": str(self.folder), "read_only": False}},
        }  # fmt: skip
        for name, driver, config in (("near", "slurm", near), ("far", "slurm", far), ("boxes", "podman", containers)):
            identity: Any = "shared" if driver == "podman" else {"map": "same-name"}
            yield {"name": name, "driver": driver, "identity": identity, "config": config}

    def spec(self, number: int, chance: random.Random) -> dict[str, Any]:
        """A job that signs the ledger, at some site."""
        seconds = chance.choice((0, 0.5, 2, 5))
        spec = {**self.ledger.spec(number, seconds), "walltime": "10m"}
        if self.only == "podman" or (self.only is None and number % 3 == 0):
            volume = {"name": "ledger", "path": str(self.folder)}
            return {**spec, "constraints": ["driver=podman"], "volumes": [volume]}
        return {**spec, "constraints": ["driver=slurm"]}

    def says(self, attempt: Mapping[str, Any]) -> Iterator[str]:
        """What the site itself says of an attempt, given its columns."""
        if attempt["site"] == "boxes":
            name = f"atoll-{attempt['id']}"
            for words in (("events", "--stream=false", "--filter", f"container={name}"), ("inspect", name)):
                with suppress(PodmanUnavailable):
                    yield from self.containers.podman(*words).splitlines()
            return
        cluster = self.near if attempt["site"] == "near" else self.far
        job = str(attempt["native_id"]).partition("_")[0]
        said = (cluster.folder / "log" / "slurmctld").read_text(errors="replace").splitlines()
        yield from (line for line in said if f"JobId={job}" in line)


@contextmanager
def _open_folder() -> Iterator[str]:
    import tempfile

    folder = tempfile.mkdtemp(prefix="atoll-chaos-")
    Path(folder).chmod(0o777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Faults:
    """What can go wrong, and comes right again after a while."""

    def __init__(self, sites: Sites, platform: RunningPlatform, chance: random.Random) -> None:
        self._sites, self._platform, self._chance = sites, platform, chance
        self.removed: set[tuple[str, str]] = set()
        """Site and the engine's name of what somebody removed there."""
        self.done: list[str] = []

    def one(self) -> None:
        """Let one of them happen; returns when it is over."""
        kinds: list[Callable[[], None]] = [self._platform_killed, self._platform_paused]
        if self._sites.only != "podman":
            kinds += [
                partial(self._engine_killed, self._sites.near), partial(self._engine_killed, self._sites.far),
                partial(self._engine_paused, self._sites.near), partial(self._engine_paused, self._sites.far),
                self._cut, self._removed_from_slurm, self._removed_from_slurm,
            ]  # fmt: skip
        if self._sites.only != "slurm":
            kinds += [self._containers_killed, self._containers_frozen, self._removed_from_podman]
        if self._sites.only == "podman":
            kinds += 5 * [self._removed_from_podman]  # there is time for many of these
        kind = self._chance.choice(kinds)
        name = getattr(kind, "func", kind).__name__.strip("_")
        self.done.append(f"{time.strftime('%H:%M:%S')} {name}")
        print(self.done[-1], flush=True)
        kind()

    def _while(self) -> None:
        time.sleep(self._chance.uniform(1, 12))  # how long it lasts

    def _engine_killed(self, cluster: SlurmCluster) -> None:
        cluster.stop("slurmctld")
        self._while()
        cluster.start("slurmctld")

    def _engine_paused(self, cluster: SlurmCluster) -> None:
        cluster.pause("slurmctld")
        self._while()
        cluster.resume("slurmctld")

    def _containers_killed(self) -> None:
        self._sites.containers.kill()
        self._while()
        self._sites.containers.start()

    def _containers_frozen(self) -> None:
        with self._sites.containers.frozen():
            self._while()

    def _cut(self) -> None:
        with self._sites.wire.cut():
            self._while()

    def _platform_killed(self) -> None:
        self._platform.kill()
        if self._chance.random() < 0.5:
            self._while()
        self._platform.start()

    def _platform_paused(self) -> None:
        self._platform.pause()
        self._while()
        self._platform.resume()

    def _removes(self, site: str, native: str) -> None:
        self.removed.add((site, native))
        self.done[-1] += f" {native}"

    def _removed_from_slurm(self) -> None:
        site, cluster = self._chance.choice((("near", self._sites.near), ("far", self._sites.far)))
        natives = cluster.run("squeue", "--noheader", "--array", "--format=%i", check=False).split()
        if natives:
            native = self._chance.choice(natives)
            self._removes(site, native)
            cluster.run("scancel", native, check=False)

    def _removed_from_podman(self) -> None:
        names = self._sites.containers.podman("ps", "--format", "{{.Names}}").split()
        if names:
            name = self._chance.choice(names)
            self._removes("boxes", name)
            with suppress(PodmanUnavailable):  # Podman may be at its end just now, and refuses
                self._sites.containers.podman("rm", "--force", "--time", "0", name)


def test_every_job_is_accounted_for_whatever_happens_to_its_site(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    seconds = FULL_SECONDS if request.config.getoption("--full-size") else CI_SECONDS
    seconds = request.config.getoption("--seconds") or seconds
    print(f"seed {seed}")
    with ExitStack() as stack:
        sites = Sites(stack, request.config.getoption("--faults-at"))
        platform = stack.enter_context(RunningPlatform(tmp_path / "data"))
        platform.command("site", "drain", "local")
        for file in sites.files():
            answer = platform.request("PUT", f"/api/v1/sites/{file['name']}", json=file)
            assert answer.status_code == 201, answer.text
        faults = Faults(sites, platform, chance)
        numbers: dict[int, int] = {}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if _waiting(platform) < _MOST_WAITING:
                batch = range(len(numbers), len(numbers) + _BATCH)
                body = {"jobs": [sites.spec(number, chance) for number in batch]}
                key = {"Idempotency-Key": f"batch-{batch[0]}"}
                answer = submit_surely(partial(platform.request, "POST", "/api/v1/jobs/bulk", json=body, headers=key))
                assert answer.status_code in (200, 201), answer.text
                numbers.update(zip(answer.json()["ids"], batch, strict=True))
            time.sleep(chance.expovariate(1 / 1.5))  # time between two faults
            faults.one()
        jobs = _settled(platform, numbers)
        removed = {job for job in numbers if _was_removed(platform, job, faults.removed)}
        counts = sites.ledger.counts()
        wrong = {
            job: why
            for job, number in numbers.items()
            if (why := _wrong(jobs[job], number, counts[number], removed=job in removed))
        }
        told = [
            f"{why}; removed by hand: {job in removed}; signed: {sites.ledger.signatures(numbers[job])}\n"
            f"{what_happened(platform.data, job, sites.trail, sites.says)}"
            for job, why in list(wrong.items())[:_TOLD]
        ]
    lines = "\n\n".join([*told, *faults.done, f"{platform.log} has the whole log, whose end is:", platform.tail()])
    assert not wrong, f"{len(wrong)} of {len(numbers)} jobs are wrong\n{lines}"
    print(f"{len(numbers)} jobs, {len(removed)} removed by hand, {len(faults.done)} faults")
    assert len(numbers) >= 3 * _BATCH
    kinds = {fault.split()[1] for fault in faults.done}
    assert len(kinds) >= (5 if sites.only is None else 3), "too few kinds of faults for this to prove anything"


def _wrong(job: dict[str, Any], number: int, count: int, *, removed: bool) -> str:
    """What is wrong with a job that has ended and signed so often; empty where it is as it should be."""
    code = Ledger.exit_code(number)
    if count > 1:
        return f"{job} ran {count} times"
    if removed:
        return f"{job} succeeded without having run" if job["state"] == "succeeded" and count == 0 else ""
    expected = ("failed" if code else "succeeded", code)
    if (job["state"], job["exit_code"]) != expected:
        return f"{job} should be {expected}"
    return "" if count == 1 else f"{job} did not sign"


def _was_removed(platform: RunningPlatform, job: int, removed: set[tuple[str, str]]) -> bool:
    attempts = platform.request("GET", f"/api/v1/jobs/{job}").json()["attempt_list"]
    return any(
        (attempt["site"], name) in removed
        for attempt in attempts
        for name in (attempt["native_id"], f"atoll-{attempt['id']}")
    )


def _waiting(platform: RunningPlatform) -> int:
    answer = submit_surely(partial(platform.request, "GET", "/api/v1/status"))
    return sum(answer.json()["jobs"].values())


def _settled(platform: RunningPlatform, numbers: dict[int, int]) -> dict[int, dict[str, Any]]:
    """The jobs, once all have ended."""
    deadline = time.monotonic() + _SETTLE
    while True:
        jobs = all_jobs(lambda path: platform.request("GET", path), list(numbers))
        left = [job for job in jobs.values() if job["state"] not in ENDED]
        if not left:
            return jobs
        if time.monotonic() > deadline:
            why = subprocess.list2cmdline([str(job["id"]) for job in left])
            pytest.fail(f"{len(left)} jobs do not end ({why}), as {left[0]}\n{platform.tail()}")
        time.sleep(0.5)
