"""Bad input from the cluster's side: each gives one sentence that names what is wrong, and none lasts for ever."""

import asyncio
import contextlib
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from atoll.core.ids import new_attempt_id
from atoll.core.resources import Resources
from atoll.core.spec import JobSpec
from atoll.drivers.base import DriverError, DriverSetup, Held, Launch, StopReason, StopRequest, Unknown
from atoll.drivers.kubernetes import KubernetesDriver
from tests.drivers.kubernetes.conftest import write_kubeconfig
from tests.support.ports import free_port

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


def status(code: int, reason: str, message: str) -> bytes:
    body = f'{{"kind":"Status","code":{code},"reason":"{reason}","message":"{message}"}}'.encode()
    head = f"HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def text(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@contextlib.asynccontextmanager
async def server(answer: bytes | None, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Something that says `answer` to whatever it is asked; None: it listens and says nothing."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                if answer is None:
                    await over.wait()
                    break
                writer.write(answer)
                await writer.drain()
                if not answer.startswith(b"HTTP"):
                    break
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        over.set()
        listener.close()


def driver_for(folder: Path, url: str, **cluster: object) -> KubernetesDriver:
    config = {"kubeconfig": str(write_kubeconfig(folder, url, **cluster)), "timeout": 1, "image": "i"}
    return KubernetesDriver(DriverSetup("k8s", "abcde", folder, config, "ada"))


async def trouble(driver: KubernetesDriver) -> str:
    """The sentence of a question, which is the same for all questions."""
    try:
        with pytest.raises(DriverError) as caught:
            await driver.observe([])
        with pytest.raises(DriverError):
            await driver.describe()
        held = Held("abcde-0000000000000000", "lab/atoll-abcde-0000000000000000")
        with pytest.raises(DriverError):
            await driver.stop([StopRequest(held, StopReason.CANCELLED, 1)])
        sentence = str(caught.value)
        assert sentence.endswith(".")
        assert "\n" not in sentence
        assert len(sentence) < 700
        assert "a-token" not in sentence
        return sentence
    finally:
        await driver.close()


ANSWERS: dict[str, tuple[bytes, str]] = {
    "a wrong token": (status(401, "Unauthorized", "Unauthorized"), "does not take our credentials: Unauthorized"),
    "no right to list": (
        status(403, "Forbidden", "jobs.batch is forbidden: User 'x' cannot list resource 'jobs'"),
        "does not allow it: jobs.batch is forbidden: User 'x' cannot list resource 'jobs'",
    ),
    "a page that expired": (status(410, "Expired", "too old"), "answered 410: too old"),
    "a server in trouble": (status(500, "InternalError", "etcdserver: no leader"), "500: etcdserver: no leader"),
    "a web page": (text(b"<html>Welcome</html>"), "cannot be read"),
    "another kind of JSON": (text(b'{"items": [{"metadata": "x"}]}'), "cannot be read"),
    "half a list": (text(b'{"items": [{"metadata": {"name": "a"}}'), "cannot be read"),
    "no HTTP at all": (b"SSH-2.0-OpenSSH_9.2\r\n", "cannot be understood"),
    "a redirect in circles": (
        b"HTTP/1.1 302 X\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "cannot be understood",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "words"), list(ANSWERS.values()), ids=list(ANSWERS))
async def test_answer_that_is_none_is_told_in_one_sentence(answer: bytes, words: str, tmp_path: Path) -> None:
    async with server(answer) as port:
        sentence = await trouble(driver_for(tmp_path, f"http://127.0.0.1:{port}"))
    assert words in sentence, sentence


async def test_cluster_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    port = free_port()
    sentence = await trouble(driver_for(tmp_path, f"http://127.0.0.1:{port}"))
    assert sentence == f"The cluster at http://127.0.0.1:{port} cannot be reached: Connection refused."


async def test_list_that_never_ends_is_given_up(tmp_path: Path) -> None:
    """The same page again and again, each with another to come."""
    body = b'{"metadata": {"continue": "again"}, "items": []}'
    async with server(text(body)) as port:
        driver = driver_for(tmp_path, f"http://127.0.0.1:{port}")
        with pytest.raises(DriverError, match="has no end"):
            await driver.observe([])
        await driver.close()


async def test_cluster_that_hangs_is_given_up_in_time(tmp_path: Path) -> None:
    async with server(None) as port:
        driver = driver_for(tmp_path, f"http://127.0.0.1:{port}")
        begun = time.monotonic()
        held = Held("abcde-0000000000000000", "lab/atoll-abcde-0000000000000000")
        with pytest.raises(DriverError, match="did not answer within 1 s"):
            await driver.stop([StopRequest(held, StopReason.CANCELLED, 1)])
        assert time.monotonic() - begun < 3
        await driver.close()


async def test_submission_to_a_cluster_that_hangs_may_have_landed(tmp_path: Path) -> None:
    nodes = text(b'{"items": [{"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "9", "memory": "9Gi"}, '
                 b'"conditions": [{"type": "Ready", "status": "True"}]}}], "metadata": {}}')  # fmt: skip
    async with server(nodes) as port:
        driver = driver_for(tmp_path, f"http://127.0.0.1:{port}")
        await driver.describe()
    await driver.close()
    async with server(None) as port:
        write_kubeconfig(tmp_path, f"http://127.0.0.1:{port}")
        job = JobSpec.model_validate({"command": ["true"]})
        launches = [
            Launch(
                new_attempt_id("abcde"),
                1,
                None,
                1,
                1,
                "k",
                "ada",
                "physics",
                None,
                job,
                Resources(100, 1 << 20),
                1,
                None,
            )
            for _ in range(20)
        ]
        begun = time.monotonic()
        answers = await driver.submit(launches)
        await driver.close()
    assert all(isinstance(answer, Unknown) and "did not answer" in answer.message for answer in answers)
    assert time.monotonic() - begun < 8, "each waits for its own time-out, one after the other"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    key, certificate = tmp_path / "tls.key", tmp_path / "tls.crt"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=somebody", "-addext", "subjectAltName=DNS:somewhere.example"]
    subprocess.run(["openssl", *words, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


@pytest.mark.parametrize(("known", "words"), [(False, "self-signed certificate"), (True, "127.0.0.1")])
async def test_certificate_that_is_not_the_clusters_is_not_trusted(
    certificate: tuple[Path, Path], known: bool, words: str, tmp_path: Path
) -> None:
    """Neither of an authority that nobody knows, nor of a known one for another name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    async with server(text(b"{}"), context) as port:
        authority = {"certificate-authority": str(certificate[0])} if known else {}
        sentence = await trouble(driver_for(tmp_path, f"https://127.0.0.1:{port}", **authority))
    assert "The certificate of the cluster" in sentence
    assert "is not trusted" in sentence
    assert words in sentence


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "is not there"), ("", "cannot be used"), ("a: [", "cannot be used"), ("clusters: []\n", "cannot be used"),
     ("apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: []\nclusters: []\nusers: []\n", "cannot be used")],
)  # fmt: skip
async def test_kubeconfig_that_cannot_be_used_is_named(content: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "broken"
    if content is not None:
        path.write_text(content)
    driver = KubernetesDriver(DriverSetup("k8s", "abcde", tmp_path, {"kubeconfig": str(path)}, "ada"))
    sentence = await trouble(driver)
    assert str(path) in sentence
    assert words in sentence


async def test_platform_outside_a_cluster_says_that_it_needs_a_kubeconfig(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    driver = KubernetesDriver(DriverSetup("k8s", "abcde", tmp_path, {}, "ada"))
    sentence = await trouble(driver)
    assert "the pod that the platform runs in" in sentence


async def test_renewed_token_is_read_without_a_restart(tmp_path: Path) -> None:
    """A token that is not taken any more is looked for again in its file, once."""
    async with server(status(401, "Unauthorized", "expired")) as port:
        driver = driver_for(tmp_path, f"http://127.0.0.1:{port}")
        with pytest.raises(DriverError, match="credentials"):
            await driver.observe([])
    async with server(text(b'{"items": [], "metadata": {}}')) as port:
        write_kubeconfig(tmp_path, f"http://127.0.0.1:{port}")
        with contextlib.suppress(DriverError):  # the kept client still knows the old place
            await driver.observe([])
        await driver.close()
        assert (await driver.observe([])).states == {}
        await driver.close()
