"""What a real API server says to the driver's objects: no pod runs, but all is validated, admitted and stored."""

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from atoll.core.clock import system_clock
from atoll.core.ids import new_attempt_id, new_instance_id
from atoll.core.resources import Resources
from atoll.core.spec import JobSpec
from atoll.core.states import Outcome
from atoll.drivers.base import (
    AttemptStatus,
    DriverError,
    DriverSetup,
    Launch,
    Phase,
    Refused,
    StopReason,
    StopRequest,
    Submitted,
)
from atoll.drivers.kubernetes import KubernetesDriver, cluster
from atoll.drivers.kubernetes.objects import Meta, Pod
from tests.drivers.kubernetes.test_bodies import RICH_CONFIG, RICH_SPEC
from tests.support.engines import skip_without
from tests.support.kubernetes import ENGINE, Admin, ControlPlane, assets_folder

OWNER = "ada"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    assets = assets_folder()
    if assets is None:
        skip_without(ENGINE, "KUBEBUILDER_ASSETS names no folder with kube-apiserver")
    with ControlPlane(assets, tmp_path_factory.mktemp("plane")) as plane:
        yield plane


@pytest.fixture
async def admin(plane: ControlPlane) -> AsyncIterator[Admin]:
    admin = await plane.ready()
    node = {"metadata": {"name": "node-0", "labels": {"pool": "science", "gpu": "a100"}}}
    with suppress(AssertionError):  # another test has made it
        await admin.call("POST", "/api/v1/nodes", node)
        conditions = [{"type": "Ready", "status": "True"}]
        status = {"status": {"allocatable": {"cpu": "64", "memory": "64Gi"}, "conditions": conditions}}
        await admin.call("PATCH", "/api/v1/nodes/node-0/status", status, "application/merge-patch+json")
    taints = {"spec": {"taints": None}}
    await admin.call("PATCH", "/api/v1/nodes/node-0", taints, "application/merge-patch+json")
    yield admin
    await admin.close()


