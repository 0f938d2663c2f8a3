"""Builds what is sent to the cluster: plain data, as the API documentation has it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.core.resources import Resources, format_milli
from atoll.drivers.base import Launch
from atoll.drivers.kubernetes.config import Claim, FlavorRule, KubernetesConfig, UnixId
from atoll.drivers.kubernetes.names import filled, job_name
from atoll.drivers.kubernetes.objects import (
    ACCOUNT,
    ATTEMPT,
    CHOSEN,
    INSTANCE,
    KEEPER,
    LAUNCH_EACH,
    MAIN,
    NODES,
    PERSON,
)
from atoll.drivers.kubernetes.payload import (
    CHECKPOINT,
    IN,
    PRIVATE,
    RUN,
    SECRETS,
    CannotRun,
    Payload,
    config_map_data,
    shared_name,
    shared_texts,
)

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@=,-]{0,127}")
_MANAGER = {"app.kubernetes.io/managed-by": "atoll"}
_LATE = 3600
"""Seconds after which the cluster ends what should have ended by itself at its walltime."""


@dataclass(frozen=True)
class Person:
    """As whom an attempt runs at the cluster."""

    account: str
    ids: UnixId
    service_account: str | None


@dataclass(frozen=True)
class Kind:
    """A kind of hardware that will do: labels of its nodes, and what a GPU is called there."""

    labels: Mapping[str, str]
    resource: str


@dataclass(frozen=True)
class Order:
    """An attempt with all that was decided about it."""

    launch: Launch
    instance: str
    namespace: str
    person: Person
    kinds: Sequence[Kind]
    """What will do; empty for any node."""

    @property
    def name(self) -> str:
        """Name of the Job, and of all that belongs to it."""
        return job_name(self.launch.attempt_id)

    @property
    def native_id(self) -> str:
        """What the cluster calls the attempt."""
        return f"{self.namespace}/{self.name}"


def kind_of(rule: FlavorRule, config: KubernetesConfig) -> Kind:
    """A configured kind of hardware."""
    return Kind(rule.labels, rule.resource or config.gpu_resource)


def namespace_body(name: str, instance: str) -> dict[str, Any]:
    """A namespace whose pods must keep to the strictest of Kubernetes' standards."""
    labels = {**_MANAGER, INSTANCE: instance, "pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def scripts_body() -> dict[str, Any]:
    """The scripts that all attempts of a namespace share."""
    metadata = {"name": shared_name(), "labels": _MANAGER}
    return {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, "data": dict(shared_texts()),
    }  # fmt: skip


def _metadata(order: Order, name: str, owner: Mapping[str, str] | None) -> dict[str, Any]:
    labels = {**_MANAGER, INSTANCE: order.instance, ATTEMPT: order.launch.attempt_id}
    metadata: dict[str, Any] = {"name": name, "labels": labels}
    if owner is not None:
        metadata["ownerReferences"] = [dict(owner)]
    return metadata


def owner_of(name: str, uid: str) -> dict[str, str]:
    """What ties the rest of an attempt to its first ConfigMap: when that goes, so does all."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid}


def map_names(order: Order, payload: Payload) -> list[str]:
    """Names of the attempt's ConfigMaps."""
    return [order.name, *(f"{order.name}-{number}" for number in range(1, len(payload.maps)))]


def config_map_body(order: Order, payload: Payload, number: int, owner: Mapping[str, str] | None) -> dict[str, Any]:
    """One of the attempt's ConfigMaps; the first has no owner."""
    metadata = _metadata(order, map_names(order, payload)[number], owner)
    data = config_map_data(payload.maps[number])
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, **data}


def secret_body(order: Order, values: Mapping[str, str], owner: Mapping[str, str]) -> dict[str, Any]:
    """The attempt's secrets; `values` are base64, by key."""
    metadata = _metadata(order, order.name, owner)
    return {
        "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "immutable": True,
        "data": dict(values),
    }  # fmt: skip


