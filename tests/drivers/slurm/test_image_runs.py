"""Commands run in real images, as an ordinary account: by Charliecloud, and by Slurm's own --container with runc."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from atoll.core.states import Outcome
from atoll.drivers.base import Launch, Refused, StopReason
from atoll.drivers.slurm.images import SEEN
from tests.contract.slurm_harness import SlurmHarness
from tests.support.containers import bundle_of, need_user_namespaces, small_root, squashed
from tests.support.slurm import SlurmCluster, need_slurm

ACCOUNT = "nobody"
IN_IMAGE = '[ "$(cat /etc/os-release)" = ID=small ]'
FROM_IMAGE = f'{IN_IMAGE} && echo "$FROM_IMAGE"'
READ_ONLY = {"name": "data", "path": "/data", "read_only": True}
OCI_CONF = """
RunTimeQuery="{runc} --rootless=true --root={folder} state %n.%u.%j.%s.%t"
RunTimeKill="{runc} --rootless=true --root={folder} kill -a %n.%u.%j.%s.%t"
RunTimeDelete="{runc} --rootless=true --root={folder} delete --force %n.%u.%j.%s.%t"
RunTimeRun="exec {runc} --rootless=true --log=/dev/null --root={folder} run %n.%u.%j.%s.%t -b %b"
"""


@dataclass
class Images:
    """A site with images."""

    harness: SlurmHarness
    image: str

    def launch(self, *command: str, **spec: Any) -> Launch:
        return self.harness.launch({"command": command, "environment": {"image": self.image}, **spec})

    def script(self, text: str, **spec: Any) -> Launch:
        return self.launch("/bin/sh", "-c", text, **spec)


@pytest.fixture(scope="module")
def image_cluster() -> Iterator[SlurmCluster]:
    """Two nodes that see images, and may run them by runc."""
    need_slurm()
    with SlurmCluster(nodes=2, cpus=4) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def image_root(image_cluster: SlurmCluster) -> Path:
    """A bundle's root file system."""
    (image_cluster.folder / "images" / "small").mkdir(parents=True)
    return small_root("images", image_cluster.folder / "images" / "small" / "rootfs")


Make = Callable[..., Awaitable[Images]]


@pytest.fixture
async def make(tmp_path: Path, image_cluster: SlurmCluster, image_root: Path) -> AsyncIterator[Make]:
    """Makes the site for one of the ways to run images."""
    made: list[SlurmHarness] = []

    async def make(kind: str, **config: Any) -> Images:
        if kind == "charliecloud":
            need_user_namespaces("Charliecloud", "ch-run", ACCOUNT)
            image = str(image_root)
        else:
            runc = need_user_namespaces("runc", "runc", ACCOUNT)
            state = image_cluster.folder / "runc"
            state.mkdir(exist_ok=True)
            state.chmod(0o1777)
            (image_cluster.folder / "oci.conf").write_text(OCI_CONF.format(runc=runc, folder=state))
            image = str(bundle_of(image_root))
        harness = SlurmHarness(tmp_path, image_cluster, ACCOUNT, {"containers": kind, **config})
        await harness.start()
        made.append(harness)
        return Images(harness, image)

    yield make
    for harness in made:
        await harness.tear_down()


@pytest.fixture(params=["charliecloud", "oci"])
async def images(make: Make, request: pytest.FixtureRequest) -> Images:
    return await make(request.param)


async def test_command_runs_in_its_image_and_finds_its_folders(images: Images) -> None:
    text = f"""
        {IN_IMAGE} || exit 9
        echo kept >"$ATOLL_CHECKPOINT_DIR/state" && echo room >"$ATOLL_SCRATCH/file" && echo mine >here
        echo "$FROM_IMAGE,$BOTH,$PATH" && pwd
        ls "$HOME" 2>/dev/null && exit 8
        touch /etc/new 2>/dev/null && exit 7
        exit 3
    """
    launch = images.script(text, env={"BOTH": "of the job"})
    status = await images.harness.run(launch)
    written = (await images.harness.read(launch)).decode().splitlines()
    assert status.exit_code == 3, (written, await images.harness.read(launch, "stderr"))
    assert written[0] == "of the image,of the job,/in-image:/usr/bin:/bin"
    assert written[1:] == [f"{SEEN}/attempts/{launch.attempt_id}/work"]
    said = await images.harness.read(launch, "stderr")
    assert said == b"" or said.startswith(b"srun: error: ")  # what srun says of the exit code
    folder = images.harness.folder_of(launch)
    assert (folder / "work" / "here").read_text() == "mine\n"
    assert (folder / "scratch" / "file").read_text() == "room\n"
    checkpoint = folder.parents[1] / "checkpoints" / launch.checkpoint_key / "state"
    assert checkpoint.read_text() == "kept\n"
    assert checkpoint.owner() == ACCOUNT


