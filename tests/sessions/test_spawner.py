"""JupyterHub's servers as jobs: started, visited, stopped, and through the death of the hub and the platform."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atoll.client.calls import JobFilter
from atoll.client.models import Job
from atoll.client.synchronous import Client
from tests.support.hub import RunningHub
from tests.support.platform import RunningPlatform
from tests.support.ports import free_port
from tests.support.relay import RunningRelay


def sessions(client: Client, person: str, server: str = "") -> list[Job]:
    """All jobs that were ever made for a server, newest first."""
    name = f"jupyter-{server}" if server else "jupyter"
    return [client.job(job.job) for job in client.jobs(JobFilter(owner=person, name=name, ended=True))]


@contextmanager
def ended(hub: RunningHub, client: Client, person: str, server: str) -> Iterator[None]:
    """Leave nothing of a server behind."""
    try:
        yield
    finally:
        for job in sessions(client, person, server):
            client.cancel(job.job)
            client.wait(job.job)


@contextmanager
def full(client: Client) -> Iterator[None]:
    """Nothing can start, as the only site takes no new work."""
    client.drain_site("local")
    try:
        yield
    finally:
        client.drain_site("local", drained=False)


def wait_for_job(hub: RunningHub, client: Client, person: str, server: str) -> Job:
    """The job of a server that was asked for."""
    hub.wait_until(lambda: sessions(client, person, server), f"there is no job for {server}")
    return sessions(client, person, server)[0]


def test_a_server_is_an_interactive_job_of_its_person_and_is_reached_through_the_hub(
    hub: RunningHub, client: Client, person: str
) -> None:
    hub.spawn(person)
    hub.wait_ready(person)
    [job] = sessions(client, person)
    assert (job.owner, job.class_, job.state) == (person, "interactive", "running")
    assert hub.visit(person, "/api/status").json()["kernels"] == 0
    hub.stop(person)
    assert client.wait(job.job).state == "cancelled"
    hub.wait_until(lambda: hub.server(person) is None, "the hub still has the server")


def test_the_servers_secret_is_not_in_what_is_shown_of_its_job(hub: RunningHub, client: Client, person: str) -> None:
    with ended(hub, client, person, "shown"), full(client):
        hub.spawn(person, "shown")
        spec = wait_for_job(hub, client, person, "shown").spec
        assert not {"JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN"} & set(spec["env"])
        assert [file["path"] for file in spec["files_in"]] == ["agent.py", "hub-token"]
        hub.stop(person, "shown")


def test_a_session_of_somebody_else_is_judged_as_theirs(hub: RunningHub, person: str) -> None:
    """The hub's token is an administrator's, whose jobs this machine runs; theirs it does not."""
    hub.spawn("berta")
    last = list(hub.progress("berta"))[-1]
    assert f"local runs only jobs of {person}" in last["message"]


def test_people_choose_what_their_session_has(hub: RunningHub, client: Client, person: str) -> None:
    with ended(hub, client, person, "large"), full(client):
        hub.spawn(person, "large", cpu="2", walltime="30m")
        job = wait_for_job(hub, client, person, "large")
        assert (job.cpu, job.spec["walltime"]) == (2000, 1800)
        hub.stop(person, "large")


def test_a_waiting_session_outlives_start_timeout_and_the_hub_and_is_taken_again(
    hub: RunningHub, client: Client, person: str
) -> None:
    with ended(hub, client, person, "patient"):
        with full(client):
            hub.spawn(person, "patient")
            job = wait_for_job(hub, client, person, "patient")
            hub.kill()
            hub.start()
            hub.wait_until(lambda: hub.server(person, "patient") is None, "the hub takes it for running")
            assert client.job(job.job).state == "queued"
            hub.spawn(person, "patient")
            said = next(event for event in hub.progress(person, "patient") if event["progress"] == 10)
            assert client.why(job.job).sentence in said["message"]
        hub.wait_ready(person, "patient")
        assert [found.job for found in sessions(client, person, "patient")] == [job.job]
        assert hub.visit(person, "/api/status", "patient").status_code == 200
        hub.stop(person, "patient")


def test_a_running_session_outlives_the_hub_and_is_found_by_it(hub: RunningHub, client: Client, person: str) -> None:
    with ended(hub, client, person, "lasting"):
        hub.spawn(person, "lasting")
        hub.wait_ready(person, "lasting")
        [job] = sessions(client, person, "lasting")
        hub.kill()
        hub.start()
        hub.wait_ready(person, "lasting")
        assert client.job(job.job).state == "running"
        hub.stop(person, "lasting")
        assert client.wait(job.job).state == "cancelled"


def test_what_the_hub_cannot_reach_as_it_starts_goes_on_and_is_taken_by_the_next_start(
    hub: RunningHub, client: Client, person: str
) -> None:
    with ended(hub, client, person, "silent"):
        hub.spawn(person, "silent")
        hub.wait_ready(person, "silent")
        [job] = sessions(client, person, "silent")
        hub.kill()
        client.signal(job.job, "STOP")
        hub.start()
        hub.wait_until(lambda: hub.server(person, "silent") is None, "the hub takes it for running")
        assert client.job(job.job).state == "running"
        client.signal(job.job, "CONT")
        hub.spawn(person, "silent")
        hub.wait_ready(person, "silent")
        assert [found.job for found in sessions(client, person, "silent")] == [job.job]
        assert hub.visit(person, "/api/status", "silent").status_code == 200
        hub.stop(person, "silent")


def test_while_the_platform_is_away_a_server_is_taken_for_running(
    hub: RunningHub, client: Client, person: str, platform: RunningPlatform
) -> None:
    with ended(hub, client, person, "steady"):
        hub.spawn(person, "steady")
        hub.wait_ready(person, "steady")
        [job] = sessions(client, person, "steady")
        platform.kill()
        try:
            hub.wait_until(lambda: f"{person}:steady: taken for running" in hub.tail(), "it has not polled")
            assert hub.visit(person, "/api/status", "steady").status_code == 200  # the relay does without the platform
        finally:
            platform.start()
        assert (hub.server(person, "steady") or {})["ready"]
        assert client.job(job.job).state == "running"
        hub.stop(person, "steady")


def test_a_session_that_waits_outlives_the_platforms_absence(
    hub: RunningHub, client: Client, person: str, platform: RunningPlatform
) -> None:
    with ended(hub, client, person, "enduring"):
        with full(client):
            hub.spawn(person, "enduring")
            job = wait_for_job(hub, client, person, "enduring")
            platform.kill()
            try:
                assert any("does not answer now" in event["message"] for event in hub.progress(person, "enduring"))
            finally:
                platform.start()
        hub.wait_ready(person, "enduring")
        assert [found.job for found in sessions(client, person, "enduring")] == [job.job]
        hub.stop(person, "enduring")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"environment": {"venv": "/nowhere"}}, "/nowhere"),
        ({"colour": "red"}, "'colour' cannot be chosen for a session"),
        ({"cpu": "many"}, "many"),
    ],
)
def test_a_start_that_failed_says_why(
    hub: RunningHub, client: Client, person: str, options: dict[str, object], words: str
) -> None:
    with ended(hub, client, person, "failing"):
        hub.spawn(person, "failing", **options)
        last = list(hub.progress(person, "failing"))[-1]
        assert last["failed"]
        assert words in last["message"]
        assert "consecutive spawns failed" not in hub.tail()  # of which the hub takes only so many


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("no-such-program", "no-such-program: not found"),
        ("yes >/dev/null", "runs, but its server has not answered within 2 s"),
    ],
)
def test_a_server_that_never_answers_is_ended_and_says_why(
    platform: RunningPlatform,
    client: Client,
    relay: RunningRelay,
    person: str,
    tmp_path: Path,
    command: str,
    words: str,
) -> None:
    more = f'c.Spawner.cmd = ["sh", "-c", "exec {command}"]\nc.AtollSpawner.start_timeout = 2'
    with RunningHub(platform, tmp_path / "hub", relay.port, hub=free_port(), more=more) as hub:
        hub.spawn(person, "mute")
        last = list(hub.progress(person, "mute"))[-1]
        assert last["failed"]
        assert words in last["message"]
        hub.wait_until(lambda: sessions(client, person, "mute")[0].ended, "its job goes on")


def test_a_session_that_has_to_run_again_is_reached_at_the_same_address(
    hub: RunningHub, client: Client, person: str
) -> None:
    with ended(hub, client, person, "again"):
        hub.spawn(person, "again")
        hub.wait_ready(person, "again")
        [job] = sessions(client, person, "again")
        started = hub.visit(person, "/api/status", "again").json()["started"]
        client.requeue(job.job)

        def is_another() -> bool:
            answer = hub.visit(person, "/api/status", "again")
            return answer.status_code == 200 and bool(answer.json()["started"] != started)

        hub.wait_until(is_another, "it is not reached again")
        assert client.job(job.job).attempts == 2
        hub.stop(person, "again")


def test_a_session_that_its_person_cancels_is_over_for_the_hub_too(
    hub: RunningHub, client: Client, person: str
) -> None:
    with ended(hub, client, person, "gone"):
        hub.spawn(person, "gone")
        hub.wait_ready(person, "gone")
        client.cancel(sessions(client, person, "gone")[0].job)
        hub.wait_until(lambda: hub.server(person, "gone") is None, "the hub still has the server")
        hub.spawn(person, "gone")
        hub.wait_ready(person, "gone")
        assert len(sessions(client, person, "gone")) == 2
        hub.stop(person, "gone")
