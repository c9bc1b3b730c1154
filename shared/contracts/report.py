"""A signed report and its way home."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from shared.contracts.analysis import Contract, Differential, Flag
from shared.contracts.case import CaseId
from shared.contracts.findings import Findings
from shared.contracts.ontology import CellClass
from shared.contracts.training import Identifier, Sha256

_PLACE: Final = frozenset({"field", "box", "instead_of"})
_LATER: Final = frozenset({"findings", "not_gradable", "amendment"})


class ReportStatus(StrEnum):
    """FHIR DiagnosticReport status of a report version."""

    PRELIMINARY = "preliminary"
    FINAL = "final"
    AMENDED = "amended"
    CORRECTED = "corrected"
    APPENDED = "appended"
    CANCELLED = "cancelled"
    """No result: the smear could not be read as it was sent."""
    ENTERED_IN_ERROR = "entered-in-error"


class Signature(Contract):
    """The signature block of 21 CFR 11.50: who, when, and what it means."""

    reader_name: str
    reader_role: str
    signed_at: datetime
    meaning: str = "I have read this smear and release this report."


class KeyCell(Contract):
    """A cell shown in the report."""

    cell_id: str
    cls: CellClass = Field(alias="class")
    blob: str
    changed_by_reader: bool = False


class FeedbackLabel(Contract):
    """A corrected label on its way home: ids and labels only, joined to images inside the hospital.

    A cell that the reader marked brings its place too. What a label does not say is left out of its JSON: a node that
    does not know of places yet reads every report without one, and refuses the others until it is updated.
    """

    case_id: CaseId
    cell_id: str
    label: CellClass
    previous: CellClass
    reader_role: str
    report_version: int
    field: Annotated[int, Field(ge=0)] | None = None
    """Index of the field in which the reader marked the cell; None: a cell that the hospital's model found."""
    box: tuple[int, int, int, int] | None = None
    """x0, y0, x1, y1 in pixels of that field."""
    instead_of: tuple[str, ...] = ()
    """Ids of the cells that it was split or merged from."""

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:  # Any: JSON
        plain: dict[str, Any] = handler(self)
        return {name: value for name, value in plain.items() if name not in _PLACE or value not in (None, (), [])}


class GlassReason(StrEnum):
    """Why a smear cannot be read from its images."""

    OUT_OF_FOCUS = "out_of_focus"
    STAIN = "stain"
    TOO_FEW_CELLS = "too_few_cells"
    TOO_THICK = "too_thick"
    ARTEFACTS = "artefacts"
    DAMAGED = "damaged"
    OTHER = "other"

    @property
    def words(self) -> str:
        """As it is reported."""
        return _GLASS_WORDS[self]


_GLASS_WORDS: Final = {
    GlassReason.OUT_OF_FOCUS: "the images are out of focus",
    GlassReason.STAIN: "the stain or its colours do not allow a reading",
    GlassReason.TOO_FEW_CELLS: "too few cells can be judged",
    GlassReason.TOO_THICK: "the fields lie where the smear is too thick or too thin",
    GlassReason.ARTEFACTS: "drying, dirt or other artefacts cover the cells",
    GlassReason.DAMAGED: "cells are crushed or torn by smearing",
    GlassReason.OTHER: "another reason",
}


class NotGradable(Contract):
    """The reader could not read the smear and asks for the glass slide."""

    reason: GlassReason
    note: Annotated[str, Field(max_length=500)] = ""

    @model_validator(mode="after")
    def _other_is_said(self) -> "NotGradable":
        if self.reason is GlassReason.OTHER and not self.note.strip():
            raise ValueError("Say why the smear cannot be read: the hospital sees it.")
        return self

    @property
    def words(self) -> str:
        """The reason as a sentence."""
        if self.reason is GlassReason.OTHER:
            return self.note
        said = self.reason.words[:1].upper() + self.reason.words[1:] + "."
        return f"{said} {self.note}" if self.note else said


class Amendment(Contract):
    """Why a version follows an earlier one, which it replaces."""

    of_version: Annotated[int, Field(ge=1)]
    reason: Annotated[str, Field(min_length=1, max_length=500)]


class SignedRecord(Contract):
    """The one record from which PDF, FHIR and HL7 are made. No identity: that is put in at the hospital.

    What came later than the first version of the contract is left out of the JSON where it says nothing: an older node
    reads every record that does not need it, and signatures of older records hold.
    """

    report_id: Identifier
    version: int
    case_id: CaseId
    hospital_id: Identifier
    status: ReportStatus
    differential: Differential
    cells_counted: int
    nrbc_per_100_wbc: float
    flags: tuple[Flag, ...]
    dismissed_flags: dict[str, str] = Field(default_factory=dict)
    """Flag id → the reader's reason."""
    impression: str
    key_cells: tuple[KeyCell, ...]
    model_version: Identifier
    untrained_classes: tuple[CellClass, ...]
    signature: Signature
    pseudo: bool = False
    synthetic: bool = False
    findings: Findings | None = None
    """Red cells, white-cell changes, platelets, malaria; None: nothing was entered."""
    not_gradable: NotGradable | None = None
    """The glass slide is asked for: the record holds no differential."""
    amendment: Amendment | None = None
    """None: the first version."""

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:  # Any: JSON
        plain: dict[str, Any] = handler(self)
        return {name: value for name, value in plain.items() if name not in _LATER or value is not None}


class ReportFile(Contract):
    """One rendering inside a report bundle, base64."""

    name: str
    """``report.pdf``, ``report.fhir.json``, ``report.hl7``."""
    media_type: str
    sha256: Sha256
    content: str


class ReportBundle(Contract):
    """The plain content of a delivery: sealed to the node's HPKE key, signed by the centre."""

    record: SignedRecord
    record_signature: str
    """Ed25519 (base64) by the centre's signing key over the record's canonical bytes."""
    files: tuple[ReportFile, ...]
    feedback: tuple[FeedbackLabel, ...]
    signature: str = ""
    """Ed25519 (base64) by the centre's signing key over the canonical bytes of the bundle with an empty signature:
    it pins the files too. `shared.reporting.bundle.open_bundle` checks both."""


class ReportNotice(Contract):
    """A line of GET /api/node/v1/reports: a report that waits for its hospital."""

    report_id: Identifier
    version: int
    case_id: CaseId
    sha256: Sha256
    """Of the sealed bundle."""
    size: int


class Acknowledgement(Contract):
    """POST /api/node/v1/reports/{report_id}/acknowledgement, after the node has verified and stored the report."""

    version: int
    sha256: Sha256
    labels_joined: int
    """How many corrected labels found their image."""


class ModelDecision(Contract):
    """POST /api/node/v1/models/{version}/decision: what the node did with a promoted model."""

    version: Identifier
    decision: str = Field(pattern="^(installed|held|refused|rolled_back)$")
    reason: str = Field(max_length=300)
    accuracy: float | None = None
    n: int | None = None
