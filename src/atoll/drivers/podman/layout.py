"""What lies in the folders of an attempt, decided before anything is written: the same here and behind SSH.

FOLDER/tools/               the wrapper and the scripts beside it; every container sees it, read-only, as /atoll/tools
FOLDER/attempts/ID/         the attempt's own, as /atoll/attempt: launch, script, claim/, start, end, verdict,
                            stdout, stderr, work/, scratch/, home/, secrets/ until the start
FOLDER/orders/ID/           what the platform wants of it, read-only as /atoll/orders: plan, bell, stop, refused
FOLDER/checkpoints/KEY/     as /atoll/checkpoint; kept over the attempts that share the key
FOLDER/waiting/ID           there while the attempt was taken on, and has no container yet
"""

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from atoll.drivers.base import Launch
from atoll.drivers.wrapper import FILES, LAUNCH, SCRIPT, WRAPPER, Place, render_launch, secret_files
from atoll.drivers.wrapper import SECRETS as SECRETS_FOLDER

ATTEMPT, ORDERS, TOOLS, CHECKPOINT = "/atoll/attempt", "/atoll/orders", "/atoll/tools", "/atoll/checkpoint"
"""Where a container finds its folders."""
SECRETS = "/dev/shm/atoll"  # noqa: S108  # the container's own memory, which goes with it
PLAN, STOP, BELL, REFUSED, VERDICT = "plan", "stop", "bell", "refused", "verdict"
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@=,-]{0,127}")
_HERE = Path(__file__).parent
SCRIPTS = {"wrapper.sh": WRAPPER, "keeper.sh": _HERE / "keeper.sh", "enter.sh": _HERE / "enter.sh"}
"""The files of the tools folder."""


@dataclass(frozen=True)
class Owner:
    """The account that an attempt runs as: numbers at the host, and the name for people."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    own: bool = True
    """Whether it is the account that our own files at the host belong to anyway."""


@dataclass(frozen=True)
class Entry:
    """Something to make in the attempt's folder. Outer folders come before what is in them."""

    path: str
    """Relative to the attempt's folder."""
    content: bytes | Path | None = None
    """None for a folder; a Path is a file of the control plane's."""
    link: str | None = None
    """Where a symbolic link points."""
    mode: int = 0o600

    @property
    def folder(self) -> bool:
        """Whether it is a folder."""
        return self.content is None and self.link is None


class Plan(msgspec.Struct, frozen=True):
    """All that it takes to make the attempt's container, kept at the site. No secret is in it."""

    body: dict[str, object]
    """What the API is asked to create, without GPUs."""
    image: str
    gpu: int
    """Milli-GPU."""
    workdir: str
    """As the container sees it."""
    pull: str = "missing"


def workdir_of(launch: Launch) -> str:
    """Where the attempt works, as its container sees it. Raises ValueError for a path that leads out."""
    work = f"{ATTEMPT}/work"
    named = launch.spec.workdir
    if named is None:
        return work
    if named.startswith("/"):
        return named
    inside = posixpath.normpath(f"{work}/{named}")
    if inside != work and not inside.startswith(f"{work}/"):
        raise ValueError(f"workdir: {named!r} leads out of the attempt's own folder")
    return inside


def checkpoint_key(launch: Launch) -> str:
    """The name of the folder that survives the attempt. Raises ValueError for a key that is no plain name."""
    if not _KEY.fullmatch(launch.checkpoint_key):
        raise ValueError(f"checkpoint: {launch.checkpoint_key!r} cannot name a folder")
    return launch.checkpoint_key


def contents(launch: Launch, place: Place) -> list[Entry]:
    """All that the attempt's folder holds before the start. Raises ValueError and Invalid for what cannot be."""
    entries = [Entry("work", mode=0o700), Entry("scratch", mode=0o700), Entry("home", mode=0o700)]
    entries.append(Entry(LAUNCH, render_launch(launch, place).encode()))
    if launch.spec.script is not None:
        entries.append(Entry(SCRIPT, launch.spec.script.encode(), mode=0o700))
    inside = place.workdir.startswith(f"{ATTEMPT}/")
    target = place.workdir.removeprefix(f"{ATTEMPT}/") if inside else FILES
    entries += _files(launch, target)
    if secrets := secret_files(launch):
        entries.append(Entry(SECRETS_FOLDER, mode=0o700))
        entries += [Entry(f"{SECRETS_FOLDER}/{name}", content) for name, content in secrets.items()]
    if inside:
        entries += [Entry(target, mode=0o700)]
    return _with_parents(entries)


def _files(launch: Launch, target: str) -> list[Entry]:
    return [
        Entry(_below(target, file.path, "files_in"), file.source, mode=0o755 if file.executable else 0o644)
        for file in launch.files
    ]


def _below(target: str, path: str, field: str) -> str:
    whole = posixpath.normpath(f"{target}/{path}")
    if not whole.startswith(f"{target}/"):
        raise ValueError(f"{field}: {path!r} leads out of the working directory")
    return whole


def _with_parents(entries: list[Entry]) -> list[Entry]:
    """The entries, each once (the last one said counts), behind the folders that they are in."""
    known: dict[str, Entry] = {}
    for entry in entries:
        parts = entry.path.split("/")
        for end in range(1, len(parts)):
            known.setdefault("/".join(parts[:end]), Entry("/".join(parts[:end]), mode=0o700))
        before = known.get(entry.path)
        if before is not None and before.folder != entry.folder:
            raise ValueError(f"files_in: {entry.path!r} cannot be a file and a folder")
        if before is None or not entry.folder:
            known[entry.path] = entry
    return list(known.values())