async def test_jobs_own_path_wins_over_the_images(images: Images) -> None:
    assert await images.harness.output(images.script('echo "$PATH"', env={"PATH": "/bin:/mine"})) == "/bin:/mine\n"


async def test_script_with_files_and_secrets_runs_in_its_image(images: Images) -> None:
    harness = images.harness
    spec = {
        "script": f"#!/bin/sh\n{IN_IMAGE} && cat given sub/key && echo $WORD $1 && cat",
        "args": ["argument"], "stdin": "given",
        "secrets": [{"name": "pem", "file": "sub/key"}, {"name": "word", "env": "WORD"}],
        "environment": {"image": images.image},
    }  # fmt: skip
    launch = harness.launch(
        spec, files=(harness.staged("given", b"a file\n"),), secrets={"pem": b"a key\n", "word": b"secret"}
    )
    assert await harness.output(launch) == "a file\na key\nsecret argument\na file\n"
    folder = harness.folder_of(launch)
    assert not (folder / "secrets").exists()
    assert not (folder / "work" / "sub" / "key").is_symlink()


async def test_volume_is_mounted_where_the_job_wants_it(images: Images) -> None:
    harness = images.harness
    (harness.volumes / "given").write_text("in the volume\n")
    volumes = [{"name": "data", "path": "/data"}]
    assert await harness.output(images.script("cat /data/given; touch /data/new", volumes=volumes)) == "in the volume\n"
    assert (harness.volumes / "new").owner() == ACCOUNT


@pytest.mark.parametrize("code", ["exit 7", "kill -KILL $$"])
async def test_end_is_told_as_it_was(images: Images, code: str) -> None:
    status = await images.harness.run(images.script(code))
    assert status.outcome is Outcome.FAILED
    assert (status.exit_code, status.signal) == ((7, None) if code == "exit 7" else (137, 9))


async def test_words_arrive_as_they_are(images: Images) -> None:
    words = [":", "", "it's", "$x", "a  b", "--", "%t"]
    launch = images.launch("/bin/sh", "-c", 'printf "<%s>" "$@"', "sh", *words)
    assert await images.harness.output(launch) == "".join(f"<{word}>" for word in words)


async def test_process_that_is_left_behind_ends_with_its_attempt(images: Images) -> None:
    launch = images.script("(trap '' TERM HUP; while :; do echo x >>ticks; sleep 0.1; done) >/dev/null 2>&1 & sleep 1")
    await images.harness.run(launch)
    ticks = images.harness.folder_of(launch) / "work" / "ticks"
    size = ticks.stat().st_size
    await asyncio.sleep(1)  # nothing tells that nothing happens
    assert ticks.stat().st_size == size


async def test_cancelled_command_may_tidy_up(images: Images) -> None:
    launch = images.script("trap 'echo tidied; exit 3' TERM; echo ready; while :; do sleep 0.1; done")
    await images.harness.submit(launch)
    await images.harness.wait_for_output(launch, b"ready")
    await images.harness.stop(launch, StopReason.CANCELLED, 20)
    (status,) = await images.harness.wait([launch])
    assert (status.outcome, status.exit_code) == (Outcome.CANCELLED, 3)
    assert b"tidied" in await images.harness.read(launch)


async def test_command_that_ignores_the_signal_is_killed_after_its_grace(images: Images) -> None:
    launch = images.script("trap '' TERM; echo ready; while :; do echo x >>ticks; sleep 0.1; done")
    await images.harness.submit(launch)
    await images.harness.wait_for_output(launch, b"ready")
    await images.harness.stop(launch, StopReason.CANCELLED, 1)
    (status,) = await images.harness.wait([launch])
    assert status.outcome is Outcome.CANCELLED
    ticks = images.harness.folder_of(launch) / "work" / "ticks"
    size = ticks.stat().st_size
    await asyncio.sleep(1)  # nothing tells that nothing happens
    assert ticks.stat().st_size == size


async def test_walltime_ends_as_timed_out_after_its_signal(images: Images) -> None:
    launch = images.script(
        "trap 'echo usr1' USR1; trap 'echo tidied; exit 0' TERM; echo ready; while :; do sleep 0.1; done",
        walltime=6, signal={"name": "USR1", "before": 3}, grace=20,
    )  # fmt: skip
    status = await images.harness.run(launch)
    assert status.outcome is Outcome.TIMED_OUT
    # runc hands on what reaches it too, so that a signal may come twice
    said = dict.fromkeys((await images.harness.read(launch)).split())
    assert list(said) == [b"ready", b"usr1", b"tidied"]


