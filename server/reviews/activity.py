"""That a reader was at work on a case: counts of keys and clicks, for the time that a reading takes."""

from sqlmodel import Session

from server.accounts.schemas import Principal
from server.cases import service as cases
from server.cases.access import require_reader
from server.models import ReadingActivity

MOST = 2000
"""Keys or clicks in one word of a page; what says more is no person."""


def was_active(session: Session, principal: Principal, case_id: str, *, keys: int, clicks: int) -> None:
    """Note that this person was at work on the case; nothing where they neither hold it nor read it blind."""
    require_reader(principal)
    case = cases.visible_case(session, principal, case_id)
    sight = cases.sight(session, principal, case)
    reads_blind = sight.opinion is not None and sight.opinion.reader_id == principal.user_id
    if reads_blind or cases.holds(case, principal):
        row = ReadingActivity(
            case_id=case_id, reader_id=principal.user_id, keys=min(MOST, keys), clicks=min(MOST, clicks)
        )
        session.add(row)
