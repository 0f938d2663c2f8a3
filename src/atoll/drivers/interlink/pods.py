"""What is said of an attempt on the wire: its pod, what is sent beside it, and its name for the rest of its life."""

import base64
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atoll.core.ids import is_attempt_id
from atoll.core.resources import format_bytes
from atoll.drivers.base import DriverSetup, Held, Launch
from atoll.drivers.interlink.config import InterlinkConfig
from atoll.drivers.interlink.script import LONGEST, render
from atoll.drivers.wrapper import secret_files

CONTAINER = "job"
"""Name of the pod's one container."""
_UIDS = uuid.UUID("6f1d3c0e-3f0b-5d0f-9a53-a7011a7011a7")
_MEBIBYTE = 1 << 20
_MOST_DATA = 1 << 20
"""Bytes that a config map or the secrets of a pod may have: more no Kubernetes takes."""
_JOB_ID = re.compile(r"[^\x00-\x20\x7f-\x9f]{0,255}")


class CannotRun(Exception):
    """The attempt can never run at this site. The message names the field."""


@dataclass(frozen=True)
class PodName:
    """All that a plugin needs to find a pod again."""

    namespace: str
    name: str
    uid: str
    job_id: str = ""
    """What the plugin's engine calls it; empty where nobody told."""

    @property
    def native_id(self) -> str:
        """The same in one word, for the store."""
        return f"{self.namespace}/{self.name}/{self.uid}/{self.job_id}"

    def pod(self, image: str = "none", grace: float | None = None) -> dict[str, Any]:
        """The pod as far as questions about it need it: plugins read its name and its containers' names."""
        metadata: dict[str, Any] = {"name": self.name, "namespace": self.namespace, "uid": self.uid}
        if grace is not None:
            metadata["deletionGracePeriodSeconds"] = int(grace)
        return {**_KIND, "metadata": metadata, "spec": {"containers": [{"name": CONTAINER, "image": image}]}}


_KIND = {"apiVersion": "v1", "kind": "Pod"}


def uid_of(attempt_id: str) -> str:
    """The pod's uid: always the same for an attempt, so that a plugin can tell a repeated create."""
    return str(uuid.uuid5(_UIDS, attempt_id))


def pod_name(held: Held, config: InterlinkConfig, instance: str) -> PodName | None:
    """The pod of an attempt: as the native id says, else as it would be made. None for what is no attempt of ours."""
    if not is_attempt_id(held.attempt_id, instance):
        return None
    parts = (held.native_id or "").split("/", 3)
    if len(parts) == 4 and all(parts[:3]):
        return PodName(*parts)
    return PodName(config.namespace, f"atoll-{held.attempt_id}", uid_of(held.attempt_id))


def named(pod: PodName, job_id: Any) -> PodName:
    """`pod` with what the plugin calls it, where that is a word that can be kept."""
    text = str(job_id) if isinstance(job_id, str | int) else ""
    return PodName(pod.namespace, pod.name, pod.uid, text if _JOB_ID.fullmatch(text) else "")


def make_pod(launch: Launch, config: InterlinkConfig, setup: DriverSetup) -> dict[str, Any]:
    """What POST /create is sent. Raises CannotRun, ValueError and Invalid for what this site cannot run."""
    _check(launch, config)
    user = _run_as(launch, config, setup)
    text = render(launch, config)
    name = f"atoll-{launch.attempt_id}"
    pod = PodName(config.namespace, name, uid_of(launch.attempt_id)).pod()
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []
    maps: list[dict[str, Any]] = []
    secrets: list[dict[str, Any]] = []
    if len(text.encode()) > LONGEST:
        maps.append(_object("ConfigMap", name, config, {"start": text}))
        volumes.append({"name": "start", "configMap": {"name": name, "defaultMode": 0o444}})
        mounts.append({"name": "start", "mountPath": f"{config.mount}/start", "readOnly": True})
        text = f". {config.mount}/start/start"
    if launch.spec.secrets:
        values = {key: base64.b64encode(value).decode() for key, value in secret_files(launch).items()}
        secrets.append({**_object("Secret", name, config, values), "type": "Opaque"})
        volumes.append({"name": "secrets", "secret": {"secretName": name, "defaultMode": 0o400}})
        mounts.append({"name": "secrets", "mountPath": f"{config.mount}/secrets", "readOnly": True})
    amounts = _amounts(launch, config)
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": _image(launch, config),
        "command": ["/bin/sh", "-c", text],
        "resources": {"limits": amounts, "requests": amounts},
        "imagePullPolicy": "IfNotPresent",
    }
    spec: dict[str, Any] = {
        "containers": [container],
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": launch.spec.grace,
    }
    if mounts:
        container["volumeMounts"] = mounts
        spec["volumes"] = volumes
    if launch.walltime is not None:
        # the pod keeps to its walltime itself; the engine's own limit is there in case it does not
        spec["activeDeadlineSeconds"] = launch.walltime + launch.spec.grace + 120
    if user is not None:
        spec["securityContext"] = {"runAsUser": user}
    pod["metadata"] |= {"labels": _labels(launch, setup), "annotations": _annotations(launch, config)}
    pod["spec"] = spec
    beside = {
        "name": CONTAINER, "configMaps": maps, "projectedvolumemaps": [], "secrets": secrets, "emptyDirs": [],
    }  # fmt: skip
    return {"pod": pod, "container": [beside]}


