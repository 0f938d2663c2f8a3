"""The driver at the emulated cluster: what it asks, and what it makes of the answers."""

import asyncio
import json
import time
from contextlib import aclosing
from typing import Any

import pytest

from atoll.core.states import Outcome
from atoll.drivers.base import DriverError, Held, Phase, Refused, StopReason, StopRequest, Submitted, Unknown
from atoll.drivers.kubernetes.cluster import PAGE
from atoll.drivers.kubernetes.objects import JobList, PodList
from tests.drivers.kubernetes.conftest import Site
from tests.support.kubernetes_emulator import JOBS, MAPS, NODES, PODS

LONG = {"command": ["x"], "env": {"FAKE_RUNTIME": "1000"}}


def there(site: Site, resource: Any) -> set[str]:
    """Names of the objects of a kind that are there."""
    return {name for (kind, _, name), each in site.emulator.objects.items() if kind == resource and not each.deleted}


async def test_submitting_again_is_answered_as_before_and_makes_nothing(site: Site) -> None:
    driver, launch = site.driver(), site.launch(LONG)
    (first,) = await driver.submit([launch])
    made = len(site.made("Job"))
    again = await site.driver().submit([launch, launch])
    assert again == [first, first]
    jobs = [job for job in site.emulator.objects if job[0] == JOBS]
    assert (made, len(jobs)) == (1, 1)


async def test_one_question_is_one_list_of_jobs_and_one_of_pods(site: Site) -> None:
    driver = site.driver()
    await driver.submit([site.launch(LONG, project=f"p{number % 7}") for number in range(50)])
    site.emulator.lists.clear()
    observation = await driver.observe([])
    assert len(observation.states) == 50
    assert dict(site.emulator.lists) == {"jobs": 1, "pods": 1}


async def test_list_in_pages_is_complete_or_an_error(site: Site) -> None:
    driver = site.driver()
    await driver.submit([site.launch(LONG) for _ in range(25)])
    site.emulator.page = 10
    observation = await driver.observe([])
    assert observation.complete
    assert len(observation.states) == 25
    site.emulator.expired = "10"
    with pytest.raises(DriverError, match="continue parameter is too old"):
        await driver.observe([])


async def test_only_this_platforms_jobs_are_told(site: Site) -> None:
    other = Site(site.folder, site.emulator, site.url)
    mine, theirs = site.launch(LONG), other.launch(LONG)
    await site.driver().submit([mine])
    await other.driver().submit([theirs])
    assert set((await site.drivers[0].observe([])).states) == {mine.attempt_id}
    await other.drivers[0].close()


async def test_stop_before_the_begin_leaves_the_jobs_record(site: Site) -> None:
    """No pod comes any more, and the Job goes on to say why until it is forgotten."""
    driver, launch = site.driver(queue={"name": "q"}), site.launch(LONG)
    (answer,) = await driver.submit([launch])
    assert isinstance(answer, Submitted)
    held = Held(launch.attempt_id, answer.native_id)
    assert (await driver.observe([held])).states[launch.attempt_id].phase is Phase.STARTING
    await driver.stop([StopRequest(held, StopReason.EVICTED, 30)])
    status = (await driver.observe([held])).states[launch.attempt_id]
    assert (status.phase, status.outcome) == (Phase.ENDED, Outcome.EVICTED)


async def test_stop_goes_the_clusters_own_way_where_nobody_can_be_told_inside(site: Site) -> None:
    driver, launch = site.driver(), site.launch(LONG)
    await driver.submit([launch])
    await asyncio.sleep(0.05)  # the player starts it
    await driver.stop([StopRequest(launch.held, StopReason.CANCELLED, 5)])
    status = (await driver.observe([])).states[launch.attempt_id]
    assert status.outcome is Outcome.CANCELLED
    assert not there(site, PODS)


async def test_forgetting_removes_the_job_and_what_owns_the_rest(site: Site) -> None:
    driver, launch, runs = site.driver(), site.launch(), site.launch(LONG)
    await driver.submit([launch, runs])
    while (await driver.observe([])).states[launch.attempt_id].phase is not Phase.ENDED:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await driver.forget([launch.held, runs.held])
    assert there(site, JOBS) == {f"atoll-{runs.attempt_id}"}
    assert f"atoll-{launch.attempt_id}" not in there(site, MAPS)
    await driver.forget([launch.held])
    with pytest.raises(KeyError):
        await driver.read_log(launch.held, "stdout", 0, 10)


