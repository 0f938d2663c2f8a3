"""The quota arithmetic, held against models that are written in another way."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core.errors import Invalid
from atoll.core.project import MAX_QUOTA
from atoll.core.resources import Resources
from atoll.scheduler.quota import Limit, Quotas, Tree, TreeNode

GPU = ("a100", "gpu")
CPU = ("a100", "cpu")


def node(name: str, parent: str | None = None, gpu: int | None = None, **limits: Any) -> TreeNode:
    """A node with a quota of one column, if any."""
    quotas = {} if gpu is None else {GPU: Limit(gpu, **limits)}
    return TreeNode(name, parent, quotas=quotas)


def gpus(number: int) -> Resources:
    return Resources(gpu=number)


def quotas_of(*nodes: TreeNode, **usage: int) -> Quotas:
    quotas = Quotas(Tree(nodes))
    for project, amount in usage.items():
        quotas.add(project, "a100", gpus(amount))
    return quotas


def available(quotas: Quotas, name: str) -> int:
    number, column = quotas.tree.index[name], quotas.tree.column[GPU]
    found = quotas.available_at(number, column)
    assert quotas.available()[number, column] == found
    return found


# ---- stories


def test_what_one_does_not_use_another_may_borrow() -> None:
    quotas = quotas_of(node("root"), node("a", "root", 8), node("b", "root", 4), b=3)
    assert available(quotas, "a") == 9
    assert quotas.fits("a", "a100", gpus(9))
    assert not quotas.fits("a", "a100", gpus(10))
    quotas.add("a", "a100", gpus(9))
    assert quotas.over("a").tolist() == [1]
    assert quotas.lent()[quotas.tree.index["b"], 0] == 1
    assert available(quotas, "b") == 0


def test_a_borrowing_limit_bounds_what_is_taken_from_others() -> None:
    quotas = quotas_of(node("root", None, 10), node("a", "root", 2, borrowing=3))
    assert available(quotas, "a") == 5
    assert available(quotas, "root") == 12


def test_a_lending_limit_keeps_the_rest_for_its_owner() -> None:
    quotas = quotas_of(node("root"), node("a", "root", 8), node("b", "root", 4, lending=1))
    assert available(quotas, "a") == 9
    quotas.add("a", "a100", gpus(9))
    assert available(quotas, "b") == 3


def test_a_cut_quota_leaves_less_than_nothing() -> None:
    quotas = quotas_of(node("root"), node("a", "root", 2), a=5)
    assert available(quotas, "a") == -3
    assert not quotas.fits("a", "a100", gpus(1))
    assert quotas.fits("a", "a100", gpus(0))


def test_what_no_node_names_is_not_governed() -> None:
    quotas = quotas_of(node("root"), node("a", "root", 2))
    assert quotas.fits("a", "cpu", Resources(10**9, 10**15, 0))
    assert quotas.fits("a", "a100", Resources(10**9, 10**15, 2))
    assert not quotas.fits("a", "a100", Resources(0, 0, 3))
    quotas.add("a", "cpu", Resources(1, 1, 1))
    assert not quotas.usage.any()


def test_where_others_name_a_resource_nothing_is_nominal() -> None:
    quotas = quotas_of(node("root"), node("a", "root", 2, lending=0), node("b", "root"))
    assert available(quotas, "b") == 0


def test_a_project_that_the_tree_lacks_has_no_quota_and_counts_nowhere() -> None:
    quotas = quotas_of(node("root"), node("a", "root", 2), gone=7)
    assert not quotas.usage.any()
    assert not quotas.fits("gone", "a100", gpus(1))
    assert quotas.fits("gone", "cpu", Resources(1000))


def test_a_node_is_within_its_own_quota_or_not() -> None:
    quotas = quotas_of(node("root"), node("a", "root", 2), node("b", "root", 2), a=1)
    assert quotas.within("a", "a100", gpus(1))
    assert not quotas.within("a", "a100", gpus(2))
    assert quotas.within("root", "a100", gpus(3))


def test_the_most_that_a_project_could_have_counts_all_limits_above_it() -> None:
    quotas = quotas_of(
        node("root", None, 100), node("dep", "root", 4, borrowing=2), node("a", "dep", 3), node("b", "dep", 1)
    )
    assert quotas.tree.most_of("a", "a100") == {"gpu": 10}
    assert quotas.tree.most_of("a", "cpu") == {}


def test_a_copy_goes_its_own_way() -> None:
    quotas = quotas_of(node("root"), node("a", "root", 2))
    other = quotas.copy()
    other.add("a", "a100", gpus(2))
    assert not quotas.usage.any()


def test_the_path_leads_to_the_root_and_only_leaves_are_projects() -> None:
    tree = quotas_of(node("root"), node("dep", "root"), node("a", "dep", 1)).tree
    assert tree.path("a") == ("a", "dep", "root")
    assert [name for name in ("root", "dep", "a", "x") if tree.is_project(name)] == ["a"]


# ---- what is no tree


@pytest.mark.parametrize(
    ("nodes", "field", "words"),
    [
        ([], "projects", "needs a root"),
        ([node("a"), node("b")], "projects.b.parent", "one root"),
        ([node("a", "b"), node("b", "a")], "projects", "no root"),
        ([node("r"), node("a", "b"), node("b", "a")], "projects.a.parent", "a > b > a"),
        ([node("physics"), node("a", "phisics")], "projects.a.parent", "Did you mean 'physics'?"),
        ([node("r"), node("a", "r"), node("a", "r")], "projects.a", "twice"),
        ([TreeNode("r", weight=0)], "projects.r.weight", "above 0"),
        ([TreeNode("r", weight=float("nan"))], "projects.r.weight", "above 0"),
        ([node("r"), node("a", "r", -1)], "projects.a.quotas.a100.gpu.nominal", "negative"),
        ([node("r"), node("a", "r", 1, lending=2)], "projects.a.quotas.a100.gpu.lending", "nominal"),
        ([node("r", None, 1, borrowing=2)], "projects.r.quotas.a100.gpu.borrowing", "root"),
        ([node("r", None, 1, lending=1)], "projects.r.quotas.a100.gpu.lending", "root"),
        ([TreeNode("r", people=("ana",)), node("a", "r")], "projects.r.people", "below"),
        ([node("r", None, MAX_QUOTA), node("a", "r", 1)], "projects", "too large"),
        ([TreeNode("r", quotas={("a100", "gpus"): Limit(1)})], "projects.r.quotas.a100.gpus", "Did you mean 'gpu'?"),
    ],
)  # fmt: skip
def test_a_tree_that_cannot_be_is_refused_at_the_place_that_is_wrong(
    nodes: list[TreeNode], field: str, words: str
) -> None:
    with pytest.raises(Invalid) as refused:
        Tree(nodes)
    assert refused.value.field == field
    assert words in refused.value.sentence


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        Tree([TreeNode("r", weight=-1), node("a", "x"), node("b", "r", -1)])
    assert [field for field, _ in refused.value.errors] == [
        "projects.r.weight", "projects.a.parent", "projects.b.quotas.a100.gpu.nominal"
    ]  # fmt: skip


# ---- against the formulas, and against what they mean


@dataclass
class Model:
    """The formulas as they are written, on dictionaries, each asked anew."""

    nodes: list[TreeNode]
    own: dict[str, int]

    def limit(self, name: str) -> Limit:
        return self.node(name).quotas.get(GPU, Limit())

    def node(self, name: str) -> TreeNode:
        return next(node for node in self.nodes if node.name == name)

    def children(self, name: str) -> list[str]:
        return [node.name for node in self.nodes if node.parent == name]

    def subtree(self, name: str) -> int:
        return self.limit(name).nominal + sum(self.subtree(c) - self.local(c) for c in self.children(name))

    def local(self, name: str) -> int:
        lending = self.limit(name).lending
        return 0 if lending is None else max(0, self.subtree(name) - lending)

    def usage(self, name: str) -> int:
        below = (max(0, self.usage(child) - self.local(child)) for child in self.children(name))
        return self.own.get(name, 0) + sum(below)

    def available(self, name: str) -> int:
        parent = self.node(name).parent
        subtree, local, usage = self.subtree(name), self.local(name), self.usage(name)
        if parent is None:
            return subtree - usage
        above = self.available(parent)
        borrowing = self.limit(name).borrowing
        if borrowing is not None:
            above = min(above, (subtree - local) - max(0, usage - local) + borrowing)
        return max(0, local - usage) + above

    def kept(self) -> bool:
        """Whether nobody is beyond a limit: what the numbers above promise to keep."""
        for each in self.nodes:
            subtree, local, usage = self.subtree(each.name), self.local(each.name), self.usage(each.name)
            borrowing = self.limit(each.name).borrowing
            if each.parent is None and usage > subtree:
                return False
            if borrowing is not None and max(0, usage - local) > subtree - local + borrowing:
                return False
        return True


@st.composite
def trees(draw: st.DrawFn) -> list[TreeNode]:
    """Small trees of one column (a second one beside it, for the columns' order), limits of every kind."""
    count = draw(st.integers(1, 7))
    amounts = st.integers(0, 6)
    parents = [draw(st.integers(0, number - 1)) for number in range(1, count)]
    nodes = []
    for number in range(count):
        root, leaf = number == 0, number not in parents
        nominal = draw(amounts)
        lending = None if root else draw(st.none() | st.integers(0, nominal if leaf else 12))
        limit = Limit(nominal, None if root else draw(st.none() | amounts), lending)
        quotas = draw(st.sampled_from([{}, {GPU: limit}, {GPU: limit}, {GPU: limit, CPU: Limit(3)}]))
        nodes.append(TreeNode(f"n{number}", None if root else f"n{parents[number - 1]}", quotas=quotas))
    nodes[0] = TreeNode("n0", quotas={**nodes[0].quotas, GPU: nodes[0].quotas.get(GPU, Limit())})
    return draw(st.permutations(nodes))


steps = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 8), st.booleans()), max_size=12)


