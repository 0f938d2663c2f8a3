"""What can never be: which site refuses which job, and what a submission is told."""

from dataclasses import replace

import pytest

from atoll.core.reasons import ReasonCode
from atoll.core.site import Ability
from atoll.core.spec import ConstraintTerm, JobClass, read_spec
from atoll.scheduler.fit import eligible, impossible, largest
from atoll.scheduler.model import Demand, Placement, SiteState
from tests.scheduler.builders import GIB, flavor, job, silent, site


def refusal(demand: Demand, *states: SiteState) -> tuple[str, str] | None:
    return impossible(demand, [state.site for state in states])


def demand(document: dict[str, object], person: str = "ada") -> Demand:
    return Demand.of(read_spec({"command": ["true"]} | document), person, memory=GIB)


def test_a_specification_becomes_the_abilities_that_it_needs() -> None:
    made = demand(
        {
            "cpu": 2,
            "environment": {"image": "python:3.12"},
            "nodes": 2,
            "scratch": "1G",
            "ports": [{"port": 80}],
            "volumes": [{"name": "v", "path": "/v"}],
            "secrets": [{"name": "s", "env": "S"}],
            "signal": {},
            "files_out": ["out"],
            "constraints": ["region=eu"],
            "walltime": "1h",
            "flavor": "cpu",
        }
    )
    assert made.placement == Placement(
        "ada",
        (ConstraintTerm.parse("region=eu"),),
        "allowed",
        frozenset(Ability) - {Ability.CONDA, Ability.VENV, Ability.OTHER_PERSONS},
        3600,
        volumes=frozenset({"v"}),
        class_=JobClass.BATCH,
    )
    assert (made.request.cpu, made.request.memory, made.nodes, made.flavors) == (2000, GIB, 2, ("cpu",))


@pytest.mark.parametrize(
    ("volumes", "words"),
    [
        (None, None),
        (frozenset({"data", "results"}), None),
        (frozenset({"datas", "results"}), "local has no volume 'data', but 'datas' (volumes)."),
        (frozenset({"results"}), "local has no volume 'data' (volumes)."),
    ],
)
def test_a_volume_is_where_the_site_says_that_it_has_one_of_that_name(
    volumes: frozenset[str] | None, words: str | None
) -> None:
    mounting = demand({"volumes": [{"name": "data", "path": "/data"}]})
    refused = refusal(mounting, site(abilities=frozenset({Ability.VOLUMES}), volumes=volumes))
    assert refused == (None if words is None else ("volumes", f"No site can run it: {words}"))


def test_a_project_needs_every_word_of_its_clearance() -> None:
    needy = Demand.of(read_spec({"command": ["true"]}), "ada", GIB, frozenset({"patients", "internal"}))
    half, whole = (
        replace(site(), site=replace(site().site, clearance=words))
        for words in (frozenset({"internal"}), frozenset({"patients", "internal", "more"}))
    )
    assert refusal(needy, half) == (
        "project",
        "No site can run it: local is not cleared for patients, which the job's project needs (project).",
    )
    assert refusal(needy, half, whole) is None


@pytest.mark.parametrize(
    ("document", "field", "sentence"),
    [
        (
            {"environment": {"image": "x"}},
            "environment.image",
            "No site can run it: local has no ability image (environment.image).",
        ),
        (
            {"constraints": ["region=eu,us"]},
            "constraints",
            "No site can run it: local is not region=eu,us (constraints).",
        ),
        ({"constraints": ["fast"]}, "constraints", "No site can run it: local is not labelled fast (constraints)."),
        ({"offload": "only"}, "offload", "No site can run it: local is not remote (offload: only)."),
        ({"walltime": "2h"}, "walltime", "No site can run it: local allows at most 1h 0m (walltime)."),
        ({"nodes": 2}, "nodes", "No site can run it: local has no ability multinode (nodes)."),
        ({"cpu": 3}, "cpu", "3 is more than any site has; the largest node has 2 (local)."),
        ({"memory": "500G"}, "memory", "500 GiB is more than any site has; the largest node has 4 GiB (local)."),
        ({"gpu": 1}, "gpu", "1 is more than any site has; the largest node has 0 (local)."),
        (
            {"flavor": "gpu-a10"},
            "flavor",
            "No site has the flavor gpu-a10; there is cpu.",
        ),
    ],
)
def test_what_no_site_can_give_is_refused_by_field_with_the_nearest_possible(
    document: dict[str, object], field: str, sentence: str
) -> None:
    assert refusal(demand(document), site(max_walltime=3600)) == (field, sentence)


