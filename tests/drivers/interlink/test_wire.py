"""A plugin is reached over http, https and unix sockets; what is wrong with the way to it is said in one sentence."""

import datetime
import ipaddress
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from atoll.drivers.base import DriverError, DriverSetup
from atoll.drivers.interlink import InterlinkDriver
from tests.support.interlink import InterlinkPlugin
from tests.support.ports import free_port

TOTAL = {"cpus": 4, "memory": "4G"}


@contextmanager
def running(**options: str) -> Iterator[InterlinkPlugin]:
    plugin = InterlinkPlugin(**options)
    try:
        yield plugin
    finally:
        plugin.stop()


async def asked(folder: Path, **config: Any) -> str:
    """What describing the site says: nothing, or the sentence of the error."""
    driver = InterlinkDriver(DriverSetup("grid", "aaaaa", folder, {"total": TOTAL, "timeout": 3, **config}, "owner"))
    try:
        await driver.describe()
    except DriverError as error:
        sentence = str(error)
    else:
        return ""
    finally:
        await driver.close()
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def authority() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    return certificate("Test authority", key, "Test authority", key, own=True), key


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey, *, own: bool = False
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (name, issuer)]
    builder = (
        x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=own, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )  # fmt: skip
    if own:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(signer, hashes.SHA256())


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files: an authority `ca`, another one `other`, and `server` and `client` signed by the first, with their keys."""
    folder = tmp_path_factory.mktemp("keys")
    root, root_key = authority()
    written = {"ca": root, "other": authority()[0]}
    for name in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        written[name] = certificate(name, key, "Test authority", root_key)
        plain = serialization.NoEncryption()
        text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        (folder / f"{name}-key").write_bytes(text)
    for name, each in written.items():
        (folder / name).write_bytes(each.public_bytes(serialization.Encoding.PEM))
    return {path.name: str(path) for path in folder.iterdir()}


async def test_plain_http_and_its_end(tmp_path: Path) -> None:
    with running(port=str(free_port())) as plugin:
        assert await asked(tmp_path, url=plugin.url) == ""
        assert "404" in await asked(tmp_path, url=f"{plugin.url}/elsewhere")
    assert "cannot be reached" in await asked(tmp_path, url=plugin.url)


async def test_unix_socket_that_is_not_there(tmp_path: Path) -> None:
    assert "cannot be reached" in await asked(tmp_path, url="unix:///no/such/plugin.sock")


async def test_token_is_needed_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    with running(port=str(free_port()), token="open-sesame") as plugin:
        assert "does not accept the platform's token" in await asked(tmp_path, url=plugin.url)
        file.write_text("wrong-word")
        sentence = await asked(tmp_path, url=plugin.url, token={"file": str(file)})
        assert "(401): Unauthorized" in sentence
        assert "wrong-word" not in sentence
        file.write_text("open-sesame\n")
        assert await asked(tmp_path, url=plugin.url, token={"file": str(file)}) == ""
        monkeypatch.setenv("PLUGIN_TOKEN", "open-sesame")
        assert await asked(tmp_path, url=plugin.url, token={"env": "PLUGIN_TOKEN"}) == ""


@pytest.fixture
async def mutual(keys: dict[str, str]) -> AsyncIterator[InterlinkPlugin]:
    options = {"certificate": keys["server"], "key": keys["server-key"], "ca": keys["ca"]}
    with running(port=str(free_port()), **options) as plugin:
        yield plugin


async def test_https_with_certificates_of_both_sides(
    mutual: InterlinkPlugin, tmp_path: Path, keys: dict[str, str]
) -> None:
    client = {"certificate": keys["client"], "key": keys["client-key"]}
    assert await asked(tmp_path, url=mutual.url, ca=keys["ca"], **client) == ""
    assert "certificate verify failed" in await asked(tmp_path, url=mutual.url, ca=keys["other"], **client)
    assert await asked(tmp_path, url=mutual.url, ca=keys["ca"]) != ""
    assert "certificates for the plugin cannot be read" in await asked(tmp_path, url=mutual.url, ca="/no/such/file")