def _object(kind: str, name: str, config: InterlinkConfig, data: Mapping[str, str]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": config.namespace}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": dict(data)}


def _check(launch: Launch, config: InterlinkConfig) -> None:
    """Raise CannotRun for what no pod of this site can be."""
    spec, asked = launch.spec, launch.request
    environment = spec.environment
    node = (config.node or config.total).resources if config.total is not None else None
    secret_bytes = sum(map(len, launch.secrets.values()))
    reasons = {
        "environment.image": (environment is None or environment.image is None) and config.image is None
        and "this site runs images only, and has none for jobs that name none",
        "environment.conda": environment is not None and environment.conda is not None
        and "this site runs images, and has no conda environments",
        "environment.venv": environment is not None and environment.venv is not None
        and "this site runs images, and has no venvs",
        "nodes": launch.nodes > 1 and f"a pod has one node, and {launch.nodes} were asked for",
        "volumes": bool(spec.volumes) and "this site has no volumes",
        "scratch": spec.scratch > 0 and "this site cannot promise scratch space",
        "ports": bool(spec.ports) and "ports inside pods cannot be reached here",
        "files_in": bool(spec.files_in or launch.files) and "no files can be sent to this site",
        "files_out": bool(spec.files_out) and "no files can be taken out of this site",
        "secrets": bool(spec.secrets) and not config.pod_data and "the plugin of this site carries no secrets",
        "gpu": asked.gpu % 1000 != 0 and "this site hands out whole GPUs only",
        "cpu": node is not None and asked.cpu > node.cpu and "more CPUs were asked for than a node here has",
        "memory": node is not None and asked.memory > node.memory
        and f"{format_bytes(asked.memory)} were asked for and a node here has {format_bytes(node.memory)}",
        "gpus": node is not None and asked.gpu > node.gpu and "more GPUs were asked for than a node here has",
        "walltime": config.max_walltime is not None and (launch.walltime or 0) > config.max_walltime
        and "it is longer than this site allows",
        "data": secret_bytes > _MOST_DATA and "the secrets of a job may have 1 MiB together",
    }  # fmt: skip
    for field, reason in reasons.items():
        if reason:
            raise CannotRun(f"{field}: {reason}.")


def _run_as(launch: Launch, config: InterlinkConfig, setup: DriverSetup) -> int | None:
    """The user number that the pod runs as; None for the plugin's own account."""
    account = launch.account
    if account is None:
        if launch.person != setup.owner and not setup.shared:
            raise CannotRun(
                f"person: {launch.person!r} has no account at this site; map the person to one in the site's file, "
                "or say there that the site's identity is shared."
            )
        return None
    if not config.run_as_user:
        raise CannotRun(
            f"account: the plugin runs every pod as its own account, so {launch.person!r} cannot run as {account!r}; "
            "where the plugin honours runAsUser, say run_as_user: true in the site's config."
        )
    if re.fullmatch(r"[1-9][0-9]{0,9}", account) is None:
        raise CannotRun(f"account: {account!r} is no user number, and a plugin can run a pod as a number only.")
    return int(account)


def _image(launch: Launch, config: InterlinkConfig) -> str:
    environment = launch.spec.environment
    return (environment.image if environment is not None else None) or config.image or ""


def _amounts(launch: Launch, config: InterlinkConfig) -> dict[str, str]:
    asked = launch.request
    memory = f"{asked.memory // _MEBIBYTE}Mi" if asked.memory % _MEBIBYTE == 0 else str(asked.memory)
    cpu = str(asked.cpu // 1000) if asked.cpu % 1000 == 0 else f"{asked.cpu}m"
    amounts = {"cpu": cpu, "memory": memory}
    if asked.gpu:
        amounts[config.gpu_resource] = str(asked.gpu // 1000)
    return amounts


def _labels(launch: Launch, setup: DriverSetup) -> dict[str, str]:
    labels = {"atoll-instance": setup.instance, "atoll-attempt": launch.attempt_id, "atoll-job": str(launch.job_id)}
    return labels if launch.task is None else {**labels, "atoll-task": str(launch.task)}


def _annotations(launch: Launch, config: InterlinkConfig) -> dict[str, str]:
    """The operator's annotations, and the batch system's options: of the class, and the job's walltime."""
    options = config.classes.get(launch.spec.class_)
    annotations = {**config.annotations, **(options.annotations if options is not None else {})}
    flags = [annotations[_FLAGS]] if annotations.get(_FLAGS) else []
    flags += options.flags if options is not None else []
    if launch.walltime is not None:
        minutes = -(-(launch.walltime + launch.spec.grace + 60) // 60)
        flags.append(f"--time={minutes}")
    return {**annotations, _FLAGS: " ".join(flags)} if flags else annotations


_FLAGS = "slurm-job.vk.io/flags"
