"""What a cycle decides, one behaviour at a time."""

from dataclasses import replace

from atoll.core.ranges import Ranges
from atoll.core.reasons import ReasonCode
from atoll.core.resources import Resources
from atoll.core.site import Ability, Health
from atoll.core.site_file import Identity
from atoll.core.spec import JobClass
from atoll.scheduler.consistency import contents, validate
from atoll.scheduler.cycle import cycle
from atoll.scheduler.explain import explain
from atoll.scheduler.model import (
    JobGone,
    JobWaits,
    Place,
    Placement,
    Reservation,
    Reserved,
    RoomFreed,
    RoomTaken,
    Running,
    SiteChanged,
    SiteGone,
)  # fmt: skip
from tests.scheduler.builders import (
    GIB,
    carried_out,
    flavor,
    job,
    sentences,
    silent,
    site,
    snapshot_of,
    started,
    tasks,
)

NOON = 1_767_268_800_000_000  # 2026-01-01 12:00:00 UTC


def test_a_higher_class_goes_first_then_priority_then_age_then_the_smaller_id() -> None:
    snapshot = snapshot_of(
        site("local", flavor(cpu=10, memory=64)),
        job(1, rank=3),
        job(2, submitted=5),
        job(3, submitted=4),
        job(4, submitted=4),
        job(5, priority=1, submitted=9),
        job(6, rank=0, submitted=99),
    )
    assert [job_id for job_id, _ in started(cycle(snapshot, 0))] == [6, 5, 3, 4, 2, 1]


def test_a_job_that_does_not_fit_holds_nobody_up() -> None:
    snapshot = snapshot_of(site("local", flavor(cpu=2)), job(1, cpu=1), job(2, cpu=2), job(3, cpu=1))
    decisions = cycle(snapshot, 0)
    assert started(decisions) == [(1, "local"), (3, "local")]
    assert [job_id for job_id, _ in decisions.reasons] == [2]


def test_a_job_starts_once_the_room_it_lacked_is_freed() -> None:
    holder = Running("a", 9, "local", "cpu", Resources(2000, GIB))
    snapshot = snapshot_of(site(), job(1, cpu=2), holder)
    assert started(cycle(snapshot, 0)) == []
    snapshot.apply([RoomFreed("a")])
    assert started(cycle(snapshot, 0)) == [(1, "local")]


def test_memory_and_gpus_are_counted_like_cpus() -> None:
    snapshot = snapshot_of(
        site("local", flavor(cpu=8, memory=4, gpu=1)),
        job(1, memory=3, gpu=0.5),
        job(2, memory=2),
        job(3, memory=1, gpu=1),
        job(4, memory=1, gpu=0.5),
    )
    assert [job_id for job_id, _ in started(cycle(snapshot, 0))] == [1, 4]


def test_a_full_site_leaves_the_next_site() -> None:
    snapshot = snapshot_of(site("a", flavor(cpu=1)), site("b", flavor(cpu=1)), *map(job, (1, 2, 3)))
    assert started(cycle(snapshot, 0)) == [(1, "a"), (2, "b")]


def test_the_flavor_named_first_is_preferred_and_the_next_is_used_when_it_is_full() -> None:
    flavors = flavor("a100", cpu=1, gpu=1), flavor("h100", cpu=1, gpu=1), flavor("l4", cpu=1, gpu=1)
    jobs = [job(number, gpu=1, flavors=("h100", "a100")) for number in (1, 2, 3)]
    snapshot = snapshot_of(site("local", *flavors), *jobs)
    assert [(place.job_id, place.flavor) for place in cycle(snapshot, 0).placements] == [
        (1, "h100"),
        (2, "a100"),
    ]


def test_a_job_without_gpus_takes_a_gpu_node_only_when_nothing_else_has_room() -> None:
    snapshot = snapshot_of(site("local", flavor("gpu", cpu=2, gpu=1), flavor("cpu", cpu=1)), job(1), job(2), job(3))
    assert [place.flavor for place in cycle(snapshot, 0).placements] == ["cpu", "gpu", "gpu"]


def test_offload_decides_between_local_and_remote_sites() -> None:
    here, there = site("zzz"), site("aaa", labels={"remote": "true"})
    jobs = [
        job(number, cpu=0.1, placement=Placement(offload=offload))
        for number, offload in enumerate(("allowed", "never", "only"), start=1)
    ]
    assert started(cycle(snapshot_of(here, there, *jobs), 0)) == [(1, "zzz"), (2, "zzz"), (3, "aaa")]


