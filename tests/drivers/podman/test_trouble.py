"""A Podman that is not there, hangs, or answers nonsense: one sentence, in time, and no job ends by it."""

import asyncio
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from atoll.drivers.base import Answer, DriverError, Refused, StopReason, StopRequest, Submitted, Unknown
from atoll.drivers.podman import PodmanDriver
from atoll.drivers.podman.container import name_of
from tests.drivers.podman.fake import FakePodman, driver_at, never, served, until
from tests.drivers.podman.launches import launch


async def submit_one(driver: PodmanDriver, **values: Any) -> Answer:
    (answer,) = await driver.submit([launch(account=None, **values)])
    return answer


async def complaint(driver: PodmanDriver) -> str:
    with pytest.raises(DriverError) as caught:
        await driver.observe([])
    with pytest.raises(DriverError):
        await driver.describe()
    return str(caught.value)


async def test_socket_that_is_not_there_is_named(tmp_path: Path) -> None:
    driver = driver_at(tmp_path / "none.sock", tmp_path)
    words = await complaint(driver)
    assert "none.sock" in words
    assert "No such file" in words
    answer = await submit_one(driver)
    assert isinstance(answer, Unknown)
    assert "none.sock" in answer.message
    await driver.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="root may open every socket, others are asked for as another account")
async def test_socket_that_nobody_serves_is_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left.sock"))
    driver = driver_at(tmp_path / "left.sock", tmp_path)
    assert "Connection refused" in await complaint(driver)
    await driver.close()


async def test_podman_that_hangs_is_given_up_in_time(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, driver):
        fake.routes = {"": never}
        begun = time.monotonic()
        words = await complaint(driver)
        assert "did not answer within 0.5 s" in words
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize("answer", [b"", b"null", b"{}", b"[1]", b"<html>hello</html>", b"\xff\xfe", b'[{"Id": "a"'])
async def test_answer_that_cannot_be_read_is_no_observation(tmp_path: Path, answer: bytes) -> None:
    async with served(tmp_path) as (fake, driver):
        fake.routes = {"/containers/json": answer, "/info": answer}
        assert "Podman answered what cannot be read" in await complaint(driver)


async def test_service_that_is_no_podman_is_told_apart(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, driver):
        fake.version = ""
        with pytest.raises(DriverError, match="is not Podman"):
            await driver.describe()
        fake.version = "3.4.2"
        with pytest.raises(DriverError, match="version 4 is needed"):
            await driver.describe()


async def test_containers_of_others_are_not_taken_for_ours(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, driver):
        foreign = [
            {"Id": "a", "Names": ["atoll-abcde-0123456789abcdef"], "Labels": {"atoll.instance": "other"}},
            {"Id": "b", "Names": ["atoll-../../../etc"], "Labels": {"atoll.instance": "abcde"}},
            {"Id": "c", "Names": ["somebodys"], "Labels": None},
        ]
        fake.routes["/containers/json"] = json.dumps(foreign).encode()
        assert dict((await driver.observe([])).states) == {}


async def test_call_that_is_not_answered_may_have_landed(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, driver):
        fake.routes |= {"/exists": (200, {}), "/containers/create": never}
        job = launch(account=None)
        (answer,) = await driver.submit([job])
        assert isinstance(answer, Unknown)
        # it had landed: the next observation starts it
        found = [
            {"Id": "a", "Names": [name_of(job.attempt_id)], "Labels": {"atoll.instance": "abcde"}, "State": "created"}
        ]
        fake.routes |= {"/containers/json": json.dumps(found).encode(), "/start": (200, {})}
        assert job.attempt_id in (await driver.observe([job.held])).states
        await until(lambda: any("/start" in asked for asked in fake.asked))


