"""Signed reports and their delivery."""

from datetime import datetime

from sqlalchemy import UniqueConstraint
from sqlmodel import Field, SQLModel

from server.db.types import JSON, JsonDict, UtcDateTime, stored
from server.models.base import new_id, utc_now
from shared.contracts.report import ReportStatus


class Report(SQLModel, table=True):
    """One immutable version of a report; a change is a new version."""

    __tablename__ = "report"
    __table_args__ = (UniqueConstraint("case_id", "version"),)

    id: str = Field(default_factory=new_id, primary_key=True)
    case_id: str = Field(foreign_key="smear_case.id", index=True)
    hospital_id: str = Field(foreign_key="hospital.id", index=True)
    version: int = 1
    status: ReportStatus = Field(sa_type=stored(ReportStatus))
    record: JsonDict = Field(sa_type=JSON)
    """`SignedRecord`."""
    record_signature: str
    feedback: list[JsonDict] = Field(default_factory=list, sa_type=JSON)
    """`FeedbackLabel` objects."""
    signed_by: str = Field(foreign_key="user_account.id")
    asked: str | None = None
    """What was signed under which key, as a hash; the same again is answered with this report."""
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    rendered_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    pages: int | None = None
    pdf_sha256: str | None = None
    bundle_key: str | None = None
    """Where the sealed bundle stands in the object store."""
    bundle_sha256: str | None = None
    bundle_size: int | None = None
    delivered_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    acknowledged_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    labels_joined: int | None = None
