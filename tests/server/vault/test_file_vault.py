"""Tests of the vault over files."""

import hashlib
import json
from pathlib import Path

import pytest

from server.vault import FileVault
from shared.contracts.errors import ConfigError, DataInvalidError
from shared.crypto.envelope import CaseKey, EnvelopePublicKey

CASE = "HV-00000001"


def test_create_makes_private_files_and_never_overwrites(tmp_path: Path) -> None:
    vault = FileVault.create(tmp_path / "keys")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}
    with pytest.raises(ConfigError, match="never overwritten"):
        FileVault.create(tmp_path / "keys")
    again = FileVault(tmp_path / "keys")
    assert again.public_keys() == vault.public_keys()
    assert again.server_id == vault.server_id


def test_sign_verifies_under_the_public_key(tmp_path: Path) -> None:
    vault = FileVault.create(tmp_path)
    vault.signing_public.verify(b"content", vault.sign(b"content"))


def test_open_case_key_logs_a_chained_lease_first(tmp_path: Path) -> None:
    vault = FileVault.create(tmp_path)
    key = CaseKey.generate(CASE)
    sealed = key.seal_to(EnvelopePublicKey.from_base64(vault.public_keys().envelope))
    opened = vault.open_case_key(CASE, sealed, actor="user:u1")
    assert opened.decrypt("field-0.jpg", key.encrypt("field-0.jpg", b"image")) == b"image"
    with pytest.raises(DataInvalidError):
        vault.open_case_key("HV-00000002", sealed, actor="user:u2")
    lines = (tmp_path / "leases.jsonl").read_bytes().splitlines()
    leases = [json.loads(line) for line in lines]
    assert [(lease["case"], lease["actor"]) for lease in leases] == [(CASE, "user:u1"), ("HV-00000002", "user:u2")]
    assert leases[1]["previous"] == hashlib.sha256(lines[0]).hexdigest()


def test_missing_keys_are_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        FileVault(tmp_path)


def test_sealed_secret_opens_for_its_purpose_and_this_centre_only(tmp_path: Path) -> None:
    vault, other = FileVault.create(tmp_path / "a"), FileVault.create(tmp_path / "b")
    sealed = vault.seal_secret("totp:u1", b"secret")
    assert vault.open_secret("totp:u1", sealed) == b"secret"
    for holder, purpose in ((vault, "totp:u2"), (other, "totp:u1")):
        with pytest.raises(DataInvalidError, match="cannot be opened"):
            holder.open_secret(purpose, sealed)
