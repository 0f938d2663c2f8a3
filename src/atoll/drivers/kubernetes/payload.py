"""What an attempt's pod reads: the files in /atoll/in, as ConfigMaps."""

import base64
import hashlib
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from atoll.drivers.base import Launch
from atoll.drivers.kubernetes.config import KubernetesConfig
from atoll.drivers.wrapper import LAUNCH, SCRIPT, WRAPPER, Place, environment_of, quote, render_launch

IN, RUN, PRIVATE, SECRETS = "/atoll/in", "/atoll/run", "/atoll/private", "/atoll/secrets"
CHECKPOINT = "/atoll/checkpoint"
WORK = f"{RUN}/work"
POD_SCRIPT = Path(__file__).with_name("pod.sh")
_PIECE = 700 << 10
"""Bytes in one ConfigMap: the server takes 1 MiB, counted after base64."""
MOST_FILES = 16 << 20
"""Bytes of files that an attempt may bring along by way of the cluster's own store."""
_RANKED = frozenset({"ATOLL_NODE_RANK", "SLURM_NODEID", "SLURM_PROCID"})


class CannotRun(Exception):
    """The attempt cannot run at this site. The message names the field, without a full stop."""


@dataclass(frozen=True)
class Payload:
    """The content of an attempt's ConfigMaps: each a table of texts or bytes, small enough for the server."""

    maps: list[dict[str, str | bytes]] = field(default_factory=list)


def workdir_of(launch: Launch) -> str:
    """Where the command runs: a folder of its own, one below that, or the absolute one that it named."""
    named = launch.spec.workdir
    if named is None:
        return WORK
    if named.startswith("/"):
        return named
    inside = posixpath.normpath(f"{WORK}/{named}")
    if inside != WORK and not inside.startswith(f"{WORK}/"):
        raise CannotRun(f"workdir: {named!r} leads out of the attempt's own folder")
    return inside