async def test_signal_reaches_the_command(images: Images) -> None:
    launch = images.script("trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.1; done")
    await images.harness.submit(launch)
    await images.harness.wait_for_output(launch, b"ready")
    await images.harness.signals.signal(images.harness.held_as(launch), signal.SIGTERM)
    (status,) = await images.harness.wait([launch])
    assert (status.outcome, status.exit_code) == (Outcome.FAILED, 5)


async def test_command_of_several_nodes_runs_on_each(images: Images) -> None:
    launch = images.script(f'{IN_IMAGE} && echo "rank $ATOLL_NODE_RANK of $ATOLL_NODES"', nodes=2, launch="each")
    written = (await images.harness.output(launch)).splitlines()
    assert sorted(written) == ["rank 0 of 2", "rank 1 of 2"]


async def test_more_memory_than_asked_for_is_out_of_memory(images: Images) -> None:
    eats = "a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done"
    status = await images.harness.run(images.script(eats), patience=60)
    assert status.outcome is Outcome.OUT_OF_MEMORY


async def test_command_beside_runs_in_the_image(images: Images) -> None:
    harness = images.harness
    launch = images.script("touch here; echo ready; while :; do sleep 0.1; done")
    await harness.submit(launch)
    await harness.wait_for_output(launch, b"ready")
    words = ["/bin/sh", "-c", f"{IN_IMAGE} && ls && cat && exit 4"]
    beside = await harness.executor.execute(harness.held_as(launch), words)
    async with asyncio.timeout(harness.patience):
        await beside.write(b"a line\n")
        await beside.end()
        told = b""
        while piece := await beside.read(1 << 10):
            told += piece
        assert (told, await beside.wait()) == (b"here\na line\n", 4)
    await beside.close()


async def test_read_only_volume_is_read_only_in_a_bundle(make: Make) -> None:
    images = await make("oci")
    (images.harness.volumes / "given").write_text("in the volume\n")
    text = "cat /data/given && ! touch /data/more 2>/dev/null"
    assert await images.harness.output(images.script(text, volumes=[READ_ONLY])) == "in the volume\n"


async def test_read_only_volume_is_refused_where_charliecloud_runs_images(make: Make) -> None:
    images = await make("charliecloud")
    launch = images.script("true", volumes=[READ_ONLY])
    (answer,) = await images.harness.driver.submit([launch])
    assert answer == Refused(launch.attempt_id, "volumes: Charliecloud cannot make '/data' read-only.")


async def test_image_that_is_missing_is_told_in_charlieclouds_words(make: Make) -> None:
    images = replace(await make("charliecloud"), image="/no/such/image")
    launch = images.script("true")
    status = await images.harness.run(launch)
    assert (status.outcome, status.exit_code) == (Outcome.FAILED, 1)
    said = (await images.harness.read(launch, "stderr")).decode()
    assert said.startswith("ch-run[")
    assert "can't stat: /no/such/image: No such file or directory" in said
    assert said.count("\n") == 1


async def test_bundle_that_is_missing_is_refused_in_the_sites_words(make: Make) -> None:
    images = replace(await make("oci"), image="/no/such/image")
    (answer,) = await images.harness.driver.submit([images.script("true")])
    assert isinstance(answer, Refused)
    assert answer.permanent
    assert answer.message.startswith("environment.image: ")
    assert "/no/such/image/config.json" in answer.message
    assert "No such file or directory" in answer.message


async def test_image_may_be_one_file(make: Make) -> None:
    images = await make("charliecloud")
    image = replace(images, image=str(squashed(Path(images.image))))
    assert await images.harness.output(image.script(FROM_IMAGE)) == "of the image\n"


async def test_image_may_be_a_name_in_charlieclouds_storage(make: Make, image_root: Path) -> None:
    storage = image_root.parents[1] / "storage"
    shutil.copytree(image_root, storage / "img" / "example.org%small+1", symlinks=True)
    images = replace(await make("charliecloud"), image="example.org/small:1")
    launch = images.script(FROM_IMAGE, env={"CH_IMAGE_STORAGE": str(storage)})
    assert await images.harness.output(launch) == "of the image\n"


async def test_image_may_be_a_name_in_the_sites_folder(make: Make, image_root: Path) -> None:
    images = replace(await make("oci", images=str(image_root.parents[1])), image="small")
    assert await images.harness.output(images.script(FROM_IMAGE)) == "of the image\n"
