"""Packs an analysed smear as a case: allow-listed, re-encoded, encrypted, signed; the manifest is the last file.

A packed case (a parcel) is a folder ``H/outbox/<case id>/`` as it will lie in the centre's store. It appears whole or
not at all, and is never packed again once it is there: a retry sends the very same bytes.
"""

import base64
import hashlib
import io
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from PIL import Image, UnidentifiedImageError
from pydantic import ValidationError

from client_node.centre import read_server_keys
from client_node.home import NodeHome
from client_node.keys import read_signing_key
from shared.contracts.analysis import Cell, Smear
from shared.contracts.canonical import canonical_bytes
from shared.contracts.case import (
    OVERLAY_PREFIX,
    Blob,
    BlobKind,
    CaseBody,
    CaseManifest,
    ClinicalContext,
    Priority,
    SealedKey,
    SignedManifest,
)
from shared.contracts.errors import DataInvalidError, NotFoundError
from shared.crypto.envelope import CaseKey, EnvelopePublicKey

MANIFEST: Final = "manifest.json"
KEY: Final = "key.json"
BODY: Final = "body-json"
_FIELD_QUALITY: Final = 92


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a parcel: its name below the case's prefix, and what it holds."""

    name: str
    sha256: str
    size: int


def load_smear(home: NodeHome, smear_id: str) -> Smear:
    """Return an analysed smear of this node.

    Raises:
        NotFoundError: there is none. DataInvalidError: its file is damaged.
    """
    try:
        return Smear.model_validate_json((home.smear(smear_id) / "analysis.json").read_bytes())
    except OSError:
        raise NotFoundError(f"There is no analysed smear {smear_id}: run `hematovision-node analyze` first.") from None
    except ValidationError:
        raise DataInvalidError(f"The analysis of smear {smear_id} is damaged: analyse it again.") from None


def pack(home: NodeHome, *, case_id: str, smear_id: str, context: ClinicalContext, priority: Priority) -> list[Part]:
    """Make the parcel of a case, or take the one that is there; return its parts in sending order, manifest last."""
    parcel = home.parcels / case_id
    if not (parcel / MANIFEST).is_file():
        partial = home.parcels / f".{case_id}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "blobs").mkdir(mode=0o700, parents=True)
        _write_parts(home, partial, case_id=case_id, smear_id=smear_id, context=context, priority=priority)
        shutil.rmtree(parcel, ignore_errors=True)
        partial.rename(parcel)
    return parts_of(parcel)


def parts_of(parcel: Path) -> list[Part]:
    """Return a parcel's parts in sending order."""
    blobs = sorted(f"blobs/{file.name}" for file in (parcel / "blobs").iterdir())
    return [_part(parcel, name) for name in (KEY, *blobs, MANIFEST)]


def _part(parcel: Path, name: str) -> Part:
    content = (parcel / name).read_bytes()
    return Part(name, hashlib.sha256(content).hexdigest(), len(content))


def _write_parts(
    home: NodeHome, folder: Path, *, case_id: str, smear_id: str, context: ClinicalContext, priority: Priority
) -> None:
    config, smear = home.config(), load_smear(home, smear_id)
    key = CaseKey.generate(case_id)
    sealed = key.seal_to(EnvelopePublicKey.from_base64(read_server_keys(home).envelope))
    key_json = canonical_bytes(SealedKey(case_id=case_id, sealed=base64.b64encode(sealed).decode()))
    (folder / KEY).write_bytes(key_json)
    blobs = tuple(
        seal(folder, key, name=name, kind=kind, media_type=media_type, plain=plain)
        for name, kind, media_type, plain in images(home.smear(smear_id), range(len(smear.fields)), smear.cells)
    )
    body = CaseBody(smear=leaving(smear, case_id), context=context)
    manifest = CaseManifest(
        case_id=case_id, hospital_id=config.hospital_id, node_id=config.node_id, priority=priority,
        created_at=datetime.now(UTC), model_version=smear.model_version,
        body=seal(
            folder, key, name=BODY, kind=BlobKind.BODY, media_type="application/json", plain=canonical_bytes(body)
        ),
        blobs=blobs, key_sha256=hashlib.sha256(key_json).hexdigest(),
    )  # fmt: skip
    signature = read_signing_key(home).sign(canonical_bytes(manifest))
    (folder / MANIFEST).write_bytes(canonical_bytes(SignedManifest(manifest=manifest, signature=signature)))


def leaving(smear: Smear, case_id: str) -> Smear:
    """Return the smear as the centre may see it: no path or file name of the hospital, not even in a warning."""
    left_out = len(smear.quality.warnings)
    warnings = (f"{left_out} of the smear's files could not be read and were left out.",) if left_out else ()
    return smear.model_copy(
        update={
            "id": case_id,
            "fields": tuple(
                field.model_copy(update={"path": _field_name(index)}) for index, field in enumerate(smear.fields)
            ),
            "cells": tuple(
                cell.model_copy(update={"source": _cell_name(cell.id) if cell.field is None else None})
                for cell in smear.cells
            ),
            "quality": smear.quality.model_copy(update={"warnings": warnings}),
        }
    )


def images(folder: Path, fields: Iterable[int], cells: Iterable[Cell]) -> Iterator[tuple[str, BlobKind, str, bytes]]:
    """Yield name, kind, media type and re-encoded content of these fields and cells of a kept smear."""
    for index in fields:
        plain = _reencoded(folder / "fields" / f"{index}.jpg", "JPEG", quality=_FIELD_QUALITY)
        yield _field_name(index), BlobKind.FIELD, "image/jpeg", plain
    for cell in cells:
        yield _cell_name(cell.id), BlobKind.CELL, "image/png", _reencoded(folder / "cells" / f"{cell.id}.png", "PNG")
        overlay = folder / "heat" / f"{cell.id}.png"
        if overlay.is_file():
            # Of the same kind as a cell's picture: a centre that knows no overlays takes it in, and shows it nowhere.
            yield overlay_name(cell.id), BlobKind.CELL, "image/png", _reencoded(overlay, "PNG")


def _field_name(index: int) -> str:
    return f"field-{index}.jpg"


def _cell_name(cell_id: str) -> str:
    return f"cell-{cell_id}.png"


def overlay_name(cell_id: str) -> str:
    """Return the name of the picture of what the model saw in a cell."""
    return f"{OVERLAY_PREFIX}{cell_id}.png"


def _reencoded(file: Path, form: str, **options: int) -> bytes:
    """Return the pixels of an image in a new file: no EXIF, comment, profile or thumbnail comes along."""
    try:
        with Image.open(file) as image:
            pixels = image.convert("RGB")
    except (OSError, UnidentifiedImageError):
        raise DataInvalidError("A stored picture of the smear cannot be read: analyse the smear again.") from None
    bare = Image.frombytes("RGB", pixels.size, pixels.tobytes())
    buffer = io.BytesIO()
    bare.save(buffer, form, **options)
    return buffer.getvalue()


def seal(folder: Path, key: CaseKey, *, name: str, kind: BlobKind, media_type: str, plain: bytes) -> Blob:
    """Encrypt a part into the parcel in ``folder``."""
    cipher = key.encrypt(name, plain)
    (folder / "blobs" / name).write_bytes(cipher)
    digest = hashlib.sha256(cipher).hexdigest()
    return Blob(name=name, kind=kind, sha256=digest, size=len(cipher), media_type=media_type)
