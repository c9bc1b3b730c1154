"""The key that signs documents: X.509, as PDF readers know it, beside the centre's own Ed25519 keys."""

import fcntl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shared.contracts.errors import ConfigError
from shared.crypto.pki import write_private

_KEY, _CERT = "report_signing.key", "report_signing.crt"
_LIFE: Final = timedelta(days=1825)
_CLOCK_SLACK: Final = timedelta(hours=1)


@dataclass(frozen=True)
class DocumentKey:
    """An EC P-256 key and its certificate, whose one use is to sign reports."""

    key: ec.EllipticCurvePrivateKey
    cert: x509.Certificate

    @classmethod
    def open(cls, folder: Path, *, centre: str) -> Self:
        """Read the key kept beside the vault's others; the first caller makes it. Safe between processes.

        Raises:
            ConfigError: it is damaged.
        """
        with (folder / f".{_KEY}.lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / _CERT).exists():
                _make(folder, centre)
        try:
            key = serialization.load_pem_private_key((folder / _KEY).read_bytes(), password=None)
            cert = x509.load_pem_x509_certificate((folder / _CERT).read_bytes())
        except (OSError, ValueError, TypeError):
            raise ConfigError("The report signing key cannot be read; restore it from a backup.") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError("The report signing key is of another kind; restore it from a backup.")
        return cls(key, cert)

    @property
    def cert_pem(self) -> bytes:
        """The certificate: what a PDF reader is told to trust."""
        return self.cert.public_bytes(serialization.Encoding.PEM)


def _make(folder: Path, centre: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Hematovision"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, centre[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, "Hematovision report signing"),
        ]
    )
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=True,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=False,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(folder / _KEY, pem)
    write_private(folder / _CERT, cert.public_bytes(serialization.Encoding.PEM))
