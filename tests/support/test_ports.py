"""No two who ask for a port are given the same one."""

import socket
import subprocess
import sys
from pathlib import Path

from tests.support import ports

_ASK = "from tests.support.ports import free_port; print(*(free_port() for _ in range(300)), flush=True); input()"


def test_processes_are_given_different_ports() -> None:
    asking = [
        subprocess.Popen([sys.executable, "-c", _ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    given = [ports.free_port() for _ in range(300)]
    for process in asking:
        assert process.stdout is not None
        given += map(int, process.stdout.readline().split())
    for process in asking:
        process.communicate("\n")
    assert len(set(given)) == len(given) == 1200


def test_ports_in_use_are_passed_over() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        assert not ports._claim(listener.getsockname()[1])


def test_no_port_of_outgoing_connections() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert ports.free_port() < first
