"""A job that wants an image is put behind Apptainer, with what it needs mounted."""

from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.core.resources import Resources
from atoll.drivers.slurm.config import read_config
from atoll.drivers.slurm.facts import Facts
from atoll.drivers.slurm.images import image_prefix, image_program
from atoll.drivers.slurm.layout import Home
from tests.drivers.slurm.test_options import launch

HOME = Home("ann", "/home/ann", "/bin/sh", "/home/ann/.atoll/abcde")


def facts(**programs: str) -> Facts:
    return Facts("blue", (23, 11), {}, (), {}, programs=programs)


def words(spec: dict[str, Any], config: dict[str, Any] | None = None, **values: Any) -> list[str]:
    one = launch(spec=spec, **values)
    return image_prefix(one, read_config(config or {}), facts(apptainer="/opt/bin/apptainer"), HOME)


def test_job_without_an_image_has_nothing_before_its_command() -> None:
    assert words({}) == []


def test_image_runs_with_the_attempts_folders_and_volumes_mounted() -> None:
    spec = {
        "environment": {"image": "example.org/a:1"}, "workdir": "/project",
        "volumes": [{"name": "data", "path": "/in", "read_only": True}],
    }  # fmt: skip
    assert words(spec, {"volumes": {"data": "/srv/data"}}, request=Resources(1000, 1 << 20, 1000)) == [
        "/opt/bin/apptainer", "--silent", "exec", "--no-home", f"--bind={HOME.root}:{HOME.root}",
        "--bind=/project:/project", "--bind=/srv/data:/in:ro", "--nv", "docker://example.org/a:1",
    ]  # fmt: skip


@pytest.mark.parametrize("image", ["/images/a.sif", "docker://a", "oras://b"])
def test_image_that_says_where_it_comes_from_is_taken_as_it_is(image: str) -> None:
    assert words({"environment": {"image": image}})[-1] == image


def test_path_that_apptainer_cannot_mount_is_refused() -> None:
    with pytest.raises(Invalid, match="cannot mount"):
        words({"environment": {"image": "/a.sif"}, "workdir": "/a:b"})


def test_site_file_decides_before_what_is_found() -> None:
    found = facts(singularity="/usr/bin/singularity")
    assert image_program(read_config({}), found) == "/usr/bin/singularity"
    assert image_program(read_config({"containers": "none"}), found) is None
    assert image_program(read_config({"containers": "apptainer"}), facts()) == "apptainer"
    assert image_program(read_config({}), facts()) is None
