"""Container images: what is put before a command so that it runs in one, by whichever program the site has."""

from atoll.core.errors import Invalid
from atoll.drivers.base import Launch
from atoll.drivers.slurm.config import SlurmConfig
from atoll.drivers.slurm.facts import Facts
from atoll.drivers.slurm.layout import Home

_APPTAINER = ("apptainer", "singularity")
_SCHEMES = ("docker://", "oras://", "library://", "shub://", "oci://", "oci-archive://", "docker-archive://")


def image_program(config: SlurmConfig, facts: Facts) -> str | None:
    """`oci`, `apptainer` or `charliecloud`: what runs images here; None where nothing does."""
    if config.containers is not None:
        return None if config.containers == "none" else config.containers
    if any(name in facts.programs for name in _APPTAINER):
        return "apptainer"
    return "charliecloud" if "ch-run" in facts.programs else None


def image_prefix(launch: Launch, config: SlurmConfig, facts: Facts, home: Home) -> list[str]:
    """The words before the command of an attempt that wants an image; none for others. Raises Invalid."""
    environment = launch.spec.environment
    if environment is None or environment.image is None:
        return []
    folder = f"{home.root}/attempts/{launch.attempt_id}"
    mounts = [(home.root, home.root, False)]
    named = launch.spec.workdir
    if named is not None and named.startswith("/"):
        mounts.append((named, named, False))
    mounts += [(config.volumes[each.name], each.path, each.read_only) for each in launch.spec.volumes]
    program = image_program(config, facts)
    if program == "apptainer":
        return _apptainer(environment.image, launch, facts, mounts, folder)
    if program == "charliecloud":
        return _charliecloud(environment.image, facts, mounts, folder)
    raise Invalid("no_images", "environment.image: this site runs no container images.", field="environment.image")


def _apptainer(image: str, launch: Launch, facts: Facts, mounts: list[tuple[str, str, bool]], folder: str) -> list[str]:
    program = next((facts.programs[name] for name in _APPTAINER if name in facts.programs), "apptainer")
    words = [program, "--silent", "exec", "--no-home"]
    for source, target, read_only in mounts:
        if ":" in source or "," in source or ":" in target or "," in target:
            raise Invalid("bad_volume", f"volumes: apptainer cannot mount {source!r} at {target!r}.", field="volumes")
        words.append(f"--bind={source}:{target}{':ro' if read_only else ''}")
    if launch.request.gpu:
        words.append("--nv")
    # the wrapper's working directory, whatever apptainer would make of it
    return [*words, image if image.startswith(("/", *_SCHEMES)) else f"docker://{image}"]


def _charliecloud(image: str, facts: Facts, mounts: list[tuple[str, str, bool]], folder: str) -> list[str]:
    program = facts.programs.get("ch-run", "ch-run")
    words = [program, "--no-home", "--private-tmp", f"--cd={folder}/work"]
    for source, target, read_only in mounts:
        if read_only:
            sentence = "volumes: charliecloud mounts no volume read-only; ask for it writable, or for another site."
            raise Invalid("bad_volume", sentence, field="volumes")
        words.append(f"--bind={source}:{target}")
    return [*words, image, "--"]
