"""What a reader does before signing: every doubtful cell is accepted or set, every class group is looked at."""

from collections.abc import Mapping, Sequence

from sqlmodel import Session

from server.accounts.schemas import Principal
from server.cases import service as cases
from server.reviews import looking
from server.reviews import service as reviews
from server.reviews.schemas import FlagDecisionInput, SignInput
from tests.factories import PASSWORD

_NOTHING: Mapping[str, str] = {}


def look_through(session: Session, reader: Principal, case_id: str) -> None:
    """Accept what is doubtful as the model named it, and have every class group on the screen."""
    cells = cases.case_view(session, reader, case_id).cells
    if doubtful := [cell.cell_id for cell in cells if cell.doubtful]:
        reviews.accept(session, reader, case_id, cell_ids=doubtful, idempotency_key=f"accept-{case_id}")
    looking.saw(session, reader, case_id, {cell.current_class for cell in cells})


def sign_input(
    session: Session, reader: Principal, case_id: str, *, impression: str, dismissed: Mapping[str, str] = _NOTHING,
    opinions: Sequence[str] = (), password: str = PASSWORD,
) -> SignInput:  # fmt: skip
    """Return what the page sends to sign the case as it is; ``dismissed``: flag id → reason, the rest is agreed."""
    case = cases.case_view(session, reader, case_id)
    decisions = [
        FlagDecisionInput(
            flag_id=flag.id, shown=flag.shown, agreed=flag.id not in dismissed, reason=dismissed.get(flag.id, "")
        )
        for flag in case.flags
    ]
    return SignInput(
        password=password, impression=impression, case_version=case.version, decisions=decisions,
        opinions=list(opinions),
    )  # fmt: skip
