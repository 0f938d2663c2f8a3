"""Which project a job is submitted to, and whether that could ever have so much: held against the project tree.

Without a tree any project, or none, is accepted.
"""

from collections.abc import Iterable, Sequence
from datetime import date

from atoll.core.errors import Denied, Invalid
from atoll.core.project import TreeNode, clearances
from atoll.core.site import Site
from atoll.core.spec import suggestion
from atoll.scheduler.fit import amount, flavor_obstacle, placement_obstacle
from atoll.scheduler.model import Demand
from atoll.scheduler.quota import Tree

_MOST_VERDICTS = 10_000
_MOST_NAMED = 10


class Projects:
    """A project tree, to be asked for each job: answers are found in tables that are made once."""

    def __init__(self, nodes: Sequence[TreeNode] = (), revision: int = 0) -> None:
        self.tree = Tree(nodes) if nodes else None
        """None: nothing is governed."""
        self.revision = revision
        """Of the tree in the store; 0 where there never was one."""
        self._clearances = clearances(nodes)
        self._of_person: dict[str, list[str]] = {}
        for node in self.tree.nodes if self.tree else ():
            for person in node.people:
                self._of_person.setdefault(person, []).append(node.name)
        self._verdicts: tuple[Sequence[Site], dict[tuple[str, Demand], tuple[str, str] | None]] = (), {}
        """What was found for which sites."""

    def of(self, person: str) -> Sequence[str]:
        """The projects that a person may submit to."""
        return self._of_person.get(person, ())

    def clearance(self, project: str | None) -> frozenset[str]:
        """The words that a site must have for jobs of a project."""
        return self._clearances.get(project or "", frozenset())

    def choose(self, project: str | None, person: str, today: date, prefix: str = "") -> str | None:
        """The project of a job that asks for `project`; `prefix` goes before the names of fields.

        Raises Invalid for what is no project, and where none is named and the person has several; Denied for one that
        the person is not in, or that has ended.
        """
        tree, field = self.tree, f"{prefix}project"
        if tree is None:
            return project
        own = self.of(person)
        if project is None:
            project = self._only(person, today, field)
        number = tree.index.get(project)
        if number is None or not tree.leaves[number]:
            raise self._no_project(project, person, field)
        if project not in own:
            sentence = f"{field}: you are not in project {project}; {_yours(own)}."
            raise Denied("not_a_member", sentence, field=field)
        ends = tree.nodes[number].ends
        if ends is not None and today > ends:
            raise Denied("project_ended", f"{field}: project {project} ended on {ends.isoformat()}.", field=field)
        return project

    def _only(self, person: str, today: date, field: str) -> str:
        """The project that one who names none can only mean: of those that have not ended. Raises Invalid, Denied."""
        own = self.of(person)
        if not own:
            sentence = f"{field}: you are in no project yet; ask the manager of one, or an administrator, to add you."
            raise Denied("not_a_member", sentence, field=field)
        open_ = [name for name in own if not self._has_ended(name, today)]
        if len(open_) == 1:
            return open_[0]
        if not open_:
            raise Denied("project_ended", f"{field}: all your projects have ended: {_listed(own)}.", field=field)
        raise Invalid("no_project", f"{field}: you are in several projects; name one: {_listed(open_)}.", field=field)

    def _has_ended(self, project: str, today: date) -> bool:
        assert self.tree is not None
        ends = self.tree.nodes[self.tree.index[project]].ends
        return ends is not None and today > ends

    def _no_project(self, project: str, person: str, field: str) -> Invalid:
        assert self.tree is not None
        if project in self.tree:
            below = [node.name for node in self.tree.nodes if node.parent == project]
            sentence = f"{field}: {project} has projects below it; name one of those: {_listed(below)}."
            return Invalid("not_a_leaf", sentence, field=field)
        own = self.of(person)
        hint = suggestion(project, list(own)) or suggestion(project, list(self.tree.index))
        sentence = f"{field}: there is no project {project!r}; {_yours(own)}.{hint}"
        return Invalid("no_such_project", sentence, field=field)

    def check_size(self, project: str, demand: Demand, sites: Sequence[Site], prefix: str = "") -> None:
        """Refuse (Invalid) what the project could never have, on whatever flavor that the demand could use."""
        # threads may do this at once: a table goes with its sites, and is never emptied, but another one taken
        judged_for, verdicts = self._verdicts
        if judged_for is not sites or len(verdicts) >= _MOST_VERDICTS:
            verdicts = {}
            self._verdicts = sites, verdicts
        key = (project, demand)
        if key not in verdicts:
            verdicts[key] = self._too_much(project, demand, sites)
        verdict = verdicts[key]
        if verdict is not None:
            field, sentence = verdict
            raise Invalid("beyond_quota", f"{prefix}{field}: {sentence}", field=prefix + field)

    def _too_much(self, project: str, demand: Demand, sites: Sequence[Site]) -> tuple[str, str] | None:
        """The field that asks too much of the flavor where the least is too much, and a sentence."""
        # a project that the tree lacks is another matter
        if self.tree is None or project not in self.tree or not sites or any(site.report is None for site in sites):
            return None
        nearest: tuple[float, str, str] | None = None
        for flavor in usable_flavors(demand, sites):
            most = self.tree.most_of(project, flavor)
            beyond = [name for name, limit in most.items() if getattr(demand.total, name) > max(0, limit)]
            if not beyond:
                return None
            share, worst = min((max(0, most[name]) / getattr(demand.total, name), name) for name in beyond)
            if nearest is None or share > nearest[0]:
                limit = max(0, most[worst])
                asked = f"{amount(worst, getattr(demand.total, worst))} in all is more than project {project} can ever "
                nearest = share, worst, asked + f"have of {flavor}, even borrowing: {amount(worst, limit)} at most."
        return None if nearest is None else nearest[1:]


def usable_flavors(demand: Demand, sites: Iterable[Site]) -> list[str]:
    """The flavors that could hold the demand at some site that has reported, in the job's own order if it has one."""
    found = {
        flavor.name
        for site in sites
        if site.report is not None and placement_obstacle(demand.placement, demand.nodes, site) is None
        for flavor in site.report.flavors
        if flavor_obstacle(demand, flavor, site.name) is None
    }
    return [name for name in demand.flavors if name in found] if demand.flavors else sorted(found)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _yours(own: Sequence[str]) -> str:
    return f"yours: {_listed(own)}" if own else "you are in no project yet"