def service_body(order: Order, owner: Mapping[str, str]) -> dict[str, Any]:
    """What gives the nodes of an attempt names: from when each has a place, until after its command has ended."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(order, order.name, owner),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {ATTEMPT: order.launch.attempt_id},
        },
    }


def job_body(order: Order, payload: Payload, config: KubernetesConfig, owner: Mapping[str, str]) -> dict[str, Any]:
    """The Job of an attempt. Raises CannotRun."""
    launch = order.launch
    metadata = _metadata(order, order.name, owner)
    annotations = {PERSON: launch.person, "atoll/project": launch.project, "atoll/job": str(launch.job_id)}
    annotations |= {"atoll/name": launch.spec.title, NODES: str(launch.nodes)}
    if launch.account is not None:
        annotations[ACCOUNT] = launch.account
    if launch.on_nodes:
        annotations[CHOSEN] = " ".join(launch.on_nodes)
    if launch.nodes > 1 and launch.spec.launch == "each":
        annotations[LAUNCH_EACH] = "true"
    metadata["annotations"] = annotations
    pod_labels = dict(metadata["labels"])
    spec: dict[str, Any] = {
        "completions": launch.nodes,
        "parallelism": launch.nodes,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
        },
        "template": {
            "metadata": {
                "labels": pod_labels,
                "annotations": {"kubectl.kubernetes.io/default-container": MAIN, PERSON: launch.person},
            },
            "spec": pod_spec(order, payload, config),
        },
    }
    if launch.nodes > 1:
        spec |= {"completionMode": "Indexed", "backoffLimitPerIndex": 0, "maxFailedIndexes": 0}
    else:
        spec["backoffLimit"] = 0
    if config.queue is not None:
        metadata["labels"]["kueue.x-k8s.io/queue-name"] = config.queue.name
        spec["suspend"] = True
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def pod_spec(order: Order, payload: Payload, config: KubernetesConfig) -> dict[str, Any]:
    """The pod of an attempt. Raises CannotRun."""
    launch, ids = order.launch, order.person.ids
    volumes = _Volumes(order, payload, config)
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": max(1, launch.spec.grace),
        "automountServiceAccountToken": config.mount_token,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": ids.user,
            "runAsGroup": ids.group,
            "fsGroup": ids.group,
            **({"supplementalGroups": list(ids.groups)} if ids.groups else {}),
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        # the one that keeps the files first: so it is there when the job's begins
        "containers": [_keeper(order, config, volumes), _main(order, config, volumes)],
        "volumes": volumes.volumes,
    }
    if launch.walltime is not None:
        kept = _kept_seconds(order, config)
        spec["activeDeadlineSeconds"] = launch.walltime + launch.spec.grace + kept + _LATE
    if launch.nodes > 1:
        spec["subdomain"] = order.name
    return spec | _placing(order, config)


def _placing(order: Order, config: KubernetesConfig) -> dict[str, Any]:
    """Which nodes, with what right of way, and under which runtime."""
    launch = order.launch
    runtime = (config.gpu_runtime_class if launch.request.gpu else None) or config.runtime_class
    values: dict[str, Any] = {
        "nodeSelector": dict(config.node_selector),
        "tolerations": [each.model_dump(exclude_none=True) for each in config.tolerations],
        "priorityClassName": config.priority_classes.get(launch.spec.class_),
        "runtimeClassName": runtime,
        "serviceAccountName": order.person.service_account,
        "imagePullSecrets": [{"name": name} for name in config.pull_secrets],
        "affinity": _affinity(order),
    }
    return {name: value for name, value in values.items() if value}


def _affinity(order: Order) -> dict[str, Any]:
    """The nodes that will do, by name or by kind, and that the nodes of one attempt are different ones."""
    affinity: dict[str, Any] = {}
    always = "requiredDuringSchedulingIgnoredDuringExecution"
    if order.launch.on_nodes:
        # all pods of a Job are alike: each may go to any of them, and no two to the same
        terms = [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}
            for name in order.launch.on_nodes
        ]
        affinity["nodeAffinity"] = {always: {"nodeSelectorTerms": terms}}
    elif order.kinds and all(kind.labels for kind in order.kinds):  # a kind without labels is any node
        terms = [
            {"matchExpressions": [{"key": key, "operator": "In", "values": [value]} for key, value in labels.items()]}
            for labels in (kind.labels for kind in order.kinds)
        ]
        affinity["nodeAffinity"] = {always: {"nodeSelectorTerms": terms}}
    if order.launch.nodes > 1:
        peers = {"matchLabels": {ATTEMPT: order.launch.attempt_id}}
        affinity["podAntiAffinity"] = {always: [{"labelSelector": peers, "topologyKey": "kubernetes.io/hostname"}]}
    return affinity


def _security() -> dict[str, Any]:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _image(order: Order, config: KubernetesConfig) -> str:
    environment = order.launch.spec.environment
    image = environment.image if environment is not None and environment.image is not None else config.image
    if image is None:
        raise CannotRun("environment.image: this site runs containers only and has no image of its own; name one")
    return image


def _kept_seconds(order: Order, config: KubernetesConfig) -> int:
    """How long the files of an attempt are kept after its end."""
    return config.keeper.files_seconds if order.launch.spec.files_out else config.keeper.seconds


def _requests(order: Order, config: KubernetesConfig) -> tuple[Resources, Resources]:
    """What the pod asks for: for the job's own container, and for the one beside it.

    Where Atoll chooses the node both together ask for what the job does, so that what is counted is what is taken.
    """
    keeper, request = Resources(config.keeper.cpu, config.keeper.memory), order.launch.request
    if not order.launch.on_nodes:
        return request, keeper
    beside = Resources(min(keeper.cpu, request.cpu // 2), min(keeper.memory, request.memory // 2))
    return request - beside, beside


def _amount(of: Resources) -> dict[str, str]:
    return {"cpu": format_milli(of.cpu), "memory": str(of.memory)}


def _keeper(order: Order, config: KubernetesConfig, volumes: "_Volumes") -> dict[str, Any]:
    keeper = Resources(config.keeper.cpu, config.keeper.memory)
    return {
        "name": KEEPER,
        "image": _image(order, config),
        "imagePullPolicy": config.pull,
        "command": ["/bin/sh", f"{IN}/pod.sh", "keep", str(_kept_seconds(order, config))],
        "workingDir": RUN,
        "resources": {"requests": _amount(_requests(order, config)[1]), "limits": _amount(keeper)},
        "securityContext": _security(),
        "volumeMounts": volumes.keepers_mounts,
    }


def _main(order: Order, config: KubernetesConfig, volumes: "_Volumes") -> dict[str, Any]:
    request = order.launch.request
    gpus = {_gpu_resource(order, config): str(request.gpu // 1000)} if request.gpu else {}
    requests = _amount(_requests(order, config)[0]) | gpus
    if order.launch.spec.scratch:
        requests["ephemeral-storage"] = str(order.launch.spec.scratch)
    return {
        "name": MAIN,
        "image": _image(order, config),
        "imagePullPolicy": config.pull,
        "command": ["/bin/sh", f"{IN}/pod.sh", "main"],
        "workingDir": RUN,
        "ports": [{"name": _port_name(number), "containerPort": each.port}
                  for number, each in enumerate(order.launch.spec.ports)],
        "resources": {"requests": requests, "limits": _amount(request) | gpus},
        "securityContext": _security(),
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", f"{IN}/pod.sh", "leave"]}}},
        "terminationMessagePath": "/dev/termination-log",
        "volumeMounts": volumes.main_mounts,
    }  # fmt: skip


def _port_name(number: int) -> str:
    return f"port-{number}"


def _gpu_resource(order: Order, config: KubernetesConfig) -> str:
    """What the cluster calls the GPUs of this attempt. Raises CannotRun."""
    if order.launch.request.gpu % 1000:
        raise CannotRun("gpu: this site gives whole GPUs, or the slices that its flavors name")
    resources = {kind.resource for kind in order.kinds} or {config.gpu_resource}
    if len(resources) > 1:
        raise CannotRun(f"flavor: a job cannot choose between {' and '.join(sorted(resources))} here; name one kind")
    return resources.pop()


class _Volumes:
    """The volumes of a pod, and where its containers find them."""

    def __init__(self, order: Order, payload: Payload, config: KubernetesConfig) -> None:
        self._order = order
        self.volumes: list[dict[str, Any]] = []
        self.main_mounts: list[dict[str, Any]] = []
        self.keepers_mounts: list[dict[str, Any]] = []
        self._add_own(payload, config)
        for number, wanted in enumerate(order.launch.spec.volumes):
            claim = config.volumes.get(wanted.name)
            if claim is None:
                raise CannotRun(f"volumes: this site has no volume {wanted.name!r}")
            if claim.read_only and not wanted.read_only:
                raise CannotRun(f"volumes: {wanted.name!r} can only be read here; ask for it with read_only: true")
            self._add_claim(f"volume-{number}", claim, wanted.path, wanted.read_only)

    def _add(self, name: str, source: Mapping[str, Any]) -> None:
        self.volumes.append({"name": name, **source})

    def _mount(self, name: str, path: str, *, read_only: bool = False, both: bool = False, below: str = "") -> None:
        mount: dict[str, Any] = {"name": name, "mountPath": path}
        if read_only:
            mount["readOnly"] = True
        if below:
            mount["subPath"] = below
        self.main_mounts.append(mount)
        if both:
            self.keepers_mounts.append(dict(mount))

    def _add_own(self, payload: Payload, config: KubernetesConfig) -> None:
        order, launch = self._order, self._order.launch
        sources = [{"configMap": {"name": name}} for name in (shared_name(), *map_names(order, payload))]
        self._add("in", {"projected": {"sources": sources, "defaultMode": 0o444}})
        self._mount("in", IN, read_only=True, both=True)
        self._add("run", {"emptyDir": {}})
        self._mount("run", RUN, both=True)
        memory = str(launch.request.memory)
        self._add("shm", {"emptyDir": {"medium": "Memory", "sizeLimit": memory}})
        self._mount("shm", "/dev/shm")  # noqa: S108  # its place in every Linux
        if launch.spec.secrets:
            self._add("secrets", {"secret": {"secretName": order.name, "defaultMode": 0o400}})
            self._mount("secrets", SECRETS, read_only=True)
        self._add("private", {"emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}})
        self._mount("private", PRIVATE)
        if config.checkpoints is None:
            self._add("checkpoint", {"emptyDir": {}})
            self._mount("checkpoint", CHECKPOINT)
        else:
            if not _KEY.fullmatch(launch.checkpoint_key):
                raise CannotRun(f"checkpoint: {launch.checkpoint_key!r} cannot name a folder")
            self._add("checkpoint", {"persistentVolumeClaim": {"claimName": config.checkpoints}})
            self._mount("checkpoint", CHECKPOINT, below=f"{order.instance}/{launch.checkpoint_key}")

    def _add_claim(self, name: str, claim: Claim, path: str, read_only: bool) -> None:
        launch = self._order.launch
        values = {"account": self._order.person.account, "person": launch.person, "project": launch.project}
        below = filled(claim.folder, **values).strip("/") if claim.folder is not None else ""
        if any(part in ("", ".", "..") for part in below.split("/")) and below:
            raise CannotRun(f"volumes: {below!r} cannot name a folder")
        only_read = read_only or claim.read_only
        self._add(name, {"persistentVolumeClaim": {"claimName": claim.claim, "readOnly": only_read}})
        self._mount(name, path, read_only=only_read, both=True, below=below)
