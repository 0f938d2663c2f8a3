"""A job that wants an image is put behind what runs images at the site, with what it needs mounted."""

from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.core.resources import Resources
from atoll.drivers.slurm.config import read_config
from atoll.drivers.slurm.facts import Facts
from atoll.drivers.slurm.images import Program, entrance, image_program
from atoll.drivers.slurm.layout import Entrance, Home, Surroundings, launch_text
from tests.drivers.slurm.test_options import launch

HOME = Home("ann", "/home/ann", "/bin/sh", "/home/ann/.atoll/abcde", 1000, 100)
ATTEMPT = "attempts/abcde-0000000000000000"
APPTAINER, CHARLIECLOUD = Program("apptainer", "/opt/bin/apptainer"), Program("charliecloud", "/opt/bin/ch-run")
WANTS_ALL = {
    "environment": {"image": "example.org/a:1"}, "workdir": "/project",
    "volumes": [{"name": "data", "path": "/in", "read_only": True}],
}  # fmt: skip


def facts(**programs: str) -> Facts:
    return Facts("blue", (23, 11), {}, (), {}, programs=programs)


def entered(
    program: Program, spec: dict[str, Any], config: dict[str, Any] | None = None, **values: Any
) -> Entrance:  # fmt: skip
    return entrance(launch(spec=spec, **values), program, read_config(config or {}), HOME)


def named(program: Program, image: str, config: dict[str, Any] | None = None) -> str:
    """The image as the program is told of it."""
    words = entered(program, {"environment": {"image": image}}, config).words
    return words[-1] if program is APPTAINER else words[-2]


# -- which program -------------------------------------------------------------------------------------------------


ALL = {
    "ch-run": "/usr/bin/ch-run", "oci.conf": "/etc/slurm/oci.conf", "singularity": "/usr/bin/singularity",
    "apptainer": "/usr/bin/apptainer",
}  # fmt: skip


@pytest.mark.parametrize(
    ("missing", "kind", "path"),
    [
        ([], "apptainer", "/usr/bin/apptainer"),
        (["apptainer"], "apptainer", "/usr/bin/singularity"),
        (["apptainer", "singularity"], "charliecloud", "/usr/bin/ch-run"),
        (["apptainer", "singularity", "ch-run"], "oci", "/etc/slurm/oci.conf"),
    ],
)
def test_first_of_what_the_site_has_is_taken(missing: list[str], kind: str, path: str) -> None:
    found = facts(**{name: place for name, place in ALL.items() if name not in missing})
    assert image_program(read_config({}), found) == Program(kind, path)


def test_site_without_any_runs_no_images() -> None:
    assert image_program(read_config({}), facts(conda="/opt/conda")) is None


def test_site_file_decides_before_what_is_found() -> None:
    assert image_program(read_config({"containers": "none"}), facts(**ALL)) is None
    assert image_program(read_config({"containers": "oci"}), facts(**ALL)) == Program("oci", "/etc/slurm/oci.conf")
    found = image_program(read_config({"containers": "charliecloud"}), facts(**ALL))
    assert found == Program("charliecloud", "/usr/bin/ch-run")
    # the nodes may have what the login node lacks
    assert image_program(read_config({"containers": "charliecloud"}), facts()) == Program("charliecloud", "ch-run")


@pytest.mark.parametrize(("path", "kind"), [("/opt/ch/ch-run", "charliecloud"), ("/opt/singularity", "apptainer")])
def test_path_of_a_program_tells_which_it_is(path: str, kind: str) -> None:
    assert image_program(read_config({"containers": path}), facts(**ALL)) == Program(kind, path)


@pytest.mark.parametrize("said", ["docker", "/usr/bin/docker", "ch-run", "/etc/slurm/oci.conf"])
def test_other_runners_are_an_error_that_says_which_there_are(said: str) -> None:
    with pytest.raises(Invalid, match=r"containers.*apptainer, charliecloud, oci, none"):
        read_config({"containers": said})


def test_slurms_own_containers_are_not_for_sites_that_are_reached_by_rest() -> None:
    rest = {"transport": "rest", "url": "http://a", "token": "/t"}
    assert image_program(read_config(rest), facts(**{"oci.conf": "/etc/slurm/oci.conf"})) is None
    with pytest.raises(Invalid, match=r"config\.containers"):
        read_config({**rest, "containers": "oci"})


# -- what it is told -----------------------------------------------------------------------------------------------


