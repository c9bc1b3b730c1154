"""Checking a case as it lies in the object store, before anything of it becomes a row.

Everything here was written by another party: it is hostile until every check has passed.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from math import isfinite
from typing import Final

from pydantic import ValidationError

from server.cases.images import MEDIA_TYPES, is_image
from server.vault.port import Vault
from shared.contracts.analysis import Smear
from shared.contracts.canonical import canonical_bytes
from shared.contracts.case import Blob, BlobKind, CaseBody, CaseManifest, SignedManifest
from shared.contracts.errors import DataInvalidError, HematovisionError, NotFoundError, SignatureInvalidError
from shared.contracts.supplement import SupplementManifest
from shared.crypto.envelope import CaseKey
from shared.crypto.signing import VerifyKey
from shared.storage import ObjectStore

FORMAT: Final = 1
BODY_NAME: Final = "body-json"
MANIFEST_LIMIT: Final = 4 * 1024**2
BLOB_LIMIT: Final = 64 * 1024**2
CASE_LIMIT: Final = 1024**3
CELL_LIMIT: Final = 20_000
KEY_LIMIT: Final = 64 * 1024
_CELL_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,80}")


class BundleRefusedError(HematovisionError):
    """A bundle cannot be taken in; ``reason_code`` goes into quarantine, the message to the hospital."""

    code, status = "bundle_refused", 422

    def __init__(self, reason_code: str, message: str) -> None:
        super().__init__(message)
        self.reason_code = reason_code


@dataclass(frozen=True)
class CheckedCase:
    """A bundle that passed every check."""

    signed: SignedManifest
    body: CaseBody


def prefix(hospital_id: str, case_id: str) -> str:
    """Return where a case lies in the object store."""
    return f"cases/{hospital_id}/{case_id}"


def supplement_prefix(hospital_id: str, case_id: str, request_id: str) -> str:
    """Return where what came later for a case lies."""
    return f"{prefix(hospital_id, case_id)}/supplements/{request_id}"


def _place(manifest: CaseManifest) -> str:
    if isinstance(manifest, SupplementManifest):
        return supplement_prefix(manifest.hospital_id, manifest.case_id, manifest.request_id)
    return prefix(manifest.hospital_id, manifest.case_id)


def read_manifest(store: ObjectStore, hospital_id: str, case_id: str) -> SignedManifest:
    """Return the manifest as it lies there, its place checked, its signature not yet.

    Raises:
        BundleRefusedError: there is none, it is none, or it belongs elsewhere.
    """
    key = f"{prefix(hospital_id, case_id)}/manifest.json"
    info = store.head(key)
    if info is None:
        raise BundleRefusedError("incomplete", "The case has no manifest yet; send it again.")
    if info.size > MANIFEST_LIMIT:
        raise BundleRefusedError("too_large", "The manifest is too large; send fewer cells or fields.")
    try:
        signed = SignedManifest.model_validate_json(store.get(key, most=MANIFEST_LIMIT))
    except (ValidationError, DataInvalidError):
        raise BundleRefusedError(
            "manifest_invalid", "The manifest cannot be read; update the node's software."
        ) from None
    manifest = signed.manifest
    if manifest.format != FORMAT:
        raise BundleRefusedError("manifest_invalid", "The manifest has another format; update the node's software.")
    if (manifest.case_id, manifest.hospital_id) != (case_id, hospital_id):
        raise BundleRefusedError(
            "wrong_place", "The manifest belongs to another case or hospital; send the case again."
        )
    return signed


def check(store: ObjectStore, vault: Vault, signed: SignedManifest, node_key: VerifyKey) -> CheckedCase:
    """Verify signature, hashes, encryption and consistency of a whole case.

    Raises:
        BundleRefusedError: something is wrong with it.
        ServiceUnavailableError: the store does not answer; try again later.
    """
    manifest = signed.manifest
    try:
        node_key.verify(canonical_bytes(manifest), signed.signature)
    except SignatureInvalidError:
        raise BundleRefusedError(
            "signature_invalid", "The manifest is not signed by the node's key; send the case again."
        ) from None
    check_sizes(manifest)
    key = open_sealed(store, vault, manifest)
    body = read_body(plain(store, manifest, manifest.body, key))
    for blob in manifest.blobs:
        if not is_image(plain(store, manifest, blob, key), blob.media_type):
            raise BundleRefusedError("blob_invalid", f"The part {blob.name} is not the image it claims to be.")
    check_consistency(manifest, body.smear)
    return CheckedCase(signed, body)


def open_key(store: ObjectStore, vault: Vault, place: str, case_id: str, *, actor: str) -> CaseKey:
    """Open the key that lies at ``place`` and is bound to the case, on an audited lease."""
    raw = store.get(f"{place}/key.json", most=KEY_LIMIT)
    return vault.open_case_key(case_id, _sealed_key(raw), actor=actor)


def check_sizes(manifest: CaseManifest) -> None:
    """Refuse what is too large, or names one part twice."""
    parts = (manifest.body, *manifest.blobs)
    if len(manifest.blobs) > CELL_LIMIT or any(blob.size > BLOB_LIMIT for blob in parts):
        raise BundleRefusedError("too_large", "The case has too many parts or one too large; send fewer.")
    if sum(blob.size for blob in parts) > CASE_LIMIT:
        raise BundleRefusedError("too_large", "The case is too large; send fewer fields.")
    if len({blob.name for blob in parts}) != len(parts):
        raise BundleRefusedError("inconsistent", "Two parts of the case have the same name.")
    if (manifest.body.name, manifest.body.kind) != (BODY_NAME, BlobKind.BODY):
        raise BundleRefusedError("inconsistent", "The case's body is not where it belongs.")
    if any(blob.kind is BlobKind.BODY or blob.media_type not in MEDIA_TYPES for blob in manifest.blobs):
        raise BundleRefusedError("blob_invalid", "The case holds a part that is neither PNG nor JPEG.")


def open_sealed(store: ObjectStore, vault: Vault, manifest: CaseManifest) -> CaseKey:
    """Open the key that a manifest names."""
    try:
        raw = store.get(f"{_place(manifest)}/key.json", most=KEY_LIMIT)
    except NotFoundError:
        raise BundleRefusedError("incomplete", "The case's key is missing; send the case again.") from None
    except DataInvalidError:
        raise BundleRefusedError("too_large", "The case's key is far too large; send the case again.") from None
    if hashlib.sha256(raw).hexdigest() != manifest.key_sha256:
        raise BundleRefusedError("key_tampered", "The case's key is not the one that was signed; send the case again.")
    try:
        return vault.open_case_key(manifest.case_id, _sealed_key(raw), actor="system")
    except DataInvalidError:
        raise BundleRefusedError(
            "key_unusable", "The case's key is not sealed to this centre; check the node's pinned keys."
        ) from None


def _sealed_key(raw: bytes) -> bytes:
    try:
        return base64.b64decode(json.loads(raw)["sealed"], validate=True)
    except (ValueError, KeyError, TypeError):
        raise DataInvalidError("The case's key cannot be read.") from None


def plain(store: ObjectStore, manifest: CaseManifest, blob: Blob, key: CaseKey) -> bytes:
    """Return a part's plain content, fetched and checked."""
    place = f"{_place(manifest)}/blobs/{blob.name}"
    try:
        cipher = store.get(place, most=max(0, blob.size))
    except NotFoundError:
        raise BundleRefusedError("incomplete", f"The part {blob.name} is missing; send the case again.") from None
    except DataInvalidError:
        raise _tampered(blob) from None
    return decrypt(key, blob, cipher)


