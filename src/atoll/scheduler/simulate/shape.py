"""From what a trace tells of a job to one that can wait: spread over nodes, with limits, or found impossible."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from atoll.core.resources import Resources
from atoll.scheduler.fit import impossible
from atoll.scheduler.model import Demand, SiteState
from atoll.scheduler.simulate.cluster import Cluster
from atoll.scheduler.simulate.machines import Machines
from atoll.scheduler.traces.model import TraceJob


@dataclass(frozen=True, slots=True)
class Impossible:
    """Why some jobs of a trace can never run on a cluster, and how many they are."""

    field: str
    sentence: str
    jobs: int


@dataclass(frozen=True, slots=True)
class Shaped:
    """Jobs that the cluster can run, with walltime and grace, and what is with the others."""

    jobs: tuple[TraceJob, ...]
    impossible: tuple[Impossible, ...] = ()
    """The most frequent first."""


def shape(jobs: Iterable[TraceJob], cluster: Cluster) -> Shaped:
    """Hold the jobs of a trace against a cluster."""
    sites = cluster.sites()
    machines = Machines(cluster.nodes)
    known: dict[Demand, tuple[str, str] | None] = {}
    spreads: dict[Resources, tuple[Resources, int]] = {}
    why: Counter[tuple[str, str]] = Counter()
    possible = []
    for job in jobs:
        spread = job
        if job.spreads:
            if job.request not in spreads:
                spreads[job.request] = _spread(job.request, machines)
            request, nodes = spreads[job.request]
            spread = replace(job, request=request, nodes=nodes)
        demand = Demand(spread.request, spread.nodes, spread.flavors)
        if demand not in known:
            known[demand] = _obstacle(demand, sites, machines)
        if (found := known[demand]) is not None:
            why[found] += 1
            continue
        walltime = cluster.walltime(job.job_class) if job.walltime is None else job.walltime
        grace = cluster.grace(job.job_class) if job.grace is None else job.grace
        possible.append(replace(spread, walltime=walltime, grace=grace))
    return Shaped(tuple(possible), tuple(Impossible(*found, count) for found, count in why.most_common()))


def _obstacle(demand: Demand, sites: Sequence[SiteState], machines: Machines) -> tuple[str, str] | None:
    """Why no node of the (empty) machines can ever run it: a field and a sentence; None where some can."""
    told = impossible(demand, [state.site for state in sites])
    if told is not None:
        return told
    pools = [pool for pool in machines.pools if not demand.flavors or pool[1] in demand.flavors]
    if any(len(machines.with_room(pool, demand.request)) >= demand.nodes for pool in pools):
        return None
    # a flavor says of its largest node the most of each resource; no single node need have all of it
    return "nodes", "No node has so many CPUs, so much memory and so many GPUs together."


def _spread(request: Resources, machines: Machines) -> tuple[Resources, int]:
    """As few equal nodes as hold a request of processors: what is asked of each, and how many; one where none do."""
    largest = int(machines.cpu.max())
    fewest = -(-request.cpu // largest) if largest else 1
    most = min(len(machines.cpu), request.cpu // 1000)  # no node with less than a processor
    for nodes in range(max(1, fewest), most + 1):
        each = Resources(-(-request.cpu // nodes // 1000) * 1000, -(-request.memory // nodes), request.gpu)
        if any(len(machines.with_room(pool, each)) >= nodes for pool in machines.pools):
            return each, nodes
    return request, 1
