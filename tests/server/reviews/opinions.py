"""A ward whose case is read blind, for the tests of blind readings."""

from server.accounts.schemas import Principal
from server.cases import service as cases
from server.models import Case, CaseCell
from server.models.base import utc_now
from server.reviews import opinions, second_opinions
from server.reviews.schemas import ChangeResult
from shared.contracts.ontology import CellClass
from tests.server.conftest import Ward


def drawn(ward: Ward) -> Ward:
    """Have the case read without the AI first, by the reader."""
    with ward.centre.runtime.database.session() as session:
        session.get_one(Case, ward.case_id).blind_drawn = True
        cases.claim(session, ward.reader, ward.case_id)
    return ward


def asked(ward: Ward, *, of: Principal | None, hides_ai: bool = False) -> str:
    """Have the reader claim the case and ask for a second opinion."""
    with ward.centre.runtime.database.session() as session:
        cases.claim(session, ward.reader, ward.case_id)
        return second_opinions.ask(
            session, ward.reader, ward.case_id, of=of.user_id if of else None, question="Blasts?", hides_ai=hides_ai
        )


def sent_later(ward: Ward, cells: list[str]) -> None:
    """Have cells stand in the case as those do that come when more is asked for: behind all that have a number."""
    with ward.centre.runtime.database.session() as session:
        for cell_id in cells:
            session.get_one(CaseCell, (ward.case_id, cell_id)).added_at = utc_now()


def classify(ward: Ward, cells: list[str], label: CellClass | None, key: str, *, who: Principal) -> ChangeResult:
    """Name cells in somebody's blind reading."""
    with ward.centre.runtime.database.session() as session:
        return opinions.classify(session, who, ward.case_id, cell_ids=cells, label=label, idempotency_key=key)


def save(ward: Ward, *, who: Principal, text: str = "Left shift.") -> str | None:
    """Save somebody's blind reading."""
    with ward.centre.runtime.database.session() as session:
        return opinions.save(session, who, ward.case_id, text=text, estimate={})
