"""Sealed content: what only the holder of one private key can open, and the per-case key that seals a case.

HPKE (RFC 9180) with the hybrid KEM ML-KEM-768 + X25519, HKDF-SHA256 and AES-256-GCM: a recording made today
stays closed unless both the lattice and the curve are broken. Bulk content goes under a random AES-256-GCM
key of its own per case, so that forgetting one small object (the sealed key) forgets the case.
"""

import base64
import binascii
import secrets
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from shared.contracts.errors import ConfigError, DataInvalidError
from shared.crypto.signing import decode_base64

_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_SEED_BYTES: Final = 64
_LATTICE_PUBLIC_BYTES: Final = 1184
_CURVE_BYTES: Final = 32
_BEGIN: Final = "-----BEGIN HEMATOVISION ENVELOPE KEY-----"
_END: Final = "-----END HEMATOVISION ENVELOPE KEY-----"
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
CASE_KEY_BYTES: Final = 32

_CANNOT_OPEN: Final = "The sealed content cannot be opened: it was damaged, or sealed for another key or purpose."


class EnvelopePublicKey:
    """Whom content is sealed to: ML-KEM-768 key (1184 bytes) then X25519 key (32 bytes), in base64."""

    def __init__(self, lattice: MLKEM768PublicKey, curve: X25519PublicKey) -> None:
        self._lattice = lattice
        self._curve = curve

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """Read the base64 form.

        Raises:
            DataInvalidError: it is not one of our envelope keys.
        """
        raw = decode_base64(text, "public envelope key")
        if len(raw) != _LATTICE_PUBLIC_BYTES + _CURVE_BYTES:
            raise DataInvalidError("The public envelope key has the wrong length; ask its owner to send it again.")
        try:
            return cls(
                MLKEM768PublicKey.from_public_bytes(raw[:_LATTICE_PUBLIC_BYTES]),
                X25519PublicKey.from_public_bytes(raw[_LATTICE_PUBLIC_BYTES:]),
            )
        except ValueError:
            raise DataInvalidError("The public envelope key is damaged; ask its owner to send it again.") from None

    def to_base64(self) -> str:
        """Return the form that contracts carry."""
        return base64.b64encode(self._lattice.public_bytes_raw() + self._curve.public_bytes_raw()).decode()

    def seal(self, plain: bytes, info: bytes) -> bytes:
        """Seal ``plain``; ``info`` names the purpose and must be given again to open it. Adds 1136 bytes."""
        return _SUITE.encrypt(plain, MLKEM768X25519PublicKey(self._lattice, self._curve), info)


class EnvelopePrivateKey:
    """Who can open what was sealed. Kept by its owner only, with mode 0600."""

    def __init__(self, lattice: MLKEM768PrivateKey, curve: X25519PrivateKey) -> None:
        self._lattice = lattice
        self._curve = curve

    @classmethod
    def generate(cls) -> Self:
        """Make a new random key."""
        return cls(MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """Read our own armoured form: base64 of the ML-KEM seed (64 bytes) and the X25519 key (32 bytes).

        Raises:
            ConfigError: it is no such file.
        """
        try:
            first, *body, last = pem.decode("ascii").strip().splitlines()
            raw = base64.b64decode("".join(body), validate=True)
            if (first, last) != (_BEGIN, _END) or len(raw) != _SEED_BYTES + _CURVE_BYTES:
                raise ValueError  # noqa: TRY301 - one message for every way the file can be wrong
            return cls(
                MLKEM768PrivateKey.from_seed_bytes(raw[:_SEED_BYTES]),
                X25519PrivateKey.from_private_bytes(raw[_SEED_BYTES:]),
            )
        except (ValueError, binascii.Error):
            raise ConfigError("The envelope key file cannot be read; restore it from a backup.") from None

    def to_pem(self) -> bytes:
        """Return our own armoured form (no standard PEM exists for the hybrid key yet)."""
        text = base64.b64encode(self._lattice.private_bytes_raw() + self._curve.private_bytes_raw()).decode()
        lines = [text[start : start + 64] for start in range(0, len(text), 64)]
        return "\n".join([_BEGIN, *lines, _END, ""]).encode()

    @property
    def public(self) -> EnvelopePublicKey:
        """The public half."""
        return EnvelopePublicKey(self._lattice.public_key(), self._curve.public_key())

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Open what was sealed to this key for the purpose ``info``.

        Raises:
            DataInvalidError: it was changed, or sealed to another key or for another purpose.
        """
        try:
            return _SUITE.decrypt(sealed, MLKEM768X25519PrivateKey(self._lattice, self._curve), info)
        except (InvalidTag, ValueError):
            raise DataInvalidError(_CANNOT_OPEN) from None

    def __repr__(self) -> str:
        return "EnvelopePrivateKey(…)"


class CaseKey:
    """The AES-256-GCM key of one case; a blob is bound to its case and name, so none can be swapped."""

    def __init__(self, raw: bytes, case_id: str) -> None:
        if len(raw) != CASE_KEY_BYTES:
            raise DataInvalidError(_CANNOT_OPEN)
        self._raw = raw
        self._aead = AESGCM(raw)
        self.case_id = case_id

    @classmethod
    def generate(cls, case_id: str) -> Self:
        """Make a new random key for the case."""
        return cls(secrets.token_bytes(CASE_KEY_BYTES), case_id)

    @classmethod
    def open(cls, sealed: bytes, key: EnvelopePrivateKey, case_id: str) -> Self:
        """Open a sealed case key.

        Raises:
            DataInvalidError: it belongs to another case or another receiver, or was changed.
        """
        return cls(key.open(sealed, _purpose(case_id)), case_id)

    def seal_to(self, receiver: EnvelopePublicKey) -> bytes:
        """Seal this key to a receiver (the centre, or a hospital), bound to the case id."""
        return receiver.seal(self._raw, _purpose(self.case_id))

    def encrypt(self, name: str, plain: bytes) -> bytes:
        """Encrypt one blob: 12 bytes of random nonce, the ciphertext, 16 bytes of tag."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plain, self._bound_to(name))

    def decrypt(self, name: str, cipher: bytes) -> bytes:
        """Decrypt the blob called ``name``.

        Raises:
            DataInvalidError: it was changed, cut off, or belongs to another name, case or key.
        """
        if len(cipher) < _NONCE_BYTES + _TAG_BYTES:
            raise DataInvalidError(_CANNOT_OPEN)
        try:
            return self._aead.decrypt(cipher[:_NONCE_BYTES], cipher[_NONCE_BYTES:], self._bound_to(name))
        except InvalidTag:
            raise DataInvalidError(_CANNOT_OPEN) from None

    def _bound_to(self, name: str) -> bytes:
        return f"hematovision/blob/1\n{self.case_id}\n{name}".encode()

    def __repr__(self) -> str:
        return f"CaseKey({self.case_id})"


def _purpose(case_id: str) -> bytes:
    return f"hematovision/case-key/1\n{case_id}".encode()
