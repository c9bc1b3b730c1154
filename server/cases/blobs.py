"""Decrypting a part of a case, in memory, for somebody who may see it."""

from collections.abc import Callable

from server.cases import bundle
from server.cases.keyring import ring_of
from server.models import Case
from server.runtime import Runtime
from shared.contracts.case import Blob, SignedManifest
from shared.contracts.errors import DataInvalidError, NotFoundError


def read(runtime: Runtime, case: Case, name: str, *, actor: str) -> tuple[bytes, str]:
    """Return the plain content and media type of a case's image."""
    return reader(runtime, case, actor=actor)(name)


def reader(runtime: Runtime, case: Case, *, actor: str) -> Callable[[str], tuple[bytes, str]]:
    """Return a function that reads many of a case's images under one lease."""
    blobs = {blob.name: blob for blob in SignedManifest.model_validate(case.manifest).manifest.blobs}
    hospital_id, case_id = case.hospital_id, case.id

    def read_one(name: str) -> tuple[bytes, str]:
        blob = blobs.get(name)
        if blob is None:
            raise NotFoundError("The case has no such image.")
        return _plain(runtime, hospital_id, case_id, blob, actor), blob.media_type

    return read_one


def _plain(runtime: Runtime, hospital_id: str, case_id: str, blob: Blob, actor: str) -> bytes:
    key = ring_of(runtime.vault).key(
        runtime.store, runtime.vault, hospital_id=hospital_id, case_id=case_id, actor=actor
    )
    place = f"{bundle.prefix(hospital_id, case_id)}/blobs/{blob.name}"
    try:
        cipher = runtime.store.get(place, most=blob.size)
        return bundle.decrypt(key, blob, cipher)
    except (bundle.BundleRefusedError, DataInvalidError):
        raise DataInvalidError(
            "The image was changed after it was taken in; tell the centre's administrator."
        ) from None
