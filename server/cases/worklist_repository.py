"""The SQL of the worklist: filtered, sorted and cut into pages by the database, by as many queries for any length."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Label, and_, bindparam, case, func, literal, or_, select, tuple_
from sqlalchemy.orm import aliased, load_only
from sqlmodel import Session, col

from server.cases.access import Scope
from server.cases.lifecycle import FINISHED, OPEN, PRIORITY_RANK
from server.cases.opinion_repository import OPEN_SECOND
from server.cases.schemas import Sort, WorklistFilter
from server.cases.views import NO_FLAG
from server.models import Case, ConsultPerson, ConsultThread, Hospital, Opinion, SavedView, User
from shared.contracts.case import CaseState, Priority

# A case's manifest, context and differential are large, and no list shows them.
_SHOWN: Final[tuple[Any, ...]] = (  # Any: SQLModel types a column as its value

    Case.id, Case.hospital_id, Case.priority, Case.state, Case.flags, Case.cell_count, Case.doubtful_count,
    Case.received_at, Case.due_at, Case.claimed_by, Case.lease_until, Case.assigned_to, Case.pseudo, Case.synthetic,
    Case.blind_drawn, Case.blind_read_at, Case.amending,
)  # fmt: skip
_WAITING: Final = OPEN - {CaseState.CLAIMED, CaseState.IN_REVIEW, CaseState.READY}
STATES: Final[dict[str, Collection[CaseState] | None]] = {
    "open": OPEN,
    "waiting": OPEN,
    "reading": OPEN,
    "done": FINISHED,
    "all": None,
}
_Holder, _Assignee = aliased(User), aliased(User)


@dataclass(frozen=True)
class Viewer:
    """Who looks at the list, and when."""

    scope: Scope
    me: str
    now: datetime
    without_ai: Collection[str]
    """Ids of the cases whose AI is hidden from them alone; that of a case drawn for a first read is from everybody."""


@dataclass(frozen=True)
class Listed:
    """A worklist line before it is a view."""

    case: Case
    hospital_name: str
    holder_name: str | None
    assignee_name: str | None
    key: tuple[Any, ...]  # Any: values of the columns that the list is sorted by


@dataclass(frozen=True)
class Tally:
    """How many open cases there are, whatever is filtered."""

    to_read: int
    stat: int
    late: int
    mine: int
    oldest_received_at: datetime | None


def listed(
    session: Session,
    wanted: WorklistFilter,
    *,
    viewer: Viewer,
    limit: int,
    after: str | None = None,
    only: Collection[str] | None = None,
) -> list[Listed]:
    """Return a page of the list: from behind the case ``after``, or of the cases ``only``."""
    keys = _keys(wanted.sort, viewer)
    entities: list[Any] = [Case, Hospital.name, _Holder.display_name, _Assignee.display_name, *keys]  # Any: as above
    query = _joined(select(*entities))
    query = query.options(load_only(*_SHOWN)).where(*_conditions(wanted, viewer))
    if only is not None:
        query = query.where(col(Case.id).in_(only))
    if after is not None:
        query = query.where(_behind(session, after, keys, descending=wanted.descending))
    query = query.order_by(*(key.desc() if wanted.descending else key.asc() for key in keys)).limit(limit)
    return [Listed(row[0], row[1], row[2], row[3], tuple(row[4:])) for row in session.execute(query).all()]


def matching(session: Session, wanted: WorklistFilter, *, viewer: Viewer) -> int:
    """Return how many cases fit the filters."""
    query = _joined(select(func.count(col(Case.id)))).where(*_conditions(wanted, viewer))
    return int(session.execute(query).scalar_one())


def tally(session: Session, *, viewer: Viewer) -> Tally:
    """Count the open cases."""
    mine = _mine(viewer.me, viewer.now)
    query = select(
        func.count(col(Case.id)),
        _sum(col(Case.priority) == Priority.STAT),
        _sum(col(Case.due_at) < viewer.now),
        _sum(mine),
        func.min(col(Case.received_at)),
    ).where(col(Case.state).in_(OPEN), *_within(viewer.scope))
    to_read, stat, late, own, oldest = session.execute(query).one()
    return Tally(to_read, stat, late, own, oldest)


def flags(session: Session, *, viewer: Viewer, states: Collection[CaseState] | None) -> set[str]:
    """Return the ids of all flags that cases in these states have."""
    query = select(_flag_ids(viewer)).distinct().where(*_within(viewer.scope))
    if states is not None:
        query = query.where(col(Case.state).in_(states))
    return {flag for ids in session.execute(query).scalars() for flag in ids.split()}


def for_assigning(session: Session, case_ids: Sequence[str], *, scope: Scope) -> dict[str, Case]:
    """Return the cases that exist inside the scope, locked in one order, so that two who assign at once never block."""
    query = select(Case).options(load_only(*_SHOWN)).where(col(Case.id).in_(case_ids), *_within(scope))
    rows = session.execute(query.order_by(col(Case.id)).with_for_update(of=Case)).scalars()
    return {row.id: row for row in rows}


def open_cases_of(session: Session, hospital_id: str) -> list[Case]:
    """Return a hospital's open cases, for their targets."""
    query = select(Case).options(load_only(*_SHOWN))
    return list(session.execute(query.where(col(Case.hospital_id) == hospital_id, col(Case.state).in_(OPEN))).scalars())