class Platform:
    """A platform with drivers at the control plane."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self.folder = plane, folder
        self.instance = new_instance_id()
        self.drivers: list[KubernetesDriver] = []

    def driver(self, token: str = "admin-token", **config: Any) -> KubernetesDriver:
        path = self.folder / f"kubeconfig-{len(self.drivers)}"
        path.write_text(yaml.safe_dump(self.plane.config(token)))
        values = {"kubeconfig": str(path), "image": "registry.example/base:1", "timeout": 20, **config}
        self.drivers.append(KubernetesDriver(DriverSetup("k8s", self.instance, self.folder, values, OWNER)))
        return self.drivers[-1]

    def launch(self, spec: dict[str, Any] | None = None, **values: Any) -> Launch:
        job = JobSpec.model_validate(spec or {"command": ["true"]})
        usual: dict[str, Any] = {
            "attempt_id": new_attempt_id(self.instance), "job_id": 1, "task": None, "task_count": 1, "number": 1,
            "checkpoint_key": "job-1", "person": OWNER, "project": f"p-{self.instance}", "account": None, "spec": job,
            "request": Resources(1000, 1 << 30, job.gpu), "nodes": job.nodes, "walltime": job.walltime,
        }  # fmt: skip
        return Launch(**(usual | values))


@pytest.fixture
async def platform(plane: ControlPlane, admin: Admin, tmp_path: Path) -> AsyncIterator[Platform]:
    platform = Platform(plane, tmp_path)
    yield platform
    for driver in platform.drivers:
        await driver.close()


async def test_everything_a_job_can_ask_for_is_accepted(platform: Platform, admin: Admin) -> None:
    launch = platform.launch(RICH_SPEC, account="u-ada", secrets={"key": b"s3cret"})
    (answer,) = await platform.driver(**RICH_CONFIG).submit([launch])
    assert isinstance(answer, Submitted), answer
    namespace, name = answer.native_id.split("/")
    job = await admin.call("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}")
    assert job["spec"]["completionMode"] == "Indexed"
    for kind in ("configmaps", "secrets", "services"):
        assert await admin.call("GET", f"/api/v1/namespaces/{namespace}/{kind}/{name}")


async def test_pod_is_admitted_under_the_restricted_standard(platform: Platform, admin: Admin) -> None:
    """The server itself enforces it: the pod of the Job passes, and a careless one does not."""
    (answer,) = await platform.driver().submit([platform.launch()])
    assert isinstance(answer, Submitted), answer
    namespace, name = answer.native_id.split("/")
    job = await admin.call("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}")
    pod = {"metadata": {"generateName": "try-"}, "spec": job["spec"]["template"]["spec"]}
    pods = f"/api/v1/namespaces/{namespace}/pods?dryRun=All"
    assert (await admin.call("POST", pods, pod))["metadata"]["name"].startswith("try-")
    pod["spec"]["securityContext"] = {}
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        await admin.call("POST", pods, pod)


async def test_submitting_again_is_answered_as_before(platform: Platform) -> None:
    launch = platform.launch()
    first = await platform.driver().submit([launch])
    again = await platform.driver().submit([launch, launch])
    assert again == [*first, *first]


async def test_list_over_namespaces_in_pages_is_complete(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PAGE", 3)
    driver = platform.driver()
    launches = [platform.launch(project=f"{platform.instance}-{number % 3}") for number in range(10)]
    answers = await driver.submit(launches)
    assert all(isinstance(answer, Submitted) for answer in answers), answers
    observation = await driver.observe([])
    assert observation.complete
    assert observation.states.keys() == {launch.attempt_id for launch in launches}
    assert {status.phase for status in observation.states.values()} == {Phase.STARTING}


async def test_stop_and_forget_are_taken(platform: Platform, admin: Admin) -> None:
    driver, launch = platform.driver(), platform.launch()
    await driver.submit([launch])
    await driver.stop([StopRequest(launch.held, StopReason.EVICTED, 5)])
    status = (await driver.observe([])).states[launch.attempt_id]
    assert (status.phase, status.outcome) == (Phase.ENDED, Outcome.EVICTED)
    await driver.forget([launch.held])
    assert (await driver.observe([])).states == {}
    namespace, name = status.native_id.split("/")
    with pytest.raises(AssertionError, match="not found"):
        await admin.call("GET", f"/api/v1/namespaces/{namespace}/configmaps/{name}")


async def test_refusal_is_told_in_the_servers_words_and_leaves_nothing(platform: Platform, admin: Admin) -> None:
    volumes = [{"name": "data", "path": "/mnt/twice"}] * 2
    launch = platform.launch({"command": ["true"], "volumes": volumes})
    (answer,) = await platform.driver(volumes={"data": {"claim": "c"}}).submit([launch])
    assert isinstance(answer, Refused)
    assert answer.permanent
    assert "must be unique" in answer.message
    maps = await admin.call("GET", f"/api/v1/configmaps?labelSelector=atoll/attempt={launch.attempt_id}")
    assert maps["items"] == []


async def test_quota_is_a_refusal_for_now(platform: Platform, admin: Admin) -> None:
    driver = platform.driver()
    (answer,) = await driver.submit([platform.launch()])
    assert isinstance(answer, Submitted)
    namespace = answer.native_id.partition("/")[0]
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    await admin.call("POST", f"/api/v1/namespaces/{namespace}/resourcequotas", quota)
    hard = {"status": {"hard": {"count/jobs.batch": "0"}, "used": {"count/jobs.batch": "0"}}}
    path = f"/api/v1/namespaces/{namespace}/resourcequotas/few/status"
    await admin.call("PATCH", path, hard, "application/merge-patch+json")  # as its controller would
    (answer,) = await driver.submit([platform.launch()])
    assert isinstance(answer, Refused)
    assert not answer.permanent
    assert "exceeded quota" in answer.message


async def test_token_that_is_wrong_or_weak_is_told(platform: Platform) -> None:
    with pytest.raises(DriverError, match="does not take our credentials: Unauthorized"):
        await platform.driver("no-such-token").observe([])
    with pytest.raises(DriverError, match='User "weak" cannot list resource "jobs"'):
        await platform.driver("weak-token").observe([])
    with pytest.raises(DriverError, match='User "weak" cannot list resource "nodes"'):
        await platform.driver("weak-token").describe()


async def test_impersonated_user_needs_rights_of_their_own(platform: Platform) -> None:
    driver = platform.driver(impersonate={"user": "oidc:{account}"})
    (answer,) = await driver.submit([platform.launch(person="eve", account="eve")])
    assert isinstance(answer, Refused)
    assert 'User "oidc:eve" cannot create resource' in answer.message


async def test_description_counts_the_servers_nodes(platform: Platform) -> None:
    report = await platform.driver(node_selector={"pool": "science"}).describe()
    (flavor,) = report.flavors
    assert (flavor.name, flavor.nodes, flavor.total.cpu) == ("cpu", 1, 64_000 - 50)


async def test_job_on_nodes_that_atoll_chose_is_accepted(platform: Platform, admin: Admin) -> None:
    """The server itself checks the affinity of the pod: it takes one name in a term."""
    driver = platform.driver(nodes="owned")
    report = await driver.describe()
    assert [(each.name, each.resources, each.open) for each in report.nodes] == [
        ("node-0", Resources(64_000, 64 << 30), True)
    ]
    (answer,) = await driver.submit([platform.launch(on_nodes=("node-0", "node-1"))])
    assert isinstance(answer, Submitted), answer
    namespace, name = answer.native_id.split("/")
    job = await admin.call("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}")
    pod = {"metadata": {"generateName": "try-"}, "spec": job["spec"]["template"]["spec"]}
    made = await admin.call("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)
    assert made["status"]["qosClass"] == "Burstable"


async def recalled(driver: KubernetesDriver, launch: Launch) -> AttemptStatus:
    """The attempt after it was recalled."""
    await driver.stop([StopRequest(launch.held, StopReason.RECALLED, 0)])
    return (await driver.observe([])).states[launch.attempt_id]


async def pod_of(admin: Admin, native_id: str, launch: Launch) -> str:
    """The path of a pod like the one that the Job's controller makes: there are no controllers here."""
    namespace, name = native_id.split("/")
    labels = {"atoll/instance": launch.attempt_id[:5], "atoll/attempt": launch.attempt_id}
    job = await admin.call("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}")
    pod = {"metadata": {"name": f"{name}-x", "labels": labels}, "spec": job["spec"]["template"]["spec"]}
    await admin.call("POST", f"/api/v1/namespaces/{namespace}/pods", pod)
    return f"/api/v1/namespaces/{namespace}/pods/{name}-x"


