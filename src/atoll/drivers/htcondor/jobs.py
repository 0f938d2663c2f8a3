"""What HTCondor is told of attempts: the files to spool, the submit description, and each attempt's line in it.

A submit description is a language with macros: nothing that a person writes ever gets into it, only names, numbers and
the operator's own expressions. All else travels in files.
"""

import io
import posixpath
import re
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.core.spec import JobClass
from atoll.drivers.base import DriverError, Launch
from atoll.drivers.htcondor.config import ClassOptions, HtcondorConfig
from atoll.drivers.wrapper import LAUNCH, SCRIPT, WRAPPER, Place, quote, render_launch, secret_files

EXECUTABLE = Path(__file__).with_name("job.sh")
WALLTIME_CODE = 124
"""By it job.sh ends where the walltime was over, and what stands in `over` says so too."""
ENV, FILES_TAR, SECRETS_TAR, WORK_TAR = "job.env", "files.tar", "secrets.tar", "work.tar"
OVER = "over"
OUTPUTS = ("stdout", "stderr", "shell", "start", "end", OVER)
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+@=-]+")
_IMAGE = re.compile(r"(docker://)?[a-z0-9][A-Za-z0-9._:/@+-]{0,254}")
_KIBIBYTE, _MEBIBYTE = 1 << 10, 1 << 20


class CannotRun(Exception):
    """The attempt can never run at this site. The message names the field."""


def placeholder(attempt_id: str) -> str:
    """What stands for the job's folder until job.sh knows its name."""
    return f"/atoll-folder-of-{attempt_id}"


def check(launch: Launch, config: HtcondorConfig) -> None:
    """Raise CannotRun for what no job of this site can be."""
    spec = launch.spec
    environment = spec.environment
    image = image_of(launch, config)
    reasons = {
        "environment.image": environment is not None and environment.image is not None
        and _bad_image(environment.image, config),
        "environment.conda": environment is not None and environment.conda is not None
        and "this site has no conda environments",
        "environment.venv": environment is not None and environment.venv is not None and image is not None
        and "this site runs jobs in images, and has no venvs",
        "nodes": launch.nodes > 1 and f"a job here has one node, and {launch.nodes} were asked for",
        "volumes": bool(spec.volumes) and "this site has no volumes",
        "ports": bool(spec.ports) and "ports inside jobs cannot be reached here",
        "gpu": launch.request.gpu % 1000 != 0 and "this site hands out whole GPUs only",
        "flavor": bool(spec.flavor) and bool(config.flavors) and not set(spec.flavor) & set(config.flavors)
        and f"this site has {', '.join(sorted(config.flavors))}",
        "walltime": config.max_walltime is not None and (launch.walltime or 0) > config.max_walltime
        and "it is longer than this site allows",
    }  # fmt: skip
    for field, reason in reasons.items():
        if reason:
            raise CannotRun(f"{field}: {reason}.")


def _bad_image(image: str, config: HtcondorConfig) -> str | None:
    if not config.images:
        return "this site runs no images"
    if not _IMAGE.fullmatch(image):
        # a path would be read here, with the platform's own rights
        return f"{image[:80]!r} is no name of an image in a registry"
    return None


def image_of(launch: Launch, config: HtcondorConfig) -> str | None:
    """The image as HTCondor has it; None for a job without one."""
    environment = launch.spec.environment
    if environment is not None and environment.image is not None:
        return environment.image if "://" in environment.image else f"docker://{environment.image}"
    return config.image if config.universe == "container" else None


# -- the files -----------------------------------------------------------------------------------------------------


