"""What is sent to the cluster: valid for the oldest and the newest server, and what was asked for."""

import base64
from collections.abc import Iterable
from typing import Any

import kubernetes_validate
import pytest

from atoll.core.resources import Resources
from atoll.drivers.base import Refused, StagedFile, Submitted
from atoll.drivers.kubernetes.nodes import amount_of
from tests.drivers.kubernetes.conftest import Site

OLDEST, NEWEST = "1.29", kubernetes_validate.latest_version()
RICH_CONFIG: dict[str, Any] = {
    "namespace": "lab-{project}",
    "service_account": "runs-{account}",
    "accounts": {"u-ada": {"user": 4001, "group": 400, "groups": [500]}},
    "node_selector": {"pool": "science"},
    "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "atoll", "effect": "NoSchedule"}],
    "priority_classes": {"interactive": "soon"},
    "runtime_class": "gvisor",
    "pull_secrets": ["registry"],
    "queue": {"name": "users"},
    "checkpoints": "checkpoints",
    "volumes": {
        "data": {"claim": "shared-data", "folder": "home/{account}"},
        "ref": {"claim": "ref", "read_only": True},
    },
    "flavors": {"gpu-a100-1g.10gb": {"labels": {"gpu": "a100"}, "resource": "nvidia.com/mig-1g.10gb"}},
    "autoscaling": True,
}
RICH_SPEC: dict[str, Any] = {
    "class": "interactive",
    "script": "#!/bin/sh\necho hello\n",
    "gpu": 2,
    "flavor": "gpu-a100-1g.10gb",
    "nodes": 2,
    "launch": "each",
    "walltime": 600,
    "scratch": "5G",
    "signal": {"name": "USR1", "before": 60},
    "ports": [{"name": "http", "port": 8888}],
    "volumes": [{"name": "data", "path": "/data"}, {"name": "ref", "path": "/ref", "read_only": True}],
    "secrets": [{"name": "key", "env": "KEY", "file": "key.txt"}],
}


def job_of(bodies: Iterable[dict[str, Any]]) -> dict[str, Any]:
    (job,) = [body for body in bodies if body["kind"] == "Job"]
    return job


async def test_every_body_is_valid_for_the_oldest_and_the_newest_server(site: Site) -> None:
    source = site.folder / "in.bin"
    source.write_bytes(bytes(range(256)) * 8000)
    files = (StagedFile("data/in.bin", source),)
    rich = site.launch(RICH_SPEC, account="u-ada", secrets={"key": b"s3cret"}, files=files)
    plain = site.launch({"command": ["true"]})
    driver = site.driver(**RICH_CONFIG)
    (answer,) = await driver.submit([rich])
    assert isinstance(answer, Submitted)
    (answer,) = await site.driver().submit([plain])
    assert isinstance(answer, Submitted)
    bodies = site.emulator.bodies
    assert {body["kind"] for body in bodies} == {"Namespace", "ConfigMap", "Secret", "Service", "Job"}
    assert len([body for body in bodies if body["kind"] == "ConfigMap"]) > 4, "large files take several objects"
    for body in bodies:
        for version in (OLDEST, NEWEST):
            kubernetes_validate.validate(body, version, strict=True)
        assert len(str(body)) < 1 << 20, "the server takes no larger objects"


