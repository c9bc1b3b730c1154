"""All SQL about readings; cases are reached through the cases domain, which checks the tenant."""

from collections.abc import Sequence

from sqlalchemy import func
from sqlmodel import Session, col, select

from server.models import FindingChange, FlagDecision, LabelChange, Phrase, Review, User


def review(session: Session, case_id: str, reader_id: str) -> Review | None:
    """Return this reader's unsigned reading of the case."""
    query = select(Review).where(
        Review.case_id == case_id, Review.reader_id == reader_id, col(Review.signed_at).is_(None)
    )
    return session.exec(query).first()


def unsigned_reviews(session: Session, case_id: str) -> Sequence[Review]:
    """Return all readings of the case that are not signed."""
    return session.exec(select(Review).where(Review.case_id == case_id, col(Review.signed_at).is_(None))).all()


def signed_review(session: Session, case_id: str) -> Review | None:
    """Return the reading of the case that was signed last, whoever's."""
    query = select(Review).where(Review.case_id == case_id, col(Review.signed_at).is_not(None))
    return session.exec(query.order_by(col(Review.signed_at).desc())).first()


def changes(session: Session, case_id: str) -> Sequence[LabelChange]:
    """Return every change of the case, oldest first."""
    query = select(LabelChange).where(LabelChange.case_id == case_id)
    return session.exec(query.order_by(col(LabelChange.at), col(LabelChange.id))).all()


def standing_changes(session: Session, case_id: str) -> int:
    """Return how many changes of the case were not taken back."""
    query = select(func.count()).select_from(LabelChange)
    return session.exec(query.where(LabelChange.case_id == case_id, col(LabelChange.undone).is_(False))).one()


def changes_by_request(session: Session, case_id: str, prefix: str) -> Sequence[LabelChange]:
    """Return the changes that one request made to a case; their keys are ``<prefix>#<n>``.

    The case first: its index is used, while the beginning of a key is looked for in every row there ever was.
    """
    start = f"{prefix}#"
    return session.exec(
        select(LabelChange).where(
            LabelChange.case_id == case_id, col(LabelChange.idempotency_key).startswith(start, autoescape=True)
        )
    ).all()


def named_changes(session: Session, case_id: str) -> list[tuple[LabelChange, str]]:
    """Return every change with its reader's name, newest first."""
    query = (
        select(LabelChange, User.display_name)
        .join(User, col(User.id) == col(LabelChange.by))
        .where(LabelChange.case_id == case_id)
        .order_by(col(LabelChange.at).desc())
    )
    return list(session.exec(query).all())


def own_acts(session: Session, case_id: str, reader_id: str) -> list[list[LabelChange]]:
    """Return what this reader did to the case, act by act, oldest first; an act's rows stand together."""
    acts: dict[str, list[LabelChange]] = {}
    for change in changes(session, case_id):
        if change.by == reader_id:
            acts.setdefault(act_of(change), []).append(change)
    return list(acts.values())


def act_of(change: LabelChange) -> str:
    """Return the act that a row belongs to."""
    return change.idempotency_key.rpartition("#")[0]


def decision(session: Session, case_id: str, flag_id: str) -> FlagDecision | None:
    """Return the word spoken on a flag."""
    return session.get(FlagDecision, (case_id, flag_id))


def finding_changes(session: Session, case_id: str) -> Sequence[FindingChange]:
    """Return every step of the case's findings, oldest first."""
    query = select(FindingChange).where(FindingChange.case_id == case_id)
    return session.exec(query.order_by(col(FindingChange.version), col(FindingChange.at))).all()


def finding_by_key(session: Session, key: str) -> FindingChange | None:
    """Return the step that was done under a key."""
    return session.exec(select(FindingChange).where(FindingChange.idempotency_key == key)).first()


def phrases(session: Session, user_id: str) -> Sequence[Phrase]:
    """Return what a reader keeps, newest first."""
    query = select(Phrase).where(Phrase.user_id == user_id).order_by(col(Phrase.at).desc(), col(Phrase.id))
    return session.exec(query).all()
