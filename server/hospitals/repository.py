"""All SQL of hospitals, kits, nodes and their proofs."""

from datetime import datetime

from sqlalchemy import delete, func
from sqlmodel import Session, col, select

from server.federation.states import RunState, SiteState
from server.models import (
    CaseSupplement,
    EnrolmentKit,
    Hospital,
    ModelVersion,
    Node,
    Report,
    RoundRecord,
    Run,
    SeenProof,
    SiteRound,
)
from server.registry.states import ModelState
from shared.contracts.enrolment import EnrolmentState
from shared.contracts.supplement import MoreState


def more_waiting(session: Session, node_id: str) -> int:
    """Return how many requests for more of a smear wait for this node."""
    states = (MoreState.ASKED, MoreState.TAKEN)
    query = select(func.count()).where(CaseSupplement.node_id == node_id, col(CaseSupplement.state).in_(states))
    return session.exec(query).one()


def add(session: Session, row: Hospital | EnrolmentKit | Node | SeenProof) -> None:
    """Store a new row."""
    session.add(row)
    session.flush()


def hospital(session: Session, hospital_id: str) -> Hospital | None:
    """Return a hospital."""
    return session.get(Hospital, hospital_id)


def hospitals(session: Session, *, only: str | None) -> list[Hospital]:
    """Return all hospitals, or one, by id."""
    statement = select(Hospital).order_by(col(Hospital.id))
    return list(session.exec(statement if only is None else statement.where(Hospital.id == only)).all())


def kit_by_token(session: Session, token_sha256: str) -> EnrolmentKit | None:
    """Return the kit of this token, locked: two requests must not both use it."""
    return session.exec(select(EnrolmentKit).where(EnrolmentKit.token_sha256 == token_sha256).with_for_update()).first()


def node(session: Session, node_id: str, *, lock: bool = False) -> Node | None:
    """Return a node."""
    return session.get(Node, node_id, with_for_update=lock)


def node_by_key(session: Session, signing_key: str) -> Node | None:
    """Return the node that signs with this key."""
    return session.exec(select(Node).where(Node.signing_key == signing_key)).first()


def nodes(session: Session, *, hospital_id: str | None = None, state: EnrolmentState | None = None) -> list[Node]:
    """Return nodes by hospital and age."""
    statement = select(Node).order_by(col(Node.hospital_id), col(Node.enrolled_at))
    if hospital_id is not None:
        statement = statement.where(Node.hospital_id == hospital_id)
    if state is not None:
        statement = statement.where(Node.state == state)
    return list(session.exec(statement).all())


def forget_proofs(session: Session, now: datetime) -> None:
    """Drop the proofs that are too old to be accepted anyway."""
    session.exec(delete(SeenProof).where(col(SeenProof.expires_at) < now))


# What a heartbeat answers lies in other domains' tables. It is read here, since those domains' services
# themselves ask this one for nodes, and the two must not import each other.
def current_model(session: Session) -> str | None:
    """Return the version that nodes should run."""
    return session.exec(select(ModelVersion.version).where(ModelVersion.state == ModelState.CURRENT)).first()


def asked_since(session: Session, hospital_id: str) -> datetime | None:
    """Return since when a round that is under way awaits the hospital's answer; None: none does."""
    statement = (
        select(RoundRecord.started_at)
        .join(SiteRound, (col(SiteRound.run_id) == RoundRecord.run_id) & (col(SiteRound.round) == RoundRecord.round))
        .join(Run, col(Run.id) == RoundRecord.run_id)
        .where(
            SiteRound.hospital_id == hospital_id,
            SiteRound.state == SiteState.SAMPLED,
            col(RoundRecord.ended_at).is_(None),
            Run.state == RunState.RUNNING,
        )
    )
    return session.exec(statement).first()


def reports_waiting(session: Session, hospital_id: str) -> int:
    """Return how many rendered reports the hospital has not acknowledged."""
    statement = select(func.count()).where(
        col(Report.hospital_id) == hospital_id,
        col(Report.rendered_at).is_not(None),
        col(Report.acknowledged_at).is_(None),
    )
    return session.exec(statement).one()