async def test_watch_hints_at_changes(site: Site) -> None:
    driver = site.driver()
    async with aclosing(driver.changes()) as changes:
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0.1)
        await driver.submit([site.launch()])
        async with asyncio.timeout(5):
            await waiting


async def test_image_that_cannot_be_had_is_given_up_at_the_cluster_too(site: Site) -> None:
    driver, launch = site.driver(image_patience=0), site.launch(LONG)
    await driver.submit([launch])
    await asyncio.sleep(0.05)
    (pod,) = [key for key in site.emulator.objects if key[0] == PODS]
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "nope"'}}
    statuses = [{"name": "main", "state": waiting}]
    site.emulator.set_status(*pod, {"phase": "Pending", "containerStatuses": statuses})
    await asyncio.sleep(1.0)  # the pod is as old as its time stamp tells, in whole seconds
    for _ in range(2):
        status = (await driver.observe([])).states[launch.attempt_id]
        assert status.outcome is Outcome.FAILED
        assert "Back-off pulling image" in status.message
        await asyncio.gather(*driver._tending)
    job = site.emulator.objects[JOBS, "atoll-physics", f"atoll-{launch.attempt_id}"].raw
    assert job["spec"]["parallelism"] == 0


async def test_what_a_broken_submission_left_is_removed_when_it_is_old(site: Site) -> None:
    driver, broken, whole = site.driver(), site.launch(), site.launch(LONG)
    await driver.submit([whole])
    old = "2020-01-01T00:00:00Z"
    base = {"apiVersion": "v1", "kind": "ConfigMap"}
    name = f"atoll-{broken.attempt_id}"
    labels = {"atoll/instance": site.instance, "atoll/attempt": broken.attempt_id}
    site.emulator.objects[MAPS, "atoll-physics", name] = {
        **base, "metadata": {"name": name, "namespace": "atoll-physics", "labels": labels, "creationTimestamp": old}
    }  # fmt: skip
    kept = site.emulator.objects[MAPS, "atoll-physics", f"atoll-{whole.attempt_id}"]
    kept.patch({"metadata": {"creationTimestamp": old}})
    await site.driver().describe()
    assert site.emulator.objects[MAPS, "atoll-physics", name].deleted
    assert not kept.deleted


async def test_namespace_that_was_removed_is_made_again(site: Site) -> None:
    driver = site.driver()
    await driver.submit([site.launch()])
    site.emulator.namespaces.clear()
    (answer,) = await driver.submit([site.launch()])
    assert isinstance(answer, Submitted)


async def test_namespace_that_may_not_be_made_is_a_refusal(site: Site) -> None:
    (answer,) = await site.driver(make_namespaces=False).submit([site.launch()])
    assert isinstance(answer, Refused)
    assert 'namespaces "atoll-physics" not found' in answer.message


async def test_description_tells_flavors_and_what_is_free(site: Site) -> None:
    site.emulator.add_node("gpu-0", labels={"nvidia.com/gpu.product": "H200"}, **{"nvidia.com/gpu": "8"})
    driver = site.driver(volumes={"data": {"claim": "c"}}, accounts={"u": {"user": 5, "group": 5}})
    before = await driver.describe()
    assert [flavor.name for flavor in before.flavors] == ["cpu", "gpu-h200-" + before.flavors[1].name[-6:]]
    assert {"volumes", "multinode", "other_persons", "secrets", "connect"} <= {str(each) for each in before.abilities}
    await driver.submit([site.launch(LONG, account="u")])
    await asyncio.sleep(0.05)
    after = await driver.describe()
    was, now = before.flavors[0].free, after.flavors[0].free
    assert was is not None
    assert now is not None
    assert (was - now).cpu == 1050, "the job, and the container that keeps its files"


async def test_description_lists_the_nodes_where_atoll_chooses(site: Site) -> None:
    site.emulator.add_node("node-1", cpu="8")
    site.emulator.objects[NODES, None, "node-1"].patch({"spec": {"unschedulable": True}})
    driver = site.driver(nodes="owned")
    await driver.submit([site.launch(LONG, on_nodes=("node-0",))])
    await asyncio.sleep(0.05)
    report = await driver.describe()
    assert [(each.name, each.resources.cpu, each.open) for each in report.nodes] == [
        ("node-0", 64_000, True), ("node-1", 8000, False),
    ]  # fmt: skip
    assert (report.queues, report.recalls) == (False, False)
    (flavor,) = report.flavors
    assert (flavor.nodes, flavor.total.cpu) == (1, 64_000)
    assert flavor.free is not None
    assert flavor.free.cpu == 63_000, "our own pod takes what the job asked for, and no more"
    assert not (await site.driver().describe()).nodes


