"""What is laid out at the site for a submission, as one tar stream.

    ROOT                        the account's folder of this platform: FOLDER/ACCOUNT/INSTANCE or HOME/.atoll/INSTANCE
    ROOT/keeper-HASH.sh         what sbatch starts; the text may change while jobs of an older one wait
    ROOT/wrapper-HASH.sh        what every attempt starts through
    ROOT/batches/ID/            a submission, by its first attempt: list, options, job, said, log
    ROOT/attempts/ID/           an attempt: about, launch, script, claim/, start, end, stdout, stderr, work/, scratch/;
                                step, where srun starts the command; bundle/, where Slurm runs it in an image
    ROOT/checkpoints/KEY/       kept over the attempts that share the key

All of it belongs to the account and is closed to others.
"""

import hashlib
import io
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from atoll.core.errors import Invalid
from atoll.core.spec import JobSpec
from atoll.drivers.base import Launch
from atoll.drivers.slurm.options import Batch, cpus_of, words_for_srun
from atoll.drivers.wrapper import FILES, SCRIPT, SECRETS, WRAPPER, Place, quote, render_launch, secret_files
from atoll.drivers.wrapper.launch import command_words

KEEPER = Path(__file__).with_name("keeper.sh")
"""The batch script."""
STEP = "step"
"""A file of attempts whose command srun starts."""
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@=,-]{0,127}")
_PATH = "/usr/local/bin:/usr/bin:/bin"
_OWN_SLURM = re.compile(r"SLURM_(ARRAY_.*|JOB_NAME|SUBMIT_DIR)")
"""SLURM_* variables that tell of the person's job; the others are the engine's, and srun needs them as they are."""
_PIECE = 1 << 20


@dataclass(frozen=True)
class Home:
    """An account at the site."""

    account: str
    home: str
    shell: str
    root: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Surroundings:
    """What all attempts of a site find."""

    environment: dict[str, str]
    path: str | None = None
    conda: str | None = None


@dataclass(frozen=True)
class Entrance:
    """How a command gets into its image."""

    words: tuple[str, ...]
    """What stands before the command."""
    seen: str | None = None
    """Where the account's folder appears in there; None: at its own path."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Further files of the attempt, by their paths in its folder; one that ends in a slash is a folder."""


