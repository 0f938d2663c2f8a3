"""Podman that is killed in the midst of things: every attempt runs once, whatever Podman believes of it."""

import asyncio
import io
import json
import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from atoll.core.states import Outcome
from atoll.drivers.base import AttemptStatus, DriverError, Launch, Phase, Refused, Submitted, Unknown
from atoll.drivers.podman import PodmanDriver, view
from atoll.drivers.podman.container import name_of
from atoll.drivers.podman.containers import Containers
from atoll.drivers.podman.remote import read_told
from tests.contract.podman_harness import PodmanHarness
from tests.drivers.podman.fake import FakePodman, driver_at, served, until
from tests.drivers.podman.launches import INSTANCE, launch
from tests.support.openssh import OpenSsh, need_openssh
from tests.support.podman import PodmanService

EXISTS = (500, {"message": "runc: runc create failed: container with given ID already exists: OCI runtime error"})
NO_START = (500, {"message": "`/usr/bin/runc start 12` failed: exit status 1"})


async def is_cut_off(*_: object, **__: object) -> None:
    raise DriverError("Podman went away.")


async def end_of(harness: PodmanHarness, launch: Launch) -> AttemptStatus:
    """The attempt's end, of which every observation until then must know something."""
    deadline = time.monotonic() + harness.patience
    while True:
        states = (await harness.driver.observe([launch.held])).states
        assert launch.attempt_id in states, "nobody knows of it any more"
        if (status := states[launch.attempt_id]).phase is Phase.ENDED:
            return status
        assert time.monotonic() < deadline, f"it does not end: {status}"
        await asyncio.sleep(harness.interval)


async def test_attempt_runs_once_whenever_podman_is_killed_while_it_starts_it(harness: PodmanHarness) -> None:
    """Podman then calls the container created, initialized or running, and each can be true or not."""
    await harness.driver.describe()
    ledger = harness.folder / "volume" / "ledger"
    for moment in range(20):
        volume = {"name": "data", "path": "/data"}
        job = harness.launch({"script": f"#!/bin/sh\necho {moment} >>/data/ledger\nsleep 1\n", "volumes": [volume]})
        handed_over = asyncio.create_task(harness.driver.submit([job]))
        await asyncio.sleep(0.02 + moment * 0.02)  # how far Podman has come
        await harness.restart_engine()
        (answer,) = await handed_over
        assert isinstance(answer, Submitted | Unknown)
        if job.attempt_id not in (await harness.driver.observe([job.held])).states:
            await harness.driver.submit([job])
        status = await end_of(harness, job)
        assert (status.outcome, status.exit_code) == (Outcome.SUCCEEDED, 0)
        await harness.driver.forget([job.held])
    assert ledger.read_text().split() == [str(moment) for moment in range(20)]


async def test_container_that_vanishes_before_it_began_is_made_anew(
    harness: PodmanHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = harness.script("echo ran")
    with monkeypatch.context() as patch:
        patch.setattr(Containers, "start", is_cut_off)
        (answer,) = await harness.driver.submit([job])
        assert isinstance(answer, Unknown)
        await harness.podman("rm", "--force", name_of(job.attempt_id))
    status = await end_of(harness, job)
    assert (status.outcome, status.exit_code) == (Outcome.SUCCEEDED, 0)
    assert await harness.read(job) == b"ran\n"


@pytest.mark.parametrize("how", ["here", "ssh"])
async def test_attempt_is_withdrawn_before_it_began_or_not_at_all(
    tmp_path: Path, podman_service: PodmanService, how: str
) -> None:
    if how == "ssh":
        need_openssh()
        with OpenSsh() as server:
            await _withdraw(PodmanHarness.over_ssh(tmp_path, podman_service, server))
    else:
        await _withdraw(PodmanHarness(tmp_path, podman_service))


async def _withdraw(harness: PodmanHarness) -> None:
    await harness.start()
    try:
        ran, never, again = harness.script("echo ran"), harness.script("echo ran"), harness.script("echo ran")
        folders = harness.driver._folders  # type: ignore[attr-defined]  # what the driver asks only in a fault
        await harness.run(ran)
        assert not await folders.withdraw(ran.attempt_id, "Too late.")
        assert (await folders.tell([ran.attempt_id]))[ran.attempt_id].refused == ""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Containers, "start", is_cut_off)
            await harness.driver.submit([never, again])
        for _ in range(2):
            assert await folders.withdraw(never.attempt_id, "It's no use.")
        mean = harness.script("cd /atoll/attempt; rm -rf claim; ln -s . claim; echo mine >refused; exit 3")
        assert (await harness.run(mean)).outcome is Outcome.FAILED
        assert not await folders.withdraw(mean.attempt_id, "Not with a link of the job's own.")
        assert await folders.withdraw("abcde-0123456789abcdef", "There is no such attempt.")
        await harness.driver.close()
        await harness.start()  # a new driver reads all of this from the folders
        status = await end_of(harness, never)
        assert (status.outcome, status.message) == (Outcome.REFUSED, "It's no use.")
        # whoever starts its container now finds the claim taken
        await harness.podman("start", name_of(never.attempt_id))
        await harness.podman("wait", name_of(never.attempt_id))
        assert (await end_of(harness, never)).outcome is Outcome.REFUSED
        assert await harness.read(never) == b""
        assert (await end_of(harness, again)).outcome is Outcome.SUCCEEDED
        await harness.driver.forget([never.held])
        assert not harness.folder_of(never.attempt_id).exists()
    finally:
        await harness.tear_down()