def decrypt(key: CaseKey, blob: Blob, cipher: bytes) -> bytes:
    """Return a part's plain content, its hash and its binding to case and name checked."""
    if len(cipher) != blob.size or hashlib.sha256(cipher).hexdigest() != blob.sha256:
        raise _tampered(blob)
    try:
        return key.decrypt(blob.name, cipher)
    except DataInvalidError:
        raise BundleRefusedError(
            "blob_undecryptable", f"The part {blob.name} was encrypted for another case or key; send the case again."
        ) from None


def _tampered(blob: Blob) -> BundleRefusedError:
    return BundleRefusedError(
        "blob_tampered", f"The part {blob.name} is not what the manifest says; send the case again."
    )


def read_body(plain: bytes) -> CaseBody:
    """Return the body, or refuse what is none; every number in it is one."""
    try:
        body = CaseBody.model_validate_json(plain)
        # NaN and infinity are no JSON: no page could show them, and no database keep them alike. Looked for in what
        # was sent: a contract's own serialiser may make null of them.
        check_numbers(plain)
    except ValueError:  # ValidationError is one
        raise BundleRefusedError(
            "body_invalid", "The case's body cannot be read; update the node's software."
        ) from None
    return body


def check_numbers(plain: bytes) -> None:
    """Return if every number is one; raises ValueError."""
    json.loads(plain, parse_constant=_finite, parse_float=_finite)


def _finite(number: str) -> float:
    value = float(number)
    if not isfinite(value):
        raise ValueError("not a finite number")
    return value


def check_consistency(manifest: CaseManifest, smear: Smear) -> None:
    """Refuse a body that names parts which are not there."""
    names = {blob.name: blob.kind for blob in manifest.blobs}
    fields_known = all(names.get(field.path) is BlobKind.FIELD for field in smear.fields)
    cells_known = all(names.get(f"cell-{cell.id}.png", names.get(cell.source or "")) for cell in smear.cells)
    places = all(cell.field is None or 0 <= cell.field < len(smear.fields) for cell in smear.cells)
    named = all(_CELL_ID.fullmatch(cell.id) for cell in smear.cells)
    unique = len({cell.id for cell in smear.cells}) == len(smear.cells)
    if not (fields_known and cells_known and places and named and unique and smear.cells):
        raise BundleRefusedError("inconsistent", "The case's body names parts that the case does not have.")
    if smear.model_version != manifest.model_version:
        raise BundleRefusedError("inconsistent", "The case's body and manifest name different models.")


def cell_blob(names: frozenset[str], cell_id: str, source: str | None) -> str:
    """Return the blob of a cell: what the body names, else the name it has by convention."""
    return source if source in names else f"cell-{cell_id}.png"
