"""Renders the text that a pod runs: the attempt with its wrapper, self-contained, as one argument of `sh -c`.

No folder is shared between the platform and a plugin's pods, so all that the attempt needs travels in this text; only
secrets do not, because engines show the words of their commands to everybody.
"""

import posixpath
from pathlib import Path

from atoll.drivers.base import Launch
from atoll.drivers.interlink.config import InterlinkConfig
from atoll.drivers.wrapper import WRAPPER, Place, quote, render_launch

_BODY = Path(__file__).with_name("pod.sh")
LONGEST = 96 << 10
"""Bytes that one argument may have: Linux takes 128 KiB, and plugins quote it once more."""
WALLTIME_CODE = 124
"""Exit code of a pod whose walltime was over, where its output says so too."""


def begin_mark(attempt_id: str) -> bytes:
    """The line after which the job's own output begins."""
    return f"atoll: output of {attempt_id} begins\n".encode()


def walltime_mark(attempt_id: str) -> bytes:
    """What the last line of the output says of a pod whose walltime was over."""
    return f"\natoll: {attempt_id} was ended because its walltime of ".encode()


def render(launch: Launch, config: InterlinkConfig) -> str:
    """The text for `sh -c`. Raises ValueError for a working directory that leads out, Invalid for a bad file name."""
    spec = launch.spec
    folder = f"{config.folder}/atoll-{launch.attempt_id}"
    inner, workdir = _workdir(launch, folder)
    end = spec.signal if launch.walltime is not None else None
    variables = {
        "id": launch.attempt_id,
        "base": config.folder,
        "checkpoints": config.checkpoints or "",
        "checkpoint": launch.checkpoint_key,
        "inner": inner,
        "walltime": str(launch.walltime) if launch.walltime is not None else "",
        "grace": str(spec.grace),
        "signal": end.name if end is not None else "",
        "before": str(min(end.before, launch.walltime or 0)) if end is not None else "0",
        "wrapper": WRAPPER.read_text(),
        "launch": render_launch(launch, _place(launch, config, folder, workdir)),
        "script": spec.script or "",
        "mounted": f"{config.mount}/secrets" if spec.secrets else "",
    }
    header = [f"atoll_{name}={quote(value)}" for name, value in variables.items()]
    return "\n".join([*header, _BODY.read_text()])


def _workdir(launch: Launch, folder: str) -> tuple[str, str]:
    """The folder to make in the attempt's own, and where the attempt works."""
    if launch.checkpoint_key in ("", ".", "..") or "/" in launch.checkpoint_key:
        raise ValueError(f"checkpoint: {launch.checkpoint_key!r} is no name of a folder")
    named = launch.spec.workdir
    if named is None:
        return "", f"{folder}/work"
    if named.startswith("/"):
        return "", named
    inner = posixpath.normpath(named)
    if inner.startswith(".."):
        raise ValueError(f"workdir: {named!r} leads out of the attempt's own folder")
    return inner, f"{folder}/work/{inner}"


def _place(launch: Launch, config: InterlinkConfig, folder: str, workdir: str) -> Place:
    given = {**launch.environment, **launch.spec.env}
    checkpoint = f"{config.checkpoints}/{launch.checkpoint_key}" if config.checkpoints else f"{folder}/checkpoint"
    site = {
        "ATOLL_SCRATCH": f"{folder}/scratch",
        "ATOLL_CHECKPOINT_DIR": checkpoint,
        "ATOLL_MASTER_ADDR": "127.0.0.1",
    }
    usual = {"ATOLL_NODE_RANK": "0", "ATOLL_NODES": "1", "ATOLL_CPUS": str(max(1, -(-launch.request.cpu // 1000)))}
    site |= {name: value for name, value in usual.items() if name not in given}
    secrets = f"{folder}/secrets" if launch.spec.secrets else None
    return Place(
        folder=folder, workdir=workdir, account="", site_environment=site, own_output=False, secrets=secrets,
    )  # fmt: skip
