"""Streams between people and a session's server on this machine, in both directions, whatever is killed."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest

from atoll.client.synchronous import Client
from tests.support.platform import RunningPlatform
from tests.support.relay import RunningRelay, Target, session


def test_what_is_sent_comes_back(relay: RunningRelay, job: int) -> None:
    data = os.urandom(20_000_000)
    assert relay.ask(job, b"echo", data) == data


def test_either_direction_ends_alone(relay: RunningRelay, job: int) -> None:
    assert relay.ask(job, b"count", bytes(3_000_000)) == b"3000000\n"


def test_session_reaches_the_target_and_nothing_else(relay: RunningRelay, job: int, target: Target) -> None:
    data = os.urandom(2_000_000)
    assert relay.ask(job, b"outside", data) == b"hello " + data
    for _ in range(5):
        assert relay.ask(job, b"outside", b"again") == b"hello again"


def test_server_may_be_at_a_unix_socket(client: Client, relay: RunningRelay) -> None:
    made = client.submit(session(client, place="{socket}"))
    assert relay.wait_for(made.id, b"who") == b"1\n"
    client.cancel(made.id)


def test_taken_port_gives_way_to_the_next(client: Client, relay: RunningRelay) -> None:
    port = 24_000
    jobs = [client.submit(session(client, port=port)).id for _ in range(3)]
    assert [relay.wait_for(each, b"who") for each in jobs] == [b"1\n"] * 3
    for each in jobs:
        client.cancel(each)


def test_agent_ends_with_its_servers_exit_code(client: Client, relay: RunningRelay) -> None:
    made = client.submit(session(client))
    relay.wait_for(made.id)
    relay.ask(made.id, b"status 7")
    assert client.wait(made.id).exit_code == 7


def test_relay_killed_and_started_goes_on_at_the_same_address(relay: RunningRelay, job: int) -> None:
    with relay.connect(job) as before:
        before.sendall(b"echo\n1")
        assert before.recv(1) == b"1"
        relay.kill()
        assert before.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        relay.connect(job)
    relay.start()
    assert relay.wait_for(job) == b"1\n"
    assert relay.ask(job, b"outside", b"again") == b"hello again"


def test_terminated_relay_gives_streams_a_moment(relay: RunningRelay, job: int) -> None:
    with relay.connect(job) as stream:
        stream.sendall(b"echo\n1")
        assert stream.recv(1) == b"1"
        assert relay.process is not None
        relay.process.send_signal(signal.SIGTERM)
        relay.wait_for_log("the relay stops")
        with pytest.raises(ConnectionRefusedError):
            relay.connect(job)
        stream.sendall(b"still here")
        assert stream.recv(10) == b"still here"
        stream.shutdown(socket.SHUT_WR)
        assert stream.recv(1) == b""
    assert relay.process.wait(15) == 0
    relay.start()
    relay.wait_for(job)


def test_restart_of_the_platform_touches_no_stream(platform: RunningPlatform, relay: RunningRelay, job: int) -> None:
    with relay.connect(job) as stream:
        stream.sendall(b"echo\n")
        for _ in range(2):
            platform.kill()
            stream.sendall(b"while it is gone")
            assert stream.recv(16) == b"while it is gone"
            platform.start()
            stream.sendall(b"when it is back")
            assert stream.recv(15) == b"when it is back"
        assert relay.ask(job, b"outside", b"again") == b"hello again"


def test_next_attempt_is_reached_at_the_same_address(client: Client, relay: RunningRelay, job: int) -> None:
    with relay.connect(job) as stream:
        stream.sendall(b"echo\n1")
        assert stream.recv(1) == b"1"
        client.requeue(job)
        while stream.recv(1):
            pass
    deadline = time.monotonic() + 30
    while (said := relay.wait_for(job)) != b"2\n":
        assert said == b"1\n"
        assert time.monotonic() < deadline
    assert relay.ask(job, b"outside", b"again") == b"hello again"


def test_job_that_does_not_run_refuses_at_once(client: Client, relay: RunningRelay) -> None:
    made = client.submit(session(client))
    relay.wait_for(made.id)
    client.cancel(made.id)
    client.wait(made.id)
    relay.wait_for_log(f"job {made.id} at local is reached no more")
    with pytest.raises(ConnectionRefusedError):
        relay.connect(made.id)


def test_agent_survives_without_a_relay(client: Client, relay: RunningRelay, job: int) -> None:
    """Somebody inside who asks while the relay is away is served when it is back."""
    with relay.connect(job) as stream:
        stream.sendall(b"echo\n")
        relay.kill()
    relay.start()
    assert relay.wait_for(job, b"outside") == b"hello "
