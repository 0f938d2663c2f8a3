"""What a new project tree changes: the lines of a plan, what is wrong with it here, and who is over quota by it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from atoll.core.project import Hints, Limit, Mistake, TreeNode, inner_names, quota_place
from atoll.core.project_file import write_amount, write_limit
from atoll.scheduler.fit import amount
from atoll.scheduler.quota import Quotas, Tree

Line = dict[str, str]
"""`kind` (add, remove, change), `project` and `sentence`."""
_MOST_OVER = 100


def differences(before: Sequence[TreeNode], after: Sequence[TreeNode]) -> list[Line]:
    """The differences of two trees, by project: what goes, what comes, what changes."""
    old, new = {node.name: node for node in before}, {node.name: node for node in after}
    lines = [_line("remove", name, name) for name in sorted(old.keys() - new.keys())]
    lines += [_line("add", node.name, _described(node)) for node in after if node.name not in old]
    for node in after:
        if node.name in old:
            lines += [_line("change", node.name, f"{node.name} {text}") for text in _changes(old[node.name], node)]
    return lines


def _line(kind: str, project: str, sentence: str) -> Line:
    return {"kind": kind, "project": project, "sentence": sentence}


def _described(node: TreeNode) -> str:
    """A new node in one line."""
    parts = [f"below {node.parent}" if node.parent else "the root"]
    parts += [f"weight {node.weight:g}"] if node.weight != 1 else []
    parts += [f"{' '.join(column)} {_limit(column[1], limit)}" for column, limit in sorted(node.quotas.items())]
    for what in ("people", "managers", "clearance"):
        if words := getattr(node, what):
            parts.append(f"{what} {', '.join(words)}")
    parts += [f"ends {node.ends}"] if node.ends else []
    return f"{node.name}: {'; '.join(parts)}"


def _changes(old: TreeNode, new: TreeNode) -> list[str]:
    texts: list[str] = []
    for what in ("parent", "weight", "description", "ends"):
        before, after = getattr(old, what), getattr(new, what)
        if before != after:
            texts.append(f"{what}: {_word(before)} -> {_word(after)}")
    for column in sorted(old.quotas.keys() | new.quotas.keys()):
        limits = old.quotas.get(column), new.quotas.get(column)
        if limits[0] != limits[1]:
            texts.append(f"{' '.join(column)}: {' -> '.join(_limit(column[1], limit) for limit in limits)}")
    for what in ("people", "managers", "clearance"):
        gone, come = (
            set(getattr(old, what)) - set(getattr(new, what)),
            set(getattr(new, what)) - set(getattr(old, what)),
        )
        if gone or come:
            signs = [f"+{word}" for word in sorted(come)] + [f"-{word}" for word in sorted(gone)]
            texts.append(f"{what}: {', '.join(signs)}")
    return texts


def _word(value: Any) -> str:
    if value is None or value == "":
        return "none"
    return f"{value:g}" if isinstance(value, float) else repr(value) if " " in str(value) else str(value)


def _limit(resource: str, limit: Limit | None) -> str:
    if limit is None:
        return "none"
    written = write_limit(resource, limit)
    if not isinstance(written, dict):
        return str(written)
    more = ", ".join(f"{name} {value}" for name, value in written.items() if name != "nominal")
    return f"{written['nominal']} ({more})"


def judge(nodes: Sequence[TreeNode], flavors: Collection[str]) -> tuple[list[Mistake], list[str]]:
    """Mistakes and warnings about a tree that is right by itself, where sites have these flavors."""
    mistakes: list[Mistake] = []
    unknown = [(node, column) for node in nodes for column in node.quotas if column[0] not in flavors]
    if flavors:
        known, hints = ", ".join(sorted(flavors)[:10]), Hints(sorted(flavors))
        for node, column in unknown:
            sentence = f"No site has the flavor {column[0]!r}; there is {known}.{hints.of(column[0])}"
            mistakes.append((quota_place(node, column), sentence))
    warnings = []
    if unknown and not flavors:
        names = ", ".join(sorted({column[0] for _, column in unknown})[:10])
        warnings.append(f"No site has said yet what it has, so that the flavors {names} may be wrong.")
    return mistakes, warnings + _useless_lending(nodes)


def _useless_lending(nodes: Sequence[TreeNode]) -> list[str]:
    """Lending limits of inner nodes that are above all that they have."""
    if not nodes:
        return []
    tree, inner = Tree(nodes), inner_names(nodes)
    return [
        f"{quota_place(node, column, 'lending')}: {write_amount(column[1], limit.lending)} is more than all that "
        f"{node.name} has; the limit changes nothing."
        for node in nodes
        if node.name in inner
        for column, limit in node.quotas.items()
        if limit.lending is not None and limit.lending > tree.subtree[tree.index[node.name], tree.column[column]]
    ]


def over_quota(before: Tree | None, quotas: Quotas) -> list[str]:
    """Who uses more than their quota where that has become less, or more than is available at all."""
    tree = quotas.tree
    borrowed, room = quotas.borrowed(), quotas.available()
    found = []
    for number, column in np.argwhere(borrowed > 0):
        name, (flavor, resource) = tree.nodes[number].name, tree.columns[column]
        quota = int(tree.subtree[number, column])
        if room[number, column] >= 0 and quota >= _had(before, name, (flavor, resource)):
            continue
        found.append(
            f"{name} uses {amount(resource, int(quotas.usage[number, column]))} of {flavor}, "
            f"more than its quota of {amount(resource, quota)}; nothing is evicted."
        )
    return found[:_MOST_OVER]


def _had(before: Tree | None, name: str, column: tuple[str, str]) -> int:
    if before is None or name not in before or column not in before.column:
        return 0
    return int(before.subtree[before.index[name], before.column[column]])


def no_longer_projects(before: Iterable[TreeNode], after: Sequence[TreeNode]) -> list[str]:
    """The projects that took jobs and shall not any more; none where the whole tree goes."""
    if not after:
        return []
    before = list(before)
    leaves = {node.name for node in after} - inner_names(after)
    return sorted({node.name for node in before} - inner_names(before) - leaves)


def usage_of(tree: Tree, usage: Mapping[tuple[str, str], Any]) -> Quotas:
    """The tree with what its projects use, by project and flavor."""
    quotas = Quotas(tree)
    for (project, flavor), resources in usage.items():
        quotas.add(project, flavor, resources)
    return quotas