@pytest.mark.parametrize(
    ("words", "permanent"),
    [
        ("initializing source docker://x: reading manifest 1 in x: manifest unknown", True),
        ("initializing source docker://x: reading manifest 1 in x: unauthorized: authentication required", True),
        ('short-name "x" did not resolve to an alias and no unqualified-search registries are defined', True),
        (
            'pinging container registry x: Get "https://x/v2/": dial tcp 10.0.0.1:443: connect: connection refused',
            False,
        ),
        ("reading manifest 1 in x: received unexpected HTTP status: 503 Service Unavailable", False),
        ("toomanyrequests: You have reached your pull rate limit", False),
    ],
)
async def test_image_that_cannot_be_pulled_is_refused_in_the_engines_words(
    tmp_path: Path, words: str, permanent: bool
) -> None:
    async with served(tmp_path) as (fake, driver):
        fake.routes["/images/pull"] = json.dumps({"error": words}).encode() + b"\n"
        job = launch(account=None)
        (answer,) = await driver.submit([job])
        assert isinstance(answer, Refused)
        assert answer.permanent is permanent
        assert words[:40] in answer.message
        assert not (tmp_path / "site" / "attempts" / job.attempt_id).exists()
        again = await submit_one(driver)
        assert isinstance(again, Refused)
        assert sum("/images/pull" in asked for asked in fake.asked) == 1, "a failed pull is not repeated at once"


async def test_pull_that_takes_long_lets_the_attempt_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.drivers.podman.intake._PULL_PATIENCE", 0.1)
    pulled = asyncio.Event()

    async def slowly(request: web.Request) -> web.StreamResponse:
        await pulled.wait()
        return web.Response(body=b'{"stream": "Copying"}\n{"images": ["x"], "id": "x"}\n')

    async with served(tmp_path, seconds=5) as (fake, driver):
        fake.routes["/images/pull"] = slowly
        jobs = [launch(account=None) for _ in range(3)]
        answers = await driver.submit(jobs)
        assert all(isinstance(answer, Submitted) for answer in answers)
        states = (await driver.observe([job.held for job in jobs])).states
        assert {state.native_state for state in states.values()} == {"its image base is being pulled"}
        await until(lambda: not driver._intake.is_busy())
        # one of them is stopped meanwhile: it ends without a container
        await driver.stop([StopRequest(jobs[0].held, StopReason.CANCELLED, 5)])
        pulled.set()
        fake.routes |= {"/exists": (200, {}), "/containers/create": (201, {"Id": "a"}), "/start": (200, {})}

        async def both_started() -> None:
            while sum("/start" in asked for asked in fake.asked) < 2:
                await driver.observe([])
                await asyncio.sleep(0.02)

        await asyncio.wait_for(both_started(), 10)
        assert sum("/containers/create" in asked for asked in fake.asked) == 2
        state = (await driver.observe([])).states[jobs[0].attempt_id]
        assert state.outcome == "cancelled"
        await driver.forget([jobs[0].held])
        assert jobs[0].attempt_id not in (await driver.observe([])).states


async def test_refusal_of_podman_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, driver):
        fake.routes |= {
            "/exists": (200, {}),
            "/containers/create": (201, {"Id": "a"}),
            "/start": (500, {"message": 'exec: "/bin/sh": stat /bin/sh: no such file or directory', "cause": ""}),
        }
        job = launch(account=None)
        (answer,) = await driver.submit([job])
        assert isinstance(answer, Refused)
        assert answer.permanent
        assert "stat /bin/sh" in answer.message
        assert any(asked.startswith("DELETE") for asked in fake.asked)
        assert not (tmp_path / "site" / "attempts" / job.attempt_id).exists()


async def test_passing_trouble_of_podman_is_no_refusal_for_good(tmp_path: Path) -> None:
    async with served(tmp_path) as (fake, driver):
        fake.routes |= {"/exists": (200, {}), "/containers/create": (500, {"message": "no space left on device"})}
        answer = await submit_one(driver)
        assert isinstance(answer, Refused)
        assert not answer.permanent
        assert "no space left" in answer.message


async def test_thousand_attempts_cost_one_question(tmp_path: Path) -> None:
    async with served(tmp_path, seconds=10) as (fake, driver):
        jobs = [launch(account=None) for _ in range(1000)]
        found = [
            {"Id": f"{number:064x}", "Names": [name_of(job.attempt_id)], "Labels": {"atoll.instance": "abcde"},
             "State": "running", "StartedAt": 1_795_401_927}
            for number, job in enumerate(jobs)
        ]  # fmt: skip
        fake.routes["/containers/json"] = json.dumps(found).encode()
        before = len(fake.asked)
        observation = await driver.observe([job.held for job in jobs])
        assert len(observation.states) == 1000
        assert fake.asked[before:] == ["GET /v4.0.0/libpod/containers/json"]


def test_fake_is_asked_under_the_path_of_version_four() -> None:
    assert FakePodman().version.startswith("4.")
