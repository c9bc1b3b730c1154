"""What somebody may see of a case while a reading of it has to be blind.

Two things are hidden here and nowhere else: what the AI said, from everybody, until the first impression of a drawn
case is saved; and what the first reader made of a case, from whoever is asked for a second opinion, until that is saved
(asked of anyone: from every reader who could give it), signed reports with it. Whatever shows a part of a case asks
`sight_of` first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlmodel import Session

from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.cases import opinion_repository
from server.models import Case, Opinion
from shared.contracts.case import OVERLAY_PREFIX
from shared.contracts.errors import ConflictError
from shared.contracts.ontology import CellClass

MARKED_PREFIX: Final = "reader-"
"""Begins the name of a picture of a cell that a reader marked."""
SOMETIMES_HIDDEN: Final = (OVERLAY_PREFIX, MARKED_PREFIX)


@dataclass(frozen=True)
class Sight:
    """What is hidden, and the blind reading that it is hidden for."""

    hides_ai: bool = False
    hides_first: bool = False
    opinion: Opinion | None = None
    """The reading in question, if it was begun or asked for."""
    labels: dict[str, CellClass] = field(default_factory=dict)
    """What this person has classified in it so far."""

    @property
    def blind(self) -> bool:
        """Whether anything is hidden."""
        return self.hides_ai or self.hides_first

    def shows_image(self, name: str) -> bool:
        """Whether an image of the case may be shown: overlays tell of the AI, crops of marked cells of a reader."""
        if self.hides_ai and name.startswith(OVERLAY_PREFIX):
            return False
        return not (self.hides_first and name.startswith(MARKED_PREFIX))


def sight_of(session: Session, principal: Principal, case: Case) -> Sight:
    """Return what this person may see of a case that is theirs to open."""
    for asked in _to_give(session, principal, case.id):
        own = asked.reader_id == principal.user_id
        labels = opinion_repository.opinion_labels(session, asked.id) if own else {}
        hides_ai = asked.hides_ai or case.awaits_impression
        return Sight(hides_ai=hides_ai, hides_first=True, opinion=asked, labels=labels)
    if not case.awaits_impression:
        return Sight()
    begun = opinion_repository.begun_impression(session, case.id, principal.user_id)
    labels = opinion_repository.opinion_labels(session, begun.id) if begun else {}
    return Sight(hides_ai=True, opinion=begun, labels=labels)


def without_ai(session: Session, principal: Principal) -> set[str]:
    """Return the ids of the cases whose AI is hidden from this person alone, as their second opinion is blind to it."""
    return {asked.case_id for asked in _to_give(session, principal) if asked.hides_ai}


def without_first(session: Session, principal: Principal) -> set[str]:
    """Return the ids of the cases whose first reading is hidden from this person: signed reports of them too."""
    return {asked.case_id for asked in _to_give(session, principal)}


def require_open(session: Session, principal: Principal, case: Case) -> None:
    """Return if nothing of the case is hidden from this person: for whatever cannot be shown in part.

    Raises:
        ConflictError: they are to read it blind.
    """
    if sight_of(session, principal, case).blind:
        raise ConflictError("This is shown once the blind reading of the case is saved.")


def require_shown_ai(case: Case) -> None:
    """Return if the AI of the case is shown, so that classes that stand can be changed.

    Raises:
        ConflictError: its first impression is not saved yet.
    """
    if case.awaits_impression:
        raise ConflictError("This case is read without the AI first: save your first impression, then go on.")


def _to_give(session: Session, principal: Principal, case_id: str | None = None) -> Sequence[Opinion]:
    """Return the open second opinions that are this person's to give: of a case the one that is asked, if any."""
    if principal.role is not Role.HEMATOLOGIST:
        return ()
    return opinion_repository.opinions_to_give(session, principal.user_id, case_id=case_id)