def played(nodes: list[TreeNode], history: list[tuple[int, int, bool]]) -> tuple[Quotas, Model]:
    """Both after the same additions and removals; only what was added is removed."""
    quotas, model = Quotas(Tree(nodes)), Model(nodes, {})
    held: list[tuple[str, int]] = []
    for number, amount, remove in history:
        if remove and held:
            name, amount = held.pop(number % len(held))
            quotas.add(name, "a100", gpus(amount), -1)
            model.own[name] -= amount
        else:
            name = f"n{number % len(nodes)}"
            held.append((name, amount))
            quotas.add(name, "a100", gpus(amount))
            model.own[name] = model.own.get(name, 0) + amount
    return quotas, model


@given(trees(), steps)
@settings(max_examples=400, deadline=None)
def test_all_figures_are_those_of_the_formulas(nodes: list[TreeNode], history: list[tuple[int, int, bool]]) -> None:
    quotas, model = played(nodes, history)
    column, room = quotas.tree.column[GPU], quotas.available()
    for name, number in quotas.tree.index.items():
        assert quotas.subtree[number, column] == model.subtree(name)
        assert quotas.local[number, column] == model.local(name)
        assert quotas.usage[number, column] == model.usage(name)
        assert room[number, column] == model.available(name)
        assert quotas.available_at(number, column) == model.available(name)
        assert quotas.over(name)[column] == max(0, model.usage(name) - model.subtree(name))