def file_name(source: Path) -> str:
    """The name of a text of ours at the site: another for another text."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    return f"{source.stem}-{digest}.sh"


def workdir_of(launch: Launch, folder: str) -> str:
    """Where the attempt works. Raises Invalid for a path that leads out of its folder."""
    work = f"{folder}/work"
    named = launch.spec.workdir
    if named is None:
        return work
    if named.startswith("/"):
        return named
    inside = posixpath.normpath(f"{work}/{named}")
    if inside != work and not inside.startswith(f"{work}/"):
        raise Invalid("bad_workdir", f"workdir: {named!r} leads out of the attempt's own folder.", field="workdir")
    return inside


def about(launch: Launch, batch: str, index: int) -> str:
    """The line that tells the keeper of its attempt. Raises Invalid for a checkpoint key that names no folder."""
    if not _KEY.fullmatch(launch.checkpoint_key):
        raise Invalid("bad_checkpoint", f"checkpoint: {launch.checkpoint_key!r} cannot name a folder.")
    end = launch.spec.signal
    # without a walltime nothing comes before its end
    signal, before = (end.name, end.before) if end is not None and launch.walltime is not None else ("-", 0)
    walltime = "-" if launch.walltime is None else launch.walltime
    return f"{batch} {index} {walltime} {signal} {before} {launch.spec.grace} {launch.checkpoint_key} {launch.nodes}\n"


def launch_text(
    launch: Launch, home: Home, site: Surroundings, prefix: Sequence[str] = (), image: Entrance | None = None
) -> str:
    """The file `launch` of an attempt; `prefix` are words before its command, and before its image. Raises Invalid."""
    secret_files(launch)  # says now what is wrong with them
    folder = f"{home.root}/attempts/{launch.attempt_id}"
    workdir = workdir_of(launch, folder)
    inside = workdir.startswith(f"{folder}/")
    root = image.seen if image is not None and image.seen is not None else home.root
    seen = f"{root}/attempts/{launch.attempt_id}"
    given = {**site.environment, **launch.environment, **launch.spec.env}
    own = {
        "ATOLL_SCRATCH": f"{seen}/scratch",
        "ATOLL_CHECKPOINT_DIR": f"{root}/checkpoints/{launch.checkpoint_key}",
    }
    if "ATOLL_CPUS" not in given:
        own["ATOLL_CPUS"] = str(cpus_of(launch))
    if launch.spec.slurm:
        own["SLURM_SUBMIT_DIR"] = workdir_of(launch, seen)
    withheld = {"ATOLL_NODE_RANK", "ATOLL_NODES", "ATOLL_MASTER_ADDR"}
    withheld |= {name for name in given if name.startswith("SLURM_") and not _OWN_SLURM.fullmatch(name)}
    if launch.request.gpu:
        withheld |= {"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK", "GPU_DEVICE_ORDINAL"}
    place = Place(
        folder=folder,
        workdir=workdir,
        account=home.account,
        environment={
            "PATH": site.path or _PATH, "HOME": home.home, "USER": home.account, "LOGNAME": home.account,
            "SHELL": home.shell, "LANG": "C.UTF-8", **site.environment,
        },
        site_environment=own,
        files=None if inside or not launch.files else f"{folder}/{FILES}",
        secrets=f"{folder}/{SECRETS}" if launch.spec.secrets else None,
        conda=site.conda,
        withheld=frozenset(withheld),
        seen=None if root == home.root else seen,
    )  # fmt: skip
    words = [*prefix, *(image.words if image is not None else ())]
    if words:
        by_srun = bool(prefix) or (image is not None and STEP in image.files)
        launch = replace(launch, spec=_behind(launch, seen, words, by_srun=by_srun))
    text = render_launch(launch, place)
    if image is not None:
        text += f'atoll_go_in() {{ exec {" ".join(map(quote, image.words))} "$@"; }}\n'
    return text


def _behind(launch: Launch, folder: str, prefix: Sequence[str], *, by_srun: bool) -> JobSpec:
    """The specification with its command behind other words."""
    command = command_words(launch, folder)
    words = [*prefix, *(words_for_srun(command) if by_srun else command)]
    return launch.spec.model_copy(update={"command": words, "script": None, "args": []})


def tar_stream(batches: Sequence[Batch], texts: Mapping[str, Mapping[str, str]]) -> Iterator[bytes]:
    """The stream that SUBMIT takes, piece by piece; `texts` are files by attempt and path. Raises OSError."""
    pieces = _Pieces()
    with tarfile.open(fileobj=pieces, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_PIECE) as tar:
        for source in (KEEPER, WRAPPER):
            _add(tar, file_name(source), source.read_bytes())
        for batch in batches:
            names = "".join(f"{launch.attempt_id}\n" for launch in batch.launches)
            _add(tar, f"batches/{batch.name}/list", names.encode())
            options = "set -- " + " ".join(map(quote, batch.options)) + "\n"
            _add(tar, f"batches/{batch.name}/options", options.encode())
            if not batch.is_array:
                _add(tar, f"batches/{batch.name}/single", b"")
            for index, launch in enumerate(batch.launches):
                # here, so that no more than one attempt's files are in memory
                _add_attempt(tar, launch, about(launch, batch.name, index), texts[launch.attempt_id])
                yield from pieces.take()
    yield from pieces.take()


class _Pieces(io.RawIOBase):
    """What tarfile writes to."""

    def __init__(self) -> None:
        super().__init__()
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._written.append(bytes(data))
        return len(data)

    def take(self) -> list[bytes]:
        written, self._written = self._written, []
        return written


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o600) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))


def _add_folder(tar: tarfile.TarFile, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, 0o700
    tar.addfile(member)


def _add_attempt(tar: tarfile.TarFile, launch: Launch, line: str, texts: Mapping[str, str]) -> None:
    folder = f"attempts/{launch.attempt_id}"
    _add(tar, f"{folder}/about", line.encode())
    # here, once for all of them: a program at the node for each attempt costs more
    for path in (f"{folder}/work", f"{folder}/scratch", f"checkpoints/{launch.checkpoint_key}"):
        _add_folder(tar, path)
    for name, text in texts.items():
        if name.endswith("/"):
            _add_folder(tar, f"{folder}/{name.rstrip('/')}")
        else:
            _add(tar, f"{folder}/{name}", text.encode())
    if launch.spec.script is not None:
        _add(tar, f"{folder}/{SCRIPT}", launch.spec.script.encode(), 0o700)
    workdir = workdir_of(launch, folder)
    if launch.spec.workdir is not None:
        named = launch.spec.workdir if launch.spec.workdir.startswith("/") else workdir.removeprefix(f"{folder}/")
        _add(tar, f"{folder}/workdir", named.encode())
    inside = workdir.startswith(f"{folder}/")
    target = workdir if inside else f"{folder}/{FILES}"
    if inside and workdir != f"{folder}/work":
        _add_folder(tar, workdir)
    for file in launch.files:
        path = _below(target, file.path, "files_in")
        with file.source.open("rb") as source:
            member = tarfile.TarInfo(path)
            member.size = os.fstat(source.fileno()).st_size
            member.mode = 0o755 if file.executable else 0o644
            tar.addfile(member, source)
    for name, content in secret_files(launch).items():
        _add(tar, f"{folder}/{SECRETS}/{name}", content)


def _below(target: str, path: str, field: str) -> str:
    whole = posixpath.normpath(f"{target}/{path}")
    if not whole.startswith(f"{target}/"):
        raise Invalid("bad_path", f"{field}: {path!r} leads out of the working directory.", field=field)
    return whole
