"""Reports as pages see them."""

from datetime import datetime

from pydantic import BaseModel

from shared.contracts.report import ReportStatus, SignedRecord


class ReportView(BaseModel):
    """A report and where it is on its way."""

    id: str
    case_id: str
    hospital_id: str
    hospital_name: str
    version: int
    status: ReportStatus
    record: SignedRecord
    signed_by: str
    created_at: datetime
    rendered_at: datetime | None
    pages: int | None
    pdf_sha256: str | None
    delivered_at: datetime | None
    acknowledged_at: datetime | None
    feedback_count: int
    labels_joined: int | None