def test_sites_that_do_not_answer_or_are_new_or_drained_get_nothing_and_the_reason_names_them() -> None:
    snapshot = snapshot_of(
        site("gone", health=Health.UNREACHABLE),
        site("unasked", health=Health.UNKNOWN),
        silent("new"),
        site("full", drained=True),
        job(1),
    )
    decisions = cycle(snapshot, 0)
    assert decisions.placements == ()
    assert dict(decisions.reasons)[1].code is ReasonCode.SITE_UNREACHABLE
    assert sentences(decisions)[1] == (
        "Waits for site gone, which does not answer; site new, which has not answered yet; "
        "site unasked, which has not answered yet."
    )
    snapshot.apply([SiteGone("gone"), SiteGone("unasked"), SiteGone("new")])
    assert sentences(cycle(snapshot, 0))[1] == "Waits for site full, drained by its operator."
    snapshot.apply([SiteChanged(site("full"))])
    assert started(cycle(snapshot, 0)) == [(1, "full")]


def test_a_site_gets_no_more_attempts_than_its_engine_allows() -> None:
    limited = site("a", flavor(cpu=9, memory=9), max_jobs=3), site("b", flavor(cpu=9, memory=9), max_jobs=1)
    snapshot = snapshot_of(*limited, job(1, tasks=tasks(10)), job(2))
    decisions = cycle(snapshot, 0)
    assert {place.site: len(place.tasks or ()) for place in decisions.placements} == {"a": 3, "b": 1}
    assert "as many attempts as it is given" in sentences(decisions)[2]
    snapshot.apply(carried_out(snapshot, decisions))
    assert cycle(snapshot, 0).placements == ()


def test_begin_time_and_back_off_hold_a_job_until_the_wake_up_that_is_returned() -> None:
    snapshot = snapshot_of(site(), job(1, not_before=NOON), job(2, not_before=NOON + 5_000_000, backing_off=True))
    decisions = cycle(snapshot, NOON - 1)
    assert decisions.placements == ()
    assert decisions.next_wakeup == NOON
    assert [reason.code for _, reason in decisions.reasons] == [ReasonCode.BEGIN_TIME, ReasonCode.BACKOFF]
    assert sentences(decisions) == {
        1: "Waits for its begin time, 2026-01-01 12:00:00 UTC.",
        2: "Waits until 2026-01-01 12:00:05 UTC before it is tried again.",
    }
    decisions = cycle(snapshot, NOON)
    assert started(decisions) == [(1, "local")]
    assert decisions.next_wakeup == NOON + 5_000_000
    assert cycle(snapshot, NOON + 5_000_000).next_wakeup is None


def test_an_array_starts_as_many_tasks_as_fit_over_several_sites_as_one_placement_each() -> None:
    snapshot = snapshot_of(
        site("a", flavor(cpu=2, memory=64)), site("b", flavor(cpu=3, memory=64)), job(7, tasks=tasks(10))
    )
    decisions = cycle(snapshot, 0)
    assert decisions.placements == (
        Place(7, Ranges((range(2),)), "a", "cpu"),
        Place(7, Ranges((range(2, 5),)), "b", "cpu"),
    )
    assert dict(decisions.reasons)[7].code is ReasonCode.RESOURCES


def test_an_array_keeps_to_its_width() -> None:
    array = job(7, cpu=0.1, memory=0.1, tasks=tasks(10), width=4)
    snapshot = snapshot_of(site(), array, Running("before", 7, "local", "cpu", Resources(100)))
    decisions = cycle(snapshot, 0)
    assert decisions.placements == (Place(7, Ranges((range(3),)), "local", "cpu"),)
    assert sentences(decisions)[7] == "Waits because the array has as many active tasks as it allows at once, 4."
    snapshot.apply(carried_out(snapshot, decisions))
    assert cycle(snapshot, 0).placements == ()
    snapshot.apply([RoomFreed("before")])
    assert [len(place.tasks or ()) for place in cycle(snapshot, 0).placements] == [1]


def test_tasks_that_run_again_count_to_the_width_of_their_array() -> None:
    again = [job(100 + task, cpu=0.1, memory=0.1, group=7, width=3) for task in range(5)]
    array = job(7, cpu=0.1, memory=0.1, tasks=tasks(2), width=3)
    snapshot = snapshot_of(site(), array, *again, job(8, cpu=0.1, memory=0.1))
    decisions = cycle(snapshot, 0)
    assert [(place.job_id, len(place.tasks or (0,))) for place in decisions.placements] == [(7, 2), (8, 1), (100, 1)]
    assert {job_id for job_id, reason in decisions.reasons if reason.code is ReasonCode.ARRAY_LIMIT} == set(
        range(101, 105)
    )
    snapshot.apply(carried_out(snapshot, decisions))
    assert cycle(snapshot, 0).placements == ()
    _, held, _ = contents(snapshot)
    snapshot.apply([RoomFreed(next(attempt for attempt, running in held.items() if running.job_id == 7))])
    assert [place.job_id for place in cycle(snapshot, 0).placements] == [101]


