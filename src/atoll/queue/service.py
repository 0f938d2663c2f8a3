"""Use cases of projects and quotas: what the API says of the tree, how it is changed, and who may do that."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection

from atoll.core.errors import Conflict, Denied, NotFound
from atoll.core.project import TreeNode, inner_names, refuse
from atoll.core.project_file import write_projects
from atoll.core.spec import suggestion
from atoll.jobs.projects import Projects
from atoll.queue import plan, sums
from atoll.scheduler.quota import Quotas, Tree
from atoll.store import figures, projects, reservations, sites
from atoll.store.people import Principal
from atoll.store.reservations import Reservation

Document = dict[str, Any]
_MOST_NAMED = 10


def load_tree(connection: Connection, known: Projects) -> tuple[int, Tree | None]:
    """The revision, and the tree; None where there is none. It is only read where it is not the `known` one."""
    revision = projects.revision(connection)
    if revision == known.revision:
        return revision, known.tree
    nodes = projects.load(connection)
    return revision, Tree(nodes) if nodes else None


def load(connection: Connection, known: Projects) -> tuple[int, Quotas | None]:
    """The revision, and the tree with what is used in it; None where there is none."""
    revision, tree = load_tree(connection, known)
    return revision, plan.usage_of(tree, projects.usage(connection)) if tree is not None else None


# ---- what is told


def listed(connection: Connection, who: Principal, known: Projects) -> Document:
    """The whole tree, from the root down."""
    revision, quotas = load(connection, known)
    items = _documents(quotas, range(len(quotas.tree)), who) if quotas is not None else []
    return {"revision": revision, "items": items}


def get(connection: Connection, name: str, who: Principal, known: Projects) -> Document:
    """One node. Raises NotFound."""
    _, quotas = load(connection, known)
    return _documents(quotas, [_number(quotas, name)], who)[0] if quotas else _refuse_unknown(name, [])


def _number(quotas: Quotas, name: str) -> int:
    number = quotas.tree.index.get(name)
    return number if number is not None else _refuse_unknown(name, list(quotas.tree.index))


def _refuse_unknown(name: str, known: list[str]) -> Any:
    hint = suggestion(name, known) or " See: atoll project list."
    raise NotFound("no_such_project", f"There is no project {name!r}.{hint}", field="project")


def _documents(quotas: Quotas, numbers: Sequence[int] | range, who: Principal) -> list[Document]:
    room, borrowed, lent = quotas.available(), quotas.borrowed(), quotas.lent()
    tree, given, used = quotas.tree, sums.nominal(quotas.tree), sums.usage(quotas)
    documents = []
    for number in numbers:
        node = tree.nodes[number]
        named = {tree.column[column] for column in node.quotas}
        shown = named.union(np.flatnonzero(given[number] | used[number] | room[number]).tolist())
        documents.append(_document(node, bool(tree.leaves[number]), who) | {
            "quotas": [
                _limits(tree, number, column)
                | {"quota": int(given[number, column]), "usage": int(used[number, column]),
                   "available": int(room[number, column]), "borrowed": int(borrowed[number, column]),
                   "lent": int(lent[number, column])}
                for column in sorted(shown)
            ],
        })  # fmt: skip
    return documents


def _document(node: TreeNode, leaf: bool, who: Principal) -> Document:
    insider = who.administrator or who.person in node.people or who.person in node.managers
    return {
        "name": node.name, "parent": node.parent, "weight": node.weight, "takes_jobs": leaf,
        "member": who.person in node.people, "people": list(node.people) if insider else None,
        "managers": list(node.managers) if insider else None, "clearance": list(node.clearance),
        "description": node.description, "ends": node.ends.isoformat() if node.ends else None,
    }  # fmt: skip


def _limits(tree: Tree, number: int, column: int) -> Document:
    flavor, resource = tree.columns[column]
    limit = tree.nodes[number].quotas.get((flavor, resource))
    return {
        "flavor": flavor, "resource": resource, "nominal": limit.nominal if limit else 0,
        "borrowing": limit.borrowing if limit else None, "lending": limit.lending if limit else None,
    }  # fmt: skip


def tree_file(connection: Connection) -> Document:
    """The tree as a project file has it, with its revision."""
    nodes = projects.load(connection)
    ordered = Tree(nodes).nodes if nodes else ()
    return {"revision": projects.revision(connection), **write_projects(ordered)}


# ---- what is changed


def put(
    connection: Connection, nodes: Sequence[TreeNode], revision: int | None, now: int, *, dry_run: bool
) -> Document:
    """Make `nodes` the tree, or (dry_run) say what that would change.

    Raises Invalid where a flavor is not there, Conflict where the tree is no longer that of `revision`, or where
    projects shall go that still have jobs.
    """
    current = projects.revision(connection)
    if revision is not None and revision != current:
        sentence = f"The project tree has changed since (it is at revision {current}, not {revision}); plan again."
        raise Conflict("tree_changed", sentence, field="revision")
    flavors = {flavor.name for site in sites.load(connection) if site.report for flavor in site.report.flavors}
    mistakes, warnings = plan.judge(nodes, flavors)
    refuse(mistakes)
    before = projects.load(connection)
    counts = projects.unended(connection)
    busy = _busy(counts, before, nodes)
    if busy and not dry_run:
        raise Conflict("project_in_use", busy, field="projects")
    warnings = [*([busy] if busy else []), *_stranded(counts, before, nodes), *warnings]
    warnings += _orphaned(reservations.load(connection, now), nodes)
    used = plan.usage_of(Tree(nodes), projects.usage(connection)) if nodes else None
    over = plan.over_quota(Tree(before) if before else None, used) if used is not None else []
    changed = not dry_run and projects.replace(connection, nodes, now)
    return {
        "revision": projects.revision(connection), "applied": changed, "changes": plan.differences(before, nodes),
        "warnings": warnings, "over": over,
    }  # fmt: skip


def _busy(counts: Mapping[str | None, int], before: Sequence[TreeNode], after: Sequence[TreeNode]) -> str:
    """Why projects cannot go yet; empty where they can."""
    said = _counted({name: counts[name] for name in plan.no_longer_projects(before, after) if name in counts})
    if not said:
        return ""
    return f"These have jobs that have not ended, and cannot go, or get projects below them, before: {said}."


def _stranded(counts: Mapping[str | None, int], before: Sequence[TreeNode], after: Sequence[TreeNode]) -> list[str]:
    """That jobs have no project of the new tree, nor had one of the old: they are from before there was a tree."""
    if not after:
        return []
    leaves = {node.name for node in after} - inner_names(after)
    spoken_of = set(plan.no_longer_projects(before, after))
    lost = {name: number for name, number in counts.items() if name not in leaves | spoken_of}
    if not lost:
        return []
    return [
        f"Jobs that have not ended and are in no project of this tree: {sum(lost.values())}, {_counted(lost)}. Those "
        "that wait may wait for ever; give them one: atoll set JOB --project NAME."
    ]


def _orphaned(kept: Sequence[Reservation], after: Sequence[TreeNode]) -> list[str]:
    """That reservations are for projects that the new tree lacks."""
    names = {node.name for node in after}
    lost = [each for each in kept if names and each.project is not None and each.project not in names]
    if not lost:
        return []
    said = ", ".join(f"{each.name} ({each.id}, {each.project})" for each in lost[:_MOST_NAMED])
    more = ", ..." if len(lost) > _MOST_NAMED else ""
    return [f"These reservations are for projects that this tree lacks, and keep room for nobody: {said}{more}."]


def _counted(counts: Mapping[str | None, int]) -> str:
    """Projects with their numbers of jobs, the most first."""
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0] or ""))
    words = [f"{name or 'without a project'} ({number})" for name, number in most[:_MOST_NAMED]]
    return ", ".join([*words, *(["..."] if len(most) > _MOST_NAMED else [])])


def change_people(
    connection: Connection, name: str, who: Principal, add: Sequence[str], remove: Sequence[str], now: int
) -> None:
    """Let people into a project, or out. Raises NotFound, Denied, Conflict."""
    managers = projects.managers(connection, name)
    if managers is None:
        _refuse_unknown(name, projects.names(connection))
    elif not who.administrator and who.person not in managers:
        sentence = f"Only managers of {name}, and administrators, may change who is in it."
        raise Denied("managers_only", sentence, field="project")
    if projects.has_children(connection, name):
        sentence = f"{name} has projects below it, and no people of its own; name one of those."
        raise Conflict("not_a_leaf", sentence, field="project")
    projects.change_people(connection, name, add, remove, now)


# ---- the queue


def queue(connection: Connection, known: Projects, counts: Sequence[figures.Standing] | None = None) -> Document:
    """How many jobs are where, and who borrows from whom. `counts` are those where they are known: it takes a while."""
    counts = figures.by_class_and_project(connection) if counts is None else counts
    _, quotas = load(connection, known)
    return {
        **{what: sum(getattr(count, what) for count in counts) for what in ("held", "waiting", "running")},
        "items": [
            {"class": count.class_, "project": count.project, "held": count.held, "waiting": count.waiting,
             "running": count.running}
            for count in counts
        ],
        "borrowing": _borrowing(quotas) if quotas is not None else [],
    }  # fmt: skip


def _borrowing(quotas: Quotas) -> list[Document]:
    """For each node below which something is borrowed: by whom, and from whom."""
    tree, borrowed, lent = quotas.tree, quotas.borrowed(), quotas.lent()
    groups: dict[tuple[int, int], list[int]] = {}
    for number, column in np.argwhere((borrowed > 0) | (lent > 0)).tolist():
        if number:
            groups.setdefault((tree.parents[number], column), []).append(number)
    found = []
    for (parent, column), numbers in sorted(groups.items()):
        borrowers = [_share(tree, number, borrowed[number, column]) for number in numbers if borrowed[number, column]]
        lenders = [_share(tree, number, lent[number, column]) for number in numbers if lent[number, column]]
        wanted = sum(share["amount"] for share in borrowers)
        own = min(wanted, int(tree.nominal[parent, column]))
        if own:
            lenders.insert(0, _share(tree, parent, own))
        flavor, resource = tree.columns[column]
        found.append({
            "below": tree.nodes[parent].name, "flavor": flavor, "resource": resource, "borrowers": borrowers,
            "lenders": lenders,
        })  # fmt: skip
    return found


def _share(tree: Tree, number: int, amount: Any) -> Document:
    return {"project": tree.nodes[number].name, "amount": int(amount)}
