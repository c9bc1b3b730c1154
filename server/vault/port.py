"""The port of the vault: what may be asked of the centre's private keys."""

from typing import Protocol

from server.vault.document_key import DocumentKey
from shared.contracts.enrolment import ServerKeys
from shared.crypto.envelope import CaseKey
from shared.crypto.signing import SigningKey, VerifyKey


class Vault(Protocol):
    """Holds the signing, release and envelope keys; callers get results, and private halves only where named."""

    @property
    def server_id(self) -> str:
        """Fingerprint of the signing key: how kits, proofs and nodes name this centre."""
        ...

    @property
    def signing_public(self) -> VerifyKey:
        """What verifies `sign`."""
        ...

    def public_keys(self) -> ServerKeys:
        """The public halves, as kits carry them."""
        ...

    def sign(self, data: bytes) -> str:
        """Sign with the centre's signing key; base64."""
        ...

    def release_key(self) -> SigningKey:
        """The release key: signs model cards, and Flower bundles (which need the raw private key)."""
        ...

    def open_case_key(self, case_id: str, sealed: bytes, *, actor: str = "system") -> CaseKey:
        """Open a case's key for ``actor``; every lease is written to the vault's own chained log first.

        Raises:
            DataInvalidError: it was not sealed to this centre, or for another case.
        """
        ...

    def document_key(self) -> DocumentKey:
        """The X.509 key that signs reports as PDF readers know it."""
        ...

    def seal_secret(self, purpose: str, plain: bytes) -> str:
        """Seal a small secret that the database keeps, for ``purpose`` (``totp:<user id>``); base64."""
        ...

    def open_secret(self, purpose: str, sealed: str) -> bytes:
        """Open what `seal_secret` sealed for the same purpose.

        Raises:
            DataInvalidError: it was sealed by another centre, or for another purpose, or was changed.
        """
        ...
