"""All SQL about requests for more of a smear."""

from collections.abc import Collection

from sqlalchemy import func
from sqlmodel import Session, col, select

from server.models import Case, CaseSupplement
from shared.contracts.case import CaseState
from shared.contracts.errors import NotFoundError
from shared.contracts.supplement import MoreState


def add(session: Session, row: CaseSupplement) -> None:
    """Store a new request."""
    session.add(row)
    session.flush()


def get(session: Session, request_id: str) -> CaseSupplement | None:
    """Return a request."""
    return session.get(CaseSupplement, request_id)


def locked(session: Session, request_id: str) -> CaseSupplement:
    """Return a request that exists, its row held."""
    row = session.get(CaseSupplement, request_id, with_for_update=True)
    if row is None:
        raise NotFoundError("There is no such request.")
    return row


def locked_of_node(session: Session, request_id: str, *, node_id: str) -> CaseSupplement | None:
    """Return a request to this node, its row held."""
    query = select(CaseSupplement).where(CaseSupplement.id == request_id, CaseSupplement.node_id == node_id)
    return session.exec(query.with_for_update()).first()


def of_case(session: Session, case_id: str) -> list[CaseSupplement]:
    """Return a case's requests, the newest first."""
    query = select(CaseSupplement).where(CaseSupplement.case_id == case_id)
    return list(session.exec(query.order_by(col(CaseSupplement.asked_at).desc())).all())


def waiting_for(
    session: Session, *, node_id: str, states: Collection[MoreState], cases: Collection[CaseState]
) -> list[CaseSupplement]:
    """Return what a node has to do, the oldest first: requests in ``states`` for cases in ``cases``."""
    query = (
        select(CaseSupplement)
        .join(Case, col(Case.id) == col(CaseSupplement.case_id))
        .where(CaseSupplement.node_id == node_id, col(CaseSupplement.state).in_(states), col(Case.state).in_(cases))
        .order_by(col(CaseSupplement.asked_at))
    )
    return list(session.exec(query).all())


def in_states(session: Session, states: Collection[MoreState]) -> list[CaseSupplement]:
    """Return all requests in ``states``."""
    return list(session.exec(select(CaseSupplement).where(col(CaseSupplement.state).in_(states))).all())


def stamp(session: Session, case_id: str) -> str:
    """Return what changes with every step of a case's requests."""
    query = select(func.max(CaseSupplement.changed_at)).where(CaseSupplement.case_id == case_id)
    return str(session.exec(query).one())
