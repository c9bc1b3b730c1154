"""One act of a reader on a case: what it does to each cell, on record, and what the page gets back."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlmodel import Session

from server.accounts.schemas import Principal
from server.audit import service as audit
from server.cases import service as cases
from server.models import Case, CaseCell, ChangeKind, LabelChange, Review
from server.models.base import utc_now
from server.reviews import repository
from server.reviews.schemas import ChangeResult, Done, GlassInput, SignInput
from shared.contracts.canonical import canonical_bytes
from shared.contracts.errors import DataInvalidError, NotFoundError
from shared.contracts.ontology import CellClass

CHANGE_LIMIT = 2000


@dataclass(frozen=True)
class Step:
    """What happens to one cell: the class and standing that it has afterwards."""

    cell: CaseCell
    label: CellClass
    stands: bool = True
    stood: bool | None = None
    """Before; None: as the row says (a new cell's row stands already, but it did not stand before)."""


def take(
    session: Session,
    case: Case,
    principal: Principal,
    *,
    kind: ChangeKind,
    act: str,
    steps: Iterable[Step],
    refers_to: str | None = None,
) -> None:
    """Do the steps and write them down, each under the act's key and its place in it."""
    now = utc_now()
    for number, step in enumerate(steps):
        cell = step.cell
        session.add(
            LabelChange(
                case_id=case.id,
                cell_id=cell.cell_id,
                previous=cell.current_class,
                label=step.label,
                by=principal.user_id,
                at=now,
                kind=kind,
                stood=cell.stands if step.stood is None else step.stood,
                stands=step.stands,
                refers_to=refers_to,
                idempotency_key=f"{act}#{number}",
            )
        )
        cases.set_class(cell, step.label, by=principal.user_id, at=now, stands=step.stands)


def pick(rows: Sequence[CaseCell], cell_ids: Collection[str]) -> list[CaseCell]:
    """Return the standing cells of these ids, each once.

    Raises:
        NotFoundError: one is not of this case, or stands no more.
    """
    if not cell_ids or len(cell_ids) > CHANGE_LIMIT:
        raise DataInvalidError("Mark the cells to change first.")
    by_id = {cell.cell_id: cell for cell in rows if cell.stands}
    if unknown := set(cell_ids) - by_id.keys():
        raise NotFoundError(f"{len(unknown)} of the marked cells are not of this case (any more). Reload the page.")
    return [by_id[cell_id] for cell_id in dict.fromkeys(cell_ids)]


def reading(session: Session, case: Case, principal: Principal) -> Review:
    """Return this reader's unsigned reading, begun now where there was none: an amendment's with what was signed."""
    review = repository.review(session, case.id, principal.user_id)
    if review is None:
        signed = repository.signed_review(session, case.id) if case.amending else None
        review = Review(case_id=case.id, reader_id=principal.user_id, impression=signed.impression if signed else "")
        session.add(review)
    return review


def note(session: Session, case: Case, principal: Principal, *, action: str, data: dict[str, object]) -> None:
    """Begin the review if need be, raise the case's version and audit the act."""
    reading(session, case, principal)
    cases.begin_review(session, case, actor=principal.actor)
    case.version += 1
    audit.record(session, subject=cases.subject(case.id), actor=principal.actor, action=action, data=data)


def done(case: Case, cells: Sequence[CaseCell]) -> Done:
    """Return what an act has come to; ``cells`` are those that the page asked about."""
    return Done([cell.cell_id for cell in cells], case.version)


def done_before(session: Session, case: Case, act: str) -> Done | None:
    """Return what an act came to that was done already under this key; None: it was not."""
    touched = {change.cell_id for change in repository.changes_by_request(session, case.id, act)}
    return Done(sorted(touched), case.version) if touched else None


def asked(kind: str, signing: SignInput | GlassInput) -> str | None:
    """Return a hash of what is signed and its key, without the password; None: there is no key."""
    if signing.idempotency_key is None:
        return None
    content = signing.model_copy(update={"password": ""})
    return f"{kind}:{hashlib.sha256(canonical_bytes(content)).hexdigest()}"


def changed(session: Session, principal: Principal, case_id: str, done: Done) -> ChangeResult:
    """Return what the page must redraw after an act: the cells as they stand now, the version as it was then.

    Apart from the act, so that it can be read once that is kept: nobody else can write until then.
    """
    cases.visible_case(session, principal, case_id)
    cells = cases.outlines_of(session, case_id)
    touched = cases.cells_named(session, case_id, done.cell_ids)
    return ChangeResult(
        case_version=done.case_version,
        cells=cases.cell_views_of(session, touched, cases.numbers_of(cells)),
        gone=sorted(cell.cell_id for cell in touched if not cell.stands),
        differential=cases.differential_of(cells),
        changes=repository.standing_changes(session, case_id),
    )
