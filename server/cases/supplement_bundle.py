"""Checking a supplement as it lies in the object store: as a case is checked, and that it fits the case."""

from collections.abc import Collection
from dataclasses import dataclass

from pydantic import ValidationError

from server.cases import bundle
from server.cases.bundle import BundleRefusedError
from server.cases.images import is_image
from server.vault.port import Vault
from shared.contracts.canonical import canonical_bytes
from shared.contracts.errors import DataInvalidError, NotFoundError, SignatureInvalidError
from shared.contracts.supplement import SignedSupplement, SupplementBody
from shared.crypto.signing import VerifyKey
from shared.storage import ObjectStore


@dataclass(frozen=True)
class Expected:
    """What a supplement must fit."""

    hospital_id: str
    case_id: str
    request_id: str
    node_id: str
    fields: int
    """How many the case has."""
    cell_ids: Collection[str]
    """All that the case ever had."""


@dataclass(frozen=True)
class CheckedSupplement:
    """A supplement that passed every check."""

    signed: SignedSupplement
    body: SupplementBody


def read(store: ObjectStore, vault: Vault, expected: Expected, node_key: VerifyKey) -> CheckedSupplement:
    """Return a supplement, every part of it checked.

    Raises:
        BundleRefusedError: something is wrong with it. ServiceUnavailableError: the store does not answer.
    """
    signed = _manifest(store, expected)
    manifest = signed.manifest
    try:
        node_key.verify(canonical_bytes(manifest), signed.signature)
    except SignatureInvalidError:
        raise BundleRefusedError("signature_invalid", "What came is not signed by the hospital's node.") from None
    named = (manifest.hospital_id, manifest.case_id, manifest.request_id, manifest.node_id)
    if named != (expected.hospital_id, expected.case_id, expected.request_id, expected.node_id):
        raise BundleRefusedError("wrong_place", "What came belongs to another request.")
    bundle.check_sizes(manifest)
    key = bundle.open_sealed(store, vault, manifest)
    body = _body(bundle.plain(store, manifest, manifest.body, key))
    for blob in manifest.blobs:
        if not is_image(bundle.plain(store, manifest, blob, key), blob.media_type):
            raise BundleRefusedError("blob_invalid", f"The part {blob.name} is not the image it claims to be.")
    bundle.check_consistency(manifest, body.smear)
    _check_fit(expected, body)
    return CheckedSupplement(signed, body)


def _manifest(store: ObjectStore, expected: Expected) -> SignedSupplement:
    place = bundle.supplement_prefix(expected.hospital_id, expected.case_id, expected.request_id)
    try:
        return SignedSupplement.model_validate_json(store.get(f"{place}/manifest.json", most=bundle.MANIFEST_LIMIT))
    except NotFoundError:
        raise BundleRefusedError("incomplete", "What came has no manifest; ask again.") from None
    except (ValidationError, DataInvalidError):
        raise BundleRefusedError("manifest_invalid", "What came cannot be read; update the node's software.") from None


def _body(plain: bytes) -> SupplementBody:
    try:
        body = SupplementBody.model_validate_json(plain)
        bundle.check_numbers(plain)
    except ValueError:  # ValidationError is one
        raise BundleRefusedError("body_invalid", "What came cannot be read; update the node's software.") from None
    return body


def _check_fit(expected: Expected, body: SupplementBody) -> None:
    """New fields stand behind the case's own, under names of their own; no cell's id was there before."""
    smear = body.smear
    names = [field.path for field in smear.fields]
    wanted = [f"field-{body.first_field + index}.jpg" for index in range(len(names))]
    if body.first_field != expected.fields or names != wanted:
        raise BundleRefusedError("inconsistent", "The further fields do not follow those that the case has.")
    if {cell.id for cell in smear.cells} & set(expected.cell_ids):
        raise BundleRefusedError("inconsistent", "Cells came under numbers that the case has already.")