def test_apptainer_mounts_the_attempts_folders_and_volumes_at_their_own_paths() -> None:
    words = entered(APPTAINER, WANTS_ALL, {"volumes": {"data": "/srv/data"}}, request=Resources(1000, 1 << 20, 1000))
    assert words == Entrance((
        "/opt/bin/apptainer", "--silent", "exec", "--no-home", "--bind=/srv/data:/in:ro", "--bind=/project:/project",
        f"--bind={HOME.root}:{HOME.root}", "--nv", "docker://example.org/a:1",
    ))  # fmt: skip


def test_charliecloud_mounts_the_accounts_folder_where_every_image_has_room() -> None:
    spec = {**WANTS_ALL, "volumes": [{"name": "data", "path": "/in"}]}
    entered_by = entered(CHARLIECLOUD, spec, {"volumes": {"data": "/srv/data"}})
    assert entered_by.seen == "/tmp/atoll"
    assert entered_by.words[3:] == (
        "atoll", "/opt/bin/ch-run", "example.org/a:1", "PATH", "--private-tmp", "--bind=/srv/data:/in",
        "--bind=/project:/project", f"--bind={HOME.root}:/tmp/atoll", "--cd=/project", "example.org/a:1", "--",
    )  # fmt: skip


def test_command_finds_its_folders_at_the_paths_that_it_sees() -> None:
    spec = {"script": "#!/bin/sh\n", "environment": {"image": "/a"}, "slurm": True}
    one = launch(spec={**spec, "command": None})
    text = launch_text(one, HOME, Surroundings({}), [], entered(CHARLIECLOUD, {"environment": {"image": "/a"}}))
    assert f"ATOLL_SCRATCH='/tmp/atoll/{ATTEMPT}/scratch'" in text
    assert "ATOLL_CHECKPOINT_DIR='/tmp/atoll/checkpoints/k'" in text
    assert f"SLURM_SUBMIT_DIR='/tmp/atoll/{ATTEMPT}/work'" in text
    assert f"'/bin/sh' '/tmp/atoll/{ATTEMPT}/script'" in text
    assert f"atoll_workdir='{HOME.root}/{ATTEMPT}/work'" in text


def test_charliecloud_is_not_asked_for_what_it_cannot_do() -> None:
    with pytest.raises(Invalid, match="Charliecloud cannot make '/in' read-only"):
        entered(CHARLIECLOUD, WANTS_ALL, {"volumes": {"data": "/srv/data"}})


def test_images_path_gives_way_to_the_jobs() -> None:
    spec = {"environment": {"image": "/a"}, "env": {"PATH": "/mine"}}
    assert entered(CHARLIECLOUD, spec).words[6] == "-"


@pytest.mark.parametrize("folder", [{}, {"images": "/srv/images"}])
@pytest.mark.parametrize("image", ["/images/a.sif", "docker://a", "oras://b"])
def test_image_that_says_where_it_comes_from_is_taken_as_it_is(image: str, folder: dict[str, Any]) -> None:
    assert named(APPTAINER, image, folder) == image


def test_names_are_looked_for_in_the_sites_folder_of_images() -> None:
    folder = {"images": "/srv/images/"}
    assert named(CHARLIECLOUD, "debian/12") == "debian/12"
    assert named(CHARLIECLOUD, "debian/12", folder) == "/srv/images/debian/12"
    assert named(APPTAINER, "debian.sif", folder) == "/srv/images/debian.sif"
    assert named(CHARLIECLOUD, "/own/debian", folder) == "/own/debian"


@pytest.mark.parametrize("image", ["--write", "../secret", "a/../../b"])
def test_what_is_no_name_of_an_image_is_refused(image: str) -> None:
    with pytest.raises(Invalid, match=r"environment\.image"):
        named(CHARLIECLOUD, image, {"images": "/srv/images"})


@pytest.mark.parametrize("program", [APPTAINER, CHARLIECLOUD])
def test_path_that_cannot_be_mounted_is_refused(program: Program) -> None:
    with pytest.raises(Invalid, match="cannot mount"):
        entered(program, {"environment": {"image": "/a.sif"}, "workdir": "/a:b"})


@pytest.mark.parametrize("path", ["/", "/tmp", "/tmp/", "/tmp/atoll", "/tmp/atoll/attempts", "/tmp/x/../atoll"])
def test_nothing_is_mounted_over_the_accounts_own_folder(path: str) -> None:
    with pytest.raises(Invalid, match="Nothing can be mounted"):
        entered(CHARLIECLOUD, {"environment": {"image": "/a"}, "workdir": path})