async def test_unknown_field_would_not_pass(site: Site) -> None:
    """The check above forbids what the schema does not know."""
    await site.driver().submit([site.launch()])
    body = job_of(site.emulator.bodies)
    body["spec"]["template"]["spec"]["containers"][0]["imagePulPolicy"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(body, NEWEST, strict=True)


async def test_job_is_one_attempt_that_is_never_started_again(site: Site) -> None:
    launch = site.launch({"command": ["true"], "grace": 45}, walltime=100)
    (answer,) = await site.driver().submit([launch])
    body = job_of(site.emulator.bodies)
    pod = body["spec"]["template"]["spec"]
    assert isinstance(answer, Submitted)
    assert answer.native_id == f"atoll-physics/atoll-{launch.attempt_id}"
    assert body["metadata"]["name"] == f"atoll-{launch.attempt_id}"
    assert body["metadata"]["labels"]["atoll/attempt"] == launch.attempt_id
    assert body["metadata"]["labels"]["atoll/instance"] == site.instance
    assert (body["spec"]["backoffLimit"], body["spec"]["podReplacementPolicy"]) == (0, "Failed")
    assert "ttlSecondsAfterFinished" not in body["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] == 45
    assert pod["activeDeadlineSeconds"] > 145, "the job's own clock comes first: output is still to be collected"


async def test_several_nodes_are_an_indexed_job_on_different_nodes(site: Site) -> None:
    launch = site.launch({"command": ["true"], "nodes": 3})
    await site.driver(autoscaling=True).submit([launch])
    spec = job_of(site.emulator.bodies)["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (0, 0)
    assert "backoffLimit" not in spec
    (service,) = site.made("Service")
    assert service["spec"]["clusterIP"] == "None"
    assert spec["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    (peers,) = spec["template"]["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert peers["labelSelector"]["matchLabels"] == {"atoll/attempt": launch.attempt_id}


async def test_nodes_that_atoll_chose_are_the_only_ones_that_will_do(site: Site) -> None:
    site.emulator.add_node("node-1")
    names = ("node-1", "node-0")
    launch = site.launch({"command": ["true"], "nodes": 2}, flavor="cpu", on_nodes=names)
    (answer,) = await site.driver(nodes="owned").submit([launch])
    assert isinstance(answer, Submitted), answer
    body = job_of(site.emulator.bodies)
    affinity = body["spec"]["template"]["spec"]["affinity"]
    terms = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    # the server takes one name in a term; terms are alternatives
    assert [term["matchFields"] for term in terms] == [
        [{"key": "metadata.name", "operator": "In", "values": [name]}] for name in names
    ]
    assert "podAntiAffinity" in affinity, "and each has one of them"
    assert body["metadata"]["annotations"]["atoll/on-nodes"] == "node-1 node-0"
    for version in (OLDEST, NEWEST):
        kubernetes_validate.validate(body, version, strict=True)


@pytest.mark.parametrize("request_", [Resources(2000, 1 << 30), Resources(40, 16 << 20), Resources(1, 1)])
async def test_pod_on_a_node_that_atoll_chose_takes_what_the_job_asked_for(site: Site, request_: Resources) -> None:
    """Its limits are the job's all the same; the container beside it lives within."""
    launch = site.launch(request=request_, on_nodes=("node-0",))
    await site.driver(nodes="owned").submit([launch])
    keeper, main = job_of(site.emulator.bodies)["spec"]["template"]["spec"]["containers"]
    asked = [amount_of(each["resources"]["requests"], "nvidia.com/gpu") for each in (keeper, main)]
    assert asked[0] + asked[1] == request_
    assert amount_of(main["resources"]["limits"], "nvidia.com/gpu") == request_


async def test_pod_keeps_to_the_restricted_standard(site: Site) -> None:
    """Each field that https://kubernetes.io/docs/concepts/security/pod-security-standards/ restricts."""
    await site.driver(**RICH_CONFIG).submit([site.launch(RICH_SPEC, account="u-ada", secrets={"key": b"x"})])
    pod = job_of(site.emulator.bodies)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 4001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & pod.keys()
    allowed = {"projected", "emptyDir", "secret", "persistentVolumeClaim", "configMap"}
    assert {key for volume in pod["volumes"] for key in volume if key != "name"} <= allowed
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}
        }  # fmt: skip
        assert all("hostPort" not in port for port in container.get("ports", []))
    assert pod["automountServiceAccountToken"] is False


async def test_requests_are_the_limits_and_nothing_else_is_asked_for(site: Site) -> None:
    await site.driver(**RICH_CONFIG).submit(
        [site.launch(RICH_SPEC, account="u-ada", secrets={"key": b"x"}, request=Resources(1500, 3 << 30, 2000))]
    )
    spec = job_of(site.emulator.bodies)["spec"]["template"]["spec"]
    keeper, main = spec["containers"]
    assert main["resources"]["limits"] == {"cpu": "1500m", "memory": str(3 << 30), "nvidia.com/mig-1g.10gb": "2"}
    assert main["resources"]["requests"] == {**main["resources"]["limits"], "ephemeral-storage": str(5 << 30)}
    assert keeper["resources"]["limits"] == keeper["resources"]["requests"]
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term == {"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["a100"]}]}
    assert spec["priorityClassName"] == "soon"
    assert spec["serviceAccountName"] == "runs-u-ada"


async def test_kueue_gets_a_suspended_job_with_its_queue(site: Site) -> None:
    await site.driver(queue={"name": "users"}).submit([site.launch()])
    body = job_of(site.emulator.bodies)
    assert body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "users"
    assert body["spec"]["suspend"] is True


async def test_secrets_are_in_the_secret_and_nowhere_else(site: Site) -> None:
    launch = site.launch(
        {"command": ["true"], "secrets": [{"name": "key", "env": "KEY"}, {"name": "pem", "file": "a/b.pem"}]},
        secrets={"key": b"first-secret", "pem": b"second-secret"},
    )
    await site.driver().submit([launch])
    (secret,) = site.made("Secret")
    kept = b"".join(base64.b64decode(value) for value in secret["data"].values())
    assert b"first-secret" in kept
    assert b"second-secret" in kept
    (owner,) = secret["metadata"]["ownerReferences"]
    assert owner["kind"] == "ConfigMap"
    assert owner["name"] == f"atoll-{launch.attempt_id}"
    others = [body for body in site.emulator.bodies if body["kind"] != "Secret"]
    for word in ("first-secret", "second-secret"):
        assert word not in str(others)
        assert base64.b64encode(word.encode()).decode() not in str(others)


async def test_job_goes_with_what_belongs_to_it(site: Site) -> None:
    """All of an attempt is owned by its first ConfigMap, so that nothing is left when that goes."""
    await site.driver(autoscaling=True).submit([site.launch({"command": ["true"], "nodes": 2})])
    owned = [*site.made("Job"), *site.made("Service")]
    assert [body["metadata"]["ownerReferences"][0]["kind"] for body in owned] == ["ConfigMap", "ConfigMap"]
    first = next(body for body in site.made("ConfigMap") if "launch" in body.get("data", {}))
    assert "ownerReferences" not in first["metadata"]


async def test_namespace_is_made_for_a_project_with_an_awkward_name(site: Site) -> None:
    driver = site.driver()
    answers = await driver.submit([site.launch(project="Physik_2"), site.launch(project="physik.2")])
    namespaces = [body["metadata"]["name"] for body in site.made("Namespace")]
    assert len(set(namespaces)) == 2, "two projects shall not meet in one namespace"
    assert all(name.startswith("atoll-physik-2-") for name in namespaces)
    labels = site.made("Namespace")[0]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert all(isinstance(answer, Submitted) for answer in answers)


REFUSED: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = [
    ({"command": ["true"]}, {}, {"image": None}, "environment.image"),
    ({"command": ["true"], "environment": {"conda": "base"}}, {}, {}, "environment.conda"),
    ({"command": ["true"], "volumes": [{"name": "nope", "path": "/x"}]}, {}, {}, "nope"),
    ({"command": ["true"], "gpu": "0.5"}, {"request": Resources(1, 1, 500)}, {"autoscaling": True}, "gpu:"),
    ({"command": ["true"], "flavor": "gpu-h100"}, {}, {}, "flavor: this site has no gpu-h100"),
    ({"command": ["true"], "workdir": "../up"}, {}, {}, "workdir"),
    ({"command": ["true"], "secrets": [{"name": "gone", "env": "X"}]}, {}, {}, "gone"),
    ({"command": ["true"], "nodes": 2}, {}, {}, "nodes: 2 were asked for and the site has 1"),
    ({"command": ["true"]}, {"person": "eve"}, {}, "'eve'"),
    ({"command": ["true"]}, {"person": "eve", "account": "u-eve"}, {}, "'eve'"),
    ({"script": "#!/bin/sh\r\necho\r\n"}, {}, {}, "DOS line breaks"),
    ({"command": ["true"]}, {"checkpoint_key": "a/../b"}, {"checkpoints": "c"}, "checkpoint"),
    ({"command": ["x" * 130_000] * 8}, {}, {}, "900 KiB"),
    ({"command": ["true"], "volumes": [{"name": "ref", "path": "/x"}]}, {},
     {"volumes": {"ref": {"claim": "ref", "read_only": True}}}, "read_only"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "values", "config", "words"), REFUSED, ids=[each[3] for each in REFUSED])
async def test_what_cannot_be_run_is_refused_by_name_and_leaves_nothing(
    site: Site, spec: dict[str, Any], values: dict[str, Any], config: dict[str, Any], words: str
) -> None:
    (answer,) = await site.driver(**config).submit([site.launch(spec, **values)])
    assert isinstance(answer, Refused)
    assert answer.permanent
    assert words in answer.message
    assert site.emulator.bodies == []


async def test_files_beyond_what_the_clusters_store_takes_are_refused(site: Site) -> None:
    source = site.folder / "large"
    with source.open("wb") as file:
        file.truncate(17 << 20)
    (answer,) = await site.driver().submit([site.launch(files=(StagedFile("large", source),))])
    assert isinstance(answer, Refused)
    assert "files_in" in answer.message
    assert "16 MiB" in answer.message


async def test_jobs_of_a_person_are_made_as_the_clusters_user_of_that_person(site: Site) -> None:
    driver = site.driver(impersonate={"user": "oidc:{account}", "group": "atoll:{project}"})
    await driver.submit([site.launch(person="eve", account="eve@lab")])
    made = {path.rsplit("/", 1)[-1]: headers for method, path, headers in site.emulator.seen if method == "POST"}
    assert made["jobs"]["Impersonate-User"] == "oidc:eve@lab"
    assert made["jobs"]["Impersonate-Group"] == "atoll:physics"
    assert "Impersonate-User" not in made["namespaces"], "what all share is the platform's own"