def test_an_array_of_a_million_tasks_costs_what_it_starts() -> None:
    array = job(7, memory=0, tasks=tasks(1_000_000))
    snapshot = snapshot_of(site("local", flavor(cpu=20, nodes=100)), array)
    (place,) = cycle(snapshot, 0).placements
    assert place.tasks == Ranges((range(2000),))


def test_several_nodes_need_the_room_of_all_of_them_and_a_site_that_can() -> None:
    multinode = frozenset({Ability.MULTINODE})
    both = (
        site("single", flavor(cpu=4, nodes=4)),
        site("multi", flavor(cpu=4, nodes=3), abilities=multinode),
    )
    snapshot = snapshot_of(*both, job(1, cpu=4, nodes=2), job(2, cpu=4, nodes=2), job(3, cpu=1, nodes=4))
    decisions = cycle(snapshot, 0)
    assert started(decisions) == [(1, "multi")]
    assert sentences(decisions) == {
        2: "Waits for 8 CPU and 2 GiB of memory on 2 nodes; site multi has less than that free.",
        3: "No site can run it: multi has 3 nodes of flavor cpu (nodes); single has no ability multinode (nodes).",
    }


def test_a_job_that_no_site_can_run_is_told_what_each_site_lacks() -> None:
    snapshot = snapshot_of(site("local"), job(1, cpu=3), job(2, memory=5))
    assert sentences(cycle(snapshot, 0)) == {
        1: "No site can run it: the largest node of local has 2 CPU (cpu).",
        2: "No site can run it: the largest node of local has 4 GiB of memory (memory).",
    }


def test_without_any_site_the_reason_says_so() -> None:
    assert sentences(cycle(snapshot_of(job(1)), 0)) == {1: "No site can run it: there is no site yet."}


def test_a_reason_is_told_once_and_again_only_when_it_changed() -> None:
    holder = Running("a", 9, "local", "cpu", Resources(1500, GIB))
    snapshot = snapshot_of(site(), job(1), holder)
    assert [reason.code for _, reason in cycle(snapshot, 0).reasons] == [ReasonCode.RESOURCES]
    assert cycle(snapshot, 0).reasons == ()
    snapshot.apply([SiteChanged(site(health=Health.UNREACHABLE))])
    assert [reason.code for _, reason in cycle(snapshot, 0).reasons] == [ReasonCode.SITE_UNREACHABLE]


def test_a_job_that_comes_back_to_the_queue_is_told_its_reason_again() -> None:
    snapshot = snapshot_of(job(1))
    assert cycle(snapshot, 0).reasons
    snapshot.apply([JobGone(1), JobWaits(job(1))])
    assert cycle(snapshot, 0).reasons


def test_what_could_not_be_written_is_told_again_on_request() -> None:
    snapshot = snapshot_of(job(1))
    first = cycle(snapshot, 0).reasons
    snapshot.retell()
    assert cycle(snapshot, 0).reasons == first


def test_figures_that_change_with_every_job_are_no_news() -> None:
    snapshot = snapshot_of(
        site("local", flavor(cpu=4)),
        job(1, cpu=4),
        *(Running(f"a{n}", 9, "local", "cpu", Resources(1000)) for n in range(4)),
    )
    assert sentences(cycle(snapshot, 0)) == {
        1: "Waits for 4 CPU and 1 GiB of memory; site local has less than that free."
    }
    snapshot.apply([RoomFreed("a0")])
    assert cycle(snapshot, 0).reasons == ()
    told = explain(snapshot, 1, 0)
    assert told is not None
    assert told.reason.sentence == "Waits for 4 CPU; site local has 1 CPU free of 4."


def test_only_the_head_of_a_long_queue_is_told_its_reasons() -> None:
    snapshot = snapshot_of(site("local", flavor(cpu=1)), *(job(n) for n in range(1, 51)))
    decisions = cycle(snapshot, 0, head=10)
    assert started(decisions) == [(1, "local")]
    assert [job_id for job_id, _ in decisions.reasons] == list(range(2, 12))


def test_many_different_jobs_for_little_room_all_get_their_turn_in_order() -> None:
    """More jobs than one block of the search, each with a demand of its own."""
    jobs = [job(n, cpu=1, memory=1 + n / 10_000) for n in range(1, 4000)]
    snapshot = snapshot_of(site("local", flavor(cpu=5, memory=64)), *jobs)
    assert [job_id for job_id, _ in started(cycle(snapshot, 0))] == [1, 2, 3, 4, 5]