def test_a_wrong_flavor_gets_a_suggestion() -> None:
    found = refusal(demand({"flavor": "gpu-a10"}), site("x", flavor("gpu-a100", gpu=1), flavor("cpu")))
    assert found == (
        "flavor",
        "No site has the flavor gpu-a10; there is cpu, gpu-a100. Did you mean 'gpu-a100'?",
    )


def test_the_nearest_is_looked_for_only_where_the_job_may_go() -> None:
    big = site("big", flavor(cpu=64))
    found = refusal(demand({"cpu": 8, "constraints": ["site=small"]}), big, site("small"))
    assert found == ("cpu", "8 is more than any site has; the largest node has 2 (small).")


def test_amounts_that_no_one_site_has_together_are_refused() -> None:
    found = refusal(demand({"cpu": 8, "gpu": 1}), site("a", flavor(cpu=8)), site("b", flavor(cpu=2, gpu=1)))
    assert found == (
        "gpu",
        "No site has all of it together: the largest node of a has 0 GPU (gpu); the largest node of b has 2 CPU (cpu).",
    )


def test_more_nodes_than_any_site_has_are_refused() -> None:
    cluster = site("cluster", flavor(nodes=4), abilities=frozenset({Ability.MULTINODE}))
    assert refusal(demand({"nodes": 5}), cluster) == (
        "nodes",
        "5 nodes are more than any site has; the most are 4 (cluster).",
    )
    assert refusal(demand({"nodes": 4}), cluster) is None


def test_sums_beyond_64_bits_are_refused_and_not_mistaken() -> None:
    cluster = site("cluster", flavor(nodes=4), abilities=frozenset({Ability.MULTINODE}))
    found = refusal(demand({"memory": 2**62, "nodes": 100_000}), cluster)
    assert found is not None
    assert found[0] == "memory"


def test_nothing_is_refused_while_a_site_has_not_reported() -> None:
    assert refusal(demand({"cpu": 99}), site(), silent()) is None
    assert refusal(demand({"cpu": 99})) is None


def test_a_site_that_is_down_or_drained_or_full_is_still_possible() -> None:
    assert refusal(demand({"cpu": 2}), site(drained=True)) is None


def test_a_site_of_one_person_refuses_others_unless_it_can_run_for_them() -> None:
    mine = site(owner="ada")
    assert eligible(job(placement=Placement("ada")), mine.site) is None
    reason = eligible(job(placement=Placement("bob")), mine.site)
    assert reason is not None
    assert (reason.code, reason.sentence) == (ReasonCode.NO_SITE, "Local runs only jobs of ada.")
    ours = site(owner="ada", abilities=frozenset({Ability.OTHER_PERSONS}))
    assert eligible(job(placement=Placement("bob")), ours.site) is None


def test_constraints_are_held_against_name_driver_and_labels() -> None:
    there = site("hpc", labels={"region": "eu"}).site
    terms = {"site=hpc": True, "driver=fake": True, "region!=eu": False, "region=us,eu": True, "gone": False}
    for text, allowed in terms.items():
        placement = Placement(constraints=(ConstraintTerm.parse(text),))
        assert (eligible(job(placement=placement), there) is None) == allowed, text


def test_largest_names_the_site_of_each_maximum() -> None:
    sites = [site("a", flavor(cpu=8, memory=1, nodes=2)).site, site("b", flavor("gpu", cpu=2, gpu=4)).site]
    assert largest(sites) == {
        "cpu": (8000, "a"),
        "memory": (4 * GIB, "b"),
        "gpu": (4000, "b"),
        "nodes": (2, "a"),
    }
    assert largest(sites, ["cpu"])["gpu"] == (0, "a")
