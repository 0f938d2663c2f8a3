"""What Podman is asked for: the body of the call that makes an attempt's container. Pure."""

import posixpath
from dataclasses import dataclass
from typing import Any

from atoll.core.spec import Volume
from atoll.drivers.base import Launch
from atoll.drivers.podman.config import HostVolume, PodmanConfig
from atoll.drivers.podman.layout import (
    ATTEMPT,
    CHECKPOINT,
    ORDERS,
    SECRETS,
    TOOLS,
    Owner,
    checkpoint_key,
    workdir_of,
)
from atoll.drivers.wrapper import FILES, Place

INSTANCE, PERSON, PROJECT, ACCOUNT, LIMIT, ID, CHECKPOINT_KEY = (
    "atoll.instance", "atoll.person", "atoll.project", "atoll.account", "atoll.walltime", "atoll.attempt",
    "atoll.checkpoint",
)  # fmt: skip
"""Labels."""
_PERIOD = 100_000
"""Microseconds over which a CPU quota counts."""
_LEAST_QUOTA = 1000
_LEAST_MEMORY = 16 << 20
"""Bytes without which not even a shell starts."""
_SPARE = 30
"""Seconds that the keeper has to end an attempt before Podman does."""
_CLOSED = ("/", "/atoll", "/proc", "/sys", "/dev")
"""Places in a container at which nothing may be mounted, nor below."""


@dataclass(frozen=True)
class HostFacts:
    """What the engine told of its host."""

    cpus: int
    """Milli-CPU."""
    memory: int
    rootless: bool
    controllers: frozenset[str]
    """Cgroup controllers that containers can be held by."""
    version: str
    arch: str
    runtime: str
    hostname: str


def name_of(attempt: str) -> str:
    """The container's name; it is also the attempt's native id, as it is known before there is a container."""
    return f"atoll-{attempt}"