async def bind(admin: Admin, pod: str) -> None:
    """Give a pod a node, as the scheduler does."""
    name = pod.rpartition("/")[2]
    target = {"kind": "Node", "apiVersion": "v1", "name": "node-0"}
    await admin.call("POST", f"{pod}/binding", {"metadata": {"name": name}, "target": target})


async def annotations(admin: Admin, native_id: str) -> dict[str, str]:
    namespace, name = native_id.split("/")
    job = await admin.call("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}")
    return dict(job["metadata"]["annotations"])


async def test_pod_without_a_node_is_taken_back(platform: Platform, admin: Admin) -> None:
    driver, launch = platform.driver(), platform.launch()
    (answer,) = await driver.submit([launch])
    assert isinstance(answer, Submitted)
    assert (await recalled(driver, launch)).phase is Phase.STARTING  # its pod is about to come
    pod = await pod_of(admin, answer.native_id, launch)
    status = await recalled(driver, launch)
    assert (status.phase, status.outcome, status.started_at) == (Phase.ENDED, Outcome.RECALLED, None)
    with pytest.raises(AssertionError, match="not found"):
        await admin.call("GET", pod)
    assert (await recalled(platform.driver(), launch)).outcome is Outcome.RECALLED
    await driver.forget([launch.held])
    assert (await driver.observe([])).states == {}


