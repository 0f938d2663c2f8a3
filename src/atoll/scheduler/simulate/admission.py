"""Which jobs of a trace a project tree takes, as the platform would when they are submitted: `admit`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from atoll.core.spec import JobClass
from atoll.scheduler.quota import Tree
from atoll.scheduler.traces.model import TraceJob


@dataclass(frozen=True, slots=True)
class Denied:
    """Why some jobs of a project are not taken, and how many they are."""

    project: str
    sentence: str
    jobs: int


def admit(jobs: Iterable[TraceJob], tree: Tree, flavors: Sequence[str]) -> tuple[list[TraceJob], tuple[Denied, ...]]:
    """The jobs that the projects of a tree take, and why not the others, the most frequent first.

    Jobs that name no project count to the tree's only one, if it has just one. Who is in a project does not matter: a
    trace names people otherwise. `flavors` are those of the cluster.
    """
    leaves = [node.name for number, node in enumerate(tree.nodes) if tree.leaves[number]]
    usual = leaves[0] if len(leaves) == 1 else ""
    taken: list[TraceJob] = []
    denied: Counter[tuple[str, str]] = Counter()
    for job in jobs:
        project = job.project or usual
        sentence = _refusal(job, project, tree, flavors)
        if sentence is None:
            taken.append(job if job.project else replace(job, project=project))
        else:
            denied[project, sentence] += 1
    return taken, tuple(Denied(*found, count) for found, count in denied.most_common())


def _refusal(job: TraceJob, project: str, tree: Tree, flavors: Sequence[str]) -> str | None:
    """Why a project does not take a job; None where it does."""
    if not project:
        return "They name no project."
    if project not in tree:
        return f"There is no project {project} in the tree."
    if not tree.is_project(project):
        return f"Project {project} has others below it: it takes no jobs."
    if job.job_class is JobClass.OPPORTUNISTIC:
        return None
    total = job.request * job.nodes
    for flavor in job.flavors or flavors:
        most = tree.most_of(project, flavor)
        if all(getattr(total, resource) <= whole for resource, whole in most.items()):
            return None
    return f"They ask for more than project {project} could ever have."
