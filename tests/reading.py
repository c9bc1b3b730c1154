"""What a reader does before signing: every doubtful cell is accepted or set, every class group is looked at."""

from sqlmodel import Session

from server.accounts.schemas import Principal
from server.cases import service as cases
from server.reviews import looking
from server.reviews import service as reviews


def look_through(session: Session, reader: Principal, case_id: str) -> None:
    """Accept what is doubtful as the model named it, and have every class group on the screen."""
    cells = cases.case_view(session, reader, case_id).cells
    if doubtful := [cell.cell_id for cell in cells if cell.doubtful]:
        reviews.accept(session, reader, case_id, cell_ids=doubtful, idempotency_key=f"accept-{case_id}")
    looking.saw(session, reader, case_id, {cell.current_class for cell in cells})