def lay_out(launch: Launch, folder: Path) -> None:
    """Write the files that the job is to be spooled with. Raises ValueError and Invalid for what cannot be run."""
    inner, workdir = _workdir(launch)
    text = render_launch(launch, _place(launch, workdir))
    secrets = secret_files(launch)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / WRAPPER.name).write_bytes(WRAPPER.read_bytes())
    (folder / LAUNCH).write_text(text)
    (folder / SCRIPT).write_text(launch.spec.script or "")
    (folder / ENV).write_text(_variables(launch, inner))
    if launch.files:
        with tarfile.open(folder / FILES_TAR, "w") as archive:
            for file in launch.files:
                with file.source.open("rb") as source:
                    member = archive.gettarinfo(arcname=file.path, fileobj=source)
                    member.mode = 0o755 if file.executable else 0o644
                    member.uid = member.gid = 0
                    member.uname = member.gname = ""
                    archive.addfile(member, source)
    if secrets:
        with tarfile.open(folder / SECRETS_TAR, "w") as archive:
            for name, content in secrets.items():
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(content), 0o600
                archive.addfile(member, io.BytesIO(content))
        (folder / SECRETS_TAR).chmod(0o600)


def clear(folder: Path) -> None:
    """Remove what was laid out for the spool, secrets first."""
    for name in (SECRETS_TAR, FILES_TAR, LAUNCH, SCRIPT, ENV, WRAPPER.name):
        (folder / name).unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove all that is kept of an attempt here."""
    shutil.rmtree(folder, ignore_errors=True)


def _workdir(launch: Launch) -> tuple[str, str]:
    """The folder to make below `work`, and where the attempt works."""
    folder = placeholder(launch.attempt_id)
    named = launch.spec.workdir
    if named is None:
        return ".", f"{folder}/work"
    if named.startswith("/"):
        return ".", named
    inner = posixpath.normpath(named)
    if inner.startswith(".."):
        raise ValueError(f"workdir: {named!r} leads out of the attempt's own folder")
    return inner, f"{folder}/work/{inner}"


def _place(launch: Launch, workdir: str) -> Place:
    folder = placeholder(launch.attempt_id)
    given = {**launch.environment, **launch.spec.env}
    site = {
        "ATOLL_SCRATCH": f"{folder}/scratch",
        "ATOLL_CHECKPOINT_DIR": f"{folder}/checkpoint",
        "ATOLL_MASTER_ADDR": "127.0.0.1",
    }
    usual = {"ATOLL_NODE_RANK": "0", "ATOLL_NODES": "1", "ATOLL_CPUS": str(_whole(launch.request.cpu))}
    site |= {name: value for name, value in usual.items() if name not in given}
    return Place(
        folder=folder,
        workdir=workdir,
        account="",
        site_environment=site,
        files=f"{folder}/files" if launch.files else None,
        secrets=f"{folder}/secrets" if launch.spec.secrets else None,
        # HTCondor itself tells a job its GPUs
        withheld=frozenset({"CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"} if launch.request.gpu else ()),
    )


def _variables(launch: Launch, inner: str) -> str:
    spec = launch.spec
    end = spec.signal if launch.walltime is not None else None
    values = {
        "walltime": str(launch.walltime) if launch.walltime is not None else "",
        "grace": str(spec.grace),
        "signal": end.name if end is not None else "",
        "before": str(min(end.before, launch.walltime or 0)) if end is not None else "0",
        "inner": inner,
        "place": placeholder(launch.attempt_id),
        "keep": "1" if spec.files_out else "",
    }
    return "".join(f"atoll_{name}={quote(value)}\n" for name, value in values.items())


def _whole(milli: int) -> int:
    return max(1, -(-milli // 1000))


# -- the submit description ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """What all jobs of one cluster have in common: a description says it once, and says nothing of what is absent."""

    container: bool
    gpus: bool
    limited: bool
    """Whether the pool is to end them after some time."""
    job_class: JobClass


def kind_of(launch: Launch, config: HtcondorConfig) -> Kind:
    """The cluster that an attempt goes into."""
    gpus, limited = launch.request.gpu > 0, launch.walltime is not None
    return Kind(image_of(launch, config) is not None, gpus, limited, launch.spec.class_)


def item(launch: Launch, config: HtcondorConfig, folder: Path) -> dict[str, str]:
    """An attempt's line. Raises DriverError where the platform's folder has a name that no description can hold."""
    if not _PLAIN_PATH.fullmatch(str(folder)):
        raise DriverError(f"The folder {folder} cannot be named to HTCondor; use letters, digits, _ . + @ = and -.")
    asked, kind = launch.request, kind_of(launch, config)
    inputs = [WRAPPER.name, LAUNCH, SCRIPT, ENV]
    inputs += [FILES_TAR] if launch.files else []
    inputs += [SECRETS_TAR] if launch.spec.secrets else []
    line = {
        "attempt": launch.attempt_id,
        "job": str(launch.job_id),
        "folder": str(folder),
        "inputs": ",".join(inputs),
        "outputs": ",".join([*OUTPUTS, *([WORK_TAR] if launch.spec.files_out else [])]),
        "cpus": str(_whole(asked.cpu)),
        "memory": str(max(1, -(-asked.memory // _MEBIBYTE))),
        "disk": str(-(-launch.spec.scratch // _KIBIBYTE) or config.disk),
        "grace": str(launch.spec.grace),
        "needs": requirements(launch, config),
    }
    if kind.container:
        line["image"] = image_of(launch, config) or ""
    if kind.gpus:
        line["gpus"] = str(asked.gpu // 1000)
    if launch.walltime is not None:
        # in case the job does not keep to its walltime itself
        line["limit"] = str(launch.walltime + launch.spec.grace + 120)
    return line


def requirements(launch: Launch, config: HtcondorConfig) -> str:
    """What the machine must meet. A job that has started once is not started again: that is a new attempt's affair."""
    options = config.classes.get(launch.spec.class_)
    terms = ["(MY.NumJobStarts =?= UNDEFINED || MY.NumJobStarts == 0)"]
    terms += [f"({term})" for term in (config.requirements, options.requirements if options else None) if term]
    kinds = [f"({config.flavors[name]})" for name in launch.flavors if name in config.flavors]
    return " && ".join([*terms, *([f"({' || '.join(kinds)})"] if kinds else [])])


