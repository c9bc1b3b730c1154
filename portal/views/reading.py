"""The reading room: one case on one screen."""

import secrets
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from portal import reading_keys, words
from portal.access import SignedIn
from portal.case_head import head_of
from portal.rendering import page
from portal.views.findings import forms
from server.accounts import colleagues
from server.accounts.schemas import Principal
from server.cases import comparing, viewing
from server.cases import service as cases
from server.cases.lifecycle import READABLE
from server.cases.pictures import OVERLAP, TILE, TilePlace
from server.cases.schemas import CaseView, Comparison
from server.cases.views import reading_order
from server.deps import CommittingRoute, RuntimeDep, SessionDep
from server.reviews import findings, looking, phrases, second_opinions
from server.reviews import service as reviews
from server.reviews.schemas import ChangeView
from server.reviews.second_opinions import OpinionView
from shared.contracts.ontology import CLASS_INFO, CORE_FIVE, CellClass

router = APIRouter(route_class=CommittingRoute)

FIRST_IMAGES: Final = 14
"""As many as the gallery's script asks for first (`thumbnails.js`)."""

ImageNames = Annotated[list[str], Query(min_length=1, max_length=64)]

KEY_CLASSES: Final = (
    *CORE_FIVE,
    CellClass.IMMATURE_GRANULOCYTE,
    CellClass.VARIANT_LYMPHOCYTE,
    CellClass.BLAST,
    CellClass.ERYTHROBLAST,
)
"""Keys 1 to 9, the same in every case: fingers learn them."""

ESTIMATED: Final = (*CORE_FIVE, CellClass.IMMATURE_GRANULOCYTE, CellClass.VARIANT_LYMPHOCYTE, CellClass.BLAST)
"""What is estimated by eye in a blind reading."""

LIMITED: Final = {
    "immature.granulocytes": CellClass.IMMATURE_GRANULOCYTE,
    "variant.lymphocytes": CellClass.VARIANT_LYMPHOCYTE,
    "eosinophilia": CellClass.EOSINOPHIL,
    "basophilia": CellClass.BASOPHIL,
    "monocytosis": CellClass.MONOCYTE,
    "lymphocytosis": CellClass.LYMPHOCYTE,
    "lymphopenia": CellClass.LYMPHOCYTE,
    "neutrophilia": CellClass.NEUTROPHIL,
    "neutropenia": CellClass.NEUTROPHIL,
}
"""Flags whose threshold is a percentage of one class: what nodes tell that send no limits."""


@router.get("/cases/{case_id}.json", name="case_json")
def case_json(session: SessionDep, who: SignedIn, case_id: str) -> CaseView:
    """The case as data."""
    return cases.case_view(session, who, case_id)


@router.get("/cases/{case_id}", name="case")
def case_page(request: Request, session: SessionDep, runtime: RuntimeDep, who: SignedIn, case_id: str) -> Response:
    """The reading room."""
    case = cases.case_view(session, who, case_id)
    blind = case.blind
    mine = blind.mine if blind else case.claimed_by_id == who.user_id and case.state in READABLE
    opinions = second_opinions.opinions(session, who, case_id)
    people = [person for person in colleagues.readers(session) if person.id != who.user_id]
    return page(
        request,
        "reading/room.html",
        case=case,
        mine=mine,
        signing_key=secrets.token_urlsafe(),
        blind=blind,
        opinions=opinions,
        asked=next((one for one in opinions if one.kind == "second" and one.saved_at is None), None),
        readable=case.state in READABLE,
        first_images=first_images(case),
        impression=reviews.impression(session, who, case_id),
        key_classes=KEY_CLASSES,
        estimate_classes=ESTIMATED,
        proposal=proposal(case),
        head=head_of(session, who, case),
        forms=forms(runtime.settings),
        colleagues=people,
        data={
            **room_data(case, who, mine=mine, seen=looking.seen_by(session, who, case_id), opinions=opinions),
            "colleagues": [person.model_dump() for person in people],
            **({} if blind else _beside(session, who, case_id, mine=mine)),
        },
    )


def _beside(session: SessionDep, who: Principal, case_id: str, *, mine: bool) -> dict[str, object]:
    """Return what is entered beside the differential, and the phrases at hand."""
    return {
        "findings": findings.view(session, who, case_id).model_dump(mode="json"),
        "phrases": [phrase.model_dump() for phrase in phrases.phrases(session, who)] if mine else [],
    }


