"""Pieces of text for reports: those that everybody has, and those that a reader keeps."""

from typing import Final

from sqlmodel import Session

from server.accounts.schemas import Principal
from server.cases.access import require_reader
from server.models import Phrase
from server.reviews import repository
from server.reviews.schemas import PhraseView
from shared.contracts.errors import ConflictError, DataInvalidError, NotFoundError
from shared.contracts.findings import TEXT_LIMIT, Part
from shared.text import typed

IMPRESSION: Final = "impression"
PLACES: Final = (*(part.value for part in Part), IMPRESSION)
KEPT_LIMIT: Final = 100
SHIPPED: Final[dict[str, tuple[str, ...]]] = {
    Part.RED_CELLS: (
        "Red cells are normocytic and normochromic, without notable changes of shape.",
        "Hypochromic microcytic red cells: iron studies are suggested.",
        "Macro-ovalocytes: vitamin B12 and folate are suggested.",
        "Schistocytes: thrombotic microangiopathy must be considered; correlate with platelets, LDH and haptoglobin.",
    ),
    Part.WHITE_CELLS: (
        "Toxic changes of the neutrophils, in keeping with infection or inflammation.",
        "Reactive lymphocytes, in keeping with a viral infection.",
        "No blasts seen.",
    ),
    Part.PLATELETS: (
        "Platelets agree with the count by machine; no clumps.",
        "Platelet clumps: repeat the count in citrate.",
        "Thrombocytopenia is confirmed on the smear.",
    ),
    Part.MALARIA: (
        "No malaria parasites seen on this smear; repeat after 12 to 24 hours if the suspicion stays.",
        "The species must be confirmed by a reference laboratory.",
    ),
    IMPRESSION: (
        "Reactive picture; correlate with the clinical findings.",
        "A second sample is suggested.",
    ),
}


def phrases(session: Session, principal: Principal) -> list[PhraseView]:
    """Return the phrases that this reader can insert, own ones first in each place."""
    own = repository.phrases(session, principal.user_id)
    return [
        *(PhraseView(id=phrase.id, place=phrase.place, text=phrase.text) for phrase in own),
        *(PhraseView(id=None, place=place, text=text) for place, texts in SHIPPED.items() for text in texts),
    ]


def keep(session: Session, principal: Principal, place: str, text: str) -> PhraseView:
    """Keep a phrase for this reader; one that is kept already is not kept twice."""
    require_reader(principal)
    cleaned = typed(text, lines=True)
    if place not in PLACES:
        raise DataInvalidError("There is no such place for a phrase. Reload the page.")
    if not 0 < len(cleaned) <= TEXT_LIMIT:
        raise DataInvalidError(f"Write the phrase first, at most {TEXT_LIMIT:,} letters.")
    own = repository.phrases(session, principal.user_id)
    for phrase in own:
        if (phrase.place, phrase.text) == (place, cleaned):
            return PhraseView(id=phrase.id, place=place, text=cleaned)
    if len(own) >= KEPT_LIMIT:
        raise ConflictError(f"You keep {KEPT_LIMIT} phrases already; remove one first.")
    kept = Phrase(user_id=principal.user_id, place=place, text=cleaned)
    session.add(kept)
    return PhraseView(id=kept.id, place=place, text=cleaned)


def remove(session: Session, principal: Principal, phrase_id: str) -> None:
    """Forget one of this reader's phrases."""
    require_reader(principal)
    phrase = next((one for one in repository.phrases(session, principal.user_id) if one.id == phrase_id), None)
    if phrase is None:
        raise NotFoundError("There is no such phrase of yours.")
    session.delete(phrase)