def description(kind: Kind, instance: str, config: HtcondorConfig) -> str:
    """The submit description of a cluster, without its queue statement."""
    options = config.classes.get(kind.job_class) or ClassOptions.model_validate({})
    keep = round(config.keep_days * 86400)
    settings: dict[str, Any] = {
        "universe": "container" if kind.container else "vanilla",
        "executable": EXECUTABLE,
        "transfer_executable": "true",
        "initialdir": "$(folder)",
        "should_transfer_files": "YES",
        "when_to_transfer_output": "ON_EXIT",
        "transfer_input_files": "$(inputs)",
        "transfer_output_files": "$(outputs)",
        "output": "condor.out",
        "error": "condor.err",
        "request_cpus": "$(cpus)",
        "request_memory": "$(memory)",
        "request_disk": "$(disk)",
        "requirements": "$(needs)",
        "notification": "never",
        "batch_name": "atoll-$(job)",
        "kill_sig": "SIGTERM",
        "remove_kill_sig": "SIGTERM",
        "job_max_vacate_time": "$(grace)",
        # what has started and is idle again was put back by the pool: its attempt is over
        "periodic_remove": "JobStatus == 1 && NumJobStarts =!= UNDEFINED && NumJobStarts > 0",
        "leave_in_queue": f"(JobStatus == 3 || JobStatus == 4) && (time() - EnteredCurrentStatus) < {keep}",
        "MY.AtollInstance": f'"{instance}"',
        "MY.AtollAttempt": '"$(attempt)"',
        **({"container_image": "$(image)"} if kind.container else {}),
        **({"request_gpus": "$(gpus)"} if kind.gpus else {}),
        **({"allowed_execute_duration": "$(limit)"} if kind.limited else {}),
        **({"accounting_group": options.accounting_group} if options.accounting_group else {}),
        **({"priority": options.priority} if options.priority is not None else {}),
        **{f"MY.{name}": value for name, value in options.attributes.items()},
    }
    return "".join(f"{name} = {value}\n" for name, value in settings.items())
