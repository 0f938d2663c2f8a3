"""`make demo-sites`: 500 jobs over several sites, one joining late, one going down and coming back.

Starts real engines in temporary folders (two Slurm clusters and a Podman host), adds them to a platform of its own, and
the Kubernetes cluster of KUBECONFIG and the HTCondor pool of CONDOR_CONFIG where there are such. Ends with a picture of
the running jobs by site over time (PNG and SVG) and a table that accounts for every job.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll.client.models import Job
from atoll.client.synchronous import Client
from atoll.core.site_file import read_site
from tests.support.kubernetes import cluster_kubeconfig
from tests.support.platform import RunningPlatform
from tests.support.podman import IMAGE, PodmanService, PodmanUnavailable
from tests.support.slurm import SlurmCluster, slurm_missing

JOBS = 500
LATE, DOWN, BACK = 0.25, 0.4, 0.7
"""When a site joins, another goes down, and that comes back: parts of the jobs that have ended."""
_STILL = 10.0
"""It comes back after so many seconds without any end, too: what is left may all be there."""
_DEADLINE = 900.0


@dataclass
class Story:
    """What happened when, in seconds since the first job was sent."""

    began: float = field(default_factory=time.time)
    moments: list[tuple[float, str]] = field(default_factory=list)

    def tell(self, words: str) -> None:
        """Note that something happens now."""
        self.moments.append((time.time() - self.began, words))
        print(f"{self.moments[-1][0]:7.1f} s  {words}", flush=True)


def slurm_site(name: str, cluster: SlurmCluster) -> dict[str, Any]:
    """The site file of a cluster that runs here."""
    return {
        "name": name, "driver": "slurm", "labels": {"demo": "yes"}, "identity": {"map": "same-name"},
        "config": {"transport": "local", "slurm_conf": str(cluster.conf), "folder": str(cluster.folder / "atoll")},
    }  # fmt: skip


@contextmanager
def podman_site() -> Iterator[dict[str, Any] | None]:
    """The site file of a Podman host that runs here; None where there is no Podman."""
    try:
        service = PodmanService()
    except PodmanUnavailable as error:
        print(f"no Podman: {error}")
        yield None
        return
    try:
        yield {
            "name": "containers", "driver": "podman", "labels": {"demo": "yes"}, "identity": "shared",
            "config": {"socket": str(service.socket), "image": IMAGE, "pull": "never", "cpus": 8,
                       "folder": str(service.folder / "sites")},
        }  # fmt: skip
    finally:
        service.remove()


def named_sites() -> list[dict[str, Any]]:
    """Sites that are there already: the cluster of KUBECONFIG, and the pool of CONDOR_CONFIG."""
    sites: list[dict[str, Any]] = []
    cluster, pool = cluster_kubeconfig(), os.environ.get("CONDOR_CONFIG", "")
    if cluster is not None:
        image = os.environ.get("ATOLL_KUBERNETES_IMAGE", "docker.io/library/python:3.12")
        config = {"kubeconfig": str(cluster), "namespace": "atoll-demo", "image": image}
        sites.append({"name": "kubernetes", "driver": "kubernetes", "config": config})
    if Path(pool).is_file():
        sites.append({"name": "condor", "driver": "htcondor", "config": {}})
    return [{**site, "labels": {"demo": "yes"}, "identity": "shared"} for site in sites]


def send(client: Client, count: int) -> list[int]:
    """Send jobs that do a little work and take a few seconds."""
    script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep $((2 + ATOLL_JOB_ID % 5))"
    specs = [
        {"name": f"part-{number}", "command": ["/bin/sh", "-c", script], "cpu": 1, "memory": "64M",
         "constraints": ["demo"], "walltime": "10m"}
        for number in range(count)
    ]  # fmt: skip
    return client.submit_many(specs)


def play(
    platform: RunningPlatform, client: Client, count: int, sites: Sequence[dict[str, Any]], down: SlurmCluster
) -> tuple[Story, list[int]]:
    """Run jobs while the last of `sites` comes late, and the one before it, `down`, goes and comes back."""
    story = Story()
    *early, late = sites
    for site in early:
        client.put_site(read_site(site))
        story.tell(f"{site['name']} joins")
    jobs = send(client, count)
    story.tell(f"{count} jobs are sent")

    def join() -> None:
        client.put_site(read_site(late))

    def come_back() -> None:
        down.start("slurmctld")
        down.until_answers()

    plan: list[tuple[float, str, Callable[[], None]]] = [
        (LATE, f"{late['name']} joins", join),
        (DOWN, f"{early[-1]['name']} goes down", lambda: down.stop("slurmctld")),
        (BACK, f"{early[-1]['name']} comes back", come_back),
    ]
    deadline = time.monotonic() + _DEADLINE
    before, ended_at = count, time.monotonic()
    while (left := unended(platform)) or plan:
        done = 1 - left / count
        if left != before:
            before, ended_at = left, time.monotonic()
        is_still = len(plan) == 1 and time.monotonic() - ended_at > _STILL
        while plan and (done >= plan[0][0] or is_still):
            _, words, act = plan.pop(0)
            story.tell(words)
            act()
        if time.monotonic() > deadline:
            raise SystemExit(f"{left} jobs have not ended after {_DEADLINE:.0f} s")
        time.sleep(0.5)
    story.tell("every job has ended")
    return story, jobs


def unended(platform: RunningPlatform) -> int:
    """How many jobs have not ended."""
    counts: dict[str, int] = platform.request("GET", "/api/v1/status").json()["jobs"]
    return sum(counts.values())


def account(jobs: Sequence[Job]) -> tuple[str, bool]:
    """A table of what became of every job, by site; and whether all succeeded and none ran twice."""
    by_site: dict[str, Counter[str]] = {}
    twice = 0
    for job in jobs:
        ran = [attempt for attempt in job.attempt_list if attempt.started_at is not None]
        twice += sum(attempt.outcome == "succeeded" for attempt in ran) > 1
        for attempt in job.attempt_list:
            by_site.setdefault(attempt.site or "-", Counter())[attempt.outcome or "-"] += 1
    kinds = sorted({kind for counts in by_site.values() for kind in counts})
    lines = ["| site | " + " | ".join(kinds) + " |", "| --- |" + " ---: |" * len(kinds)]
    lines += [
        f"| {site} | " + " | ".join(str(by_site[site][kind]) for kind in kinds) + " |" for site in sorted(by_site)
    ]
    ends = Counter(str(job.state) for job in jobs)
    lines.append("")
    lines.append(f"{len(jobs)} jobs: " + ", ".join(f"{number} {state}" for state, number in sorted(ends.items())))
    lines.append(f"ran twice: {twice}")
    return "\n".join(lines), ends == Counter({"succeeded": len(jobs)}) and not twice


def running(jobs: Sequence[Job], began: float) -> dict[str, list[tuple[float, int]]]:
    """By site: the seconds at which the number of running jobs changed, and what it was from then on."""
    changes: dict[str, list[tuple[float, int]]] = {}
    for job in jobs:
        for attempt in job.attempt_list:
            if attempt.started_at is not None and attempt.ended_at is not None and attempt.site is not None:
                steps = changes.setdefault(attempt.site, [])
                steps += [(attempt.started_at.timestamp() - began, 1), (attempt.ended_at.timestamp() - began, -1)]
    lines = {}
    for site, steps in changes.items():
        level, points = 0, [(0.0, 0)]
        for at, step in sorted(steps):
            level += step
            points.append((at, level))
        lines[site] = points
    return lines


def draw(lines: Mapping[str, Sequence[tuple[float, int]]], story: Story, folder: Path) -> list[Path]:
    """The picture, as PNG and SVG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 4.5), layout="constrained")
    end = max(at for points in lines.values() for at, _ in points)
    grid = [end * step / 1000 for step in range(1001)]
    heights = [_sampled(points, grid) for points in lines.values()]
    axes.stackplot(grid, heights, labels=list(lines), step="post", alpha=0.85)
    told: list[tuple[float, list[str]]] = []
    for at, words in story.moments:
        if told and at - told[-1][0] < end / 100:
            told[-1][1].append(words)
        elif at <= end:
            told.append((at, [words]))
    for at, sentences in told:
        axes.axvline(at, color="0.35", linewidth=0.8, linestyle=":")
        axes.annotate(
            "\n".join(sentences),
            (at, 0.99),
            xycoords=("data", "axes fraction"),
            rotation=90,
            va="top",
            ha="left",
            size=8,
        )
    axes.set(xlabel="seconds", ylabel="running jobs", title="Running jobs by site", xlim=(0, end))
    axes.legend(loc="upper right", frameon=False)
    paths = [folder / f"sites.{kind}" for kind in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=150)
    return paths