def test_a_small_job_behind_thousands_of_large_ones_is_found() -> None:
    jobs = [job(n, cpu=2) for n in range(1, 5000)]
    snapshot = snapshot_of(site("local", flavor(cpu=3, memory=64)), *jobs, job(9000, cpu=1))
    assert started(cycle(snapshot, 0)) == [(1, "local"), (9000, "local")]


def test_a_preferred_site_that_is_drained_or_silent_leaves_the_next_one() -> None:
    others = site("a", drained=True), site("b", health=Health.UNREACHABLE)
    snapshot = snapshot_of(*others, site("c"), job(1, tasks=tasks(2)))
    assert cycle(snapshot, 0).placements == (Place(1, tasks(2), "c", "cpu"),)


def test_an_engine_with_a_queue_gets_what_fits_and_a_few_more_of_each_class() -> None:
    queueing = site("a", flavor(cpu=2), queues=True, backlog={JobClass.BATCH: 3, JobClass.INTERACTIVE: 1})
    interactive = [job(number, rank=0, tasks=tasks(9)) for number in (1, 2)]
    snapshot = snapshot_of(queueing, *interactive, job(3, tasks=tasks(20)), job(4, rank=3))
    decisions = cycle(snapshot, 0)
    assert decisions.placements == (
        Place(1, Ranges((range(3),)), "a", "cpu"),
        Place(3, Ranges((range(3),)), "a", "cpu"),
    )
    snapshot.apply(carried_out(snapshot, decisions))
    validate(snapshot)
    assert cycle(snapshot, 0).placements == ()


def test_room_elsewhere_is_taken_before_a_place_in_an_engines_queue() -> None:
    snapshot = snapshot_of(site("a", flavor(cpu=1), queues=True), site("b", flavor(cpu=1)), job(1, tasks=tasks(3)))
    placements = cycle(snapshot, 0).placements
    assert placements == (
        Place(1, Ranges((range(1), range(2, 3))), "a", "cpu"),
        Place(1, Ranges((range(1, 2),)), "b", "cpu"),
    )


def test_an_attempt_that_begins_leaves_its_place_in_the_engines_queue_to_the_next() -> None:
    queueing = site("a", flavor(cpu=1), queues=True, backlog={JobClass.BATCH: 1})
    waits = Running("x", 9, "a", "cpu", Resources(1000, GIB), waits=True)
    snapshot = snapshot_of(queueing, waits, job(1))
    assert cycle(snapshot, 0).placements == ()
    snapshot.apply([RoomTaken(replace(waits, waits=False))])
    assert started(cycle(snapshot, 0)) == [(1, "a")]


def test_what_others_hold_at_a_site_is_not_free_for_us() -> None:
    used = replace(flavor(cpu=4), others=Resources(3000, GIB))
    snapshot = snapshot_of(site("a", used), job(1), job(2))
    assert started(cycle(snapshot, 0)) == [(1, "a")]


def test_a_person_without_an_account_at_a_site_gets_no_room_there() -> None:
    mapped = site("a", identity=Identity(map={"ada": "alovelace"}))
    snapshot = snapshot_of(
        mapped, job(1, placement=Placement("ada")), job(2, placement=Placement("eve")),
    )  # fmt: skip
    decisions = cycle(snapshot, 0)
    assert started(decisions) == [(1, "a")]
    assert sentences(decisions)[2] == "No site can run it: a has no account for eve."


def test_what_others_give_back_is_free_for_us_at_once() -> None:
    used = replace(flavor(cpu=4), others=Resources(4000, GIB))
    snapshot = snapshot_of(site("a", used), job(1), job(2))
    assert started(cycle(snapshot, 0)) == []
    snapshot.apply([SiteChanged(site("a", flavor(cpu=4)))])
    assert started(cycle(snapshot, 0)) == [(1, "a"), (2, "a")]
    snapshot.apply([SiteChanged(site("a", used))])
    snapshot.apply([JobWaits(job(3))])
    assert started(cycle(snapshot, 0)) == []


def test_room_that_is_kept_for_a_job_is_not_kept_from_it_by_others_of_its_kind() -> None:
    hour = 3600 * 1_000_000
    changes = snapshot_of(site(), job(1, cpu=2), job(2, cpu=2, priority=5))
    changes.apply([Reserved((Reservation(1, "local", "cpu", 24 * hour),))])
    assert started(cycle(changes, hour)) == [(1, "local")]