async def test_attempt_whose_node_does_not_take_it_is_given_back(site: Site) -> None:
    site.emulator.full = True
    driver, launch = site.driver(nodes="owned", start_within=1), site.launch(LONG, on_nodes=("node-0",))
    await driver.submit([launch])
    await asyncio.sleep(0.05)
    assert (await driver.observe([])).states[launch.attempt_id].phase is Phase.STARTING
    await asyncio.sleep(2.0)  # the pod is as old as its time stamp tells, in whole seconds
    await driver.observe([])
    await asyncio.gather(*driver._tending)
    status = (await driver.observe([])).states[launch.attempt_id]
    assert status.outcome is Outcome.NODE_FAILED
    assert "did not take it in time" in status.message


def job_and_pod(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A Job and its pod as a real server lists them, managed fields and all."""
    attempt = f"abcde-{number:016d}"
    meta = {"name": f"atoll-{attempt}", "namespace": "atoll-physics", "uid": "0" * 36, "resourceVersion": "12345",
            "labels": {"atoll/attempt": attempt, "atoll/instance": "abcde"}, "annotations": {"atoll/nodes": "1"},
            "creationTimestamp": "2026-05-01T11:00:00Z",
            "managedFields": [{"manager": "atoll", "fieldsV1": {f"f:{n}": {} for n in range(60)}}]}  # fmt: skip
    env = [{"name": f"N{n}", "value": "x" * 20} for n in range(10)]
    spec = {"nodeName": "n", "containers": [{"name": "main", "image": "i", "env": env, "volumeMounts": env}] * 2,
            "volumes": env}  # fmt: skip
    state = {"terminated": {"exitCode": number % 3, "message": f"memory 5 0\nexit {number % 3}\n",
                            "startedAt": "2026-05-01T11:00:00Z", "finishedAt": "2026-05-01T11:30:00Z"}}  # fmt: skip
    status = {"phase": "Running", "containerStatuses": [{"name": "main", "state": state, "imageID": "x" * 80}]}
    job = {"metadata": meta, "spec": {"parallelism": 1, "template": {"spec": spec}}, "status": {"active": 1}}
    return job, {"metadata": meta, "spec": spec, "status": status}


def test_answer_about_ten_thousand_attempts_is_read_in_half_the_time_of_making_all_of_it_objects() -> None:
    import msgspec

    from atoll.core.clock import system_clock
    from atoll.drivers.kubernetes.reasons import Reader

    pairs = [job_and_pod(number) for number in range(PAGE)]
    jobs = json.dumps({"items": [pair[0] for pair in pairs], "metadata": {}}).encode()
    pods = json.dumps({"items": [pair[1] for pair in pairs], "metadata": {}}).encode()
    begun = time.process_time()
    for _ in range(10_000 // PAGE):
        json.loads(jobs), json.loads(pods)
    whole = time.process_time() - begun
    reader, now, ends = Reader(300, 300), system_clock(), 0
    begun = time.process_time()
    for _ in range(10_000 // PAGE):
        read_jobs = msgspec.json.decode(jobs, type=JobList).items or []
        read_pods = {pod.metadata.name: pod for pod in msgspec.json.decode(pods, type=PodList).items or []}
        ends += sum(reader.status(job, [read_pods[job.metadata.name]], now).exit_code is not None for job in read_jobs)
    spent = time.process_time() - begun
    assert ends == 10_000
    assert spent < whole / 2, f"{spent:.2f} s, where all of it takes {whole:.2f} s"


async def test_quota_is_no_refusal_for_good(site: Site) -> None:
    site.emulator.refuse = (403, "Forbidden", 'jobs.batch "x" is forbidden: exceeded quota: jobs, requested: count=1')
    (answer,) = await site.driver().submit([site.launch()])
    assert isinstance(answer, Refused)
    assert not answer.permanent
    assert "exceeded quota" in answer.message


@pytest.mark.parametrize(("status", "reason"), [(500, "InternalError"), (503, "ServiceUnavailable"), (429, "TooMany")])
async def test_fault_of_the_server_leaves_open_what_landed(site: Site, status: int, reason: str) -> None:
    site.emulator.refuse = (status, reason, "etcdserver: request timed out")
    (answer,) = await site.driver().submit([site.launch()])
    assert isinstance(answer, Unknown)
    assert "etcdserver: request timed out" in answer.message