def saved_views(session: Session, owner_id: str) -> list[SavedView]:
    """Return a person's views, the oldest first."""
    query = select(SavedView).where(col(SavedView.owner_id) == owner_id)
    return list(session.execute(query.order_by(col(SavedView.created_at), col(SavedView.id))).scalars())


def keep_view(session: Session, row: SavedView) -> None:
    """Store a new view."""
    session.add(row)
    session.flush()


def drop_view(session: Session, row: SavedView) -> None:
    """Remove a view."""
    session.delete(row)


@dataclass(frozen=True)
class Mark:
    """What may change in a line while a page is open."""

    hospital_id: str
    state: str
    holder: str | None
    assignee: str | None
    due_at: datetime
    version: int


def marks(session: Session, *, now: datetime) -> dict[str, Mark]:
    """Return a mark for every open case; a mark that differs from one before tells that the line has changed."""
    holder = case((col(Case.lease_until) > now, col(Case.claimed_by)), else_=None)
    query = select(
        col(Case.id), col(Case.hospital_id), col(Case.state), holder, col(Case.assigned_to), col(Case.due_at),
        col(Case.version),
    ).where(col(Case.state).in_(OPEN))  # fmt: skip
    return {row[0]: Mark(row[1], row[2].value, *row[3:]) for row in session.execute(query).all()}


def _joined(query: Any) -> Any:  # Any: SQLAlchemy's typed selects differ by their columns
    return (
        query.select_from(Case)
        .join(Hospital, col(Hospital.id) == col(Case.hospital_id))
        .join(_Holder, col(_Holder.id) == col(Case.claimed_by), isouter=True)
        .join(_Assignee, col(_Assignee.id) == col(Case.assigned_to), isouter=True)
    )


def _within(scope: Scope) -> list[ColumnElement[bool]]:
    return [] if scope is None else [col(Case.hospital_id) == scope]