@given(trees(), steps)
@settings(max_examples=300, deadline=None)
def test_what_is_available_is_the_most_that_breaks_no_limit(
    nodes: list[TreeNode], history: list[tuple[int, int, bool]]
) -> None:
    quotas, model = played(nodes, history)
    if not model.kept():
        return
    for name in quotas.tree.index:
        room = available(quotas, name)
        assert room >= 0
        before = model.own.get(name, 0)
        model.own[name] = before + room
        assert model.kept()
        model.own[name] = before + room + 1
        assert not model.kept()
        model.own[name] = before
        assert quotas.fits(name, "a100", gpus(room))
        assert not quotas.fits(name, "a100", gpus(room + 1))


@given(trees(), steps)
@settings(max_examples=200, deadline=None)
def test_children_lend_no_more_than_others_borrow_and_than_they_have_idle(
    nodes: list[TreeNode], history: list[tuple[int, int, bool]]
) -> None:
    quotas, model = played(nodes, history)
    lent, borrowed, column = quotas.lent(), quotas.borrowed(), quotas.tree.column[GPU]
    for name in quotas.tree.index:
        children = [quotas.tree.index[child] for child in model.children(name)]
        wanted = sum(int(borrowed[child, column]) for child in children)
        given_away = sum(int(lent[child, column]) for child in children)
        idle = sum(max(0, int(quotas.subtree[c, column] - max(quotas.local[c, column], quotas.usage[c, column])))
                   for c in children)  # fmt: skip
        rest = min(idle, max(0, wanted - model.limit(name).nominal))
        assert given_away == rest
        for child in children:
            assert 0 <= lent[child, column] <= max(0, quotas.subtree[child, column] - quotas.usage[child, column])


# ---- size


def test_ten_thousand_nodes_and_sixty_columns_are_fine_and_one_question_is_quick() -> None:
    columns = [(f"flavor{number}", resource) for number in range(20) for resource in ("cpu", "memory", "gpu")]
    limits = {column: Limit(1000, 500, 200) for column in columns}
    nodes = [TreeNode("root")]
    nodes += [TreeNode(f"dep{number}", "root", quotas=limits) for number in range(100)]
    nodes += [TreeNode(f"group{number}", f"dep{number % 100}", quotas=limits) for number in range(1000)]
    nodes += [TreeNode(f"p{number}", f"group{number % 1000}", quotas=limits) for number in range(8899)]
    began = time.perf_counter()
    quotas = Quotas(Tree(nodes))
    built = time.perf_counter()
    quotas.available()
    asked = time.perf_counter()
    request = Resources(10, 10, 10)
    for number in range(2000):
        quotas.fits(f"p{number}", "flavor7", request)
    answered = time.perf_counter()
    for number in range(2000):
        quotas.add(f"p{number}", "flavor7", request)
    added = time.perf_counter()
    print(
        f"built in {built - began:.2f} s, all available in {1000 * (asked - built):.0f} ms, fits in "
        f"{(answered - asked) / 2000 * 1e6:.1f} µs, add in {(added - answered) / 2000 * 1e6:.1f} µs"
    )
    assert built - began < 20
    assert (answered - asked) / 2000 < 300e-6
