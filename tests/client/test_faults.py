"""What the client makes of a platform that is away, slow, broken or somebody else."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from atoll.client.asynchronous import AsyncClient
from atoll.client.retry import Attempts
from atoll.client.synchronous import Client
from atoll.core.errors import Conflict, Denied, Internal, Invalid, NotFound, Unavailable
from tests.client.faulty import (
    Behaviour,
    FaultyServer,
    answers,
    by_path,
    cuts_off,
    hangs_up,
    in_turn,
    job,
    never_answers,
    refuses,
    streams,
    talks_nonsense,
)  # fmt: skip

SUBMITTED = answers({"id": 7, "name": "x", "state": "queued", "tasks": 1, "warnings": []}, 201)


def client_of(server: FaultyServer, **settings: Any) -> Client:
    return Client(server.url, "atl_secret", patience=settings.pop("patience", 5.0), **settings)


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_a_platform_that_is_not_there_is_told_of_with_what_to_do(nobody: str) -> None:
    with Client(nobody, "t", patience=0.2) as client, pytest.raises(Unavailable, match=r"refused.*atoll up"):
        client.version()


@pytest.mark.parametrize("fault", [hangs_up, cuts_off, talks_nonsense, refuses(503, "starting", "It starts.")])
def test_a_submission_is_sent_again_with_the_same_key_until_it_is_answered(fault: Behaviour) -> None:
    with FaultyServer(fault, fault, SUBMITTED) as server, client_of(server) as client:
        assert client.submit(command=["true"]).id == 7
        keys = {seen.headers["idempotency-key"] for seen in server.seen}
    assert len(server.seen) == 3
    assert len(keys) == 1


def test_two_submissions_have_different_keys() -> None:
    with FaultyServer(SUBMITTED) as server, client_of(server) as client:
        client.submit(command=["true"])
        client.submit(command=["true"])
        assert len({seen.headers["idempotency-key"] for seen in server.seen}) == 2


def test_a_signal_whose_answer_was_lost_is_not_sent_twice() -> None:
    with FaultyServer(hangs_up) as server, client_of(server) as client:
        with pytest.raises(Unavailable, match="not known"):
            client.signal(1, "USR1")
        assert len(server.seen) == 1


def test_a_signal_that_the_platform_could_not_take_yet_is_sent_again() -> None:
    changed = answers({"changed": 1, "job": job("running")})
    with FaultyServer(refuses(503, "starting", "It starts."), changed) as server, client_of(server) as client:
        assert client.signal(1, "USR1").changed == 1


def test_a_platform_that_stays_unavailable_is_given_up_with_its_own_words() -> None:
    fault = refuses(503, "database_away", "The database does not answer.")
    with (
        FaultyServer(fault) as server,
        client_of(server, patience=0.5) as client,
        pytest.raises(Unavailable, match="The database does not answer"),
    ):
        client.version()
    assert len(server.seen) > 1


def test_a_slow_answer_is_not_waited_for_without_end() -> None:
    release = threading.Event()
    with (
        FaultyServer(never_answers(release)) as server,
        client_of(server, patience=0.3, timeout=0.2) as client,
        pytest.raises(Unavailable, match="no answer in time"),
    ):
        client.version()
    release.set()


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (refuses(422, "invalid_job", "cpu: No.", field="cpu"), Invalid),
        (refuses(401, "no", "Who are you?"), Denied),
        (refuses(403, "no", "You may not."), Denied),
        (refuses(404, "no_job", "There is no job 1."), NotFound),
        (refuses(409, "ended", "It has ended."), Conflict),
    ],
)
def test_an_error_of_the_platform_is_raised_as_what_it_is(behaviour: Behaviour, error: type[Exception]) -> None:
    with FaultyServer(behaviour) as server, client_of(server) as client:
        with pytest.raises(error):
            client.job(1)
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    "behaviour",
    [
        answers(b"<html>Welcome to nginx!</html>", kind="text/html"),
        answers(b"<html>404</html>", 404, kind="text/html"),
        answers(b"", 301, Location="http://elsewhere/"),
        answers({"unexpected": True}),
        answers([1, 2]),
    ],
)
def test_an_answer_that_is_not_atolls_is_told_as_that(behaviour: Behaviour) -> None:
    with (
        FaultyServer(behaviour) as server,
        client_of(server) as client,
        pytest.raises(Internal, match="does not seem to be Atoll"),
    ):
        client.job(1)


def test_the_token_is_sent_and_never_shown() -> None:
    with FaultyServer(answers({"person": "ada"})) as server, client_of(server) as client:
        client.me()
        assert server.seen[0].headers["authorization"] == "Bearer atl_secret"
        assert "atl_secret" not in repr(client.platform)


def test_fields_states_and_codes_of_a_newer_platform_are_accepted() -> None:
    newer = job("hibernating", reason={"code": "Winter", "sentence": "It is cold.", "depth": 3}, carbon=12)
    with FaultyServer(answers(newer)) as server, client_of(server) as client:
        found = client.job(1)
    assert found.state == "hibernating"
    assert not found.ended


def test_waiting_survives_broken_streams_and_asks_again_after_each() -> None:
    opened: tuple[str, dict[str, Any], str | None] = ("opened", {"cursor": "5"}, None)
    ended = ("job", {"id": "1", "job": 1, "task": None, "state": "succeeded"}, "9")
    events = in_turn(streams(opened), hangs_up, streams(opened, ("job", {"job": 1, "state": "running"}, "8")),
                     refuses(503, "starting", "It starts."), streams(opened, ended))  # fmt: skip
    states = in_turn(*[answers(job("running"))] * 9, answers(job("succeeded", exit_code=0)))
    with FaultyServer(by_path(events=events, jobs=states)) as server, client_of(server) as client:
        assert client.wait(1).exit_code == 0
        resumed = [seen.headers.get("last-event-id") for seen in server.seen if "events" in seen.path]
    assert "8" in resumed


def test_waiting_for_what_has_ended_asks_once() -> None:
    with FaultyServer(answers(job("failed", exit_code=3))) as server, client_of(server) as client:
        assert client.wait(1).exit_code == 3
        assert [seen.path for seen in server.seen] == ["/api/v1/jobs/1"]


def test_waiting_for_a_job_that_is_not_there_ends_at_once() -> None:
    with (
        FaultyServer(refuses(404, "no_job", "There is no job 1.")) as server,
        client_of(server) as client,
        pytest.raises(NotFound),
    ):
        client.wait(1)


def chunk(text: str, number: str) -> tuple[str, dict[str, Any], str]:
    return ("chunk", {"stream": "stdout", "attempt": 1, "offset": 0, "text": text}, number)


def test_following_goes_on_after_a_break_where_it_was() -> None:
    first = streams(("opened", {}, None), chunk("one\n", "1:4:0"), chunk("two\n", "1:8:0"))
    rest = streams(
        ("opened", {}, None), chunk("three\n", "1:14:0"), ("end", {"state": "succeeded", "exit_code": 0}, None)
    )
    with FaultyServer(first, hangs_up, rest) as server, client_of(server) as client:
        texts = [event.json()["text"] for event in client.follow(1) if event.name == "chunk"]
    assert texts == ["one\n", "two\n", "three\n"]
    assert [seen.headers.get("last-event-id") for seen in server.seen] == [None, "1:8:0", "1:8:0"]


def test_a_stream_that_breaks_off_with_a_problem_raises_it() -> None:
    problem = {"status": 404, "code": "no_job", "detail": "The job was purged."}
    with (
        FaultyServer(streams(("opened", {}, None), ("problem", problem, None))) as server,
        client_of(server) as client,
        pytest.raises(NotFound, match="purged"),
    ):
        list(client.follow(1))


def test_a_web_page_in_place_of_a_stream_is_told_as_that() -> None:
    page = answers(b"<html>hello</html>", kind="text/html")
    with (
        FaultyServer(page) as server,
        client_of(server) as client,
        pytest.raises(Internal, match="does not seem to be Atoll"),
    ):
        list(client.follow(1))


async def test_the_asynchronous_client_sends_again_waits_and_follows_alike() -> None:
    opened: tuple[str, dict[str, Any], str | None] = ("opened", {}, None)
    events = streams(opened, ("job", {"job": 1, "task": None, "state": "succeeded"}, "3"))
    states = in_turn(*[answers(job("running"))] * 2, answers(job("succeeded", exit_code=0)))
    follow = in_turn(streams(opened, chunk("a", "1:1:0")), streams(opened, ("end", {}, None)))
    submit = in_turn(hangs_up, SUBMITTED)
    server = FaultyServer(by_path(events=events, follow=follow, **{"jobs/1": states, "jobs": submit}))
    with server:
        async with AsyncClient(server.url, "t", patience=5.0) as client:
            assert (await client.submit(command=["true"])).id == 7
            assert (await client.wait(1)).exit_code == 0
            assert [event.name async for event in client.follow(1)] == ["opened", "chunk", "opened", "end"]


def test_a_stored_file_is_not_sent_again(tmp_path: Any) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"x" * 3_000_000)
    with FaultyServer(answers({}, 200)) as server, client_of(server) as client:
        client.upload(file)
        assert [seen.method for seen in server.seen] == ["HEAD"]


def test_an_upload_that_breaks_off_is_sent_again_from_its_start(tmp_path: Any) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"x" * 3_000_000)
    stored = answers({"sha256": "0" * 64, "size": 3_000_000}, 201)
    behaviours = (answers({}, 404), hangs_up, refuses(503, "starting", "It starts."), stored)
    with FaultyServer(*behaviours) as server, client_of(server) as client:
        told: list[int] = []
        from atoll.client.files import local_files

        client.upload(local_files("data", tmp_path)[0], told.append)
        assert [len(seen.body) for seen in server.seen] == [0, 3_000_000, 3_000_000, 3_000_000]


def test_a_fetched_output_with_other_content_than_announced_is_not_kept(tmp_path: Any) -> None:
    from atoll.client.models import Output

    with FaultyServer(answers(b"poison", kind="application/octet-stream")) as server, client_of(server) as client:
        with pytest.raises(Internal, match="not what was announced"):
            client.fetch(1, Output(path="a/b", sha256="0" * 64, size=6), tmp_path)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_bulk_submission_sends_documents_without_defaults() -> None:
    with FaultyServer(answers({"ids": [4, 5]}, 201)) as server, client_of(server) as client:
        assert client.submit_many([{"command": "echo a"}, {"command": ["b"], "cpu": 2}]) == [4, 5]
        body = json.loads(server.seen[0].body)
    assert body == {"jobs": [{"command": ["echo", "a"]}, {"command": ["b"], "cpu": "2"}]}


def test_delays_grow_and_end_with_patience() -> None:
    now = [0.0]
    told: list[str] = []
    attempts = Attempts("http://x", 10.0, told.append, lambda: now[0])
    delays = []
    while now[0] < 10.0:
        delays.append(attempts.delay("connection refused"))
        now[0] += delays[-1]
    with pytest.raises(Unavailable):
        attempts.delay("connection refused")
    assert sum(delays) == pytest.approx(10.0)
    assert max(delays) <= 5.0
    assert len(told) == 1


def test_a_platform_that_answered_gets_all_its_patience_again() -> None:
    now = [0.0]
    attempts = Attempts("http://x", 1.0, None, lambda: now[0])
    attempts.delay("x")
    now[0] = 0.9
    attempts.progress()
    now[0] = 1.5
    assert attempts.delay("x") > 0