# -- what Podman answers when it does not know what it did before -----------------------------------------------------


def listed(job: Launch, state: str, **more: Any) -> bytes:
    found = {"Id": "a", "Names": [name_of(job.attempt_id)], "Labels": {"atoll.instance": INSTANCE}, "State": state}
    return json.dumps([found | more]).encode()


async def made_and_not_started(fake: FakePodman, driver: PodmanDriver) -> Launch:
    """An attempt for which Podman made a container, and went away."""
    fake.routes |= {"/exists": (200, {}), "/containers/create": (201, {})}
    job = launch(account=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Containers, "start", is_cut_off)
        (answer,) = await driver.submit([job])
    assert isinstance(answer, Unknown)
    return job


async def look_until(fake: FakePodman, driver: PodmanDriver, job: Launch, *, asked: str) -> AttemptStatus:
    """Observe until Podman was asked something, and what came of it is done."""
    before = len(fake.asked)
    async with asyncio.timeout(10):
        while not any(asked in question for question in fake.asked[before:]) or driver._intake.is_busy():
            await driver.observe([job.held])
            await asyncio.sleep(0.02)
    status: AttemptStatus = (await driver.observe([job.held])).states[job.attempt_id]
    await until(lambda: not driver._intake.is_busy())
    return status


def begins(folder: Path, job: Launch) -> None:
    """What the wrapper does when it begins."""
    (folder / "site" / "attempts" / job.attempt_id / "claim").mkdir()
    (folder / "site" / "attempts" / job.attempt_id / "start").write_text("12 12\n")


