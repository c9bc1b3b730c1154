"""Ed25519 signatures: who said this, and was it changed on the way."""

import base64
import binascii
import hashlib
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared.contracts.errors import ConfigError, DataInvalidError, SignatureInvalidError

RAW_BYTES = 32


class VerifyKey:
    """The public half: 32 raw bytes, written as standard base64 in every contract."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """Read the base64 form.

        Raises:
            DataInvalidError: it is not the base64 of an Ed25519 public key.
        """
        raw = decode_base64(text, "public signing key")
        if len(raw) != RAW_BYTES:
            raise DataInvalidError("The public signing key has the wrong length; ask its owner to send it again.")
        return cls(Ed25519PublicKey.from_public_bytes(raw))

    def to_base64(self) -> str:
        """Return the form that contracts carry."""
        return base64.b64encode(self.raw).decode()

    def to_openssh(self) -> str:
        """Return ``ssh-ed25519 …``, the form Flower's list of trusted entities holds."""
        return self._key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()

    @property
    def raw(self) -> bytes:
        """The 32 raw bytes."""
        return self._key.public_bytes_raw()

    @property
    def key_id(self) -> str:
        """The first 16 hex digits of the raw bytes' SHA-256: a short name for the key, never a proof."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def verify(self, data: bytes, signature: str) -> None:
        """Return if ``signature`` (base64) over ``data`` was made by this key's private half.

        Raises:
            SignatureInvalidError: it was not, or it is not a signature at all.
        """
        try:
            raw = base64.b64decode(signature, validate=True)
            self._key.verify(raw, data)
        except (binascii.Error, ValueError, InvalidSignature):
            raise SignatureInvalidError(
                "The signature does not match the content and the trusted key; "
                "do not use it, and fetch it again from its source."
            ) from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VerifyKey) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"VerifyKey({self.key_id})"


class SigningKey:
    """The private half: written to disk by its owner only, with mode 0600; it never leaves the machine."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> Self:
        """Make a new random key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """Read an unencrypted PKCS#8 PEM.

        Raises:
            ConfigError: it is no such file, or holds another kind of key.
        """
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ConfigError("The signing key file cannot be read; restore it from a backup.") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError("The signing key file holds another kind of key; an Ed25519 key is needed.")
        return cls(key)

    def to_pem(self) -> bytes:
        """Return an unencrypted PKCS#8 PEM."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def sign(self, data: bytes) -> str:
        """Return the signature over ``data``, base64."""
        return base64.b64encode(self.sign_raw(data)).decode()

    def sign_raw(self, data: bytes) -> bytes:
        """Return the 64 raw bytes of the signature, for formats that write it their own way."""
        return self._key.sign(data)

    @property
    def public(self) -> VerifyKey:
        """The public half."""
        return VerifyKey(self._key.public_key())

    def __repr__(self) -> str:
        return f"SigningKey({self.public.key_id})"


def fingerprint(*public: str) -> str:
    """Return what two people compare over the telephone: eight groups of four hex digits.

    It is the first 128 bits of the SHA-256 over the texts joined by newlines, so the order matters.
    """
    digest = hashlib.sha256("\n".join(public).encode()).hexdigest()[:32]
    return "-".join(digest[start : start + 4] for start in range(0, 32, 4))


def decode_base64(text: str, what: str) -> bytes:
    """Decode strict standard base64, or raise `DataInvalidError` naming ``what``."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise DataInvalidError(f"The {what} is not valid base64; ask its owner to send it again.") from None
