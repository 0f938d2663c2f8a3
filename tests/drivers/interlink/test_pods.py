"""An attempt becomes a pod as interLink's Go structs have it, and everything that no pod can be is refused by name."""

import base64
from pathlib import Path
from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.core.ids import new_attempt_id
from atoll.core.resources import Resources
from atoll.core.spec import JobSpec
from atoll.drivers.base import DriverSetup, Held, Launch
from atoll.drivers.interlink.config import read_config
from atoll.drivers.interlink.pods import CannotRun, PodName, make_pod, named, pod_name, uid_of

CONFIG = {
    "url": "http://plugin",
    "image": "docker.io/library/debian:12",
    "total": {"cpus": 8, "memory": "16G", "gpus": 2},
}


def make_launch(spec: dict[str, Any] | None = None, **values: Any) -> Launch:
    job = JobSpec.model_validate({"command": ["echo", "hi"], **(spec or {})})
    usual: dict[str, Any] = {
        "attempt_id": new_attempt_id("aaaaa"), "job_id": 7, "task": None, "task_count": 1, "number": 1,
        "checkpoint_key": "job-7", "person": "owner", "project": "p", "account": None, "spec": job,
        "request": Resources(cpu=1500, memory=256 << 20, gpu=job.gpu), "nodes": job.nodes, "walltime": job.walltime,
    }  # fmt: skip
    return Launch(**(usual | values))


def made(launch: Launch, *, shared: bool = False, **config: Any) -> dict[str, Any]:
    setup = DriverSetup("grid", "aaaaa", Path("/nowhere"), {}, "owner", shared)
    return make_pod(launch, read_config({**CONFIG, **config}), setup)


def test_pod_has_what_the_structs_have() -> None:
    launch = make_launch({"gpu": 1, "walltime": "10m", "grace": 30}, task=3)
    data = made(launch)
    assert set(data) == {"pod", "container"}
    assert data["container"] == [
        {"name": "job", "configMaps": [], "projectedvolumemaps": [], "secrets": [], "emptyDirs": []}
    ]
    pod = data["pod"]
    assert (pod["apiVersion"], pod["kind"]) == ("v1", "Pod")
    assert pod["metadata"]["name"] == f"atoll-{launch.attempt_id}"
    assert pod["metadata"]["uid"] == uid_of(launch.attempt_id)
    assert pod["metadata"]["labels"] == {
        "atoll-instance": "aaaaa", "atoll-attempt": launch.attempt_id, "atoll-job": "7", "atoll-task": "3",
    }  # fmt: skip
    assert pod["metadata"]["annotations"] == {"slurm-job.vk.io/flags": "--time=12"}
    (container,) = pod["spec"]["containers"]
    assert container["image"] == "docker.io/library/debian:12"
    assert container["command"][:2] == ["/bin/sh", "-c"]
    amounts = {"cpu": "1500m", "memory": "256Mi", "nvidia.com/gpu": "1"}
    assert container["resources"] == {"limits": amounts, "requests": amounts}
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["activeDeadlineSeconds"] > 600 + 30


def test_image_of_the_job_wins() -> None:
    data = made(make_launch({"environment": {"image": "example.org/own:2"}}))
    assert data["pod"]["spec"]["containers"][0]["image"] == "example.org/own:2"


def test_class_chooses_options_of_the_batch_system() -> None:
    config: dict[str, Any] = {
        "annotations": {"slurm-job.vk.io/flags": "--account=atoll", "example.org/note": "a"},
        "classes": {"batch": {"flags": ["--partition=long", "--qos=low"], "annotations": {"example.org/note": "b"}}},
    }
    annotations = made(make_launch({"class": "batch", "walltime": 60, "grace": 0}), **config)["pod"]["metadata"][
        "annotations"
    ]
    assert annotations == {
        "slurm-job.vk.io/flags": "--account=atoll --partition=long --qos=low --time=2", "example.org/note": "b",
    }  # fmt: skip
    other = made(make_launch({"class": "service"}), **config)["pod"]["metadata"]["annotations"]
    assert other == config["annotations"]


def test_nothing_that_a_person_writes_reaches_the_options() -> None:
    words = "x --uid=0\n#SBATCH --uid=0"
    data = made(make_launch({"command": ["echo", words], "labels": {"a": words}, "env": {"A": words}, "walltime": 60}))
    assert "uid=0" not in str(data["pod"]["metadata"])


