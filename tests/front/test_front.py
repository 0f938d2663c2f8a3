"""`atoll up` as people start it: the platform behind its proxy, on one port, through the death of any part."""

from __future__ import annotations

import hashlib
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
import yaml

from atoll.client.synchronous import Client
from atoll.control.relay import address_of
from atoll.core.config import Tls
from atoll.core.errors import Unavailable
from atoll.front import proxy
from tests.support.platform import RunningPlatform
from tests.support.ports import free_port
from tests.support.relay import Target, session

PARTS = {"the platform": "atoll.api.server", "the proxy": "--configFile="}
RELAY = "atoll.control.relay"


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    with RunningPlatform(tmp_path_factory.mktemp("front") / "data", flags=()) as platform:
        yield platform


def part(front: RunningPlatform, name: str) -> psutil.Process:
    """The process of a part that runs now."""
    assert front.process is not None
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for child in psutil.Process(front.process.pid).children():
            if any(PARTS[name] in word for word in child.cmdline()):
                return child
        time.sleep(0.02)  # nothing tells when another process was started
    raise AssertionError(f"{name} does not run:\n{front.tail()}")


def end(front: RunningPlatform) -> None:
    """Kill what stands in front, and wait until its parts are gone too."""
    assert front.process is not None
    below = psutil.Process(front.process.pid).children()
    front.kill()
    gone, left = psutil.wait_procs(below, timeout=10)
    assert len(gone) == 2
    assert not left


def test_one_port_serves_the_platform_and_its_commands(front: RunningPlatform) -> None:
    assert httpx2.get(f"{front.url}/readyz").text == "ok\n"
    done = front.command("run", "--", "echo", "through the proxy")
    assert "through the proxy" in done.stdout


def test_the_client_file_names_the_address_that_people_use(front: RunningPlatform) -> None:
    assert f'"url": "http://127.0.0.1:{front.port}"' in (front.data / "client.json").read_text()


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_is_killed_comes_back_and_nobody_is_refused(front: RunningPlatform, name: str) -> None:
    before = part(front, name)
    before.kill()
    before.wait(10)
    # the sockets are held in front: who comes now waits; a proxy that has just come knows no routes for a moment
    assert httpx2.get(f"{front.url}/readyz", timeout=30).status_code in {200, 404 if name == "the proxy" else 200, 503}
    front.wait_ready()
    assert part(front, name).pid != before.pid


def test_after_the_death_of_all_it_starts_again_on_the_same_port(front: RunningPlatform) -> None:
    submitted = front.command("submit", "-o", "name", "--", "true").stdout.strip()
    end(front)
    front.start()
    assert front.command("wait", submitted).returncode == 0


def test_names_below_the_platforms_own_are_peoples_and_show_nothing_of_it(front: RunningPlatform) -> None:
    with httpx2.Client() as client:
        for path in ("/", "/api/v1/version", "/readyz"):
            answer = client.get(f"{front.url}{path}", headers={"Host": f"alice.localhost:{front.port}"})
            assert answer.status_code == 503
            assert "atoll" not in answer.text.lower()


def test_who_comes_through_the_proxy_is_not_taken_for_a_local_one(front: RunningPlatform) -> None:
    """The platform sees the loopback behind every request: that must mean nothing."""
    assert httpx2.get(f"{front.url}/metrics").status_code == 401
    spoofed = {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"}
    assert httpx2.get(f"{front.url}/metrics", headers=spoofed).status_code == 401
    assert front.request("GET", "/metrics").status_code == 200


def test_large_bodies_pass_both_ways(front: RunningPlatform) -> None:
    content = b"0123456789abcdef" * (1 << 18)  # 4 MiB
    digest = hashlib.sha256(content).hexdigest()
    assert front.request("PUT", f"/api/v1/files/{digest}", content=content).status_code in (200, 201, 204)


def test_events_come_as_they_happen(front: RunningPlatform) -> None:
    """Nothing in between holds a stream back until it is full."""
    submitted = front.command("submit", "-o", "name", "--", "sleep", "60").stdout.strip()
    headers = {"Authorization": f"Bearer {front.token}"}
    with httpx2.stream("GET", f"{front.url}/api/v1/events?job={submitted}", headers=headers, timeout=10) as stream:
        assert "event:" in next(stream.iter_text())
    front.command("cancel", submitted)


def test_ctrl_c_ends_all_parts(front: RunningPlatform) -> None:
    assert front.process is not None
    below = psutil.Process(front.process.pid).children()
    assert front.interrupt() == 0
    gone, left = psutil.wait_procs(below, timeout=10)
    assert (len(gone), left) == (2, [])
    front.start()


def test_a_second_one_on_the_same_folder_is_told_so_and_leaves_nothing_behind(front: RunningPlatform) -> None:
    done = up(front.data, free_port())
    assert (done.returncode, "Another Atoll runs on the data folder" in done.stderr) == (75, True), done.stderr
    assert httpx2.get(f"{front.url}/readyz").status_code == 200


def test_a_port_in_use_is_said_before_anything_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = up(tmp_path / "data", taken.getsockname()[1])
    assert "Choose another port with --port" in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"Traefik is not installed.*--bare"):
        proxy.find_traefik()


