"""Addresses of jobs, and that nobody takes them."""

from __future__ import annotations

import os
import socket

import pytest

from atoll.control.relay import address_of, reserve
from atoll.control.relay.addresses import listen
from atoll.core.errors import Conflict
from tests.support.engines import skip_without
from tests.support.ports import free_port


def test_each_job_has_a_loopback_address_of_its_own() -> None:
    jobs = [*range(1, 70_000), 16_000_000, 2**40]
    addresses = [address_of(job, 8471) for job in jobs]
    assert addresses[0] == ("127.1.0.1", 8471)
    assert len(set(addresses)) == len(jobs)
    assert all(host.startswith("127.") and not host.startswith("127.0.") for host, _ in addresses)


def test_reserved_port_refuses_connections_until_a_job_listens() -> None:
    port = free_port()
    with reserve(port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address_of(5, port))
        with listen(address_of(5, port)):
            socket.create_connection(address_of(5, port)).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address_of(6, port))


def test_port_is_reserved_once() -> None:
    port = free_port()
    with reserve(port), pytest.raises(Conflict, match=f"cannot have the port {port}"):
        reserve(port)
    reserve(port).close()


def test_port_is_reserved_again_while_connections_of_before_linger() -> None:
    port = free_port()
    address = address_of(5, port)
    with reserve(port), listen(address) as listener:
        client = socket.create_connection(address)
        listener.setblocking(True)
        listener.accept()[0].close()
    reserve(port).close()
    client.close()


@pytest.mark.parametrize("option", [None, socket.SO_REUSEADDR, socket.SO_REUSEPORT])
@pytest.mark.parametrize("place", ["127.1.0.5", "127.1.0.6", "0.0.0.0", "::", "::ffff:127.1.0.5"])
def test_other_account_cannot_listen_at_a_jobs_address(option: int | None, place: str) -> None:
    """Neither while the job runs (5), nor while it does not (6)."""
    if os.geteuid() != 0:
        skip_without("root", "only root can try it as another account")
    port = free_port()
    with reserve(port), listen(address_of(5, port)):
        child = os.fork()
        if child == 0:
            os._exit(_take(place, port, option))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 98  # EADDRINUSE


def _take(place: str, port: int, option: int | None) -> int:
    """What listening there as another account gives: an error number, or 0."""
    try:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        with socket.socket(socket.AF_INET6 if ":" in place else socket.AF_INET) as thief:
            if option is not None:
                thief.setsockopt(socket.SOL_SOCKET, option, 1)
            thief.bind((place, port))
            thief.listen()
    except OSError as error:
        return error.errno or 1
    return 0