def _sampled(points: Sequence[tuple[float, int]], grid: Sequence[float]) -> list[int]:
    values, index = [], 0
    for at in grid:
        while index + 1 < len(points) and points[index + 1][0] <= at:
            index += 1
        values.append(points[index][1])
    return values


def main(arguments: Sequence[str] | None = None) -> int:
    """Play it; 0 where every job succeeded, and none ran twice."""
    parser = argparse.ArgumentParser(prog="python -m bench.demo_sites", description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--out", type=Path, default=Path("demo-sites"), help="folder for the picture and the table")
    given = parser.parse_args(arguments)
    missing = slurm_missing()
    if missing is not None:
        print(f"no Slurm: {missing}", file=sys.stderr)
        return 1
    given.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="atoll-demo-")))
        folder.chmod(0o755)
        containers = stack.enter_context(podman_site())
        names = ["slurm-a", "slurm-b"] if containers is not None else ["slurm-a", "slurm-b", "slurm-c"]
        clusters = {name: stack.enter_context(SlurmCluster(nodes=2, cpus=4)) for name in names}
        sites = named_sites() + [slurm_site(name, cluster) for name, cluster in clusters.items()]
        if containers is not None:
            sites.append(containers)
        platform = stack.enter_context(RunningPlatform(folder / "data"))
        client = stack.enter_context(Client(platform.url, platform.token))
        client.drain_site("local")
        story, jobs = play(platform, client, given.jobs, sites, clusters["slurm-b"])
        told = [client.job(job) for job in jobs]
    table, well = account(told)
    paths = draw(running(told, story.began), story, given.out)
    (given.out / "sites.md").write_text(table + "\n")
    print(f"\n{table}\n\npicture: {', '.join(map(str, paths))}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