def test_uploads_may_take_as_long_as_they_like(tmp_path: Path) -> None:
    proxy.write_static(tmp_path, None)
    entry = yaml.safe_load((tmp_path / "static.yaml").read_text())["entryPoints"]["web"]
    assert entry["transport"]["respondingTimeouts"]["readTimeout"] == 0


def test_certificates_that_are_configured_are_shown_to_visitors(tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    config = tmp_path / "atoll.yaml"
    port = free_port()
    files = {"certificate": tls.certificate, "key": tls.key}
    config.write_text(yaml.safe_dump({"address": f"https://localhost:{port}", "tls": files}))
    platform = RunningPlatform(data, port=port, flags=("--config", str(config)))
    platform.url, platform.verify = f"https://localhost:{port}", ssl.create_default_context(cafile=tls.certificate)
    with platform:  # it is ready once it answers by https
        assert f'"url": "https://localhost:{port}"' in (data / "client.json").read_text()


@pytest.mark.parametrize("lacks", ["certificate", "key"])
def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path, lacks: str) -> None:
    found = certificate(tmp_path).model_dump() | {lacks: str(tmp_path / "nowhere.pem")}
    config = tmp_path / "atoll.yaml"
    config.write_text(yaml.safe_dump({"tls": found}))
    done = up(tmp_path / "data", free_port(), "--config", str(config))
    assert f"tls.{lacks}" in done.stderr or "nowhere.pem" in done.stderr
    assert done.returncode != 0


def certificate(folder: Path) -> Tls:
    """A certificate for localhost, signed by itself."""
    key, pem = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,DNS:*.localhost", "-keyout", str(key),
         "-out", str(pem)],
        check=True, capture_output=True,
    )  # fmt: skip
    return Tls(certificate=str(pem), key=str(key))


def up(data: Path, port: int, *words: str) -> subprocess.CompletedProcess[str]:
    """`atoll up`, which is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "atoll", "up", "--data", str(data), "--port", str(port), *words],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_with_a_target_the_relay_runs_beside_the_platform_and_comes_back(tmp_path: Path) -> None:
    port, relay = free_port(), free_port()
    config = tmp_path / "atoll.yaml"
    with Target() as target:
        config.write_text(yaml.safe_dump({"relay": {"target": target.address, "port": relay}}))
        flags = ("--config", str(config))
        with RunningPlatform(tmp_path / "data", port=port, flags=flags) as platform:
            with Client(platform.url, platform.token) as client:
                job = client.submit(session(client)).id
            assert said_by(job, relay)
            before = relay_of(platform)
            before.kill()
            before.wait(10)
            with pytest.raises(OSError, match="in use"):  # nobody else gets its port meanwhile
                socket.create_server(("127.0.0.1", relay))
            assert said_by(job, relay)
            assert relay_of(platform).pid != before.pid
            platform.command("cancel", str(job))


def test_without_a_target_no_relay_runs(front: RunningPlatform) -> None:
    assert front.process is not None
    below = psutil.Process(front.process.pid).children()
    assert not any(RELAY in child.cmdline() for child in below)


def relay_of(platform: RunningPlatform) -> psutil.Process:
    """The relay's process."""
    assert platform.process is not None
    return next(child for child in psutil.Process(platform.process.pid).children() if RELAY in child.cmdline())


def said_by(job: int, port: int) -> bytes:
    """What a job's server says, once the relay brings us there."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection(address_of(job, port), timeout=10) as connection:
                connection.sendall(b"who\n")
                connection.shutdown(socket.SHUT_WR)
                if said := connection.recv(1 << 16):
                    return said
        except OSError:
            pass  # the job or the relay has not begun yet
        assert time.monotonic() < deadline, "the job is not reached"
        time.sleep(0.05)  # nothing tells when it is
