"""Certificates for a demo or a closed test network, and the key that Flower authenticates a node by.

A production centre brings certificates of its own; nothing else in the product depends on this authority.
"""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.contracts.errors import ConfigError

_CA_LIFE: Final = timedelta(days=3650)
_SERVER_LIFE: Final = timedelta(days=397)
_CLOCK_SLACK: Final = timedelta(hours=1)


@dataclass(frozen=True)
class CertPaths:
    """Where a server finds its certificate, its private key and the authority that vouches for it."""

    cert: Path
    key: Path
    ca: Path


class DemoCA:
    """A certificate authority of one's own: EC P-256, key in ``ca.key`` (0600), certificate in ``ca.crt``."""

    def __init__(self, folder: Path, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._cert = cert
        self._key = key
        self.cert_path = folder / "ca.crt"

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Make a new authority in ``folder`` (made if absent), replacing one that is there."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Hematovision"),
                x509.NameAttribute(NameOID.COMMON_NAME, "Hematovision demo CA"),
            ]
        )
        cert = (
            _builder(name, name, key.public_key(), _CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        folder.mkdir(parents=True, exist_ok=True)
        write_private(folder / "ca.key", _key_pem(key))
        (folder / "ca.crt").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        return cls(folder, cert, key)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the authority that `create` left in ``folder``.

        Raises:
            ConfigError: it is absent or damaged.
        """
        try:
            cert = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
            key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
        except (OSError, ValueError, TypeError):
            raise ConfigError("The certificate authority cannot be read; remove its folder and start again.") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError("The certificate authority's key is of another kind; an EC key is needed.")
        return cls(folder, cert, key)

    @property
    def cert_pem(self) -> str:
        """The authority's certificate, as an enrolment kit carries it."""
        return self._cert.public_bytes(serialization.Encoding.PEM).decode()

    def issue_server(self, name: str, hosts: list[str], folder: Path) -> CertPaths:
        """Write ``server.crt``, ``server.key`` (0600) and ``ca.crt`` to ``folder``.

        ``server.crt`` holds the authority's certificate behind the server's. ``hosts`` are the DNS names
        and IP addresses the server answers under.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        authority = self._cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        cert = (
            _builder(subject, self._cert.subject, key.public_key(), _SERVER_LIFE)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        folder.mkdir(parents=True, exist_ok=True)
        paths = CertPaths(folder / "server.crt", folder / "server.key", folder / "ca.crt")
        write_private(paths.key, _key_pem(key))
        pem = self._cert.public_bytes(serialization.Encoding.PEM)
        paths.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM) + pem)
        paths.ca.write_bytes(pem)
        return paths


def flower_key() -> tuple[bytes, str]:
    """Make a node key for Flower (EC P-384): its OpenSSH PEM and public ``ecdsa-sha2-nistp384 …``."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, public.decode()


def write_private(path: Path, content: bytes) -> None:
    """Write a secret so that it is never readable by others, not even for a moment, and never half there."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600, exist_ok=False)
    partial.write_bytes(content)
    partial.replace(path)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + life)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