def place_of(launch: Launch, owner: Owner, config: PodmanConfig) -> Place:
    """Where the attempt runs, as its container sees it."""
    workdir = workdir_of(launch)
    inside = workdir.startswith(f"{ATTEMPT}/")
    # PATH is the image's own: it knows where its programs are
    environment = {"HOME": f"{ATTEMPT}/home", "USER": owner.name, "LOGNAME": owner.name, **config.environment}
    given = {**environment, **launch.environment, **launch.spec.env}
    site = {
        "ATOLL_SCRATCH": f"{ATTEMPT}/scratch",
        "ATOLL_CHECKPOINT_DIR": CHECKPOINT,
        "ATOLL_MASTER_ADDR": "127.0.0.1",
    }
    known = {"ATOLL_NODE_RANK": "0", "ATOLL_NODES": "1", "ATOLL_CPUS": str(max(1, -(-launch.request.cpu // 1000)))}
    site |= {name: value for name, value in known.items() if name not in given}
    if launch.request.gpu:
        count = -(-launch.request.gpu // 1000)
        # CDI gives a container its own devices only, counted from 0 there
        site["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(count)))
    if launch.spec.slurm:
        host = hostname_of(launch)
        site |= {"SLURMD_NODENAME": host, "SLURM_JOB_NODELIST": host, "SLURM_NODELIST": host}
        site |= {"SLURM_SUBMIT_DIR": workdir}
    return Place(
        folder=ATTEMPT,
        workdir=workdir,
        account=owner.name,
        environment=environment,
        site_environment=site,
        files=f"{ATTEMPT}/{FILES}" if launch.files and not inside else None,
        secrets=SECRETS if launch.spec.secrets else None,
        withheld=frozenset() if launch.request.gpu else frozenset({"CUDA_VISIBLE_DEVICES"}),
    )


def hostname_of(launch: Launch) -> str:
    """What the attempt finds as its host's name."""
    return f"job-{launch.job_id}" if launch.task is None else f"job-{launch.job_id}-{launch.task}"


def image_of(launch: Launch, config: PodmanConfig) -> str | None:
    """The image that the job asks for, else the site's."""
    asked = launch.spec.environment
    return asked.image if asked is not None and asked.image is not None else config.image


def body_of(
    launch: Launch, owner: Owner, config: PodmanConfig, facts: HostFacts, root: str, instance: str
) -> dict[str, Any]:
    """The container of an attempt, without GPUs. Raises ValueError for a volume that cannot be given."""
    spec, attempt = launch.spec, launch.attempt_id
    end = spec.signal
    keeper = [
        f"{TOOLS}/keeper.sh", name_of(attempt), str(launch.walltime or 0), str(max(1, spec.grace)),
        end.name if end is not None else "", str(end.before if end is not None else 0),
    ]  # fmt: skip
    labels = {
        ID: attempt, CHECKPOINT_KEY: checkpoint_key(launch), INSTANCE: instance, PERSON: launch.person,
        PROJECT: launch.project,
        **({ACCOUNT: owner.name} if launch.account is not None else {}),
        **({LIMIT: str(launch.walltime)} if launch.walltime else {}),
    }  # fmt: skip
    body: dict[str, Any] = {
        "name": name_of(attempt),
        "hostname": hostname_of(launch),
        "image": image_of(launch, config),
        "entrypoint": ["/bin/sh"],
        "command": keeper,
        "labels": labels,
        "work_dir": "/",
        "user": _user(owner, config, facts),
        "groups": [str(group) for group in owner.groups if group != owner.gid] if not facts.rootless else [],
        "cap_drop": ["ALL"],
        "cap_add": config.capabilities,
        "no_new_privileges": True,
        "httpproxy": False,
        "image_volume_mode": "ignore",
        "restart_policy": "no",
        "volatile": True,
        "log_configuration": {"driver": "k8s-file", "size": 65536},
        "shm_size": max(launch.request.memory, _LEAST_MEMORY),
        "resource_limits": _limits(launch, config, facts),
        "mounts": _mounts(launch, config, root),
        "netns": _network(config),
    }
    if config.userns == "keep-id" and facts.rootless:
        body["userns"] = {"nsmode": "keep-id"}
    if launch.walltime:
        body["timeout"] = launch.walltime + max(1, spec.grace) + _SPARE
    if config.network not in ("bridge", "none", "host"):
        body["Networks"] = {config.network: {}}
    if facts.rootless and config.network not in ("none", "host"):
        # a rootless container's own address is not to be reached from its host
        body["portmappings"] = [
            {"host_ip": "127.0.0.1", "container_port": port, "protocol": "tcp"}
            for port in sorted({port.port for port in spec.ports})
        ]
    return body


def _user(owner: Owner, config: PodmanConfig, facts: HostFacts) -> str:
    if facts.rootless and config.userns == "host":
        return "0:0"  # which is the account itself, seen from the host
    return f"{owner.uid}:{owner.gid}"


def _network(config: PodmanConfig) -> dict[str, str]:
    return {"nsmode": config.network if config.network in ("none", "host") else "bridge"}


def _limits(launch: Launch, config: PodmanConfig, facts: HostFacts) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if "memory" in facts.controllers:
        memory = max(launch.request.memory, _LEAST_MEMORY)
        limits["memory"] = {"limit": memory, "swap": memory}
    if "cpu" in facts.controllers:
        cpu = launch.request.cpu
        if config.cpu_limit == "quota":
            limits["cpu"] = {"quota": max(_LEAST_QUOTA, cpu * _PERIOD // 1000), "period": _PERIOD}
        else:
            limits["cpu"] = {"shares": max(2, min(262_144, cpu * 1024 // 1000))}
    if "pids" in facts.controllers:
        limits["pids"] = {"limit": config.processes}
    return limits


def _mounts(launch: Launch, config: PodmanConfig, root: str) -> list[dict[str, Any]]:
    attempt = launch.attempt_id
    mounts = [
        _bind(f"{root}/attempts/{attempt}", ATTEMPT, read_only=False, relabel="Z"),
        _bind(f"{root}/orders/{attempt}", ORDERS, read_only=True, relabel="Z"),
        _bind(f"{root}/tools", TOOLS, read_only=True, relabel="z"),
        _bind(f"{root}/checkpoints/{checkpoint_key(launch)}", CHECKPOINT, read_only=False, relabel="z"),
    ]
    known = sorted(config.volumes)
    return mounts + [_volume(volume, config.volumes.get(volume.name), known) for volume in launch.spec.volumes]


def _volume(asked: Volume, found: HostVolume | None, known: list[str]) -> dict[str, Any]:
    if found is None:
        there = f"it has {', '.join(known)}" if known else "it has none"
        raise ValueError(f"volumes: this site has no volume {asked.name!r}; {there}")
    place = posixpath.normpath("/" + asked.path.lstrip("/"))
    if place == "/" or any(place == closed or place.startswith(f"{closed}/") for closed in _CLOSED[1:]):
        raise ValueError(f"volumes: nothing can be mounted at {asked.path!r} in a container")
    if found.read_only and not asked.read_only:
        raise ValueError(f"volumes: {asked.name!r} can only be read at this site; ask for it with read_only: true")
    # labels of the host's files are the operator's business
    return _bind(found.path, place, read_only=asked.read_only, relabel=None)


def _bind(source: str, destination: str, *, read_only: bool, relabel: str | None) -> dict[str, Any]:
    # below a recursive mount that is read-only, what is mounted at the host could still be written
    options = [
        "bind" if read_only else "rbind",
        "ro" if read_only else "rw",
        "nosuid",
        "nodev",
        *([relabel] if relabel else []),
    ]
    return {"Type": "bind", "Source": source, "Destination": destination, "Options": options}