async def test_attempt_that_began_and_whose_container_is_gone_gets_no_other_when_it_is_handed_over_again(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as (fake, driver):
        job = await made_and_not_started(fake, driver)
        begins(tmp_path, job)
        before = len(fake.asked)
        (answer,) = await driver.submit([job])
        assert isinstance(answer, Submitted)
        assert not any(asked.startswith("POST") for asked in fake.asked[before:])
        assert job.attempt_id not in (await driver.observe([job.held])).states, "it is lost"


async def test_end_of_a_container_that_came_after_the_attempt_had_begun_is_not_the_attempts(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, driver):
        job = await made_and_not_started(fake, driver)
        begins(tmp_path, job)
        fake.routes["/containers/json"] = listed(job, "exited", Created="2126-11-23T13:37:43.580718596Z")
        assert job.attempt_id not in (await driver.observe([job.held])).states, "it is lost"


async def test_container_that_is_seen_while_it_is_removed_is_not_a_failure_of_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as (fake, driver):
        job = await made_and_not_started(fake, driver)
        begins(tmp_path, job)
        fake.routes["/containers/json"] = listed(job, "exited", ExitCode=137)
        for _ in range(2):
            assert (await driver.observe([job.held])).states[job.attempt_id].phase is Phase.RUNNING
        fake.routes["/containers/json"] = b"[]"
        assert job.attempt_id not in (await driver.observe([job.held])).states, "it is lost"
        fake.routes["/containers/json"] = listed(job, "exited", ExitCode=137)
        await driver.observe([job.held])
        monkeypatch.setattr(view, "_REMOVED_WITHIN", 0.0)
        assert (await driver.observe([job.held])).states[job.attempt_id].outcome is Outcome.NODE_FAILED


async def test_attempt_whose_container_is_removed_is_lost_whenever_that_is_looked_at(harness: PodmanHarness) -> None:
    for _ in range(8):
        job = harness.script("echo up; sleep 60")
        await harness.submit(job)
        await harness.wait_for_output(job, b"up")
        removal = asyncio.create_task(harness.podman("rm", "--force", "--time", "0", name_of(job.attempt_id)))
        while job.attempt_id in (states := (await harness.driver.observe([job.held])).states):
            assert states[job.attempt_id].phase is Phase.RUNNING
        await removal
        await harness.driver.forget([job.held])


@pytest.mark.parametrize("refusal", [EXISTS, NO_START])
async def test_attempt_that_has_begun_is_not_refused(tmp_path: Path, refusal: Any) -> None:
    async with served(tmp_path) as (fake, driver):
        fake.routes |= {"/exists": (200, {}), "/containers/create": (201, {}), "/start": refusal}
        job = launch(account=None)
        folder = tmp_path / "site" / "attempts" / job.attempt_id

        async def begins(_: Any) -> Any:
            (folder / "claim").mkdir()  # the wrapper does, and Podman is killed before it can say so
            await asyncio.sleep(10)

        fake.routes["/start"] = begins
        (answer,) = await driver.submit([job])
        assert isinstance(answer, Unknown)
        fake.routes |= {"/start": refusal, "/containers/json": listed(job, "initialized")}
        assert (await driver.observe([job.held])).states[job.attempt_id].phase is Phase.RUNNING
        fake.routes["/containers/create"] = (500, {"message": "that name is already in use"})
        (answer,) = await driver.submit([job])
        assert isinstance(answer, Submitted)
        assert folder.exists()
        assert not any(asked.startswith("DELETE") for asked in fake.asked)


@pytest.mark.parametrize("state", ["created", "initialized"])
async def test_end_counts_of_which_podman_never_learnt(tmp_path: Path, state: str) -> None:
    async with served(tmp_path) as (fake, driver):
        job = await made_and_not_started(fake, driver)
        folder = tmp_path / "site" / "attempts" / job.attempt_id
        (folder / "claim").mkdir()
        (folder / "start").write_text("12 12\n")
        fake.routes["/containers/json"] = listed(job, state)
        await driver.observe([job.held])
        (folder / "end").write_text("0m0.01s 0m0.02s\n0m0.03s 0m0.04s\nexit 3\n")
        status = (await driver.observe([job.held])).states[job.attempt_id]
        assert (status.outcome, status.exit_code) == (Outcome.FAILED, 3)


async def test_name_that_only_the_storage_knows_is_given_free(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, driver):
        in_use = {"message": "creating container storage: the container name is already in use by 12"}
        fake.routes |= {"/exists": (200, {}), "/containers/create": (500, in_use), "/start": (204, {})}

        async def removed(request: web.Request) -> web.Response:
            assert request.query["force"] == "true"
            fake.routes["/containers/create"] = (201, {})
            return web.json_response([])

        job = launch(account=None)
        fake.routes[f"/containers/{name_of(job.attempt_id)}"] = removed
        (answer,) = await driver.submit([job])
        assert isinstance(answer, Unknown)
        assert not any(asked.startswith("DELETE") for asked in fake.asked), "Podman may be making it at this moment"
        await look_until(fake, driver, job, asked="/start")
        assert sum(asked.startswith("DELETE") for asked in fake.asked) == 1


async def test_container_without_folders_is_removed(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, driver):
        job = await made_and_not_started(fake, driver)
        shutil.rmtree(tmp_path / "site" / "attempts" / job.attempt_id)
        statfs = (500, {"message": "statfs /site/attempts/1: no such file or directory"})
        fake.routes |= {"/start": statfs, "/containers/json": listed(job, "created")}
        await look_until(fake, driver, job, asked="DELETE")


async def test_container_that_podman_cannot_remove_leaves_its_refusal_to_be_told(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, driver):
        fake.routes |= {"/exists": (200, {}), "/containers/create": (201, {}), "/start": NO_START}
        job = launch(account=None)
        fake.routes[f"/containers/{name_of(job.attempt_id)}"] = (500, {"message": "it is busy"})
        (answer,) = await driver.submit([job])
        assert isinstance(answer, Unknown)
        assert (tmp_path / "site" / "attempts" / job.attempt_id).exists()
        assert (await driver.observe([job.held])).states[job.attempt_id].outcome is Outcome.REFUSED


async def test_attempt_that_began_and_whose_container_is_dead_is_not_started_for_ever(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, driver):
        job = await made_and_not_started(fake, driver)
        (tmp_path / "site" / "attempts" / job.attempt_id / "claim").mkdir()
        fake.routes |= {"/start": EXISTS, "/containers/json": listed(job, "created")}
        await look_until(fake, driver, job, asked="DELETE")
        fake.routes["/containers/json"] = b"[]"
        assert job.attempt_id not in (await driver.observe([job.held])).states, "it is lost"


def test_files_of_the_job_do_not_count_as_the_platforms() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for folder in ("attempts", "orders"):
            for name in ("stop", "refused", "verdict", "start", "bell"):
                member = tarfile.TarInfo(f"{folder}/abcde-1/{name}")
                content = f"7 {folder}\n".encode()
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        claim = tarfile.TarInfo("attempts/abcde-1/claim")
        claim.type, claim.linkname = tarfile.SYMTYPE, "."
        tar.addfile(claim)
    told = read_told(packed.getvalue())["abcde-1"]
    assert (told.stop, told.refused, told.verdict) == ("7 orders\n", "7 orders\n", "7 attempts\n")
    assert told.record.native_id == "attempts"


async def test_half_made_container_is_made_anew(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, driver):
        job = await made_and_not_started(fake, driver)
        fake.routes["/start"] = EXISTS
        (answer,) = await driver.submit([job])
        assert isinstance(answer, Submitted)
        fake.routes |= {"/containers/json": listed(job, "created")}
        await look_until(fake, driver, job, asked="DELETE")
        fake.routes |= {"/containers/json": b"[]"}
        status = (await driver.observe([job.held])).states[job.attempt_id]
        assert (status.phase, status.native_state) == (Phase.STARTING, "Podman was killed while it made its container")
        await look_until(fake, driver, job, asked="/containers/create")


async def test_refusal_is_told_by_a_new_driver_too(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, driver):
        job = await made_and_not_started(fake, driver)
        fake.routes |= {"/start": NO_START, "/containers/json": listed(job, "created")}
        deadline = time.monotonic() + 10
        while (status := (await driver.observe([job.held])).states[job.attempt_id]).phase is Phase.STARTING:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert sum("/start" in asked for asked in fake.asked) == 2, "the first time it may be running"
        assert status.outcome is Outcome.REFUSED
        other = driver_at(tmp_path / "podman.sock", tmp_path)
        status = (await other.observe([job.held])).states[job.attempt_id]
        assert status.outcome is Outcome.REFUSED
        assert "runc start" in status.message
        fake.routes |= {"/containers/json": b"[]"}  # somebody removed it
        assert (await other.observe([job.held])).states[job.attempt_id] == status
        await other.close()


async def test_attempt_that_was_taken_on_is_not_refused_when_the_site_can_no_longer_run_it(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, driver):
        fake.routes |= {"/exists": (200, {}), "/containers/create": (201, {}), "/start": (204, {})}
        job = launch({"environment": {"image": "other"}}, account=None)
        (answer,) = await driver.submit([job])
        assert isinstance(answer, Submitted)
        small = driver_at(tmp_path / "podman.sock", tmp_path, memory="1M")
        (answer,) = await small.submit([job])
        assert isinstance(answer, Submitted)
        (answer,) = await small.submit([launch(account=None)])
        assert isinstance(answer, Refused)
        await small.close()
