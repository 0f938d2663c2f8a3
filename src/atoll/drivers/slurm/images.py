"""Container images: what is put before a command so that it runs in one, by Apptainer or its elder Singularity."""

from atoll.core.errors import Invalid
from atoll.drivers.base import Launch
from atoll.drivers.slurm.config import SlurmConfig
from atoll.drivers.slurm.facts import Facts
from atoll.drivers.slurm.layout import Home

_PROGRAMS = ("apptainer", "singularity")
_SCHEMES = ("docker://", "oras://", "library://", "shub://", "oci://", "oci-archive://", "docker-archive://")


def image_program(config: SlurmConfig, facts: Facts) -> str | None:
    """What runs images here; None where nothing does."""
    if config.containers == "none":
        return None
    found = next((facts.programs[name] for name in _PROGRAMS if name in facts.programs), None)
    return found or config.containers


def image_prefix(launch: Launch, config: SlurmConfig, facts: Facts, home: Home) -> list[str]:
    """The words before the command of an attempt that wants an image; none for others. Raises Invalid."""
    environment = launch.spec.environment
    if environment is None or environment.image is None:
        return []
    program = image_program(config, facts)
    if program is None:
        raise Invalid("no_images", "environment.image: this site runs no container images.", field="environment.image")
    # the attempt's folder and checkpoints, at the paths that its variables name
    mounts = [(home.root, home.root, False)]
    named = launch.spec.workdir
    if named is not None and named.startswith("/"):
        mounts.append((named, named, False))
    mounts += [(config.volumes[each.name], each.path, each.read_only) for each in launch.spec.volumes]
    words = [program, "--silent", "exec", "--no-home"]
    for source, target, read_only in mounts:
        if any(sign in path for sign in ":," for path in (source, target)):
            raise Invalid("bad_volume", f"volumes: Apptainer cannot mount {source!r} at {target!r}.", field="volumes")
        words.append(f"--bind={source}:{target}{':ro' if read_only else ''}")
    if launch.request.gpu:
        words.append("--nv")
    image = environment.image
    return [*words, image if image.startswith(("/", *_SCHEMES)) else f"docker://{image}"]
