"""A vault over key files of mode 0600, in the process that asks: embedded installations and the demo."""

import base64
import fcntl
import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from server.vault.document_key import DocumentKey
from shared.contracts.enrolment import ServerKeys
from shared.contracts.errors import ConfigError
from shared.crypto.envelope import CaseKey, EnvelopePrivateKey
from shared.crypto.pki import write_private
from shared.crypto.signing import SigningKey, VerifyKey, decode_base64, fingerprint

_SIGNING, _RELEASE, _ENVELOPE = "signing.pem", "release.pem", "envelope.pem"
_LEASES = "leases.jsonl"


class FileVault:
    """`Vault` over ``S/keys``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._signing = SigningKey.from_pem((folder / _SIGNING).read_bytes())
            self._release = SigningKey.from_pem((folder / _RELEASE).read_bytes())
            self._envelope = EnvelopePrivateKey.from_pem((folder / _ENVELOPE).read_bytes())
        except OSError:
            raise ConfigError(
                "The server's keys cannot be read; run as the account that made them, or restore them from a backup."
            ) from None

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Make new keys in ``folder``.

        Raises:
            ConfigError: keys are there already; nothing ever overwrites them.
        """
        if any((folder / name).exists() for name in (_SIGNING, _RELEASE, _ENVELOPE)):
            raise ConfigError("This server folder holds keys already; they are never overwritten.")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(folder / _SIGNING, SigningKey.generate().to_pem())
        write_private(folder / _RELEASE, SigningKey.generate().to_pem())
        write_private(folder / _ENVELOPE, EnvelopePrivateKey.generate().to_pem())
        return cls(folder)

    @property
    def server_id(self) -> str:
        """Fingerprint of the signing key."""
        return fingerprint(self._signing.public.to_base64())

    @property
    def signing_public(self) -> VerifyKey:
        """What verifies `sign`."""
        return self._signing.public

    def public_keys(self) -> ServerKeys:
        """The public halves."""
        return ServerKeys(
            signing=self._signing.public.to_base64(),
            release=self._release.public.to_base64(),
            envelope=self._envelope.public.to_base64(),
        )

    def sign(self, data: bytes) -> str:
        """Sign with the centre's signing key."""
        return self._signing.sign(data)

    def release_key(self) -> SigningKey:
        """The release key."""
        return self._release

    def document_key(self) -> DocumentKey:
        """The report signing key, made on first use."""
        return DocumentKey.open(self._folder, centre=self.server_id)

    def open_case_key(self, case_id: str, sealed: bytes, *, actor: str = "system") -> CaseKey:
        """Log the lease, then open the key."""
        self._log_lease(case_id, actor)
        return CaseKey.open(sealed, self._envelope, case_id)

    def seal_secret(self, purpose: str, plain: bytes) -> str:
        """Seal to the envelope key."""
        return base64.b64encode(self._envelope.public.seal(plain, _secret(purpose))).decode()

    def open_secret(self, purpose: str, sealed: str) -> bytes:
        """Open with the envelope key."""
        return self._envelope.open(decode_base64(sealed, "sealed secret"), _secret(purpose))

    def _log_lease(self, case_id: str, actor: str) -> None:
        # The vault keeps its own log: it must not depend on the database whose readers it watches.
        descriptor = os.open(self._folder / _LEASES, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "r+b") as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            previous = hashlib.sha256(_last_line(log.fileno())).hexdigest()
            entry = {"at": datetime.now(UTC).isoformat(), "case": case_id, "actor": actor, "previous": previous}
            os.write(log.fileno(), json.dumps(entry, sort_keys=True).encode() + b"\n")


def _secret(purpose: str) -> bytes:
    return f"hematovision/secret/1\n{purpose}".encode()


def _last_line(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, min(size, 2048), max(0, size - 2048))
    return tail.rstrip(b"\n").rpartition(b"\n")[2]
