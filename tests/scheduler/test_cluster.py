"""A cluster file says what there is; its nodes are kept to the single GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.core.errors import Invalid
from atoll.core.project import Limit
from atoll.core.resources import Resources
from atoll.core.spec import JobClass
from atoll.scheduler.model import TreeChanged
from atoll.scheduler.simulate.cluster import Cluster, Node, read_cluster
from atoll.scheduler.simulate.machines import Machines, first_node, fullest_node

EXAMPLES = Path(__file__).parents[2] / "examples" / "simulate"
GIB = 2**30
GPU = ("lab", "gpu")


def read(text: str) -> Cluster:
    return read_cluster(text, "cluster.yaml")


def machines(*gpus: int, cpu: int = 8) -> Machines:
    return Machines(
        [Node(f"n{number}", *GPU, Resources(cpu * 1000, GIB, count * 1000)) for number, count in enumerate(gpus)]
    )


def test_the_example_is_a_cluster_of_two_sites() -> None:
    cluster = read((EXAMPLES / "cluster.yaml").read_text())
    assert cluster.flavors == ("cpu", "gpu-a100", "gpu-t4")
    assert cluster.capacity == Resources(160_000, 896 * GIB, 12_000)
    ring, lab = cluster.sites()
    assert ring.site.all_labels["region"] == "eu"
    assert lab.site.report is not None
    assert [(flavor.name, flavor.nodes, flavor.node.gpu) for flavor in lab.site.report.flavors] == [
        ("gpu-a100", 2, 4000), ("gpu-t4", 2, 2000),
    ]  # fmt: skip
    assert (cluster.walltime(JobClass.BATCH), cluster.grace(JobClass.BATCH)) == (2 * 86400, 60)
    assert (cluster.walltime(JobClass.SERVICE), cluster.grace(JobClass.SERVICE)) == (None, 30)
    assert not cluster.tree


def test_a_cluster_file_may_name_a_project_tree_as_project_files_do() -> None:
    projects = (
        "projects: {all: {}, physics: {parent: all, weight: 2, quotas: {cpu: {cpu: {nominal: 1, borrowing: 0}}}}}"
    )
    cluster = read(SITE + projects)
    assert [node.name for node in cluster.tree] == ["all", "physics"]
    assert cluster.tree[1].quotas == {("cpu", "cpu"): Limit(1000, 0)}
    assert (cluster.weight("physics"), cluster.weight("nobody")) == (2.0, 1.0)
    assert any(isinstance(change, TreeChanged) for change in cluster.changes())


def test_a_list_of_nodes_of_openb_is_a_cluster_of_one_site() -> None:
    cluster = read((EXAMPLES / "openb_nodes.csv").read_text())
    assert cluster.flavors == ("cpu", "V100M16", "T4")
    assert len(cluster.nodes) == 7
    broken = read((EXAMPLES / "openb_nodes.csv").read_text() + "x,y\n")
    assert broken.notes == (
        "Broken rows of cluster.yaml, which are left out: 1.",
        "cluster.yaml line 9: there are 2 fields instead of 5",
    )


SITE = "sites: [{name: a, flavors: [{name: cpu, cpu: 1, memory: 1G}]}]\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("- a\n", "must be keys and values"),
        ("a: [\n", "is no YAML"),
        ("sites: []\n", "sites: "),
        (SITE + "sties: []\n", "Did you mean 'sites'?"),
        ("sites: [{name: a, flavors: [{name: cpu, cpu: many, memory: 1G}]}]", "is no amount"),
        ("sites: [{name: a, flavors: [{name: cpu, memory: 1G}]}]", "This field is required"),
        ("sites: [{name: a, flavors: [{name: cpu, cpu: 1, memory: 1G, gpu: 0.5}]}]", "Write whole GPUs"),
        ("sites: [{name: a, flavors: [{name: cpu, cpu: 1, memory: 1G, nodes: 0}]}]", "nodes"),
        (SITE.replace("]}]", "]}, {name: a, flavors: [{name: cpu, cpu: 1, memory: 1}]}]"), "two sites a"),
        (SITE.replace("1G}", "1G}, {name: cpu, cpu: 1, memory: 1}"), "a has two flavors cpu"),
        (SITE + "projects: {physics: {parent: science}}", "There is no project 'science'"),
        (SITE + "projects: {physics: {wieght: 2}}", "wieght"),
        (SITE + "projects: {a: {}, b: {}}", "root"),
        (SITE + "defaults: {bach: {grace: 1m}}", "defaults.bach"),
        ("sn,cpu_milli,memory_mib,gpu,model\n", "has no node"),
    ],
)
def test_a_wrong_cluster_file_is_refused_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(text)
    assert sentence in caught.value.sentence


def test_shares_of_a_gpu_go_where_one_is_in_use_and_never_over_two_of_them() -> None:
    there = machines(2, 2)
    half, most = Resources(0, 0, 500), Resources(0, 0, 700)
    first = there.put(GPU, most, 1, fullest_node)
    second = there.put(GPU, half, 1, fullest_node)
    third = there.put(GPU, half, 1, fullest_node)
    assert first is not None
    assert second is not None
    assert third is not None
    assert {first[0].node, second[0].node, third[0].node} == {first[0].node}
    assert second[0].devices[0][0] == third[0].devices[0][0] != first[0].devices[0][0]
    assert there.put(GPU, Resources(0, 0, 2000), 1, fullest_node) is not None
    assert there.put(GPU, Resources(0, 0, 500), 1, fullest_node) is None


def test_what_leaves_gives_back_all_that_it_held() -> None:
    there = machines(4, 4)
    request = Resources(2000, 100, 3000)
    spots = there.put(GPU, request, 2, first_node)
    assert spots is not None
    assert [spot.node for spot in spots] == [0, 1]
    assert there.put(GPU, request, 1, first_node) is None
    there.leave(spots, request)
    assert (there.free == 4).all()
    assert (there.cpu == 8000).all()
    assert (there.memory == GIB).all()


def test_the_fullest_node_leaves_whole_nodes_to_others_and_the_first_node_does_not() -> None:
    one = Resources(1000, 0, 1000)
    for choice, node in ((fullest_node, 1), (first_node, 0)):
        spots = machines(4, 2).put(GPU, one, 1, choice)
        assert spots is not None
        assert spots[0].node == node