def _sum(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def _held(now: datetime) -> ColumnElement[bool]:
    return and_(col(Case.claimed_by).is_not(None), col(Case.lease_until) > now)


def _mine(me: str, now: datetime) -> ColumnElement[bool]:
    asked = select(col(Opinion.case_id)).where(col(Opinion.reader_id) == me, *OPEN_SECOND)
    holds = and_(col(Case.claimed_by) == me, col(Case.lease_until) > now)
    return or_(col(Case.assigned_to) == me, holds, col(Case.id).in_(asked))


def _hidden(viewer: Viewer) -> ColumnElement[bool]:
    """Whether nothing that the AI said of a case may be found or told by its place."""
    drawn = and_(col(Case.blind_drawn), col(Case.blind_read_at).is_(None))
    return or_(drawn, col(Case.id).in_(viewer.without_ai)) if viewer.without_ai else drawn


def _flag_ids(viewer: Viewer) -> ColumnElement[str]:
    return case((_hidden(viewer), " "), else_=col(Case.flag_ids))


def _conditions(wanted: WorklistFilter, viewer: Viewer) -> list[ColumnElement[bool]]:
    found, me, now = _within(viewer.scope), viewer.me, viewer.now
    states = STATES[wanted.state]
    if states is not None:
        found.append(col(Case.state).in_(states))
    if wanted.state == "waiting":
        found.append(or_(col(Case.state).in_(_WAITING), ~_held(now), col(Case.claimed_by).is_(None)))
    if wanted.state == "reading":
        found.append(_held(now))
    if wanted.hospital_id is not None:
        found.append(col(Case.hospital_id) == wanted.hospital_id)
    if wanted.priority is not None:
        found.append(col(Case.priority) == wanted.priority)
    if wanted.flag is not None:
        found.append(_flag_ids(viewer).contains(f" {wanted.flag} ", autoescape=True))
    if wanted.late:
        found += [col(Case.due_at) < now, col(Case.state).in_(OPEN)]
    if wanted.asked:
        found.append(col(Case.id).in_(_asked(me)))
    found += _of_reader(wanted.reader, me=me, now=now)
    if phrase := wanted.search.strip().lower():
        found.append(_says(phrase, viewer))
    return found


def _asked(me: str) -> Any:  # Any: SQLAlchemy's type of a scalar subquery
    """Return the ids of cases where something new waits for a person (`server.consult.repository.unread`)."""
    return (
        select(col(ConsultThread.case_id))
        .join(ConsultPerson, col(ConsultPerson.thread_id) == col(ConsultThread.id))
        .where(
            col(ConsultPerson.user_id) == me,
            col(ConsultThread.last_by) != me,
            or_(col(ConsultPerson.read_at).is_(None), col(ConsultThread.last_at) > col(ConsultPerson.read_at)),
        )
    )


def _of_reader(reader: str, *, me: str, now: datetime) -> list[ColumnElement[bool]]:
    if not reader:
        return []
    if reader == "nobody":
        return [col(Case.assigned_to).is_(None), or_(col(Case.claimed_by).is_(None), ~_held(now))]
    return [_mine(me if reader == "me" else reader, now)]


def _says(phrase: str, viewer: Viewer) -> ColumnElement[bool]:
    names = (Case.id, Hospital.name, _Holder.display_name, _Assignee.display_name)
    found = [func.lower(col(name)).contains(phrase, autoescape=True) for name in names]
    # Flags are searched as a reader calls them: "immature gran" finds immature.granulocytes.
    words = func.replace(func.replace(_flag_ids(viewer), ".", " "), "_", " ")
    return or_(*found, words.contains(phrase, autoescape=True))


def _keys(sort: Sort, viewer: Viewer) -> list[Label[Any]]:  # Any: each key has its own type
    rank = case(*((col(Case.priority) == priority, place) for priority, place in PRIORITY_RANK.items()), else_=9)
    urgency: list[Any] = [rank, col(Case.due_at)]
    reader = case(
        (_held(viewer.now), func.lower(col(_Holder.display_name))), else_=func.lower(col(_Assignee.display_name))
    )
    hidden = _hidden(viewer)
    by: dict[Sort, list[Any]] = {  # Any: as above
        Sort.URGENCY: urgency,
        Sort.DUE: [col(Case.due_at)],
        Sort.WAITING: [col(Case.received_at)],
        Sort.HOSPITAL: [func.lower(col(Hospital.name)), *urgency],
        Sort.FLAGS: [case((hidden, NO_FLAG), else_=col(Case.flag_rank)), *urgency],
        Sort.CELLS: [col(Case.cell_count)],
        Sort.DOUBTFUL: [case((hidden, 0), else_=col(Case.doubtful_count))],
        # Whatever nobody is to read stands last: no name begins with this letter.
        Sort.READER: [func.coalesce(reader, literal("\uffff")), *urgency],
        Sort.CASE: [],
    }
    return [key.label(f"key{at}") for at, key in enumerate([*by[sort], col(Case.id)])]


def _behind(session: Session, after: str, keys: list[Label[Any]], *, descending: bool) -> ColumnElement[bool]:
    """Return the condition of standing behind a case, wherever that one stands by now."""
    row = session.execute(_joined(select(*keys)).where(col(Case.id) == after)).first()
    if row is None:
        return literal(value=True)
    place = tuple_(*(bindparam(None, value, type_=key.type) for key, value in zip(keys, row, strict=True)))
    here = tuple_(*(key.element for key in keys))
    return here < place if descending else here > place
