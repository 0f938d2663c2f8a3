"""The full answer to why a job waits."""

from atoll.core.reasons import Reason, ReasonCode
from atoll.core.resources import Resources
from atoll.core.site import Ability, Health
from atoll.scheduler.explain import Explanation, explain
from atoll.scheduler.model import Placement, Running
from tests.scheduler.builders import GIB, flavor, job, silent, site, snapshot_of, tasks


def test_a_job_that_does_not_wait_has_no_explanation() -> None:
    assert explain(snapshot_of(), 1, 0) is None


def test_the_answer_has_current_figures_the_position_and_a_fact_for_each_site() -> None:
    snapshot = snapshot_of(
        site("local", flavor(cpu=2)),
        site("gone", flavor(cpu=8), health=Health.UNREACHABLE, message="connection refused."),
        site("off", drained=True, abilities=frozenset()),
        site("hpc", flavor("a", cpu=2, gpu=1), flavor("b", cpu=4)),
        silent("new"),
        Running("x", 9, "local", "cpu", Resources(1000, GIB)),
        Running("y", 9, "hpc", "a", Resources(2000, GIB, 1000)),
        Running("z", 9, "hpc", "b", Resources(4000, GIB)),
        job(1),
        job(2, cpu=2),
    )
    assert explain(snapshot, 2, 0) == Explanation(
        Reason.of(ReasonCode.RESOURCES, "Waits for 2 CPU; site hpc, flavor b, has 0 CPU free of 4."),
        position=2,
        waiting=2,
        facts=(
            "Site gone does not answer: connection refused.",
            "Site hpc could run it: b has 0 CPU free of 4, 3 GiB of memory free of 4 GiB; "
            "a has 0 CPU free of 2, 3 GiB of memory free of 4 GiB, 0 GPU free of 1.",
            "Site local could run it: cpu has 1 CPU free of 2, 3 GiB of memory free of 4 GiB.",
            "Site new has not reported yet.",
            "Site off is drained: nothing new starts there.",
        ),
    )


def test_the_tasks_of_an_array_are_counted() -> None:
    running = [Running(f"task-{number}", 1, "local", "cpu", Resources(100)) for number in range(5)]
    snapshot = snapshot_of(site(), job(1, tasks=tasks(100), width=5), *running)
    told = explain(snapshot, 1, 0)
    assert told is not None
    assert told.reason.code is ReasonCode.ARRAY_LIMIT
    assert told.facts[0] == "Of its tasks 100 wait and 5 hold room."


def test_what_has_room_waits_only_for_the_scheduler() -> None:
    told = explain(snapshot_of(site(), job(1)), 1, 0)
    assert told is not None
    assert told.reason == Reason.of(ReasonCode.NONE)


def test_a_site_that_never_can_says_why() -> None:
    told = explain(snapshot_of(site(), job(1, placement=Placement(abilities=frozenset({Ability.IMAGE})))), 1, 0)
    assert told is not None
    assert told.reason.code is ReasonCode.NO_SITE
    assert told.facts == ("Local has no ability image (environment.image).",)


def test_more_sites_than_one_can_read_are_only_counted() -> None:
    snapshot = snapshot_of(*(site(f"s{n}") for n in range(6)), job(1, cpu=5))
    told = explain(snapshot, 1, 0)
    assert told is not None
    assert told.reason.sentence.endswith("the largest node of s2 has 2 CPU (cpu); and 3 more.")
