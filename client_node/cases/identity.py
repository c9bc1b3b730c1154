"""Who the patients of sent cases are: kept in the hospital only, encrypted at rest, needed to address the report."""

import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import ValidationError

from client_node.home import NodeHome
from shared.contracts.errors import ConfigError, DataInvalidError
from shared.reporting.identity import Identity
from shared.space import space_guard

_NONCE_BYTES: Final = 12
_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS identity (case_id TEXT PRIMARY KEY, sealed BLOB NOT NULL) STRICT"


class IdentityStore:
    """Case id → `Identity`, each row AES-256-GCM under the node's identity key and bound to its case id."""

    def __init__(self, home: NodeHome | Path) -> None:
        place = NodeHome(home)
        self._file = place.identities
        try:
            self._aead = AESGCM(place.identity_key.read_bytes())
        except (OSError, ValueError):
            raise ConfigError("keys/identity.key cannot be read: restore it from a backup.") from None

    def put(self, case_id: str, identity: Identity) -> None:
        """Keep who the patient of a case is."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._aead.encrypt(nonce, identity.model_dump_json().encode(), case_id.encode())
        with space_guard(self._file.parent):
            self._file.touch(mode=0o600)
            with closing(self._connect()) as connection, connection:
                connection.execute("INSERT OR REPLACE INTO identity (case_id, sealed) VALUES (?, ?)", (case_id, sealed))

    def get(self, case_id: str) -> Identity | None:
        """Return who the patient of a case is, or None where the hospital gave no identity.

        Raises:
            DataInvalidError: the row was changed, or the key is another one.
        """
        if not self._file.exists():
            return None
        with closing(self._connect()) as connection:
            row = connection.execute("SELECT sealed FROM identity WHERE case_id = ?", (case_id,)).fetchone()
        if row is None:
            return None
        try:
            plain = self._aead.decrypt(row[0][:_NONCE_BYTES], row[0][_NONCE_BYTES:], case_id.encode())
            return Identity.model_validate_json(plain)
        except (InvalidTag, ValidationError):
            raise DataInvalidError("The identity of this case cannot be read: restore identities.sqlite.") from None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file, timeout=30.0)
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(_SCHEMA)
        return connection
