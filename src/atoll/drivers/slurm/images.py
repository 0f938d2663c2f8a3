"""Container images: which program runs them at a site, and what is put before a command so that it runs in one.

Apptainer (or its elder Singularity) mounts the account's folder at its own path. Charliecloud and the runtimes behind
Slurm's own `--container` can mount only where the image has a place for it, so that there it appears as SEEN.
"""

import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from atoll.core.errors import Invalid
from atoll.drivers.base import Launch
from atoll.drivers.slurm.config import RUNNERS, SlurmConfig
from atoll.drivers.slurm.facts import Facts
from atoll.drivers.slurm.layout import Entrance, Home, workdir_of

SEEN = "/tmp/atoll"  # noqa: S108 - a path in the image
"""Where the account's folder appears in images that have no place for its own path: every image has /tmp."""
_SCHEMES = ("docker://", "oras://", "library://", "shub://", "oci://", "oci-archive://", "docker-archive://")
_USUAL = {"apptainer": "apptainer", "charliecloud": "ch-run", "oci": "srun"}

_CHARLIECLOUD = r"""
atoll_program=$1 atoll_image=$2 atoll_over=$3
shift 3
while IFS= read -r atoll_line; do
    atoll_name=${atoll_line%%=*}
    case $atoll_name in '' | [0-9]* | *[!A-Za-z0-9_]* | atoll_* | "$atoll_line") continue ;; esac
    eval "atoll_known=\${$atoll_name+known}"
    [ -z "$atoll_known" ] || [ "$atoll_name" = "$atoll_over" ] || continue
    set -- "--set-env=$atoll_line" "$@"
done <<ATOLL
$("$atoll_program" "$atoll_image" -- cat /ch/environment 2>/dev/null </dev/null)
ATOLL
exec "$atoll_program" "$@"
"""
"""Arguments PROGRAM IMAGE NAME and those of ch-run: starts it, with those variables of the image that the job has not.

ch-run's own --set-env would let the image win over the job; and the job's variables must not be words of its command
line, which it writes to the system's log. NAME is a variable in which the image wins all the same.
"""


@dataclass(frozen=True)
class Program:
    """What runs images at a site: one of RUNNERS, and the path of its program at the nodes."""

    kind: str
    path: str


@dataclass(frozen=True)
class Mount:
    """A folder of the site that a command finds in its image."""

    source: str
    target: str
    read_only: bool = False


def image_program(config: SlurmConfig, facts: Facts) -> Program | None:
    """What runs images here: what the site file says, or else what is found first. None where nothing does."""
    said = config.containers
    if said == "none":
        return None
    if said is not None and said.startswith("/"):
        return Program(RUNNERS[posixpath.basename(said)], said)
    for name, kind in RUNNERS.items():
        # slurmrestd cannot signal the container without killing it
        if name in facts.programs and said in (None, kind) and not (kind == "oci" and config.transport == "rest"):
            return Program(kind, facts.programs[name])
    return Program(said, _USUAL[said]) if said is not None else None


def wants_image(launch: Launch) -> bool:
    """Whether the attempt's command runs in an image."""
    return launch.spec.environment is not None and launch.spec.environment.image is not None


def own_variables(launch: Launch) -> Mapping[str, str]:
    """What the job itself says of its variables, over which no image has a say."""
    return {**launch.environment, **launch.spec.env}


def entrance(launch: Launch, program: Program, config: SlurmConfig, home: Home) -> Entrance:
    """What Apptainer or Charliecloud wants before the command of an attempt with an image. Raises Invalid."""
    return _ENTRANCES[program.kind](launch, program, config, home)


def image_at(launch: Launch, config: SlurmConfig) -> str:
    """The image as its program finds it: a path where the site has a folder of images. Raises Invalid."""
    assert launch.spec.environment is not None
    image = launch.spec.environment.image
    assert image is not None
    if image.startswith("-"):
        raise _invalid(f"{image[:80]!r} is no name of an image")
    if image.startswith(("/", *_SCHEMES)) or config.images is None:
        return image
    inside = posixpath.normpath(f"{config.images}/{image}")
    if not inside.startswith(f"{config.images.rstrip('/')}/"):
        raise _invalid(f"{image[:80]!r} leads out of the site's folder of images")
    return inside


def mounts_of(launch: Launch, config: SlurmConfig, home: Home, seen: str) -> list[Mount]:
    """Volumes, the working directory where it is elsewhere, and last the account's folder at `seen`. Raises Invalid."""
    mounts = [Mount(config.volumes[each.name], each.path, each.read_only) for each in launch.spec.volumes]
    named = launch.spec.workdir
    if named is not None and named.startswith("/"):
        mounts.append(Mount(named, named))
    for mount in mounts:
        target = posixpath.normpath(mount.target)
        if target in ("/", "/tmp", seen) or target.startswith(f"{seen}/"):  # noqa: S108 - a path in the image
            raise Invalid("bad_volume", f"volumes: Nothing can be mounted at {mount.target!r}.", field="volumes")
    return [*mounts, Mount(home.root, seen)]


def seen_workdir(launch: Launch) -> str:
    """The working directory as a command sees it in an image with the account's folder at SEEN. Raises Invalid."""
    return workdir_of(launch, f"{SEEN}/attempts/{launch.attempt_id}")


def _apptainer(launch: Launch, program: Program, config: SlurmConfig, home: Home) -> Entrance:
    words = [program.path, "--silent", "exec", "--no-home"]
    for mount in mounts_of(launch, config, home, home.root):
        _plain("Apptainer", mount, ":,")
        words.append(f"--bind={mount.source}:{mount.target}{':ro' if mount.read_only else ''}")
    if launch.request.gpu:
        words.append("--nv")
    image = image_at(launch, config)
    return Entrance((*words, image if image.startswith(("/", *_SCHEMES)) else f"docker://{image}"))


def _charliecloud(launch: Launch, program: Program, config: SlurmConfig, home: Home) -> Entrance:
    image = image_at(launch, config)
    # a /tmp of its own, in which there is room for a mount; the image itself is read-only
    options = ["--private-tmp"]
    for mount in mounts_of(launch, config, home, SEEN):
        if mount.read_only:
            raise Invalid(
                "bad_volume", f"volumes: Charliecloud cannot make {mount.target!r} read-only.", field="volumes"
            )
        _plain("Charliecloud", mount, ":")
        options.append(f"--bind={mount.source}:{mount.target}")
    options.append(f"--cd={seen_workdir(launch)}")
    over = "-" if "PATH" in own_variables(launch) else "PATH"
    starter = ["/bin/sh", "-c", _CHARLIECLOUD, "atoll", program.path, image, over]
    return Entrance((*starter, *options, image, "--"), seen=SEEN)


_ENTRANCES: Mapping[str, Callable[[Launch, Program, SlurmConfig, Home], Entrance]] = {
    "apptainer": _apptainer,
    "charliecloud": _charliecloud,
}


def _plain(program: str, mount: Mount, signs: str) -> None:
    if any(sign in path for sign in signs for path in (mount.source, mount.target)):
        sentence = f"volumes: {program} cannot mount {mount.source!r} at {mount.target!r}."
        raise Invalid("bad_volume", sentence, field="volumes")


def _invalid(sentence: str) -> Invalid:
    return Invalid("bad_image", f"environment.image: {sentence}.", field="environment.image")