async def test_pod_with_a_node_is_left_alone(platform: Platform, admin: Admin) -> None:
    driver, launch = platform.driver(), platform.launch()
    (answer,) = await driver.submit([launch])
    assert isinstance(answer, Submitted)
    pod = await pod_of(admin, answer.native_id, launch)
    await bind(admin, pod)
    assert (await recalled(driver, launch)).phase is Phase.STARTING
    assert "deletionTimestamp" not in (await admin.call("GET", pod))["metadata"]
    assert "atoll/recall" not in await annotations(admin, answer.native_id)


async def test_pod_that_gets_its_node_at_that_moment_is_left_alone(
    platform: Platform, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, launch = platform.driver(), platform.launch()
    (answer,) = await driver.submit([launch])
    assert isinstance(answer, Submitted)
    pod = await pod_of(admin, answer.native_id, launch)
    real = driver._cluster.remove_unchanged

    async def later(meta: Meta) -> bool:
        await bind(admin, pod)
        return await real(meta)

    monkeypatch.setattr(driver._cluster, "remove_unchanged", later)
    assert (await recalled(driver, launch)).phase is Phase.STARTING
    assert "deletionTimestamp" not in (await admin.call("GET", pod))["metadata"]
    assert "atoll/recall" not in await annotations(admin, answer.native_id)


async def test_recall_that_broke_off_is_known_as_one(
    platform: Platform, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The platform dies after the pod is gone; the Job's controller then gives the Job up."""
    driver, launch = platform.driver(), platform.launch()
    (answer,) = await driver.submit([launch])
    assert isinstance(answer, Submitted)
    await pod_of(admin, answer.native_id, launch)
    real = driver._cluster.remove_unchanged

    async def dies(meta: Meta) -> bool:
        await real(meta)
        raise DriverError("killed")

    monkeypatch.setattr(driver._cluster, "remove_unchanged", dies)
    with pytest.raises(DriverError, match="killed"):
        await recalled(driver, launch)
    namespace, name = answer.native_id.split("/")
    now = system_clock().strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = [
        {"type": kind, "status": "True", "reason": "BackoffLimitExceeded", "lastTransitionTime": now}
        for kind in ("FailureTarget", "Failed")
    ]
    status = {"status": {"conditions": conditions, "startTime": now, "failed": 1}}
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}/status"
    await admin.call("PATCH", path, status, "application/merge-patch+json")
    told = (await platform.driver().observe([])).states[launch.attempt_id]
    assert (told.phase, told.outcome) == (Phase.ENDED, Outcome.RECALLED)


@pytest.mark.parametrize("admitted", [False, True])
async def test_job_that_is_held_back_is_taken_back_unless_it_is_let_go_at_that_moment(
    platform: Platform, admin: Admin, monkeypatch: pytest.MonkeyPatch, admitted: bool
) -> None:
    driver, launch = platform.driver(queue={"name": "q"}), platform.launch()
    (answer,) = await driver.submit([launch])
    assert isinstance(answer, Submitted)
    namespace, name = answer.native_id.split("/")
    real = driver._cluster.pods_of

    async def admit(namespace: str, attempt_id: str) -> list[Pod]:
        path = f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}"
        await admin.call("PATCH", path, {"spec": {"suspend": False}}, "application/merge-patch+json")
        return await real(namespace, attempt_id)

    if admitted:
        monkeypatch.setattr(driver._cluster, "pods_of", admit)
    status = await recalled(driver, launch)
    assert status.outcome is (None if admitted else Outcome.RECALLED)
    job = await admin.call("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}")
    assert job["spec"]["parallelism"] == (1 if admitted else 0)
