"""A flagged smear on its way to the centre: what may leave a hospital, and how it is packed.

Store layout, all under ``cases/<hospital_id>/<case_id>/``: ``blobs/<name>`` (AES-256-GCM under the case key),
``key.json`` (the case key, HPKE-sealed to the centre), and last ``manifest.json``: the commit point.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from shared.contracts.analysis import Contract, Smear
from shared.contracts.training import Identifier, Sha256

CaseId = Annotated[str, Field(pattern=r"^HV-[0-9A-HJKMNP-TV-Z]{8}$")]
"""``HV-`` and eight Crockford base-32 letters, random."""


class Priority(StrEnum):
    """How soon a case wants reading."""

    STAT = "stat"
    URGENT = "urgent"
    ROUTINE = "routine"


class Sex(StrEnum):
    """As in FHIR's administrative gender."""

    FEMALE = "female"
    MALE = "male"
    OTHER = "other"
    UNKNOWN = "unknown"


class BloodCount(Contract):
    """CBC values as the hospital sent them; all optional. Units as named."""

    wbc_10e9_l: float | None = None
    hb_g_l: float | None = None
    plt_10e9_l: float | None = None
    mcv_fl: float | None = None


class ClinicalContext(Contract):
    """The allow-listed context of a case: everything a reader is told about the patient."""

    patient_pseudonym: Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
    """Keyed per hospital: earlier cases of the same patient can be found, nobody outside can link it."""
    age_band: Annotated[str, Field(pattern=r"^(\d{1,3}-\d{1,3}|unknown)$")] = "unknown"
    sex: Sex = Sex.UNKNOWN
    question: Annotated[str, Field(max_length=500)] = ""
    blood_count: BloodCount = BloodCount()
    scanner_alias: Annotated[str, Field(max_length=40)] = ""
    phone: Annotated[str, Field(max_length=60)] = ""
    """Whom to phone about a critical result."""
    stain: Annotated[str, Field(max_length=40)] = ""
    """What the smear is stained with, in the hospital's own word. Left out of the JSON where it is not named: a centre
    that does not know of it reads such a context as before."""

    @model_serializer(mode="wrap")
    def _without_unnamed(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:  # Any: JSON
        plain: dict[str, Any] = handler(self)
        return {name: value for name, value in plain.items() if name != "stain" or value}


class BlobKind(StrEnum):
    """What a blob holds."""

    FIELD = "field"
    CELL = "cell"
    BODY = "body"
    """The `CaseBody`, named ``body-json``."""


OVERLAY_PREFIX: Final = "heat-"


class Blob(Contract):
    """One encrypted file of a case. Names: ``field-0.jpg``, ``cell-<cell id>.png``, and for some doubtful cells
    ``heat-<cell id>.png``: the cell under what the model saw in it, where the node sends that.
    """

    name: Annotated[str, Field(pattern=r"^[a-z]+-[A-Za-z0-9_.-]{1,80}$")]
    kind: BlobKind
    sha256: Sha256
    """Of the *ciphertext*."""
    size: int
    """Of the ciphertext, bytes."""
    media_type: str


class CaseBody(Contract):
    """The plain content of ``blobs/body-json``: encrypted like every blob."""

    smear: Smear
    """Paths replaced by blob names."""
    context: ClinicalContext
    day_offset: int = 0


class SealedKey(Contract):
    """``key.json``: erasing it erases the case."""

    case_id: CaseId
    sealed: str
    """Base64 of `shared.crypto.envelope.CaseKey.seal_to` the centre's envelope key."""


class CaseManifest(Contract):
    """The signed, unencrypted list of a case's parts; holds nothing about the patient."""

    format: int = 1
    case_id: CaseId
    hospital_id: Identifier
    node_id: Identifier
    priority: Priority
    created_at: datetime
    model_version: Identifier
    body: Blob
    blobs: tuple[Blob, ...]
    key_sha256: Sha256
    """Of ``key.json``."""


class SignedManifest(Contract):
    """``manifest.json``: the manifest and the node's Ed25519 signature (base64) over its canonical bytes."""

    manifest: CaseManifest
    signature: str


class GrantRequest(Contract):
    """POST /api/node/v1/cases/{case_id}/grants: ask for upload addresses."""

    names: tuple[str, ...] = Field(max_length=5000)
    """Paths below the case's prefix, e.g. ``blobs/field-0.jpg``, ``key.json``, ``manifest.json``."""


class Grants(Contract):
    """Presigned PUT addresses, valid for a short time, one object each."""

    urls: dict[str, str]
    expires_at: datetime


class CaseState(StrEnum):
    """The life cycle of a case."""

    RECEIVED = "received"
    TRIAGED = "triaged"
    AVAILABLE = "available"
    CLAIMED = "claimed"
    IN_REVIEW = "in_review"
    READY = "ready"
    SIGNED = "signed"
    DELIVERED = "delivered"
    ACKNOWLEDGED = "acknowledged"
    CLOSED = "closed"
    REJECTED = "rejected"
    RECALLED = "recalled"


class CaseReceipt(Contract):
    """GET /api/node/v1/cases/{case_id}: where the case stands, for the node's outbox and status."""

    case_id: CaseId
    state: CaseState | None
    """None: not ingested yet."""
    problem: str | None = None
    """Why it stands in quarantine."""
