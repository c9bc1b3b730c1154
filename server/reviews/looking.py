"""What must have been looked at before a case is signed: every doubtful cell, and every class group."""

from collections.abc import Collection, Iterable, Sequence

from sqlmodel import Session

from server.accounts.schemas import Principal
from server.cases import service as cases
from server.cases.lifecycle import READABLE
from server.cases.schemas import CellOutline
from server.cases.sight import require_open
from server.models import Review
from server.reviews import repository, steps
from server.reviews.schemas import Readiness
from shared.contracts.errors import ConflictError
from shared.contracts.ontology import CellClass

_NAMED = 8


def forget(session: Session, case_id: str, classes: Collection[CellClass]) -> None:
    """Have readers look at these groups again: cells came that they have not seen."""
    gone = {cls.value for cls in classes}
    for review in repository.unsigned_reviews(session, case_id):
        review.seen = [value for value in review.seen if value not in gone]


def saw(session: Session, principal: Principal, case_id: str, groups: Iterable[CellClass]) -> Readiness:
    """Note which class groups were on the reader's screen; saying it again changes nothing.

    Nothing is noted of a case past reading: a page may say its last word after the signature.
    """
    try:
        case = cases.held_case(session, principal, case_id)
    except ConflictError:
        if cases.visible_case(session, principal, case_id).state in READABLE:
            raise
        return readiness_of(session, principal, case_id)
    review = steps.reading(session, case, principal)
    # A new list: a change inside one would not be noticed.
    review.seen = sorted({*review.seen, *(group.value for group in groups)})
    return readiness(cases.outlines_of(session, case_id), review)


def readiness_of(session: Session, principal: Principal, case_id: str) -> Readiness:
    """Return what this reader has yet to look at.

    Raises:
        ConflictError: they are to read the case blind.
    """
    require_open(session, principal, cases.visible_case(session, principal, case_id))
    review = repository.review(session, case_id, principal.user_id)
    return readiness(cases.outlines_of(session, case_id), review)


def seen_by(session: Session, principal: Principal, case_id: str) -> list[CellClass]:
    """Return the class groups that were on this reader's screen so far."""
    cases.visible_case(session, principal, case_id)
    review = repository.review(session, case_id, principal.user_id)
    return [CellClass(value) for value in review.seen] if review else []


def readiness(rows: Sequence[CellOutline], review: Review | None) -> Readiness:
    """Return what is left; ``rows`` are all cells of the case.

    Cells whose class a reader set have been seen by that: only groups that hold others must be on screen.
    """
    numbers = cases.numbers_of(rows)
    untouched = [cell for cell in rows if cell.stands and cell.changed_by is None]
    seen = set(review.seen) if review else set()
    return Readiness(
        doubtful=[numbers[cell.cell_id] for cell in untouched if cases.doubtful(cell)],
        unseen=sorted(
            {cell.current_class for cell in untouched if cell.current_class.value not in seen},
            key=lambda cls: cls.order,
        ),
    )


def require_ready(rows: Sequence[CellOutline], review: Review) -> None:
    """Return if the case may be signed.

    Raises:
        ConflictError: a doubtful cell was left unreviewed, or a class group was never on screen.
    """
    left = readiness(rows, review)
    if left.doubtful:
        count = len(left.doubtful)
        which = _listed([str(number) for number in left.doubtful])
        what = f"cell {which} is" if count == 1 else f"cells {which} are"
        raise ConflictError(f"Doubtful {what} not reviewed yet: set or accept the class, then sign.")
    if left.unseen:
        which = _listed([cls.info.name for cls in left.unseen])
        raise ConflictError(f"Look at every class before you sign; not on your screen yet: {which}.")


def _listed(words: list[str]) -> str:
    more = len(words) - _NAMED
    return ", ".join(words[:_NAMED]) + (f" and {more} more" if more > 0 else "")