def test_long_script_travels_in_a_config_map() -> None:
    script = "#!/bin/sh\n" + "# grüße\n" * 12_000
    data = made(make_launch({"command": None, "script": script}))
    (beside,) = data["container"]
    (config_map,) = beside["configMaps"]
    container = data["pod"]["spec"]["containers"][0]
    assert container["command"] == ["/bin/sh", "-c", ". /mnt/atoll/start/start"]
    assert container["volumeMounts"] == [{"name": "start", "mountPath": "/mnt/atoll/start", "readOnly": True}]
    assert data["pod"]["spec"]["volumes"] == [
        {"name": "start", "configMap": {"name": config_map["metadata"]["name"], "defaultMode": 0o444}}
    ]
    assert "# grüße" in config_map["data"]["start"]


def test_secret_travels_as_a_secret_and_in_no_word_of_the_command() -> None:
    spec = {"secrets": [{"name": "key", "env": "KEY"}, {"name": "pem", "file": "keys/pem"}]}
    data = made(make_launch(spec, secrets={"key": b"open sesame", "pem": b"\0\xff"}))
    (secret,) = data["container"][0]["secrets"]
    carried = {name: base64.b64decode(value) for name, value in secret["data"].items()}
    assert carried == {"env": b"export KEY='open sesame'\n", "1": b"\0\xff"}
    assert "sesame" not in str(data["pod"])
    assert data["pod"]["spec"]["volumes"][0]["secret"]["defaultMode"] == 0o400


SECRET = {"secrets": [{"name": "key", "env": "KEY"}]}
VALUE = {"secrets": {"key": b"1"}}
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "environment.image": ({}, {}, {"image": None}),
    "environment.conda": ({"environment": {"conda": "base"}}, {}, {}),
    "environment.venv": ({"environment": {"venv": "/v"}}, {}, {}),
    "nodes": ({"nodes": 2}, {}, {}),
    "volumes": ({"volumes": [{"name": "v", "path": "/v"}]}, {}, {}),
    "scratch": ({"scratch": "1G"}, {}, {}),
    "ports": ({"ports": [{"port": 80}]}, {}, {}),
    "files_out": ({"files_out": ["*.csv"]}, {}, {}),
    "files_in": ({"files_in": [{"path": "a", "sha256": "0" * 64}]}, {}, {}),
    "secrets: the plugin": (SECRET, VALUE, {"pod_data": False}),
    "secrets: the secret 'key' has no value": (SECRET, {}, {}),
    "secrets: the variable 'IFS'": ({"secrets": [{"name": "key", "env": "IFS"}]}, VALUE, {}),
    "gpu": ({"gpu": 0.5}, {}, {}),
    "cpu": ({}, {"request": Resources(9000, 1 << 20)}, {}),
    "memory": ({}, {"request": Resources(1, 1 << 60)}, {}),
    "walltime": ({"walltime": "2h"}, {}, {"max_walltime": "1h"}),
    "workdir": ({"workdir": "../other"}, {}, {}),
    "person": ({}, {"person": "somebody"}, {}),
    "account": ({}, {"account": "root"}, {"run_as_user": True}),
    "account: '0'": ({}, {"account": "0"}, {"run_as_user": True}),
    "account: the plugin": ({}, {"account": "1000"}, {}),
}  # fmt: skip


@pytest.mark.parametrize("words", sorted(REFUSED))
def test_what_no_pod_can_be_is_told_by_name(words: str) -> None:
    spec, values, config = REFUSED[words]
    with pytest.raises((CannotRun, ValueError, Invalid)) as caught:
        made(make_launch(spec, **values), **config)
    assert str(caught.value).startswith(words)


def test_account_is_a_user_number_where_the_plugin_honours_it() -> None:
    data = made(make_launch(person="somebody", account="1234"), run_as_user=True)
    assert data["pod"]["spec"]["securityContext"] == {"runAsUser": 1234}
    assert "securityContext" not in made(make_launch(person="somebody"), shared=True)["pod"]["spec"]


def test_pod_is_found_again_by_the_native_id_or_by_the_attempt_alone() -> None:
    config = read_config(CONFIG)
    attempt_id = new_attempt_id("aaaaa")
    fresh = pod_name(Held(attempt_id), config, "aaaaa")
    assert fresh == PodName("atoll", f"atoll-{attempt_id}", uid_of(attempt_id))
    assert fresh is not None
    taken = named(fresh, "job/12")
    other = read_config({**CONFIG, "namespace": "renamed"})
    assert pod_name(Held(attempt_id, taken.native_id), other, "aaaaa") == taken
    assert pod_name(Held("../../etc"), config, "aaaaa") is None
    assert pod_name(Held(new_attempt_id("bbbbb")), config, "aaaaa") is None


@pytest.mark.parametrize("job_id", [None, {}, "two words", "line\n", "x" * 300, True])
def test_job_id_that_is_no_word_is_not_kept(job_id: Any) -> None:
    kept = named(PodName("n", "p", "u"), job_id).job_id
    assert kept == ("True" if job_id is True else "")
