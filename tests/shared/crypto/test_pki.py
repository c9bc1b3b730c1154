"""A client that trusts the authority accepts its servers, and only under their names."""

import ssl
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shared.contracts.errors import ConfigError
from shared.crypto.pki import CertPaths, DemoCA, flower_key


@pytest.fixture
def paths(tmp_path: Path) -> CertPaths:
    DemoCA.create(tmp_path / "ca")
    return DemoCA.load(tmp_path / "ca").issue_server("centre", ["localhost", "127.0.0.1"], tmp_path / "tls")


def handshake(paths: CertPaths, host: str) -> None:
    """Run a TLS handshake in memory."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(paths.cert, paths.key)
    client_side = ssl.create_default_context(cafile=str(paths.ca))
    client_side.verify_flags |= ssl.VERIFY_X509_STRICT
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(down, up, server_hostname=host)
    server = server_side.wrap_bio(up, down, server_side=True)
    waiting = [client, server]
    while waiting:
        for side in tuple(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_server_accepted_under_its_names(paths: CertPaths, host: str) -> None:
    handshake(paths, host)


def test_server_refused_under_another_name(paths: CertPaths) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(paths, "other.example")


def test_server_refused_by_another_authority(paths: CertPaths, tmp_path: Path) -> None:
    other = DemoCA.create(tmp_path / "other").cert_path
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(CertPaths(paths.cert, paths.key, other), "localhost")


def test_keys_are_private(paths: CertPaths, tmp_path: Path) -> None:
    for key in (paths.key, tmp_path / "ca" / "ca.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_load_refuses_a_missing_or_damaged_authority(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        DemoCA.load(tmp_path)
    DemoCA.create(tmp_path)
    (tmp_path / "ca.key").write_text("broken")
    with pytest.raises(ConfigError):
        DemoCA.load(tmp_path)


def test_flower_key_is_p384_in_openssh_form() -> None:
    private, public = flower_key()
    key = serialization.load_ssh_private_key(private, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp384r1"
    assert public.startswith("ecdsa-sha2-nistp384 ")
