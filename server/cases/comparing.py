"""Signed cells to lay beside the one in question: of the same patient, and of hospitals that share theirs.

Consent is a hospital's: ``Hospital.shares_references`` is off until the hospital turns it on, and turning it off takes
its cells out at once. A patient's own earlier cases need none: whoever reads the case may open them anyway.
"""

from sqlmodel import Session

from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.audit import service as audit
from server.cases import repository, views
from server.cases import service as cases
from server.cases.schemas import Comparison, SignedCell
from server.models import CaseCell
from shared.contracts.errors import ForbiddenError, NotFoundError
from shared.contracts.ontology import CellClass

MOST = 12
MOST_OF_A_HOSPITAL = 4


def comparison(session: Session, principal: Principal, case_id: str, label: CellClass) -> Comparison:
    """Return signed cells of a class: this patient's, newest case first, and references, set by readers first."""
    case = cases.visible_case(session, principal, case_id)
    earlier = repository.signed_cells(
        session, label, hospital_id=case.hospital_id, pseudonym=case.patient_pseudonym, but=case_id, most=MOST
    )
    shared = repository.shared_cells(session, label, but_patient=(case.hospital_id, case.patient_pseudonym))
    taken: dict[str, int] = {}
    references: list[repository.Signed] = []
    for one in shared:
        taken[one.case.hospital_id] = taken.get(one.case.hospital_id, 0) + 1
        if taken[one.case.hospital_id] <= MOST_OF_A_HOSPITAL and len(references) < MOST:
            references.append(one)
    numbers = {one.case.id: views.numbers(repository.cells(session, one.case.id)) for one in (*earlier, *references)}
    return Comparison(
        earlier=[_view(one, numbers[one.case.id]) for one in earlier],
        references=[_view(one, numbers[one.case.id]) for one in references],
    )


def share_references(session: Session, principal: Principal, hospital_id: str, *, shares: bool) -> None:
    """Let a hospital's signed cells stand beside other hospitals' as references, or take them out again.

    Raises:
        ForbiddenError: neither an administrator nor this hospital's own IT.
    """
    own = principal.role is Role.HOSPITAL_IT and principal.hospital_id == hospital_id
    if not own and principal.role is not Role.ADMIN:
        raise ForbiddenError("Whether a hospital shares cells is its own decision; ask its IT.")
    hospital = repository.hospital(session, hospital_id)
    if hospital is None:
        raise NotFoundError("There is no such hospital.")
    if hospital.shares_references == shares:
        return
    hospital.shares_references = shares
    audit.record(
        session,
        subject=f"hospital:{hospital_id}",
        actor=principal.actor,
        action="hospital.references",
        data={"shares": shares},
    )


def shares_references(session: Session, hospital_id: str) -> bool:
    """Whether a hospital shares its signed cells."""
    hospital = repository.hospital(session, hospital_id)
    return hospital is not None and hospital.shares_references


def _view(one: repository.Signed, numbers: dict[str, int]) -> SignedCell:
    cell: CaseCell = one.cell
    return SignedCell(
        case_id=one.case.id,
        cell_id=cell.cell_id,
        number=numbers[cell.cell_id],
        blob=cell.blob,
        label=cell.current_class,
        set_by=one.set_by,
        signed_on=f"{one.case.signed_at:%-d %b %Y}" if one.case.signed_at else "",
    )