def _place(launch: Launch, config: KubernetesConfig, account: str, workdir: str, service: str) -> Place:
    conda = launch.spec.environment.conda if launch.spec.environment is not None else None
    if conda is not None:
        raise CannotRun("environment.conda: this site has no conda; name an image that has the environment")
    environment = {
        "HOME": f"{RUN}/home",
        "USER": account,
        "LOGNAME": account,
        "LANG": "C.UTF-8",
        **config.environment,
    }
    given = {**environment, **launch.environment, **launch.spec.env}
    site = {
        "ATOLL_SCRATCH": f"{RUN}/scratch",
        "ATOLL_CHECKPOINT_DIR": CHECKPOINT,
        "ATOLL_MASTER_ADDR": f"{service}-0.{service}" if launch.nodes > 1 else "127.0.0.1",
    }
    known = {"ATOLL_NODES": str(launch.nodes), "ATOLL_CPUS": str(max(1, -(-launch.request.cpu // 1000)))}
    if launch.nodes == 1:
        known["ATOLL_NODE_RANK"] = "0"
    site |= {name: value for name, value in known.items() if name not in given}
    inside = workdir.startswith(f"{RUN}/")
    return Place(
        folder=RUN,
        workdir=workdir,
        account=account,
        environment=environment,
        site_environment=site,
        files=f"{RUN}/files" if not inside and launch.files else None,
        secrets=f"{PRIVATE}/secrets" if launch.spec.secrets else None,
        withheld=_RANKED if launch.nodes > 1 else frozenset(),
    )


def make_payload(launch: Launch, config: KubernetesConfig, account: str, native_id: str) -> Payload:
    """Everything for the pod. Raises CannotRun, Invalid, OSError."""
    workdir, name = workdir_of(launch), native_id.partition("/")[2]
    place = _place(launch, config, account, workdir, name)
    parts = list(_parts(launch))
    first: dict[str, str | bytes] = {
        LAUNCH: render_launch(launch, place),
        "environ": _environ(launch, place),
        "place": _settings(launch, config, workdir, native_id, name),
        "lay": _lay(launch, place, workdir, parts),
    }
    if launch.spec.script is not None:
        first[SCRIPT] = launch.spec.script
    if sum(len(text.encode() if isinstance(text, str) else text) for text in first.values()) > 900 << 10:
        raise CannotRun("command: it and its variables are larger than the cluster stores in one object (900 KiB)")
    pieces: list[dict[str, str | bytes]] = [{part.key: part.data()} for part in parts]
    return Payload([first, *pieces])


@dataclass(frozen=True)
class _Part:
    """A piece of a file that goes in."""

    key: str
    source: Path
    start: int
    number: int
    """Which file it belongs to."""

    def data(self) -> bytes:
        with self.source.open("rb") as file:
            file.seek(self.start)
            return file.read(_PIECE)


def _parts(launch: Launch) -> Iterator[_Part]:
    whole = 0
    for number, file in enumerate(launch.files):
        size = file.source.stat().st_size
        whole += size
        if whole > MOST_FILES:
            raise CannotRun(
                f"files_in: together they are larger than {MOST_FILES >> 20} MiB, the most that goes by way of the "
                "cluster's own store; put them on a volume"
            )
        for start in range(0, max(1, size), _PIECE):
            yield _Part(f"f{number}-{start // _PIECE:04d}", file.source, start, number)


def _lay(launch: Launch, place: Place, workdir: str, parts: list[_Part]) -> str:
    """The shell text that lays out the attempt's folder."""
    base = place.files or workdir
    lines = [f"mkdir -p -- {quote(base)} {quote(CHECKPOINT)} || return 1"] if base.startswith("/atoll/") else []
    copied = [LAUNCH, *([SCRIPT] if launch.spec.script is not None else [])]
    lines += [f"lay {RUN}/{name} 600 {IN}/{name} || return 1" for name in copied]
    for number, file in enumerate(launch.files):
        target = posixpath.normpath(f"{base}/{file.path}")
        if not target.startswith(f"{base}/"):
            raise CannotRun(f"files_in: {file.path!r} leads out of the working directory")
        sources = " ".join(f"{IN}/{part.key}" for part in parts if part.number == number)
        lines.append(f"lay {quote(target)} {'755' if file.executable else '644'} {sources} || return 1")
    if launch.spec.secrets:
        lines.append("lay_secrets || return 1")
    return "\n".join([*lines, ":"]) + "\n"


def _settings(launch: Launch, config: KubernetesConfig, workdir: str, native_id: str, service: str) -> str:
    end, walltime = launch.spec.signal, launch.walltime
    early = end is not None and walltime is not None
    values = {
        "pod_workdir": workdir,
        "pod_native": native_id,
        "pod_walltime": str(walltime) if walltime is not None else "",
        "pod_signal": end.name if end is not None and early else "",
        "pod_before": str(min(end.before, walltime)) if end is not None and walltime is not None else "",
        "pod_grace": str(launch.spec.grace),
        "pod_nodes": str(launch.nodes),
        "pod_launch": launch.spec.launch,
        "pod_service": service,
        "pod_slurm": "1" if launch.spec.slurm else "",
        "pod_start_within": str(config.start_within),
    }
    return "".join(f"{name}={quote(value)}\n" for name, value in values.items())


def _environ(launch: Launch, place: Place) -> str:
    """The shell text that gives a command beside the job's own the job's environment: by env(1), for all names."""
    settings = [quote(f"{name}={value}") for name, value in environment_of(launch, place).items()]
    guard = """case $1 in -* | *=*) set -- /bin/sh -c 'exec "$0" "$@"' "$@" ;; esac"""
    return f'{guard}\nset -- /usr/bin/env {" ".join(settings)} "$@"\n'


@cache
def shared_texts() -> Mapping[str, str]:
    """The scripts that all attempts of a namespace share."""
    return {"pod.sh": POD_SCRIPT.read_text(), "wrapper.sh": WRAPPER.read_text()}


@cache
def shared_name() -> str:
    """Name of the ConfigMap with the shared scripts: another one for other scripts."""
    digest = hashlib.sha256("\0".join(shared_texts().values()).encode()).hexdigest()[:12]
    return f"atoll-scripts-{digest}"


def config_map_data(content: Mapping[str, str | bytes]) -> dict[str, Any]:
    """The fields `data` and `binaryData` of a ConfigMap."""
    texts = {key: value for key, value in content.items() if isinstance(value, str)}
    binary = {key: base64.b64encode(value).decode() for key, value in content.items() if isinstance(value, bytes)}
    return {**({"data": texts} if texts else {}), **({"binaryData": binary} if binary else {})}