@router.get("/cases/{case_id}/history", name="case_history")
def case_history(session: SessionDep, who: SignedIn, case_id: str) -> list[ChangeView]:
    """Every change of a class, newest first."""
    return reviews.history(session, who, case_id)


@router.get("/cases/{case_id}/blobs/{name}", name="case_blob")
def case_blob(session: SessionDep, runtime: RuntimeDep, who: SignedIn, case_id: str, name: str) -> Response:
    """One image, decrypted in memory; the browser may keep it for the length of a reading."""
    content, media_type = viewing.blob(session, runtime, who, case_id, name)
    return Response(content, media_type=media_type, headers={"Cache-Control": "private, max-age=1800"})


@router.get("/cases/{case_id}/images", name="case_images")
def case_images(session: SessionDep, runtime: RuntimeDep, who: SignedIn, case_id: str, name: ImageNames) -> Response:
    """Many images in one answer, in the order asked for: of each its length (4 bytes, the highest first), then itself.

    A gallery of hundreds would else ask hundreds of times who it is and whether it may.
    """
    parts = viewing.images(session, runtime, who, case_id, name)
    content = b"".join(part for image in parts for part in (len(image).to_bytes(4, "big"), image))
    return Response(content, media_type="application/octet-stream", headers={"Cache-Control": "private, max-age=1800"})


@router.get("/cases/{case_id}/compare", name="case_compare")
def case_compare(session: SessionDep, who: SignedIn, case_id: str, label: CellClass) -> Comparison:
    """Signed cells of a class to lay beside the one in question."""
    return comparing.comparison(session, who, case_id, label)


@router.get("/cases/{case_id}/fields/{index}/tiles/{level}_{column}_{row}.jpg", name="case_tile")
def case_tile(
    session: SessionDep, runtime: RuntimeDep, who: SignedIn, case_id: str, index: int, level: int, column: int, row: int
) -> Response:
    """A tile of a field, cut on demand from the image decrypted in memory."""
    place = TilePlace(level=level, column=column, row=row)
    content = viewing.field_tile(session, runtime, who, case_id, index, place)
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=1800"})


def proposal(case: CaseView) -> str:
    """Return the impression proposed for a case in which nothing is corrected: what was counted, and no more."""
    counted = sum(share.count for share in case.differential.values())
    found = [words.flag_line(flag) for flag in case.flags if flag.kind == "morphology"]
    return f"Differential of {counted} white cells as tabled" + (f": {', '.join(found)}." if found else ".")


def first_images(case: CaseView) -> str:
    """Return the address of the pictures that the gallery shows first, as its script asks for them; empty: none.

    The gallery begins with the doubtful cells of all classes; where the AI is hidden all cells are one group.
    """
    cells = case.cells
    if not (case.blind and case.blind.hides_ai):
        cells = sorted(cells, key=lambda cell: (not cell.doubtful, reading_order(cell)[cell.doubtful :]))
    names = [cell.blob for cell in cells if cell.blob][:FIRST_IMAGES]
    return f"/cases/{case.case_id}/images?{urlencode({'name': names}, doseq=True)}" if names else ""


def decision_limits(case: CaseView) -> dict[str, list[float]]:
    """Return class → percentages at which a rule of the hospital fires; of an older node as far as the flags tell."""
    if case.limits:
        return {cls.value: list(limits) for cls, limits in case.limits.items()}
    limits = {LIMITED[flag.id]: flag.evidence.threshold for flag in case.flags if flag.id in LIMITED}
    return {cls.value: [limit] for cls, limit in limits.items() if limit is not None}


def room_data(
    case: CaseView, who: Principal, *, mine: bool, seen: list[CellClass], opinions: list[OpinionView]
) -> dict[str, Any]:  # Any: JSON for the page's script
    """Return what the reading room's script works on."""
    return {
        "impression": next((one.labels for one in opinions if one.kind == "first"), {}),
        "user_id": who.user_id,
        "limits": decision_limits(case),
        "actions": reading_keys.actions(),
        "seen": [cls.value for cls in seen],
        "tiles": {"size": TILE, "overlap": OVERLAP},
        "case": case.model_dump(mode="json"),
        "mine": mine,
        "me": who.display_name,
        "keys": [cls.value for cls in KEY_CLASSES],
        "classes": {
            cls.value: {"name": info.name, "mark": info.mark, "counts": info.counts, "parent": info.parent}
            for cls, info in CLASS_INFO.items()
        },
    }
