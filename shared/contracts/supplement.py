"""More of a smear: a reader asks to count on, the hospital's node looks at further fields and sends what it found.

Store layout, all under ``cases/<hospital_id>/<case_id>/supplements/<request_id>/``: as a case's own parts, under a key
of its own that is bound to the case.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from shared.contracts.analysis import Contract, Smear
from shared.contracts.case import CaseId, CaseManifest

RequestId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class MoreRequest(Contract):
    """Look at further fields of a smear that was sent as this case, until so many white cells more are found."""

    request_id: RequestId
    case_id: CaseId
    hospital_id: str
    cells: int = Field(ge=1, le=1000)
    has_fields: int = Field(ge=0)
    """How many fields the centre has of the smear."""
    has_cells: int = Field(ge=0)
    """How many of the node's cells it has: the first of them."""
    asked_at: datetime


class SignedMoreRequest(Contract):
    """GET /api/node/v1/requests: what waits for this node, and the centre's Ed25519 signature (base64) over each."""

    request: MoreRequest
    signature: str


class MoreState(StrEnum):
    """Where a request stands."""

    ASKED = "asked"
    TAKEN = "taken"
    """The node looks at further fields."""
    SENT = "sent"
    """All parts are uploaded; the centre checks them."""
    CAME = "came"
    REFUSED = "refused"
    """By the hospital, or for want of more to look at."""
    FAILED = "failed"
    """What came could not be taken in, or nothing came."""


class MoreAnswer(Contract):
    """POST /api/node/v1/requests/{request_id}/answer."""

    taken: bool
    reason: str = Field(default="", max_length=300)
    """Why not: shown to the reader."""


class SupplementManifest(CaseManifest):
    """The signed, unencrypted list of a supplement's parts."""

    request_id: RequestId


class SignedSupplement(Contract):
    """``manifest.json`` of a supplement."""

    manifest: SupplementManifest
    signature: str


class SupplementBody(Contract):
    """The plain content of a supplement's ``blobs/body-json``."""

    smear: Smear
    """The further fields and cells alone; a cell's ``field`` counts these fields from 0. Flags and quality are of the
    whole smear as it stands with them. Paths replaced by blob names."""
    first_field: int = Field(ge=0)
    """How many fields the case had before."""
