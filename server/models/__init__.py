"""SQLModel tables, one file a domain. Importing this package registers them all."""

from server.models.accounts import FailedSignIn, Invitation, RecoveryCode, SignInStep, User, UserSession
from server.models.audit import AuditCheckpoint, AuditEntry
from server.models.cases import Case, CaseCell, CaseField, CaseSupplement, Quarantine
from server.models.consult import ConsultMessage, ConsultPerson, ConsultThread
from server.models.federation import CensusRecord, DryRun, RoundRecord, Run, RunEvent, RunSchedule, SiteRound
from server.models.findings import FindingChange, Phrase
from server.models.hospitals import EnrolmentKit, Hospital, Node, SeenProof
from server.models.opinions import CaseMeasure, Opinion, OpinionKind, OpinionLabel, ReadingActivity
from server.models.outbox import OutboxEntry
from server.models.registry import ModelSite, ModelVersion, NodeModel
from server.models.reports import Report
from server.models.reviews import ChangeKind, FlagDecision, LabelChange, Review
from server.models.worklist import SavedView

__all__ = [
    "AuditCheckpoint",
    "AuditEntry",
    "Case",
    "CaseCell",
    "CaseField",
    "CaseMeasure",
    "CaseSupplement",
    "CensusRecord",
    "ChangeKind",
    "ConsultMessage",
    "ConsultPerson",
    "ConsultThread",
    "DryRun",
    "EnrolmentKit",
    "FailedSignIn",
    "FindingChange",
    "FlagDecision",
    "Hospital",
    "Invitation",
    "LabelChange",
    "ModelSite",
    "ModelVersion",
    "Node",
    "NodeModel",
    "Opinion",
    "OpinionKind",
    "OpinionLabel",
    "OutboxEntry",
    "Phrase",
    "Quarantine",
    "ReadingActivity",
    "RecoveryCode",
    "Report",
    "Review",
    "RoundRecord",
    "Run",
    "RunEvent",
    "RunSchedule",
    "SavedView",
    "SeenProof",
    "SignInStep",
    "SiteRound",
    "User",
    "UserSession",
]
